//! Why LIO refuses, from the kernel's own log: logins with their causes, calls with the kernel's words in the error.

use std::{
    fs::{self, OpenOptions},
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use sheath::{
    config::{self, Config},
    error::Kind,
    host::{
        Host, RefusalCause,
        keys::MasterKey,
        kmsg::{KMSG, Log},
        live::Live,
    },
    model::{BladeId, Credentials, Portal, Secret},
    observed::Refusal,
    plan::Step,
    watch::{self, WatchEvent},
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::{
    blade::{Blade, PREFIX, said},
    guest::{alone, run, wait_for},
    initiator::Initiator,
};

fn config() -> Config {
    let text = format!(
        "[chassis]\naddress = \"10.77.0.1/24\"\n[chassis.slots]\n1 = \"none0\"\n[target]\niqn_prefix = \"{PREFIX}\"\n"
    );
    config::parse("test", &text).unwrap_or_else(|faults| panic!("{faults:?}"))
}

fn live(log: &Arc<Log>) -> Live {
    Live::new(&config(), MasterKey::from_bytes([7; 32])).hearing(Arc::clone(log))
}

/// A follower of the log on a thread of its own, for these blades' targets.
struct Follower {
    events: UnboundedReceiver<WatchEvent>,
    _end: tokio::sync::oneshot::Sender<()>,
}

impl Follower {
    fn of(blades: &[&Blade]) -> Self {
        let log = Arc::new(Log::open(KMSG.as_ref()));
        let host = Arc::new(live(&log));
        let served = blades.iter().enumerate().map(|(n, blade)| {
            let id: BladeId = format!("b-5254000000{n:02x}").parse().unwrap();
            (id, (blade.target.clone(), blade.initiator.clone()))
        });
        let served = Arc::new(Mutex::new(served.collect()));
        let (tell, events) = unbounded_channel();
        let (end, ended) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = watch::kmsg::run(log, host, served, tell) => {}
                    _ = ended => {}
                }
            });
        });
        // The first look at the targets, which what follows is compared with.
        std::thread::sleep(Duration::from_secs(1));
        Self { events, _end: end }
    }

    /// Returns what is told next.
    fn next(&mut self) -> (Refusal, u64) {
        match wait_for("a refusal to be told", || self.events.try_recv().ok()) {
            WatchEvent::LoginRefused { refusal, count } => (refusal, count),
            other => panic!("{other:?}"),
        }
    }

    /// Returns what is told next of a known cause. On a machine that is very busy the kernel's last line of a login comes
    /// after its others have been told, and is told as one of no cause.
    fn next_known(&mut self) -> (Refusal, u64) {
        loop {
            let told = self.next();
            if told.0.cause != RefusalCause::Negotiation {
                return told;
            }
        }
    }
}

/// Sends a first login request by hand and returns the status of the answer: class and detail.
fn knock(portal: Portal, initiator: &str, target: &str) -> (u8, u8) {
    let keys = [
        ("InitiatorName", initiator),
        ("SessionType", "Normal"),
        ("TargetName", target),
        ("AuthMethod", "CHAP"),
    ];
    let mut text: Vec<u8> = keys.iter().flat_map(|(k, v)| format!("{k}={v}\0").into_bytes()).collect();
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    text.resize(text.len().next_multiple_of(4), 0);
    let mut request = [0; 48];
    // A login request, immediate; from the security stage to the operational one.
    (request[0], request[1]) = (0x43, 0x81);
    request[5..8].copy_from_slice(&length[1..]);
    request[8..14].copy_from_slice(&[0x00, 0x02, 0x3d, 0x00, 0x00, 0x77]);
    let mut stream = TcpStream::connect(portal.0).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(&[&request[..], &text].concat()).unwrap();
    let mut answer = [0; 48];
    stream.read_exact(&mut answer).unwrap();
    (answer[36], answer[37])
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_a_login_that_names_nobody_we_know_is_told_with_what_the_kernel_says_of_it() {
    let _alone = alone();
    let (blade, other) = (Blade::new(45), Blade::new(46));
    blade.make();
    other.make();
    let mut follower = Follower::of(&[&blade, &other]);
    let (target, name) = (blade.target.as_str(), blade.initiator.as_str());

    assert_eq!(knock(blade.portal, name, "iqn.2026-11.org.example:nowhere"), (3, 1));
    let (refusal, _) = follower.next();
    assert_eq!(refusal.cause, RefusalCause::UnknownTarget);
    assert_eq!(refusal.target.as_deref(), Some("iqn.2026-11.org.example:nowhere"));

    assert_eq!(knock(blade.portal, "iqn.2026-11.org.example:stranger", target), (2, 2));
    let (refusal, _) = follower.next();
    assert_eq!(refusal.cause, RefusalCause::NotAdmitted);
    assert_eq!(refusal.initiator.as_deref(), Some("iqn.2026-11.org.example:stranger"));
    assert_eq!(
        refusal.target.as_deref(),
        Some(target),
        "the log does not say where, the target's counters do"
    );
    assert_eq!(refusal.address, Some("127.0.0.1".parse().unwrap()));

    fs::write(blade.tpg("enable"), "0").unwrap();
    // A disabled target takes its portal's listener along, unless another target listens there too.
    fs::create_dir(other.tpg(&format!("np/{}", blade.portal))).unwrap();
    assert_eq!(knock(blade.portal, name, target), (3, 1));
    let (refusal, _) = follower.next();
    assert_eq!((refusal.cause, refusal.target.as_deref()), (RefusalCause::Disabled, Some(target)));
    other.remove();
    blade.remove();
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_a_login_whose_chap_fails_is_told_with_its_blade_although_the_log_names_nobody() {
    let _alone = alone();
    let (blade, other) = (Blade::new(47), Blade::new(48));
    blade.make();
    other.make();
    let mut follower = Follower::of(&[&blade, &other]);
    let right = blade.credentials();
    let password = Secret::new("another-password".into());
    let initiator = Initiator::new("refused", blade.initiator.as_str());
    for (with, cause) in [
        (Credentials { user: "somebody".into(), ..right.clone() }, RefusalCause::WrongUser),
        (Credentials { password, ..right.clone() }, RefusalCause::WrongPassword),
    ] {
        assert!(initiator.login(&blade.target, blade.portal, &with).is_err());
        let (refusal, count) = follower.next_known();
        assert_eq!((refusal.cause, count), (cause, 1));
        assert_eq!(refusal.initiator.as_deref(), Some(blade.initiator.as_str()));
        assert_eq!(refusal.target.as_deref(), Some(blade.target.as_str()));
        assert_eq!(refusal.address, Some("127.0.0.1".parse().unwrap()));
    }
    for file in ["userid", "password"] {
        fs::write(blade.tpg(&format!("acls/{}/auth/{file}", blade.initiator)), "NULL").unwrap();
    }
    assert!(initiator.login(&blade.target, blade.portal, &right).is_err());
    assert_eq!(follower.next_known().0.cause, RefusalCause::NoCredentials);
    // At least: Open-iSCSI gives up a login that takes too long on a very busy machine, and tries once more.
    assert!(said(blade.lio.counters(&blade.target)).refused_logins >= 3);
    other.remove();
    blade.remove();
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_a_blade_that_tries_again_and_again_is_told_once() {
    let _alone = alone();
    let blade = Blade::new(49);
    blade.make();
    let mut follower = Follower::of(&[&blade]);
    for _ in 0..8 {
        knock(blade.portal, "iqn.2026-11.org.example:again", blade.target.as_str());
    }
    knock(blade.portal, "iqn.2026-11.org.example:last", blade.target.as_str());
    let mut told = [follower.next().0, follower.next().0];
    told.sort();
    let names: Vec<_> = told.iter().filter_map(|refusal| refusal.initiator.as_deref()).collect();
    assert_eq!(names, ["iqn.2026-11.org.example:again", "iqn.2026-11.org.example:last"]);
    assert!(follower.events.try_recv().is_err(), "each once");
    blade.remove();
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_a_connection_that_says_nothing_is_told_as_what_it_is() {
    let _alone = alone();
    let blade = Blade::new(51);
    blade.make();
    let mut follower = Follower::of(&[&blade]);
    let idle = TcpStream::connect(blade.portal.0).unwrap();
    let (refusal, _) = follower.next();
    assert_eq!(refusal.cause, RefusalCause::Timeout);
    // Linux 6.1 says which portal, 6.12 does not.
    assert!(refusal.portal.is_none_or(|portal| portal == blade.portal.to_string()));
    assert!(follower.events.try_recv().is_err(), "once");
    drop(idle);
    blade.remove();
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_what_the_kernel_says_of_a_refused_call_is_in_its_error() {
    let _alone = alone();
    let blade = Blade::new(50);
    blade.make();
    let log = Arc::new(Log::open(KMSG.as_ref()));
    let live = live(&log);
    let everywhere = Portal(format!("0.0.0.0:{}", blade.portal.0.port()).parse().unwrap());
    let step = Step::Portal { target: blade.target.clone(), portal: everywhere };
    let error = live.run(&step).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    let chain = error.chain();
    assert!(chain.ends_with("Invalid argument (os error 22): kernel: kernel_bind() failed: -98"), "{chain}");
    let foreign = Step::Portal { target: "iqn.1999-01.com.foreign:x".parse().unwrap(), portal: everywhere };
    let chain = live.run(&foreign).unwrap_err().chain();
    assert!(!chain.contains("kernel:"), "our own refusal: {chain}");
    assert!(log.since(Instant::now()).is_empty());
    blade.remove();
}

#[test]
#[ignore = "needs root and a kernel log in a guest: the lab runs it there"]
fn vm_an_overrun_of_the_kernel_log_is_told_and_survived() {
    let _alone = alone();
    run("sysctl", &["-w", "kernel.printk_devkmsg=on"]).unwrap();
    let log = Log::open(KMSG.as_ref());
    let mut cursor = None;
    assert!(log.take(&mut cursor).unwrap().records.is_empty(), "from its end on");
    let mut kmsg = OpenOptions::new().write(true).open(Path::new(KMSG)).unwrap();
    // Without its newline a record stays open for more.
    let mut say = |text: &str| kmsg.write_all(format!("<7>{text}\n").as_bytes()).unwrap();
    say("sheath test: one");
    let one = log.take(&mut cursor).unwrap();
    assert_eq!((one.records.len(), one.lost), (1, false));
    assert_eq!((one.records[0].text.as_str(), one.records[0].priority), ("sheath test: one", 7));
    let long = "sheath test ".repeat(60);
    (0..6000).for_each(|_| say(&long));
    say("sheath test: last");
    let rest = log.take(&mut cursor).unwrap();
    assert!(rest.lost);
    // Others have something to say of the flood, too.
    assert!(rest.records.iter().any(|record| record.text == "sheath test: last"));
    run("sysctl", &["-w", "kernel.printk_devkmsg=ratelimit"]).unwrap();
}

/// What of the agent's unit decides what it may read.
const SANDBOX: &[&str] = &[
    "CapabilityBoundingSet",
    "DeviceAllow",
    "DevicePolicy",
    "LockPersonality",
    "MemoryDenyWriteExecute",
    "NoNewPrivileges",
    "ProtectClock",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectHostname",
    "ProtectKernelModules",
    "ProtectProc",
    "ProtectSystem",
    "RestrictAddressFamilies",
    "RestrictNamespaces",
    "RestrictRealtime",
    "RestrictSUIDSGID",
    "SystemCallArchitectures",
    "SystemCallErrorNumber",
    "SystemCallFilter",
];

/// Reads a record of the kernel log in the sandbox of the agent's unit, with these settings beside it.
fn read_as_the_agent(more: &[&str]) -> Result<String, String> {
    let unit = include_str!("../../systemd/sheathd.service").lines().chain(more.iter().copied());
    let ours = |line: &&str| line.split_once('=').is_some_and(|(key, _)| SANDBOX.contains(&key));
    let settings = unit.filter(|line| ours(line) || more.contains(line)).map(|line| format!("-p{line}"));
    let settings: Vec<String> = settings.collect();
    let mut args = vec!["--quiet", "--pipe", "--wait"];
    args.extend(settings.iter().map(String::as_str));
    args.extend(["dd", "if=/dev/kmsg", "iflag=nonblock", "bs=8192", "count=1"]);
    run("systemd-run", &args)
}

#[test]
#[ignore = "needs root, systemd and a kernel log in a guest: the lab runs it there"]
fn vm_the_agents_sandbox_lets_it_read_a_restricted_kernel_log() {
    let _alone = alone();
    run("sysctl", &["-w", "kernel.dmesg_restrict=1"]).unwrap();
    let record = read_as_the_agent(&[]).unwrap();
    assert!(record.contains(';'), "{record}");
    assert!(
        read_as_the_agent(&["ProtectKernelLogs=yes"]).is_err(),
        "the setting that the unit must not have"
    );
}
