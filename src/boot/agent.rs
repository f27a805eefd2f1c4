//! sheathd's side of the boot door: HTTP and JSON over a unix socket that only sheath-bootd may open.
//!
//! Turns bytes into a [`BootRequest`] and an [`Answer`] into bytes. Who the blade is and what it gets is decided by
//! whatever stands behind [`BootBackend`].

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    routing::post,
};
use tokio::net::UnixListener;

use super::wire::{Answer, BootRequest};
use crate::error::{Context, Result};

/// Where sheath-bootd asks.
pub const SOCKET: &str = "/run/sheath/boot.sock";
/// The one path of this door.
pub(crate) const PATH: &str = "/v1/boot";
/// Longest question: a request's words are all short.
const MAX_BODY: usize = 16 * 1024;

/// What answers blades: the daemon, or a stand-in in a test.
pub trait BootBackend: Clone + Send + Sync + 'static {
    /// Returns what this blade shall do. A late answer is fine up to some ten seconds: the blade shows the last message.
    fn answer(&self, request: BootRequest) -> impl Future<Output = Answer> + Send;
}

/// Answers sheath-bootd until `stop` is ready; questions under way are answered first.
///
/// # Errors
/// The listener's failure.
pub async fn serve<B: BootBackend>(
    listener: UnixListener,
    backend: B,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let router = Router::new()
        .route(PATH, post(answer::<B>))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(backend);
    axum::serve(listener, router)
        .with_graceful_shutdown(stop)
        .await
        .attempt(|| "serve sheath-bootd".to_owned())
}

async fn answer<B: BootBackend>(
    State(backend): State<B>,
    body: Bytes,
) -> std::result::Result<Json<Answer>, (StatusCode, String)> {
    let request: BootRequest = serde_json::from_slice(&body).map_err(|e| {
        log::warn!("a question of sheath-bootd is refused: {e}");
        (StatusCode::BAD_REQUEST, e.to_string())
    })?;
    Ok(Json(backend.answer(request).await))
}

#[cfg(test)]
mod tests {
    use hyper::Method;

    use super::*;
    use crate::control::unix;

    #[derive(Clone)]
    struct Never;

    impl BootBackend for Never {
        async fn answer(&self, request: BootRequest) -> Answer {
            panic!("nobody asks this: {request:?}")
        }
    }

    #[test]
    fn what_is_no_question_reaches_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("boot.sock");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::spawn(serve(unix::bind(&socket, 0o600).unwrap(), Never, std::future::pending()));
            for (method, path, body, status) in [
                (Method::POST, PATH, b"{}".to_vec(), StatusCode::BAD_REQUEST),
                (Method::POST, PATH, vec![b'['; MAX_BODY], StatusCode::BAD_REQUEST),
                (Method::POST, PATH, vec![b' '; MAX_BODY + 1], StatusCode::PAYLOAD_TOO_LARGE),
                (Method::GET, PATH, Vec::new(), StatusCode::METHOD_NOT_ALLOWED),
                (Method::POST, "/v1/status", Vec::new(), StatusCode::NOT_FOUND),
            ] {
                let (answered, _) = unix::send(&socket, method, path, body).await.unwrap();
                assert_eq!(answered, status, "{path}");
            }
        });
    }
}
