//! Golden images' volumes: empty and marked as half-made, then filled, then read-only for ever.
//!
//! ```text
//! create_image ──► sheath.making, writable, active ──► complete_image ──► read-only, inactive ⇄ publish
//! promote ───────► sheath.making, read-only, inactive ─► tag_image ──────────────┘
//!       ▲                       │
//!       └── a left-over of a crash is removed: its content is unknown, and a fresh volume reads as zeros
//! ```
//!
//! A finished image is not active: snapshots are made from its metadata alone, and a device that is not there cannot be
//! scanned, mounted or written to by anybody.

use std::{fs::File, path::PathBuf};

use super::Lvm;
use crate::{
    error::{Context, Error, Kind, Result},
    model::{Bytes, ImageId, LvName, Tag, VolumeId},
    plan::Changed,
};

impl Lvm {
    /// Makes an empty volume for an image, tagged as half-made, and returns its device.
    ///
    /// Nobody looks first whether the name is free: a look takes half as long as the making.
    ///
    /// # Errors
    /// [`Kind::Exists`] where an image of this name is finished, [`Kind::Missing`] where the pool does not exist.
    pub fn create_image(&self, image: &ImageId, size: Bytes) -> Result<PathBuf> {
        let (turn, lv) = (self.turn(), image.lv_name());
        let Err(error) = turn.make(&lv, size) else { return Ok(self.device(&lv)) };
        let volumes = turn.rows()?;
        volumes.volumes(&self.vg, &self.thinpool)?;
        match volumes.find(&lv) {
            Some(row) if row.tags().contains(&Tag::Making) => {
                turn.settle()?;
                turn.remove(&lv)?;
                turn.make(&lv, size).map(|()| self.device(&lv))
            }
            Some(_) => Err(Error::new(Kind::Exists, format!("image '{image}' exists"))),
            None => Err(error),
        }
    }

    /// Makes a half-made image's volume smaller, once its size is known: nothing has been written beyond that.
    ///
    /// # Errors
    /// [`Kind::Missing`] where it does not exist, [`Kind::Denied`] where it is finished: a finished image stays as it is.
    pub fn cut_image(&self, image: &ImageId, size: Bytes) -> Result<()> {
        let turn = self.turn();
        if !turn.image(image)?.tags().contains(&Tag::Making) {
            return Err(Error::new(Kind::Denied, format!("image '{image}' is finished and stays as it is")));
        }
        let (size, path) = (format!("{}b", size.0), self.path(&image.lv_name()));
        // Forced: LVM would look for a file system that is to be made smaller first, in what a stranger has sent.
        turn.run("lvreduce", ["--force", "--size", &size, &path]).map(drop)
    }

    /// Makes the image's volume a snapshot of a clone, tagged as half-made: read-only and inactive from its first moment.
    ///
    /// Nothing is copied. The clone may be in use: it is held still for the moment in which the pool notes the snapshot.
    /// Nobody looks first, because that takes as long as the snapshot itself.
    ///
    /// # Errors
    /// [`Kind::Exists`] where the image is finished, [`Kind::Missing`] where the clone does not exist.
    pub fn promote(&self, image: &ImageId, volume: VolumeId) -> Result<Changed> {
        let (turn, lv) = (self.turn(), image.lv_name());
        let Err(error) = turn.freeze(volume, &lv) else { return Ok(Changed::Changed) };
        match turn.rows()?.find(&lv) {
            // A left-over of a crash is of another moment, or of none: the pool may not have noted it.
            // Whoever made it was killed, and may have left the clone itself suspended.
            Some(row) if row.tags().contains(&Tag::Making) => {
                turn.settle()?;
                turn.remove(&lv)?;
                turn.freeze(volume, &lv).map(|()| Changed::Changed)
            }
            Some(_) => Err(Error::new(Kind::Exists, format!("image '{image}' exists"))),
            None => Err(turn.explain(&volume.lv_name(), error)),
        }
    }

    /// Adds and removes tags of an image by one command, without a look.
    ///
    /// # Errors
    /// [`Kind::Missing`] where it does not exist.
    pub fn tag_image(&self, image: &ImageId, add: &[Tag], remove: &[Tag]) -> Result<Changed> {
        self.turn().retag(&image.lv_name(), add, remove, &[])
    }

    /// Makes the image whole: read-only, inactive, no longer half-made, published if asked for.
    ///
    /// # Errors
    /// [`Kind::Missing`] where it does not exist, [`Kind::Busy`] where somebody still has it open.
    pub fn finish_image(&self, image: &ImageId, published: bool) -> Result<Changed> {
        let turn = self.turn();
        let lv = image.lv_name();
        let row = turn.image(image)?;
        let path = self.path(&lv);
        if row.active() {
            turn.run("lvchange", ["--activate", "n", &path])?;
        }
        let has = row.tags();
        let add: &[Tag] = if published && !has.contains(&Tag::Published) { &[Tag::Published] } else { &[] };
        let remove: &[Tag] = if has.contains(&Tag::Making) { &[Tag::Making] } else { &[] };
        let more: &[&str] = if row.writable() { &["--permission", "r"] } else { &[] };
        let changed = turn.retag(&lv, add, remove, more)? == Changed::Changed || row.active();
        Ok(Changed::from_bool(changed))
    }

    /// Makes an image whole as [`Lvm::finish_image`] does, with these tags, for who has made its volume and knows how it is: no
    /// look, two commands.
    ///
    /// # Errors
    /// [`Kind::Missing`] where it does not exist, [`Kind::Busy`] where somebody has it open.
    pub fn complete_image(&self, image: &ImageId, tags: &[Tag]) -> Result<()> {
        let (turn, lv) = (self.turn(), image.lv_name());
        turn.run("lvchange", ["--activate", "n", &self.path(&lv)]).map_err(|e| turn.explain(&lv, e))?;
        turn.retag(&lv, tags, &[Tag::Making], &["--permission", "r"]).map(drop)
    }

    /// Makes the image one that may be chosen, or takes it back.
    ///
    /// # Errors
    /// [`Kind::Missing`] where it does not exist, [`Kind::Busy`] where it is not finished.
    pub fn publish(&self, image: &ImageId, published: bool) -> Result<Changed> {
        let turn = self.turn();
        let has = turn.image(image)?.tags();
        if has.contains(&Tag::Making) {
            return Err(Error::new(Kind::Busy, format!("image '{image}' is still being imported")));
        }
        if has.contains(&Tag::Published) == published {
            return Ok(Changed::AlreadyTrue);
        }
        let tag = &[Tag::Published];
        let (add, remove): (&[Tag], &[Tag]) = if published { (tag, &[]) } else { (&[], tag) };
        turn.retag(&image.lv_name(), add, remove, &[])
    }

    /// Opens a finished image to be read: its device is there until [`Lvm::close_image`].
    ///
    /// # Errors
    /// [`Kind::Missing`] where it does not exist, [`Kind::Busy`] where it is not finished.
    pub fn open_image(&self, image: &ImageId) -> Result<File> {
        let (turn, lv) = (self.turn(), image.lv_name());
        let row = turn.image(image)?;
        if row.tags().contains(&Tag::Making) {
            return Err(Error::new(Kind::Busy, format!("image '{image}' is still being made")));
        }
        if !row.active() {
            turn.activate(&lv)?;
        }
        let device = self.device(&lv);
        File::open(&device).attempt(|| format!("open '{}'", device.display()))
    }

    /// Takes an image's device away, unless somebody reads it.
    pub fn close_image(&self, image: &ImageId) {
        // One that stays is read-only and taken away by whoever reads it last.
        let _ = self.turn().run("lvchange", ["--activate", "n", &self.path(&image.lv_name())]);
    }

    /// Removes the image, finished or not. Clones of it keep their content: a thin snapshot needs no origin.
    ///
    /// # Errors
    /// [`Kind::Busy`] where somebody has it open.
    pub fn remove_image(&self, image: &ImageId) -> Result<Changed> {
        self.turn().remove(&image.lv_name())
    }
}

impl super::Turn<'_> {
    /// Makes an empty, active volume, tagged as half-made.
    fn make(&self, lv: &LvName, size: Bytes) -> Result<()> {
        let (size, making) = (format!("{}b", size.0), Tag::Making.to_string());
        let pool = self.lvm.thinpool.as_str();
        let mut args = vec!["--virtualsize", &size, "--thinpool", pool, "--name", lv.as_str()];
        // There is nothing to wipe in a volume that has no block yet.
        args.extend(["--setactivationskip", "y", "--ignoreactivationskip", "--wipesignatures", "n"]);
        args.extend(["--addtag", &making, self.lvm.vg.as_str()]);
        self.run("lvcreate", args).map(drop)
    }

    /// Makes the snapshot, by one command that has its tag in it.
    fn freeze(&self, volume: VolumeId, lv: &LvName) -> Result<()> {
        let (from, making) = (self.lvm.path(&volume.lv_name()), Tag::Making.to_string());
        let mut args = vec!["--snapshot", "--setactivationskip", "y", "--activate", "n", "--permission", "r"];
        args.extend(["--name", lv.as_str(), "--addtag", &making, &from]);
        self.run("lvcreate", args).map(drop)
    }

    /// Returns the image's row.
    fn image(&self, image: &ImageId) -> Result<super::report::Row> {
        self.rows()?.find(&image.lv_name()).cloned().ok_or_else(|| {
            Error::new(Kind::Missing, format!("there is no image '{image}' in '{}'", self.lvm.vg))
        })
    }
}
