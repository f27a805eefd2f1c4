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
use tokio::net::{UnixListener, UnixStream};

use crate::error::{Context, Error, Kind, Result};

/// Opens a socket at `path` with this mode; its group is the process's own.
///
/// A socket that a killed predecessor left is replaced; one that somebody listens on is not. The socket appears under
/// its name with its mode: it is made beside it and renamed, so there is no moment in which others may connect.
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
        Ok(_) => Err(Error::new(Kind::Busy, what()).because("another process listens on it already")),
    }
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
    let what = || format!("ask sheathd at '{}'", socket.display());
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
    body.map(http_body_util::Collected::to_bytes)
        .map_err(|e| Error::new(Kind::Failed, "read sheathd's answer").because(e))
}

/// Returns the error for a socket that could not be connected to, with the way out.
fn away(socket: &Path, cause: std::io::Error) -> Error {
    let at = socket.display();
    let (kind, what) = match cause.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            (Kind::Missing, format!("sheathd does not run ('{at}'): systemctl start sheathd"))
        }
        ErrorKind::PermissionDenied => {
            (Kind::Denied, format!("'{at}' is not for this user: be root or a member of group sheath"))
        }
        _ => (Kind::of_io(&cause), format!("ask sheathd at '{at}'")),
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
                // The second time round, a dead socket is there.
                let _ = bind(&path, 0o600).map(drop);
            }
        });
    }
}
