//! The blades' server over real sockets: whole round trips, and what a bad peer can do to the others.

use std::{
    future::pending,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Mutex,
    time::Instant,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
};

use super::*;
use crate::{
    boot::{
        agent::BootBackend,
        wire::{Ask, Choice},
    },
    model::Hardware,
};

/// How long an answer to a well-behaved peer may take, on a slow machine too.
const PROMPT: Duration = Duration::from_secs(2);

/// A stand-in for sheathd: remembers the questions.
#[derive(Clone, Default)]
struct StandIn {
    asked: Arc<Mutex<Vec<BootRequest>>>,
    hangs: bool,
}

impl BootBackend for StandIn {
    async fn answer(&self, request: BootRequest) -> Answer {
        self.asked.lock().unwrap().push(request);
        if self.hangs {
            pending::<()>().await;
        }
        Answer::Progress { message: "a message".into() }
    }
}

/// A server on a free port, with or without a sheathd behind it.
struct Chassis {
    at: SocketAddr,
    asked: Arc<Mutex<Vec<BootRequest>>>,
    dir: tempfile::TempDir,
}

const SHORT: Limits = Limits {
    total: 64,
    per_peer: 4,
    head: Duration::from_millis(600),
    life: Duration::from_secs(3),
    download: Duration::from_secs(6),
};

impl Chassis {
    async fn start(sheathd: Option<StandIn>, limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("boot.sock");
        let asked = sheathd.as_ref().map(|stand_in| Arc::clone(&stand_in.asked)).unwrap_or_default();
        if let Some(sheathd) = sheathd {
            let listener = unix::bind(&socket, 0o600).unwrap();
            tokio::spawn(agent::serve(listener, sheathd, pending()));
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let donor = dir.path().join("donor");
        tokio::spawn(serve(listener, (socket, donor), limits, pending()));
        Self { at, asked, dir }
    }

    /// Connects as the blade with this address: all of 127.0.0.0/8 is ours.
    async fn connect(&self, from: [u8; 4]) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((IpAddr::from(from), 0).into()).unwrap();
        socket.connect(self.at).await.unwrap()
    }

    /// Sends `request` as it is and returns everything that comes back.
    async fn talk(&self, request: &str) -> String {
        let mut stream = self.connect([127, 0, 0, 1]).await;
        // The server may have refused and closed before it read all.
        let _ = stream.write_all(request.as_bytes()).await;
        read(&mut stream).await
    }

    async fn get(&self, target: &str) -> String {
        self.talk(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")).await
    }

    /// Asks as this blade until it is answered: the server takes a moment to see that connections are gone.
    async fn answers_again(&self, from: [u8; 4]) {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(10) {
            let mut stream = self.connect(from).await;
            let _ = stream.write_all(b"GET /v1/boot HTTP/1.1\r\n\r\n").await;
            if read(&mut stream).await.contains("a message") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("a place that was given back is never given again");
    }

    fn asked(&self) -> Vec<BootRequest> {
        self.asked.lock().unwrap().clone()
    }
}

async fn read(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let all = timeout(Duration::from_secs(10), stream.read_to_end(&mut bytes)).await;
    // A reset after the answer is an end like any other.
    let _ = all.expect("the server ends each connection");
    String::from_utf8(bytes).unwrap()
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn a_question_reaches_sheathd_and_its_answer_becomes_a_script() {
    run(async {
        let chassis = Chassis::start(Some(StandIn::default()), SHORT).await;
        let answer = chassis
            .get("/v1/choose?t=tok&c=install.alpine&mac=52-54-00-12-34-56&serial=a%20b&platform=efi")
            .await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.contains("content-type: text/plain\r\n") && answer.contains("connection: close\r\n"),
            "{answer}"
        );
        assert!(answer.contains("\r\n\r\n#!ipxe\necho a message ||\n"), "{answer}");
        assert!(answer.contains(&format!("http://{}/v1/boot?mac=", chassis.at)), "{answer}");
        let hardware = Hardware {
            serial: Some("a b".into()),
            firmware: Some(crate::model::Firmware::Uefi),
            ..Hardware::default()
        };
        let ask = Ask::Choose { token: "tok".into(), choice: Choice::Install("alpine".parse().unwrap()) };
        let mac = Some("52:54:00:12:34:56".parse().unwrap());
        assert_eq!(chassis.asked(), [BootRequest { peer: [127, 0, 0, 1].into(), mac, hardware, ask }]);
    });
}

#[test]
fn each_path_asks_its_own_question() {
    run(async {
        let chassis = Chassis::start(Some(StandIn::default()), SHORT).await;
        for target in ["/v1/boot", "/v1/menu?mac=", "/v1/failed?e=0xf0a6039", "/v1/choose?t=a&c=disk"] {
            assert!(chassis.get(target).await.contains("echo a message"), "{target}");
        }
        let start = chassis.get("/v1/start.ipxe?whatever").await;
        assert!(start.contains("goto ask"), "{start}");
        let asks: Vec<Ask> = chassis.asked().into_iter().map(|request| request.ask).collect();
        let failed = Ask::BootFailed { errno: "0xf0a6039".into() };
        let choose = Ask::Choose { token: "a".into(), choice: Choice::Disk };
        assert_eq!(asks, [Ask::Start, Ask::Menu, failed, choose]);
    });
}

#[test]
fn a_donors_linux_is_fetched_whole_and_nothing_else_can_be() {
    run(async {
        let chassis = Chassis::start(None, SHORT).await;
        assert!(chassis.get("/v1/workshop/initrd").await.starts_with("HTTP/1.1 404"));
        let donor = chassis.dir.path().join("donor");
        for (folder, content) in [("partial", "half"), ("6.12", "whole")] {
            std::fs::create_dir_all(donor.join(folder)).unwrap();
            crate::host::file::save(&donor.join(folder).join("initrd"), content.as_bytes(), 0o644).unwrap();
        }
        crate::host::file::save(&donor.join("secret"), b"secret", 0o644).unwrap();
        let answer = chassis.get("/v1/workshop/initrd").await;
        assert!(answer.contains("content-length: 5\r\n") && answer.ends_with("\r\n\r\nwhole"), "{answer}");
        for other in ["vmlinuz", "secret", "..%2fsecret", "6.12", "%2e%2e%2fsecret", ""] {
            let answer = chassis.get(&format!("/v1/workshop/{other}")).await;
            assert!(answer.starts_with("HTTP/1.1 404"), "{other}: {answer}");
        }
    });
}

#[test]
fn a_donors_report_is_answered_by_a_status() {
    run(async {
        let chassis = Chassis::start(Some(StandIn::default()), SHORT).await;
        // The stand-in has no answer to reports: that is no "go on".
        let answer = chassis.get("/v1/report?w=copying&done=1&total=2").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert_eq!(chassis.asked()[0].ask.word(), "whether to go on with its capture");
        assert!(chassis.get("/v1/report?w=dance").await.starts_with("HTTP/1.1 400"));
    });
}

#[test]
fn the_peer_is_the_connections_and_never_a_headers() {
    run(async {
        let chassis = Chassis::start(Some(StandIn::default()), SHORT).await;
        let headers = "Host: 10.9.9.9\r\nX-Forwarded-For: 10.1.1.1\r\nForwarded: for=10.1.1.1\r\n";
        let mut stream = chassis.connect([127, 0, 0, 9]).await;
        stream.write_all(format!("GET /v1/boot HTTP/1.1\r\n{headers}\r\n").as_bytes()).await.unwrap();
        assert!(!read(&mut stream).await.contains("10.9.9.9"));
        assert_eq!(chassis.asked()[0].peer, Ipv4Addr::new(127, 0, 0, 9));
    });
}

#[test]
fn without_sheathd_a_blade_is_told_to_wait() {
    run(async {
        let chassis = Chassis::start(None, SHORT).await;
        let answer = chassis.get("/v1/boot?mac=52-54-00-12-34-56").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.contains("echo The appliance is starting. Trying again ||\n:again\nsleep 5 ||\n"),
            "{answer}"
        );
    });
}

#[test]
fn a_sheathd_that_talks_nonsense_makes_the_blade_wait() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        for answer in
            ["", "HTTP/1.1 500 No\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "SSH-2.0\r\n"]
        {
            let request = Words::default().start([10, 0, 0, 1].into()).unwrap();
            let socket = dir.path().join("s.sock");
            let server = says(&socket, answer);
            let error = ask(&socket, &request).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Failed, "{answer}");
            server.await.unwrap();
        }
    });
}

/// Listens once, reads a little, says `answer` and hangs up.
fn says(socket: &Path, answer: &'static str) -> JoinHandle<()> {
    let listener = unix::bind(socket, 0o600).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
}

#[test]
fn what_is_no_question_is_refused_in_one_line() {
    run(async {
        let chassis = Chassis::start(Some(StandIn::default()), SHORT).await;
        for (target, status) in [
            ("/v1/boot?mac=nonsense".to_owned(), "400"),
            ("/v1/choose?t=a&c=format".to_owned(), "400"),
            ("/v1/choose".to_owned(), "400"),
            ("/v1/failed?e=".to_owned(), "400"),
            (format!("/v1/boot?mac=&serial={}", "x".repeat(2048)), "414"),
            ("/".to_owned(), "404"),
            ("/v1/../../etc/passwd".to_owned(), "404"),
        ] {
            let answer = chassis.get(&target).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {answer}");
            let (_, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(body.ends_with('\n') && body.lines().count() == 1, "{target}: {body:?}");
        }
        assert_eq!(chassis.asked(), []);
    });
}

#[test]
fn bodies_other_methods_long_heads_and_garbage_are_refused() {
    run(async {
        let chassis = Chassis::start(Some(StandIn::default()), SHORT).await;
        let many = "A: b\r\n".repeat(50);
        let long = "x".repeat(20_000);
        for (request, status) in [
            ("POST /v1/boot HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "405"),
            ("HEAD /v1/boot HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "405"),
            ("GET /v1/boot HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc".to_owned(), "413"),
            ("GET /v1/boot HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), "413"),
            (format!("GET /v1/boot HTTP/1.1\r\n{many}\r\n"), "431"),
            (format!("GET /v1/boot HTTP/1.1\r\nA: {long}\r\n\r\n"), "431"),
            (format!("GET /v1/boot?{long} HTTP/1.1\r\n\r\n"), "4"),
            ("\u{16}\u{3}\u{1} garbage\r\n\r\n".to_owned(), "400"),
        ] {
            let answer = chassis.talk(&request).await;
            // A reset may overtake the answer to a head that was not read to its end.
            let gone = request.len() > 8192 && answer.is_empty();
            assert!(gone || answer.starts_with(&format!("HTTP/1.1 {status}")), "{request:.60}: {answer}");
        }
        assert_eq!(chassis.asked(), []);
    });
}

#[test]
fn of_pipelined_requests_one_is_answered() {
    run(async {
        let chassis = Chassis::start(Some(StandIn::default()), SHORT).await;
        let answer = chassis.talk(&"GET /v1/boot HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20)).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert_eq!(chassis.asked().len(), 1);
    });
}

#[test]
fn a_head_that_drips_or_never_comes_is_cut_off_and_delays_nobody() {
    run(async {
        let limits = Limits { life: Duration::from_secs(60), ..SHORT };
        let chassis = Chassis::start(Some(StandIn::default()), limits).await;
        let mut silent = chassis.connect([127, 0, 0, 66]).await;
        let mut slow = chassis.connect([127, 0, 0, 66]).await;
        let begin = Instant::now();
        let dripping = tokio::spawn(async move {
            while slow.write_all(b"G").await.is_ok() && begin.elapsed() < Duration::from_secs(9) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            begin.elapsed()
        });
        let asked = Instant::now();
        assert!(chassis.get("/v1/boot").await.contains("a message"));
        assert!(asked.elapsed() < PROMPT, "{:?}", asked.elapsed());
        let lived = dripping.await.unwrap();
        assert!(lived < Duration::from_secs(5), "{lived:?}");
        assert_eq!(read(&mut silent).await, "");
    });
}

#[test]
fn idle_connections_of_one_blade_are_bounded_and_delay_no_other() {
    run(async {
        let limits = Limits { head: Duration::from_secs(30), ..SHORT };
        let chassis = Chassis::start(Some(StandIn::default()), limits).await;
        let mut idle = Vec::new();
        for _ in 0..40 {
            idle.push(chassis.connect([127, 0, 0, 66]).await);
        }
        let asked = Instant::now();
        assert!(chassis.get("/v1/boot").await.contains("a message"));
        assert!(asked.elapsed() < PROMPT, "{:?}", asked.elapsed());
        // All but the first four are closed already, and the blade itself has to wait for its own.
        let mut more = chassis.connect([127, 0, 0, 66]).await;
        assert_eq!(read(&mut more).await, "");
        for refused in &mut idle[4..] {
            assert_eq!(read(refused).await, "");
        }
        idle.clear();
        chassis.answers_again([127, 0, 0, 66]).await;
    });
}

#[test]
fn connections_of_all_blades_together_are_bounded() {
    run(async {
        let limits = Limits { head: Duration::from_secs(30), total: 8, ..SHORT };
        let chassis = Chassis::start(Some(StandIn::default()), limits).await;
        let mut idle = Vec::new();
        for last in 0..8 {
            idle.push(chassis.connect([127, 0, 1, last + 1]).await);
        }
        assert_eq!(chassis.get("/v1/boot").await, "");
        drop(idle);
        chassis.answers_again([127, 0, 0, 1]).await;
    });
}

#[test]
fn a_blade_that_is_not_answered_holds_only_itself_and_not_for_ever() {
    run(async {
        let chassis = Chassis::start(Some(StandIn { hangs: true, ..StandIn::default() }), SHORT).await;
        let begin = Instant::now();
        let (slow, start) = tokio::join!(chassis.get("/v1/boot"), async {
            let answer = chassis.get("/v1/start.ipxe").await;
            (answer, begin.elapsed())
        });
        assert_eq!(slow, "");
        assert!(start.0.contains("#!ipxe") && start.1 < PROMPT);
        assert!(begin.elapsed() >= SHORT.life);
    });
}

#[test]
fn a_stop_lets_answers_under_way_finish() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(serve(listener, ("/nowhere".into(), "/nowhere".into()), SHORT, async {
            drop(stopped.await)
        }));
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(b"GET /v1/start.ipxe HTT").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.send(()).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(TcpStream::connect(at).await.is_err());
        stream.write_all(b"P/1.1\r\n\r\n").await.unwrap();
        assert!(read(&mut stream).await.contains("#!ipxe"));
        serving.await.unwrap();
    });
}
