//! The pool: physical volume, volume group, thin pool, each made true on its own; and whether it has room.
//!
//! Out of space: the pool *queues* writes (`errorwhenfull n`), for the kernel's 60 seconds, and errors them after that.
//! Erroring at once would make every blade's root file system read-only the moment the pool fills, beyond repair by
//! whoever extends it a second later; queued writes go on as if nothing had been. Queueing for ever would hang LIO's
//! aborts, so the kernel's limit stays. Both are the last resort: `plan::admit` refuses new volumes long before.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Lvm, Turn, missing_group, report};
use crate::{
    error::{Error, Kind, Result},
    host::disk::inspect::inspect_disk,
    model::Bytes,
    plan::Changed,
};

/// Size of the area for the group's metadata on the disk. LVM's default of 1 MiB is full at about 1,300 volumes and
/// cannot be enlarged later; this has room for every pool that we mean to support.
const METADATA_AREA: &str = "64m";
/// Smallest thin pool that is worth having.
const LEAST_POOL: Bytes = Bytes::mib(256);
/// Least and most pool metadata; the most is what the kernel can address (dm-thin: 16 GiB), less some.
const POOL_METADATA: (Bytes, Bytes) = (Bytes::mib(32), Bytes::gib(15));
/// The chunk that clones share: small, so that a blade's small write copies little.
const CHUNK: Bytes = Bytes(64 << 10);
/// Largest pool whose metadata fits with that chunk, with room for blades that share most chunks.
const LARGEST_WITH_CHUNK: Bytes = Bytes::gib(8 << 10);

/// A physical volume, as `pvs` reports it.
#[derive(Debug, Deserialize)]
struct Pv {
    pv_name: PathBuf,
    vg_name: String,
}

/// A volume group, as `vgs` reports it.
#[derive(Debug, Deserialize)]
struct Vg {
    vg_name: String,
    vg_free: String,
    vg_extent_size: String,
}

/// The pool itself, as `lvs` reports it.
#[derive(Debug, Deserialize)]
struct Pool {
    lv_name: String,
    segtype: String,
    lv_when_full: String,
}

/// How a group's free space is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Geometry {
    data: Bytes,
    metadata: Bytes,
    chunk: Bytes,
}

impl Lvm {
    /// Makes the disk a physical volume.
    ///
    /// # Errors
    /// [`Kind::Exists`] where it belongs to another volume group or holds anything else, naming what was found.
    pub fn make_pv(&self, device: &Path) -> Result<Changed> {
        let turn = self.turn();
        let shown = device.display();
        match turn.pv(device)? {
            Some(pv) if pv.vg_name.is_empty() || pv.vg_name == self.vg.as_str() => {
                return Ok(Changed::AlreadyTrue);
            }
            Some(pv) => {
                let text = format!("'{shown}' belongs to volume group '{}'", pv.vg_name.escape_debug());
                return Err(Error::new(Kind::Exists, text));
            }
            None => {}
        }
        // Whoever sets up has looked already; LVM's --yes would wipe whatever came since.
        let found = inspect_disk(device)?;
        if !found.is_empty() {
            return Err(Error::new(Kind::Exists, format!("'{shown}' is not blank: {}", found.join("; "))));
        }
        turn.run("pvcreate", ["--metadatasize", METADATA_AREA, &path_text(device)?])?;
        Ok(Changed::Changed)
    }

    /// Makes the physical volume the volume group's.
    ///
    /// # Errors
    /// [`Kind::Exists`] where a group of this name is on other disks, or the disk is another group's.
    pub fn make_vg(&self, device: &Path) -> Result<Changed> {
        let turn = self.turn();
        let shown = device.display();
        let pv = turn
            .pv(device)?
            .ok_or_else(|| Error::new(Kind::Missing, format!("'{shown}' is not a physical volume")))?;
        if pv.vg_name == self.vg.as_str() {
            return Ok(Changed::AlreadyTrue);
        }
        let taken = turn.vgs()?.iter().any(|vg| vg.vg_name == self.vg.as_str());
        if taken || !pv.vg_name.is_empty() {
            let text = format!("'{shown}' cannot become group '{}': the group or the disk is taken", self.vg);
            return Err(Error::new(Kind::Exists, text));
        }
        turn.run("vgcreate", [self.vg.as_str(), &path_text(device)?])?;
        Ok(Changed::Changed)
    }

    /// Returns the disks that the volume group is on, by the names that LVM calls them.
    ///
    /// # Errors
    /// The command's failure.
    pub fn disks(&self) -> Result<Vec<PathBuf>> {
        let all: Vec<Pv> = report::rows(&self.turn().run("pvs", report::args("pv_name,vg_name"))?)?;
        Ok(all.into_iter().filter(|pv| pv.vg_name == self.vg.as_str()).map(|pv| pv.pv_name).collect())
    }

    /// Makes the thin pool, of all the space that the group has but a reserve for its metadata to grow.
    ///
    /// # Errors
    /// [`Kind::Missing`] where there is no such group, [`Kind::Exists`] where a volume of this name is something else,
    /// [`Kind::Full`] where the group has too little free space.
    pub fn make_thinpool(&self) -> Result<Changed> {
        let turn = self.turn();
        let made = match turn.pool()? {
            Some(pool) if pool.segtype == "thin-pool" => Changed::AlreadyTrue,
            Some(pool) => {
                let text = format!("'{}/{}' exists and is no thin pool", self.vg, pool.lv_name);
                return Err(Error::new(Kind::Exists, text));
            }
            None => turn.create_thinpool()?,
        };
        // LVM refuses to set what is set, and lvcreate does not take the option for pools.
        if turn.pool()?.is_some_and(|pool| pool.lv_when_full == "error") {
            turn.run("lvchange", ["--errorwhenfull", "n", &self.path(&self.thinpool)])?;
            return Ok(Changed::Changed);
        }
        Ok(made)
    }
}

impl Turn<'_> {
    /// Returns what LVM knows of this disk. LVM may call it by another of its names.
    fn pv(&self, device: &Path) -> Result<Option<Pv>> {
        let json = self.run("pvs", report::args("pv_name,vg_name"))?;
        let same = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let all: Vec<Pv> = report::rows(&json)?;
        Ok(all.into_iter().find(|pv| same(&pv.pv_name) == same(device)))
    }

    fn vgs(&self) -> Result<Vec<Vg>> {
        report::rows(&self.run("vgs", report::args("vg_name,vg_free,vg_extent_size"))?)
    }

    /// Returns the volume that has the pool's name.
    fn pool(&self) -> Result<Option<Pool>> {
        let vg = self.lvm.vg.as_str();
        let args = report::args("lv_name,segtype,lv_when_full").into_iter().chain([vg]);
        let all: Vec<Pool> = report::rows(&self.run("lvs", args).map_err(|e| missing_group(vg, e))?)?;
        Ok(all.into_iter().find(|pool| pool.lv_name == self.lvm.thinpool.as_str()))
    }

    fn create_thinpool(&self) -> Result<Changed> {
        let vg = self.lvm.vg.as_str();
        let all = self.vgs()?;
        let row = all.iter().find(|row| row.vg_name == vg);
        let row = row.ok_or_else(|| Error::new(Kind::Missing, format!("there is no volume group '{vg}'")))?;
        let geometry = geometry(row.vg_free.parse()?, row.vg_extent_size.parse()?)
            .map_err(|e| e.while_doing(format!("make thin pool '{vg}/{}'", self.lvm.thinpool)))?;
        let bytes = |size: Bytes| format!("{}b", size.0);
        let (data, metadata, chunk) = (bytes(geometry.data), bytes(geometry.metadata), bytes(geometry.chunk));
        let mut args = vec!["--type", "thin-pool", "--name", self.lvm.thinpool.as_str(), "--size", &data];
        args.extend(["--poolmetadatasize", &metadata, "--poolmetadataspare", "y", "--chunksize", &chunk]);
        // Chunks are zeroed before a blade sees them: they may hold what a removed disk had.
        args.extend(["--zero", "y", "--discards", "passdown", vg]);
        self.run("lvcreate", args)?;
        Ok(Changed::Changed)
    }
}

/// Divides a group's free space: metadata of twice what LVM would give, as much again as its spare for a repair, one
/// percent left free so that metadata can grow, and the rest for data.
fn geometry(free: Bytes, extent: Bytes) -> Result<Geometry> {
    let extent = extent.0.max(1);
    let (least, most) = POOL_METADATA;
    let metadata = (free.0 / 512).clamp(least.0, most.0).div_ceil(extent) * extent;
    let data = free.0.saturating_sub(2 * metadata).saturating_sub(free.0 / 100) / extent * extent;
    if data < LEAST_POOL.0 {
        let text = format!("{} free in the volume group are too little for a pool", free.human());
        return Err(Error::new(Kind::Full, text));
    }
    let mut chunk = CHUNK.0;
    while data / (chunk / CHUNK.0) > LARGEST_WITH_CHUNK.0 {
        chunk *= 2;
    }
    Ok(Geometry { data: Bytes(data), metadata: Bytes(metadata), chunk: Bytes(chunk) })
}

/// Returns a path as text, for a list of arguments that are text.
fn path_text(path: &Path) -> Result<String> {
    let text = path.to_str().filter(|text| text.starts_with('/'));
    text.map(str::to_owned)
        .ok_or_else(|| Error::invalid(format!("'{}' is not an absolute path", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_leaves_room_for_its_metadata_twice_and_some_to_grow() {
        let extent = Bytes::mib(4);
        for free in [Bytes::gib(1), Bytes::gib(4), Bytes::gib(1 << 10), Bytes::gib(100 << 10)] {
            let Geometry { data, metadata, chunk } = geometry(free, extent).unwrap();
            assert!(data.0 + 2 * metadata.0 + free.0 / 100 <= free.0, "{free}");
            assert!(data.0 % extent.0 == 0 && metadata.0 % extent.0 == 0);
            assert!(metadata <= Bytes::gib(16), "the kernel addresses no more");
            assert!(data.0 / chunk.0 * 64 <= metadata.0, "{free}: LVM's own estimate");
            assert!(data.0 * 100 >= free.0 * 90, "{free}");
        }
        assert_eq!(geometry(Bytes::gib(4), extent).unwrap().chunk, CHUNK);
        assert_eq!(geometry(Bytes::mib(100), extent).unwrap_err().kind(), Kind::Full);
    }

    #[test]
    fn a_device_is_named_by_an_absolute_path() {
        assert!(path_text(Path::new("-f")).is_err());
        assert_eq!(path_text(Path::new("/dev/sdb")).unwrap(), "/dev/sdb");
    }
}
