//! Whole event lines on the simulated machine: what a blade, a cable or the operator causes, to its end.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard},
};

use super::*;
use crate::{
    apply::carry_out,
    boot::wire::{Ask, Choice},
    config::{BladePolicy, DiskKeys, Given, ImageProfile, Policy},
    control::api::PromoteRequest,
    error::Kind,
    host::sim::{Machine, Sim},
    model::{Bytes, Hardware, Mac, Role, VolumeState},
    observed::{ObservedPort, SessionKind},
    sample,
    status::{BladePhase, Moment},
    watch::{Link, Network},
};

mod adopt;
mod captures;
mod donors;
mod drift;
mod images;
mod imports;
mod quarantine;
mod sessions;
mod workshop;

/// The line, its simulated machine, and the jobs that wait.
struct Bench {
    core: Core,
    host: Arc<Sim>,
    jobs: Arc<Mutex<VecDeque<Job>>>,
    clock: Arc<Mutex<Millis>>,
    works: Arc<Mutex<Vec<WorkOrder>>>,
    next_config: Arc<Mutex<std::result::Result<Config, Vec<String>>>>,
    orders: Arc<Mutex<Vec<ImportOrder>>>,
    freezes: Arc<Mutex<Vec<super::FreezeOrder>>>,
    dir: tempfile::TempDir,
}

fn machine() -> Machine {
    let mut machine = Machine { volumes: sample::volumes(), ..Machine::default() };
    for n in 1..=4 {
        machine.chassis.ports.insert(format!("port{n}").parse().unwrap(), ObservedPort::default());
    }
    machine
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

impl Bench {
    fn new(config: Config) -> Self {
        Self::resumed(
            config,
            Arc::new(Sim::new("sheath".parse().unwrap(), machine())),
            tempfile::tempdir().unwrap(),
        )
    }

    /// Starts the agent on a machine that is as it is, with the state that is in the folder.
    fn resumed(config: Config, host: Arc<Sim>, dir: tempfile::TempDir) -> Self {
        let mut bench = Self::held(config, host, dir);
        bench.settle();
        bench
    }

    /// As [`Bench::resumed`], with no job carried out yet.
    fn held(config: Config, host: Arc<Sim>, dir: tempfile::TempDir) -> Self {
        let jobs = Arc::new(Mutex::new(VecDeque::new()));
        let clock = Arc::new(Mutex::new(1_000_000));
        let next_config = Arc::new(Mutex::new(Ok(config.clone())));
        let (works, orders) = (Arc::new(Mutex::new(vec![])), Arc::new(Mutex::new(vec![])));
        let freezes = Arc::new(Mutex::new(vec![]));
        let froze = freezes.clone();
        let (queue, time, next) = (jobs.clone(), clock.clone(), next_config.clone());
        let (worked, ordered) = (works.clone(), orders.clone());
        let state = dir.path().join("roster.json");
        let roster = std::fs::read(&state).map(|bytes| Saved::parse(&bytes).unwrap().into_roster());
        let mut random = u128::from(std::process::id()) << 64;
        let outside = Outside {
            submit: Box::new(move |job| locked(&queue).push_back(job)),
            word: Box::new(|_| Some("partitioning disk")),
            import: Box::new(move |order| locked(&ordered).push(order)),
            now: Box::new(move || *locked(&time)),
            fresh: Box::new(move || {
                random = random.wrapping_mul(0x2_d997_87a9_26d4_6932_u128).wrapping_add(1 << 100 | 1);
                random
            }),
            reload: Box::new(move || locked(&next).clone()),
            files: Box::new(|_| vec![]),
            host: host.clone(),
            state,
            work: Box::new(move |order| locked(&worked).push(order)),
            freeze: Box::new(move |order| locked(&froze).push(order)),
        };
        let core = Core::new(outside, config, roster.unwrap_or_default(), Journal::default());
        let mut bench = Self { core, host, jobs, clock, works, next_config, orders, freezes, dir };
        bench.core.start();
        bench
    }

    /// Carries all jobs out, and the ones that they cause.
    fn settle(&mut self) {
        self.work();
        assert!(self.core.is_idle());
    }

    /// Carries out whatever jobs there are.
    fn work(&mut self) {
        while self.carry_one() {}
    }

    /// Carries the first job out; returns whether there was one.
    fn carry_one(&mut self) -> bool {
        let Some(job) = locked(&self.jobs).pop_front() else { return false };
        let report = carry_out(self.host.as_ref(), job, |_| ());
        self.core.handle(Event::Done(report));
        true
    }

    fn plug(&mut self, blade: u8, slot: u16) {
        let port: crate::model::PortName = format!("port{slot}").parse().unwrap();
        let link = Link { index: u32::from(slot), carrier: true, master: Some(9) };
        self.watch(WatchEvent::Link { name: port.clone(), link });
        self.watch(WatchEvent::Fdb { mac: mac(blade), port, present: true });
        self.watch(WatchEvent::Neigh { ip: ip(blade), mac: mac(blade) });
    }

    fn watch(&mut self, event: WatchEvent) {
        self.core.handle(Event::Watch(event));
    }

    fn send(&mut self, blade: u8, claim: u8, ask: Ask) -> oneshot::Receiver<Answer> {
        let (reply, answer) = oneshot::channel();
        let hardware = Hardware::default();
        let request = BootRequest { peer: ip(blade), mac: Some(mac(claim)), hardware, ask };
        self.core.handle(Event::Boot(request, reply));
        answer
    }

    /// Asks as the blade and carries out whatever that causes.
    fn ask(&mut self, blade: u8, ask: Ask) -> Answer {
        let mut answer = self.send(blade, blade, ask);
        self.settle();
        answer.try_recv().expect("answered once its jobs are done")
    }

    fn operate(&mut self, request: Request) -> Result<Reply> {
        let (reply, mut answer) = oneshot::channel();
        self.core.handle(Event::Operator(request, reply));
        self.settle();
        answer.try_recv().expect("answered")
    }

    /// Goes through the prompt to the end of the installation.
    fn install(&mut self, blade: u8) -> Answer {
        let Answer::Menu(menu) = self.ask(blade, Ask::Start) else { panic!("no menu") };
        self.ask(blade, Ask::Choose { token: menu.token, choice: Choice::Install(sample::image().into()) })
    }

    fn events(&self, kind: &str) -> usize {
        let (recent, _) = self.core.journal.subscription().subscribe();
        recent.iter().filter(|event| event.kind == kind).count()
    }

    fn told(&self, words: &str) -> bool {
        self.core.journal.subscription().subscribe().0.iter().any(|event| event.text.contains(words))
    }

    fn phase(&self, blade: u8) -> BladePhase {
        self.core.roster.blades[&sample::blade_id(blade)].phase()
    }
}

fn mac(n: u8) -> Mac {
    sample::blade_id(n).0
}

fn ip(n: u8) -> std::net::Ipv4Addr {
    [10, 77, 0, 100 + n].into()
}

#[test]
fn insert_prompt_choose_restart_boot_and_ever_after_straight_to_the_disk() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    assert_eq!((bench.phase(1), bench.events("seen")), (BladePhase::Seen, 1));
    assert!(matches!(bench.install(1), Answer::Restart { .. }));
    for _ in 0..3 {
        let Answer::Boot(disk) = bench.ask(1, Ask::Start) else { panic!("not told to boot") };
        assert!(disk.target.as_str().ends_with("b-525400000001"));
    }
    let times = &bench.core.roster.blades[&sample::blade_id(1)].times;
    for moment in [Moment::Seen, Moment::Script, Moment::Choice, Moment::TargetReady] {
        assert!(times.contains_key(&moment), "{moment:?}");
    }
    assert_eq!((bench.events("installed"), bench.events("granted")), (1, 1));
    assert!(bench.host.machine().targets.values().all(|target| target.enabled));
}

#[test]
fn a_lost_state_folder_leaves_every_blade_its_disk_and_reinstalls_nothing() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    bench.install(1);
    let before = bench.host.machine();
    let mut bench = Bench::resumed(sample::config(), bench.host, tempfile::tempdir().unwrap());
    bench.plug(1, 1);
    assert!(matches!(bench.ask(1, Ask::Start), Answer::Boot(_)));
    assert_eq!(bench.host.machine(), before);
    assert_eq!(bench.events("granted"), 0);
}

#[test]
fn an_appliance_that_starts_with_an_empty_configfs_serves_every_disk_again() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    bench.install(1);
    let before = bench.host.machine();
    bench.host.meddle(|machine| {
        machine.targets.clear();
        machine.backstores.clear();
        machine.properties.clear();
        machine.volumes.volumes.values_mut().for_each(|volume| volume.active = false);
    });
    let bench = Bench::resumed(sample::config(), bench.host, bench.dir);
    let mut after = bench.host.machine();
    after.volumes.volumes.values_mut().for_each(|volume| volume.active = true);
    assert_eq!(after, before);
}

#[test]
fn a_kill_after_any_number_of_steps_converges_at_the_next_start() {
    for survived in 0..12 {
        let mut bench = Bench::new(sample::config());
        bench.plug(1, 1);
        let Answer::Menu(menu) = bench.ask(1, Ask::Start) else { panic!("no menu") };
        let choice = Ask::Choose { token: menu.token, choice: Choice::Install(sample::image().into()) };
        let _answer = bench.send(1, 1, choice);
        let job = locked(&bench.jobs).pop_front().expect("a job for the blade");
        let crate::apply::Work::Blade { wish, volumes } = job.work else { panic!("not a blade's job") };
        let steps = crate::apply::blade_plan(bench.host.as_ref(), &wish, &volumes).unwrap().steps;
        steps.iter().take(survived).for_each(|step| drop(bench.host.run(step)));
        // kill -9: the line is gone, the machine and the state folder are as they are.
        let mut bench = Bench::resumed(sample::config(), bench.host, bench.dir);
        bench.plug(1, 1);
        assert!(matches!(bench.ask(1, Ask::Start), Answer::Restart { .. }), "after {survived} steps");
        assert!(matches!(bench.ask(1, Ask::Start), Answer::Boot(_)));
        let machine = bench.host.machine();
        assert_eq!((machine.volumes.volumes.len(), machine.targets.len()), (2, 1), "after {survived} steps");
        assert!(machine.volumes.volumes.values().all(|volume| volume.state == VolumeState::Ready));
    }
}

#[test]
fn a_request_that_claims_another_address_is_refused_and_changes_nothing() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    bench.plug(2, 2);
    bench.install(1);
    let (before, roster) = (bench.host.machine(), bench.core.roster.clone());
    let mut answer = bench.send(2, 1, Ask::Start);
    assert!(matches!(answer.try_recv(), Ok(Answer::Refused { .. })));
    assert_eq!((bench.host.machine(), &bench.core.roster), (before, &roster));
    assert_eq!(bench.events("security"), 1);
}

#[test]
fn a_blade_with_a_spoofed_address_in_another_slot_gets_neither_script_nor_secret() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    bench.install(1);
    let before = bench.host.machine();
    bench.plug(1, 2);
    for ask in [Ask::Start, Ask::Menu] {
        assert!(matches!(bench.ask(1, ask), Answer::Refused { .. }));
    }
    assert_eq!(bench.phase(1), BladePhase::Refused);
    assert_eq!(bench.host.machine(), before);
    assert!(bench.events("security") >= 2);
    bench.operate(Request::Move { slot: sample::slot(2), blade: sample::blade_id(1) }).unwrap();
    assert!(matches!(bench.ask(1, Ask::Start), Answer::Boot(_)));
    assert!(matches!(bench.operate(Request::Plan).unwrap(), Reply::Plan(plans) if plans.is_empty()));
    assert!(bench.host.machine().properties.values().all(|told| told["SHEATH_SLOT"] == "2"));
}

#[test]
fn a_menus_token_works_once_and_for_its_own_blade() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    bench.plug(2, 2);
    let Answer::Menu(menu) = bench.ask(1, Ask::Start) else { panic!("no menu") };
    let choose =
        |token: &str| Ask::Choose { token: token.into(), choice: Choice::Install(sample::image().into()) };
    assert!(matches!(bench.ask(2, choose(&menu.token)), Answer::Wait { .. }));
    assert!(matches!(bench.ask(1, choose("made up")), Answer::Wait { .. }));
    assert!(matches!(bench.ask(1, choose(&menu.token)), Answer::Restart { .. }));
    assert!(matches!(bench.ask(1, choose(&menu.token)), Answer::Wait { .. }));
    assert_eq!(bench.events("granted"), 1);
}

#[test]
fn a_console_cannot_replace_a_disk_and_the_operator_can_with_consent() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    bench.install(1);
    let old = bench.core.roster.blades[&sample::blade_id(1)].disk.clone().unwrap().volume;
    let Answer::Menu(menu) = bench.ask(1, Ask::Menu) else { panic!("no menu") };
    assert!(menu.has_disk && menu.default == Choice::Disk);
    let choice = Choice::Install(sample::image().into());
    assert!(matches!(bench.ask(1, Ask::Choose { token: menu.token, choice }), Answer::Failed { .. }));
    let install =
        |replace| Request::Install { slot: sample::slot(1), image: sample::image().into(), replace };
    assert_eq!(bench.operate(install(false)).unwrap_err().kind(), Kind::Exists);
    bench.operate(install(true)).unwrap();
    let new = bench.core.roster.blades[&sample::blade_id(1)].disk.clone().unwrap().volume;
    assert_ne!(new, old);
    assert!(!bench.host.machine().volumes.volumes.contains_key(&old.lv_name()));
}

#[test]
fn a_failed_step_is_named_on_the_console_and_tried_again() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    bench.host.fail_step(0, Kind::Failed);
    let Answer::Failed { message, .. } = bench.install(1) else { panic!("no failure told") };
    assert!(message.starts_with("preparing disk: simulated fault"), "{message}");
    assert_eq!(bench.phase(1), BladePhase::Failed);
    let Answer::Failed { .. } = bench.ask(1, Ask::Start) else { panic!("the old failure is told once more") };
    assert!(matches!(bench.ask(1, Ask::Start), Answer::Restart { .. }));
}

#[test]
fn a_second_choice_while_the_first_is_made_grants_nothing() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    let Answer::Menu(menu) = bench.ask(1, Ask::Start) else { panic!("no menu") };
    let choose = |token| Ask::Choose { token, choice: Choice::Install(sample::image().into()) };
    let _first = bench.send(1, 1, choose(menu.token));
    let (reply, mut answer) = oneshot::channel();
    let menu = BootRequest { peer: ip(1), mac: None, hardware: Hardware::default(), ask: Ask::Menu };
    bench.core.handle(Event::Boot(menu, reply));
    let Ok(Answer::Menu(menu)) = answer.try_recv() else { panic!("no menu") };
    let mut second = bench.send(1, 1, choose(menu.token));
    assert!(matches!(second.try_recv(), Ok(Answer::Failed { .. })));
    bench.settle();
    assert_eq!((bench.events("granted"), bench.host.machine().volumes.volumes.len()), (1, 2));
}

#[test]
fn an_lvm_that_fails_at_the_start_is_named_on_the_console_and_nothing_is_lost() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    bench.install(1);
    bench.host.fail_reports(Some(Kind::Timeout));
    let mut bench = Bench::resumed(sample::config(), bench.host, bench.dir);
    bench.plug(1, 1);
    let Answer::Failed { message, .. } = bench.ask(1, Ask::Start) else { panic!("no failure told") };
    assert!(message.contains("LVM report"), "{message}");
    assert!(bench.core.status().problems.iter().any(|problem| problem.about == "volumes"));
    bench.host.fail_reports(None);
    *locked(&bench.clock) += 60_000;
    bench.core.handle(Event::Tick);
    bench.settle();
    assert!(matches!(bench.ask(1, Ask::Start), Answer::Boot(_) | Answer::Restart { .. }));
    assert_eq!(bench.events("granted"), 0);
}

#[test]
fn a_full_pool_refuses_and_says_so_everywhere_until_it_has_grown() {
    let mut bench = Bench::new(sample::config());
    bench.host.meddle(|machine| machine.volumes.pool.data_percent = 95.0);
    *locked(&bench.clock) += 60_000;
    bench.core.handle(Event::Tick);
    bench.settle();
    bench.plug(1, 1);
    let Answer::Failed { message, .. } = bench.install(1) else { panic!("not refused") };
    assert!(message.contains("data 95.0 %"), "{message}");
    assert!(bench.core.status().problems.iter().any(|problem| problem.about == "pool"));
    assert_eq!(bench.host.machine().volumes.volumes.len(), 1);
    // Somebody extends the pool: the next report clears the alarm, and the blade gets what was chosen for it.
    bench.host.meddle(|machine| machine.volumes.pool.data_percent = 47.5);
    *locked(&bench.clock) += 60_000;
    bench.core.handle(Event::Tick);
    bench.settle();
    assert!(!bench.core.status().problems.iter().any(|problem| problem.about == "pool"));
    let Answer::Failed { .. } = bench.ask(1, Ask::Start) else { panic!("the old failure is told once more") };
    assert!(matches!(bench.ask(1, Ask::Start), Answer::Boot(_) | Answer::Restart { .. }));
}

#[test]
fn spares_are_made_ahead_given_out_and_made_again() {
    let mut config = sample::config();
    config.images.insert(sample::image().name, ImageProfile { spares: 2, ..ImageProfile::default() });
    let mut bench = Bench::new(config);
    let spares = |bench: &Bench| {
        let volumes = bench.host.machine().volumes.volumes;
        volumes.values().filter(|volume| matches!(volume.role, Role::Spare { .. })).count()
    };
    assert_eq!(spares(&bench), 2);
    bench.plug(1, 1);
    bench.install(1);
    assert_eq!(spares(&bench), 2);
    assert_eq!(bench.host.machine().volumes.volumes.len(), 4);
}

#[test]
fn a_blade_that_is_to_have_another_disk_gets_no_spare_and_spares_follow_the_profile() {
    let larger = |size| DiskKeys { disk_size: Some(Given::Size(size)), ..DiskKeys::default() };
    let mut config = sample::config();
    config.images.insert(sample::image().name, ImageProfile { spares: 1, ..ImageProfile::default() });
    let narrow = BladePolicy { disk: larger(Bytes::gib(40)), ..config.policy.default.clone() };
    config.policy.slots.insert(sample::slot(2), narrow);
    let mut bench = Bench::new(config.clone());
    let sizes = |bench: &Bench, is: fn(&Role) -> bool| {
        let volumes = bench.host.machine().volumes.volumes;
        volumes.values().filter(|volume| is(&volume.role)).map(|volume| volume.size).collect::<Vec<_>>()
    };
    let (spare, disk) =
        (|role: &Role| matches!(role, Role::Spare { .. }), |role: &Role| matches!(role, Role::Disk { .. }));
    let own = sizes(&bench, spare);
    bench.plug(2, 2);
    bench.install(2);
    assert_eq!(sizes(&bench, disk), [Bytes::gib(40)]);
    assert_eq!(sizes(&bench, spare), own, "the spare is still there");
    config.images.get_mut(&sample::image().name).unwrap().disk = larger(Bytes::gib(20));
    *locked(&bench.next_config) = Ok(config);
    bench.watch(WatchEvent::ConfigChanged);
    bench.settle();
    assert_eq!(sizes(&bench, spare), [Bytes::gib(20)], "made anew");
    assert_eq!(sizes(&bench, disk), [Bytes::gib(40)], "a disk that exists is left alone");
}

#[test]
fn a_faulty_configuration_is_refused_as_a_whole_and_shown() {
    let mut bench = Bench::new(sample::config());
    let mut better = sample::config();
    better.policy.default.policy = Policy::Wait;
    *locked(&bench.next_config) = Err(vec!["sheath.toml:3: chassis.address: expected …".into()]);
    bench.watch(WatchEvent::ConfigChanged);
    assert_eq!(bench.core.status().config_faults.len(), 1);
    assert_eq!(*bench.core.config, sample::config());
    *locked(&bench.next_config) = Ok(better.clone());
    bench.watch(WatchEvent::ConfigChanged);
    bench.settle();
    assert!(bench.core.status().config_faults.is_empty());
    assert_eq!(*bench.core.config, better);
}

#[test]
fn pings_begin_when_the_operating_system_is_up_and_end_with_its_session() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    bench.install(1);
    let session = |kind| Session { initiator: "i".into(), address: None, kind, id: 1 };
    let nopin = |bench: &Bench| {
        let machine = bench.host.machine();
        machine.targets.values().next().unwrap().acls.values().next().unwrap().nopin_timeout
    };
    for (now, seconds) in
        [(Some(session(SessionKind::Ipxe)), 0), (Some(session(SessionKind::Os)), 15), (None, 0)]
    {
        bench.host.meddle(|machine| {
            let acls = machine.targets.values_mut().flat_map(|target| target.acls.values_mut());
            acls.for_each(|acl| acl.session.clone_from(&now));
        });
        bench.core.handle(Event::Session(sample::blade_id(1), now));
        bench.settle();
        assert_eq!(nopin(&bench), seconds);
        assert!(matches!(bench.operate(Request::Plan).unwrap(), Reply::Plan(plans) if plans.is_empty()));
    }
}

#[test]
fn a_slow_job_is_answered_with_progress_in_time() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    let Answer::Menu(menu) = bench.ask(1, Ask::Start) else { panic!("no menu") };
    let choice = Ask::Choose { token: menu.token, choice: Choice::Install(sample::image().into()) };
    let mut answer = bench.send(1, 1, choice);
    bench.core.handle(Event::Tick);
    assert!(answer.try_recv().is_err());
    *locked(&bench.clock) += 3_000;
    bench.core.handle(Event::Tick);
    assert_eq!(answer.try_recv().unwrap(), Answer::Progress { message: "... partitioning disk".into() });
    bench.settle();
    assert!(matches!(bench.ask(1, Ask::Start), Answer::Restart { .. }));
}

#[test]
fn a_released_disk_is_gone_and_its_blade_is_prompted_again() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    bench.install(1);
    bench.core.handle(Event::Session(
        sample::blade_id(1),
        Some(Session { initiator: "i".into(), address: None, kind: SessionKind::Os, id: 1 }),
    ));
    bench.settle();
    let release = Request::Release { slot: sample::slot(1) };
    assert_eq!(bench.operate(release.clone()).unwrap_err().kind(), Kind::Busy);
    bench.core.handle(Event::Session(sample::blade_id(1), None));
    bench.operate(release).unwrap();
    let machine = bench.host.machine();
    assert_eq!((machine.volumes.volumes.len(), machine.targets.len(), machine.backstores.len()), (1, 0, 0));
    assert!(matches!(bench.ask(1, Ask::Start), Answer::Menu(_)));
}

#[test]
fn a_resync_replaces_what_was_known_of_the_network() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    bench.plug(2, 2);
    let port = |n: u16| format!("port{n}").parse::<crate::model::PortName>().unwrap();
    let link = |carrier| Link { index: 1, carrier, master: Some(9) };
    let links = BTreeMap::from([(port(1), link(false)), (port(2), link(true))]);
    let network = Network { links, fdb: [(mac(2), port(2))].into(), neigh: [(ip(2), mac(2))].into() };
    bench.watch(WatchEvent::Resync(network));
    assert_eq!((bench.phase(1), bench.phase(2)), (BladePhase::Absent, BladePhase::Seen));
    assert!(bench.core.presence.identify(ip(1), None).is_err());
    assert!(bench.core.presence.identify(ip(2), None).is_ok());
}

#[test]
fn a_plan_shows_what_a_hand_edit_needs_and_changes_nothing() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    bench.install(1);
    assert!(matches!(bench.operate(Request::Plan).unwrap(), Reply::Plan(plans) if plans.is_empty()));
    bench.host.meddle(|machine| machine.targets.values_mut().for_each(|target| target.portals.clear()));
    let edited = bench.host.machine();
    let Reply::Plan(plans) = bench.operate(Request::Plan).unwrap() else { panic!("not a plan") };
    assert_eq!((plans.len(), plans[0].steps.len()), (1, 1));
    assert_eq!(bench.host.machine(), edited);
}

/// Puts a disk for each of these blades in the pool, in slot 1 all of them.
fn own_disks(host: &Sim, blades: std::ops::RangeInclusive<u8>) {
    host.meddle(|machine| {
        let golden = machine.volumes.volumes[&sample::image().lv_name()].clone();
        for n in blades {
            let id = crate::model::VolumeId(u128::from(n) << 100);
            let role = Role::Disk {
                id,
                image: sample::image(),
                blade: sample::blade_id(n),
                slot: sample::slot(u16::from(n % 4) + 1),
            };
            let disk = crate::model::Volume { lv: id.lv_name(), role, ..golden.clone() };
            machine.volumes.volumes.insert(disk.lv.clone(), disk);
        }
    });
}

#[test]
fn a_start_fills_the_lanes_a_little_at_a_time_and_a_blade_that_comes_does_not_wait_for_the_others() {
    let host = Arc::new(Sim::new("sheath".parse().unwrap(), machine()));
    own_disks(&host, 1..=40);
    let mut bench = Bench::held(sample::config(), host, tempfile::tempdir().unwrap());
    while bench.core.volumes.is_none() {
        bench.carry_one();
    }
    let blades = |bench: &Bench| -> Vec<Subject> {
        let jobs = locked(&bench.jobs);
        jobs.iter().map(|job| job.subject.clone()).filter(|s| matches!(s, Subject::Blade(_))).collect()
    };
    assert!((1..=8).contains(&blades(&bench).len()), "{} jobs at once", blades(&bench).len());
    // It is the last of the forty, and asks now.
    bench.plug(40, 1);
    let _answer = bench.send(40, 40, Ask::Start);
    assert_eq!(blades(&bench).last(), Some(&Subject::Blade(sample::blade_id(40))));
    bench.settle();
    assert_eq!(host_targets(&bench), 40);
}

fn host_targets(bench: &Bench) -> usize {
    bench.host.machine().targets.values().filter(|target| target.enabled).count()
}

#[test]
fn a_job_brings_the_volumes_of_its_blade_and_no_others() {
    let host = Arc::new(Sim::new("sheath".parse().unwrap(), machine()));
    own_disks(&host, 1..=40);
    let mut bench = Bench::resumed(sample::config(), host, tempfile::tempdir().unwrap());
    bench.core.converge(sample::blade_id(7), "test");
    let job = locked(&bench.jobs).pop_back().unwrap();
    let crate::apply::Work::Look { volumes, .. } = job.work else { panic!("a look at a blade") };
    assert_eq!(volumes.volumes.len(), 1);
}

#[test]
fn an_event_that_changes_nothing_lasting_writes_no_file() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    let file = bench.dir.path().join("roster.json");
    let written = || std::fs::metadata(&file).unwrap().modified().unwrap();
    let before = written();
    bench.core.handle(Event::Watch(WatchEvent::Neigh { ip: ip(9), mac: mac(1) }));
    bench.core.handle(Event::Tick);
    assert_eq!(written(), before);
    bench.install(1);
    assert_ne!(written(), before);
}

#[test]
fn a_change_that_would_end_a_session_is_told_waits_and_is_done_when_the_operator_agrees() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    bench.install(1);
    bench.ask(1, Ask::Start);
    let wish = bench.core.wish(sample::blade_id(1)).unwrap();
    let initiator = wish.disk.as_ref().unwrap().export.initiator.clone();
    let session = Session { initiator: initiator.to_string(), address: None, kind: SessionKind::Os, id: 1 };
    let old = crate::model::Portal("10.77.0.1:4000".parse().unwrap());
    bench.host.meddle(|machine| {
        let target = machine.targets.get_mut(&wish.target).unwrap();
        target.portals.insert(old);
        target.acls.get_mut(initiator.as_str()).unwrap().session = Some(session.clone());
    });
    let stale = |bench: &Bench| bench.host.machine().targets[&wish.target].portals.contains(&old);
    bench.core.handle(Event::Session(sample::blade_id(1), Some(session)));
    bench.settle();
    let held = bench.core.blades()[0].held.clone();
    assert!(held.len() == 1 && held[0].contains("10.77.0.1:4000"), "{held:?}");
    assert!(stale(&bench) && bench.events("held") == 1);
    bench.operate(Request::Apply { slot: sample::slot(1) }).unwrap();
    assert!(!stale(&bench) && bench.core.blades()[0].held.is_empty());
    let again = bench.operate(Request::Apply { slot: sample::slot(1) });
    assert_eq!(again.unwrap_err().kind(), Kind::Missing);
    assert!(!bench.core.roster.blades[&sample::blade_id(1)].interrupt, "the consent was for once");
}
