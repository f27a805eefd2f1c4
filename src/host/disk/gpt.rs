//! Makes a fresh clone's partition table fit the blade: disk GUID, grown root, extra partitions, room for the seed.
//!
//! ```text
//! image   | mbr gpt | … other partitions … | root | gpt |
//! disk    | mbr gpt | … other partitions … | root, grown … (free) | swap | data | CIDATA | reserve | gpt |
//! ```
//!
//! "root" is the partition that lies last in the image, whatever its number. It grows over all that the others leave, or
//! to the size that the layout says, or not at all; it never shrinks. Only the table is written, so it takes the
//! same few reads and writes on any size of disk; growing the file system is for cloud-init in the blade. The result
//! depends on the image's partitions, the disk's size and the layout alone: doing it twice is doing it once.

use std::{collections::BTreeSet, fs::File, ops::Range, path::Path};

use gptman::GPTPartitionEntry;
use sha2::{Digest, Sha256};

use super::{ALIGN, SECTOR, mbr::Mbr, open, table::Table};
use crate::{
    error::{Context, Error, Result},
    model::{Bytes, DiskGuid, ExtraPartition, Layout, PartitionKind, Root},
    plan::Changed,
};

/// Size of the partition that holds the seed: small, and large enough for a FAT that every kernel mounts.
pub const SEED_SIZE: Bytes = Bytes::mib(4);

/// How much larger than the image a disk must be, for the seed's partition, its alignment, and the table's backup.
///
/// Images' volumes are made larger by this, so that a clone of the image's own size has the room.
pub const SEED_ROOM: Bytes = Bytes::mib(6);

/// Label of the seed's partition and of its file system: what cloud-init's NoCloud looks for.
pub const SEED_LABEL: &str = "CIDATA";

/// Partition types, as the UEFI specification and the Discoverable Partitions Specification have them.
pub(super) const LINUX_SWAP: DiskGuid = DiskGuid(0x0657_FD6D_A4AB_43C4_84E5_0933_C84B_4F4F);
pub(super) const LINUX_DATA: DiskGuid = DiskGuid(0x0FC6_3DAF_8483_4772_8E79_3D69_D847_7DE4);
pub(super) const BASIC_DATA: DiskGuid = DiskGuid(0xEBD0_A0A2_B9E5_4433_87C0_68B6_B726_99C7);

/// A partition of ours, before it has a place.
struct Wanted {
    label: &'static str,
    kind: DiskGuid,
    guid: DiskGuid,
    sectors: u64,
}

/// Makes the disk's partition table fit its size and have this layout, with room for the seed at the end.
///
/// Meant for a fresh clone: partitions of ours from an earlier layout are dropped, whatever they hold.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid) where the disk has no GPT, a damaged one, or is too small; nothing has
/// been written then.
pub fn apply_layout(device: &Path, layout: &Layout) -> Result<Changed> {
    let file = open(device)?;
    let mut table = Table::read(&file, device)?;
    arrange(&mut table, layout)
        .map_err(|e| e.while_doing(format!("partition '{}' as disk {}", device.display(), layout.guid)))?;
    table.write(&file)
}

/// The tables that an image may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partitioning {
    /// A GUID partition table: what a blade's disk has.
    Gpt,
    /// A master boot record: the sealer makes a GPT of it.
    Mbr,
}

/// Returns which table with a partition in it the disk has: every image must have one.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid) with the sentence that says what is missing.
pub fn check(device: &Path) -> Result<Partitioning> {
    let file = File::open(device).attempt(|| format!("open '{}'", device.display()))?;
    check_open(&file, device)
}

/// Returns the same of a disk that is open already; `device` is what errors call it.
///
/// # Errors
/// As [`check`].
pub fn check_open(file: &File, device: &Path) -> Result<Partitioning> {
    match Table::read(file, device) {
        Ok(table) if table.entries.iter().any(GPTPartitionEntry::is_used) => Ok(Partitioning::Gpt),
        Ok(_) => {
            Err(Error::invalid(format!("'{}' has a partition table without partitions", device.display())))
        }
        // What is damaged is told as the MBR that it is, too.
        Err(error) => match Mbr::read(file, device)? {
            Some(mbr) if mbr.has_large_sectors(file) => Err(Error::invalid(format!(
                "'{}' has an MBR with 4096-byte sectors; only 512-byte sectors are supported",
                device.display()
            ))),
            Some(_) => Ok(Partitioning::Mbr),
            None => Err(error),
        },
    }
}

/// Returns the numbers of the partitions that [`apply_layout`] has put on the disk. A clone of it gets others in their place.
///
/// # Errors
/// As [`check`].
pub fn own_partitions(device: &Path) -> Result<BTreeSet<u32>> {
    let file = File::open(device).attempt(|| format!("open '{}'", device.display()))?;
    let table = Table::read(&file, device)?;
    let places = made_by_us(&table, &[from_gpt(table.header.disk_guid)]);
    Ok(places.into_iter().filter_map(|n| u32::try_from(n + 1).ok()).collect())
}

/// What of ours a disk's table has.
pub(super) struct Ours {
    /// Where the seed's partition lies, in bytes.
    pub(super) seed: Range<u64>,
    /// The extra partitions, in the layout's order.
    pub(super) extra: Vec<PartitionKind>,
    /// Whether room was left free behind the root partition, which the blade is not to take.
    pub(super) free: bool,
}

/// Returns what [`apply_layout`] has put on the disk.
pub(super) fn ours(file: &File, device: &Path) -> Result<Ours> {
    let table = Table::read(file, device)?;
    let disk = from_gpt(table.header.disk_guid);
    let find = |guid| table.entries.iter().find(|e| e.is_used() && from_gpt(e.unique_partition_guid) == guid);
    let seed = find(own_guid(disk, SEED_LABEL)).ok_or_else(|| {
        Error::invalid(format!("'{}' has no partition for the seed: partition it first", device.display()))
    })?;
    let extra = (0..table.entries.len()).map_while(|n| find(own_guid(disk, &extra_word(n)))).map(|e| {
        if from_gpt(e.partition_type_guid) == LINUX_SWAP { PartitionKind::Swap } else { PartitionKind::Data }
    });
    let own = made_by_us(&table, &[disk]);
    let used = |n: &usize| table.entries[*n].is_used();
    let root_end =
        (0..table.entries.len()).filter(|n| used(n) && !own.contains(n)).map(|n| table.entries[n].ending_lba);
    let first = own.iter().map(|n| table.entries[*n].starting_lba).min();
    let free = root_end.max().zip(first).is_some_and(|(end, first)| first.saturating_sub(end) > ALIGN);
    let seed = seed.starting_lba * SECTOR..(seed.ending_lba + 1) * SECTOR;
    Ok(Ours { seed, extra: extra.collect(), free })
}

/// Arranges the table in memory.
fn arrange(table: &mut Table, layout: &Layout) -> Result<()> {
    let wanted = wanted(layout)?;
    drop_ours(table, &[from_gpt(table.header.disk_guid), layout.guid]);
    let root = (0..table.entries.len())
        .filter(|n| table.entries[*n].is_used())
        .max_by_key(|n| table.entries[*n].starting_lba)
        .ok_or_else(|| Error::invalid("the image has no partition to grow"))?;
    let root_end = root_end(&table.entries[root], layout.root)?;
    let mut starts = vec![];
    let mut end = (table.last_usable() + 1).saturating_sub(layout.reserve.0.div_ceil(SECTOR));
    for partition in wanted.iter().rev() {
        end = end.checked_sub(partition.sectors).map(|start| start / ALIGN * ALIGN).unwrap_or_default();
        if end <= root_end {
            return Err(too_small(table, root_end, layout));
        }
        starts.push(end);
    }
    for (partition, start) in wanted.iter().zip(starts.into_iter().rev()) {
        place(table, partition, start)?;
    }
    table.entries[root].ending_lba = if layout.root == Root::Fill { end - 1 } else { root_end };
    table.header.disk_guid = to_gpt(layout.guid);
    Ok(())
}

/// Returns the last sector that the root partition has at least; a size ends where the next aligned one could begin.
fn root_end(root: &GPTPartitionEntry, wanted: Root) -> Result<u64> {
    let Root::Size(size) = wanted else { return Ok(root.ending_lba) };
    let end =
        root.starting_lba.saturating_add(size.0.div_ceil(SECTOR)).div_ceil(ALIGN).saturating_mul(ALIGN) - 1;
    if end < root.ending_lba {
        let has = Bytes((root.ending_lba + 1 - root.starting_lba) * SECTOR);
        return Err(Error::invalid(format!(
            "root = \"{size}\" is too small: the image's root partition has {}, and a partition cannot shrink: raise it, \
             or say \"keep\"",
            has.human()
        )));
    }
    Ok(end)
}

/// Returns the partitions to be placed behind the root, in the order in which they lie on the disk.
fn wanted(layout: &Layout) -> Result<Vec<Wanted>> {
    let mut all = vec![];
    for (n, ExtraPartition { kind, size }) in layout.extra.iter().enumerate() {
        let (label, kind) = match kind {
            PartitionKind::Swap => (label(*kind), LINUX_SWAP),
            PartitionKind::Data => (label(*kind), LINUX_DATA),
        };
        if size.0 == 0 {
            return Err(Error::invalid(format!("partition '{label}' has no size")));
        }
        let sectors = size.0.div_ceil(ALIGN * SECTOR) * ALIGN;
        all.push(Wanted { label, kind, guid: own_guid(layout.guid, &extra_word(n)), sectors });
    }
    let guid = own_guid(layout.guid, SEED_LABEL);
    all.push(Wanted { label: SEED_LABEL, kind: BASIC_DATA, guid, sectors: SEED_SIZE.0 / SECTOR });
    Ok(all)
}

/// Returns an extra partition's label, which is its key's name in the configuration.
fn label(kind: PartitionKind) -> &'static str {
    match kind {
        PartitionKind::Swap => "swap",
        PartitionKind::Data => "data",
    }
}

/// Frees the entries that a layout of one of these disks has made.
fn drop_ours(table: &mut Table, disks: &[DiskGuid]) {
    for n in made_by_us(table, disks) {
        table.entries[n] = GPTPartitionEntry::empty();
    }
}

/// Returns the places in the table of what a layout of one of these disks has made.
fn made_by_us(table: &Table, disks: &[DiskGuid]) -> Vec<usize> {
    let words = || (0..table.entries.len()).map(extra_word).chain([SEED_LABEL.to_owned()]);
    let guids: Vec<_> = disks.iter().flat_map(|disk| words().map(|word| own_guid(*disk, &word))).collect();
    let is_ours = |n: &usize| guids.contains(&from_gpt(table.entries[*n].unique_partition_guid));
    (0..table.entries.len()).filter(is_ours).collect()
}

/// Puts a partition at `start`, into the first free entry.
fn place(table: &mut Table, partition: &Wanted, start: u64) -> Result<()> {
    let free = table.entries.iter_mut().find(|entry| entry.is_unused());
    let entry = free.ok_or_else(|| Error::invalid("the partition table has no free entry"))?;
    *entry = GPTPartitionEntry {
        partition_type_guid: to_gpt(partition.kind),
        unique_partition_guid: to_gpt(partition.guid),
        starting_lba: start,
        ending_lba: start + partition.sectors - 1,
        attribute_bits: 0,
        partition_name: partition.label.into(),
    };
    Ok(())
}

/// Names each key that takes room, and the size that would do.
fn too_small(table: &Table, root_end: u64, layout: &Layout) -> Error {
    let has = Bytes((table.last_usable() + 1) * SECTOR);
    let parts = layout.extra.iter().map(|ExtraPartition { kind, size }| (label(*kind), *size));
    let reserve = (layout.reserve.0 > 0).then_some(("reserve", layout.reserve));
    let ours: Vec<(&str, Bytes)> = parts.chain(reserve).chain([("the seed", SEED_ROOM)]).collect();
    let image = Bytes(root_end.saturating_add(1).saturating_mul(SECTOR));
    let need = ours.iter().fold(image.0, |sum, (_, size)| sum.saturating_add(size.0));
    let listed: Vec<String> = ours.iter().map(|(name, size)| format!("{name} {}", size.human())).collect();
    let need = Bytes(need.div_ceil(1 << 20).saturating_mul(1 << 20));
    Error::invalid(format!(
        "the disk of {} is too small: the image's partitions up to the end of root take {}, {}: disk_size must be at \
         least \"{need}\"",
        has.human(),
        image.human(),
        listed.join(", ")
    ))
}

/// Returns the word that an extra partition's GUID is made from.
fn extra_word(n: usize) -> String {
    format!("extra-{n}")
}

/// Returns the GUID of our partition `word` of this disk: always the same, so that it is known again.
fn own_guid(disk: DiskGuid, word: &str) -> DiskGuid {
    let hash =
        Sha256::new().chain_update(b"sheath partition").chain_update(disk.0.to_be_bytes()).chain_update(word);
    let bits = hash.finalize();
    DiskGuid::from_random(u128::from_be_bytes(bits[..16].try_into().expect("a hash has 32 bytes")))
}

/// Returns the GUID as a table holds it: its first three fields little-endian (UEFI specification, appendix A).
pub(super) fn to_gpt(guid: DiskGuid) -> [u8; 16] {
    let mut bytes = guid.0.to_be_bytes();
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    bytes
}

/// Returns the GUID that a table holds.
fn from_gpt(bytes: [u8; 16]) -> DiskGuid {
    DiskGuid(u128::from_be_bytes(to_gpt(DiskGuid(u128::from_be_bytes(bytes)))))
}
