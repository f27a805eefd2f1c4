//! Disks from the inside: partition table, seed, what a disk holds already, and loop files.
//!
//! Everything here works on bytes of a block device or of a plain file alike, and never mounts anything: no kernel
//! file system driver ever sees what a blade wrote. Volumes are `lvm`'s; when to do what is for `plan`.

mod buffer;
pub mod cidata;
pub mod convert;
pub mod donor;
pub mod gpt;
pub mod inspect;
pub mod loopfile;
mod mbr;
pub mod stat;
mod table;
#[cfg(test)]
mod tests;

use std::{
    fs::{File, OpenOptions},
    path::Path,
};

use crate::error::{Context, Result};

/// The only sector size that we write tables for; set-up refuses disks with another.
const SECTOR: u64 = 512;

/// What partitions are aligned to: 1 MiB, as every partitioning tool does.
const ALIGN: u64 = (1 << 20) / SECTOR;

/// Opens a device or an image file for reading and writing.
///
/// Pages that were read or written through this descriptor are gone from the page cache when it is closed, because it
/// is the last one: partitioning and seeding come before the backstore opens the volume. That is why there is an fsync
/// and no `BLKFLSBUF`: LIO reads below the page cache, and there is nothing left in it that could differ.
fn open(device: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(device)
        .attempt(|| format!("open '{}' for writing", device.display()))
}
