//! The one line that every event takes: facts in, wishes out, jobs to the lanes, answers to whoever waits.
//!
//! One plain thread owns this and is the only writer of state. It never blocks on the machine: what touches LVM, configfs
//! or netlink is a job for a lane, whose report is an event again. Start-up, recovery after a crash, a hand edit and a
//! new configuration are the same line.
//!
//! ```text
//!   watch ─┐                    ┌─ boot      (a blade asks)
//!   boot  ─┼─► Event ─► Core ───┼─ network   (a cable, a frame, a lease)
//!   control┤            │       ├─ operator  (sheath asks)
//!   lanes ─┘            ▼       └─ work      (a report comes back)
//!                   Job ─► apply
//! ```

mod adopt;
mod boot;
mod captures;
mod donors;
mod drift;
mod freeze;
mod grow;
mod images;
mod imports;
mod journal;
mod manifests;
mod network;
mod operator;
mod promote;
mod proof;
mod quarantine;
mod refusals;
mod sessions;
mod views;
mod work;
mod workshop;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::PathBuf,
    sync::Arc,
};

use tokio::sync::oneshot;

pub use freeze::{FreezeNews, FreezeOrder};
pub use journal::{Journal, Kind as EventKind, Subscription, now};
pub use workshop::{WorkNews, WorkOrder};

use crate::{
    apply::{Job, Report, Subject},
    boot::wire::{Answer, BootRequest},
    config::Config,
    control::api::{ImportRequest, Reply, Request},
    error::{Error, Result},
    host::{Host, file},
    image::{Lend, Whole},
    model::{BladeId, Bytes, DonorWord, ImageId, ImageName, NetDonor},
    observed::{Session, Volumes},
    policy::{self, chassis::ServiceFile},
    roster::{Presence, Roster, Saved},
    status::{ImportProgress, Millis, Problem},
    watch::{WatchEvent, configfs::Orders, sessions::Served},
};

/// Something that the line has to know.
pub enum Event {
    /// From the kernel, udev, or a file.
    Watch(WatchEvent),
    /// A blade asks.
    Boot(BootRequest, oneshot::Sender<Answer>),
    /// The operator asks.
    Operator(Request, oneshot::Sender<Result<Reply>>),
    /// A lane is done with a job.
    Done(Report),
    /// Somebody logged in to a blade's target, or out.
    Session(BladeId, Option<Session>),
    /// An import goes on.
    Import(ImageId, bool, ImportProgress),
    /// A second has passed.
    Tick,
    /// The work on an image goes on.
    Work(ImageId, WorkNews),
    /// What was imported is like this; that the import is over comes after it.
    Imported(ImageId, Whole),
    /// A running blade stands still, or no more.
    Freeze(BladeId, FreezeNews),
}

/// What is to happen with an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImportOrder {
    /// This version begins.
    Start(ImageId, ImportRequest),
    /// This version begins, from a donor that is lent a target.
    Capture(ImageId, ImportRequest, NetDonor, Lend),
    /// The donor of this family's version says something.
    Word(ImageName, DonorWord),
    /// It ends, and nothing stays of it.
    Cancel(ImageName),
    /// Its end is told, and what it is needs not be remembered for a restart any more.
    Forget(ImageName),
}

/// A configuration as read: whole, or its faults.
pub type Loaded = std::result::Result<Config, Vec<String>>;

/// Makes the files that services read.
pub type FilesOf = Box<dyn Fn(&Config) -> Vec<ServiceFile> + Send>;

/// Says what a lane does about a subject right now.
pub type WordOf = Box<dyn Fn(&Subject) -> Option<&'static str> + Send>;

/// What the line needs from outside, so that tests can give their own.
pub struct Outside {
    /// Where jobs go.
    pub submit: Box<dyn FnMut(Job) + Send>,
    /// What a lane does about a subject right now, as a blade's console says it.
    pub word: WordOf,
    /// Starts an import, or stops one; its progress comes back as [`Event::Import`].
    pub import: Box<dyn FnMut(ImportOrder) + Send>,
    /// The clock.
    pub now: Box<dyn Fn() -> Millis + Send>,
    /// 128 random bits: ids of volumes, tokens of menus.
    pub fresh: Box<dyn FnMut() -> u128 + Send>,
    /// Reads the configuration again.
    pub reload: Box<dyn FnMut() -> Loaded + Send>,
    /// The files that services read, made from the configuration.
    pub files: FilesOf,
    /// For credentials only: the line itself never touches the machine.
    pub host: Arc<dyn Host>,
    /// The roster's file.
    pub state: PathBuf,
    /// Starts a work on an image; its progress comes back as [`Event::Work`].
    pub work: Box<dyn FnMut(WorkOrder) + Send>,
    /// Has a running blade stand still; [`Event::Freeze`] tells when it does.
    pub freeze: Box<dyn FnMut(FreezeOrder) + Send>,
}

/// A blade's request that waits for a job to end.
struct Parked {
    until: Millis,
    blade: BladeId,
    reply: oneshot::Sender<Answer>,
}

/// The agent's state and its line.
pub struct Core {
    outside: Outside,
    config: Arc<Config>,
    config_loaded: Millis,
    config_faults: Vec<String>,
    started: Millis,
    roster: Roster,
    /// The roster as it is on disk, and whether it really is.
    saved: Saved,
    unsaved: bool,
    presence: Presence,
    volumes: Option<Volumes>,
    /// When the last LVM report came in: reports age, our own steps are folded in.
    reported: Millis,
    /// From when on events want another one.
    report_due: Option<Millis>,
    busy: BTreeMap<Subject, Busy>,
    /// Blades that are to be looked at when the lanes have time, and why.
    backlog: VecDeque<(BladeId, &'static str)>,
    /// The volumes have changed since it was last seen to spares and left-overs.
    untended: bool,
    parked: Vec<Parked>,
    /// The last import of each family: one at a time.
    imports: BTreeMap<ImageName, imports::Import>,
    /// What is known of images beyond their volumes.
    manifests: manifests::Manifests,
    problems: BTreeMap<String, Problem>,
    chassis_seen: bool,
    /// What failed since the last LVM report and nobody waits for: not tried again before the next one.
    stuck: BTreeSet<Subject>,
    /// Questions to the machine that have not come back.
    hung_questions: usize,
    served: Served,
    journal: Journal,
    drift: drift::Drift,
    /// Who is logged in since when.
    logins: sessions::Logins,
    /// Who was refused.
    refusals: refusals::Refusals,
    /// Verbs whose answers wait for their outcome.
    awaited: BTreeMap<Subject, sessions::Awaited>,
    /// The last work on each image.
    works: BTreeMap<ImageId, workshop::Work>,
    /// What is known of imports beside how far they are.
    asked: imports::Imports,
    /// Other machines' disks.
    plugged: donors::Plugged,
    /// Running blades that stand still, or are to.
    frozen: freeze::Frozen,
}

/// A job that runs.
#[derive(Debug, Default)]
struct Busy {
    /// Its subject has changed meanwhile: once more.
    again: Option<String>,
    /// It is over its deadline and has not come back: what is told of it.
    quarantine: Option<String>,
}

impl Core {
    /// Returns the line with this configuration and the saved roster, before any event.
    pub fn new(outside: Outside, config: Config, roster: Roster, journal: Journal) -> Self {
        let now = (outside.now)();
        let manifests = manifests::Manifests::read(outside.state.with_file_name("images"));
        Self {
            outside,
            config: Arc::new(config),
            config_loaded: now,
            config_faults: vec![],
            started: now,
            saved: Saved::of(&roster, 0),
            unsaved: true,
            roster,
            presence: Presence::default(),
            volumes: None,
            reported: 0,
            report_due: None,
            busy: BTreeMap::new(),
            backlog: VecDeque::new(),
            untended: false,
            parked: vec![],
            imports: BTreeMap::new(),
            manifests,
            problems: BTreeMap::new(),
            chassis_seen: false,
            stuck: BTreeSet::new(),
            hung_questions: 0,
            served: Served::default(),
            journal,
            drift: drift::Drift::default(),
            logins: sessions::Logins::default(),
            refusals: refusals::Refusals::default(),
            awaited: BTreeMap::new(),
            works: BTreeMap::new(),
            asked: imports::Imports::default(),
            plugged: donors::Plugged::default(),
            frozen: freeze::Frozen::default(),
        }
    }

    /// Returns the targets whose sessions are to be watched.
    pub fn served(&self) -> Served {
        self.served.clone()
    }

    /// Returns what tells the watch on configfs which exports are ours.
    pub fn orders(&self) -> Orders {
        self.drift.orders()
    }

    /// Returns the readers' end of what happens.
    pub fn subscription(&self) -> Subscription {
        self.journal.subscription()
    }

    /// Returns whether the chassis has been looked at once: what services read is written.
    pub fn knows_chassis(&self) -> bool {
        self.chassis_seen
    }

    /// Begins: the chassis is made, the volumes are asked for; everything else follows from their reports.
    pub fn start(&mut self) {
        self.make_chassis("start");
        self.ask_volumes("start");
    }

    /// Takes one event down the line.
    pub fn handle(&mut self, event: Event) {
        match event {
            Event::Watch(event) => self.on_watch(event),
            Event::Boot(request, reply) => self.on_boot(request, reply),
            Event::Operator(request, reply) => self.on_operator(request, reply),
            Event::Done(report) => self.on_report(report),
            Event::Session(blade, session) => self.on_session(blade, session),
            Event::Import(image, publish, progress) => self.on_import(image, publish, progress),
            Event::Tick => self.on_tick(),
            Event::Work(image, news) => self.on_work(&image, news),
            Event::Imported(image, found) => self.on_imported(image, found),
            Event::Freeze(blade, news) => self.on_freeze(blade, news),
        }
        self.end_freezes();
        self.save();
    }

    /// Returns whether no job runs: tests wait for it.
    #[cfg(test)]
    fn is_idle(&self) -> bool {
        self.busy.is_empty()
    }

    fn now(&self) -> Millis {
        (self.outside.now)()
    }

    /// Saves the roster if it has changed: before a grant is acted upon, because jobs start after the event.
    fn save(&mut self) {
        let touched = self.roster.blades.take_touched();
        self.unsaved |= self.saved.follow(&self.roster, touched);
        if !self.unsaved {
            return;
        }
        self.saved.generation += 1;
        match file::save(&self.outside.state, &self.saved.to_bytes(), 0o600) {
            Ok(()) => {
                self.unsaved = false;
                self.solve("state");
            }
            Err(error) => {
                self.complain("state", format!("{}; grants may be lost at a restart", error.chain()))
            }
        }
    }

    fn complain(&mut self, about: &str, text: String) {
        let since = self.now();
        let known = self.problems.get(about).is_some_and(|problem| problem.text == text);
        if !known {
            self.journal.tell(EventKind::Problem, &format!("{about}: {text}"));
            self.problems.insert(about.to_owned(), Problem { about: about.to_owned(), text, since });
        }
    }

    fn solve(&mut self, about: &str) {
        if self.problems.remove(about).is_some() {
            self.journal.tell(EventKind::Solved, &format!("{about}: solved"));
        }
    }

    /// Tells about a blade, with its slot and image.
    fn tell(&mut self, kind: EventKind, id: BladeId, text: &str) {
        let Some(blade) = self.roster.blades.get(&id) else { return };
        let granted = blade.grant.as_ref().map(|grant| &grant.image);
        let image = granted.or(blade.disk.as_ref().map(|disk| &disk.image)).cloned();
        self.journal.tell_blade(kind, (blade.slot, id), image.map(|image| image.name), text);
    }

    /// Returns what blades are offered: each family's default version.
    fn offered(&self) -> Vec<(ImageId, Bytes)> {
        self.volumes.as_ref().map(policy::images::offered).unwrap_or_default()
    }

    /// Returns the volumes that somebody wants: grants', those whose removal is their blades' own business, and those of
    /// works under way.
    fn wanted(&self) -> BTreeSet<crate::model::VolumeId> {
        let released = self.roster.blades.values().flat_map(|blade| blade.releases.iter().copied());
        let worked_on = self.works.values().filter_map(workshop::Work::volume);
        self.roster.granted().chain(released).chain(worked_on).collect()
    }

    fn config_error(&mut self, error: &Error) {
        self.complain("configuration", error.chain());
    }

    fn wish(&mut self, id: BladeId) -> Option<policy::BladeWish> {
        let blade = self.roster.blades.get(&id)?;
        match policy::wish(&self.config, id, blade) {
            Ok(wish) => Some(wish),
            Err(error) => {
                self.config_error(&error);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
