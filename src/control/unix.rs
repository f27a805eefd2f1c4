//! Unix sockets: how ours are made, and the small HTTP client that asks over them.
//!
//! Both doors of sheathd (the operator's and sheath-bootd's) are opened and knocked at with what is here. What is said
//! through them is `api`'s and `boot::wire`'s.

use std::{
    fs::{self, Permissions},
    io::ErrorKind,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixStream as StdStream,
    },
    path::Path,
};

use axum::body::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, body::Incoming, header};
use hyper_util::rt::TokioIo;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use tokio::net::{UnixListener, UnixStream};

use crate::error::{Context, Error, Kind, Result};

/// What the errors begin with that tell of no answer at all.
const ASK: &str = "ask sheathd at '";
const ANSWER: &str = "read sheathd's answer";
/// What the error begins with where nobody listens.
pub const NOT_RUNNING: &str = "sheathd does not run ('";

/// Returns whether nobody was there to answer, or went away before the answer was whole: a restart of the agent.
pub fn is_away(error: &Error) -> bool {
    let text = error.to_string();
    matches!(error.kind(), Kind::Missing | Kind::Failed)
        && [ASK, ANSWER, NOT_RUNNING].iter().any(|begin| text.starts_with(begin))
}

/// Opens a socket at `path` with this mode; its group is the process's own.
///
/// A socket that a killed predecessor left is replaced, even one that still takes connections because a thread of its hangs
/// in the kernel; one that somebody listens on is not. The socket appears under its name with its mode: it is made beside it and renamed, so there is no moment in which others may connect.
///
/// # Errors
/// [`Kind::Busy`] where somebody listens already, [`Kind::Exists`] where something else than a socket is in the way.
pub fn bind(path: &Path, mode: u32) -> Result<UnixListener> {
    let what = || format!("listen on '{}'", path.display());
    refuse_if_taken(path)?;
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let temp = path.with_file_name(name);
    match fs::remove_file(&temp) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(Error::io(what(), e)),
        _ => {}
    }
    let listener = UnixListener::bind(&temp).attempt(what)?;
    fs::set_permissions(&temp, Permissions::from_mode(mode)).attempt(what)?;
    fs::rename(&temp, path).attempt(what)?;
    Ok(listener)
}

fn refuse_if_taken(path: &Path) -> Result<()> {
    let what = || format!("listen on '{}'", path.display());
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io(what(), e)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(Error::new(Kind::Exists, what()).because("something that is no socket is in the way"));
        }
        Ok(_) => {}
    }
    match StdStream::connect(path) {
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(e) => Err(Error::io(what(), e)),
        Ok(stream) if listener_is_dead(&stream, Path::new("/proc")) => Ok(()),
        Ok(_) => Err(Error::new(Kind::Busy, what()).because("another process listens on it already")),
    }
}

/// Returns whether the listener at the other end has been killed.
///
/// A thread that hangs in the kernel keeps its process's files open until it comes back: the dead process's socket takes
/// connections that nobody will ever answer. One whose state cannot be read counts as alive.
fn listener_is_dead(stream: &StdStream, proc: &Path) -> bool {
    let Ok(peer) = getsockopt(stream, PeerCredentials) else { return false };
    fs::read_to_string(proc.join(peer.pid().to_string()).join("stat")).is_ok_and(|stat| is_zombie(&stat))
}

/// Returns whether a process is dead, by its `stat`: the state follows the name, which may hold anything, brackets too.
fn is_zombie(stat: &str) -> bool {
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// Sends one request and returns the answer's status and its body, still to be read.
///
/// # Errors
/// [`Kind::Missing`] where nobody listens, [`Kind::Denied`] where the socket is not for us.
pub(crate) async fn send(
    socket: &Path,
    method: Method,
    target: &str,
    body: Vec<u8>,
) -> Result<(StatusCode, Incoming)> {
    let what = || format!("{ASK}{}'", socket.display());
    let stream = UnixStream::connect(socket).await.map_err(|e| away(socket, e))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| Error::new(Kind::Failed, what()).because(e))?;
    // The connection ends with its one request: when the answer is read, or when the caller drops it.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header(header::HOST, "sheathd")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| Error::invalid(what()).because(e))?;
    let response =
        sender.send_request(request).await.map_err(|e| Error::new(Kind::Failed, what()).because(e))?;
    Ok((response.status(), response.into_body()))
}

/// Returns the whole body, at most `limit` bytes of it.
///
/// # Errors
/// A longer body, or a connection that broke off.
pub(crate) async fn whole(body: Incoming, limit: usize) -> Result<Bytes> {
    let body = Limited::new(body, limit).collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|e| Error::new(Kind::Failed, ANSWER).because(e))
}

/// Returns the error for a socket that could not be connected to, with the way out.
fn away(socket: &Path, cause: std::io::Error) -> Error {
    let at = socket.display();
    let (kind, what) = match cause.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            (Kind::Missing, format!("{NOT_RUNNING}{at}'): systemctl start sheathd"))
        }
        ErrorKind::PermissionDenied => {
            (Kind::Denied, format!("'{at}' is not for this user: be root or a member of group sheath"))
        }
        _ => (Kind::of_io(&cause), format!("{ASK}{at}'")),
    };
    Error::new(kind, what).because(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        runtime().block_on(async {
            let first = bind(&path, 0o660).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
            assert_eq!(bind(&path, 0o660).unwrap_err().kind(), Kind::Busy);
            drop(first);
            bind(&path, 0o600).unwrap();
        });
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_listener_that_was_killed_is_told_from_one_that_lives() {
        assert!(is_zombie("491 (sheathd) Z 1 491 491 0 -1"));
        assert!(!is_zombie("491 (a) Z 1) S 1 491 491 0 -1"), "a name that lies");
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join(std::process::id().to_string());
        fs::create_dir(&own).unwrap();
        let (stream, _other) = StdStream::pair().unwrap();
        for (state, dead) in [("S", false), ("Z", true)] {
            #[allow(clippy::disallowed_methods, reason = "a test's own folder")]
            fs::write(own.join("stat"), format!("1 (sheathd) {state} 1")).unwrap();
            assert_eq!(listener_is_dead(&stream, dir.path()), dead);
        }
        fs::remove_file(own.join("stat")).unwrap();
        assert!(!listener_is_dead(&stream, dir.path()), "not known to be dead");
    }

    #[test]
    fn an_agent_that_goes_away_before_its_answer_is_away_and_one_that_refuses_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        runtime().block_on(async {
            let listener = bind(&path, 0o600).unwrap();
            let ends = tokio::spawn(async move { listener.accept().await.map(drop) });
            assert!(is_away(&send(&path, Method::GET, "/", Vec::new()).await.unwrap_err()));
            ends.await.unwrap().unwrap();
        });
        assert!(!is_away(&Error::new(Kind::Missing, "there is no image 'x'")));
        assert!(!is_away(&Error::new(Kind::Denied, "ask sheathd at '/s'")), "waiting helps nobody here");
    }

    #[test]
    fn a_file_in_the_way_is_never_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        fs::File::create(&path).unwrap();
        runtime().block_on(async {
            assert_eq!(bind(&path, 0o600).unwrap_err().kind(), Kind::Exists);
        });
        assert!(path.is_file());
    }

    #[test]
    fn nobody_at_home_says_how_to_start_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        runtime().block_on(async {
            for _ in 0..2 {
                let error = send(&path, Method::GET, "/", Vec::new()).await.unwrap_err();
                assert_eq!(error.kind(), Kind::Missing);
                assert!(error.to_string().contains("systemctl start sheathd"));
                assert!(is_away(&error));
                // The second time round, a dead socket is there.
                let _ = bind(&path, 0o600).map(drop);
            }
        });
    }
}
