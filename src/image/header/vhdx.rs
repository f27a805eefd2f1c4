//! VHDX: Hyper-V's format. The layout is Microsoft's [MS-VHDX].
//!
//! A file identifier, two headers and two copies of a table of regions lie at fixed places; one region is a table of
//! metadata items, among them the disk's size. qemu's driver goes by the first copy of the regions; so do we.

use super::look::{Look, le16, le32, le64};
use crate::error::{Error, Result};

const REGIONS_AT: u64 = 192 << 10;
/// The regions and the metadata lie behind all that is at fixed places.
const FIXED: u64 = 1 << 20;
/// Most entries of either table.
const MOST: u32 = 2047;
/// The ids, as they stand in the file.
const METADATA: [u8; 16] = guid("8b7ca20647904b9ab8fe575f050f886e");
const PARAMETERS: [u8; 16] = guid("caa16737fa364d43b3b633f0aa44e76b");
const DISK_SIZE: [u8; 16] = guid("2fa54224cd1b4876b2115dbed83bf4b8");
const SECTOR_SIZE: [u8; 16] = guid("8141bf1da96f4709ba47f233a8faab5f");
const PARENT: [u8; 16] = guid("a8d35f2db30b454dabf7d3d84834ab0c");
const HAS_PARENT: u32 = 2;

/// Returns the size of the disk in a file whose metadata are harmless.
pub(super) fn size(look: &Look) -> Result<u64> {
    let table = metadata_at(look)?;
    let head: [u8; 32] = look.at(table, "VHDX metadata")?;
    let count = le16(&head, 10);
    if !head.starts_with(b"metadata") || u32::from(count) > MOST {
        return Err(damaged("its table of metadata"));
    }
    let mut items = Items::default();
    for n in 0..u64::from(count) {
        let entry: [u8; 32] = look.at(table + 32 * (n + 1), "VHDX metadata")?;
        items.note(&entry)?;
    }
    items.size(look, table)
}

/// Where the items are that we read, behind the table's start.
#[derive(Default)]
struct Items {
    parameters: Option<u64>,
    size: Option<u64>,
    sector: Option<u64>,
}

impl Items {
    fn note(&mut self, entry: &[u8; 32]) -> Result<()> {
        let id = &entry[..16];
        if id == PARENT {
            return Err(has_parent());
        }
        let slot = match id {
            id if id == PARAMETERS => &mut self.parameters,
            id if id == DISK_SIZE => &mut self.size,
            id if id == SECTOR_SIZE => &mut self.sector,
            _ => return Ok(()),
        };
        match slot.replace(u64::from(le32(entry, 16))) {
            None => Ok(()),
            Some(_) => Err(damaged("it has an item of metadata twice")),
        }
    }

    fn size(&self, look: &Look, table: u64) -> Result<u64> {
        let at = |item: Option<u64>| {
            item.map(|offset| table + offset).ok_or_else(|| damaged("an item of metadata is missing"))
        };
        let parameters: [u8; 8] = look.at(at(self.parameters)?, "VHDX metadata")?;
        if le32(&parameters, 4) & HAS_PARENT != 0 {
            return Err(has_parent());
        }
        let sector = le32(&look.at::<4>(at(self.sector)?, "VHDX metadata")?, 0);
        if sector != 512 {
            return Err(Error::invalid(format!(
                "its disk has sectors of {sector} bytes; a blade's has 512: copy it to such a disk first"
            )));
        }
        Ok(le64(&look.at::<8>(at(self.size)?, "VHDX metadata")?, 0))
    }
}

/// Returns where the table of metadata is.
fn metadata_at(look: &Look) -> Result<u64> {
    let head: [u8; 16] = look.at(REGIONS_AT, "VHDX table of regions")?;
    let count = le32(&head, 8);
    if !head.starts_with(b"regi") || count > MOST {
        return Err(damaged("its table of regions"));
    }
    let mut found = None;
    for n in 0..u64::from(count) {
        let entry: [u8; 32] = look.at(REGIONS_AT + 16 + 32 * n, "VHDX table of regions")?;
        if entry[..16] == METADATA && found.replace(le64(&entry, 16)).is_some() {
            return Err(damaged("it has two tables of metadata"));
        }
    }
    // Far below where an offset could wrap.
    found.filter(|at| (FIXED..1 << 62).contains(at)).ok_or_else(|| damaged("its metadata are missing"))
}

fn damaged(what: &str) -> Error {
    Error::invalid(format!("its VHDX header is damaged: {what}"))
}

fn has_parent() -> Error {
    Error::invalid("it is a differencing disk with a parent: merge it first (Merge-VHD)")
}

/// Returns an id as the file has it: its first three fields little-endian.
const fn guid(hex: &str) -> [u8; 16] {
    const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let (digits, mut id, mut n) = (hex.as_bytes(), [0; 16], 0);
    while n < 16 {
        let at = 2 * ORDER[n];
        id[n] = digit(digits[at]) * 16 + digit(digits[at + 1]);
        n += 1;
    }
    id
}

const fn digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        _ => byte - b'a' + 10,
    }
}
