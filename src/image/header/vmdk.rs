//! VMDK: VMware's format, where it is one sparse file with its description in it (`monolithicSparse`, and what OVAs
//! have: `streamOptimized`). The layout is VMware's "Virtual Disk Format 5.0".
//!
//! A description may name a parent and any number of other files as extents, and qemu's driver opens them. It looks for
//! a parent in the sectors behind the header, wherever the header says that the description is; for a disk without a
//! size it goes by the description alone. Both are refused.

use super::look::{Look, le16, le32, le64};
use crate::error::{Error, Result};

const SECTOR: u64 = 512;
const HEADER: usize = 512;
/// Where qemu's driver looks for the description, and how far.
const DESCRIPTION_AT: u64 = SECTOR;
const DESCRIPTION: usize = 20 * 512;
/// "The tables are at the file's end, and so is another header."
const AT_END: u64 = u64::MAX;
/// Largest grain, in sectors, and largest first table, in entries, that qemu accepts.
const LARGEST_GRAIN: u64 = 0x20_0000;
const LARGEST_TABLE: u64 = 512 << 20;

/// The numbers of a header.
struct Header {
    capacity: u64,
    grain: u64,
    description: (u64, u64),
    entries: u64,
    tables: u64,
    overhead: u64,
}

/// Returns the size of the disk in a file whose header and description are harmless.
pub(super) fn size(look: &Look) -> Result<u64> {
    let header = read(&look.at(0, "VMDK header")?)?;
    if header.capacity == 0 || header.description.0 == 0 {
        return Err(Error::invalid(
            "its VMDK header is only a part of a disk in several files: convert the whole disk first \
             (qemu-img convert -O qcow2)",
        ));
    }
    if header.description.0 != DESCRIPTION_AT / SECTOR || header.description.1 > DESCRIPTION as u64 / SECTOR {
        return Err(Error::invalid("its VMDK description is not where every program puts it"));
    }
    describe(&look.at::<DESCRIPTION>(DESCRIPTION_AT, "VMDK description")?)?;
    sane(&header)?;
    if header.tables == AT_END {
        footer(look, header.capacity)?;
    }
    if header.overhead.checked_mul(SECTOR).is_none_or(|end| end > look.len()) {
        return Err(Error::invalid("its VMDK tables are cut short"));
    }
    capacity(&header)
}

fn capacity(header: &Header) -> Result<u64> {
    let size = header.capacity.checked_mul(SECTOR);
    size.ok_or_else(|| Error::invalid("its VMDK header is damaged (no disk is so large)"))
}

fn read(bytes: &[u8; HEADER]) -> Result<Header> {
    let (version, compression) = (le32(bytes, 4), le16(bytes, 77));
    if !(1..=3).contains(&version) || compression > 1 {
        return Err(Error::invalid(format!(
            "its VMDK header has version {version} and compression {compression}, which are not known"
        )));
    }
    // Line ends that a transfer as text has changed; qemu does not look at them.
    if bytes[73..77] != *b"\n \r\n" {
        return Err(Error::invalid("its VMDK header is damaged: was it transferred as text?"));
    }
    Ok(Header {
        capacity: le64(bytes, 12),
        grain: le64(bytes, 20),
        description: (le64(bytes, 28), le64(bytes, 36)),
        entries: u64::from(le32(bytes, 44)),
        tables: le64(bytes, 56),
        overhead: le64(bytes, 64),
    })
}

/// Refuses what qemu refuses, before it allocates by these numbers.
fn sane(header: &Header) -> Result<()> {
    let covered = header.entries.checked_mul(header.grain).filter(|sectors| *sectors > 0);
    let tables = covered.map(|sectors| header.capacity.div_ceil(sectors));
    if header.grain > LARGEST_GRAIN || tables.is_none_or(|tables| tables > LARGEST_TABLE / 4) {
        return Err(Error::invalid("its VMDK header is damaged (grains or tables of an absurd size)"));
    }
    Ok(())
}

/// Looks at the second header of a streamed disk: qemu goes by that one.
fn footer(look: &Look, capacity: u64) -> Result<()> {
    let cut_short = || Error::invalid("its VMDK footer is missing: the file is cut short");
    let at = look.len().checked_sub(2 * SECTOR).filter(|at| at % SECTOR == 0).ok_or_else(cut_short)?;
    let bytes: [u8; HEADER] = look.at(at, "VMDK footer")?;
    if !bytes.starts_with(b"KDMV") {
        return Err(cut_short());
    }
    let footer = read(&bytes)?;
    if footer.capacity != capacity || footer.tables == AT_END {
        return Err(Error::invalid("its VMDK header and footer disagree"));
    }
    sane(&footer)
}

/// Refuses a description with a parent, with several extents, or of a kind that has them.
fn describe(text: &[u8; DESCRIPTION]) -> Result<()> {
    if contains(text, b"parentFileNameHint") {
        return Err(Error::invalid("it has a parent disk: flatten it first (qemu-img convert -O qcow2)"));
    }
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    let (mut kind, mut extents) = (None, 0);
    for line in text[..end].split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
        match line {
            line if line.starts_with(b"createType") => kind = Some(value(line)),
            line if line.starts_with(b"parentCID") && !value(line).eq_ignore_ascii_case(b"ffffffff") => {
                return Err(Error::invalid(
                    "it has a parent disk: flatten it first (qemu-img convert -O qcow2)",
                ));
            }
            line if is_extent(line) => extents += 1,
            _ => {}
        }
    }
    let known = kind.is_some_and(|kind| kind == b"monolithicSparse" || kind == b"streamOptimized");
    if !known || extents > 1 {
        let kind = String::from_utf8_lossy(kind.unwrap_or(b"unknown")).chars().take(40).collect::<String>();
        return Err(Error::invalid(format!(
            "it is a VMDK disk of kind '{}' with {extents} extents: only one sparse file is taken \
             (qemu-img convert -O qcow2)",
            kind.escape_debug()
        )));
    }
    Ok(())
}

fn is_extent(line: &[u8]) -> bool {
    [b"RW ".as_slice(), b"RDONLY ", b"NOACCESS "].iter().any(|access| line.starts_with(access))
}

/// Returns what stands behind `=`, without its quotation marks.
fn value(line: &[u8]) -> &[u8] {
    let at = line.iter().position(|byte| *byte == b'=').map_or(line.len(), |at| at + 1);
    let value = line[at..].trim_ascii();
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part == word)
}
