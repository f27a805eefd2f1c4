//! Golden images' volumes: empty and marked as half-made, then filled, then read-only for ever.
//!
//! ```text
//! create_image ──► sheath.making, writable, active ──► complete_image ──► whole ──► read-only, inactive ⇄ publish
//! promote ───────► sheath.making, read-only, inactive ─► tag_image ──────────────────────────────┘
//!       ▲                       │
//!       └── a left-over of a crash is removed: its content is unknown, and a fresh volume reads as zeros
//! ```
//!
//! A finished image is not active: snapshots are made from its metadata alone, and a device that is not there cannot be
//! scanned, mounted or written to by anybody. Whoever waits for it need not wait for that as well: it is whole with its tags,
//! and put to rest ([`Restless`]) while that is told, before any other command of ours.

use std::{
    fmt,
    fs::{self, File},
    path::{Path, PathBuf},
};

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
        self.create(image, size, &[]).map(|()| self.device(&image.lv_name()))
    }

    /// Makes an image's volume as [`Lvm::create_image`] does, and returns the kernel's own node of it. That is there without
    /// udev, whose links take as long as all that LVM does.
    ///
    /// # Errors
    /// As [`Lvm::create_image`].
    pub fn create_image_node(&self, image: &ImageId, size: Bytes) -> Result<PathBuf> {
        // A pool that is not active is checked by its parts' links first, so LVM has to wait for those.
        let more: &[&str] = if self.is_in_the_kernel() { &["--noudevsync"] } else { &[] };
        self.create(image, size, more)?;
        let name = super::dm_name(&self.vg, &image.lv_name());
        node_of(Path::new("/sys/block"), &name)?
            .ok_or_else(|| Error::new(Kind::Missing, format!("find device-mapper's device '{name}'")))
    }

    fn create(&self, image: &ImageId, size: Bytes, more: &[&str]) -> Result<()> {
        let (turn, lv) = (self.turn(), image.lv_name());
        let Err(error) = turn.make(&lv, size, more) else { return Ok(()) };
        let volumes = turn.rows()?;
        volumes.volumes(&self.vg, &self.thinpool)?;
        match volumes.find(&lv) {
            Some(row) if row.tags().contains(&Tag::Making) => {
                turn.settle()?;
                turn.remove(&lv)?;
                turn.make(&lv, size, more)
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

    /// Makes an image whole with these tags, for who has made its volume and has let go of it: by one command, which may be told
    /// before the volume is at rest.
    ///
    /// # Errors
    /// [`Kind::Missing`] where it does not exist.
    pub fn complete_image(&self, image: &ImageId, tags: &[Tag]) -> Result<Restless<'_>> {
        let (turn, lv) = (self.turn(), image.lv_name());
        turn.retag(&lv, tags, &[Tag::Making], &[])?;
        Ok(Restless { turn, lv })
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

/// An image that is whole, and whose volume is still active and writable: it is put to rest when this goes. Until then no
/// other command of ours runs.
#[must_use = "nobody can run an LVM command before it goes"]
pub struct Restless<'a> {
    turn: super::Turn<'a>,
    lv: LvName,
}

impl fmt::Debug for Restless<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Restless({})", self.lv)
    }
}

impl Drop for Restless<'_> {
    fn drop(&mut self) {
        let path = self.turn.lvm.path(&self.lv);
        let change =
            |args: [&str; 3]| self.turn.run("lvchange", args).map_err(|e| self.turn.explain(&self.lv, e));
        // The second whatever becomes of the first: one that somebody has open can be made read-only.
        let ended = change(["--activate", "n", &path]).and(change(["--permission", "r", &path]));
        // One that has been removed meanwhile needs no rest. Any other is seen to at the agent's next start.
        if let Err(e) = ended.map(drop).or_else(|e| if e.kind() == Kind::Missing { Ok(()) } else { Err(e) }) {
            log::warn!("volume '{path}' cannot be put to rest: {}", e.chain());
        }
    }
}

/// Returns the node of device-mapper's device of this name; `sysfs` lists all block devices.
fn node_of(sysfs: &Path, name: &str) -> Result<Option<PathBuf>> {
    let attempt = || format!("list '{}'", sysfs.display());
    for entry in fs::read_dir(sysfs).attempt(attempt)? {
        let entry = entry.attempt(attempt)?;
        // What is no device of device-mapper, or is gone meanwhile, has no such file.
        if fs::read_to_string(entry.path().join("dm/name")).is_ok_and(|found| found.trim_end() == name) {
            return Ok(Some(Path::new("/dev").join(entry.file_name())));
        }
    }
    Ok(None)
}

impl super::Turn<'_> {
    /// Makes an empty, active volume, tagged as half-made.
    fn make(&self, lv: &LvName, size: Bytes, more: &[&str]) -> Result<()> {
        let (size, making) = (format!("{}b", size.0), Tag::Making.to_string());
        let pool = self.lvm.thinpool.as_str();
        let mut args = vec!["--virtualsize", &size, "--thinpool", pool, "--name", lv.as_str()];
        // There is nothing to wipe in a volume that has no block yet.
        args.extend(["--setactivationskip", "y", "--ignoreactivationskip", "--wipesignatures", "n"]);
        args.extend(more);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_found_by_the_name_that_the_kernel_has_for_it() {
        let sysfs = tempfile::tempdir().unwrap();
        for (device, name) in [("dm-0", "sheath-pool-tpool"), ("dm-12", "sheath-sheath--img--web")] {
            let folder = sysfs.path().join(device).join("dm");
            fs::create_dir_all(&folder).unwrap();
            crate::host::file::save(&folder.join("name"), format!("{name}\n").as_bytes(), 0o644).unwrap();
        }
        fs::create_dir(sysfs.path().join("sda")).unwrap();
        let found = |name| node_of(sysfs.path(), name).unwrap();
        assert_eq!(found("sheath-sheath--img--web"), Some("/dev/dm-12".into()));
        assert_eq!(found("sheath-sheath--img--web+2"), None);
    }
}
