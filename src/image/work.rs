//! Work on an image in the workshop: a clone, a guest, an answer, and nothing left behind.
//!
//! The clone has an id that the agent has given out and is tagged as half-made: whatever happens to this process, it is
//! taken away like every other half-made volume that nobody wants.

use std::path::PathBuf;

use super::{
    answer::{Line, Role},
    check,
    facts::Facts,
    workshop::{Workshop, guest::Guest},
};
use crate::{
    error::{Error, Kind, Result},
    host::{cmd::Tool, lvm::Lvm},
    model::{Checkup, ImageId, Tag, VolumeId},
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
}

impl Work {
    /// Looks into the image and returns what is to be said of it; the image itself is not touched. `phase` hears what is
    /// done, as it begins.
    ///
    /// # Errors
    /// [`Kind::Missing`] where the image or a tool is not there, [`Kind::Full`] above the pool's watermark; else what
    /// failed.
    pub fn check(&self, lvm: &Lvm, phase: &mut dyn FnMut(&str)) -> Result<Checkup> {
        let facts = self.facts(lvm, phase);
        let facts = facts.map_err(|e| e.while_doing(format!("check image '{}'", self.image)))?;
        Ok(check::judge(&facts))
    }

    fn facts(&self, lvm: &Lvm, phase: &mut dyn FnMut(&str)) -> Result<Facts> {
        let workshop = self.workshop(phase)?;
        let clone = Clone::make(self, lvm)?;
        let mut facts = None;
        phase("starting the guest");
        let guest = Guest {
            image: &self.image,
            role: Role::Check,
            workshop: &workshop,
            device: &clone.device,
            folder: &self.folder,
        };
        guest.run(&mut |line| match line {
            Line::Phase { name } => phase(&name),
            Line::Facts(found) => facts = Some(*found),
            Line::Failed { .. } | Line::Done => {}
        })?;
        facts.ok_or_else(|| Error::new(Kind::Failed, "the guest has told no facts"))
    }

    /// Returns the workshop; the first work after a kernel's upgrade makes it.
    fn workshop(&self, phase: &mut dyn FnMut(&str)) -> Result<Workshop> {
        Tool::Qemu.check()?;
        if let Some(made) = Workshop::find(&self.folder) {
            return Ok(made);
        }
        phase("making the workshop");
        Workshop::make(&self.folder)
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
        let volumes = lvm.volumes()?;
        admit(&volumes.pool, work.watermark)?;
        let none = || Error::new(Kind::Missing, format!("there is no image '{image}'"));
        let size = volumes.volumes.get(&image.lv_name()).ok_or_else(none)?.size;
        lvm.clone(volume, image, size, &[Tag::Making, Tag::Image(image.clone())])?;
        Ok(Self { lvm, volume, device: lvm.device(&volume.lv_name()) })
    }
}

impl Drop for Clone<'_> {
    fn drop(&mut self) {
        // Should this fail, the tag says that it is half-made, and the agent takes it away when it finds it.
        let _ = self.lvm.remove(self.volume);
    }
}
