//! Hand edits of LIO: who writes, links or removes below an export of ours, as inotify tells it.
//!
//! One inotify instance watches the folders of every served export that hold what we set ([`folders`]). Events are
//! folded per blade for a moment, since one targetcli command makes several edits, and told as one
//! [`WatchEvent::Touched`]. It does not say who did it: our own steps are told too, and whoever looks finds nothing to
//! do then. Looking itself only reads, which is not told, so nothing goes round in circles.
//!
//! What is watched comes as [`Orders`], one per blade whenever a job of its has ended, so that an event about one blade
//! costs the same with 1 or 2,000 of them. A folder that goes takes its watch with it; the order after its repair brings
//! a new one. An edit in the few milliseconds between a job's end and the new watch is found by the slow audit, and so
//! is everything where the kernel has no room for the watches. When the kernel's queue overflows (16,384 events),
//! [`WatchEvent::EditsLost`] asks to look at all blades.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::{io::unix::AsyncFd, sync::Notify, time::Instant};

use super::{Events, Source, WatchEvent, reactor, trouble};
use crate::{
    error::{Context, Error, Kind, Result},
    host::lio::{FOLDERS, folders},
    model::{BladeId, Iqn, VolumeId},
};

/// How long events of one blade are gathered: a targetcli command makes several edits, and a repair should take less
/// than half a second in all.
const SETTLE: Duration = Duration::from_millis(50);

/// So many touched files are told by name; who edits more has the rest found by the look.
const NAMED: usize = 8;

/// So many blades' watches are set before events are read again: some 14 system calls each.
const BATCH: usize = 16;

/// Before an inotify instance that could not be made, or broke, is tried again.
const REOPEN: Duration = Duration::from_secs(5);

/// What of a blade is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Its target.
    pub target: Iqn,
    /// Its initiator's name.
    pub initiator: Iqn,
    /// Its disk.
    pub volume: VolumeId,
}

/// What is to be watched from now on: the line's end and the watch's end are clones of one.
#[derive(Debug, Clone, Default)]
pub struct Orders(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<BTreeMap<BladeId, Option<Exported>>>,
    news: Notify,
}

impl Orders {
    /// Watches the blade's export from now on, or again what of it was made anew.
    pub fn watch(&self, blade: BladeId, exported: Exported) {
        self.order(blade, Some(exported));
    }

    /// Does not watch the blade's export any more.
    pub fn forget(&self, blade: BladeId) {
        self.order(blade, None);
    }

    fn order(&self, blade: BladeId, exported: Option<Exported>) {
        self.0.waiting.lock().expect("no holder panics").insert(blade, exported);
        self.0.news.notify_one();
    }

    /// Takes the next orders, and leaves word where more wait.
    fn take(&self) -> Vec<(BladeId, Option<Exported>)> {
        let mut waiting = self.0.waiting.lock().expect("no holder panics");
        let batch = std::iter::from_fn(|| waiting.pop_first()).take(BATCH).collect();
        if !waiting.is_empty() {
            self.0.news.notify_one();
        }
        batch
    }
}

/// Tells who touched exports below LIO's `root` (`/sys/kernel/config/target`), for as long as somebody listens.
pub async fn run(root: PathBuf, orders: Orders, events: Events) {
    loop {
        let ended = tokio::select! {
            () = events.closed() => return,
            ended = watch(&root, &orders, &events) => ended,
        };
        if let Err(error) = ended {
            trouble(&events, Source::Configfs, &error);
        }
        tokio::select! {
            () = events.closed() => return,
            () = tokio::time::sleep(REOPEN) => {}
        }
        // The watches went with the instance: the looks that this asks for bring new orders.
        let _ = events.send(WatchEvent::EditsLost);
    }
}

async fn watch(root: &Path, orders: &Orders, events: &Events) -> Result<()> {
    let mut inotify =
        Inotify::init().and_then(reactor::watch).attempt(|| "watch LIO's configfs".to_owned())?;
    let mut set = WatchSet::default();
    let mut fold = Fold::default();
    let mut full = false;
    loop {
        let next = fold.next();
        tokio::select! {
            () = orders.0.news.notified() => {
                let lacking = carry_out(root, orders.take(), inotify.get_ref().watches(), &mut set).await?;
                // Told once: the audit finds what is not watched.
                if let Some(error) = lacking.filter(|_| !std::mem::replace(&mut full, true)) {
                    trouble(events, Source::Configfs, &error);
                }
            }
            read = read(&mut inotify, &mut set, &mut fold) => if read? == Read::Lost {
                let _ = events.send(WatchEvent::EditsLost);
            },
            () = due(next) => fold.ripe(Instant::now()).for_each(|(blade, paths)| {
                let _ = events.send(WatchEvent::Touched { blade, paths });
            }),
        }
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Sets and takes away the watches of some blades, on another thread: a path of a target that hangs must not stop the
/// event loop. Returns why some could not be set.
async fn carry_out(
    root: &Path,
    batch: Vec<(BladeId, Option<Exported>)>,
    mut watches: Watches,
    set: &mut WatchSet,
) -> Result<Option<Error>> {
    let gone: Vec<_> = batch
        .iter()
        .filter(|(_, exported)| exported.is_none())
        .flat_map(|(blade, _)| set.forget(*blade))
        .collect();
    let root = root.to_owned();
    let work = move || {
        // A watch whose folder is gone went with it.
        gone.into_iter().for_each(|watch| drop(watches.remove(watch)));
        let mut lacking = None;
        let wanted = batch.into_iter().filter_map(|(blade, exported)| Some((blade, exported?)));
        let made: Vec<_> = wanted
            .map(|(blade, exported)| (blade, add_all(&root, &exported, &mut watches, &mut lacking)))
            .collect();
        (made, lacking)
    };
    let done = tokio::task::spawn_blocking(work).await;
    let (made, lacking) =
        done.map_err(|e| Error::new(Kind::Failed, "set watches on LIO's configfs").because(e))?;
    made.into_iter().for_each(|(blade, watches)| set.watch(blade, watches));
    Ok(lacking)
}

/// Watches the folders of one export that are there. One that is watched already keeps its watch.
fn add_all(
    root: &Path,
    exported: &Exported,
    watches: &mut Watches,
    lacking: &mut Option<Error>,
) -> Vec<(u8, WatchDescriptor)> {
    let mask = WatchMask::MODIFY
        | WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::DELETE_SELF
        | WatchMask::ONLYDIR;
    let mut made = vec![];
    for (folder, n) in folders(&exported.target, &exported.initiator, exported.volume).iter().zip(0..) {
        let path = root.join(folder);
        match watches.add(&path, mask) {
            Ok(watch) => made.push((n, watch)),
            // Taken away by hand and left so: its parent tells when it comes back.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => {
                let fix =
                    "raise fs.inotify.max_user_watches with sysctl; until then the audit finds hand edits";
                let error = Error::io(format!("watch '{}'", path.display()), e);
                *lacking = Some(error.while_doing(fix));
            }
        }
    }
    made
}

/// How reading ended.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    /// All that was there was read.
    Whole,
    /// The kernel's queue had overflowed.
    Lost,
}

/// Waits for events and folds them.
async fn read(inotify: &mut AsyncFd<Inotify>, set: &mut WatchSet, fold: &mut Fold) -> Result<Read> {
    let what = || "read LIO's configfs events".to_owned();
    let mut ready = inotify.readable_mut().await.attempt(what)?;
    let mut buffer = [0; 8192];
    let batch = match ready.get_inner_mut().read_events(&mut buffer) {
        Err(e) if e.kind() == ErrorKind::WouldBlock => {
            ready.clear_ready();
            return Ok(Read::Whole);
        }
        batch => batch.attempt(what)?,
    };
    let mut read = Read::Whole;
    for event in batch {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            read = Read::Lost;
        }
        let Some((blade, folder)) = set.find(&event.wd) else { continue };
        if event.mask.contains(EventMask::IGNORED) {
            set.lost(&event.wd);
            continue;
        }
        let name = event.name.map(|name| name.to_string_lossy());
        fold.touch(blade, word(folder, name.as_deref()), Instant::now() + SETTLE);
    }
    Ok(read)
}

/// Returns what a touched file is called.
fn word(folder: u8, name: Option<&str>) -> String {
    let folder = FOLDERS.get(usize::from(folder)).copied().unwrap_or("export");
    name.map_or_else(|| folder.to_owned(), |name| format!("{folder}/{name}"))
}

/// Whose each watch is.
#[derive(Debug, Default)]
struct WatchSet {
    by_watch: BTreeMap<i32, (BladeId, u8)>,
    by_blade: BTreeMap<BladeId, Vec<WatchDescriptor>>,
}

impl WatchSet {
    fn watch(&mut self, blade: BladeId, watches: Vec<(u8, WatchDescriptor)>) {
        let ids = watches.iter().map(|(folder, watch)| (watch.get_watch_descriptor_id(), (blade, *folder)));
        self.by_watch.extend(ids);
        self.by_blade.insert(blade, watches.into_iter().map(|(_, watch)| watch).collect());
    }

    /// Forgets a blade and returns its watches, to be taken away.
    fn forget(&mut self, blade: BladeId) -> Vec<WatchDescriptor> {
        let watches = self.by_blade.remove(&blade).unwrap_or_default();
        for watch in &watches {
            self.by_watch.remove(&watch.get_watch_descriptor_id());
        }
        watches
    }

    fn find(&self, watch: &WatchDescriptor) -> Option<(BladeId, u8)> {
        self.by_watch.get(&watch.get_watch_descriptor_id()).copied()
    }

    /// The kernel took the watch away with its folder. Its number is not given out again.
    fn lost(&mut self, watch: &WatchDescriptor) {
        self.by_watch.remove(&watch.get_watch_descriptor_id());
    }
}

/// Events of the last moment, blade by blade.
#[derive(Debug, Default)]
struct Fold {
    touched: BTreeMap<BladeId, BTreeSet<String>>,
    /// First come, first told: each waits equally long.
    queue: VecDeque<(Instant, BladeId)>,
}

impl Fold {
    fn touch(&mut self, blade: BladeId, path: String, until: Instant) {
        let paths = self.touched.entry(blade).or_insert_with(|| {
            self.queue.push_back((until, blade));
            BTreeSet::new()
        });
        if paths.len() < NAMED {
            paths.insert(path);
        }
    }

    fn next(&self) -> Option<Instant> {
        self.queue.front().map(|(at, _)| *at)
    }

    /// Takes out what has waited long enough.
    fn ripe(&mut self, now: Instant) -> impl Iterator<Item = (BladeId, Vec<String>)> + '_ {
        std::iter::from_fn(move || {
            let (_, blade) = self.queue.front().copied().filter(|(at, _)| *at <= now)?;
            self.queue.pop_front();
            let paths = self.touched.remove(&blade).unwrap_or_default();
            Some((blade, paths.into_iter().collect()))
        })
    }
}

#[cfg(test)]
mod tests;
