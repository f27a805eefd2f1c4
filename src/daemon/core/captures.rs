//! Captures, as the line knows them: whose disk becomes which image, what the machine in the slot is told, what it says.
//!
//! Who it is that asks or reports is known by the port that its frames come in by, as for every blade. A machine that has a
//! disk of ours is no donor: its disk is here already, `promote` makes an image of it.

use super::{Core, EventKind, ImportOrder};
use crate::{
    boot::wire::{self, Answer, BootDisk},
    control::api::ImportRequest,
    error::{Error, Kind, Result},
    image::{Lend, Source},
    model::{BladeId, DonorWord, ImageId, ImageName, NetDonor, Slot},
    plan, policy,
};

/// A donor that comes too early asks again after so many seconds.
const ASK_AGAIN: u32 = 2;

/// How long a console shows why a capture does not begin.
const CONSOLE_SECONDS: u32 = 5;

/// A capture that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Capture {
    donor: NetDonor,
    image: ImageId,
    /// Whether everything that the donor needs is there.
    ready: bool,
}

impl Core {
    /// Returns the donor, where the source is one.
    ///
    /// # Errors
    /// A slot that the chassis does not have, one whose machine has a disk of ours, or is captured already; a checksum.
    pub(super) fn donor_of(&self, request: &ImportRequest) -> Result<Option<NetDonor>> {
        let Ok(Source::Donor(donor)) = request.source.parse() else { return Ok(None) };
        let (slot, name) = (donor.slot, &request.name);
        let refuse = |kind, why: String| Err(Error::new(kind, format!("capture image '{name}': {why}")));
        if request.sha256.is_some() || request.checksum.is_some() {
            return refuse(
                Kind::Invalid,
                "a machine's disk has no checksum; its copy is compared with it".into(),
            );
        }
        if !self.config.chassis.slots.contains_key(&slot) {
            return refuse(Kind::Missing, format!("the chassis has no slot {slot}"));
        }
        if let Some((other, _)) = self.captured_in(slot).filter(|(other, _)| *other != name) {
            return refuse(Kind::Busy, format!("the machine in slot {slot} is captured for image '{other}'"));
        }
        let has_disk =
            self.blade_in(slot).is_some_and(|(_, blade)| blade.disk.is_some() || blade.grant.is_some());
        if has_disk {
            let fix = format!("sheath image promote {slot} {name}");
            return refuse(Kind::Busy, format!("the blade in slot {slot} has its disk here: '{fix}'"));
        }
        Ok(Some(donor))
    }

    /// Begins a capture that somebody has chosen at the machine's console, where policy offers it.
    pub(super) fn capture_by_console(&mut self, id: BladeId) -> Answer {
        let slot = self.roster.blades.get(&id).map(|blade| blade.slot);
        let name = slot.and_then(|slot| self.config.policy_of(id.0, slot).menu_capture.clone());
        let (Some(slot), Some(name)) = (slot, name) else {
            return Answer::Wait { message: "that is no longer offered".into(), seconds: ASK_AGAIN };
        };
        let source = NetDonor { slot, disk: None }.to_string();
        let request =
            ImportRequest { name, source, publish: false, unproved: false, sha256: None, checksum: None };
        match self.operator_import(request) {
            Ok(_) => {
                let message = "the capture of this machine's disk is being prepared".into();
                Answer::Wait { message, seconds: ASK_AGAIN }
            }
            Err(error) => Answer::Failed { message: error.to_string(), seconds: CONSOLE_SECONDS },
        }
    }

    /// Notes the capture, and returns the order for it.
    pub(super) fn begin_capture(
        &mut self,
        image: ImageId,
        request: ImportRequest,
        donor: NetDonor,
    ) -> Result<ImportOrder> {
        let export = policy::capture::lend(&self.config, &image, donor.slot)?;
        let undo = policy::capture::undo(&self.config, &image);
        let lend = Lend { serve: plan::serve(&export), undo };
        let capture = Capture { donor: donor.clone(), image: image.clone(), ready: false };
        self.asked.captures.insert(image.name.clone(), capture);
        Ok(ImportOrder::Capture(image, request, donor, lend))
    }

    /// Everything that the donor needs is there.
    pub(super) fn await_donor(&mut self, image: &ImageId) {
        let Some(capture) = self.asked.captures.get_mut(&image.name) else { return };
        capture.ready = true;
        let text = format!("image '{image}' waits for the machine in slot {} to start", capture.donor.slot);
        self.journal.tell_image(EventKind::Image, &image.name, &text);
    }

    /// Returns what a machine whose disk is to be captured is told.
    pub(super) fn capture_answer(&mut self, id: BladeId) -> Option<Answer> {
        let blade =
            self.roster.blades.get(&id).filter(|blade| blade.disk.is_none() && blade.grant.is_none())?;
        let (slot, firmware) = (blade.slot, blade.hardware.firmware);
        let (name, Capture { donor, image, ready }) = self.captured_in(slot)?;
        let (name, donor, image) = (name.clone(), donor.clone(), image.clone());
        if !ready {
            let message = format!("the capture of this machine's disk as image {image} is being prepared");
            return Some(Answer::Wait { message, seconds: ASK_AGAIN });
        }
        let export = policy::capture::lend(&self.config, &image, slot)
            .map_err(|error| self.config_error(&error))
            .ok()?;
        let to = BootDisk {
            slot,
            image: image.clone(),
            initiator: export.initiator,
            target: export.target,
            portals: export.portals,
            credentials: self.outside.host.credentials(export.backstore.volume, export.chap),
            firmware,
            key_seconds: 0,
        };
        (self.outside.import)(ImportOrder::Word(name, DonorWord::Told));
        self.tell(EventKind::Boot, id, &format!("told to copy its own disk: it becomes image '{image}'"));
        Some(Answer::Capture(wire::Capture { to, disk: donor.disk }))
    }

    /// Passes on what a donor says. What nobody asked for, or was cancelled, ends there.
    pub(super) fn on_donor(&mut self, id: BladeId, word: DonorWord) -> Answer {
        let slot = self.roster.blades.get(&id).map(|blade| blade.slot);
        let Some((name, _)) = slot.and_then(|slot| self.captured_in(slot)) else {
            return Answer::Refused { message: "no image is made from this machine (any more)".into() };
        };
        let name = name.clone();
        (self.outside.import)(ImportOrder::Word(name, word));
        Answer::Heard
    }

    /// Returns the capture of the machine in this slot.
    fn captured_in(&self, slot: Slot) -> Option<(&ImageName, &Capture)> {
        self.asked.captures.iter().find(|(_, capture)| capture.donor.slot == slot)
    }
}
