//! One run of the lab: the folder with its guests' sockets, disks and logs, the cache, the accelerator, and
//! the release that its appliance is made of.
//! The folder goes when the run ends well; after a failure (or with `SHEATH_LAB_KEEP`) it stays, and is named.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::accel::Accel;
use crate::cache::Cache;
use crate::error::{Attempt, Result};
use crate::phase;
use crate::release::Release;

/// A run of the lab. Drop it after its guests.
#[derive(Debug)]
pub struct Lab {
    dir: PathBuf,
    cache: Cache,
    accel: Accel,
    release: Release,
    has_guests: bool,
}

impl Lab {
    /// Begins a run. `name` is for the folder's name only.
    ///
    /// # Errors
    /// When the cache or the folder cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        let cache = Cache::open()?;
        let accel = Accel::probed(&cache)?;
        Lab::with(name, cache, accel)
    }

    /// Begins another run of the same kind.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn another(&self, name: &str) -> Result<Self> {
        let mut run = Lab::with(name, self.cache.clone(), self.accel)?.on(self.release);
        run.has_guests = self.has_guests;
        Ok(run)
    }

    /// Begins a run with a cache and an accelerator that are known already.
    pub(crate) fn with(name: &str, cache: Cache, accel: Accel) -> Result<Self> {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        // Short: a unix socket's path has at most 107 bytes.
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("sheath-lab.{}.{run}.{name}", std::process::id()));
        fs::create_dir_all(&dir).attempt(|| format!("make run folder '{}'", dir.display()))?;
        Ok(Lab { dir, cache, accel, release: Release::default(), has_guests: false })
    }

    /// Makes the run's appliance one of this release.
    #[must_use]
    pub fn on(mut self, release: Release) -> Self {
        self.release = release;
        self
    }

    /// Makes the run's appliance one that has guests of its own: workshops, proofs. Emulated, it then has one processor.
    #[must_use]
    pub fn with_guests(mut self) -> Self {
        self.has_guests = true;
        self
    }

    /// Returns the run's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the path of a file of the run.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Returns the cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Returns how guests are run.
    pub fn accel(&self) -> Accel {
        self.accel
    }

    /// Returns whether the run's appliance has guests of its own, and is itself emulated.
    pub(crate) fn emulates_guests(&self) -> bool {
        self.has_guests && self.accel == Accel::Tcg
    }

    /// Returns what the run's appliance is made of.
    pub fn release(&self) -> Release {
        self.release
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("SHEATH_LAB_KEEP").is_some() {
            phase::say(&format!("logs are in {}", self.dir.display()));
            return;
        }
        // Nothing depends on it; the next boot of this machine clears the rest.
        let _ = fs::remove_dir_all(&self.dir);
    }
}
