//! The agent's line, lanes and watch on configfs, on a machine that is real as far as LIO goes: LVM's report is made up,
//! the chassis is empty, udev is told nothing.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, RwLock, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use sheath::{
    apply::Lanes,
    config::Config,
    control::api::Request,
    daemon::core::{Core, Event, Journal, Outside, Subscription, now},
    error::Result,
    host::{
        Host,
        keys::MasterKey,
        lio::{Acl, Lio},
    },
    model::{
        Backstore, BladeId, Bytes, Chap, Credentials, Difference, Export, Iqn, NopIn, PortName, Portal, Role,
        Volume, VolumeId, VolumeState,
    },
    observed::{Counters, LoginFailures, ObservedChassis, ObservedExport, Session, TargetSummary, Volumes},
    plan::{Changed, Step},
    roster::Roster,
    watch::{WatchEvent, configfs},
};

use crate::{
    blade::{MIB, PREFIX, ROOT, lio, said},
    guest::{Disk, run, wait_for},
    initiator::{Initiator, Login},
};

const VG: &str = "drift";
const ROSTER: &str = "/run/drift-roster.json";

/// A blade whose export the line keeps, and what a hand edit needs to know of it.
pub(crate) struct Rig {
    pub(crate) lio: Lio,
    pub(crate) id: BladeId,
    pub(crate) wish: Export,
    slot: u16,
    link: PathBuf,
    _disk: Option<Disk>,
}

impl Rig {
    /// Returns blades with disks of their own.
    pub(crate) fn several(number: usize) -> Vec<Self> {
        (1..=number)
            .map(|n| {
                let disk = Disk::new(&format!("drift-{n}"), 64 * MIB);
                Self::on(n, disk.path()).keeping(disk)
            })
            .collect()
    }

    /// Returns blades with disks that hold nothing: cheap where many are needed.
    pub(crate) fn several_on_nothing(number: usize) -> Vec<Self> {
        (1..=number)
            .map(|n| {
                let folder = format!("/sys/kernel/config/nullb/drift{n}");
                if !Path::new(&folder).exists() {
                    fs::create_dir(&folder).unwrap();
                    // Megabytes.
                    fs::write(format!("{folder}/size"), "64").unwrap();
                    fs::write(format!("{folder}/power"), "1").unwrap();
                }
                let index = fs::read_to_string(format!("{folder}/index")).unwrap();
                let named = PathBuf::from(format!("/dev/drift{n}"));
                let numbered = PathBuf::from(format!("/dev/nullb{}", index.trim()));
                wait_for("a null block device", || {
                    [&named, &numbered].into_iter().find(|path| path.exists()).map(|path| Self::on(n, path))
                })
            })
            .collect()
    }

    fn keeping(self, disk: Disk) -> Self {
        Self { _disk: Some(disk), ..self }
    }

    fn on(n: usize, device: &Path) -> Self {
        let id: BladeId = format!("b-5254000000{n:02x}").parse().unwrap();
        let volume = VolumeId((n as u128) << 104 | 0xd41f);
        let link = PathBuf::from(format!("/dev/{VG}/{}", volume.lv_name()));
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(device, &link).unwrap();
        let prefix: Iqn = PREFIX.parse().unwrap();
        let wish = Export {
            backstore: Backstore { volume, device: link.clone() },
            target: prefix.join(&id.to_string()).unwrap(),
            initiator: prefix.join(&format!("initiator:{id}")).unwrap(),
            portals: vec![Portal("10.77.0.1:3260".parse().unwrap())],
            chap: Chap::OneWay,
        };
        Self { lio: lio(), id, wish, slot: u16::try_from(n).unwrap(), link, _disk: None }
    }

    pub(crate) fn target(&self) -> PathBuf {
        Path::new(ROOT).join("iscsi").join(self.wish.target.as_str())
    }

    pub(crate) fn acl(&self) -> PathBuf {
        self.target().join("tpgt_1/acls").join(self.wish.initiator.as_str())
    }

    pub(crate) fn backstore(&self) -> PathBuf {
        let hba = format!("iblock_{}", self.wish.backstore.hba());
        Path::new(ROOT).join("core").join(hba).join(self.wish.backstore.name())
    }

    /// Writes a file below the target.
    pub(crate) fn write(&self, file: &str, value: &str) {
        fs::write(self.target().join(file), value).unwrap();
    }

    /// Writes a file below the ACL.
    pub(crate) fn write_acl(&self, file: &str, value: &str) {
        fs::write(self.acl().join(file), value).unwrap();
    }

    /// Takes the mapped LUN away.
    pub(crate) fn unmap(&self) {
        fs::remove_file(self.acl().join("lun_0/lun")).unwrap();
        fs::remove_dir(self.acl().join("lun_0")).unwrap();
    }

    /// Returns whether LIO holds what it should: the planner says so. What is only half there is not.
    pub(crate) fn is_right(&self) -> bool {
        let Ok(found) = self.lio.export(&self.wish.target, self.wish.backstore.volume) else { return false };
        let named = self.lio.differences(&self.wish);
        named.is_ok_and(|named| sheath::plan::drift(&self.wish, &found, &named).is_empty())
    }

    pub(crate) fn login(&self) -> Login {
        let credentials =
            MasterKey::from_bytes([7; 32]).credentials(self.wish.backstore.volume, Chap::OneWay);
        let initiator = Initiator::new(&format!("drift-{}", self.slot), self.wish.initiator.as_str());
        initiator.login(&self.wish.target, self.wish.portals[0], &credentials).unwrap()
    }

    pub(crate) fn session_id(&self) -> Option<u32> {
        said(self.lio.session(&self.wish.target, &self.wish.initiator)).map(|session| session.id)
    }

    /// Takes the export away; the line must have stopped, or it would put it back.
    pub(crate) fn remove(&self) {
        said(self.lio.disable(&self.wish.target));
        said(self.lio.remove_target(&self.wish.target));
        said(self.lio.remove_backstore(self.wish.backstore.volume));
        fs::remove_file(&self.link).unwrap();
    }

    fn volume(&self) -> Volume {
        let id = self.wish.backstore.volume;
        Volume {
            lv: id.lv_name(),
            role: Role::Disk {
                id,
                image: "golden".parse().unwrap(),
                blade: self.id,
                slot: self.slot.to_string().parse().unwrap(),
            },
            state: VolumeState::Ready,
            size: Bytes::gib(1),
            device: self.link.clone(),
            active: true,
            writable: true,
            used_percent: None,
        }
    }
}

/// The agent.
pub(crate) struct Line {
    events: mpsc::Sender<Event>,
    journal: Subscription,
    machine: Arc<Machine>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Line {
    /// Starts it, and waits until all exports are there and watched.
    #[allow(clippy::print_stdout, reason = "the figure is what somebody who runs this wants to see")]
    pub(crate) fn start(rigs: &[Rig], drift: &str) -> Self {
        let _ = run("ip", &["address", "add", "10.77.0.1/24", "dev", "lo"]);
        let machine = Arc::new(Machine::new(rigs));
        let (events, queue) = mpsc::channel();
        let core = Core::new(
            outside(machine.clone(), &events, config(rigs, drift)),
            config(rigs, drift),
            Roster::default(),
            Journal::default(),
        );
        let (journal, orders) = (core.subscription(), core.orders());
        watch(orders, events.clone());
        let stopped = Arc::new(AtomicBool::new(false));
        let (end, ticks) = (stopped.clone(), events.clone());
        let thread = Some(thread::spawn(move || turn(core, &queue, &end)));
        thread::spawn(move || {
            while ticks.send(Event::Tick).is_ok() {
                thread::sleep(Duration::from_secs(1));
            }
        });
        let line = Self { events, journal, machine, stopped, thread };
        let begin = Instant::now();
        rigs.iter().for_each(|rig| wait_for("the export", || rig.is_right().then_some(())));
        println!("{} exports in {:?}", rigs.len(), begin.elapsed());
        line.quiet();
        line
    }

    /// Stops the line's thread; the lanes end with it.
    pub(crate) fn stop(self) {
        drop(self);
    }

    /// Waits until nobody has looked at an export for as long as touches settle, several times over.
    pub(crate) fn quiet(&self) {
        let (mut looks, mut since) = (self.looks(), Instant::now());
        while since.elapsed() < Duration::from_millis(400) {
            thread::sleep(Duration::from_millis(20));
            if self.looks() != looks {
                (looks, since) = (self.looks(), Instant::now());
            }
        }
    }

    /// Keeps the line's hands off LIO until the guard is dropped: it neither looks at an export nor changes one.
    ///
    /// For an edit of several system calls. The line is there within tenths of a second, which is sooner than a slow machine
    /// has done them all; what it had put back by then would be in the way of the rest.
    pub(crate) fn hands_off(&self) -> RwLockWriteGuard<'_, ()> {
        self.machine.hands.write().unwrap()
    }

    /// Returns how often an export was looked at.
    pub(crate) fn looks(&self) -> usize {
        self.machine.looks.load(Ordering::Relaxed)
    }

    /// Has one export looked at, as if it had been touched.
    pub(crate) fn look(&self, rig: &Rig) {
        let looks = self.looks();
        self.events.send(Event::Watch(WatchEvent::Touched { blade: rig.id, paths: vec![] })).unwrap();
        wait_for("a look", || (self.looks() > looks).then_some(()));
    }

    /// Does what `sheath reload` does.
    pub(crate) fn reload(&self) {
        let (reply, answer) = tokio::sync::oneshot::channel();
        self.events.send(Event::Operator(Request::Reload, reply)).unwrap();
        said(answer.blocking_recv().unwrap());
    }

    /// Returns how many events told drift.
    pub(crate) fn drift_events(&self) -> usize {
        self.drift().len()
    }

    /// Returns what was told of this blade's drift after the first `events`, if anything was.
    pub(crate) fn drift_since(&self, events: usize, rig: &Rig) -> Option<String> {
        let told = self.drift().into_iter().skip(events).filter(|(blade, _)| *blade == Some(rig.id));
        let told: Vec<_> = told.map(|(_, text)| text).collect();
        (!told.is_empty()).then(|| told.join(" | "))
    }

    /// Returns the last events, for a failure.
    pub(crate) fn recent(&self) -> String {
        let (recent, _) = self.journal.subscribe();
        let telling = recent.iter().filter(|event| event.kind != "plan");
        telling.map(|e| format!("{:?} {}: {}\n", e.blade, e.kind, e.text)).collect()
    }

    fn drift(&self) -> Vec<(Option<BladeId>, String)> {
        let (recent, _) = self.journal.subscribe();
        recent.into_iter().filter(|e| e.kind == "drift").map(|e| (e.blade, e.text)).collect()
    }
}

impl Drop for Line {
    /// Also when a test has failed: the next one has exports of the same names.
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = self.events.send(Event::Tick);
        let _ = self.thread.take().expect("only taken here").join();
        let _ = fs::remove_file(ROSTER);
    }
}

fn turn(mut core: Core, queue: &mpsc::Receiver<Event>, stopped: &AtomicBool) {
    core.start();
    for event in queue {
        if stopped.load(Ordering::Relaxed) {
            return;
        }
        core.handle(event);
    }
}

fn config(rigs: &[Rig], drift: &str) -> Config {
    let slots: String = rigs.iter().map(|rig| format!("{0} = \"none{0}\"\n", rig.slot)).collect();
    let text = format!(
        "[chassis]\nbridge = \"none0\"\nmanage = false\naddress = \"10.77.0.1/24\"\n[chassis.slots]\n{slots}\
         [pool]\nvg = \"{VG}\"\n[target]\niqn_prefix = \"{PREFIX}\"\ndrift = \"{drift}\"\nports = 1\n"
    );
    sheath::config::parse("sheath.toml", &text).unwrap()
}

fn outside(machine: Arc<Machine>, events: &mpsc::Sender<Event>, config: Config) -> Outside {
    let done = events.clone();
    let lanes = Lanes::start(machine.clone(), move |report| drop(done.send(Event::Done(report))));
    Outside {
        submit: Box::new(move |job| lanes.submit(job)),
        word: Box::new(|_| None),
        import: Box::new(|_| ()),
        work: Box::new(|_| ()),
        freeze: Box::new(|_| ()),
        now: Box::new(now),
        fresh: Box::new(|| 1),
        reload: Box::new(move || Ok(config.clone())),
        files: Box::new(|_| vec![]),
        host: machine,
        state: ROSTER.into(),
    }
}

/// Watches configfs on a thread of its own until the line is gone.
fn watch(orders: configfs::Orders, events: mpsc::Sender<Event>) {
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
            tokio::spawn(configfs::run(ROOT.into(), orders, tell));
            while let Some(event) = told.recv().await {
                if events.send(Event::Watch(event)).is_err() {
                    return;
                }
            }
        });
    });
}

/// The machine as the line sees it.
struct Machine {
    lio: Lio,
    volumes: Volumes,
    told: Mutex<BTreeMap<VolumeId, BTreeMap<String, String>>>,
    looks: AtomicUsize,
    /// Held while somebody else's hands are at LIO.
    hands: RwLock<()>,
}

impl Machine {
    fn new(rigs: &[Rig]) -> Self {
        let volumes = rigs.iter().map(|rig| (rig.wish.backstore.volume.lv_name(), rig.volume())).collect();
        Self {
            lio: lio(),
            volumes: Volumes { volumes, ..Volumes::default() },
            told: Mutex::default(),
            looks: AtomicUsize::new(0),
            hands: RwLock::default(),
        }
    }
}

impl Host for Machine {
    fn volumes(&self) -> Result<Volumes> {
        Ok(self.volumes.clone())
    }

    fn export(&self, target: &Iqn, volume: VolumeId) -> Result<ObservedExport> {
        let _ours = self.hands.read();
        self.looks.fetch_add(1, Ordering::Relaxed);
        let properties = self.told.lock().unwrap().get(&volume).cloned().unwrap_or_default();
        Ok(ObservedExport { properties, ..self.lio.export(target, volume)? })
    }

    fn session(&self, target: &Iqn, initiator: &Iqn) -> Result<Option<Session>> {
        self.lio.session(target, initiator)
    }

    fn chassis(&self, _: &PortName, _: &[PortName], _: &[PathBuf]) -> Result<ObservedChassis> {
        Ok(ObservedChassis::default())
    }

    fn targets(&self) -> Result<Vec<TargetSummary>> {
        self.lio.targets()
    }

    fn credentials(&self, volume: VolumeId, chap: Chap) -> Credentials {
        MasterKey::from_bytes([7; 32]).credentials(volume, chap)
    }

    fn run(&self, step: &Step) -> Result<Changed> {
        let (lio, _ours) = (&self.lio, self.hands.read());
        match step {
            Step::Backstore { backstore } => lio.backstore(backstore),
            Step::Target { target } => lio.target(target),
            Step::Lun { target, backstore } => lio.lun(target, backstore),
            Step::Acl { target, initiator, volume, chap, nopin } => {
                let (chap, nopin): (Chap, NopIn) = (*chap, *nopin);
                lio.acl(target, &Acl { initiator, volume: *volume, chap, nopin })
            }
            Step::MapLun { target, initiator } => lio.map_lun(target, initiator),
            Step::Portal { target, portal } => lio.portal(target, *portal),
            Step::Enable { target } => lio.enable(target),
            Step::Disable { target } => lio.disable(target),
            Step::RemoveAcl { target, initiator } => lio.remove_acl(target, initiator),
            Step::RemoveTarget { target } => lio.remove_target(target),
            Step::RemoveBackstore { volume } => lio.remove_backstore(*volume),
            Step::Announce { volume, properties } => {
                self.told.lock().unwrap().insert(*volume, properties.clone());
                Ok(Changed::Changed)
            }
            other => panic!("no step for this machine: {other}"),
        }
    }

    fn counters(&self, target: &Iqn, _: VolumeId) -> Result<Counters> {
        self.lio.counters(target)
    }

    fn login_failures(&self, target: &Iqn, known: u64) -> Result<Option<LoginFailures>> {
        self.lio.login_failures(target, known)
    }

    fn differences(&self, export: &Export) -> Result<Vec<Difference>> {
        self.lio.differences(export)
    }
}
