//! Proves that an image boots: a throw-away disk of it, made and served as a blade's, started over the network by firmware
//! and iPXE up to its login prompt.

use std::path::Path;

use super::{
    Cancel, Logs,
    workshop::{
        ONCE_MORE, TRIES,
        netboot::{Netboot, Seen},
        place::end_of,
    },
};
use crate::{
    error::{Error, Kind, Result},
    host::{Host, cmd::Tool},
    model::{Firmware, ImageId, Mac, Portal, Proof},
    plan::Step,
};

/// How much of a console's end an error shows.
const SHOWN: usize = 400;

/// What is to be proved, and all that is needed for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// The image.
    pub image: ImageId,
    /// The firmware.
    pub firmware: Firmware,
    /// What makes the disk and serves it.
    pub steps: Vec<Step>,
    /// What takes both away again.
    pub undo: Vec<Step>,
    /// The script that a blade would get.
    pub script: String,
    /// The blade that it plays.
    pub mac: Mac,
    /// Where the target is reached.
    pub portal: Portal,
}

impl Trial {
    /// Makes the trial, and keeps its console's log below `folder`. `phase` hears what is done, as it begins. Disk and target
    /// go in any case.
    ///
    /// # Errors
    /// [`Kind::Failed`] with the console's end where no login prompt came, [`Kind::Denied`] when it was cancelled; else what kept it from being tried.
    pub fn run(
        &self,
        host: &dyn Host,
        folder: &Path,
        cancel: &Cancel,
        phase: &mut dyn FnMut(&str),
    ) -> Result<Proof> {
        let what = || format!("prove image '{}' ({})", self.image, self.firmware.word());
        Tool::Qemu.check().map_err(|e| e.while_doing(what()))?;
        phase("making its disk and target");
        let seen = self.make(host, cancel).and_then(|()| {
            let Self { image, firmware, mac, portal, .. } = self;
            let (firmware, mac, portal) = (*firmware, *mac, *portal);
            let netboot = Netboot { image, firmware, script: &self.script, mac, portal, folder, cancel };
            boot(phase, || netboot.run())
        });
        phase("taking disk and target away");
        // Each of them, whatever becomes of the others; what stays is half-made, and the agent takes it away.
        self.undo.iter().for_each(|step| drop(host.run(step)));
        seen.and_then(|seen| self.judge(&seen, folder)).map_err(|e| e.while_doing(what()))
    }

    /// Makes disk and target.
    fn make(&self, host: &dyn Host, cancel: &Cancel) -> Result<()> {
        self.steps.iter().try_for_each(|step| {
            cancel.check()?;
            host.run(step).map(drop)
        })
    }

    fn judge(&self, seen: &Seen, folder: &Path) -> Result<Proof> {
        let log = Logs::below(folder).keep(&self.image, self.firmware, &seen.console)?;
        match seen.prompt {
            Some(after) => {
                let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                Ok(Proof { firmware: self.firmware, millis, log })
            }
            None => {
                let end = end_of(&seen.console, SHOWN);
                let text = format!(
                    "no login prompt on its serial console, which ends with: {end} (all of it: {})",
                    log.display()
                );
                let why = seen.end.as_ref().map(Error::chain).unwrap_or_default();
                Err(Error::new(Kind::Failed, text).because(why))
            }
        }
    }
}

/// Starts the guest, and once more where it has fallen silent.
fn boot(phase: &mut dyn FnMut(&str), start: impl Fn() -> Result<Seen>) -> Result<Seen> {
    let mut left = TRIES;
    loop {
        left -= 1;
        phase("booting over the network");
        let seen = start()?;
        if !seen.silent || left == 0 {
            return Ok(seen);
        }
        phase(ONCE_MORE);
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, time::Duration};

    use super::*;

    #[test]
    fn a_guest_that_falls_silent_is_started_again_and_not_for_ever() {
        let seen = |silent: bool| Seen {
            prompt: (!silent).then_some(Duration::from_secs(9)),
            console: vec![],
            end: silent.then(|| Error::new(Kind::Timeout, "silent")),
            silent,
        };
        for (silences, starts, well) in [(0, 1, true), (2, 3, true), (5, TRIES, false)] {
            let (mut phases, begun) = (vec![], Cell::new(0));
            let ended = boot(&mut |phase| phases.push(phase.to_owned()), || {
                begun.set(begun.get() + 1);
                Ok(seen(begun.get() <= silences))
            });
            assert_eq!((begun.get(), ended.unwrap().prompt.is_some()), (starts, well));
            assert_eq!(phases.iter().filter(|phase| phase.contains("once more")).count(), starts - 1);
        }
    }
}
