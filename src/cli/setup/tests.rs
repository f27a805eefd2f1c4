//! What set-up is promised: whole plans, refusals that name what they found, and convergence after any stop.

use std::{cell::RefCell, collections::BTreeSet, time::Duration};

use clap::Parser as _;

use super::*;
use crate::{
    cli::args::{Args, Command},
    control::api::{Reply, Request},
    error::{Error, Kind},
    model::Bytes,
    status::EventView,
};
use plan::{Planned, SetupStep as Step, UNITS};
use survey::{DiskFacts, PortFacts};

const ON_DISK: &str = "setup --disk /dev/sdb --slots eth1,eth2 --address 10.77.0.1/24";
const IN_FILE: &str = "setup --file 20GiB --slots eth1,eth2 --address 10.77.0.1/24";

/// A machine that does as it is told: each step makes the survey's facts what the step says.
struct Machine {
    survey: RefCell<Survey>,
    ran: RefCell<Vec<String>>,
    /// How many steps may still run before something breaks.
    breaks_after: RefCell<usize>,
}

impl SetupHost for Machine {
    fn survey(&self, _: &Wish) -> Result<Survey> {
        Ok(self.survey.borrow().clone())
    }

    fn run(&self, step: &Step) -> Result<Changed> {
        let mut left = self.breaks_after.borrow_mut();
        *left = left.checked_sub(1).ok_or_else(|| Error::new(Kind::Failed, "pulled the plug"))?;
        self.ran.borrow_mut().push(step.to_string());
        let mut survey = self.survey.borrow_mut();
        match step {
            Step::PoolFile { size, .. } => survey.pool_file = Some(*size),
            Step::PoolLoop { .. } => survey.pool_loop = true,
            Step::PhysicalVolume { .. } => survey.disk = DiskFacts::Volume { vg: None },
            Step::VolumeGroup { vg, .. } => {
                survey.disk = DiskFacts::Volume { vg: Some(vg.to_string()) };
                survey.vg_disks = Some(vec!["/dev/sdb".into()]);
            }
            Step::ThinPool { .. } => survey.thinpool = true,
            Step::MasterKey { .. } => survey.master_key = true,
            Step::Configuration { text, .. } => survey.config = Some(text.clone()),
            Step::Services { .. } => survey.services = true,
            Step::Answer => survey.answers = true,
        }
        Ok(Changed::Changed)
    }
}

struct Nobody;

impl crate::cli::Ask for Nobody {
    fn ask(&self, _: Request) -> Result<Reply> {
        unreachable!("set-up asks the agent through its machine")
    }

    fn events(&self, _: bool, _: &mut dyn FnMut(EventView) -> std::ops::ControlFlow<()>) -> Result<()> {
        unreachable!("set-up follows no events")
    }
}

fn blank() -> Survey {
    let port = |name: &str| (name.parse().unwrap(), PortFacts::default());
    Survey {
        disk: DiskFacts::Blank,
        vg_disks: None,
        thinpool: false,
        pool_file: None,
        pool_loop: false,
        ports: [port("eth1"), port("eth2")].into(),
        interfaces: BTreeSet::from(["eth0".into(), "eth1".into(), "eth2".into()]),
        networks: vec![("eth0".into(), "192.168.1.5".parse().unwrap(), 24)],
        config: None,
        master_key: false,
        services: false,
        answers: false,
    }
}

fn machine(survey: Survey) -> Machine {
    Machine { survey: RefCell::new(survey), ran: RefCell::default(), breaks_after: RefCell::new(usize::MAX) }
}

fn args(words: &str) -> SetupArgs {
    let args = Args::try_parse_from(["sheath"].into_iter().chain(words.split(' '))).unwrap();
    let Command::Setup(args) = args.command else { panic!("{words}") };
    args
}

fn run_setup(machine: &Machine, words: &str, typed: Option<&str>) -> (String, Result<()>) {
    let mut out = vec![];
    let mut session = Session {
        ask: &Nobody,
        out: Box::new(&mut out),
        err: Box::new(std::io::sink()),
        input: Box::new(std::io::Cursor::new(typed.unwrap_or_default().to_owned())),
        json: words.contains("--json"),
        color: false,
        color_err: false,
        terminal: typed.is_some(),
        now: 0,
        begun: std::time::Instant::now(),
        poll: Duration::ZERO,
        away: Duration::ZERO,
    };
    let result = set_up(&mut session, machine, &args(words));
    drop(session);
    (String::from_utf8(out).unwrap(), result)
}

fn refusal(words: &str, survey: Survey) -> (Kind, String) {
    let machine = machine(survey);
    let error = run_setup(&machine, &format!("{words} --yes"), None).1.unwrap_err();
    assert!(machine.ran.borrow().is_empty(), "a refusal comes before anything is changed");
    (error.kind(), error.chain())
}

#[test]
fn a_blank_machine_gets_the_whole_plan() {
    let wish = wish(&args(ON_DISK)).unwrap();
    let plan = plan::plan(&wish, &blank()).unwrap();
    let (vg, on) = (wish.vg.clone(), Backing::Disk { path: "/dev/sdb".into() });
    let text = crate::config::render_initial(&crate::config::Initial {
        address: ("10.77.0.1".parse().unwrap(), 24),
        slots: vec!["eth1".parse().unwrap(), "eth2".parse().unwrap()],
        vg: vg.clone(),
    });
    let steps = [
        Step::PhysicalVolume { vg: vg.clone(), on: on.clone() },
        Step::VolumeGroup { vg: vg.clone(), on },
        Step::ThinPool { vg, thinpool: "pool".parse().unwrap() },
        Step::MasterKey { path: "/etc/sheath/master.key".into() },
        Step::Configuration { path: "/etc/sheath/sheath.toml".into(), text },
        Step::Services { units: UNITS.map(str::to_owned).to_vec() },
        Step::Answer,
    ];
    let steps = steps.map(|step| Planned { step, state: State::ToDo }).to_vec();
    assert_eq!(plan, SetupPlan { steps });
}

#[test]
fn what_is_shown_is_what_is_done() {
    let machine = machine(Survey { master_key: true, ..blank() });
    let (out, result) = run_setup(&machine, IN_FILE, Some("y\n"));
    result.unwrap();
    insta::assert_snapshot!(out);
}

#[test]
fn a_second_run_finds_nothing_to_do_and_does_not_ask() {
    let machine = machine(blank());
    run_setup(&machine, &format!("{ON_DISK} --yes"), None).1.unwrap();
    machine.ran.borrow_mut().clear();
    // It is up: the bridge has the address now, and the ports belong to it.
    {
        let mut survey = machine.survey.borrow_mut();
        survey.networks.push(("sheath0".into(), "10.77.0.1".parse().unwrap(), 24));
        survey.ports.values_mut().for_each(|facts| facts.uppers = vec!["sheath0".into()]);
    }
    let (out, result) = run_setup(&machine, ON_DISK, None);
    result.unwrap();
    assert!(out.ends_with("nothing to do: everything is as asked for\n"), "{out}");
    assert!(machine.ran.borrow().is_empty());
}

#[test]
fn after_a_stop_at_any_step_the_next_run_does_the_rest_and_no_more() {
    for words in [ON_DISK, IN_FILE] {
        let whole = machine(blank());
        run_setup(&whole, &format!("{words} --yes"), None).1.unwrap();
        let all = whole.ran.into_inner();
        for stop in 0..all.len() {
            let machine = machine(blank());
            *machine.breaks_after.borrow_mut() = stop;
            let error = run_setup(&machine, &format!("{words} --yes"), None).1.unwrap_err();
            assert!(error.chain().contains("run it again to go on"), "{}", error.chain());
            *machine.breaks_after.borrow_mut() = usize::MAX;
            run_setup(&machine, &format!("{words} --yes"), None).1.unwrap();
            assert_eq!(machine.ran.into_inner(), all, "stopped after {stop}");
        }
    }
}

#[test]
fn without_a_terminal_and_without_yes_the_plan_is_shown_and_nothing_done() {
    let machine = machine(blank());
    let (out, result) = run_setup(&machine, ON_DISK, None);
    assert_eq!(result.unwrap_err().kind(), Kind::Denied);
    assert!(out.starts_with("The plan:\n"));
    assert!(machine.ran.borrow().is_empty());
    assert_eq!(run_setup(&machine, ON_DISK, Some("n\n")).1.unwrap_err().kind(), Kind::Denied);
    assert!(machine.ran.borrow().is_empty());
}

#[test]
fn json_is_the_plan_as_it_was_before_the_run() {
    let machine = machine(Survey { master_key: true, ..blank() });
    let (out, result) = run_setup(&machine, &format!("{IN_FILE} --json --yes"), None);
    result.unwrap();
    let plan: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(plan["steps"][0]["step"], "pool-file");
    assert_eq!(
        (&plan["steps"][0]["state"], &plan["steps"][5]["state"]),
        (&"to-do".into(), &"already-true".into())
    );
}

#[test]
fn a_disk_that_holds_anything_is_refused_by_what_it_holds() {
    let found = vec!["a partition table (gpt)".into(), "'/dev/sdb1' is mounted at '/srv'".into()];
    insta::assert_snapshot!(refusal(ON_DISK, Survey { disk: DiskFacts::Holds(found), ..blank() }).1, @r"
    set up this machine: 2 things speak against it:
      - '/dev/sdb' holds data: a partition table (gpt)
      - '/dev/sdb' holds data: '/dev/sdb1' is mounted at '/srv'
    ");
    let foreign = DiskFacts::Volume { vg: Some("data".into()) };
    let (kind, text) = refusal(ON_DISK, Survey { disk: foreign, ..blank() });
    assert_eq!(
        (kind, text.as_str()),
        (Kind::Exists, "set up this machine: '/dev/sdb' belongs to volume group 'data'")
    );
}

#[test]
fn a_volume_group_of_this_name_elsewhere_is_refused() {
    let survey = Survey { vg_disks: Some(vec!["/dev/sdz".into()]), ..blank() };
    let text = refusal(ON_DISK, survey.clone()).1;
    assert!(text.contains("'sheath' exists on '/dev/sdz'") && text.contains("--vg"), "{text}");
}

#[test]
fn ports_that_somebody_uses_are_refused_all_at_once() {
    let mut survey = blank();
    let eth1 = survey.ports.get_mut(&"eth1".parse().unwrap()).unwrap();
    *eth1 = PortFacts {
        addresses: vec!["192.168.1.5/24".into()],
        default_route: true,
        uppers: vec!["br0".into()],
    };
    survey.ports.remove(&"eth2".parse().unwrap());
    insta::assert_snapshot!(refusal(ON_DISK, survey).1, @r"
    set up this machine: 4 things speak against it:
      - slot port 'eth1' has the default route: as a slot it would cut this machine off
      - slot port 'eth1' has the address 192.168.1.5/24: as a slot it would lose it
      - slot port 'eth1' is in use by 'br0'
      - slot port 'eth2' does not exist (there are eth0, eth1, eth2)
    ");
}

#[test]
fn a_chassis_network_that_overlaps_another_is_refused() {
    for address in ["192.168.1.1/24", "192.168.0.1/16", "192.168.1.6/30"] {
        let words = format!("setup --disk /dev/sdb --slots eth1 --address {address}");
        let (kind, text) = refusal(&words, blank());
        assert_eq!(kind, Kind::Busy, "{address}");
        assert!(text.contains("overlaps the network of 'eth0' (192.168.1.5/24)"), "{text}");
    }
}

#[test]
fn a_configuration_that_says_something_else_is_never_overwritten() {
    let other = "[chassis]\naddress = \"10.9.0.1/24\"\nslots = { 1 = \"eth1\" }\n";
    insta::assert_snapshot!(refusal(ON_DISK, Survey { config: Some(other.into()), ..blank() }).1, @r"
    set up this machine: 2 things speak against it:
      - '/etc/sheath/sheath.toml' exists and says address '10.9.0.1/24', not '10.77.0.1/24': edit it, or move it away
      - '/etc/sheath/sheath.toml' exists and says slots '1 = eth1', not '1 = eth1, 2 = eth2': edit it, or move it away
    ");
    let (kind, text) = refusal(ON_DISK, Survey { config: Some("[chassis\n".into()), ..blank() });
    assert_eq!(kind, Kind::Invalid);
    assert!(text.contains("/etc/sheath/sheath.toml:1:"), "{text}");
}

#[test]
fn a_configuration_that_says_more_is_kept() {
    let more = "[chassis]\naddress = \"10.77.0.1/24\"\nslots = { 1 = \"eth1\", 2 = \"eth2\" }\n[policy]\npolicy = \"wait\"\n";
    let machine = machine(Survey { config: Some(more.into()), ..blank() });
    run_setup(&machine, &format!("{ON_DISK} --yes"), None).1.unwrap();
    assert_eq!(machine.survey.into_inner().config.as_deref(), Some(more));
}

#[test]
fn a_wish_that_makes_no_configuration_is_refused_in_the_configurations_words() {
    let text = refusal("setup --disk /dev/sdb --slots eth1,eth1 --address 10.77.0.1/24", blank()).1;
    assert!(text.contains("chassis.slots.2: expected a port that no other slot has"), "{text}");
}

#[test]
fn a_pool_file_of_another_size_or_too_small_is_refused() {
    let (kind, text) = refusal(IN_FILE, Survey { pool_file: Some(Bytes::gib(10)), ..blank() });
    assert_eq!(kind, Kind::Exists);
    assert!(text.contains("has 10.0 GiB, not 20.0 GiB"), "{text}");
    let words = "setup --file 100MiB --slots eth1 --address 10.77.0.1/24";
    assert_eq!(refusal(words, blank()).0, Kind::Invalid);
}

#[test]
fn words_that_make_no_wish_are_refused_by_clap() {
    for words in [
        "setup --slots eth1 --address 10.77.0.1/24",
        "setup --disk /dev/sdb --file 1GiB --slots eth1 --address 10.77.0.1/24",
        "setup --disk /dev/sdb --slots eth1,../x --address 10.77.0.1/24",
        "setup --disk /dev/sdb --slots eth1 --address 10.77.0.0/24",
        "setup --disk /dev/sdb --address 10.77.0.1/24",
        "setup --file 1.5GiB --slots eth1 --address 10.77.0.1/24",
    ] {
        let parsed = Args::try_parse_from(["sheath"].into_iter().chain(words.split(' ')));
        assert_eq!(parsed.unwrap_err().exit_code(), 2, "{words}");
    }
}
