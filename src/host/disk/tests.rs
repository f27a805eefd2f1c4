//! Partition tables and seeds on plain files, judged by the tools that the rest of the world uses.

use std::{
    fs::File,
    io::{Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    time::{Duration, Instant},
};

use gptman::{GPT, GPTPartitionEntry};

use super::{
    cidata::write_seed,
    gpt::{apply_layout, own_partitions},
};
use crate::{
    error::Kind,
    model::{Bytes, DiskGuid, ExtraPartition, Layout, PartitionKind, Root, Seed},
    plan::Changed,
};

/// The size of the crafted image and of the disk that it is put on.
const IMAGE: u64 = 64 << 20;
const DISK: u64 = 20 << 30;

/// Returns an image with a small partition numbered 15 in front of a root numbered 1, as Debian's are.
fn image(size: u64) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(size).unwrap();
    let mut gpt = GPT::new_from(file.as_file_mut(), 512, [7; 16]).unwrap();
    let entry = |start, end, n| GPTPartitionEntry {
        partition_type_guid: [0x11; 16],
        unique_partition_guid: [n; 16],
        starting_lba: start,
        ending_lba: end,
        attribute_bits: 4,
        partition_name: "image's own".into(),
    };
    gpt[15] = entry(2048, 4095, 15);
    gpt[1] = entry(4096, gpt.header.last_usable_lba, 1);
    gpt.write_into(file.as_file_mut()).unwrap();
    GPT::write_protective_mbr_into(file.as_file_mut(), 512).unwrap();
    file.as_file().write_all_at(b"boot code", 0).unwrap();
    file
}

/// Returns the image on a larger disk: what a fresh clone is.
fn clone_of_image() -> tempfile::NamedTempFile {
    let file = image(IMAGE);
    file.as_file().set_len(DISK).unwrap();
    file
}

fn layout() -> Layout {
    let extra = vec![
        ExtraPartition { kind: PartitionKind::Swap, size: Bytes::gib(1) },
        ExtraPartition { kind: PartitionKind::Data, size: Bytes(3 << 29) },
    ];
    Layout { extra, ..Layout::plain(DiskGuid::from_random(42)) }
}

fn seed() -> Seed {
    Seed {
        instance_id: "0123456789abcdef".into(),
        hostname: "blade3".parse().unwrap(),
        boot_nic: "52:54:00:12:34:56".parse().unwrap(),
        ssh_keys: vec!["ssh-ed25519 AAAA me@\"home\": \\ #1 ä".into()],
        user_data: Some("packages: [htop]".into()),
    }
}

/// Runs a judge, or returns `None` where it is not installed.
#[allow(clippy::disallowed_methods, reason = "a judge of the result, not a part of the program")]
fn judge(program: &str, args: &[&str], path: &Path) -> Option<(bool, String)> {
    let output = std::process::Command::new(program).args(args).arg(path).env("LC_ALL", "C").output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

fn read_table(file: &File) -> GPT {
    let mut file = file.try_clone().unwrap();
    GPT::read_from(&mut file, 512).unwrap()
}

#[test]
fn a_layout_grows_the_root_and_puts_ours_behind_it() {
    let disk = clone_of_image();
    assert_eq!(apply_layout(disk.path(), &layout()).unwrap(), Changed::Changed);
    let table = read_table(disk.as_file());
    let shown: Vec<_> = table
        .iter()
        .filter(|(_, p)| p.is_used())
        .map(|(n, p)| (n, p.partition_name.as_str(), p.starting_lba, p.ending_lba))
        .collect();
    let last = DISK / 512 - 34;
    let seed = (last + 1 - 8192) / 2048 * 2048;
    let (data, swap) = (seed - (3 << 20), seed - (3 << 20) - (2 << 20));
    assert_eq!(
        shown,
        [
            (1, "image's own", 4096, swap - 1),
            (2, "swap", swap, data - 1),
            (3, "data", data, seed - 1),
            (4, "CIDATA", seed, seed + 8191),
            (15, "image's own", 2048, 4095),
        ]
    );
    assert_eq!(table.header.backup_lba, DISK / 512 - 1);
    assert_eq!(table[1].attribute_bits, 4, "the image's attributes stay");
    let mut boot = [0; 9];
    disk.as_file().read_exact_at(&mut boot, 0).unwrap();
    assert_eq!(&boot, b"boot code");
}

/// Returns the used partitions: name, first and last sector.
fn used(disk: &tempfile::NamedTempFile) -> Vec<(String, u64, u64)> {
    let table = read_table(disk.as_file());
    let used = table.iter().filter(|(_, p)| p.is_used());
    let mut used: Vec<_> =
        used.map(|(_, p)| (p.partition_name.as_str().to_owned(), p.starting_lba, p.ending_lba)).collect();
    used.sort_by_key(|(_, start, _)| *start);
    used
}

#[test]
fn root_is_kept_or_grows_to_a_size_and_the_reserve_stays_free_at_the_end() {
    let (gib, root_end) = (2 << 20, IMAGE / 512 - 34);
    for (root, end) in [(Root::Keep, root_end), (Root::Size(Bytes::gib(2)), 2 * gib + 4096 - 1)] {
        let disk = clone_of_image();
        let layout = Layout { root, reserve: Bytes::gib(3), ..layout() };
        for expected in [Changed::Changed, Changed::AlreadyTrue] {
            assert_eq!(apply_layout(disk.path(), &layout).unwrap(), expected);
        }
        let seed_start = (DISK / 512 - 33 - 3 * gib - 8192) / 2048 * 2048;
        let data = seed_start - 3 * gib / 2;
        let shown = used(&disk);
        let shown: Vec<_> = shown.iter().map(|(name, start, end)| (name.as_str(), *start, *end)).collect();
        assert_eq!(
            shown,
            [
                ("image's own", 2048, 4095),
                ("image's own", 4096, end),
                ("swap", data - gib, data - 1),
                ("data", data, seed_start - 1),
                ("CIDATA", seed_start, seed_start + 8191),
            ]
        );
        assert_eq!(write_seed(disk.path(), &seed()).unwrap(), Changed::Changed);
        let text = String::from_utf8_lossy(&std::fs::read(cut_seed(&disk).path()).unwrap()).into_owned();
        assert!(text.contains("growpart: {mode: 'off'"), "cloud-init would take what is free");
    }
}

#[test]
fn a_root_that_would_shrink_is_refused_by_its_key_and_nothing_is_written() {
    let disk = clone_of_image();
    let before = used(&disk);
    let layout = Layout { root: Root::Size(Bytes::mib(10)), ..layout() };
    let error = apply_layout(disk.path(), &layout).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.chain().contains("root = \"10MiB\" is too small"), "{}", error.chain());
    assert_eq!(used(&disk), before);
}

#[test]
fn what_does_not_fit_is_named_by_its_keys_with_the_size_that_does() {
    let disk = clone_of_image();
    let layout = Layout { root: Root::Size(Bytes::gib(16)), reserve: Bytes::gib(2), ..layout() };
    let text = apply_layout(disk.path(), &layout).unwrap_err().chain();
    for word in ["swap 1.0 GiB", "data 1.5 GiB", "reserve 2.0 GiB", "disk_size must be at least \""] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let least: Bytes = text.split('"').nth(1).unwrap().parse().unwrap();
    disk.as_file().set_len(least.0).unwrap();
    apply_layout(disk.path(), &layout).unwrap();
    disk.as_file().set_len(DISK).unwrap();
}

#[test]
fn sfdisk_finds_nothing_wrong() {
    let disk = clone_of_image();
    apply_layout(disk.path(), &layout()).unwrap();
    let Some((good, text)) = judge("/usr/sbin/sfdisk", &["--verify"], disk.path()) else {
        return println!("skipped: sfdisk is not installed");
    };
    assert!(good && text.contains("No errors detected"), "{text}");
    let (_, dump) = judge("/usr/sbin/sfdisk", &["--dump"], disk.path()).unwrap();
    assert!(dump.contains(&format!("label-id: {}", layout().guid)), "{dump}");
    assert!(dump.contains("type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"), "{dump}");
    assert!(dump.contains("type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"), "{dump}");
}

#[test]
fn the_same_layout_and_seed_twice_change_nothing_and_take_no_time() {
    let disk = clone_of_image();
    let begin = Instant::now();
    apply_layout(disk.path(), &layout()).unwrap();
    assert_eq!(write_seed(disk.path(), &seed()).unwrap(), Changed::Changed);
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?} on 20 GiB");
    assert_eq!(apply_layout(disk.path(), &layout()).unwrap(), Changed::AlreadyTrue);
    assert_eq!(write_seed(disk.path(), &seed()).unwrap(), Changed::AlreadyTrue);
    assert!(disk.as_file().metadata().unwrap().blocks() * 512 < 512 << 10, "the disk stays sparse");
}

#[test]
fn another_layout_replaces_ours_and_keeps_the_images() {
    let disk = clone_of_image();
    apply_layout(disk.path(), &layout()).unwrap();
    let bare = Layout::plain(DiskGuid::from_random(43));
    assert_eq!(apply_layout(disk.path(), &bare).unwrap(), Changed::Changed);
    let table = read_table(disk.as_file());
    let used: Vec<_> = table.iter().filter(|(_, p)| p.is_used()).map(|(n, _)| n).collect();
    assert_eq!(used, [1, 2, 15]);
    assert_eq!(table[2].partition_name.as_str(), "CIDATA");
}

#[test]
fn a_disk_made_of_a_blades_own_is_another_machine_with_a_seed_of_its_own() {
    let disk = clone_of_image();
    apply_layout(disk.path(), &layout()).unwrap();
    write_seed(disk.path(), &seed()).unwrap();
    let blades = read_table(disk.as_file());
    // Promoted and cloned: the same bytes, on a disk of the same size.
    let other = Layout { guid: DiskGuid::from_random(43), ..layout() };
    assert_eq!(apply_layout(disk.path(), &other).unwrap(), Changed::Changed);
    let own = Seed { instance_id: "fedcba9876543210".into(), hostname: "blade9".parse().unwrap(), ..seed() };
    assert_eq!(write_seed(disk.path(), &own).unwrap(), Changed::Changed);
    let table = read_table(disk.as_file());
    let places = |table: &GPT| -> Vec<_> {
        let used = table.iter().filter(|(_, p)| p.is_used());
        used.map(|(n, p)| (n, p.partition_name.as_str().to_owned(), p.starting_lba, p.ending_lba)).collect()
    };
    assert_eq!(places(&table), places(&blades), "one swap, one data, one seed, where they were");
    assert_ne!(table.header.disk_guid, blades.header.disk_guid);
    for n in 2..=4 {
        assert_ne!(table[n].unique_partition_guid, blades[n].unique_partition_guid);
    }
    let mut bytes = vec![0; 8192 * 512];
    disk.as_file().read_exact_at(&mut bytes, table[4].starting_lba * 512).unwrap();
    let holds = |word: &str| bytes.windows(word.len()).any(|found| found == word.as_bytes());
    assert!(holds("blade9") && !holds("blade3") && !holds("0123456789abcdef"));
}

#[test]
fn a_blades_disk_tells_which_partitions_are_of_our_making() {
    let disk = clone_of_image();
    assert!(own_partitions(disk.path()).unwrap().is_empty(), "an image has none");
    apply_layout(disk.path(), &layout()).unwrap();
    assert_eq!(own_partitions(disk.path()).unwrap().into_iter().collect::<Vec<_>>(), [2, 3, 4]);
}

#[test]
fn a_torn_primary_is_taken_from_the_backup() {
    let disk = clone_of_image();
    apply_layout(disk.path(), &layout()).unwrap();
    let whole = read_table(disk.as_file());
    disk.as_file().write_all_at(&[0xa5; 700], 600).unwrap();
    assert_eq!(apply_layout(disk.path(), &layout()).unwrap(), Changed::Changed);
    assert_eq!(read_table(disk.as_file()), whole);
}

#[test]
fn an_image_with_the_seeds_room_fits_its_own_clone() {
    let disk = image(IMAGE);
    disk.as_file().set_len(IMAGE + super::gpt::SEED_ROOM.0).unwrap();
    let bare = Layout::plain(DiskGuid::from_random(1));
    apply_layout(disk.path(), &bare).unwrap();
    write_seed(disk.path(), &seed()).unwrap();
}

#[test]
fn what_does_not_fit_is_refused_with_figures_and_nothing_is_written() {
    let disk = image(IMAGE);
    let before = std::fs::read(disk.path()).unwrap();
    let bare = Layout::plain(DiskGuid::from_random(1));
    for layout in [bare, layout()] {
        let error = apply_layout(disk.path(), &layout).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.chain().contains("too small"), "{}", error.chain());
    }
    assert_eq!(std::fs::read(disk.path()).unwrap(), before);
}

#[test]
fn a_disk_without_a_gpt_is_refused_with_a_sentence() {
    let blank = tempfile::NamedTempFile::new().unwrap();
    blank.as_file().set_len(IMAGE).unwrap();
    let refused = apply_layout(blank.path(), &layout()).unwrap_err().chain();
    assert!(refused.contains("no GUID partition table"), "{refused}");
    let mut mbr = [0; 66];
    (mbr[4], mbr[9], mbr[13]) = (0x83, 8, 1);
    mbr[64..].copy_from_slice(&[0x55, 0xaa]);
    blank.as_file().write_all_at(&mbr, 446).unwrap();
    let refused = apply_layout(blank.path(), &layout()).unwrap_err().chain();
    assert!(refused.contains("has an MBR") && refused.contains("sheath image seal"), "{refused}");
    // A large GPT has an MBR that protects it.
    blank.as_file().write_all_at(&[0xee], 450).unwrap();
    blank.as_file().write_all_at(b"EFI PART", 4096).unwrap();
    let large = apply_layout(blank.path(), &layout()).unwrap_err().chain();
    assert!(large.contains("4096-byte sectors"), "{large}");
    blank.as_file().set_len(100).unwrap();
    assert!(apply_layout(blank.path(), &layout()).unwrap_err().chain().contains("too small"));
    let missing = apply_layout(Path::new("/nowhere/disk"), &layout()).unwrap_err();
    assert_eq!(missing.kind(), Kind::Missing);
}

#[test]
fn hostile_numbers_in_a_header_are_refused_and_never_computed_with() {
    type Spoil = fn(&mut gptman::GPTHeader);
    let spoils: [Spoil; 5] = [
        |h| h.number_of_partition_entries = u32::MAX,
        |h| h.size_of_partition_entry = 4096,
        |h| h.partition_entry_lba = u64::MAX - 3,
        |h| h.partition_entry_lba = 0,
        |h| h.number_of_partition_entries = 0,
    ];
    for (n, spoil) in spoils.into_iter().enumerate() {
        let disk = image(IMAGE);
        let mut header = read_table(disk.as_file()).header;
        spoil(&mut header);
        header.update_crc32_checksum();
        for at in [512, IMAGE - 512] {
            disk.as_file().write_all_at(&encoded(&header), at).unwrap();
        }
        let error = apply_layout(disk.path(), &layout()).unwrap_err();
        assert!(error.chain().contains("damaged"), "{n}: {}", error.chain());
    }
}

/// Returns a header as a disk holds it.
fn encoded(h: &gptman::GPTHeader) -> Vec<u8> {
    let mut bytes = [&h.signature[..], &h.revision].concat();
    for n in [h.header_size, h.crc32_checksum, 0] {
        bytes.extend(n.to_le_bytes());
    }
    for n in [h.primary_lba, h.backup_lba, h.first_usable_lba, h.last_usable_lba] {
        bytes.extend(n.to_le_bytes());
    }
    bytes.extend(h.disk_guid);
    bytes.extend(h.partition_entry_lba.to_le_bytes());
    for n in [h.number_of_partition_entries, h.size_of_partition_entry, h.partition_entry_array_crc32] {
        bytes.extend(n.to_le_bytes());
    }
    bytes
}

/// Returns the seed's partition, cut out into a file of its own.
fn cut_seed(disk: &tempfile::NamedTempFile) -> tempfile::NamedTempFile {
    let table = read_table(disk.as_file());
    let (_, part) = table.iter().find(|(_, p)| p.partition_name.as_str() == "CIDATA").unwrap();
    let mut bytes = vec![0; 4 << 20];
    disk.as_file().read_exact_at(&mut bytes, part.starting_lba * 512).unwrap();
    let mut cut = tempfile::NamedTempFile::new().unwrap();
    cut.write_all(&bytes).unwrap();
    cut.seek(SeekFrom::Start(0)).unwrap();
    cut
}

#[test]
fn the_seed_is_a_fat_that_the_worlds_tools_read() {
    let disk = clone_of_image();
    apply_layout(disk.path(), &layout()).unwrap();
    write_seed(disk.path(), &seed()).unwrap();
    let cut = cut_seed(&disk);
    let Some((good, text)) = judge("/usr/sbin/fsck.fat", &["-n", "-v"], cut.path()) else {
        return println!("skipped: fsck.fat is not installed");
    };
    assert!(good, "{text}");
    if let Some((_, text)) = judge("/usr/sbin/blkid", &["-p"], cut.path()) {
        assert!(text.contains(r#"LABEL="CIDATA""#) && text.contains(r#"TYPE="vfat""#), "{text}");
    }
    if let Some((_, text)) = judge("/usr/bin/mdir", &["-b", "-i"], cut.path()) {
        for name in ["meta-data", "user-data", "network-config"] {
            assert!(text.contains(name), "{text}");
        }
    }
}

#[test]
fn a_disk_without_our_partition_takes_no_seed() {
    let disk = clone_of_image();
    assert!(write_seed(disk.path(), &seed()).unwrap_err().chain().contains("partition it first"));
}

#[test]
fn another_seed_replaces_the_first() {
    let disk = clone_of_image();
    apply_layout(disk.path(), &layout()).unwrap();
    write_seed(disk.path(), &seed()).unwrap();
    let other = Seed { instance_id: "other".into(), ssh_keys: vec![], user_data: None, ..seed() };
    assert_eq!(write_seed(disk.path(), &other).unwrap(), Changed::Changed);
    let text = String::from_utf8_lossy(&std::fs::read(cut_seed(&disk).path()).unwrap()).into_owned();
    assert!(
        text.contains("instance-id: \"other\"") && !text.contains("htop") && !text.contains("ssh-ed25519")
    );
}
