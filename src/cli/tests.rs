//! What the command line is promised: words, tables, JSON, consent. A stand-in plays the agent.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    ops::ControlFlow,
    time::Duration,
};

use clap::Parser as _;

use super::{
    Ask,
    args::{Args, EXIT_STATUS, command},
    docs, report,
    session::Session,
};
use crate::{
    control::api::{Adopt, ImportRequest, PromoteRequest, Reply, Request},
    error::{Error, Kind, Result},
    host::{self, Counters, DiskCounters, SessionKind, TargetSummary},
    model::{Bytes, Firmware, Hardware, ImageRef, PoolUsage, Stray, VolumeId},
    observed::{Donor, Refusal, RefusalCause},
    plan::Step,
    status::{
        BladePhase, BladeView, EventView, ImportProgress, Moment, Pace, PlanView, Problem, RefusedLogin,
        SessionView, Sessions, SlotView, Status, WorkView,
    },
};

mod images;
mod readme;
mod sessions;
mod work;

use images::{detail, images};
use sessions::{counters, refused, sessions};

/// 2026-11-22 13:45:07Z.
const NOW: u64 = 1_795_355_107_000;

/// Plays the agent: remembers what it was asked, answers from the samples below.
#[derive(Default)]
struct Agent {
    asked: RefCell<Vec<Request>>,
    progress: RefCell<Vec<ImportProgress>>,
    works: RefCell<Vec<WorkView>>,
    /// The content of an image ends too early.
    cut_off: bool,
    /// How many questions about an import find nobody there.
    away: Cell<usize>,
    /// Nobody waits for it.
    lasting: bool,
}

/// Returns what a client says of an agent that is not there.
fn nobody() -> Error {
    let client = crate::control::client::Client::new("/nowhere/control.sock".as_ref()).unwrap();
    client.ask(&Request::Status).unwrap_err()
}

impl Ask for Agent {
    fn ask(&self, request: Request) -> Result<Reply> {
        self.asked.borrow_mut().push(request.clone());
        Ok(match request {
            Request::Status => Reply::Status(Box::new(status())),
            Request::Blades => Reply::Blades(blades()),
            Request::Images => Reply::Images(images()),
            Request::Image { .. } => Reply::Image(Box::new(detail())),
            Request::ImageLog { .. } => Reply::ImageLog(Box::new(images::log())),
            Request::Promote(PromoteRequest { dry_run: true, .. }) => Reply::Plan(plan()),
            Request::Targets => Reply::Targets(targets()),
            Request::Plan
            | Request::Grow { dry_run: true, .. }
            | Request::Adopt(Adopt { dry_run: true, .. }) => Reply::Plan(plan()),
            Request::Sessions => Reply::Sessions(sessions()),
            Request::Donors => Reply::Donors(donors()),
            Request::ImportProgress { .. } | Request::NextProgress { .. } if self.away.get() > 0 => {
                self.away.set(self.away.get() - 1);
                return Err(nobody());
            }
            Request::ImportProgress { .. } | Request::NextProgress { .. }
                if self.progress.borrow().is_empty() =>
            {
                return Err(Error::new(Kind::Missing, "there is no import of 'debian13'"));
            }
            Request::ImportProgress { .. } | Request::NextProgress { .. } => {
                Reply::ImportProgress(self.progress.borrow_mut().remove(0))
            }
            Request::WorkProgress { .. } => Reply::Work(Box::new(self.works.borrow_mut().remove(0))),
            Request::RemoveImage { .. } => {
                return Err(Error::new(Kind::Busy, "remove image 'debian13': 2 disks came from it"));
            }
            _ => Reply::Accepted { message: "accepted".into() },
        })
    }

    fn content(&self, _: &ImageRef, each: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<u64> {
        each(0, b"boot")?;
        each(1 << 20, &[7; 4096])?;
        match self.cut_off {
            true => Err(Error::new(Kind::Failed, "read the image's content: it was cut off")),
            false => Ok(2 << 20),
        }
    }

    fn events(&self, _: bool, each: &mut dyn FnMut(EventView) -> ControlFlow<()>) -> Result<()> {
        let _ = events().into_iter().try_for_each(each);
        Ok(())
    }
}

/// What a run of the command line left behind.
struct Ran {
    out: String,
    err: String,
    result: Result<()>,
}

/// Runs the words as the program would, `typed` being what somebody types at a terminal (`None`: there is none).
fn run(agent: &Agent, words: &str, typed: Option<&str>) -> Ran {
    let args = Args::try_parse_from(["sheath"].into_iter().chain(words.split_whitespace())).unwrap();
    let (mut out, mut err) = (vec![], vec![]);
    let mut session = Session {
        ask: agent,
        out: Box::new(&mut out),
        err: Box::new(&mut err),
        input: Box::new(std::io::Cursor::new(typed.unwrap_or_default().to_owned())),
        json: args.globals.json,
        color: args.globals.color == super::args::Color::Always,
        color_err: false,
        terminal: typed.is_some(),
        now: NOW,
        begun: std::time::Instant::now(),
        poll: Duration::ZERO,
        away: if agent.lasting { Duration::ZERO } else { Duration::from_secs(60) },
    };
    let result = super::run(&mut session, args.command);
    if let Err(error) = &result {
        report::report(&mut session, error);
    }
    drop(session);
    Ran { out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap(), result }
}

fn shown(words: &str) -> String {
    let ran = run(&Agent::default(), words, None);
    ran.result.unwrap();
    assert_eq!(ran.err, "");
    ran.out
}

fn status() -> Status {
    let slot = |n: &str, port: &str, carrier| SlotView {
        slot: n.parse().unwrap(),
        port: port.parse().unwrap(),
        carrier,
    };
    Status {
        version: "0.1.0".into(),
        started: NOW - 93_600_000,
        config_loaded: NOW - 240_000,
        config_faults: vec!["sheath.toml:3: chassis.address: expected …, found nothing".into()],
        slots: vec![slot("1", "ens4", Some(true)), slot("2", "ens5", Some(false)), slot("10", "ens6", None)],
        blades: BTreeMap::from([(BladePhase::Running, 1), (BladePhase::Failed, 1), (BladePhase::Absent, 1)]),
        pool: Some(PoolUsage { size: Bytes::gib(100), data_percent: 12.4, metadata_percent: 3.0 }),
        problems: vec![Problem {
            about: "slot 2".into(),
            text: "clone 'debian13': the pool is 95 % full; extend it".into(),
            since: NOW - 5000,
        }],
    }
}

fn blades() -> Vec<BladeView> {
    let running = BladeView {
        slot: "1".parse().unwrap(),
        blade: "b-525400123456".parse().unwrap(),
        mac: "52:54:00:12:34:56".parse().unwrap(),
        phase: BladePhase::Running,
        image: Some("debian13".parse().unwrap()),
        volume: Some(VolumeId(0xfeed << 100)),
        size: Some(Bytes::gib(20)),
        used_percent: Some(7.6),
        ip: Some("10.77.0.130".parse().unwrap()),
        hostname: "web1".into(),
        target: Some("iqn.2026-11.internal.sheath:b-525400123456".into()),
        session: Some(host::Session {
            initiator: "iqn.2026-11.internal.sheath:i-525400123456".into(),
            address: Some("10.77.0.130".parse().unwrap()),
            kind: SessionKind::Os,
            id: 4,
        }),
        problem: None,
        held: vec!["portal 10.77.0.1:3260 is gone from 'iqn.2026-11.internal.sheath:b-525400123456'".into()],
        times: BTreeMap::from([
            (Moment::Seen, NOW - 60_000),
            (Moment::Dhcp, NOW - 59_000),
            (Moment::Script, NOW - 58_500),
            (Moment::OsLogin, NOW - 12_000),
        ]),
        hardware: Hardware {
            manufacturer: Some("Acme\u{1b}[2J".into()),
            product: Some("B1".into()),
            firmware: Some(Firmware::Uefi),
            ..Hardware::default()
        },
        drift: vec!["tpgt_1/attrib/authentication: from '1' to '0'".into()],
        counters: Some(counters()),
        refused: Some(refused(RefusalCause::WrongPassword)),
    };
    let failed = BladeView {
        slot: "2".parse().unwrap(),
        blade: "b-525400123457".parse().unwrap(),
        mac: "52:54:00:12:34:57".parse().unwrap(),
        phase: BladePhase::Failed,
        volume: None,
        size: None,
        used_percent: None,
        ip: None,
        hostname: "b-525400123457".into(),
        target: None,
        session: None,
        problem: Some("clone 'debian13': the pool is 95 % full".into()),
        times: BTreeMap::new(),
        hardware: Hardware::default(),
        drift: vec![],
        counters: None,
        refused: None,
        ..running.clone()
    };
    vec![running, failed]
}

fn donors() -> Vec<Donor> {
    let free = Donor {
        device: "/dev/sdc".into(),
        size: Bytes::gib(8),
        model: Some("Donor SSD".into()),
        serial: Some("D-1".into()),
        content: vec!["sdc1: vfat 'ESP', 512.0 MiB".into()],
        users: vec![],
        sector: Bytes(512),
    };
    let users = vec!["'/dev/sdd1' is mounted at '/srv'".into()];
    let used = Donor { device: "/dev/sdd".into(), model: None, content: vec![], users, ..free.clone() };
    vec![free, used]
}

fn targets() -> Vec<TargetSummary> {
    let ours = TargetSummary {
        target: "iqn.2026-11.internal.sheath:b-525400123456".into(),
        ours: true,
        enabled: true,
        devices: vec!["/dev/sheath/sheath-vol-1".into()],
        initiators: vec!["iqn.2026-11.internal.sheath:i-525400123456".into()],
        portals: vec!["10.77.0.1:3260".into()],
        sessions: blades()[0].session.clone().into_iter().collect(),
    };
    let foreign = TargetSummary {
        target: "iqn.2003-01.org.linux-iscsi.x:backup".into(),
        ours: false,
        enabled: false,
        devices: vec![],
        sessions: vec![],
        ..ours.clone()
    };
    vec![ours, foreign]
}

fn plan() -> Vec<PlanView> {
    let steps = vec![
        Step::Activate { volume: VolumeId(7) },
        Step::Enable { target: "iqn.2026-11.internal.sheath:b-525400123456".parse().unwrap() },
    ];
    let target = "iqn.2026-11.internal.sheath:b-525400123456".parse().unwrap();
    let held = vec![Step::RemoveStray { target, stray: Stray::Portal("10.77.0.1:3260".into()) }];
    vec![
        PlanView { subject: "chassis".into(), steps: vec![], held: vec![], problem: None },
        PlanView { subject: "b-525400123456".into(), steps, held, problem: None },
    ]
}

fn events() -> Vec<EventView> {
    let event = |seq, kind: &str, slot: Option<&str>, text: &str| EventView {
        seq,
        at: NOW - 10_000 + seq,
        kind: kind.into(),
        slot: slot.map(|slot| slot.parse().unwrap()),
        blade: slot.map(|_| "b-525400123456".parse().unwrap()),
        image: None,
        text: text.into(),
    };
    vec![
        event(1, "seen", Some("1"), "first frame on 'ens4'"),
        event(2, "reload", None, "configuration read again"),
        event(3, "security", Some("2"), "claims the address of slot 1's blade"),
    ]
}

#[test]
fn the_words_are_consistent() {
    command().debug_assert();
}

#[test]
fn every_exit_code_is_documented_once() {
    use Kind::{Busy, Denied, Exists, Failed, Full, Invalid, Missing, Timeout};
    let kinds = [Invalid, Missing, Exists, Busy, Denied, Full, Timeout, Failed];
    let mut codes: Vec<u8> = kinds.iter().map(|kind| kind.exit_code()).chain([0, 2]).collect();
    codes.sort_unstable();
    assert_eq!(codes, EXIT_STATUS.iter().map(|(code, _)| *code).collect::<Vec<_>>());
}

#[test]
fn every_command_has_a_manual_page_and_hidden_ones_have_none() {
    let pages = docs::pages().unwrap();
    let names: Vec<_> = pages.iter().map(|page| page.file.as_str()).collect();
    for file in ["sheath.1", "sheath-blade-install.1", "sheath-image-import.1", "sheath.toml.5"] {
        assert!(names.contains(&file), "{file} is not in {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("internal") || name.contains("help")), "{names:?}");
    let main = String::from_utf8(shown("man").into_bytes()).unwrap();
    assert!(main.contains("EXIT STATUS") && main.contains("refused by policy"));
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let text = shown(&format!("completions {shell}"));
        assert!(text.contains("unpublish") && text.contains("socket"), "{shell}");
        assert!(!text.contains("internal"), "{shell}");
    }
}

#[test]
fn the_tables_are_these() {
    let all = ["status", "blades", "blade show 1", "images", "targets", "plan", "events", "events --slot 2"];
    let all = [&all[..], &["sessions", "donors", "image show debian13"]].concat();
    let text: String = all.iter().map(|words| format!("$ sheath {words}\n{}\n", shown(words))).collect();
    insta::assert_snapshot!(text);
}

#[test]
fn json_is_exactly_the_apis_types() {
    fn same<T: serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(words: &str, sample: &T) {
        let out = shown(&format!("--json {words}"));
        assert_eq!(serde_json::from_str::<T>(&out).unwrap(), *sample, "{words}");
    }
    same("status", &status());
    same("blades", &blades());
    same("blade show 2", &blades()[1]);
    same("images", &images());
    same("image show debian13", &detail());
    same("image promote 1 web --dry-run", &plan());
    same("targets", &targets());
    same("plan", &plan());
    same("sessions", &sessions());
    same("blade grow 1 40GiB --dry-run", &plan());
    same("reload", &Reply::Accepted { message: "accepted".into() });
    let lines = shown("events --json");
    let lines: Vec<EventView> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, events());
}

#[test]
fn colour_changes_nothing_but_the_colour() {
    for words in ["status", "blades", "images", "targets", "plan", "events", "sessions"] {
        let colored = shown(&format!("--color always {words}"));
        assert_eq!(anstream::adapter::strip_str(&colored).to_string(), shown(words), "{words}");
    }
    assert!(shown("--color always blades").contains("\u{1b}[1m\u{1b}[31m"));
}

#[test]
fn verbs_ask_for_what_was_said() {
    for (words, request) in [
        (
            "blade install 2 debian13",
            r#"{"request":"install","slot":"2","image":"debian13","replace":false}"#,
        ),
        (
            "blade install 2 debian13 --replace --yes",
            r#"{"request":"install","slot":"2","image":"debian13","replace":true}"#,
        ),
        ("blade release 1 -y", r#"{"request":"release","slot":"1"}"#),
        ("blade move 52:54:00:12:34:56 2", r#"{"request":"move","slot":"2","blade":"b-525400123456"}"#),
        (
            "image publish debian13",
            r#"{"request":"publish","image":"debian13","published":true,"unproved":false}"#,
        ),
        (
            "image publish debian13@2 --unproved",
            r#"{"request":"publish","image":"debian13@2","published":true,"unproved":true}"#,
        ),
        (
            "image unpublish debian13",
            r#"{"request":"publish","image":"debian13","published":false,"unproved":false}"#,
        ),
        ("image default debian13@2", r#"{"request":"default-image","image":"debian13@2"}"#),
        (
            "image promote 1 web --running --publish --unproved",
            r#"{"request":"promote","slot":"1","name":"web","running":true,"publish":true,"dry_run":false,"unproved":true}"#,
        ),
        ("reload", r#"{"request":"reload"}"#),
        ("session drop 1 --yes", r#"{"request":"drop-session","slot":"1"}"#),
        (
            "adopt iqn.2003-01.org.linux-iscsi:x --slot 3 --blade 52:54:00:12:34:56 --yes",
            r#"{"request":"adopt","target":"iqn.2003-01.org.linux-iscsi:x","slot":"3","blade":"b-525400123456","image":"adopted@1","dry_run":false}"#,
        ),
        (
            "adopt iqn.2003-01.org.linux-iscsi:x --slot 3 --dry-run",
            r#"{"request":"adopt","target":"iqn.2003-01.org.linux-iscsi:x","slot":"3","blade":null,"image":"adopted@1","dry_run":true}"#,
        ),
        ("blade grow 1 +10GiB", r#"{"request":"grow","slot":"1","size":"+10GiB","dry_run":false}"#),
        ("blade grow 1 40G --dry-run", r#"{"request":"grow","slot":"1","size":"40GiB","dry_run":true}"#),
    ] {
        let agent = Agent::default();
        run(&agent, words, None).result.unwrap();
        let asked: Vec<_> = agent.asked.borrow().iter().map(|r| serde_json::to_string(r).unwrap()).collect();
        assert_eq!(asked, [request], "{words}");
    }
}

#[test]
fn without_a_terminal_and_without_yes_nothing_is_destroyed() {
    for words in
        ["blade release 1", "blade install 1 debian13 --replace", "image remove debian13", "session drop 1"]
    {
        let agent = Agent::default();
        let error = run(&agent, words, None).result.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{words}");
        assert!(error.to_string().contains("--yes"), "{error}");
        let looked = agent.asked.borrow().iter().all(|request| *request == Request::Blades);
        assert!(looked, "{words}");
    }
}

#[test]
fn consent_names_what_is_lost_and_anything_but_yes_is_no() {
    for (typed, goes_on) in [("y\n", true), ("YES\n", true), ("n\n", false), ("\n", false), ("", false)] {
        let agent = Agent::default();
        let ran = run(&agent, "blade release 1", Some(typed));
        assert_eq!(ran.result.is_ok(), goes_on, "{typed:?}");
        assert_eq!(agent.asked.borrow().contains(&Request::Release { slot: "1".parse().unwrap() }), goes_on);
        assert!(ran.err.starts_with(
            "Delete the 20.0 GiB disk of 'web1' in slot 1 (b-525400123456, made from 'debian13@1', running) for good? [y/N] "
        ), "{}", ran.err);
    }
}

#[test]
fn a_foreign_target_is_taken_over_after_its_plan_was_shown_and_agreed_to() {
    for (typed, goes_on) in [("y\n", true), ("n\n", false)] {
        let agent = Agent::default();
        let ran = run(&agent, "adopt iqn.2003-01.org.linux-iscsi:x --slot 3", Some(typed));
        assert_eq!(ran.result.is_ok(), goes_on, "{typed:?}");
        let asked = agent.asked.borrow();
        let dry: Vec<_> = asked
            .iter()
            .map(|request| matches!(request, Request::Adopt(Adopt { dry_run: true, .. })))
            .collect();
        assert_eq!(dry, if goes_on { vec![true, false] } else { vec![true] });
        let question = "Take 'iqn.2003-01.org.linux-iscsi:x' over as the disk of slot 3? [y/N] ";
        assert!(ran.err.contains("  1. ") && ran.err.contains(question), "{}", ran.err);
    }
}

#[test]
fn a_refusal_of_the_agent_is_told_with_its_kind() {
    let ran = run(&Agent::default(), "image remove debian13 --yes", None);
    assert_eq!(ran.result.unwrap_err().kind(), Kind::Busy);
    assert_eq!(
        (ran.out.as_str(), ran.err.as_str()),
        ("", "sheath: error: remove image 'debian13': 2 disks came from it\n")
    );
}

#[test]
fn an_empty_slot_has_nothing_to_show() {
    let ran = run(&Agent::default(), "blade show 7", None);
    assert_eq!(ran.result.unwrap_err().kind(), Kind::Missing);
}

#[test]
fn an_import_shows_its_progress_as_lines_and_waits_for_its_end() {
    let agent = Agent::default();
    let pace = Pace { rate: Some(Bytes::mib(50)), left: Some(60) };
    let fetching = |gib| ImportProgress::Fetching { done: Bytes::gib(gib), total: Some(Bytes::gib(4)), pace };
    *agent.progress.borrow_mut() = vec![
        fetching(0),
        fetching(1),
        ImportProgress::Checking { permyriad: 9000, pace },
        ImportProgress::Writing { permyriad: 100, pace },
        ImportProgress::Writing { permyriad: 950, pace },
        ImportProgress::Writing { permyriad: 5000, pace },
        ImportProgress::Done,
    ];
    let ran = run(&agent, "image import debian13 https://example.org/x.qcow2 --publish --unproved", None);
    ran.result.unwrap();
    assert_eq!(ran.out, "image 'debian13' is imported and published unproved\n");
    let lines =
        "fetching: 0 % of 4.0 GiB\nfetching: 20 % of 4.0 GiB\nchecking: 90 %\nwriting: 0 %\nwriting: 50 %\n";
    assert_eq!(ran.err, lines);
    let request = ImportRequest {
        name: "debian13".parse().unwrap(),
        source: "https://example.org/x.qcow2".into(),
        publish: true,
        sha256: None,
        checksum: None,
        unproved: true,
    };
    assert_eq!(agent.asked.borrow()[0], Request::Import(request));
}

#[test]
fn an_agent_that_restarts_is_waited_for_and_one_that_has_forgotten_says_so() {
    let words = "image import debian13 https://example.org/x.qcow2";
    let agent = Agent { away: Cell::new(3), ..Agent::default() };
    *agent.progress.borrow_mut() = vec![ImportProgress::Done];
    let ran = run(&agent, words, None);
    ran.result.unwrap();
    assert_eq!(ran.err, "sheathd is away: waiting for it to come back\n");
    let agent = Agent { away: Cell::new(1), ..Agent::default() };
    let error = run(&agent, words, None).result.unwrap_err();
    assert!(error.kind() == Kind::Missing && error.chain().contains("after sheathd's restart"), "{error}");
    let error = run(&Agent::default(), words, None).result.unwrap_err();
    assert!(!error.chain().contains("restart"), "nobody was away: {error}");
    let agent = Agent { away: Cell::new(9), lasting: true, ..Agent::default() };
    assert!(run(&agent, words, None).err.contains("fix: systemctl status sheathd"));
    assert_eq!(agent.away.get(), 8, "it is not asked for ever");
}

#[test]
fn a_checksum_is_read_at_once_and_a_lists_path_becomes_absolute() {
    let agent = Agent::default();
    let hex = "AB".repeat(32);
    let words = format!("image import x nbd://donor/disk --no-wait --sha256 {hex} --checksum Cargo.toml");
    run(&agent, &words, None).result.unwrap();
    let asked = agent.asked.borrow();
    let Request::Import(request) = &asked[0] else { panic!("{asked:?}") };
    assert_eq!(request.sha256.as_deref(), Some(hex.to_lowercase().as_str()));
    let list = request.checksum.as_deref().unwrap();
    assert!(list.starts_with('/') && list.ends_with("/Cargo.toml"), "{list}");
    assert!(Args::try_parse_from(["sheath", "image", "import", "x", "y", "--sha256", "abc"]).is_err());
}

#[test]
fn what_is_done_with_an_image_can_be_cancelled() {
    let agent = Agent::default();
    run(&agent, "image cancel rocky", None).result.unwrap();
    assert_eq!(agent.asked.borrow()[0], Request::Cancel { image: "rocky".parse().unwrap() });
}

#[test]
fn a_failed_import_fails_with_the_kind_that_the_agent_says() {
    let agent = Agent::default();
    *agent.progress.borrow_mut() =
        vec![ImportProgress::Failed { error: "import image 'x': no space".into(), kind: Kind::Full }];
    let error = run(&agent, "image import x https://example.org/x --json", None).result.unwrap_err();
    assert_eq!((error.kind(), error.chain().as_str()), (Kind::Full, "import image 'x': no space"));
}

#[test]
fn a_path_becomes_absolute_and_other_urls_are_refused() {
    let agent = Agent::default();
    run(&agent, "image import x Cargo.toml --no-wait", None).result.unwrap();
    let asked = agent.asked.borrow();
    let Request::Import(request) = &asked[0] else { panic!("{asked:?}") };
    assert!(request.source.starts_with('/') && request.source.ends_with("/Cargo.toml"), "{}", request.source);
    for (source, kind) in [("ftp://x/y", Kind::Invalid), ("/nowhere/x.img", Kind::Missing)] {
        let error = run(&Agent::default(), &format!("image import x {source}"), None).result.unwrap_err();
        assert_eq!(error.kind(), kind, "{source}");
    }
}

#[test]
fn a_faulty_configuration_is_listed_whole_and_ends_with_the_code_for_invalid() {
    let agent = Agent::default();
    let ran = run(&agent, "config check src/config/check/faulty.toml", None);
    assert_eq!(ran.result.unwrap_err().kind(), Kind::Invalid);
    assert!(ran.out.lines().count() > 30 && ran.err.contains("faults"), "{}", ran.err);
    assert!(agent.asked.borrow().is_empty());
    assert_eq!(shown("config check config/sheath.toml"), "config/sheath.toml: no faults\n");
    let json = run(&agent, "--json config check src/config/check/faulty.toml", None).out;
    let faults: Vec<crate::config::Fault> = serde_json::from_str(&json).unwrap();
    assert_eq!(faults.len(), ran.out.lines().count());
}

#[test]
fn bad_words_never_reach_the_agent() {
    for words in [
        "blade show 0",
        "blade show x",
        "blade grow 1 -5GiB",
        "blade grow 1 lots",
        "blade install 1 ../x",
        "image import a;b f",
        "blade move zz 1",
        "image import a f --unproved",
    ] {
        let parsed = Args::try_parse_from(["sheath"].into_iter().chain(words.split(' ')));
        assert_eq!(parsed.unwrap_err().exit_code(), 2, "{words}");
    }
}
