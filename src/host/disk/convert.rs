//! Makes a GPT of a master boot record, in the guest that seals an image: partitions stay where they are and keep their
//! numbers, GRUB's BIOS boot partition gets the gap in front of the first one.
//!
//! ```text
//! before  | mbr | GRUB's core, nobody's …… | 1 | (extended: 5) |      |
//! after   | mbr gpt | BIOS boot ………………… | 1 |  5            | gpt  |
//! ```
//!
//! The boot code stays; it finds its core again when GRUB is installed anew, which is the sealer's. Swap that lies behind
//! everything else is left out: the root partition must be the last one to grow, and a blade gets swap of its own by its
//! profile.

use std::{fs::File, path::Path};

use gptman::{GPTHeader, GPTPartitionEntry};
use sha2::{Digest, Sha256};

use super::{
    SECTOR,
    gpt::{BASIC_DATA, LINUX_DATA, LINUX_SWAP, to_gpt},
    mbr::{Entry, Mbr, SWAP},
    open,
    table::{HEAD, Table},
};
use crate::{
    error::{Context, Error, Result},
    model::{Bytes, DiskGuid},
};

/// Partition types, as the UEFI specification, GRUB, LVM and the Linux RAID have them.
const ESP: DiskGuid = DiskGuid(0xC12A_7328_F81F_11D2_BA4B_00A0_C93E_C93B);
const BIOS_BOOT: DiskGuid = DiskGuid(0x2168_6148_6449_6E6F_744E_6565_6445_4649);
const LVM: DiskGuid = DiskGuid(0xE6D6_D379_F507_44C2_A23C_238F_2A3D_F928);
const RAID: DiskGuid = DiskGuid(0xA19D_880F_05FC_4D3B_A006_743F_0F84_911E);
/// What GRUB's core takes at most, with the file systems and tables that it has to read: 64 KiB, in sectors.
const CORE: u64 = 128;

/// What the conversion of a disk would leave out, and why it is not possible.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outlook {
    /// The numbers of swap partitions behind all others: they are left out.
    pub dropped: Vec<u32>,
    /// Why it cannot be done, with what to do.
    pub refusal: Option<String>,
}

/// Returns what the conversion of this disk would be like, or `None` where it has no master boot record. A table that
/// cannot be read is one that cannot be converted.
///
/// # Errors
/// The failing system call.
pub fn outlook(device: &Path) -> Result<Option<Outlook>> {
    let file = File::open(device).attempt(|| format!("open '{}'", device.display()))?;
    let refused = |error: Error| Outlook { dropped: vec![], refusal: Some(error.to_string()) };
    match Mbr::read(&file, device) {
        Ok(None) => Ok(None),
        Ok(Some(mbr)) => {
            let refusal = check(&mbr, sectors(&file, device)?).err().map(|e| e.to_string());
            Ok(Some(Outlook { dropped: dropped(&mbr), refusal }))
        }
        Err(error) => Ok(Some(refused(error))),
    }
}

/// Makes the GPT.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid) where the disk has no master boot record, or one that cannot be
/// converted: nothing has been written then.
pub fn convert(device: &Path) -> Result<()> {
    let mut file = open(device)?;
    let none = || Error::invalid(format!("'{}' has no MBR", device.display()));
    let mbr = Mbr::read(&file, device)?.ok_or_else(none)?;
    let sectors = sectors(&file, device)?;
    check(&mbr, sectors)?;
    let left_out = dropped(&mbr);
    let kept: Vec<Entry> = mbr.entries.iter().filter(|e| !left_out.contains(&e.number)).copied().collect();
    let attempt = || format!("make a GPT for '{}'", device.display());
    let header = GPTHeader::new_from(&mut file, SECTOR, to_gpt(guid(&mbr, 0)))
        .map_err(|e| Error::invalid(attempt()).because(e))?;
    let mut entries = vec![GPTPartitionEntry::empty(); header.number_of_partition_entries as usize];
    let highest = kept.iter().map(|entry| entry.number).max().unwrap_or_default();
    let first = kept.iter().map(|entry| entry.start).min().unwrap_or(sectors);
    let boot = Entry { number: highest + 1, kind: 0, start: HEAD, end: first - 1 };
    for (entry, kind, name) in
        kept.iter().map(|e| (e, kind_of(e.kind), "")).chain([(&boot, BIOS_BOOT, "bios")])
    {
        entries[entry.number as usize - 1] = GPTPartitionEntry {
            partition_type_guid: to_gpt(kind),
            unique_partition_guid: to_gpt(guid(&mbr, entry.number)),
            starting_lba: entry.start,
            ending_lba: entry.end,
            attribute_bits: 0,
            partition_name: name.into(),
        };
    }
    Table::new(&file, device, (header, entries))?.write(&file).map(drop)
}

fn sectors(file: &File, device: &Path) -> Result<u64> {
    let size = super::buffer::size_of(file).attempt(|| format!("read the size of '{}'", device.display()))?;
    Ok(size / SECTOR)
}

/// Returns the swap partitions behind which there is nothing but swap.
fn dropped(mbr: &Mbr) -> Vec<u32> {
    let behind = mbr.entries.iter().rev().take_while(|entry| entry.kind == SWAP);
    behind.map(|entry| entry.number).collect()
}

/// Refuses a disk that has no room for what a GPT and its boot loader need.
fn check(mbr: &Mbr, sectors: u64) -> Result<()> {
    let left_out = dropped(mbr);
    let kept: Vec<&Entry> = mbr.entries.iter().filter(|entry| !left_out.contains(&entry.number)).collect();
    let (Some(first), Some(last)) = (kept.first(), kept.last()) else {
        return Err(Error::invalid("the MBR has no partition but swap"));
    };
    if first.start < HEAD + CORE {
        return Err(Error::invalid(format!(
            "partition {} begins at sector {}, and a GPT with a BIOS boot partition needs the first {}: move it to sector \
             2048 (GParted), or install the donor anew",
            first.number,
            first.start,
            HEAD + CORE
        )));
    }
    if last.end > sectors.saturating_sub(HEAD) {
        return Err(Error::invalid(format!(
            "partition {} ends at sector {}, and the GPT's backup needs the last {} of {sectors}: make it smaller",
            last.number,
            last.end,
            Bytes((HEAD - 1) * SECTOR).human()
        )));
    }
    if kept.iter().any(|entry| entry.number >= 128) {
        return Err(Error::invalid("the MBR has more partitions than a GPT holds"));
    }
    Ok(())
}

/// Returns the type that a GPT has for it.
fn kind_of(kind: u8) -> DiskGuid {
    match kind {
        SWAP => LINUX_SWAP,
        0x8e => LVM,
        0xef => ESP,
        0xfd => RAID,
        0x01 | 0x04 | 0x06 | 0x07 | 0x0b | 0x0c | 0x0e => BASIC_DATA,
        _ => LINUX_DATA,
    }
}

/// Returns a GUID for the disk (0) or one of its partitions: the same each time. A clone's disk gets one of its own.
fn guid(mbr: &Mbr, number: u32) -> DiskGuid {
    let mut hash = Sha256::new().chain_update(b"sheath converted").chain_update(mbr.id.to_be_bytes());
    for entry in &mbr.entries {
        hash.update(entry.start.to_be_bytes());
        hash.update(entry.end.to_be_bytes());
    }
    let bits = hash.chain_update(number.to_be_bytes()).finalize();
    DiskGuid::from_random(u128::from_be_bytes(bits[..16].try_into().expect("a hash has 32 bytes")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use gptman::GPT;

    use super::*;
    use crate::host::disk::gpt::{self, Partitioning};

    const SIZE: u64 = 64 << 20;

    /// Returns a disk with these partitions (type, first sector, sectors) in its first sector, and with boot code.
    fn disk(entries: &[(u8, u32, u32)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(SIZE).unwrap();
        plant(file.as_file(), 0, entries);
        file.as_file().write_all_at(b"boot code", 0).unwrap();
        file
    }

    fn plant(file: &File, at: u64, entries: &[(u8, u32, u32)]) {
        let mut sector = [0; 512];
        for (n, (kind, start, sectors)) in entries.iter().enumerate() {
            let entry = &mut sector[446 + n * 16..][..16];
            entry[4] = *kind;
            entry[8..12].copy_from_slice(&start.to_le_bytes());
            entry[12..].copy_from_slice(&sectors.to_le_bytes());
        }
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        file.write_all_at(&sector, at * 512).unwrap();
    }

    fn refusal(disk: &tempfile::NamedTempFile) -> String {
        let before = std::fs::read(disk.path()).unwrap();
        let refusal = outlook(disk.path()).unwrap().unwrap().refusal.expect("a refusal");
        assert_eq!(convert(disk.path()).unwrap_err().to_string(), refusal);
        assert_eq!(std::fs::read(disk.path()).unwrap(), before, "nothing has been written");
        refusal
    }

    #[test]
    fn partitions_stay_where_they_are_with_their_numbers_and_grub_gets_the_gap() {
        let disk = disk(&[(0x83, 2048, 40000), (0x05, 43006, 60002)]);
        plant(disk.as_file(), 43006, &[(0x83, 2, 20000), (0x05, 30000, 10002)]);
        plant(disk.as_file(), 73006, &[(0x82, 2, 10000)]);
        assert_eq!(gpt::check(disk.path()).unwrap(), Partitioning::Mbr);
        let found = outlook(disk.path()).unwrap().unwrap();
        assert_eq!((found.dropped.as_slice(), found.refusal), ([6].as_slice(), None));
        convert(disk.path()).unwrap();
        assert_eq!(gpt::check(disk.path()).unwrap(), Partitioning::Gpt);
        assert_eq!(outlook(disk.path()).unwrap(), None, "an MBR no more");
        let table = GPT::read_from(&mut disk.reopen().unwrap(), 512).unwrap();
        let used = table.iter().filter(|(_, p)| p.is_used());
        let used: Vec<_> =
            used.map(|(n, p)| (n, p.starting_lba, p.ending_lba, p.partition_type_guid)).collect();
        assert_eq!(
            used,
            [
                (1, 2048, 42047, to_gpt(LINUX_DATA)),
                (5, 43008, 63007, to_gpt(LINUX_DATA)),
                (6, 34, 2047, *b"Hah!IdontNeedEFI"),
            ]
        );
        let mut start = [0; 512];
        disk.as_file().read_exact_at(&mut start, 0).unwrap();
        assert_eq!((&start[..9], start[450], start[466]), (b"boot code".as_slice(), 0xee, 0));
        for (judge, good) in [("/usr/sbin/sfdisk", "No errors"), ("/usr/sbin/sgdisk", "No problems")] {
            #[allow(clippy::disallowed_methods, reason = "a judge of the result, not a part of the program")]
            let said = std::process::Command::new(judge).arg("--verify").arg(disk.path()).output();
            if let Ok(said) = said {
                let text = String::from_utf8_lossy(&said.stdout).into_owned();
                assert!(text.contains(good), "{judge}: {text}");
            }
        }
    }

    #[test]
    fn what_has_no_room_for_a_gpt_is_refused_with_what_to_do() {
        assert!(refusal(&disk(&[(0x83, 63, 1000)])).contains("begins at sector 63"));
        let last = u32::try_from(SIZE / 512).unwrap();
        assert!(refusal(&disk(&[(0x83, 2048, last - 2048)])).contains("make it smaller"));
        assert!(refusal(&disk(&[(0x82, 2048, 1000)])).contains("no partition but swap"));
    }

    #[test]
    fn a_damaged_mbr_has_an_outlook_and_it_is_bad() {
        let disk = disk(&[(0x83, 2048, 1000), (0x83, 2100, 1000)]);
        let found = outlook(disk.path()).unwrap().unwrap();
        assert!(found.refusal.unwrap().contains("overlaps"));
        assert!(gpt::check(disk.path()).unwrap_err().to_string().contains("overlaps"));
    }

    #[test]
    fn a_disk_with_a_gpt_is_not_converted() {
        let disk = disk(&[(0x83, 2048, 1000)]);
        convert(disk.path()).unwrap();
        assert!(convert(disk.path()).unwrap_err().to_string().contains("has no MBR"));
    }
}
