//! Files that others write: the administrator's configuration, and dnsmasq's leases.
//!
//! inotify watches the folder, never the file: editors and package managers replace files, and a watch on the file
//! would stay with the old one. A write is told once it has been quiet for a moment. What the configuration says is for
//! `config`; leases are read here, since they come in small and often.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use inotify::{EventMask, Inotify, WatchMask};
use tokio::{io::unix::AsyncFd, time::Instant};

use super::{Events, Source, WatchEvent, reactor, trouble};
use crate::{
    error::{Context, Error, Kind, Result},
    model::Mac,
};

/// How long nothing must happen before a change is told: an editor writes, renames and removes within this.
const QUIET: Duration = Duration::from_millis(200);

/// A change is told after this even when writing goes on.
const PATIENCE: Duration = Duration::from_secs(2);

/// Folders are looked at again this often, because a file on a network share changes without an event.
const SAFETY_NET: Duration = Duration::from_secs(300);

/// Before a folder that cannot be watched is tried again.
const REOPEN: Duration = Duration::from_secs(5);

/// Tells [`WatchEvent::ConfigChanged`] when a file in the folder has changed, for as long as somebody listens.
pub async fn config(folder: PathBuf, events: Events) {
    let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::MOVED_FROM | WatchMask::DELETE;
    let mut seen = None;
    let tell = |lost: bool| {
        let now = fingerprint(&folder);
        // A folder that was written to is told even when nothing differs: somebody touched the file to be heard.
        let news = seen.as_ref().is_some_and(|before| lost || *before != now);
        seen = Some(now);
        news.then_some(WatchEvent::ConfigChanged)
    };
    let watched = Watched { folder: &folder, mask, only: None, source: Source::Config };
    watched.run(&events, tell).await;
}

/// Tells [`WatchEvent::Leases`] now, and whenever dnsmasq's leases have changed, for as long as somebody listens.
///
/// A lease file that does not exist holds no leases: dnsmasq makes it with the first one.
pub async fn leases(file: PathBuf, events: Events) {
    // dnsmasq keeps the file open and writes it anew in place: it is modified, but hardly ever closed.
    let mask = WatchMask::MODIFY | WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::DELETE;
    let mut seen = None;
    let tell = |_| {
        let now = std::fs::read_to_string(&file).map(|text| parse_leases(&text)).unwrap_or_default();
        let news = seen.as_ref() != Some(&now);
        seen = Some(now.clone());
        news.then_some(WatchEvent::Leases(now))
    };
    let folder = file.parent().unwrap_or(Path::new("/"));
    let watched = Watched { folder, mask, only: file.file_name(), source: Source::Leases };
    watched.run(&events, tell).await;
}

/// A folder, and what in it matters.
struct Watched<'a> {
    folder: &'a Path,
    mask: WatchMask,
    /// The one file that matters; `None` for all that are nobody's scratch files.
    only: Option<&'a OsStr>,
    source: Source,
}

impl Watched<'_> {
    /// Calls `tell` at the start, when something changed, and every few minutes; its argument says whether something
    /// changed for sure. Begins anew whenever the folder was lost.
    async fn run(&self, events: &Events, mut tell: impl FnMut(bool) -> Option<WatchEvent>) {
        let mut failed: Option<String> = None;
        loop {
            let ended = tokio::select! {
                () = events.closed() => return,
                ended = self.watch(events, &mut tell, &mut failed) => ended,
            };
            // A folder that stays away is told of once.
            if let Err(error) = ended
                && failed.replace(error.chain()) != Some(error.chain())
            {
                trouble(events, self.source, &error);
            }
            tokio::select! {
                () = events.closed() => return,
                () = tokio::time::sleep(REOPEN) => {}
            }
        }
    }

    async fn watch(
        &self,
        events: &Events,
        tell: &mut impl FnMut(bool) -> Option<WatchEvent>,
        failed: &mut Option<String>,
    ) -> Result<()> {
        let mut inotify = self.open().attempt(|| format!("watch folder '{}'", self.folder.display()))?;
        *failed = None;
        // Watched first, read second: what is written in between is an event.
        let mut told = tell(false);
        loop {
            if let Some(event) = told.take() {
                let _ = events.send(event);
            }
            told = tokio::select! {
                changed = self.changed(&mut inotify) => { changed?; tell(true) }
                () = tokio::time::sleep(SAFETY_NET) => tell(false),
            };
        }
    }

    fn open(&self) -> std::io::Result<AsyncFd<Inotify>> {
        let inotify = Inotify::init()?;
        inotify.watches().add(self.folder, self.mask | WatchMask::ONLYDIR | WatchMask::DELETE_SELF)?;
        reactor::watch(inotify)
    }

    /// Returns once something that matters has changed and is quiet since.
    async fn changed(&self, inotify: &mut AsyncFd<Inotify>) -> Result<()> {
        while !self.matters(inotify).await? {}
        let patience = Instant::now() + PATIENCE;
        let mut quiet = Instant::now() + QUIET;
        loop {
            tokio::select! {
                matters = self.matters(inotify) => if matters? { quiet = Instant::now() + QUIET },
                () = tokio::time::sleep_until(quiet.min(patience)) => return Ok(()),
            }
        }
    }

    /// Waits for events and returns whether one of them matters.
    async fn matters(&self, inotify: &mut AsyncFd<Inotify>) -> Result<bool> {
        let what = || format!("watch folder '{}'", self.folder.display());
        let mut ready = inotify.readable_mut().await.attempt(what)?;
        let mut buffer = [0; 4096];
        match ready.get_inner_mut().read_events(&mut buffer) {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                ready.clear_ready();
                Ok(false)
            }
            Err(e) => Err(Error::io(what(), e)),
            Ok(batch) => {
                let mut matters = false;
                for event in batch {
                    if event.mask.intersects(EventMask::IGNORED | EventMask::UNMOUNT) {
                        return Err(Error::new(Kind::Missing, format!("{}: it is gone", what())));
                    }
                    let lost = event.mask.contains(EventMask::Q_OVERFLOW);
                    matters |= lost || event.name.is_some_and(|name| self.is_ours(name));
                }
                Ok(matters)
            }
        }
    }

    fn is_ours(&self, name: &OsStr) -> bool {
        self.only.map_or_else(|| !is_scratch(name), |only| only == name)
    }
}

/// Returns whether this is a name that editors, our own saving and dpkg give to what is not meant yet.
fn is_scratch(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let ends = ["~", ".tmp", ".swp", ".swx", ".bak"];
    name.starts_with(['.', '#'])
        || ends.iter().any(|end| name.ends_with(end))
        || name.contains(".dpkg-")
        // vim makes and removes this one to see whether it may.
        || name == "4913"
}

/// What a file looks like from outside.
type Look = (Option<SystemTime>, u64);

/// Returns how the folder's files look, to notice a change that no event told.
fn fingerprint(folder: &Path) -> BTreeMap<std::ffi::OsString, Look> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| !is_scratch(&entry.file_name()))
        .filter_map(|entry| {
            let about = entry.metadata().ok()?;
            Some((entry.file_name(), (about.modified().ok(), about.len())))
        })
        .collect()
}

/// Returns the addresses in the text of dnsmasq's lease file, `expiry mac ip hostname client-id` a line.
///
/// What is not a whole line of an Ethernet client's IPv4 lease is skipped: the file is read while it is written. Of two
/// leases of one machine, the one that ends later counts (0 is never).
fn parse_leases(text: &str) -> BTreeMap<Mac, Ipv4Addr> {
    let mut best: BTreeMap<Mac, (u64, Ipv4Addr)> = BTreeMap::new();
    for (mac, lease) in text.split_inclusive('\n').filter_map(parse_lease) {
        let known = best.entry(mac).or_insert(lease);
        *known = (*known).max(lease);
    }
    best.into_iter().map(|(mac, (_, ip))| (mac, ip)).collect()
}

fn parse_lease(line: &str) -> Option<(Mac, (u64, Ipv4Addr))> {
    let mut words = line.strip_suffix('\n')?.split(' ');
    let expiry = match words.next()?.parse().ok()? {
        0 => u64::MAX,
        seconds => seconds,
    };
    let mac = words.next().filter(|text| text.contains(':'))?.parse().ok()?;
    let ip = words.next()?.parse().ok()?;
    // Host name and client id: without them the line is a part of one.
    words.nth(1)?;
    Some((mac, (expiry, ip)))
}

#[cfg(test)]
mod tests;
