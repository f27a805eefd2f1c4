//! The operator's end of the control socket, for the command line: plain blocking calls.
//!
//! Each call connects anew and says its errors with the kind that sheathd gave them. What is printed is `cli`'s.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::body::Bytes;
use http_body_util::BodyExt;
use hyper::{Method, StatusCode, body::Incoming};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use super::{
    api::{Refusal, Reply, Request},
    content::Pieces,
    unix,
};
use crate::{
    error::{Context, Error, Kind, Result},
    model::ImageRef,
    status::EventView,
};

/// How long an answer may take. Requests that start long work are answered at once; a plan looks at every volume.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// Longest answer: some thousand blades.
const MAX_ANSWER: usize = 32 * 1024 * 1024;
/// Longest line of the event stream.
const MAX_EVENT: usize = 256 * 1024;

/// A client of one socket.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

impl Client {
    /// Returns a client; nothing is connected yet.
    ///
    /// # Errors
    /// The system's refusal to watch sockets.
    pub fn new(socket: &Path) -> Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .attempt(|| "prepare to ask sheathd".to_owned())?;
        Ok(Self { socket: socket.to_owned(), runtime })
    }

    /// Asks sheathd.
    ///
    /// # Errors
    /// sheathd's refusal with its kind; [`Kind::Missing`] where it does not run, [`Kind::Denied`] where the socket is
    /// not for this user, [`Kind::Timeout`] where it does not answer.
    pub fn ask(&self, request: &Request) -> Result<Reply> {
        let route = request.route();
        let asking = async {
            let (status, body) = unix::send(&self.socket, route.method, &route.path, route.body).await?;
            let bytes = unix::whole(body, MAX_ANSWER).await?;
            if status == StatusCode::OK { request.reply(&bytes) } else { Err(refusal(status, &bytes)) }
        };
        self.runtime.block_on(async {
            let late = || Error::new(Kind::Timeout, "ask sheathd: no answer in time");
            timeout(ANSWER_DEADLINE, asking).await.unwrap_or_else(|_| Err(late()))
        })
    }

    /// Gives each piece of an image's content to `each`, and returns its size.
    ///
    /// # Errors
    /// As [`Client::ask`]; [`Kind::Denied`] when this process is interrupted; else what `each` says.
    pub fn content(&self, image: &ImageRef, each: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<u64> {
        let reading = async {
            let path = format!("/v1/images/{image}/content");
            let (status, mut body) = unix::send(&self.socket, Method::GET, &path, Vec::new()).await?;
            if status != StatusCode::OK {
                return Err(refusal(status, &unix::whole(body, MAX_ANSWER).await?));
            }
            let mut pieces = Pieces::default();
            while let Some(bytes) = next(&mut body).await? {
                pieces.take(&bytes, each)?;
            }
            pieces.finish()
        };
        self.runtime.block_on(async {
            tokio::select! {
                read = reading => read,
                () = interruption() => Err(Error::new(Kind::Denied, "interrupted; nothing is left of it")),
            }
        })
    }

    /// Gives each event to `each`, the recent ones first, until it breaks off or sheathd stops.
    ///
    /// # Errors
    /// As [`Client::ask`]; also a stream that is not ours.
    pub fn events(&self, mut each: impl FnMut(EventView) -> ControlFlow<()>) -> Result<()> {
        self.runtime.block_on(async {
            let (status, mut body) = unix::send(&self.socket, Method::GET, "/v1/events", Vec::new()).await?;
            if status != StatusCode::OK {
                return Err(refusal(status, &unix::whole(body, MAX_ANSWER).await?));
            }
            let mut lines = Lines::default();
            while let Some(bytes) = next(&mut body).await? {
                for event in lines.take(&bytes)? {
                    if each(event).is_break() {
                        return Ok(());
                    }
                }
            }
            Ok(())
        })
    }
}

/// Is ready when somebody wants this process to end: at Ctrl-C, or when it is terminated.
async fn interruption() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// Returns the error that sheathd refused with.
fn refusal(status: StatusCode, bytes: &[u8]) -> Error {
    match serde_json::from_slice(bytes) {
        Ok(Refusal { kind, message }) => Error::new(kind, message),
        Err(_) => Error::new(Kind::Failed, format!("ask sheathd: it answered {status}")),
    }
}

async fn next(body: &mut Incoming) -> Result<Option<Bytes>> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Error::new(Kind::Failed, "read what sheathd sends").because(e))?;
        if let Ok(bytes) = frame.into_data() {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

/// A stream of server-sent events, cut into lines. Each of our events is one `data:` line.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    /// Returns the events that `bytes` complete.
    fn take(&mut self, bytes: &[u8]) -> Result<Vec<EventView>> {
        let mut events = Vec::new();
        for part in bytes.split_inclusive(|&c| c == b'\n') {
            self.0.extend_from_slice(part);
            if self.0.len() > MAX_EVENT {
                return Err(Error::new(Kind::Failed, "follow sheathd's events: a line is too long"));
            }
            if part.ends_with(b"\n") {
                events.extend(event(&self.0)?);
                self.0.clear();
            }
        }
        Ok(events)
    }
}

fn event(line: &[u8]) -> Result<Option<EventView>> {
    let Some(data) = line.strip_prefix(b"data:") else { return Ok(None) };
    serde_json::from_slice(data)
        .map(Some)
        .map_err(|e| Error::new(Kind::Failed, "follow sheathd's events: a line is not an event").because(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_however_the_stream_is_cut() {
        let event = r#"{"seq":7,"at":1,"kind":"seen","slot":"3","blade":null,"image":null,"text":"x"}"#;
        let stream = format!(": hello\n\nid: 7\ndata: {event}\n\ndata:{event}\n");
        for cut in 0..stream.len() {
            let mut lines = Lines::default();
            let (first, second) = stream.as_bytes().split_at(cut);
            let mut events = lines.take(first).unwrap();
            events.extend(lines.take(second).unwrap());
            assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [7, 7]);
        }
    }

    #[test]
    fn an_endless_line_ends_the_stream() {
        let mut lines = Lines::default();
        assert!((0..).map(|_| lines.take(&[b'x'; 1024])).take(300).any(|taken| taken.is_err()));
    }
}
