//! Headers as the programs write them, as forgers would, cut short at each byte, and as noise.

use std::{io::Write, path::PathBuf, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{error::Kind, host::cmd::Cmd};

/// Puts bytes at places.
fn put(into: &mut [u8], changes: &[(usize, &[u8])]) {
    changes.iter().for_each(|(at, bytes)| into[*at..at + bytes.len()].copy_from_slice(bytes));
}

/// Returns a qcow2 version 3 header of a 1 GiB disk, as `qemu-img create` writes it, with some bytes put elsewhere.
fn qcow2(changes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut h = vec![0; 512];
    put(
        &mut h,
        &[
            (0, b"QFI\xfb"),
            (4, &3_u32.to_be_bytes()),
            (20, &16_u32.to_be_bytes()),
            (24, &(1_u64 << 30).to_be_bytes()),
            (36, &2_u32.to_be_bytes()),
            (100, &112_u32.to_be_bytes()),
        ],
    );
    put(&mut h, changes);
    h
}

const DESCRIPTION: &str = "# Disk DescriptorFile\nversion=1\nCID=7f2c3a1b\nparentCID=ffffffff\n\
    createType=\"monolithicSparse\"\n\n# Extent description\nRW 2097152 SPARSE \"disk.vmdk\"\n";

/// Returns a sparse VMDK of 1 GiB with this description.
fn vmdk(description: &str, changes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut h = vec![0; 128 * 512];
    put(
        &mut h,
        &[
            (0, b"KDMV"),
            (4, &1_u32.to_le_bytes()),
            (8, &3_u32.to_le_bytes()),
            (12, &(1_u64 << 21).to_le_bytes()),
            (20, &128_u64.to_le_bytes()),
            (28, &1_u64.to_le_bytes()),
            (36, &20_u64.to_le_bytes()),
            (44, &512_u32.to_le_bytes()),
            (48, &21_u64.to_le_bytes()),
            (56, &26_u64.to_le_bytes()),
            (64, &128_u64.to_le_bytes()),
            (73, b"\n \r\n"),
            (512, description.as_bytes()),
        ],
    );
    put(&mut h, changes);
    h
}

/// Returns a streamed VMDK: tables and a second header at the end.
fn streamed(changes: &[(usize, &[u8])]) -> Vec<u8> {
    let description = DESCRIPTION.replace("monolithicSparse", "streamOptimized");
    let mut whole = vmdk(&description, &[]);
    let header = whole[..512].to_vec();
    put(&mut whole, &[(56, &[0xff; 8])]);
    whole.extend([&[0; 512][..], &header, &[0; 512]].concat());
    put(&mut whole, changes);
    whole
}

/// Where the metadata of [`vhdx`] are.
const METADATA: usize = 2 << 20;

/// Returns a VHDX of 1 GiB.
fn vhdx(changes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut h = vec![0; 3 << 20];
    let region = 192 << 10;
    let (ids, at) = (
        ["8b7ca206-4790-4b9a-b8fe-575f050f886e", "caa16737-fa36-4d43-b3b6-33f0aa44e76b"],
        ["2fa54224-cd1b-4876-b211-5dbed83bf4b8", "8141bf1d-a96f-4709-ba47-f233a8faab5f"],
    );
    let items = [ids[1], at[0], at[1]];
    put(
        &mut h,
        &[
            (0, b"vhdxfile"),
            (region, b"regi"),
            (region + 8, &1_u32.to_le_bytes()),
            (region + 16, &guid(ids[0])),
            (region + 32, &(METADATA as u64).to_le_bytes()),
            (METADATA, b"metadata"),
            (METADATA + 10, &3_u16.to_le_bytes()),
            (METADATA + (64 << 10), &(32_u32 << 20).to_le_bytes()),
            (METADATA + (64 << 10) + 8, &(1_u64 << 30).to_le_bytes()),
            (METADATA + (64 << 10) + 16, &512_u32.to_le_bytes()),
        ],
    );
    for (n, id) in items.iter().enumerate() {
        let entry = METADATA + 32 * (n + 1);
        let offset = u32::try_from((64 << 10) + 8 * n).unwrap();
        put(&mut h, &[(entry, &guid(id)), (entry + 16, &offset.to_le_bytes())]);
    }
    put(&mut h, changes);
    h
}

/// Returns an id as the file has it, by another way than the parser's.
fn guid(text: &str) -> [u8; 16] {
    let number = u128::from_str_radix(&text.replace('-', ""), 16).unwrap();
    let mut bytes = number.to_be_bytes();
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    bytes
}

/// Returns a dynamic VDI of 1 GiB.
fn vdi(changes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut h = vec![0; 8192];
    put(
        &mut h,
        &[
            (0, b"<<< Oracle VM VirtualBox Disk Image >>>\n"),
            (0x40, &0xbeda_107f_u32.to_le_bytes()),
            (0x44, &0x1_0001_u32.to_le_bytes()),
            (0x48, &0x190_u32.to_le_bytes()),
            (0x4c, &1_u32.to_le_bytes()),
            (0x154, &0x200_u32.to_le_bytes()),
            (0x158, &0x2000_u32.to_le_bytes()),
            (0x168, &512_u32.to_le_bytes()),
            (0x170, &(1_u64 << 30).to_le_bytes()),
            (0x178, &(1_u32 << 20).to_le_bytes()),
            (0x180, &1024_u32.to_le_bytes()),
            (0x200, &[0xff; 4096]),
        ],
    );
    put(&mut h, changes);
    h
}

/// Returns a dynamic VHD of 1 GiB.
fn vpc(changes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut footer = vec![0; 512];
    put(
        &mut footer,
        &[
            (0, b"conectix"),
            (16, &512_u64.to_be_bytes()),
            (48, &(1_u64 << 30).to_be_bytes()),
            (60, &3_u32.to_be_bytes()),
        ],
    );
    put(&mut footer, changes);
    let mut header = vec![0; 1024];
    put(&mut header, &[(0, b"cxsparse")]);
    [footer.clone(), header, vec![0; 512], footer].concat()
}

/// Returns one harmless disk of each format but raw.
fn samples() -> [(Format, Vec<u8>); 6] {
    [
        (Format::Qcow2, qcow2(&[])),
        (Format::Vmdk, vmdk(DESCRIPTION, &[])),
        (Format::Vmdk, streamed(&[])),
        (Format::Vhdx, vhdx(&[])),
        (Format::Vdi, vdi(&[])),
        (Format::Vpc, vpc(&[])),
    ]
}

fn file(bytes: &[u8], len: u64) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file.as_file().set_len(len).unwrap();
    file
}

fn screened(bytes: &[u8]) -> Result<Screened> {
    screen(file(bytes, bytes.len() as u64).path())
}

fn disk(format: Format, virtual_size: Bytes) -> Screened {
    Screened::Disk { format, virtual_size }
}

#[track_caller]
fn refusal(bytes: &[u8], len: u64) -> String {
    let error = screen(file(bytes, len).path()).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{}", error.chain());
    error.chain()
}

#[track_caller]
fn refused(bytes: &[u8], why: &str) {
    let text = refusal(bytes, bytes.len() as u64);
    assert!(text.contains(why), "{text}");
}

#[test]
fn a_harmless_disk_of_each_format_is_accepted_with_its_size() {
    for (format, bytes) in samples() {
        assert_eq!(screened(&bytes).map_err(|e| e.chain()), Ok(disk(format, Bytes::gib(1))), "{format}");
    }
    for version in [2_u32, 3] {
        let bytes = qcow2(&[(4, &version.to_be_bytes())]);
        assert_eq!(screened(&bytes).unwrap(), disk(Format::Qcow2, Bytes::gib(1)));
    }
    // Compressed with zstd, and with extended L2 entries.
    assert!(screened(&qcow2(&[(79, &[0b1_1000])])).is_ok());
}

#[test]
fn a_qcow2_that_reaches_outside_of_the_file_is_refused() {
    refused(&qcow2(&[(8, &[0, 0, 0, 0, 0, 0, 2, 0])]), "backing file");
    refused(&qcow2(&[(19, &[9])]), "backing file");
    refused(&qcow2(&[(79, &[4])]), "external data file");
    refused(&qcow2(&[(35, &[2])]), "encrypted");
}

#[test]
fn absurd_and_damaged_qcow2_headers_are_refused() {
    refused(&qcow2(&[(24, &[0x7f; 8])]), "512-byte sectors");
    refused(&qcow2(&[(24, &(1_u64 << 60).to_be_bytes())]), "larger than");
    refused(&qcow2(&[(24, &[0; 8])]), "empty");
    refused(&qcow2(&[(36, &[0xff; 4])]), "damaged");
    refused(&qcow2(&[(40, &[0xff; 8])]), "cut short");
    refused(&qcow2(&[(23, &[63])]), "damaged");
    refused(&qcow2(&[(7, &[9])]), "version 9");
    refused(&qcow2(&[(79, &[1])]), "qemu-img check");
    refused(&qcow2(&[(72, &[0x80])]), "not known");
}

#[test]
fn a_vmdk_that_leads_to_other_files_is_refused() {
    let other = |from: &str, to: &str| vmdk(&DESCRIPTION.replace(from, to), &[]);
    let hint = "parentCID=ffffffff\nparentFileNameHint=\"/etc/shadow\"";
    refused(&other("parentCID=ffffffff", hint), "parent");
    refused(&other("parentCID=ffffffff", "parentCID = 12345678"), "parent");
    refused(&other("monolithicSparse", "twoGbMaxExtentSparse"), "twoGbMaxExtentSparse");
    refused(&other("monolithicSparse", "monolithicFlat"), "monolithicFlat");
    let second = "RW 1 FLAT \"/etc/shadow\" 0\nRW 2097152 SPARSE";
    refused(&other("RW 2097152 SPARSE", second), "2 extents");
    // Where qemu looks for a parent, beyond what people see of the description.
    refused(&vmdk(DESCRIPTION, &[(9000, b"parentFileNameHint=\"/etc/shadow\"")]), "parent");
    // Without a size qemu goes by the description alone.
    refused(&vmdk(DESCRIPTION, &[(12, &[0; 8])]), "several files");
    refused(&vmdk(DESCRIPTION, &[(28, &[0; 8])]), "several files");
    refused(&vmdk(DESCRIPTION, &[(28, &[77])]), "description");
    refused(DESCRIPTION.as_bytes(), "in other files");
}

#[test]
fn damaged_vmdk_headers_and_footers_are_refused() {
    refused(&vmdk(DESCRIPTION, &[(4, &[9])]), "version 9");
    refused(&vmdk(DESCRIPTION, &[(77, &[9])]), "compression 9");
    refused(&vmdk(DESCRIPTION, &[(73, b"\n \n\n")]), "as text");
    refused(&vmdk(DESCRIPTION, &[(20, &[0; 8])]), "absurd");
    refused(&vmdk(DESCRIPTION, &[(20, &[0xff; 8])]), "absurd");
    refused(&vmdk(DESCRIPTION, &[(12, &[0xff; 8])]), "absurd");
    refused(&vmdk(DESCRIPTION, &[(64, &[0xff; 8])]), "cut short");
    let end = 129 * 512;
    refused(&streamed(&[(end + 12, &[1])]), "disagree");
    refused(&streamed(&[(end, b"x")]), "cut short");
    refused(&streamed(&[])[..end], "cut short");
}

#[test]
fn a_vhdx_with_a_parent_or_other_sectors_is_refused() {
    let entry = METADATA + 32;
    refused(&vhdx(&[(entry, &guid("a8d35f2d-b30b-454d-abf7-d3d84834ab0c"))]), "differencing");
    refused(&vhdx(&[(METADATA + (64 << 10) + 4, &[2])]), "differencing");
    refused(&vhdx(&[(METADATA + (64 << 10) + 16, &4096_u32.to_le_bytes())]), "4096 bytes");
    refused(&vhdx(&[(entry, &[7; 16])]), "missing");
    refused(&vhdx(&[(entry + 32, &guid("8141bf1d-a96f-4709-ba47-f233a8faab5f"))]), "twice");
    refused(&vhdx(&[(METADATA, b"x")]), "table of metadata");
    refused(&vhdx(&[(METADATA + 10, &[0xff, 0xff])]), "table of metadata");
    refused(&vhdx(&[(192 << 10, b"x")]), "table of regions");
    refused(&vhdx(&[((192 << 10) + 8, &[0xff; 4])]), "table of regions");
    refused(&vhdx(&[((192 << 10) + 32, &[0xff; 8])]), "metadata are missing");
    refused(&vhdx(&[((192 << 10) + 32, &[0; 8])]), "metadata are missing");
}

#[test]
fn a_vdi_with_a_parent_and_damaged_ones_are_refused() {
    refused(&vdi(&[(0x4c, &[4])]), "parent");
    refused(&vdi(&[(0x1b8, &[1])]), "parent");
    refused(&vdi(&[(0x1a8, &[1])]), "parent");
    refused(&vdi(&[(0x44, &[2])]), "version");
    refused(&vdi(&[(0x168, &4096_u32.to_le_bytes())]), "damaged");
    refused(&vdi(&[(0x178, &[1])]), "damaged");
    refused(&vdi(&[(0x180, &[1, 0])]), "damaged");
    refused(&vdi(&[(0x154, &[0xff; 4])]), "cut short");
    refused(&vdi(&[(0x170, &[0xff, 0xff, 0xff, 0x3f])]), "512-byte sectors");
    refused(&vdi(&[(0x200 + 4000, &[0; 4])]), "cut short");
}

#[test]
fn a_vhd_with_a_parent_is_refused_and_a_fixed_one_is_known_by_its_end() {
    refused(&vpc(&[(63, &[4])]), "differencing");
    refused(&vpc(&[(16, &[0xff; 8])]), "cut short");
    refused(&vpc(&[(22, &[0])]), "damaged");
    let fixed = |size: u64| {
        let footer = &vpc(&[(60, &2_u32.to_be_bytes()), (48, &size.to_be_bytes())])[..512];
        [&vec![0; 1 << 20], footer].concat()
    };
    assert_eq!(screened(&fixed(1 << 20)).unwrap(), disk(Format::Vpc, Bytes::mib(1)));
    refused(&fixed(2 << 20), "cut short");
    refused(&fixed(u64::MAX), "cut short");
}

#[test]
fn a_header_that_is_cut_short_anywhere_is_refused() {
    let whole = qcow2(&[]);
    for len in 4..104 {
        let text = refusal(&whole[..len], len as u64);
        assert!(text.contains("cut short"), "{len}: {text}");
    }
    for (format, bytes) in samples() {
        // All that is needed lies before the file's end but for what a sparse file may leave out.
        let needed = match format {
            Format::Qcow2 => 104,
            Format::Vhdx => METADATA + (64 << 10) + 20,
            Format::Vdi => 0x1200,
            _ => bytes.len(),
        };
        for len in (0..needed).step_by(if needed > 4096 { 509 } else { 1 }).chain([needed - 1]) {
            let text = refusal(&bytes[..len], len as u64);
            assert!(text.contains("accept image"), "{format} {len}: {text}");
        }
    }
    assert!(refusal(b"", 0).contains("empty"));
    assert!(refusal(b"QF", 2).contains("cut short"));
}

#[test]
fn a_raw_disk_needs_whole_sectors_and_a_gpt() {
    assert!(refusal(b"x", 1000).contains("512-byte sectors"));
    assert!(refusal(b"x", 1 << 20).contains("no GUID partition table"));
    let mut disk_file = tempfile::NamedTempFile::new().unwrap();
    disk_file.as_file().set_len(64 << 20).unwrap();
    let mut table = gptman::GPT::new_from(disk_file.as_file_mut(), 512, [7; 16]).unwrap();
    table.write_into(disk_file.as_file_mut()).unwrap();
    assert!(screen(disk_file.path()).unwrap_err().chain().contains("without partitions"));
    table[1] = gptman::GPTPartitionEntry {
        partition_type_guid: [1; 16],
        unique_partition_guid: [1; 16],
        starting_lba: 2048,
        ending_lba: 4095,
        ..gptman::GPTPartitionEntry::empty()
    };
    table.write_into(disk_file.as_file_mut()).unwrap();
    assert_eq!(screen(disk_file.path()).unwrap(), disk(Format::Raw, Bytes::mib(64)));
}

#[test]
fn a_raw_disk_with_an_mbr_is_taken_and_one_with_large_sectors_is_refused_by_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(64 << 20).unwrap();
    let mut sector = [0; 66];
    (sector[4], sector[9], sector[13]) = (0x83, 8, 8);
    sector[64..].copy_from_slice(&[0x55, 0xaa]);
    let put =
        |bytes: &[u8], at: u64| std::os::unix::fs::FileExt::write_all_at(file.as_file(), bytes, at).unwrap();
    put(&sector, 446);
    assert_eq!(screen(file.path()).unwrap(), disk(Format::Raw, Bytes::mib(64)));
    put(&[0x53, 0xef], 2048 * 4096 + 1080);
    assert!(screen(file.path()).unwrap_err().chain().contains("an MBR with 4096-byte sectors"));
    put(&[0xee], 450);
    put(b"EFI PART", 4096);
    assert!(screen(file.path()).unwrap_err().chain().contains("a GPT with 4096-byte sectors"));
}

#[test]
fn what_is_packed_is_named_and_only_a_raw_disk_may_be_in_it() {
    let packed = [
        (Packing::Gz, b"\x1f\x8b\x08".as_slice()),
        (Packing::Xz, b"\xfd7zXZ\0"),
        (Packing::Zst, &[0x28, 0xb5, 0x2f, 0xfd]),
        (Packing::Bz2, b"BZh9"),
    ];
    for (packing, start) in packed {
        let found = screen(file(start, 1000).path()).unwrap();
        assert_eq!(found, Screened::Packed { packing, size: Bytes(1000) });
        assert!(only_raw(start).unwrap_err().to_string().contains("packed twice"));
    }
    assert!(only_raw(&[0; 512]).is_ok() && only_raw(b"").is_ok());
    assert!(only_raw(&qcow2(&[])).unwrap_err().to_string().contains("a qcow2 disk is packed in it"));
    assert!(only_raw(&vdi(&[])[..512]).unwrap_err().to_string().contains("a vdi disk"));
}

#[test]
fn other_things_are_refused_with_what_to_do() {
    refused(b"PK\x03\x04 and so on", "zip archive");
    let mut tar = vec![b'x'; 1024];
    put(&mut tar, &[(257, b"ustar")]);
    refused(&tar, "OVA");
    let error = screen(Path::new("/dev/null")).unwrap_err();
    assert!(error.to_string().contains("not a file"));
    assert_eq!(screen(Path::new("/nowhere.img")).unwrap_err().kind(), Kind::Missing);
}

#[test]
fn words_read_back_as_what_was_written() {
    let formats = [Format::Raw, Format::Qcow2, Format::Vmdk, Format::Vhdx, Format::Vdi, Format::Vpc];
    for format in formats {
        assert_eq!(format.to_string().parse::<Format>().unwrap(), format);
        assert_eq!(serde_json::to_value(format).unwrap(), format.to_string());
    }
    for packing in [Packing::Gz, Packing::Xz, Packing::Zst, Packing::Bz2] {
        assert_eq!(packing.to_string().parse::<Packing>().unwrap(), packing);
        assert!(packing.tool().path().starts_with("/usr/bin/"));
    }
    assert!("vhd".parse::<Format>().is_err() && "zip".parse::<Packing>().is_err());
}

/// Makes a disk with qemu-img in a folder, and returns its path.
fn made(folder: &Path, words: &[&str]) -> Option<PathBuf> {
    if !Path::new(Tool::QemuImg.path()).exists() {
        let _ = writeln!(std::io::stdout(), "skipped: needs qemu-img (Debian package qemu-utils)");
        return None;
    }
    let path = folder.join(words.join("").replace([' ', '=', '-'], ""));
    let cmd = Cmd::new(Tool::QemuImg, Duration::from_secs(60)).args(["create", "-q"]).args(words);
    cmd.arg(&path).arg("40M").run().map_err(|e| e.chain()).unwrap();
    Some(path)
}

#[test]
fn what_qemu_img_makes_is_accepted_and_what_has_a_parent_is_not() {
    let folder = tempfile::tempdir().unwrap();
    for (words, format) in [
        (&["-f", "qcow2"][..], Format::Qcow2),
        (&["-f", "qcow2", "-o", "compat=0.10"], Format::Qcow2),
        (&["-f", "vmdk"], Format::Vmdk),
        (&["-f", "vmdk", "-o", "subformat=streamOptimized"], Format::Vmdk),
        (&["-f", "vhdx"], Format::Vhdx),
        (&["-f", "vhdx", "-o", "subformat=fixed"], Format::Vhdx),
        (&["-f", "vdi"], Format::Vdi),
        (&["-f", "vdi", "-o", "static=on"], Format::Vdi),
        (&["-f", "vpc", "-o", "force_size=on"], Format::Vpc),
        (&["-f", "vpc", "-o", "force_size=on,subformat=fixed"], Format::Vpc),
    ] {
        let Some(path) = made(folder.path(), words) else { return };
        assert_eq!(screen(&path).map_err(|e| e.chain()), Ok(disk(format, Bytes::mib(40))), "{words:?}");
    }
    for words in [
        &["-f", "vmdk", "-o", "subformat=monolithicFlat"][..],
        &["-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse"],
    ] {
        let Some(path) = made(folder.path(), words) else { return };
        assert_eq!(screen(&path).unwrap_err().kind(), Kind::Invalid, "{words:?}");
    }
    for format in ["vmdk", "qcow2"] {
        let Some(base) =
            made(folder.path(), &["-f", format, "-o"].iter().take(2).copied().collect::<Vec<_>>())
        else {
            return;
        };
        let (base, child) =
            (base.to_string_lossy().into_owned(), folder.path().join(format!("child.{format}")));
        let words = ["create", "-q", "-f", format, "-b", &base, "-F", format];
        Cmd::new(Tool::QemuImg, Duration::from_secs(60)).args(words).arg(&child).run().unwrap();
        assert_eq!(screen(&child).unwrap_err().kind(), Kind::Invalid, "{format}");
    }
}

proptest! {
    #[test]
    fn noise_behind_a_magic_is_an_answer_and_never_a_panic(
        sample in 0_usize..6,
        changes in prop::collection::vec((0_usize..4096, any::<[u8; 8]>()), 0..12),
        keep in 0.0_f64..=1.0,
    ) {
        let (format, mut bytes) = samples()[sample].clone();
        // Where the numbers of a format are: VHDX has them far behind its beginning.
        let base = match format { Format::Vhdx if keep < 0.5 => METADATA, Format::Vhdx => 192 << 10, _ => 0 };
        for (at, value) in changes {
            let at = (base + at).min(bytes.len() - 8);
            bytes[at..at + 8].copy_from_slice(&value);
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a share of a length")]
        let len = (bytes.len() as f64 * (0.5 + keep / 2.0)) as usize;
        if let Ok(Screened::Disk { virtual_size, .. }) = screened(&bytes[..len]) {
            prop_assert!(virtual_size.0 > 0 && virtual_size <= LARGEST && virtual_size.0 % 512 == 0);
        }
    }

    #[test]
    fn any_bytes_are_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        let _ = screened(&bytes);
        let _ = only_raw(&bytes);
    }
}
