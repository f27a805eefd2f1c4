//! VHD, which qemu calls vpc: Virtual PC's, older Hyper-V's and Azure's format. A footer of 512 bytes ends the file; a
//! dynamic disk has a copy of it at its beginning.
//!
//! There are two sizes in it, and programs disagree on which counts. We take the exact one ("current size"), and qemu is
//! told to do the same.

use super::look::{Look, be32, be64};
use crate::error::{Error, Result};

/// What a footer begins with.
pub(super) const COOKIE: &[u8] = b"conectix";
const FOOTER: u64 = 512;
const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;

/// Returns whether the file ends with a footer: a fixed disk is nothing but its bytes and that.
pub(super) fn has_footer(look: &Look) -> bool {
    footer(look).is_ok_and(|footer| footer.starts_with(COOKIE))
}

fn footer(look: &Look) -> Result<[u8; FOOTER as usize]> {
    let at = look.len().checked_sub(FOOTER).ok_or_else(|| Error::invalid("its VHD footer is cut short"))?;
    look.at(at, "VHD footer")
}

/// Returns the size of the disk in a file whose footer is harmless.
pub(super) fn size(look: &Look) -> Result<u64> {
    let mut footer = footer(look)?;
    if !footer.starts_with(COOKIE) {
        // What is at the beginning is a copy; a file without its end lacks blocks, too.
        return Err(Error::invalid("its VHD footer is missing: the file is cut short"));
    }
    let copy: [u8; FOOTER as usize] = look.at(0, "VHD footer")?;
    if copy.starts_with(COOKIE) {
        footer = copy;
    }
    let (kind, size) = (be32(&footer, 60), be64(&footer, 48));
    match kind {
        FIXED if size.checked_add(FOOTER).is_none_or(|end| end > look.len()) => {
            Err(Error::invalid("its VHD disk is cut short"))
        }
        FIXED => Ok(size),
        DYNAMIC => {
            let head: [u8; 8] = look.at(be64(&footer, 16), "VHD header")?;
            if head == *b"cxsparse" { Ok(size) } else { Err(Error::invalid("its VHD header is damaged")) }
        }
        _ => Err(Error::invalid("it is a differencing VHD disk with a parent: merge it first (Merge-VHD)")),
    }
}
