//! Connections of blades: how many, for how long, how much they may send.
//!
//! A blade is somebody else's machine. What it can take from the others is bounded here, before a byte of it is
//! believed: a slow or greedy peer loses its own connections, nobody else's. What is said over them is `server`'s.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{Method, Request, Response, StatusCode, header},
};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// What a blade may use up.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections of all blades: a whole chassis that restarts, each blade waiting for its late answer.
    pub total: usize,
    /// Connections of one address. iPXE uses one at a time; a few may be dying.
    pub per_peer: usize,
    /// How long a request's head may take from the connection's first moment.
    pub head: Duration,
    /// How long a connection may live: the longest answer, and some time to send it.
    pub life: Duration,
    /// How long one may live that fetches a donor's Linux: some 100 MiB.
    pub download: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            total: 2048,
            per_peer: 8,
            head: Duration::from_secs(5),
            life: Duration::from_secs(40),
            download: Duration::from_secs(900),
        }
    }
}

/// What is below this path takes long to send.
pub(super) const DOWNLOADS: &str = "/v1/workshop/";
/// Longest path and query: several times what our scripts send.
const MAX_TARGET: usize = 2048;
/// Longest request head; also the smallest buffer that hyper accepts.
const MAX_HEAD: usize = 8192;
/// Most header lines: iPXE sends four.
const MAX_HEADERS: usize = 24;
/// How long requests under way may take when the server stops.
const GRACE: Duration = Duration::from_secs(5);
/// Pause when the process has no file descriptor left: connections must end before it makes sense to go on.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);
/// Refused connections are logged this often at most: a flood must not fill the journal.
const QUIET: Duration = Duration::from_secs(10);

/// The two ends of a connection, as the kernel knows them; nothing of a request is believed about this.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    /// The blade's address.
    pub(super) peer: Ipv4Addr,
    /// The address that it reached us at, and can reach us at again.
    pub(super) local: SocketAddrV4,
}

/// Serves `router` to blades until `stop` is ready, then lets requests under way finish.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let mut open = JoinSet::new();
    let peers = Peers::default();
    let mut refused = Refused::default();
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            Some(_) = open.join_next(), if !open.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let Some(ends) = ends(&stream) else { continue };
                match peers.enter(ends.peer, limits.per_peer).filter(|_| open.len() < limits.total) {
                    Some(ticket) => drop(open.spawn(one(stream, ends, router.clone(), limits, ticket))),
                    None => refused.note(ends.peer),
                }
            }
            Err(e) if is_exhaustion(&e) => {
                log::warn!("accepting blades' connections pauses: {e}");
                sleep(EXHAUSTED_PAUSE).await;
            }
            Err(e) => log::debug!("a connection was gone before it was accepted: {e}"),
        }
    }
    // A blade that comes now is better off with a refused connection: it tries again, and meets our successor.
    drop(listener);
    let all = async { while open.join_next().await.is_some() {} };
    if timeout(GRACE, all).await.is_err() {
        log::debug!("connections that did not end in time are cut off");
    }
}

/// Returns whether the process or the machine ran out of something that other connections give back.
fn is_exhaustion(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM))
}

fn ends(stream: &TcpStream) -> Option<Ends> {
    match (stream.peer_addr().ok()?, stream.local_addr().ok()?) {
        (SocketAddr::V4(peer), SocketAddr::V4(local)) => Some(Ends { peer: *peer.ip(), local }),
        // We listen on IPv4 addresses alone: iPXE's iBFT holds nothing else.
        _ => None,
    }
}

/// Serves one connection: one request, then it is closed.
async fn one(stream: TcpStream, ends: Ends, router: Router, limits: Limits, _ticket: Ticket) {
    let router = TowerToHyperService::new(router);
    let (downloads, long) = (Arc::new(AtomicBool::new(false)), limits.download.saturating_sub(limits.life));
    let noted = Arc::clone(&downloads);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ends);
        noted.store(request.uri().path().starts_with(DOWNLOADS), Ordering::Relaxed);
        let answer = over_limit(&request).map_or_else(|| Ok(router.call(request)), Err);
        async move {
            match answer {
                Ok(answer) => answer.await,
                Err((status, why)) => {
                    log::warn!("a request of {} is refused: {why}", ends.peer);
                    Ok(plain(status, why))
                }
            }
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let mut served = timeout(limits.life, &mut serving).await;
    if served.is_err() && downloads.load(Ordering::Relaxed) {
        served = timeout(long, serving).await;
    }
    match served {
        Ok(Ok(())) => {}
        Ok(Err(e)) => log::debug!("a connection of {} broke off: {e}", ends.peer),
        Err(_) => log::debug!("a connection of {} was cut off: it took too long", ends.peer),
    }
}

/// Returns why a request is refused before anybody looks at its words.
fn over_limit(request: &Request<Incoming>) -> Option<(StatusCode, &'static str)> {
    if request.method() != Method::GET {
        return Some((StatusCode::METHOD_NOT_ALLOWED, "only GET is answered"));
    }
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > MAX_TARGET {
        return Some((StatusCode::URI_TOO_LONG, "its URL is too long"));
    }
    (!request.body().is_end_stream()).then_some((StatusCode::PAYLOAD_TOO_LARGE, "it brings a body"))
}

/// Returns a one-line text answer.
pub(super) fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut answer = Response::new(Body::from(format!("{text}\n")));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
    answer
}

/// How many connections each address has.
#[derive(Debug, Clone, Default)]
struct Peers(Arc<Mutex<BTreeMap<Ipv4Addr, usize>>>);

/// One connection's place among its peer's; given back when dropped.
#[derive(Debug)]
struct Ticket {
    peers: Peers,
    peer: Ipv4Addr,
}

impl Peers {
    fn enter(&self, peer: Ipv4Addr, most: usize) -> Option<Ticket> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(peer).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Ticket { peers: self.clone(), peer })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut open = self.peers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.peer);
            }
        }
    }
}

/// Refused connections since the last line about them.
#[derive(Debug, Default)]
struct Refused {
    count: u64,
    said: Option<Instant>,
}

impl Refused {
    fn note(&mut self, peer: Ipv4Addr) {
        self.count += 1;
        if self.said.is_none_or(|at| at.elapsed() >= QUIET) {
            log::warn!("too many connections: {} refused, the last one of {peer}", self.count);
            *self = Self { count: 0, said: Some(Instant::now()) };
        }
    }
}
