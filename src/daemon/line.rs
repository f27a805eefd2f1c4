//! The line's thread and everything that it is given from outside.

use std::{
    path::PathBuf,
    sync::{Arc, mpsc},
};

use sd_notify::NotifyState;

use super::{
    Args,
    core::{self, Core, Event, Journal, Outside, WorkNews, WorkOrder},
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
    },
    image::{Cancel, Import, Work},
    model::ImageId,
    status::{ImportProgress, Task, WorkResult},
};

/// The line, ready to run, and the machine that it acts on.
pub(super) struct Line {
    pub(super) core: Core,
    pub(super) host: Arc<dyn Host>,
    /// The machine's kernel log; none of a simulated one.
    pub(super) log: Option<Arc<kmsg::Log>>,
}

/// Starts imports: the real machine's, or none on a simulated one.
type Importer = Box<dyn FnMut(ImageId, ImportRequest) + Send>;

/// Starts works on images.
type Worker = Box<dyn FnMut(WorkOrder) + Send>;

/// Builds the line.
///
/// # Errors
/// A master key that is missing or readable by others.
pub(super) fn build(args: &Args, config: &Config, events: &mpsc::Sender<Event>) -> Result<Line> {
    let Parts { host, import, work, log } = machine(args, config, events)?;
    let done = events.clone();
    let lanes = Arc::new(Lanes::start(host.clone(), move |report| drop(done.send(Event::Done(report)))));
    let working = lanes.clone();
    let state = args.state.join("roster.json");
    let (path, running, run) = (args.config.clone(), config.clone(), args.run.clone());
    let outside = Outside {
        submit: Box::new(move |job| lanes.submit(job)),
        word: Box::new(move |subject| working.word(subject)),
        import,
        now: Box::new(core::now),
        fresh: Box::new(fresh),
        reload: Box::new(move || load::reconfig(&path, &running)),
        files: Box::new(move |config| service_files(config, &run)),
        host: host.clone(),
        state: state.clone(),
        work,
    };
    let core = Core::new(outside, config.clone(), load::roster(&state), Journal::default());
    Ok(Line { core, host, log })
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
    log: Option<Arc<kmsg::Log>>,
}

fn machine(args: &Args, config: &Config, events: &mpsc::Sender<Event>) -> Result<Parts> {
    if args.sim {
        let host = Sim::new(config.pool.vg.clone(), Machine::default());
        let told = events.clone();
        let refuse = move |order: WorkOrder| {
            let none = Err(Error::new(Kind::Missing, "a simulated machine has no workshop"));
            drop(told.send(Event::Work(order.image, WorkNews::Ended(none))));
        };
        return Ok(Parts {
            host: Arc::new(host),
            import: Box::new(|_, _| log::warn!("a simulated machine imports no images")),
            work: Box::new(refuse),
            log: None,
        });
    }
    let log = Arc::new(kmsg::Log::open(kmsg::KMSG.as_ref()));
    let live = Arc::new(Live::new(config, MasterKey::load(&args.key)?).hearing(Arc::clone(&log)));
    live.tell_udev(config)
        .unwrap_or_else(|error| log::warn!("udev is not told everything: {}", error.chain()));
    live.check().unwrap_or_else(|error| log::warn!("no disk can be served yet: {}", error.chain()));
    let importer = Importing {
        live: live.clone(),
        events: events.clone(),
        folder: args.state.clone(),
        watermark: config.pool.watermark,
    };
    let worker = importer.clone();
    Ok(Parts {
        host: live,
        import: Box::new(move |image, request| importer.start(image, request)),
        work: Box::new(move |order| worker.work(order)),
        log: Some(log),
    })
}

/// Takes events until everybody who could send one is gone. systemd hears that the line turns.
pub(super) fn run(mut core: Core, queue: &mpsc::Receiver<Event>) {
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

/// What an import, and a work on an image, needs.
#[derive(Clone)]
struct Importing {
    live: Arc<Live>,
    events: mpsc::Sender<Event>,
    folder: PathBuf,
    watermark: u8,
}

impl Importing {
    /// Starts an import on a thread of its own: it lasts minutes.
    fn start(&self, image: ImageId, request: ImportRequest) {
        let (live, events) = (self.live.clone(), self.events.clone());
        let (folder, watermark) = (self.folder.clone(), self.watermark);
        std::thread::spawn(move || {
            let ImportRequest { name: _, source, publish } = request;
            let tell = |progress| drop(events.send(Event::Import(image.clone(), publish, progress)));
            let outcome = source.parse().and_then(|source| {
                let import = Import { image: image.clone(), source, publish, folder, watermark };
                import.run(live.lvm(), &Cancel::default(), &mut |progress| tell(progress))
            });
            match outcome {
                Ok(()) => tell(ImportProgress::Done),
                Err(error) => tell(ImportProgress::Failed { error: error.chain(), kind: error.kind() }),
            }
        });
    }

    /// Starts a work on an image, on a thread of its own: it lasts minutes.
    fn work(&self, order: WorkOrder) {
        let (live, events) = (self.live.clone(), self.events.clone());
        let WorkOrder { image, task, volume } = order;
        let work =
            Work { image: image.clone(), volume, folder: self.folder.clone(), watermark: self.watermark };
        std::thread::spawn(move || {
            let tell = |news| drop(events.send(Event::Work(image.clone(), news)));
            let mut phase = |phase: &str| tell(WorkNews::Phase(phase.to_owned()));
            let result = match task {
                Task::Check => work.check(live.lvm(), &mut phase).map(WorkResult::Checkup),
            };
            tell(WorkNews::Ended(result));
        });
    }
}
