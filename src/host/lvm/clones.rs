//! Blades' disks: thin clones of golden images.
//!
//! A clone is made with its tags by one command, so that none exists that nobody knows. Each step can be repeated
//! after a crash at any point of it; what exists is only ever completed, never made anew.

use super::{Lvm, Turn, report::Row};
use crate::{
    error::{Error, Kind, Result},
    model::{Bytes, ImageId, LvName, Tag, VolumeId},
    plan::Changed,
};

/// What a clone is to be.
struct Wanted<'a> {
    lv: LvName,
    image: &'a ImageId,
    size: Bytes,
    tags: &'a [Tag],
}

impl Lvm {
    /// Makes the volume a thin clone of the image, of this size, tagged, active.
    ///
    /// A volume that exists gets what it lacks of size and tags; `sheath.making` is not put back on a finished one.
    ///
    /// # Errors
    /// [`Kind::Missing`] where the image does not exist, [`Kind::Busy`] where it is not finished, [`Kind::Exists`] where
    /// the volume comes from another image, [`Kind::Invalid`] where `size` is less than the image's.
    pub fn clone(&self, volume: VolumeId, image: &ImageId, size: Bytes, tags: &[Tag]) -> Result<Changed> {
        let turn = self.turn();
        let rows = turn.rows()?;
        let origin = rows.find(&image.lv_name()).ok_or_else(|| {
            Error::new(Kind::Missing, format!("there is no image '{image}' in '{}'", self.vg))
        })?;
        admissible(image, origin, size)?;
        let wanted = Wanted { lv: volume.lv_name(), image, size, tags };
        match rows.find(&wanted.lv) {
            Some(row) => turn.complete(row, &wanted),
            None => turn.snapshot(origin, &wanted),
        }
    }

    /// Makes device-mapper have the volume. Where the device is there, no command is run.
    ///
    /// # Errors
    /// [`Kind::Missing`] where the volume does not exist.
    pub fn activate(&self, volume: VolumeId) -> Result<Changed> {
        let lv = volume.lv_name();
        let turn = self.turn();
        if self.device(&lv).exists() {
            return Ok(Changed::AlreadyTrue);
        }
        turn.activate(&lv)?;
        Ok(Changed::Changed)
    }

    /// Adds and removes tags by one command.
    ///
    /// This stands between a blade's choice and its disk, so it does not look first: LVM leaves a tag that is there as
    /// it is, and the answer is [`Changed::Changed`] unless there is nothing to do at all.
    ///
    /// # Errors
    /// [`Kind::Missing`] where the volume does not exist.
    pub fn tag(&self, volume: VolumeId, add: &[Tag], remove: &[Tag]) -> Result<Changed> {
        self.turn().retag(&volume.lv_name(), add, remove, &[])
    }

    /// Makes the volume at least so large; also while it is exported: LIO asks the device for its size each time.
    ///
    /// # Errors
    /// [`Kind::Missing`] where the volume does not exist; else the command's failure.
    pub fn enlarge(&self, volume: VolumeId, size: Bytes) -> Result<Changed> {
        let (lv, turn) = (volume.lv_name(), self.turn());
        let rows = turn.rows()?;
        let row = rows
            .find(&lv)
            .ok_or_else(|| Error::new(Kind::Missing, format!("there is no volume '{}'", self.path(&lv))))?;
        turn.grow(&lv, row.size()?, size)
    }

    /// Makes the volume what is another logical volume of the pool now: tagged, renamed, active. Its data stay as they
    /// are.
    ///
    /// It has the tags before it has our name: a kill between the two leaves a foreign volume with tags that say nothing.
    ///
    /// # Errors
    /// [`Kind::Missing`] where there is neither the one nor the other; else the command's failure.
    pub fn take_over(&self, lv: &LvName, volume: VolumeId, tags: &[Tag]) -> Result<Changed> {
        let (ours, turn) = (volume.lv_name(), self.turn());
        let rows = turn.rows()?;
        let (row, renamed) = match (rows.find(&ours), rows.find(lv)) {
            (Some(row), _) => (row, true),
            (None, Some(row)) => (row, false),
            (None, None) => {
                return Err(Error::new(Kind::Missing, format!("there is no volume '{}'", self.path(lv))));
            }
        };
        if !renamed {
            turn.retag(lv, tags, &[], &["--setactivationskip", "y"])?;
            turn.run("lvrename", [self.vg.as_str(), lv.as_str(), ours.as_str()])?;
        }
        if !row.active() {
            turn.activate(&ours)?;
        }
        Ok(Changed::from_bool(!renamed || !row.active()))
    }

    /// Removes the volume.
    ///
    /// # Errors
    /// [`Kind::Busy`] where somebody has it open: a backstore, most likely.
    pub fn remove(&self, volume: VolumeId) -> Result<Changed> {
        self.turn().remove(&volume.lv_name())
    }
}

/// Refuses what cannot become a clone.
fn admissible(image: &ImageId, origin: &Row, size: Bytes) -> Result<()> {
    if origin.tags().contains(&Tag::Making) {
        return Err(Error::new(Kind::Busy, format!("image '{image}' is still being imported")));
    }
    let least = origin.size()?;
    if size < least {
        let (size, least) = (size.human(), least.human());
        return Err(Error::invalid(format!("a clone of '{image}' needs {least} at least, not {size}")));
    }
    Ok(())
}

impl Turn<'_> {
    /// Makes the clone: snapshot with its tags, then its size.
    fn snapshot(&self, origin: &Row, wanted: &Wanted<'_>) -> Result<Changed> {
        let mut tags: Vec<String> = wanted.tags.iter().map(Tag::to_string).collect();
        let source = Tag::Image(wanted.image.clone()).to_string();
        if !tags.contains(&source) {
            tags.push(source);
        }
        let path = self.lvm.path(&wanted.image.lv_name());
        let mut args = vec!["--snapshot", "--setactivationskip", "y", "--ignoreactivationskip"];
        args.extend(["--permission", "rw", "--name", wanted.lv.as_str()]);
        args.extend(tags.iter().flat_map(|tag| ["--addtag", tag.as_str()]));
        args.push(&path);
        self.run("lvcreate", args)?;
        self.grow(&wanted.lv, origin.size()?, wanted.size)?;
        Ok(Changed::Changed)
    }

    /// Gives an existing clone what it lacks.
    fn complete(&self, row: &Row, wanted: &Wanted<'_>) -> Result<Changed> {
        let (lv, image, has) = (&wanted.lv, wanted.image, row.tags());
        if !has.contains(&Tag::Image(image.clone())) {
            return Err(Error::new(
                Kind::Exists,
                format!("volume '{lv}' exists and is no clone of '{image}'"),
            ));
        }
        let lacks = |tag: &&Tag| **tag != Tag::Making && !has.contains(tag);
        let add: Vec<Tag> = wanted.tags.iter().filter(lacks).cloned().collect();
        let tagged = self.retag(lv, &add, &[], &[])?;
        let grown = self.grow(lv, row.size()?, wanted.size)?;
        if !row.active() {
            self.activate(lv)?;
        }
        let changed = tagged == Changed::Changed || grown == Changed::Changed || !row.active();
        Ok(Changed::from_bool(changed))
    }

    /// Makes the volume at least so large.
    fn grow(&self, lv: &LvName, has: Bytes, size: Bytes) -> Result<Changed> {
        if has >= size {
            return Ok(Changed::AlreadyTrue);
        }
        self.run("lvextend", ["--size", &format!("{}b", size.0), &self.lvm.path(lv)])?;
        Ok(Changed::Changed)
    }

    /// Makes device-mapper have the volume.
    pub(super) fn activate(&self, lv: &LvName) -> Result<()> {
        let path = self.lvm.path(lv);
        let args = ["--activate", "y", "--ignoreactivationskip", &path];
        self.run("lvchange", args).map(drop).map_err(|e| self.explain(lv, e))
    }

    /// Adds and removes tags, and changes whatever else one lvchange can, at once.
    pub(super) fn retag(&self, lv: &LvName, add: &[Tag], remove: &[Tag], more: &[&str]) -> Result<Changed> {
        if add.is_empty() && remove.is_empty() && more.is_empty() {
            return Ok(Changed::AlreadyTrue);
        }
        let words = |tags: &[Tag]| tags.iter().map(Tag::to_string).collect::<Vec<_>>();
        let (add, remove, path) = (words(add), words(remove), self.lvm.path(lv));
        let mut args = more.to_vec();
        args.extend(add.iter().flat_map(|tag| ["--addtag", tag.as_str()]));
        args.extend(remove.iter().flat_map(|tag| ["--deltag", tag.as_str()]));
        args.push(&path);
        self.run("lvchange", args).map_err(|e| self.explain(lv, e))?;
        Ok(Changed::Changed)
    }

    /// Removes the volume if it exists.
    pub(super) fn remove(&self, lv: &LvName) -> Result<Changed> {
        match self.run("lvremove", ["--force", &self.lvm.path(lv)]) {
            Ok(_) => Ok(Changed::Changed),
            Err(error) => match self.explain(lv, error) {
                error if error.kind() == Kind::Missing => Ok(Changed::AlreadyTrue),
                error => Err(error),
            },
        }
    }

    /// Returns the error of a failed command with the kind that it has when the volume is gone or in use.
    ///
    /// Whether it is gone is asked anew, not read from LVM's words. "In use" is in its words alone.
    pub(super) fn explain(&self, lv: &LvName, error: Error) -> Error {
        if error.kind() != Kind::Failed {
            return error;
        }
        match self.rows() {
            Ok(rows) if rows.find(lv).is_none() => {
                Error::new(Kind::Missing, format!("there is no volume '{}'", self.lvm.path(lv)))
                    .because(error)
            }
            Ok(_) if error.to_string().contains("in use") => {
                Error::new(Kind::Busy, format!("volume '{}' is in use", self.lvm.path(lv))).because(error)
            }
            _ => error,
        }
    }
}
