//! sheath-bootd as a process: what it gives away, what it tells systemd, how it ends.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    os::unix::{fs::MetadataExt, net::UnixDatagram},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A running sheath-bootd whose stderr is a file, as journald's stream is a file descriptor.
struct Bootd {
    process: Child,
    notify: UnixDatagram,
    log: PathBuf,
    _dir: tempfile::TempDir,
}

impl Bootd {
    #[expect(clippy::disallowed_methods, reason = "the test is what starts our own program")]
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (log, socket) = (dir.path().join("log"), dir.path().join("notify"));
        let notify = UnixDatagram::bind(&socket).unwrap();
        notify.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let stderr = File::create(&log).unwrap();
        let stream = stderr.metadata().unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_sheath-bootd"))
            .args(["--listen", "127.0.0.1:0", "--agent"])
            .arg(dir.path().join("no.sock"))
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", "400000")
            .env("JOURNAL_STREAM", format!("{}:{}", stream.dev(), stream.ino()))
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        Self { process, notify, log, _dir: dir }
    }

    /// Waits until systemd would have been told this.
    fn wait_for(&self, state: &str) {
        let begin = Instant::now();
        let mut heard = [0; 4096];
        while begin.elapsed() < Duration::from_secs(20) {
            let length = match self.notify.recv(&mut heard) {
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                length => length.unwrap(),
            };
            if String::from_utf8_lossy(&heard[..length]).lines().any(|line| line == state) {
                return;
            }
        }
        panic!("systemd is never told {state}: {}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn address(&self) -> String {
        let log = self.log();
        log.split_once("http://").expect("it says where it listens").1.lines().next().unwrap().to_owned()
    }

    fn get(&self, target: &str) -> String {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Bootd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn it_answers_blades_without_a_capability_and_ends_when_told() {
    let mut bootd = Bootd::start();
    bootd.wait_for("READY=1");
    bootd.wait_for("WATCHDOG=1");
    assert!(bootd.get("/v1/start.ipxe").contains("\r\n\r\n#!ipxe\n"));
    assert!(bootd.get("/v1/boot").contains("The appliance is starting"));

    let status = fs::read_to_string(format!("/proc/{}/status", bootd.process.id())).unwrap();
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert!(status.contains(&format!("{set}:\t0000000000000000\n")), "{status}");
    }

    let pid = Pid::from_raw(bootd.process.id().try_into().unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    bootd.wait_for("STOPPING=1");
    assert!(bootd.process.wait().unwrap().success());
    // No record of it has fields, so all are lines with a priority.
    let log = bootd.log();
    assert!(log.starts_with("<5>blades are answered at http://127.0.0.1:"), "{log}");
    assert!(log.contains("\n<4>a question of 127.0.0.1 waits: sheathd does not run"), "{log}");
    assert!(log.ends_with("\n<5>stopped\n"), "{log}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test is what starts our own program")]
fn words_that_it_does_not_know_end_it_at_once() {
    for words in [&[][..], &["--listen", "example.org:80"], &["--listen", "[::1]:80"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_sheath-bootd"))
            .args(words)
            .env_remove("SHEATH_BOOTD_LISTEN")
            .output();
        assert_eq!(output.unwrap().status.code(), Some(2), "{words:?}");
    }
}
