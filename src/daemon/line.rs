//! The line's thread and everything that it is given from outside.

use std::{
    path::PathBuf,
    sync::{Arc, mpsc},
};

use sd_notify::NotifyState;

use super::{
    Args,
    core::{self, Core, Event, FreezeNews, FreezeOrder, ImportOrder, Journal, Outside, WorkNews, WorkOrder},
    imports::{self, Imports, Running},
    load, notify, services,
};
use crate::{
    apply::Lanes,
    config::Config,
    control::api::ImportRequest,
    error::{Error, Kind, Result},
    host::{
        Host,
        keys::MasterKey,
        kmsg,
        live::Live,
        sim::{Machine, Sim},
        ssh::Keys,
    },
    image::{Freeze, Work},
    model::ImageId,
    status::{ImportProgress, Task, WorkResult},
};

/// The line, ready to run, and the machine that it acts on.
pub(super) struct Line {
    pub(super) core: Core,
    pub(super) host: Arc<dyn Host>,
    /// The machine's kernel log; none of a simulated one.
    pub(super) log: Option<Arc<kmsg::Log>>,
    /// What was being imported when the agent before ended.
    pub(super) left: Vec<(ImageId, ImportRequest)>,
    /// The imports that run.
    pub(super) running: Running,
}

/// Starts imports: the real machine's, or none on a simulated one.
type Importer = Box<dyn FnMut(ImportOrder) + Send>;

/// Starts works on images.
type Worker = Box<dyn FnMut(WorkOrder) + Send>;

/// Has running blades stand still.
type Freezer = Box<dyn FnMut(FreezeOrder) + Send>;

/// The port of a blade's sshd.
const SSH: u16 = 22;

/// Builds the line.
///
/// # Errors
/// A master key that is missing or readable by others.
pub(super) fn build(args: &Args, config: &Config, events: &mpsc::Sender<Event>) -> Result<Line> {
    let running = Running::default();
    let Parts { host, import, work, freeze, log } = machine(args, config, events, &running)?;
    let done = events.clone();
    let lanes = Arc::new(Lanes::start(host.clone(), move |report| drop(done.send(Event::Done(report)))));
    let working = lanes.clone();
    let state = args.state.join("roster.json");
    let (path, in_force, run) = (args.config.clone(), config.clone(), args.run.clone());
    let outside = Outside {
        submit: Box::new(move |job| lanes.submit(job)),
        word: Box::new(move |subject| working.word(subject)),
        import,
        now: Box::new(core::now),
        fresh: Box::new(fresh),
        reload: Box::new(move || load::reconfig(&path, &in_force)),
        files: Box::new(move |config| service_files(config, &run)),
        host: host.clone(),
        state: state.clone(),
        work,
        freeze,
    };
    let core = Core::new(outside, config.clone(), load::roster(&state), Journal::default());
    let left = if args.sim { vec![] } else { imports::left(&args.state) };
    Ok(Line { core, host, log, left, running })
}

fn service_files(config: &Config, run: &std::path::Path) -> Vec<crate::policy::chassis::ServiceFile> {
    services::files(config, run).unwrap_or_else(|error| {
        log::error!("services are not told of the configuration: {}", error.chain());
        vec![]
    })
}

/// The machine, who starts imports and works on it, and its kernel log.
struct Parts {
    host: Arc<dyn Host>,
    import: Importer,
    work: Worker,
    freeze: Freezer,
    log: Option<Arc<kmsg::Log>>,
}

fn machine(args: &Args, config: &Config, events: &mpsc::Sender<Event>, running: &Running) -> Result<Parts> {
    if args.sim {
        let host = Sim::new(config.pool.vg.clone(), Machine::default());
        let (events, told, heard) = (events.clone(), events.clone(), events.clone());
        return Ok(Parts {
            host: Arc::new(host),
            import: Box::new(move |order| refuse(order, &events)),
            work: Box::new(move |order| refuse_work(order, &told)),
            freeze: Box::new(move |order| refuse_freeze(&order, &heard)),
            log: None,
        });
    }
    let log = Arc::new(kmsg::Log::open(kmsg::KMSG.as_ref()));
    let live = Arc::new(Live::new(config, MasterKey::load(&args.key)?).hearing(Arc::clone(&log)));
    live.tell_udev(config)
        .unwrap_or_else(|error| log::warn!("udev is not told everything: {}", error.chain()));
    live.check().unwrap_or_else(|error| log::warn!("no disk can be served yet: {}", error.chain()));
    let imports = Imports {
        live: live.clone(),
        events: events.clone(),
        folder: args.state.clone(),
        cache: args.cache.clone(),
        watermark: config.pool.watermark,
        running: running.clone(),
    };
    let works = Works {
        live: live.clone(),
        events: events.clone(),
        folder: args.state.clone(),
        watermark: config.pool.watermark,
    };
    let (events, folder) = (events.clone(), args.state.clone());
    Ok(Parts {
        host: live,
        import: Box::new(move |order| imports.order(order)),
        work: Box::new(move |order| works.start(order)),
        freeze: Box::new(move |order| freeze(order, events.clone(), folder.clone())),
        log: Some(log),
    })
}

fn refuse(order: ImportOrder, events: &mpsc::Sender<Event>) {
    let (ImportOrder::Start(image, request) | ImportOrder::Capture(image, request, ..)) = order else {
        return;
    };
    let error = format!("import image '{image}': a simulated machine imports no images");
    let failed = ImportProgress::Failed { error, kind: Kind::Invalid };
    let _ = events.send(Event::Import(image, request.publish, failed));
}

/// Takes events until everybody who could send one is gone. systemd hears that the line turns.
pub(super) fn run(mut core: Core, left: Vec<(ImageId, ImportRequest)>, queue: &mpsc::Receiver<Event>) {
    left.into_iter().for_each(|(image, request)| core.resume_import(image, request));
    core.start();
    let mut ready = false;
    for event in queue {
        if matches!(event, Event::Tick) {
            notify(&[NotifyState::Watchdog]);
        }
        core.handle(event);
        // Services that are ordered after us read the files that the first look at the chassis writes.
        if !ready && core.knows_chassis() {
            ready = true;
            notify(&[NotifyState::Ready]);
        }
    }
}

/// Returns 128 random bits from the kernel.
fn fresh() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the kernel's generator is seeded before any service starts");
    u128::from_ne_bytes(bytes)
}

fn refuse_work(order: WorkOrder, events: &mpsc::Sender<Event>) {
    let none = Err(Error::new(Kind::Missing, "a simulated machine has no workshop"));
    let _ = events.send(Event::Work(order.image, WorkNews::Ended(none)));
}

/// What a work on an image needs.
struct Works {
    live: Arc<Live>,
    events: mpsc::Sender<Event>,
    folder: PathBuf,
    watermark: u8,
}

impl Works {
    /// Starts a work on an image, on a thread of its own: it lasts minutes.
    fn start(&self, order: WorkOrder) {
        let (live, events) = (self.live.clone(), self.events.clone());
        let WorkOrder { image, task, volume, next, trial, cancel } = order;
        let work = Work {
            image: image.clone(),
            volume,
            folder: self.folder.clone(),
            watermark: self.watermark,
            cancel,
        };
        std::thread::spawn(move || {
            let tell = |news| drop(events.send(Event::Work(image.clone(), news)));
            let mut phase = |phase: &str| tell(WorkNews::Phase(phase.to_owned()));
            let result = match task {
                Task::Check => work.check(live.lvm(), &mut phase).map(WorkResult::Checkup),
                Task::Seal { .. } => {
                    work.seal(live.lvm(), next.as_ref(), &mut phase).map(WorkResult::Sealing)
                }
                Task::Prove { .. } => {
                    let trial = trial.expect("a proof is ordered with its trial");
                    trial.run(&*live, &work.folder, &work.cancel, &mut phase).map(WorkResult::Proof)
                }
            };
            tell(WorkNews::Ended(result));
        });
    }
}

/// Has a running blade stand still until it is released, on a thread of its own.
fn freeze(order: FreezeOrder, events: mpsc::Sender<Event>, folder: PathBuf) {
    let FreezeOrder { blade, image, user, address, release } = order;
    let freeze = Freeze { image: image.name, user, address, port: SSH, folder, keys: Keys::default() };
    std::thread::spawn(move || {
        let tell = |news| drop(events.send(Event::Freeze(blade, news)));
        let ended = freeze.run(&mut || tell(FreezeNews::Frozen), &release);
        tell(FreezeNews::Ended(ended));
    });
}

fn refuse_freeze(order: &FreezeOrder, events: &mpsc::Sender<Event>) {
    let none = Err(Error::new(Kind::Missing, "nobody logs in to a simulated machine"));
    let _ = events.send(Event::Freeze(order.blade, FreezeNews::Ended(none)));
}
