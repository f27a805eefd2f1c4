//! VDI: VirtualBox's format, version 1.1: a header of one sector, a table of blocks, the blocks.

use super::look::{Look, le32, le64};
use crate::error::{Error, Result};

/// Where the signature is, behind a text for people.
pub(super) const SIGNATURE_AT: usize = 0x40;
pub(super) const SIGNATURE: u32 = 0xbeda_107f;
const HEADER: usize = 512;
const VERSION: u32 = 0x0001_0001;
/// Kinds of disks: dynamic and fixed. The others are differences to a parent.
const DYNAMIC: u32 = 1;
const FIXED: u32 = 2;
/// The size of blocks that every program makes and qemu's driver takes.
const BLOCK: u64 = 1 << 20;
/// From here on, entries of the table are words for blocks that are not there.
const NO_BLOCK: u64 = 0xffff_fffe;
const NOBODY: [u8; 16] = [0; 16];

/// Returns the size of the disk in a file whose header is harmless.
pub(super) fn size(look: &Look) -> Result<u64> {
    let header: [u8; HEADER] = look.at(0, "VDI header")?;
    let (version, kind) = (le32(&header, 0x44), le32(&header, 0x4c));
    if version != VERSION {
        return Err(Error::invalid(format!("its VDI header has version {version:#x}, not 1.1")));
    }
    let (link, parent) = (&header[0x1a8..0x1b8], &header[0x1b8..0x1c8]);
    if !matches!(kind, DYNAMIC | FIXED) || link != NOBODY || parent != NOBODY {
        return Err(Error::invalid(
            "it is a VDI disk with a parent, or a snapshot: clone it first (VBoxManage clonemedium)",
        ));
    }
    let (size, block, blocks) =
        (le64(&header, 0x170), u64::from(le32(&header, 0x178)), u64::from(le32(&header, 0x180)));
    let sector = le32(&header, 0x168);
    if sector != 512 || block != BLOCK || blocks.saturating_mul(BLOCK) < size {
        return Err(Error::invalid(format!(
            "its VDI header is damaged ({blocks} blocks of {block} bytes, sectors of {sector})"
        )));
    }
    let (table, data) = (u64::from(le32(&header, 0x154)), u64::from(le32(&header, 0x158)));
    whole(look, table, blocks, data)?;
    Ok(size)
}

/// Refuses a file that ends before its last block does: qemu reads zeros there and says nothing.
fn whole(look: &Look, table: u64, blocks: u64, data: u64) -> Result<()> {
    const PIECE: usize = 4096;
    let cut_short = || Error::invalid("its VDI blocks are cut short");
    let end = table + 4 * blocks;
    if end > look.len() {
        return Err(cut_short());
    }
    let (mut at, mut piece) = (table, [0; PIECE]);
    while at < end {
        let n = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
        look.fill(&mut piece[..n], at, "VDI table of blocks")?;
        let places = piece[..n].chunks_exact(4).map(|entry| u64::from(le32(entry, 0)));
        let last = places.filter(|place| *place < NO_BLOCK).max();
        if last.is_some_and(|last| data + (last + 1) * BLOCK > look.len()) {
            return Err(cut_short());
        }
        at += n as u64;
    }
    Ok(())
}
