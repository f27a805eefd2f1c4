//! Screens an image before any other program opens it: which format, how large, and nothing in it that points outside.
//!
//! A qcow2 file may name a backing file or a data file, and qemu-img would copy that host file into the image
//! (CVE-2024-32498 is of this kind). So the header is read here first, by some lines that allocate nothing and follow
//! nothing, and the format found here is the one that qemu-img is told; it never probes. The layout is qemu's
//! `docs/interop/qcow2.txt`.

use std::{fmt, fs::File, io::Read, path::Path, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Context, Error, Result},
    host::disk::gpt,
    model::Bytes,
};

/// How an image is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// The disk's bytes.
    Raw,
    /// QEMU's copy-on-write format, versions 2 and 3.
    Qcow2,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        })
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "raw" => Ok(Self::Raw),
            "qcow2" => Ok(Self::Qcow2),
            other => Err(Error::invalid(format!("'{}' is not a format of images", other.escape_debug()))),
        }
    }
}

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Screened {
    /// How the image is stored.
    pub format: Format,
    /// The size of the disk in it.
    pub virtual_size: Bytes,
}

/// The largest disk that an image may describe. Nobody boots a blade from more, and a forged size stays harmless.
const LARGEST: Bytes = Bytes::gib(8 << 10);
/// The least that both formats have: a version 2 header; and all that we read: a version 3 header.
const LEAST: usize = 72;
const HEADER: usize = 104;
/// Largest table of first-level entries that qemu accepts (`QCOW_MAX_L1_SIZE`), in bytes.
const LARGEST_L1: u64 = 32 << 20;

/// Other formats that people hand us, by their first bytes, with what to do.
const OTHERS: [(&[u8], &str); 7] = [
    (b"KDMV", "a VMDK disk: convert it first (qemu-img convert -O qcow2)"),
    (b"vhdxfile", "a VHDX disk: convert it first (qemu-img convert -O qcow2)"),
    (b"conectix", "a VHD disk: convert it first (qemu-img convert -O qcow2)"),
    (&[0x1f, 0x8b], "compressed (gzip): unpack it first"),
    (b"\xfd7zXZ\0", "compressed (xz): unpack it first"),
    (b"BZh", "compressed (bzip2): unpack it first"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "compressed (zstd): unpack it first"),
];

/// Returns the image's format and size, or refuses it with the reason.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid) for what no blade can boot from or what reaches outside of the file;
/// else the failing system call.
pub fn screen(path: &Path) -> Result<Screened> {
    let shown = path.display();
    let found = path.metadata().attempt(|| format!("look at '{shown}'"))?;
    if !found.is_file() {
        return Err(Error::invalid(format!("'{shown}' is not a file")));
    }
    let file = File::open(path).attempt(|| format!("open '{shown}'"))?;
    let mut start = vec![];
    file.take(HEADER as u64).read_to_end(&mut start).attempt(|| format!("read '{shown}'"))?;
    let screened = if start.starts_with(b"QFI\xfb") {
        qcow2(&start).map(|virtual_size| Screened { format: Format::Qcow2, virtual_size })
    } else {
        raw(&start, found.len()).and_then(|virtual_size| {
            gpt::check(path)?;
            Ok(Screened { format: Format::Raw, virtual_size })
        })
    };
    screened.map_err(|e| e.while_doing(format!("accept image '{shown}'")))
}

/// Returns the size of a raw disk.
fn raw(start: &[u8], len: u64) -> Result<Bytes> {
    if let Some((_, what)) = OTHERS.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Err(Error::invalid(format!("it is {what}")));
    }
    bootable_size(len)
}

/// Returns the size of the disk in a qcow2 file whose header is harmless.
fn qcow2(header: &[u8]) -> Result<Bytes> {
    let refuse = |why: String| Err(Error::invalid(why));
    if header.len() < LEAST {
        return refuse("its qcow2 header is cut short".into());
    }
    let version = u32_at(header, 4);
    if !matches!(version, 2 | 3) || (version == 3 && header.len() < HEADER) {
        return refuse(format!("its qcow2 header has version {version}, or is cut short"));
    }
    if u64_at(header, 8) != 0 || u32_at(header, 16) != 0 {
        return refuse("it has a backing file: flatten it first (qemu-img convert -O qcow2)".into());
    }
    if u32_at(header, 32) != 0 {
        return refuse("it is encrypted".into());
    }
    if version == 3 {
        features(u64_at(header, 72))?;
    }
    let (cluster_bits, l1) = (u32_at(header, 20), u64::from(u32_at(header, 36)) * 8);
    if !(9..=21).contains(&cluster_bits) || l1 > LARGEST_L1 {
        return refuse(format!(
            "its qcow2 header is damaged (cluster bits {cluster_bits}, first table {l1} bytes)"
        ));
    }
    bootable_size(u64_at(header, 24))
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

/// Returns the size as one that a disk can have.
fn bootable_size(len: u64) -> Result<Bytes> {
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

/// Returns the big-endian number at a place that has been checked to be inside.
fn u32_at(header: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(header: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(header[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Returns a version 3 header of a 1 GiB disk, as `qemu-img create` writes it, with some bytes put elsewhere.
    fn header(changes: &[(usize, &[u8])]) -> Vec<u8> {
        let mut h = vec![0; 512];
        h[..4].copy_from_slice(b"QFI\xfb");
        let mut put = |at: usize, bytes: &[u8]| h[at..at + bytes.len()].copy_from_slice(bytes);
        put(4, &3_u32.to_be_bytes());
        put(20, &16_u32.to_be_bytes());
        put(24, &(1_u64 << 30).to_be_bytes());
        put(36, &2_u32.to_be_bytes());
        put(100, &112_u32.to_be_bytes());
        changes.iter().for_each(|(at, bytes)| put(*at, bytes));
        h
    }

    fn file(bytes: &[u8], len: u64) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file.as_file().set_len(len).unwrap();
        file
    }

    fn refusal(bytes: &[u8], len: u64) -> String {
        let error = screen(file(bytes, len).path()).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Invalid, "{}", error.chain());
        error.chain()
    }

    #[test]
    fn a_plain_qcow2_of_either_version_is_accepted_with_its_size() {
        for version in [2_u32, 3] {
            let found = screen(file(&header(&[(4, &version.to_be_bytes())]), 196_624).path()).unwrap();
            assert_eq!(found, Screened { format: Format::Qcow2, virtual_size: Bytes::gib(1) });
        }
        // Compressed with zstd, and with extended L2 entries.
        assert!(screen(file(&header(&[(79, &[0b1_1000])]), 196_624).path()).is_ok());
    }

    #[test]
    fn what_reaches_outside_of_the_file_is_refused() {
        assert!(refusal(&header(&[(8, &[0, 0, 0, 0, 0, 0, 2, 0])]), 4096).contains("backing file"));
        assert!(refusal(&header(&[(19, &[9])]), 4096).contains("backing file"));
        assert!(refusal(&header(&[(79, &[4])]), 4096).contains("external data file"));
        assert!(refusal(&header(&[(35, &[2])]), 4096).contains("encrypted"));
    }

    #[test]
    fn absurd_and_damaged_headers_are_refused() {
        assert!(refusal(&header(&[(24, &[0x7f; 8])]), 4096).contains("512-byte sectors"));
        assert!(refusal(&header(&[(24, &(1_u64 << 60).to_be_bytes())]), 4096).contains("larger than"));
        assert!(refusal(&header(&[(24, &[0; 8])]), 4096).contains("empty"));
        assert!(refusal(&header(&[(36, &[0xff; 4])]), 4096).contains("damaged"));
        assert!(refusal(&header(&[(23, &[63])]), 4096).contains("damaged"));
        assert!(refusal(&header(&[(7, &[9])]), 4096).contains("version 9"));
        assert!(refusal(&header(&[(79, &[1])]), 4096).contains("qemu-img check"));
        assert!(refusal(&header(&[(72, &[0x80])]), 4096).contains("not known"));
    }

    #[test]
    fn a_header_that_is_cut_short_anywhere_is_refused() {
        let whole = header(&[]);
        for len in 4..HEADER {
            let text = refusal(&whole[..len], len as u64);
            assert!(text.contains("cut short"), "{len}: {text}");
        }
        assert!(refusal(b"", 0).contains("empty"));
        assert!(refusal(b"QF", 2).contains("cut short"));
    }

    #[test]
    fn a_raw_disk_needs_whole_sectors_and_a_gpt() {
        assert!(refusal(b"x", 1000).contains("512-byte sectors"));
        assert!(refusal(b"x", 1 << 20).contains("no GUID partition table"));
        let mut disk = tempfile::NamedTempFile::new().unwrap();
        disk.as_file().set_len(64 << 20).unwrap();
        let mut table = gptman::GPT::new_from(disk.as_file_mut(), 512, [7; 16]).unwrap();
        table.write_into(disk.as_file_mut()).unwrap();
        assert!(screen(disk.path()).unwrap_err().chain().contains("without partitions"));
        table[1] = gptman::GPTPartitionEntry {
            partition_type_guid: [1; 16],
            unique_partition_guid: [1; 16],
            starting_lba: 2048,
            ending_lba: 4095,
            ..gptman::GPTPartitionEntry::empty()
        };
        table.write_into(disk.as_file_mut()).unwrap();
        let found = screen(disk.path()).unwrap();
        assert_eq!(found, Screened { format: Format::Raw, virtual_size: Bytes::mib(64) });
    }

    #[test]
    fn other_formats_are_refused_with_what_to_do() {
        assert!(refusal(b"KDMV", 1024).contains("VMDK"));
        assert!(refusal(&[0x1f, 0x8b, 8], 1024).contains("unpack it first"));
        let error = screen(Path::new("/dev/null")).unwrap_err();
        assert!(error.to_string().contains("not a file"));
        assert_eq!(screen(Path::new("/nowhere.img")).unwrap_err().kind(), crate::error::Kind::Missing);
    }

    #[test]
    fn formats_read_back_as_what_was_written() {
        for format in [Format::Raw, Format::Qcow2] {
            assert_eq!(format.to_string().parse::<Format>().unwrap(), format);
        }
        assert!("vmdk".parse::<Format>().is_err());
    }
}
