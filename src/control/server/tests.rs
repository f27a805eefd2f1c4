//! The operator's door over a real socket: the client of the command line on one side, a stand-in on the other.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    ops::ControlFlow,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use tokio::sync::{broadcast, oneshot};

use super::*;
use crate::{
    control::{
        api::{Adopt, ImportRequest, PromoteRequest, Reply},
        client::Client,
        route::tests::each,
        unix,
    },
    host::{Counters, SessionKind, TargetSummary},
    model::{Bytes, Checkup, Finding, Firmware, Hardware, Judgement, PoolUsage},
    observed::{Refusal, RefusalCause},
    plan::Step,
    status::{
        BladePhase, BladeView, ImageDetail, ImageView, ImportProgress, Moment, Pace, Phase, PlanView,
        Problem, ProofLog, RefusedLogin, SessionView, Sessions, SlotView, Status, Task, WorkProgress,
        WorkResult, WorkView,
    },
};

/// A stand-in for the daemon: remembers requests, answers each with a full reply, refuses on request.
#[derive(Clone)]
struct StandIn {
    asked: Arc<Mutex<Vec<Request>>>,
    refuse: Option<Kind>,
    backlog: Vec<EventView>,
    live: broadcast::Sender<EventView>,
}

impl StandIn {
    fn new() -> Self {
        Self { asked: Arc::default(), refuse: None, backlog: Vec::new(), live: broadcast::channel(4).0 }
    }
}

impl Backend for StandIn {
    async fn ask(&self, request: Request) -> Result<Reply> {
        let reply = reply(&request);
        self.asked.lock().unwrap().push(request);
        let refusal = |kind| Error::new(kind, "install 'x'").because(Error::invalid("the cause"));
        self.refuse.map_or(Ok(reply), |kind| Err(refusal(kind)))
    }

    fn events(&self) -> (Vec<EventView>, broadcast::Receiver<EventView>) {
        (self.backlog.clone(), self.live.subscribe())
    }
}

fn reply(request: &Request) -> Reply {
    match request {
        Request::Status => Reply::Status(Box::new(a_status())),
        Request::Blades => Reply::Blades(vec![a_blade()]),
        Request::Images => Reply::Images(vec![an_image()]),
        Request::Targets => Reply::Targets(vec![a_target()]),
        Request::Plan | Request::Grow { dry_run: true, .. } | Request::Adopt(Adopt { dry_run: true, .. }) => {
            Reply::Plan(vec![a_plan()])
        }
        Request::Sessions => Reply::Sessions(sessions()),
        Request::Donors => Reply::Donors(vec![]),
        Request::Image { .. } => Reply::Image(Box::new(ImageDetail {
            view: an_image(),
            manifest: None,
            clones: vec![],
            space_unknown: Some("why".into()),
        })),
        Request::Promote(PromoteRequest { dry_run: true, .. }) => Reply::Plan(vec![a_plan()]),
        Request::ImportProgress { .. } | Request::NextProgress { .. } => {
            Reply::ImportProgress(ImportProgress::Failed { error: "why".into(), kind: Kind::Full })
        }
        Request::WorkProgress { .. } => Reply::Work(Box::new(a_work())),
        Request::ImageLog { image, .. } => Reply::ImageLog(Box::new(ProofLog {
            image: crate::model::ImageId::new(image.name.clone(), crate::model::Version::FIRST),
            firmware: Firmware::Bios,
            at: 3,
            text: "\u{1b}[2Jlogin:\r\n".into(),
        })),
        _ => Reply::Accepted { message: "it is done".into() },
    }
}

fn a_work() -> WorkView {
    let finding = Finding {
        about: "uefi".into(),
        judgement: Judgement::Missing,
        text: "no loader".into(),
        fix: Some("sheath image seal".into()),
        firmware: Some(Firmware::Uefi),
        fatal: true,
    };
    let checkup = Checkup { system: None, kernel: None, bios: true, uefi: false, findings: vec![finding] };
    WorkView {
        task: Task::Check,
        begun: 5,
        phases: vec![Phase { name: "looking".into(), millis: 7 }],
        progress: WorkProgress::Done { result: Box::new(WorkResult::Checkup(checkup)) },
    }
}

fn a_status() -> Status {
    let slots =
        vec![SlotView { slot: "3".parse().unwrap(), port: "lan3".parse().unwrap(), carrier: Some(true) }];
    Status {
        version: "0.1.0".into(),
        started: 1,
        config_loaded: 2,
        config_faults: vec!["a fault".into()],
        slots,
        blades: BTreeMap::from([(BladePhase::Running, 2), (BladePhase::Absent, 1)]),
        pool: Some(PoolUsage { size: Bytes::gib(10), data_percent: 12.34, metadata_percent: 0.1 }),
        problems: vec![Problem { about: "pool".into(), text: "full".into(), since: 3 }],
    }
}

fn a_session() -> crate::host::Session {
    let address = Some("10.0.0.7".parse().unwrap());
    crate::host::Session { initiator: "iqn.2026-11.org:i".into(), address, kind: SessionKind::Os, id: 7 }
}

fn a_blade() -> BladeView {
    BladeView {
        slot: "3".parse().unwrap(),
        blade: "b-525400123456".parse().unwrap(),
        mac: "52:54:00:12:34:56".parse().unwrap(),
        phase: BladePhase::Running,
        image: Some("debian13".parse().unwrap()),
        volume: Some(crate::model::VolumeId(7)),
        size: Some(Bytes::gib(4)),
        used_percent: Some(3.3),
        ip: Some("10.0.0.7".parse().unwrap()),
        hostname: "b-525400123456".into(),
        target: Some("iqn.2026-11.org:b".into()),
        session: Some(a_session()),
        problem: None,
        held: vec!["LUN 0".into()],
        times: BTreeMap::from([(Moment::Seen, 1), (Moment::OsLogin, 2)]),
        hardware: Hardware { serial: Some("S\n1".into()), ..Hardware::default() },
        drift: vec![],
        counters: Some(Counters::default()),
        refused: sessions().refused.pop(),
    }
}

fn sessions() -> Sessions {
    let view = SessionView {
        slot: Some("3".parse().unwrap()),
        blade: Some("b-525400123456".parse().unwrap()),
        volume: Some(crate::model::VolumeId(7)),
        target: "iqn.2026-11.org:b".into(),
        ours: true,
        session: a_session(),
        since: Some(5),
        older: 1,
        counters: Some(Counters { disk: Some(Default::default()), ..Counters::default() }),
    };
    let refused = RefusedLogin {
        slot: view.slot,
        blade: view.blade,
        refusal: Refusal {
            cause: RefusalCause::NotAdmitted,
            initiator: Some("iqn.2026-11.org:\u{1b}".into()),
            target: None,
            address: Some("10.0.0.7".parse().unwrap()),
            portal: None,
        },
        first: 1,
        last: 2,
        count: 3,
    };
    Sessions { sessions: vec![view], refused: vec![refused] }
}

fn an_image() -> ImageView {
    let pace = Pace { rate: Some(Bytes(12_345)), left: Some(7) };
    let progress = Some(ImportProgress::Fetching { done: Bytes(1), total: None, pace });
    ImageView {
        image: "debian13@3".parse().unwrap(),
        default: true,
        pinned: false,
        published: true,
        importing: false,
        mbr: false,
        size: Bytes::gib(2),
        space: None,
        disks: 2,
        spares: 1,
        progress,
    }
}

fn a_target() -> TargetSummary {
    TargetSummary {
        target: "iqn.2003-01.org.foreign:x".into(),
        ours: false,
        enabled: true,
        devices: vec!["/dev/vg/lv".into()],
        initiators: Vec::new(),
        portals: vec!["[::]:3260".into()],
        sessions: vec![a_session()],
    }
}

fn a_plan() -> PlanView {
    let properties = BTreeMap::from([("SHEATH_SLOT".to_owned(), "3".to_owned())]);
    let volume = crate::model::VolumeId(1 << 100);
    PlanView {
        subject: "b-525400123456".into(),
        steps: vec![Step::Announce { volume, properties }],
        held: vec![],
        problem: None,
    }
}

fn an_event(seq: u64) -> EventView {
    let text = format!("event {seq}\nsecond line");
    EventView {
        seq,
        at: 1,
        kind: "seen".into(),
        slot: Some("3".parse().unwrap()),
        blade: None,
        image: None,
        text,
    }
}

/// A server in a thread of its own, as sheathd is another process for the client.
struct Door {
    socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Door {
    fn open(backend: StandIn) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let at = socket.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = unix::bind(&at, 0o660).unwrap();
                ready.send(()).unwrap();
                serve(listener, backend, async { drop(stopped.await) }).await.unwrap();
            });
        });
        is_ready.recv().unwrap();
        Self { socket, stop: Some(stop), thread: Some(thread), _dir: dir }
    }

    fn client(&self) -> Client {
        Client::new(&self.socket).unwrap()
    }

    fn close(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.close();
    }
}

/// Sends `request` as it is and returns everything that comes back.
fn talk(socket: &Path, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    // The server may have refused and closed before it read all.
    let _ = stream.write_all(request);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn each_request_and_each_reply_crosses_the_socket_unchanged() {
    let backend = StandIn::new();
    let asked = Arc::clone(&backend.asked);
    let door = Door::open(backend);
    let client = door.client();
    for request in each() {
        assert_eq!(client.ask(&request).unwrap(), reply(&request), "{request:?}");
        assert_eq!(asked.lock().unwrap().pop(), Some(request));
    }
}

#[test]
fn a_refusal_keeps_its_kind_and_its_chain() {
    let kinds = [
        (Kind::Invalid, 400),
        (Kind::Denied, 403),
        (Kind::Missing, 404),
        (Kind::Exists, 409),
        (Kind::Busy, 409),
        (Kind::Failed, 500),
        (Kind::Timeout, 504),
        (Kind::Full, 507),
    ];
    for (kind, code) in kinds {
        let door = Door::open(StandIn { refuse: Some(kind), ..StandIn::new() });
        let error = door.client().ask(&Request::Reload).unwrap_err();
        assert_eq!((error.kind(), error.chain()), (kind, "install 'x': the cause".to_owned()));
        let answer = talk(&door.socket, b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{answer}");
    }
}

#[test]
fn every_error_of_the_server_is_a_refusal_in_json() {
    let backend = StandIn::new();
    let asked = Arc::clone(&backend.asked);
    let door = Door::open(backend);
    let long = format!("{{\"image\":\"{}\"}}", "x".repeat(100_000));
    for (line, body, kind) in [
        ("POST /v1/blades/3/install", "{", "invalid"),
        ("POST /v1/blades/3/install", long.as_str(), "invalid"),
        ("POST /v1/blades/1000/release", "", "invalid"),
        ("GET /v1/nothing", "", "missing"),
        ("DELETE /v1/status", "", "missing"),
        ("POST /v1/events", "", "missing"),
    ] {
        let length = body.len();
        let head =
            format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        let answer = talk(&door.socket, &[head.as_bytes(), body.as_bytes()].concat());
        assert!(answer.contains(&format!("{{\"kind\":\"{kind}\",\"message\":")), "{line}: {answer}");
    }
    assert_eq!(*asked.lock().unwrap(), []);
}

#[test]
fn garbage_on_one_connection_disturbs_no_other() {
    let door = Door::open(StandIn::new());
    let _idle: Vec<UnixStream> = (0..50).map(|_| UnixStream::connect(&door.socket).unwrap()).collect();
    let mut dripping = UnixStream::connect(&door.socket).unwrap();
    dripping.write_all(b"GET /v1/st").unwrap();
    assert!(talk(&door.socket, b"\x00\xff garbage\r\n\r\n").starts_with("HTTP/1.1 400 "));
    assert!(door.client().ask(&Request::Status).is_ok());
}

#[test]
fn recent_events_come_first_and_each_comes_once() {
    let backend = StandIn { backlog: vec![an_event(1), an_event(2)], ..StandIn::new() };
    let live = backend.live.clone();
    let door = Door::open(backend);
    let mut seen = Vec::new();
    door.client()
        .events(|event| {
            if event.seq == 2 {
                for seq in 2..=4 {
                    live.send(an_event(seq)).unwrap();
                }
            }
            let last = event.seq == 4;
            seen.push(event);
            if last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(seen, [1, 2, 3, 4].map(an_event));
}

#[test]
fn a_reader_that_is_too_slow_is_told_what_it_missed() {
    let backend = StandIn { backlog: vec![an_event(1)], ..StandIn::new() };
    let (stream, door) = (backend.live.subscribe(), backend.live.clone());
    for seq in 2..=8 {
        door.send(an_event(seq)).unwrap();
    }
    let (_stopping, stopped) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let events: Vec<EventView> = runtime.block_on(follow(stream, 1, stopped).take(5).collect());
    let kinds: Vec<(u64, &str)> = events.iter().map(|event| (event.seq, event.kind.as_str())).collect();
    assert_eq!(kinds, [(1, "lagged"), (5, "seen"), (6, "seen"), (7, "seen"), (8, "seen")]);
    assert!(events[0].text.starts_with("3 events were missed"));
}

#[test]
fn a_stop_ends_event_streams_and_the_client_notices() {
    let backend = StandIn { backlog: vec![an_event(1)], ..StandIn::new() };
    let mut door = Door::open(backend);
    let client = door.client();
    let mut count = 0;
    client
        .events(|_| {
            count += 1;
            drop(door.stop.take());
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(count, 1);
    door.close();
    assert_eq!(client.ask(&Request::Status).unwrap_err().kind(), Kind::Missing);
}

#[test]
fn a_log_line_of_a_change_holds_no_body() {
    // What `note` is given is all that it can write: the path, which is names alone.
    let source = "https://user:hunter2@images.example.org/a.raw".to_owned();
    let name = "a".parse().unwrap();
    let import =
        ImportRequest { name, source, publish: false, sha256: None, checksum: None, unproved: false };
    let import = Request::Import(import);
    assert!(!import.route().path.contains("hunter2") && !format!("{import:?}").contains("hunter2"));
}
