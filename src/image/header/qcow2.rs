//! qcow2: QEMU's format, versions 2 and 3. The layout is qemu's `docs/interop/qcow2.txt`.

use super::look::{Look, be32, be64};
use crate::error::{Error, Result};

/// A version 2 header; and all that we read: a version 3 header.
const LEAST: usize = 72;
const HEADER: usize = 104;
/// Largest table of first-level entries that qemu accepts (`QCOW_MAX_L1_SIZE`), in bytes.
const LARGEST_L1: u64 = 32 << 20;

/// Returns the size of the disk in a file whose header is harmless.
pub(super) fn size(look: &Look) -> Result<u64> {
    let refuse = |why: &str| Err(Error::invalid(why));
    let header: [u8; LEAST] = look.at(0, "qcow2 header")?;
    let version = be32(&header, 4);
    if !matches!(version, 2 | 3) {
        return Err(Error::invalid(format!("its qcow2 header has version {version}")));
    }
    if be64(&header, 8) != 0 || be32(&header, 16) != 0 {
        return refuse("it has a backing file: flatten it first (qemu-img convert -O qcow2)");
    }
    if be32(&header, 32) != 0 {
        return refuse("it is encrypted");
    }
    if version == 3 {
        let header: [u8; HEADER] = look.at(0, "qcow2 header")?;
        features(be64(&header, 72))?;
    }
    let (cluster_bits, l1) = (be32(&header, 20), u64::from(be32(&header, 36)) * 8);
    if !(9..=21).contains(&cluster_bits) || l1 > LARGEST_L1 {
        return Err(Error::invalid(format!(
            "its qcow2 header is damaged (cluster bits {cluster_bits}, first table {l1} bytes)"
        )));
    }
    whole(look, be64(&header, 40), l1)?;
    Ok(be64(&header, 24))
}

/// Refuses a file that ends before its first table does: what follows from that table can only be missing too.
fn whole(look: &Look, table: u64, len: u64) -> Result<()> {
    match table.checked_add(len) {
        Some(end) if end <= look.len() => Ok(()),
        _ => Err(Error::invalid("its first table lies beyond its end: the file is cut short")),
    }
}

/// Refuses incompatible features of a version 3 header that we do not want or do not know.
fn features(bits: u64) -> Result<()> {
    const DIRTY: u64 = 1;
    const CORRUPT: u64 = 1 << 1;
    const DATA_FILE: u64 = 1 << 2;
    const COMPRESSION_TYPE: u64 = 1 << 3;
    const EXTENDED_L2: u64 = 1 << 4;
    let why = match bits {
        bits if bits & DATA_FILE != 0 => "its data is in an external data file".into(),
        bits if bits & (DIRTY | CORRUPT) != 0 => {
            "it was not closed cleanly or is damaged: repair it first (qemu-img check -r all)".into()
        }
        bits if bits & !(COMPRESSION_TYPE | EXTENDED_L2) != 0 => {
            format!("it needs features that are not known (bits {bits:#x})")
        }
        _ => return Ok(()),
    };
    Err(Error::invalid(why))
}
