//! Disks of other machines that are plugged in and pulled out: told, with what can be done with them.
//!
//! udev says that a disk has come or gone; which of them are donors', and not the appliance's own, the host says, as it does
//! for `sheath donors`. It is asked when udev has been quiet for a moment: LVM has seen the disk by then, and one that is
//! the pool's is not told. Those that are there when the agent starts are known, and not news.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::{Core, EventKind};
use crate::{
    apply::{Report, Subject, Work},
    observed::Donor,
    status::Millis,
};

/// How long udev has to be quiet about disks before they are looked at, in milliseconds.
const QUIET: Millis = 2_000;
/// When a look that has failed is tried again, in milliseconds.
const AGAIN: Millis = 30_000;

/// What is known of donors' disks.
#[derive(Debug, Default)]
pub(super) struct Plugged {
    /// Those of the last look; `None` before the first.
    known: Option<BTreeMap<PathBuf, Donor>>,
    /// When to look; `None` where nothing has happened.
    due: Option<Millis>,
    /// The nodes of the disks that were taken out since the last look.
    out: BTreeSet<PathBuf>,
    /// Events were lost: a disk that is missing may have been taken out.
    lost: bool,
}

impl Core {
    /// A disk came or went.
    pub(super) fn on_disk(&mut self, name: &str, present: bool) {
        if !present {
            self.plugged.out.insert(PathBuf::from("/dev").join(name));
        }
        self.plugged.due = Some(self.now() + QUIET);
    }

    /// Nobody knows which disks came and went.
    pub(super) fn on_disks_lost(&mut self) {
        self.plugged.lost = true;
        self.plugged.due = Some(self.now() + QUIET);
    }

    /// Looks at the disks when it is time to.
    pub(super) fn look_for_donors(&mut self) {
        let now = self.now();
        let due = self.plugged.due.or_else(|| self.plugged.known.is_none().then_some(now));
        if due.is_some_and(|due| due <= now) && !self.busy.contains_key(&Subject::Donors) {
            self.plugged.due = None;
            self.submit(Subject::Donors, "disks came or went", Work::Donors);
        }
    }

    /// Tells which disks came and went since the last look.
    pub(super) fn on_donors(&mut self, report: &mut Report) {
        let Some(found) = report.donors.take() else {
            // A look that failed is no empty list: once more, with what has happened meanwhile.
            let again = self.now() + AGAIN;
            self.plugged.due.get_or_insert(again);
            return;
        };
        let found: BTreeMap<_, _> = found.into_iter().map(|donor| (donor.device.clone(), donor)).collect();
        let (out, lost) = (std::mem::take(&mut self.plugged.out), std::mem::take(&mut self.plugged.lost));
        let Some(before) = self.plugged.known.replace(found.clone()) else { return };
        for (device, donor) in &before {
            // One that is still plugged in and is no donor's any more has become the appliance's own.
            if out.contains(device) || (lost && !found.contains_key(device)) {
                self.journal.tell(EventKind::Donor, &format!("disk {} is gone", shown(donor)));
            }
        }
        for (device, donor) in &found {
            if !before.contains_key(device) || out.contains(device) {
                let text = format!("disk {} came, which may be a donor's: sheath donors", shown(donor));
                self.journal.tell(EventKind::Donor, &text);
            }
        }
    }
}

/// Returns a disk for people. What it says of itself may be anything.
fn shown(donor: &Donor) -> String {
    let model = donor.model.as_deref().map_or(String::new(), |model| format!(", {}", model.escape_debug()));
    format!("'{}' ({}{model})", donor.device.display(), donor.size.human())
}
