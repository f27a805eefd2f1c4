//! A master boot record and its extended partitions, read from a disk that nobody trusts. Never written: `convert` makes a
//! GPT of it.
//!
//! ```text
//! sector 0 │ boot code │ signature │ 4 entries │ 55 AA │      an entry: flag · type · first sector · sectors
//!                                       └ extended ─► sector n │ the logical one, from n on │ next, from the first n on │
//! ```

use std::{collections::BTreeSet, fs::File, io, path::Path};

use super::{
    SECTOR,
    buffer::{read_at, size_of},
};
use crate::error::{Context, Error, Result};

/// Where the entries begin, how long each is, and where the disk's signature stands.
const ENTRIES: usize = 446;
const ENTRY: usize = 16;
const DISK_ID: usize = 440;
/// The type that says that the disk has a GPT.
const PROTECTIVE: u8 = 0xee;
/// The types of an extended partition: CHS, LBA, Linux.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
/// The number of the first logical partition.
const FIRST_LOGICAL: u32 = 5;
/// More logical partitions than Linux itself takes are a loop.
const MOST_LOGICAL: u32 = 60;

/// Linux swap.
pub(super) const SWAP: u8 = 0x82;

/// A partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its number, as Linux counts: logical ones from 5 on.
    pub(super) number: u32,
    /// Its type.
    pub(super) kind: u8,
    /// Its first sector.
    pub(super) start: u64,
    /// Its last sector.
    pub(super) end: u64,
}

/// The partitions of a disk, in the order in which they lie on it; extended ones are not among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mbr {
    /// The disk's signature.
    pub(super) id: u32,
    /// The partitions.
    pub(super) entries: Vec<Entry>,
}

/// A raw entry: type, first sector, sectors.
type Raw = (u8, u64, u64);

/// Returns the entries of a sector, or `None` where it is no partition table: a file system's first sector ends alike.
fn raw(sector: &[u8]) -> Option<[Raw; 4]> {
    if sector.get(510..512) != Some(&[0x55, 0xaa]) {
        return None;
    }
    let mut found = [(0, 0, 0); 4];
    for (n, raw) in found.iter_mut().enumerate() {
        let entry = sector.get(ENTRIES + n * ENTRY..ENTRIES + (n + 1) * ENTRY)?;
        if !matches!(entry[0], 0 | 0x80) {
            return None;
        }
        let number = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().expect("four bytes"));
        *raw = (entry[4], u64::from(number(8)), u64::from(number(12)));
    }
    Some(found)
}

fn is_used(raw: &Raw) -> bool {
    raw.0 != 0 && raw.2 != 0
}

/// Returns whether the first sector is a master boot record with a partition in it, and speaks of no GPT.
pub(super) fn is_mbr(sector: &[u8]) -> bool {
    raw(sector).is_some_and(|all| all.iter().any(is_used) && all.iter().all(|raw| raw.0 != PROTECTIVE))
}

/// What begins a partition, and where in it: ext, XFS, Btrfs, swap of Linux's usual pages, LVM, FAT and NTFS.
const BEGINNINGS: [(u64, &[u8]); 6] = [
    (1024 + 0x38, &[0x53, 0xef]),
    (0, b"XFSB"),
    (65536 + 64, b"_BHRfS_M"),
    (4086, b"SWAPSPACE2"),
    (512, b"LABELONE"),
    (510, &[0x55, 0xaa]),
];
/// The other size that a disk's sectors have.
const LARGE: u64 = 4096;

impl Mbr {
    /// Returns whether the disk is from one with sectors of 4096 bytes. Its numbers do not say what they count; but nothing
    /// begins where they would be with 512 bytes, and something does where they are with 4096.
    pub(super) fn has_large_sectors(&self, file: &File) -> bool {
        let begins = |sector: u64| {
            self.entries.iter().any(|entry| {
                BEGINNINGS.iter().any(|(at, what)| {
                    let place = entry.start.saturating_mul(sector).saturating_add(*at);
                    read_at(file, place, what.len()).is_ok_and(|found| found == *what)
                })
            })
        };
        !begins(SECTOR) && begins(LARGE)
    }

    /// Reads the partitions; `None` where the disk has no master boot record.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) where partitions overlap, leave the disk, or never end.
    pub(super) fn read(file: &File, device: &Path) -> Result<Option<Self>> {
        let attempt = || format!("read the partition table of '{}'", device.display());
        let size = size_of(file).attempt(attempt)? / SECTOR;
        let sector = |at: u64| read_at(file, at * SECTOR, 512);
        let first = if size == 0 { vec![] } else { sector(0).attempt(attempt)? };
        let Some(all) = raw(&first).filter(|_| is_mbr(&first)) else { return Ok(None) };
        let mut entries = vec![];
        for (raw, number) in all.iter().zip(1..).filter(|(raw, _)| is_used(raw)) {
            if EXTENDED.contains(&raw.0) {
                let found = logical((raw.1, size), &sector).attempt(attempt)?;
                entries.extend(found.ok_or_else(|| damaged(device, "its logical partitions never end"))?);
            } else {
                entries.push(entry(number, *raw, 0));
            }
        }
        // Linux numbers the logical ones through, whichever extended partition they are in.
        let mut logical = FIRST_LOGICAL..;
        entries.iter_mut().filter(|entry| entry.number >= FIRST_LOGICAL).for_each(|entry| {
            entry.number = logical.next().unwrap_or(u32::MAX);
        });
        entries.sort_by_key(|entry| entry.start);
        let mut free = 1;
        for Entry { number, start, end, .. } in &entries {
            if *start < free || *end >= size {
                let text = format!("partition {number}, sectors {start} to {end}, overlaps or is outside");
                return Err(damaged(device, &text));
            }
            free = end + 1;
        }
        let id = first[DISK_ID..DISK_ID + 4].try_into().expect("four bytes");
        Ok(Some(Self { id: u32::from_le_bytes(id), entries }))
    }
}

fn damaged(device: &Path, why: &str) -> Error {
    Error::invalid(format!("'{}' has a damaged MBR: {why}", device.display()))
}

/// Returns the entry; what it says is from `base` on. No number of an MBR is large enough to overflow.
fn entry(number: u32, (kind, start, sectors): Raw, base: u64) -> Entry {
    Entry { number, kind, start: base + start, end: base + start + sectors - 1 }
}

/// Follows the chain of an extended partition; `None` where it comes back to where it was.
fn logical(
    (first, size): (u64, u64),
    sector: &dyn Fn(u64) -> io::Result<Vec<u8>>,
) -> io::Result<Option<Vec<Entry>>> {
    let (mut at, mut seen, mut found) = (first, BTreeSet::new(), vec![]);
    for number in FIRST_LOGICAL..FIRST_LOGICAL + MOST_LOGICAL {
        if at >= size || !seen.insert(at) {
            return Ok(None);
        }
        let Some(all) = raw(&sector(at)?) else { return Ok(Some(found)) };
        let is_link = |raw: &&Raw| is_used(raw) && EXTENDED.contains(&raw.0);
        let own = all.iter().find(|raw| is_used(raw) && !EXTENDED.contains(&raw.0));
        found.extend(own.map(|raw| entry(number, *raw, at)));
        match all.iter().find(is_link) {
            Some(link) => at = first + link.1,
            None => return Ok(Some(found)),
        }
    }
    Ok(None)
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

    /// Puts a table into a sector.
    fn plant(file: &File, at: u64, entries: &[Raw]) {
        let mut sector = [0; 512];
        for (n, (kind, start, sectors)) in entries.iter().enumerate() {
            let entry = &mut sector[ENTRIES + n * ENTRY..][..ENTRY];
            entry[4] = *kind;
            entry[8..12].copy_from_slice(&u32::try_from(*start).unwrap().to_le_bytes());
            entry[12..].copy_from_slice(&u32::try_from(*sectors).unwrap().to_le_bytes());
        }
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        file.write_all_at(&sector, at * SECTOR).unwrap();
    }

    fn disk() -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(16 << 20).unwrap();
        file
    }

    fn read(file: &File) -> Result<Option<Mbr>> {
        Mbr::read(file, Path::new("disk"))
    }

    /// As Debian's installer leaves a disk, with one logical partition more.
    fn debian() -> File {
        let file = disk();
        plant(&file, 0, &[(0x83, 2048, 10000), (0x05, 14334, 10002)]);
        plant(&file, 14334, &[(0x82, 2, 3000), (0x05, 4000, 3000)]);
        plant(&file, 14334 + 4000, &[(0x83, 2, 100)]);
        file
    }

    #[test]
    fn primary_and_logical_partitions_are_numbered_as_linux_does() {
        let found = read(&debian()).unwrap().unwrap();
        let shown: Vec<_> = found.entries.iter().map(|e| (e.number, e.kind, e.start, e.end)).collect();
        assert_eq!(shown, [(1, 0x83, 2048, 12047), (5, 0x82, 14336, 17335), (6, 0x83, 18336, 18435)]);
    }

    #[test]
    fn a_disk_whose_partitions_begin_eight_times_as_far_has_large_sectors() {
        let file = disk();
        plant(&file, 0, &[(0x83, 256, 2000)]);
        let mbr = read(&file).unwrap().unwrap();
        assert!(!mbr.has_large_sectors(&file), "nothing begins anywhere");
        file.write_all_at(&[0x53, 0xef], 256 * 4096 + 1080).unwrap();
        assert!(mbr.has_large_sectors(&file));
        file.write_all_at(b"XFSB", 256 * 512).unwrap();
        assert!(!mbr.has_large_sectors(&file));
    }

    #[test]
    fn a_gpt_a_file_system_and_nothing_are_no_mbr() {
        assert_eq!(read(&disk()).unwrap(), None);
        let protective = disk();
        plant(&protective, 0, &[(0x83, 2048, 100), (0xee, 1, 2047)]);
        assert_eq!(read(&protective).unwrap(), None, "a hybrid one has a GPT");
        let fat = disk();
        plant(&fat, 0, &[(0x83, 2048, 100)]);
        fat.write_all_at(b"no flag", ENTRIES as u64).unwrap();
        assert_eq!(read(&fat).unwrap(), None);
        let empty = tempfile::tempfile().unwrap();
        assert_eq!(read(&empty).unwrap(), None);
    }

    #[test]
    fn partitions_that_overlap_or_leave_the_disk_are_refused_by_their_number() {
        for entries in [[(0x83, 2048, 100), (0x83, 2100, 100)], [(0x83, 2048, 100), (0x83, 32760, 9)]] {
            let file = disk();
            plant(&file, 0, &entries);
            assert!(read(&file).unwrap_err().to_string().contains("partition 2"));
        }
    }

    #[test]
    fn logical_partitions_that_lead_in_a_circle_are_refused() {
        let file = debian();
        plant(&file, 14334 + 4000, &[(0x83, 2, 100), (0x05, 0, 3000)]);
        assert!(read(&file).unwrap_err().to_string().contains("never end"));
    }

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![
            0_u64..64,
            Just(2048),
            (0_u64..40).prop_map(|n| n * 800),
            any::<u32>().prop_map(u64::from)
        ]
    }

    proptest! {
        #[test]
        fn no_table_breaks_the_reader_and_what_it_returns_is_in_order(
            tables in vec((number(), vec((prop_oneof![Just(5_u8), Just(0x83), any::<u8>()], number(), number()), 0..4)), 1..6),
        ) {
            let file = disk();
            for (n, (at, entries)) in tables.iter().enumerate() {
                plant(&file, if n == 0 { 0 } else { at % 32768 }, entries);
            }
            if let Ok(Some(found)) = read(&file) {
                prop_assert!(found.entries.windows(2).all(|two| two[0].end < two[1].start));
                prop_assert!(found.entries.iter().all(|e| e.start >= 1 && e.start <= e.end && e.end < 32768));
            }
        }

        #[test]
        fn no_first_sector_breaks_the_reader(sector in vec(any::<u8>(), 512)) {
            let file = disk();
            file.write_all_at(&sector, 0).unwrap();
            file.write_all_at(&[0x55, 0xaa], 510).unwrap();
            let _ = read(&file);
        }
    }
}
