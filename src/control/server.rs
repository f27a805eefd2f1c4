//! The operator's side of sheathd: HTTP on a unix socket, asked of whatever stands behind [`Backend`].
//!
//! Who may ask is decided by the socket's mode and group; the peer's uid is logged with everything that changes
//! something. `route` says where each request lives.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{
        ConnectInfo, DefaultBodyLimit, Path, State, connect_info::Connected, rejection::BytesRejection,
    },
    http::{Method, Response, StatusCode, Uri},
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
    serve::IncomingStream,
};
use futures_util::{Stream, StreamExt, stream};
use tokio::{
    net::UnixListener,
    sync::{
        broadcast::{Receiver, error::RecvError},
        watch,
    },
};

use super::api::{Backend, Refusal, Request};
use crate::{
    error::{Context, Error, Kind, Result},
    model::ImageRef,
    status::{EventView, Millis},
};

/// Longest request body: names and one URL.
const MAX_BODY: usize = 64 * 1024;

/// Answers operators until `stop` is ready; requests under way are answered, event streams end.
///
/// # Errors
/// The listener's failure.
pub async fn serve<B: Backend>(
    listener: UnixListener,
    backend: B,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let (stopping, stopped) = watch::channel(false);
    let router = Router::new()
        .route("/v1/events", get(events::<B>))
        .route("/v1/images/{image}/content", get(content::<B>))
        .fallback(ask::<B>)
        .method_not_allowed_fallback(ask::<B>)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Door { backend, stopped })
        .into_make_service_with_connect_info::<Peer>();
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            stop.await;
            stopping.send_replace(true);
        })
        .await
        .attempt(|| "serve operators".to_owned())
}

/// What handlers share.
#[derive(Clone)]
struct Door<B> {
    backend: B,
    /// Turns true when the server stops: a stream that nobody ends would keep it from stopping.
    stopped: watch::Receiver<bool>,
}

/// The user at the other end, as the kernel knows it.
#[derive(Debug, Clone, Copy)]
struct Peer {
    uid: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self { uid: stream.io().peer_cred().ok().map(|peer| peer.uid()) }
    }
}

async fn ask<B: Backend>(
    State(door): State<Door<B>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    method: Method,
    uri: Uri,
    body: std::result::Result<Bytes, BytesRejection>,
) -> Response<Body> {
    let request = body
        .map_err(|e| Error::invalid("read the request's body").because(e))
        .and_then(|body| Request::at(&method, uri.path(), &body));
    let request = match request {
        Ok(request) => request,
        Err(e) => return refuse(&e),
    };
    let changes = request.changes();
    let answer = door.backend.ask(request).await;
    if changes {
        note(peer, &method, uri.path(), answer.as_ref().err());
    }
    match answer {
        Ok(reply) => Json(reply).into_response(),
        Err(e) => refuse(&e),
    }
}

/// Writes down who changed what. Not the body: an import's URL may hold a password.
fn note(peer: Peer, method: &Method, path: &str, refused: Option<&Error>) {
    let uid = peer.uid.map_or_else(|| "?".to_owned(), |uid| uid.to_string());
    match refused {
        None => log::info!(SHEATH_UID = uid.as_str(); "uid {uid}: {method} {path} is accepted"),
        Some(e) => {
            log::warn!(SHEATH_UID = uid.as_str(); "uid {uid}: {method} {path} is refused: {}", e.chain())
        }
    }
}

fn refuse(error: &Error) -> Response<Body> {
    (status(error.kind()), Json(Refusal::from(error))).into_response()
}

/// Returns the HTTP status that stands for an error of this kind.
fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::Denied => StatusCode::FORBIDDEN,
        Kind::Missing => StatusCode::NOT_FOUND,
        Kind::Exists | Kind::Busy => StatusCode::CONFLICT,
        Kind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        Kind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Kind::Full => StatusCode::INSUFFICIENT_STORAGE,
    }
}

async fn events<B: Backend>(State(door): State<Door<B>>) -> impl IntoResponse {
    let (backlog, live) = door.backend.events();
    let last = backlog.last().map_or(0, |event| event.seq);
    let events = stream::iter(backlog).chain(follow(live, last, door.stopped));
    Sse::new(events.map(|event| Event::default().id(event.seq.to_string()).json_data(&event)))
        .keep_alive(KeepAlive::default())
}

/// Sends an image. It is written down who got it: whatever is in it is out of our hands then.
async fn content<B: Backend>(
    State(door): State<Door<B>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    method: Method,
    uri: Uri,
    Path(image): Path<String>,
) -> Response<Body> {
    let content = match image.parse::<ImageRef>() {
        Ok(image) => door.backend.content(image).await,
        Err(e) => Err(e),
    };
    note(peer, &method, uri.path(), content.as_ref().err());
    match content {
        Ok(pieces) => {
            let pieces = stream::unfold(pieces, |mut pieces| async move {
                pieces.recv().await.map(|piece| (Ok::<_, std::convert::Infallible>(piece), pieces))
            });
            Body::from_stream(pieces).into_response()
        }
        Err(e) => refuse(&e),
    }
}

/// Where a stream of live events is.
struct Following {
    live: Receiver<EventView>,
    /// The last event that was sent.
    last: u64,
    stopped: watch::Receiver<bool>,
}

/// Returns the events after `last` as they come, until the sender or the server ends.
fn follow(
    live: Receiver<EventView>,
    last: u64,
    stopped: watch::Receiver<bool>,
) -> impl Stream<Item = EventView> {
    stream::unfold(Following { live, last, stopped }, |mut at| async move {
        loop {
            let next = tokio::select! {
                next = at.live.recv() => next,
                _ = at.stopped.wait_for(|stopped| *stopped) => return None,
            };
            match next {
                // The backlog had it already.
                Ok(event) if event.seq <= at.last => {}
                Ok(event) => {
                    at.last = event.seq;
                    return Some((event, at));
                }
                Err(RecvError::Lagged(missed)) => return Some((lagged(at.last, missed), at)),
                Err(RecvError::Closed) => return None,
            }
        }
    })
}

/// Returns the event that tells a slow reader that it missed some.
fn lagged(last: u64, missed: u64) -> EventView {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    EventView {
        seq: last,
        at: Millis::try_from(now.as_millis()).unwrap_or(Millis::MAX),
        kind: "lagged".to_owned(),
        slot: None,
        blade: None,
        image: None,
        text: format!("{missed} events were missed: this reader is too slow"),
    }
}

#[cfg(test)]
mod tests;
