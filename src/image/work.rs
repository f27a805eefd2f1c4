//! Work on an image in the workshop: a clone, a guest, an answer, and nothing left behind.
//!
//! The clone has an id that the agent has given out and is tagged as half-made: whatever happens to this process, it is
//! taken away like every other half-made volume that nobody wants.

use std::path::PathBuf;

use super::{
    Cancel,
    answer::{Line, Role},
    check,
    facts::Facts,
    workshop::{
        Flavour, ONCE_MORE, TRIES, Workshop,
        guest::{Ended, Guest},
    },
};
use crate::{
    error::{Error, Kind, Result},
    host::{
        cmd::Tool,
        disk::gpt::{self, Partitioning},
        lvm::Lvm,
    },
    model::{Change, Checkup, ImageId, Sealing, Tag, VolumeId},
    plan::admit,
};

/// What is to be worked on.
#[derive(Debug, Clone)]
pub struct Work {
    /// The image.
    pub image: ImageId,
    /// The id of the clone to make.
    pub volume: VolumeId,
    /// A folder that only root can enter, which systemd sees under the same name.
    pub folder: PathBuf,
    /// No clone above this fill of the pool, in percent.
    pub watermark: u8,
    /// How it is told to stop: nothing is left of it then.
    pub cancel: Cancel,
}

impl Work {
    /// Looks into the image and returns what is to be said of it; the image itself is not touched. `phase` hears what is
    /// done, as it begins.
    ///
    /// # Errors
    /// [`Kind::Missing`] where the image or a tool is not there, [`Kind::Full`] above the pool's watermark,
    /// [`Kind::Denied`] when it was cancelled; else what failed.
    pub fn check(&self, lvm: &Lvm, phase: &mut dyn FnMut(&str)) -> Result<Checkup> {
        let told = self.in_guest(lvm, Role::Check, phase, |_, told| told.facts());
        let facts = told.map_err(|e| e.while_doing(format!("check image '{}'", self.image)))?;
        Ok(check::judge(&facts))
    }

    /// Makes the image's next version one that any blade can have; without a `next`, only says what would be changed. An
    /// image with nothing to change gets no version. Nothing is left of one that is not whole.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for what the sealer cannot mend; else as [`Work::check`].
    pub fn seal(&self, lvm: &Lvm, next: Option<&ImageId>, phase: &mut dyn FnMut(&str)) -> Result<Sealing> {
        let role = Role::Seal { dry_run: next.is_none() };
        let done = self.in_guest(lvm, role, phase, |clone, told| {
            let checkup = check::judge(&told.facts()?);
            let changes = told.changes;
            match next.filter(|_| !changes.is_empty()) {
                Some(next) => {
                    clone.keep_as(next)?;
                    Ok(Sealing { changes, image: Some(next.clone()), checkup: Some(checkup) })
                }
                // What it would be like is not known: nothing was changed.
                None => Ok(Sealing { checkup: changes.is_empty().then_some(checkup), changes, image: None }),
            }
        });
        done.map_err(|e| e.while_doing(format!("seal image '{}'", self.image)))
    }

    /// Has a guest do the role's work on a clone; `then` makes of both what is wanted, before the clone is gone.
    fn in_guest<T>(
        &self,
        lvm: &Lvm,
        role: Role,
        phase: &mut dyn FnMut(&str),
        then: impl FnOnce(&Clone<'_>, Told) -> Result<T>,
    ) -> Result<T> {
        self.cancel.check()?;
        let workshop = self.workshop(phase)?;
        let mut left = TRIES;
        loop {
            left -= 1;
            let clone = Clone::make(self, lvm)?;
            phase("starting the guest");
            let (told, ended) = self.ask_guest(role, &workshop, &clone, phase)?;
            match ended {
                Ended::Answered => {
                    self.cancel.check()?;
                    return then(&clone, told);
                }
                Ended::Silent(error) if left == 0 => return Err(error),
                Ended::Silent(_) => phase(ONCE_MORE),
            }
            // Whatever it was at is gone with its clone, or there is no other one.
            drop(clone);
            lvm.remove(self.volume)?;
        }
    }

    /// Runs one guest and returns what it has told, and how it ended.
    fn ask_guest(
        &self,
        role: Role,
        workshop: &Workshop,
        clone: &Clone<'_>,
        phase: &mut dyn FnMut(&str),
    ) -> Result<(Told, Ended)> {
        let (image, device, folder) = (&self.image, &clone.device, &self.folder);
        let guest = Guest { image, role, workshop, device, folder, cancel: &self.cancel };
        let mut told = Told::default();
        let ended = guest.run(&mut |line| match line {
            Line::Phase { name } => phase(&name),
            Line::Facts(found) => told.facts = Some(*found),
            Line::Changes { changes } => told.changes = changes,
            Line::Failed { .. } | Line::Done => {}
        })?;
        Ok((told, ended))
    }

    /// Returns the workshop; the first work after a kernel's upgrade makes it.
    fn workshop(&self, phase: &mut dyn FnMut(&str)) -> Result<Workshop> {
        Tool::Qemu.check()?;
        if let Some(made) = Workshop::find(&self.folder, Flavour::Guest) {
            return Ok(made);
        }
        phase("making the workshop");
        Workshop::make_while(&self.folder, Flavour::Guest, |long| self.cancel.wait(long))
    }
}

/// What a guest has told.
#[derive(Debug, Default)]
struct Told {
    facts: Option<Facts>,
    changes: Vec<Change>,
}

impl Told {
    fn facts(&self) -> Result<Facts> {
        self.facts.clone().ok_or_else(|| Error::new(Kind::Failed, "the guest has told no facts"))
    }
}

/// A clone for one guest, gone with it.
struct Clone<'a> {
    lvm: &'a Lvm,
    volume: VolumeId,
    device: PathBuf,
}

impl<'a> Clone<'a> {
    fn make(work: &Work, lvm: &'a Lvm) -> Result<Self> {
        let (image, volume) = (&work.image, work.volume);
        work.cancel.check()?;
        let volumes = lvm.volumes()?;
        admit(&volumes.pool, work.watermark)?;
        let none = || Error::new(Kind::Missing, format!("there is no image '{image}'"));
        let size = volumes.volumes.get(&image.lv_name()).ok_or_else(none)?.size;
        lvm.clone(volume, image, size, &[Tag::Making, Tag::Image(image.clone())])?;
        Ok(Self { lvm, volume, device: lvm.device(&volume.lv_name()) })
    }
}

impl Clone<'_> {
    /// Makes the clone, as it is now, an image that is not published.
    fn keep_as(&self, image: &ImageId) -> Result<()> {
        // What a guest says that ran the image's own programs is a claim: of what it left, this is read.
        if gpt::check(&self.device)? != Partitioning::Gpt {
            return Err(Error::new(Kind::Failed, "the guest has left no GPT on it"));
        }
        self.lvm.promote(image, self.volume)?;
        self.lvm.finish_image(image, false).map(drop).inspect_err(|_| {
            // Should this fail too, the tag says that it is half-made, and the agent takes it away.
            let _ = self.lvm.remove_image(image);
        })
    }
}

impl Drop for Clone<'_> {
    fn drop(&mut self) {
        // Should this fail, the tag says that it is half-made, and the agent takes it away when it finds it.
        let _ = self.lvm.remove(self.volume);
    }
}
