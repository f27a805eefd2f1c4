//! Files and disks of other machines, as the import sees them: looked at, and fetched into a file where they cannot go
//! straight to their volume. What talks to the other machine is in the sandbox, see `ssh`.

use std::{path::Path, time::Duration};

use super::{
    fetch::{About, Part},
    internal,
    limits::Silence,
    remote::Remote,
    sandbox::{Sandbox, Seen},
    ssh::{Order, Task, There, What},
    watch::Watch,
};
use crate::{
    error::{Error, Kind, Result},
    host::ssh::Keys,
    model::{Bytes, ImageName},
};

/// One file or disk of another machine, and how it is reached.
pub(super) struct Pull<'a> {
    pub(super) image: &'a ImageName,
    pub(super) remote: &'a Remote,
    pub(super) keys: &'a Keys,
    /// The empty folder that is a sandbox's root.
    pub(super) root: &'a Path,
    /// How long it may be silent.
    pub(super) stall: Duration,
}

impl Pull<'_> {
    /// Looks what is there.
    ///
    /// # Errors
    /// What is missing or refused, here or there, with its fix; the caller's wish to stop.
    pub(super) fn look(&self, watch: &Watch<'_>) -> Result<There> {
        self.keys.check()?;
        let mut said = vec![];
        self.sandbox().run(self.order(Task::Look), |piece| {
            said.extend_from_slice(piece);
            watch.check()
        })?;
        serde_json::from_slice(&said).map_err(|e| Error::new(Kind::Failed, "read what is there").because(e))
    }

    /// Returns what is kept of it beside a part.
    pub(super) fn about(&self, there: &There) -> About {
        let What { device, size, version } = &there.what;
        let version = if *device { Some("a disk".to_owned()) } else { version.clone() };
        About::of(&self.remote.to_string(), Some(Bytes(*size)), version)
    }

    /// Fetches what is missing of a part.
    pub(super) fn go_on(&self, there: &There, part: &mut Part, watch: &mut Watch<'_>) -> Result<()> {
        let task = Task::Read { what: there.what.clone(), from: part.done() };
        let mut silence = Silence::new(self.stall);
        self.sandbox().run(self.order(task), |piece| {
            part.take(piece)?;
            silence.hear(part.done())?;
            part.tell(watch)
        })
    }

    /// Returns the order to write all of it to the volume.
    pub(super) fn writing(&self, there: &There) -> Vec<u8> {
        self.order(Task::Write { what: there.what.clone() })
    }

    fn order(&self, task: Task) -> Vec<u8> {
        let order = Order { remote: self.remote.to_string(), task };
        serde_json::to_vec(&order).expect("words and numbers are JSON")
    }

    fn sandbox(&self) -> Sandbox {
        let seen = Seen::Remote(self.keys.clone(), self.remote.to_string());
        Sandbox::own(self.image, self.root, &[internal::PROBE, internal::REMOTE], &seen)
    }
}
