//! Screens an image before any other program opens it: which format, how large, and nothing in it that points outside.
//!
//! Formats of disks may name other files: a backing file, a data file, a parent, extents. qemu-img would copy those host
//! files into the image (CVE-2024-32498 is of this kind). So the header is read here first, by some lines that allocate
//! nothing and follow nothing, and the format found here is the one that qemu-img is told; it never probes. What is read
//! is what qemu's own driver of the format goes by; a file per format.
//!
//! What is packed (gz, xz, zst, bz2) is only named here: what is in it shows when it is unpacked (`unpack`).

mod look;
mod qcow2;
mod vdi;
mod vhdx;
mod vmdk;
mod vpc;

use std::{fmt, fs::File, path::Path, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    host::{cmd::Tool, disk::gpt},
    model::Bytes,
};
pub(super) use look::Look;
use look::le32;

/// How an image is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// The disk's bytes.
    Raw,
    /// QEMU's copy-on-write format, versions 2 and 3.
    Qcow2,
    /// VMware's, in one file: `monolithicSparse` and `streamOptimized`.
    Vmdk,
    /// Hyper-V's.
    Vhdx,
    /// VirtualBox's.
    Vdi,
    /// Virtual PC's and Azure's (VHD).
    Vpc,
}

/// All formats, by the words that are also the names of qemu's drivers.
const FORMATS: [(Format, &str); 6] = [
    (Format::Raw, "raw"),
    (Format::Qcow2, "qcow2"),
    (Format::Vmdk, "vmdk"),
    (Format::Vhdx, "vhdx"),
    (Format::Vdi, "vdi"),
    (Format::Vpc, "vpc"),
];

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(word_of(&FORMATS, *self))
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        of_word(&FORMATS, text).ok_or_else(|| unknown(text, "a format of images"))
    }
}

/// What a raw image is packed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Packing {
    /// gzip.
    Gz,
    /// xz.
    Xz,
    /// Zstandard.
    Zst,
    /// bzip2.
    Bz2,
}

/// All packings, by the words that file names end with.
const PACKINGS: [(Packing, &str); 4] =
    [(Packing::Gz, "gz"), (Packing::Xz, "xz"), (Packing::Zst, "zst"), (Packing::Bz2, "bz2")];

impl Packing {
    /// Returns the program that unpacks it.
    pub fn tool(self) -> Tool {
        match self {
            Self::Gz => Tool::Gzip,
            Self::Xz => Tool::Xz,
            Self::Zst => Tool::Zstd,
            Self::Bz2 => Tool::Bzip2,
        }
    }
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(word_of(&PACKINGS, *self))
    }
}

impl FromStr for Packing {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        of_word(&PACKINGS, text).ok_or_else(|| unknown(text, "a packing of images"))
    }
}

fn word_of<T: PartialEq + Copy>(table: &[(T, &'static str)], value: T) -> &'static str {
    table.iter().find(|row| row.0 == value).map(|row| row.1).expect("a test walks the table")
}

fn of_word<T: Copy>(table: &[(T, &'static str)], word: &str) -> Option<T> {
    table.iter().find(|row| row.1 == word).map(|row| row.0)
}

fn unknown(text: &str, what: &str) -> Error {
    Error::invalid(format!("'{}' is not {what}", text.escape_debug()))
}

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Screened {
    /// A disk.
    Disk {
        /// How it is stored.
        format: Format,
        /// Its size.
        virtual_size: Bytes,
    },
    /// Something packed: a raw disk, or it will be refused.
    Packed {
        /// What with.
        packing: Packing,
        /// The size of the file.
        size: Bytes,
    },
}

/// The largest disk that an image may describe. Nobody boots a blade from more, and a forged size stays harmless.
pub const LARGEST: Bytes = Bytes::gib(8 << 10);

/// What the first bytes of a file say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Magic {
    Format(Format),
    Packing(Packing),
    /// Something else that people hand us, with what to do.
    Other(&'static str),
}

/// As many of a file's first bytes as [`magic`] looks at.
pub(super) const START: usize = 512;

/// What files begin with.
const MAGICS: [(&[u8], Magic); 12] = [
    (b"QFI\xfb", Magic::Format(Format::Qcow2)),
    (b"KDMV", Magic::Format(Format::Vmdk)),
    (b"vhdxfile", Magic::Format(Format::Vhdx)),
    (vpc::COOKIE, Magic::Format(Format::Vpc)),
    (&[0x1f, 0x8b], Magic::Packing(Packing::Gz)),
    (b"\xfd7zXZ\0", Magic::Packing(Packing::Xz)),
    (&[0x28, 0xb5, 0x2f, 0xfd], Magic::Packing(Packing::Zst)),
    (b"BZh", Magic::Packing(Packing::Bz2)),
    (b"COWD", Magic::Other("an extent of an old VMDK disk: convert it first (qemu-img convert -O qcow2)")),
    (
        b"# Disk DescriptorFile",
        Magic::Other(
            "the description of a VMDK disk, whose data is in other files: \
      convert it first (qemu-img convert -O qcow2)",
        ),
    ),
    (b"PK\x03\x04", Magic::Other("a zip archive: unpack it first")),
    (b"7z\xbc\xaf\x27\x1c", Magic::Other("a 7z archive: unpack it first")),
];

/// Where a tar archive has its magic, and an OVA with it.
const TAR: (usize, &[u8]) = (257, b"ustar");

/// Returns what a file of this beginning is; `None` where it looks like nothing but a disk.
fn magic(start: &[u8]) -> Option<Magic> {
    let begins = MAGICS.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, what)| *what);
    let vdi = || {
        let found = start.get(vdi::SIGNATURE_AT..vdi::SIGNATURE_AT + 4)?;
        (le32(found, 0) == vdi::SIGNATURE).then_some(Magic::Format(Format::Vdi))
    };
    let tar = || {
        let found = start.get(TAR.0..TAR.0 + TAR.1.len())?;
        (found == TAR.1)
            .then_some(Magic::Other("an archive (tar, OVA): unpack it, and import the disk in it"))
    };
    begins.or_else(vdi).or_else(tar)
}

/// Returns the image's format and size, or refuses it with the reason.
///
/// A block device is a raw disk, whatever its first bytes are: somebody else has written them.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid) for what no blade can boot from or what reaches outside of the file;
/// else the failing system call.
pub fn screen(path: &Path) -> Result<Screened> {
    Look::open(path)?.screen(path)
}

impl Look {
    /// Screens what is open, as [`screen`] does; `path` is what errors call it.
    pub(super) fn screen(&self, path: &Path) -> Result<Screened> {
        let screened = if self.is_device() { raw(self, path) } else { recognise(self, path) };
        screened.map_err(|e| e.while_doing(format!("accept image '{}'", path.display())))
    }
}

fn recognise(look: &Look, path: &Path) -> Result<Screened> {
    let mut start = [0; START];
    let found = look.start(&mut start)?;
    match magic(&start[..found]) {
        Some(Magic::Other(what)) => Err(Error::invalid(format!("it is {what}"))),
        Some(Magic::Packing(packing)) => Ok(Screened::Packed { packing, size: Bytes(look.len()) }),
        Some(Magic::Format(format)) => of_format(look, format),
        None if vpc::has_footer(look) => of_format(look, Format::Vpc),
        None => raw(look, path),
    }
}

fn of_format(look: &Look, format: Format) -> Result<Screened> {
    let size = match format {
        Format::Raw => Ok(look.len()),
        Format::Qcow2 => qcow2::size(look),
        Format::Vmdk => vmdk::size(look),
        Format::Vhdx => vhdx::size(look),
        Format::Vdi => vdi::size(look),
        Format::Vpc => vpc::size(look),
    };
    Ok(Screened::Disk { format, virtual_size: bootable_size(size?)? })
}

fn raw(look: &Look, path: &Path) -> Result<Screened> {
    let screened = of_format(look, Format::Raw)?;
    gpt::check_open(look.file(), path)?;
    Ok(screened)
}

/// Returns whether a file with these first and last sectors looks like nothing but a disk's bytes.
pub(super) fn looks_raw(start: &[u8], end: &[u8]) -> bool {
    magic(start).is_none() && !end.starts_with(vpc::COOKIE)
}

/// Refuses the beginning of something unpacked that is anything but a raw disk.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid), with what it is.
pub(super) fn only_raw(start: &[u8]) -> Result<()> {
    match magic(start) {
        None => Ok(()),
        Some(Magic::Other(what)) => Err(Error::invalid(format!("what is packed in it is {what}"))),
        Some(Magic::Format(format)) => {
            Err(Error::invalid(format!("a {format} disk is packed in it, not a raw one: unpack it first")))
        }
        Some(Magic::Packing(packing)) => {
            Err(Error::invalid(format!("it is packed twice ({packing} inside): unpack it first")))
        }
    }
}

/// Returns the size as one that a disk can have.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid) for an empty one, one that is cut short, and an absurd one.
pub fn bootable_size(len: u64) -> Result<Bytes> {
    if len == 0 {
        return Err(Error::invalid("it is empty"));
    }
    if !len.is_multiple_of(512) {
        return Err(Error::invalid(format!(
            "its {len} bytes are no whole number of 512-byte sectors: cut short?"
        )));
    }
    if len > LARGEST.0 {
        let (len, most) = (Bytes(len).human(), LARGEST.human());
        return Err(Error::invalid(format!("its disk of {len} is larger than {most}")));
    }
    Ok(Bytes(len))
}

/// Opens what is to be read: a file or a block device, nothing that could block or answer differently each time.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid) for anything else; else the failing system call.
pub(super) fn open(path: &Path) -> Result<File> {
    Look::open(path).map(Look::into_file)
}

#[cfg(test)]
mod tests;
