//! A GUID partition table, read from a disk that nobody trusts and written so that a power cut cannot lose it.
//!
//! The header's numbers are screened before any library computes with them. The backup goes to the disk first: when the
//! write of the primary is torn, the next read finds the backup and goes on from there. What the partitions should be
//! is `gpt`'s.

use std::{
    fs::File,
    io::{Seek, SeekFrom},
    path::Path,
};

use gptman::{GPTHeader, GPTPartitionEntry};

use super::{
    SECTOR,
    buffer::{Window, read_at, size_of, write_difference},
    mbr,
};
use crate::{
    error::{Context, Error, Kind, Result},
    plan::Changed,
};

/// Sectors before the first partition: the protective MBR, the header, and up to 128 entries of 128 bytes.
pub(super) const HEAD: u64 = 34;
/// The most entries that fit there. Every tool makes 128.
const MAX_ENTRIES: u32 = 128;
/// Bytes of an entry.
const ENTRY: u32 = 128;
/// Where the MBR's four partition entries begin, and how long each is.
const MBR_ENTRIES: usize = 446;
const MBR_ENTRY: usize = 16;
/// The MBR's type for "the whole disk has a GPT".
const PROTECTIVE: u8 = 0xee;

/// A partition table in memory.
#[derive(Debug, Clone)]
pub(super) struct Table {
    /// The primary header, made to fit the disk as it is now.
    pub(super) header: GPTHeader,
    /// All entries, used or not.
    pub(super) entries: Vec<GPTPartitionEntry>,
    sectors: u64,
    head: Vec<u8>,
    name: String,
}

impl Table {
    /// Reads the table, from the backup at the disk's end when the primary is torn, and fits it to the disk's size.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where there is no table, or one that no careful tool would make.
    pub(super) fn read(file: &File, device: &Path) -> Result<Self> {
        let name = device.display().to_string();
        let attempt = || format!("read the partition table of '{name}'");
        let sectors = size_of(file).attempt(attempt)? / SECTOR;
        if sectors < 2 * HEAD {
            return Err(Error::invalid(format!("'{name}' is too small to hold a partition table")));
        }
        let head = read_at(file, 0, bytes(HEAD)).attempt(attempt)?;
        let found = parse(&head, 1, 0).or_else(|primary| {
            let start = sectors - (HEAD - 1);
            let tail = read_at(file, start * SECTOR, bytes(HEAD - 1)).attempt(attempt)?;
            parse(&tail, sectors - 1, start).map_err(|_| refusal(&name, &head, &primary))
        })?;
        let mut table = Self { header: found.0, entries: found.1, sectors, head, name };
        table.fit();
        table.check()?;
        Ok(table)
    }

    /// Returns a table that is to replace a master boot record, whose entries go and whose boot code stays.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where the partitions overlap or the disk is too small.
    pub(super) fn new(
        file: &File,
        device: &Path,
        (header, entries): (GPTHeader, Vec<GPTPartitionEntry>),
    ) -> Result<Self> {
        let name = device.display().to_string();
        let attempt = || format!("read the boot code of '{name}'");
        let sectors = size_of(file).attempt(attempt)? / SECTOR;
        let mut head = read_at(file, 0, bytes(HEAD)).attempt(attempt)?;
        head[MBR_ENTRIES..MBR_ENTRIES + 4 * MBR_ENTRY].fill(0);
        let mut table = Self { header, entries, sectors, head, name };
        table.fit();
        table.check()?;
        Ok(table)
    }

    /// Returns the last sector that a partition may use.
    pub(super) fn last_usable(&self) -> u64 {
        self.header.last_usable_lba
    }

    /// Writes the table with its backup and the protective MBR, as far as they are not there already.
    ///
    /// # Errors
    /// The failing system call; partitions that overlap are refused before anything is written.
    pub(super) fn write(&mut self, file: &File) -> Result<Changed> {
        self.check()?;
        let tail_start = self.last_usable() + 1;
        let (head, tail) = self.encode().map_err(|e| {
            Error::new(Kind::Failed, format!("encode the table of '{}'", self.name)).because(e)
        })?;
        let attempt = || format!("write the partition table of '{}'", self.name);
        let backup = write_difference(file, tail_start * SECTOR, &tail).attempt(attempt)?;
        let primary = write_difference(file, 0, &head).attempt(attempt)?;
        Ok(Changed::from_bool(backup || primary))
    }

    /// Makes the header fit the disk's size: the backup goes to the last sector.
    fn fit(&mut self) {
        let array = array_sectors(self.header.number_of_partition_entries);
        self.header.primary_lba = 1;
        self.header.partition_entry_lba = 2;
        self.header.backup_lba = self.sectors - 1;
        self.header.last_usable_lba = self.sectors - 2 - array;
    }

    /// Refuses partitions that overlap or leave the disk.
    fn check(&self) -> Result<()> {
        let mut free = 2 + array_sectors(self.header.number_of_partition_entries);
        let mut used: Vec<_> = self.entries.iter().filter(|entry| entry.is_used()).collect();
        used.sort_by_key(|entry| entry.starting_lba);
        for entry in used {
            let (start, end) = (entry.starting_lba, entry.ending_lba);
            if start < free || end < start || end > self.last_usable() {
                return Err(Error::invalid(format!(
                    "'{}' has a damaged partition table: sectors {start} to {end} overlap or are outside",
                    self.name
                )));
            }
            free = end + 1;
        }
        Ok(())
    }

    /// Returns the first sectors of the disk and the last ones, as they should be.
    fn encode(&mut self) -> gptman::Result<(Vec<u8>, Vec<u8>)> {
        let mut head = Window::new(0, self.head.clone());
        self.header.write_into(&mut head, SECTOR, &self.entries)?;
        let mut head = head.into_bytes();
        protect(&mut head, self.sectors);

        let start = self.last_usable() + 1;
        let mut backup = self.header.clone();
        (backup.primary_lba, backup.backup_lba) = (self.header.backup_lba, self.header.primary_lba);
        backup.partition_entry_lba = start;
        let mut tail = Window::new(start * SECTOR, vec![0; bytes(self.sectors - start)]);
        backup.write_into(&mut tail, SECTOR, &self.entries)?;
        Ok((head, tail.into_bytes()))
    }
}

/// Returns how many bytes so many sectors are; only ever asked for a table's few.
fn bytes(sectors: u64) -> usize {
    usize::try_from(sectors * SECTOR).expect("a table's sectors fit")
}

/// Returns how many sectors so many entries take.
fn array_sectors(entries: u32) -> u64 {
    (u64::from(entries) * u64::from(ENTRY)).div_ceil(SECTOR)
}

/// Reads the header at sector `lba` and its entries; `piece` holds the disk's content from sector `base` on.
///
/// Numbers that the library would multiply, allocate by or assert on are looked at first.
fn parse(piece: &[u8], lba: u64, base: u64) -> gptman::Result<(GPTHeader, Vec<GPTPartitionEntry>)> {
    // The library reads somewhat more than an entry's length: past the last one, there must be something.
    let padded = [piece, &[0; SECTOR as usize]].concat();
    let mut window = Window::new(base * SECTOR, padded);
    window.seek(SeekFrom::Start(lba * SECTOR))?;
    let header = GPTHeader::read_from(&mut window)?;
    let entries = header.number_of_partition_entries;
    let end = header.partition_entry_lba.checked_add(array_sectors(entries));
    let inside = header.partition_entry_lba >= base
        && end.is_some_and(|end| end <= base + piece.len() as u64 / SECTOR);
    if !(1..=MAX_ENTRIES).contains(&entries) || header.size_of_partition_entry != ENTRY || !inside {
        return Err(gptman::Error::InvalidHeaderSize);
    }
    let entries = header.read_partitions(&mut window, SECTOR)?;
    Ok((header, entries))
}

/// Returns why a disk without a readable table is refused.
fn refusal(name: &str, head: &[u8], primary: &gptman::Error) -> Error {
    let large = head.get(4096..4104) == Some(b"EFI PART".as_slice());
    Error::invalid(match primary {
        gptman::Error::InvalidSignature if large => {
            format!("'{name}' has a GPT with 4096-byte sectors; only 512-byte sectors are supported")
        }
        gptman::Error::InvalidSignature if mbr::is_mbr(&head[..512]) => {
            format!(
                "'{name}' has an MBR and no GUID partition table (GPT): 'sheath image seal' makes one of it"
            )
        }
        gptman::Error::InvalidSignature => {
            format!("'{name}' has no GUID partition table (GPT), which a blade's disk must have")
        }
        other => format!("'{name}' has a damaged GPT and no backup of it: {other}"),
    })
}

/// Puts the protective entry into the MBR, for as many sectors as an MBR can count. Boot code, disk signature and the
/// entry's boot flag stay; so does a hybrid MBR, which describes partitions of its own beside the protective one.
fn protect(mbr: &mut [u8], sectors: u64) {
    let at = |n: usize| MBR_ENTRIES + n * MBR_ENTRY;
    let kind = |mbr: &[u8], n: usize| mbr[at(n) + 4];
    if (0..4).any(|n| !matches!(kind(mbr, n), 0 | PROTECTIVE)) {
        return;
    }
    let slot = (0..4).find(|n| kind(mbr, *n) == PROTECTIVE).unwrap_or(0);
    let size = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    let entry = &mut mbr[at(slot)..at(slot) + MBR_ENTRY];
    entry[1..8].copy_from_slice(&[0, 2, 0, PROTECTIVE, 0xff, 0xff, 0xff]);
    entry[8..12].copy_from_slice(&1_u32.to_le_bytes());
    entry[12..].copy_from_slice(&size.to_le_bytes());
    mbr[510..512].copy_from_slice(&[0x55, 0xaa]);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use proptest::{
        collection::vec,
        prelude::{any, prop_assert, prop_oneof, proptest},
        strategy::{Just, Strategy},
    };

    use super::*;

    /// CRC-32 as GPT has it (UEFI specification, 5.3.2), bit by bit.
    fn crc(bytes: &[u8]) -> u32 {
        let turn =
            |crc: u32| (0..8).fold(crc, |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()));
        !bytes.iter().fold(!0, |crc, byte| turn(crc ^ u32::from(*byte)))
    }

    /// Numbers as they stand in tables, and any others.
    fn number(usual: u32) -> impl Strategy<Value = u32> {
        prop_oneof![Just(usual), 0_u32..512, any::<u32>()]
    }

    proptest! {
        /// Checksums that are right do not make the rest so.
        #[test]
        fn no_table_breaks_the_reader_however_well_it_is_signed(
            size in number(92),
            count in number(128),
            entry in number(ENTRY),
            places in (any::<u64>(), any::<u64>(), prop_oneof![Just(2_u64), 0_u64..40, any::<u64>()]),
            entries in prop_oneof![Just(vec![]), vec(any::<u8>(), 0..1024)],
        ) {
            let (first, last, array) = places;
            let mut disk = vec![0; 64 << 10];
            disk[1024..1024 + entries.len()].copy_from_slice(&entries);
            let length = (u64::from(count) * u64::from(entry)).min(32 << 10);
            let entries = crc(&disk[1024..1024 + usize::try_from(length).unwrap()]);
            let header = &mut disk[512..1024];
            header[..8].copy_from_slice(b"EFI PART");
            header[8..12].copy_from_slice(&0x1_0000_u32.to_le_bytes());
            header[12..16].copy_from_slice(&size.to_le_bytes());
            header[24..32].copy_from_slice(&1_u64.to_le_bytes());
            header[40..48].copy_from_slice(&first.to_le_bytes());
            header[48..56].copy_from_slice(&last.to_le_bytes());
            header[72..80].copy_from_slice(&array.to_le_bytes());
            header[80..84].copy_from_slice(&count.to_le_bytes());
            header[84..88].copy_from_slice(&entry.to_le_bytes());
            header[88..92].copy_from_slice(&entries.to_le_bytes());
            let signed = crc(&header[..usize::try_from(size).unwrap().min(512)]);
            header[16..20].copy_from_slice(&signed.to_le_bytes());
            let file = tempfile::tempfile().unwrap();
            file.set_len(1 << 20).unwrap();
            file.write_all_at(&disk, 0).unwrap();
            if let Ok(table) = Table::read(&file, Path::new("disk")) {
                prop_assert!(table.entries.len() <= MAX_ENTRIES as usize);
                prop_assert!(table.last_usable() < table.sectors);
            }
        }
    }

    #[test]
    fn the_checksum_is_the_one_that_tables_have() {
        assert_eq!(crc(b"123456789"), 0xcbf4_3926);
    }
}
