//! The HTTP server that blades talk to: a question in a URL, an iPXE script as the answer.
//!
//! It runs in sheath-bootd, without privileges. It knows one thing for sure, the address at the other end of the
//! connection; everything else is a claim that it passes on to sheathd. `connections` bounds what a blade can use up,
//! `query` reads its words, `script` writes the answer, `download` has the only files.
//!
//! | path | question |
//! |---|---|
//! | `GET /v1/start.ipxe` | none: a constant script that asks until the appliance answers |
//! | `GET /v1/boot` | [`Ask::Start`](super::wire::Ask::Start) |
//! | `GET /v1/menu` | [`Ask::Menu`](super::wire::Ask::Menu) |
//! | `GET /v1/choose` | [`Ask::Choose`](super::wire::Ask::Choose) |
//! | `GET /v1/failed` | [`Ask::BootFailed`](super::wire::Ask::BootFailed) |
//! | `GET /v1/report` | [`Ask::Report`](super::wire::Ask::Report), of a donor's small Linux: the answer is its status |
//! | `GET /v1/workshop/vmlinuz`, `…/initrd` | none: that small Linux |

use std::{net::Ipv4Addr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, RawQuery, State},
    http::{Method, Response, StatusCode},
    routing::get,
};
use tokio::{net::TcpListener, time::timeout};

pub use super::connections::Limits;
use super::{
    agent,
    connections::{self, DOWNLOADS, Ends, plain},
    download,
    query::Words,
    script,
    wire::{Answer, BootRequest},
};
use crate::{
    control::unix,
    error::{Error, Kind, Result},
};

/// How long sheathd may take: it holds back an answer for about ten seconds while work is under way.
const ANSWER_DEADLINE: Duration = Duration::from_secs(25);
/// Longest answer of sheathd: a menu of all images fits many times over.
const MAX_ANSWER: usize = 256 * 1024;
/// How long a blade sleeps when sheathd is away.
const AWAY_SLEEP: u32 = 5;

/// Serves blades until `stop` is ready, asking sheathd at the socket `agent`; `donor` is where a donor's Linux is.
pub async fn serve(
    listener: TcpListener,
    (agent, donor): (PathBuf, PathBuf),
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let router = Router::new()
        .route("/v1/start.ipxe", get(start))
        .route("/v1/boot", get(|agent, ends, query| answer(agent, ends, query, Words::start)))
        .route("/v1/menu", get(|agent, ends, query| answer(agent, ends, query, Words::menu)))
        .route("/v1/choose", get(|agent, ends, query| answer(agent, ends, query, Words::choose)))
        .route("/v1/failed", get(|agent, ends, query| answer(agent, ends, query, Words::failed)))
        .route("/v1/report", get(report))
        .route(&format!("{DOWNLOADS}{{name}}"), get(workshop))
        .fallback(async || plain(StatusCode::NOT_FOUND, "there is nothing here"))
        .with_state(Arc::new(Places { agent, donor }));
    connections::serve(listener, router, limits, stop).await;
}

/// What an answer is made of.
#[derive(Debug)]
struct Places {
    /// sheathd's socket.
    agent: PathBuf,
    /// The folder of a donor's Linux.
    donor: PathBuf,
}

async fn workshop(State(places): State<Arc<Places>>, Path(name): Path<String>) -> Response<Body> {
    download::answer(&places.donor, &name)
}

/// A donor's report. What comes back is a status: 200 to go on, 409 to stop and why, 503 to say it again.
async fn report(
    State(places): State<Arc<Places>>,
    Extension(ends): Extension<Ends>,
    RawQuery(query): RawQuery,
) -> Response<Body> {
    let words = Words::parse(query.as_deref().unwrap_or_default());
    let request = match words.report(ends.peer) {
        Ok(request) => request,
        Err(e) => return plain(StatusCode::BAD_REQUEST, &e.to_string()),
    };
    match ask(&places.agent, &request).await {
        Ok(Answer::Heard) => plain(StatusCode::OK, "go on"),
        Ok(Answer::Refused { message }) => plain(StatusCode::CONFLICT, &message),
        Ok(_) | Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, "say it again"),
    }
}

async fn start(Extension(ends): Extension<Ends>) -> Response<Body> {
    log::debug!("{} starts", ends.peer);
    plain_script(&script::start(&base(ends)))
}

async fn answer(
    State(places): State<Arc<Places>>,
    Extension(ends): Extension<Ends>,
    RawQuery(query): RawQuery,
    read: fn(Words, Ipv4Addr) -> Result<BootRequest>,
) -> Response<Body> {
    let words = Words::parse(query.as_deref().unwrap_or_default());
    let request = match read(words, ends.peer) {
        Ok(request) => request,
        Err(e) => {
            log::warn!("a question of {} is refused: {}", ends.peer, e.chain());
            return plain(StatusCode::BAD_REQUEST, &e.to_string());
        }
    };
    let asked = request.ask.clone();
    let answer = ask(&places.agent, &request).await.unwrap_or_else(|e| {
        log::warn!("a question of {} waits: {}", ends.peer, e.chain());
        let message = "The appliance is starting. Trying again".to_owned();
        Answer::Wait { message, seconds: AWAY_SLEEP }
    });
    log::debug!("{} asked {}, is told {}", ends.peer, asked.word(), answer.word());
    plain_script(&script::render(&answer, &base(ends)))
}

/// Asks sheathd.
async fn ask(agent: &std::path::Path, request: &BootRequest) -> Result<Answer> {
    let body = serde_json::to_vec(request).expect("a question is plain data");
    let asking = async {
        let (status, body) = unix::send(agent, Method::POST, agent::PATH, body).await?;
        let body = unix::whole(body, MAX_ANSWER).await?;
        if status != StatusCode::OK {
            return Err(Error::new(Kind::Failed, format!("ask sheathd: it answered {status}")));
        }
        // The cause would quote the answer, which may hold a password.
        serde_json::from_slice(&body)
            .map_err(|e| Error::new(Kind::Failed, format!("read sheathd's answer, column {}", e.column())))
    };
    timeout(ANSWER_DEADLINE, asking)
        .await
        .unwrap_or_else(|_| Err(Error::new(Kind::Timeout, "ask sheathd: no answer in time")))
}

fn base(ends: Ends) -> String {
    format!("http://{}", ends.local)
}

fn plain_script(text: &str) -> Response<Body> {
    plain(StatusCode::OK, text.trim_end())
}

#[cfg(test)]
mod tests;
