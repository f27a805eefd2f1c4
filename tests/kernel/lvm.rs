//! LVM and disks on real device-mapper. One pool on a scratch disk (`SHEATH_TEST_DISK`, `/dev/vda` unless said
//! otherwise) is shared by all tests, each with volumes of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs::{File, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use gptman::{GPT, GPTPartitionEntry};
use sheath::{
    error::Kind,
    host::{
        disk::{cidata::write_seed, gpt, inspect::inspect_disk, loopfile},
        lvm::Lvm,
    },
    model::{Bytes, DiskGuid, DiskProfile, ImageId, Layout, Role, Seed, Tag, Volume, VolumeId, VolumeState},
    plan::{Changed, admit},
};

pub(crate) const VG: &str = "sheathtest";
const CHANGED: Changed = Changed::Changed;
const ALREADY: Changed = Changed::AlreadyTrue;

/// Runs a tool that judges the result or disturbs it.
#[allow(clippy::disallowed_methods, reason = "a hand from outside, not a part of the program")]
pub(crate) fn sh(script: &str) -> String {
    let output = std::process::Command::new("/bin/sh").args(["-c", script]).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8(text).unwrap()
}

fn scratch() -> PathBuf {
    std::env::var_os("SHEATH_TEST_DISK").map_or("/dev/vda".into(), PathBuf::from)
}

/// Returns the pool, made from a blank disk by the first test that asks.
pub(crate) fn pool() -> &'static Lvm {
    static POOL: OnceLock<Lvm> = OnceLock::new();
    POOL.get_or_init(|| {
        let (lvm, disk) = (Lvm::new(VG.parse().unwrap(), "pool".parse().unwrap()), scratch());
        // A process that a test has started finds the pool of that test.
        let Err(none_yet) = lvm.volumes() else { return lvm };
        assert_eq!(none_yet.kind(), Kind::Missing, "{}", none_yet.chain());
        assert_eq!(inspect_disk(&disk).unwrap(), Vec::<String>::new(), "the scratch disk must be blank");
        for expected in [CHANGED, ALREADY] {
            assert_eq!(lvm.make_pv(&disk).unwrap(), expected);
            assert_eq!(lvm.make_vg(&disk).unwrap(), expected);
            assert_eq!(lvm.make_thinpool().unwrap(), expected);
        }
        lvm
    })
}

fn image(name: &str, size: Bytes, fill: usize) -> ImageId {
    image_in(pool(), name, size, fill)
}

/// Makes a finished, published image with a GPT and one partition of `fill` random-looking MiB.
pub(crate) fn image_in(pool: &Lvm, name: &str, size: Bytes, fill: usize) -> ImageId {
    let name: ImageId = name.parse().unwrap();
    let device = pool.create_image(&name, Bytes(size.0 + gpt::SEED_ROOM.0)).unwrap();
    let mut disk = OpenOptions::new().read(true).write(true).open(device).unwrap();
    let mut table = GPT::new_from(&mut disk, 512, [7; 16]).unwrap();
    table[1] = GPTPartitionEntry {
        partition_type_guid: [0x11; 16],
        unique_partition_guid: [1; 16],
        starting_lba: 2048,
        ending_lba: size.0 / 512 - 34,
        attribute_bits: 0,
        partition_name: "root".into(),
    };
    table.write_into(&mut disk).unwrap();
    disk.seek(SeekFrom::Start(1 << 20)).unwrap();
    (0..fill).for_each(|_| disk.write_all(&[0x5a; 1 << 20]).unwrap());
    disk.sync_all().unwrap();
    drop(disk);
    assert_eq!(pool.finish_image(&name, true).unwrap(), CHANGED);
    name
}

fn volume(id: VolumeId) -> Volume {
    pool().volumes().unwrap().volumes[&id.lv_name()].clone()
}

fn tags(image: &ImageId) -> Vec<Tag> {
    vec![Tag::Making, Tag::Image(image.clone())]
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_a_disk_in_use_is_refused_by_what_it_holds() {
    pool();
    let found = inspect_disk(&scratch()).unwrap().join("; ");
    assert!(found.contains("LVM physical volume") && found.contains("carries lvm"), "{found}");
    let other = Lvm::new("other".parse().unwrap(), "pool".parse().unwrap());
    let refused = other.make_pv(&scratch()).unwrap_err();
    assert_eq!(refused.kind(), Kind::Exists);
    assert!(refused.to_string().contains(VG), "{refused}");
    assert_eq!(other.make_vg(&scratch()).unwrap_err().kind(), Kind::Exists);
    assert_eq!(other.make_thinpool().unwrap_err().kind(), Kind::Missing);
    assert_eq!(other.volumes().unwrap_err().kind(), Kind::Missing);
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_the_pool_queues_when_it_is_full_and_shares_small_chunks() {
    pool();
    let shown = sh(&format!("lvs --noheadings -o lv_when_full,chunk_size,zero,discards --units k {VG}/pool"));
    assert_eq!(shown.split_whitespace().collect::<Vec<_>>(), ["queue", "64.00k", "zero", "passdown"]);
    assert!(!Path::new("/etc/lvm/archive").join(format!("{VG}_00000.vg")).exists());
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_an_image_ends_read_only_inactive_and_published() {
    let name = image("finished", Bytes::mib(32), 1);
    let all = pool().volumes().unwrap();
    let found = &all.volumes[&name.lv_name()];
    assert_eq!(found.role, Role::Image { image: name.clone(), published: true, pinned: false, mbr: false });
    assert_eq!((found.state, found.active), (VolumeState::Ready, false));
    assert_eq!(pool().finish_image(&name, true).unwrap(), ALREADY);
    assert_eq!(pool().publish(&name, true).unwrap(), ALREADY);
    assert_eq!(pool().publish(&name, false).unwrap(), CHANGED);
    assert_eq!(pool().publish(&name, false).unwrap(), ALREADY);
    assert_eq!(pool().create_image(&name, Bytes::mib(32)).unwrap_err().kind(), Kind::Exists);
    sh(&format!("lvchange -y -ay -K {VG}/{}", name.lv_name()));
    let device = pool().device(&name.lv_name());
    assert!(OpenOptions::new().write(true).open(&device).and_then(|mut f| f.write_all(&[1; 4096])).is_err());
    assert_eq!(pool().remove_image(&name).unwrap(), CHANGED);
    assert_eq!(pool().remove_image(&name).unwrap(), ALREADY);
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_an_image_that_is_whole_is_put_to_rest_before_anybody_elses_command() {
    let name: ImageId = "restless".parse().unwrap();
    let lv = name.lv_name();
    // With the pool in the kernel udev is not waited for, and without it is.
    let held = image("holds-the-pool", Bytes::mib(32), 1);
    let open = pool().open_image(&held).unwrap();
    let device = pool().create_image_node(&name, Bytes::mib(32)).unwrap();
    assert!(device.starts_with("/dev") && device.file_name().unwrap().to_str().unwrap().starts_with("dm-"));
    OpenOptions::new().write(true).open(&device).unwrap().write_all(&[7; 4096]).unwrap();
    let restless = pool().complete_image(&name, &[Tag::Published]).unwrap();
    let shown = sh(&format!("lvs --noheadings -o lv_tags,lv_permissions,lv_active {VG}/{lv}"));
    assert_eq!(shown.split_whitespace().collect::<Vec<_>>(), ["sheath.published", "writeable", "active"]);
    let (tell, told) = mpsc::channel();
    thread::spawn(move || drop(tell.send(pool().volumes().unwrap())));
    let waits = told.recv_timeout(Duration::from_millis(500));
    assert!(waits.is_err(), "a report was made meanwhile");
    drop(restless);
    let found = told.recv().unwrap().volumes[&lv].clone();
    assert_eq!((found.state, found.active, found.writable), (VolumeState::Ready, false, false));
    // What a kill has left in between is seen, and what is done at the next start does it.
    sh(&format!("lvchange -y --permission rw {VG}/{lv} && lvchange -y -ay -K {VG}/{lv}"));
    assert!(pool().volumes().unwrap().volumes[&lv].writable);
    assert_eq!(pool().finish_image(&name, true).unwrap(), CHANGED);
    let found = pool().volumes().unwrap().volumes[&lv].clone();
    assert!(!found.active && !found.writable, "{found:?}");
    drop(open);
    pool().close_image(&held);
    for image in [&name, &held] {
        assert_eq!(pool().remove_image(image).unwrap(), CHANGED);
    }
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_the_pools_fill_is_the_same_by_the_kernels_word_and_by_lvms() {
    let name = image("fills", Bytes::mib(64), 20);
    let (kernel, lvm) = (pool().usage().unwrap(), pool().volumes().unwrap().pool);
    assert_eq!(kernel.size, lvm.size);
    // Other tests write meanwhile.
    assert!(
        (kernel.data_percent - lvm.data_percent).abs() < 10.0 && kernel.data_percent > 0.0,
        "{kernel:?} {lvm:?}"
    );
    assert!((kernel.metadata_percent - lvm.metadata_percent).abs() < 10.0, "{kernel:?} {lvm:?}");
    assert_eq!(pool().remove_image(&name).unwrap(), CHANGED);
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_a_half_made_image_starts_again_from_zeros_and_cannot_be_cloned() {
    let name: ImageId = "half".parse().unwrap();
    let device = pool().create_image(&name, Bytes::mib(16)).unwrap();
    File::options().write(true).open(&device).unwrap().write_all(&[7; 8192]).unwrap();
    let refused = pool().clone(VolumeId(90), &name, Bytes::mib(16), &tags(&name)).unwrap_err();
    assert_eq!(refused.kind(), Kind::Busy);
    assert_eq!(pool().publish(&name, true).unwrap_err().kind(), Kind::Busy);
    let device = pool().create_image(&name, Bytes::mib(16)).unwrap();
    let mut start = [1; 8192];
    std::io::Read::read_exact(&mut File::open(device).unwrap(), &mut start).unwrap();
    assert_eq!(start, [0; 8192]);
    assert_eq!(pool().remove_image(&name).unwrap(), CHANGED);
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_a_clone_is_tagged_sized_and_active_and_making_it_twice_changes_nothing() {
    let (name, id) = (image("cloned", Bytes::mib(32), 1), VolumeId(1 << 100));
    let size = Bytes::mib(100);
    assert_eq!(pool().clone(id, &name, size, &tags(&name)).unwrap(), CHANGED);
    let made = volume(id);
    assert_eq!((made.state, made.active, made.size), (VolumeState::Making, true, size));
    assert_eq!(made.role, Role::Spare { id, image: name.clone(), profile: None });
    assert_eq!(pool().clone(id, &name, size, &tags(&name)).unwrap(), ALREADY);

    let blade = sheath::model::BladeId("52:54:00:12:34:56".parse().unwrap());
    let owner = [Tag::Blade(blade), Tag::Slot("3".parse().unwrap())];
    for _ in 0..2 {
        pool().tag(id, &owner, &[Tag::Making]).unwrap();
    }
    assert_eq!(pool().tag(id, &[], &[]).unwrap(), ALREADY);
    // Finished: making it again must not mark it as half-made.
    assert_eq!(pool().clone(id, &name, size, &tags(&name)).unwrap(), ALREADY);
    let owned = volume(id);
    assert_eq!(owned.state, VolumeState::Ready);
    assert!(matches!(owned.role, Role::Disk { blade: b, .. } if b == blade));

    // The image may go; the disk stays whole.
    assert_eq!(pool().remove_image(&name).unwrap(), CHANGED);
    let mut content = vec![0; 1 << 20];
    let mut disk = File::open(pool().device(&id.lv_name())).unwrap();
    disk.seek(SeekFrom::Start(1 << 20)).unwrap();
    std::io::Read::read_exact(&mut disk, &mut content).unwrap();
    assert!(content.iter().all(|b| *b == 0x5a));
    drop(disk);
    assert_eq!(pool().remove(id).unwrap(), CHANGED);
    assert_eq!(pool().remove(id).unwrap(), ALREADY);
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_a_clone_that_stopped_half_way_gets_only_what_it_lacks() {
    let (name, id) = (image("resumed", Bytes::mib(16), 1), VolumeId(2 << 100));
    let lv = id.lv_name();
    // As a crash between lvcreate and lvextend, and a restart of the machine, leave it.
    sh(&format!(
        "lvcreate -y -s -ky -n {lv} --addtag {} --addtag sheath.making {VG}/{}",
        Tag::Image(name.clone()),
        name.lv_name()
    ));
    assert!(!volume(id).active);
    let wanted = [tags(&name), vec![Tag::Slot("4".parse().unwrap())]].concat();
    assert_eq!(pool().clone(id, &name, Bytes::mib(64), &wanted).unwrap(), CHANGED);
    let made = volume(id);
    assert_eq!((made.state, made.active, made.size), (VolumeState::Making, true, Bytes::mib(64)));
    assert_eq!(pool().clone(id, &name, Bytes::mib(64), &wanted).unwrap(), ALREADY);

    let other = image("resumed2", Bytes::mib(16), 1);
    let refused = pool().clone(id, &other, Bytes::mib(64), &tags(&other)).unwrap_err();
    assert_eq!(refused.kind(), Kind::Exists);
    let small = pool().clone(VolumeId(91), &name, Bytes::mib(4), &tags(&name)).unwrap_err();
    assert_eq!(small.kind(), Kind::Invalid);
    assert!(
        !pool().volumes().unwrap().volumes.contains_key(&VolumeId(91).lv_name()),
        "refused before it is made"
    );
    pool().remove(id).unwrap();
    pool().remove_image(&name).unwrap();
    pool().remove_image(&other).unwrap();
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_what_is_not_there_is_missing_and_what_is_open_is_busy() {
    let (name, id) = (image("open", Bytes::mib(16), 1), VolumeId(3 << 100));
    let nobody = VolumeId(92);
    assert_eq!(pool().activate(nobody).unwrap_err().kind(), Kind::Missing);
    assert_eq!(pool().tag(nobody, &[Tag::Making], &[]).unwrap_err().kind(), Kind::Missing);
    let none: ImageId = "none".parse().unwrap();
    let missing = pool().clone(nobody, &none, Bytes::mib(16), &tags(&none)).unwrap_err();
    assert_eq!(missing.kind(), Kind::Missing);
    assert!(missing.to_string().contains("'none@1'"));
    assert_eq!(pool().finish_image(&none, true).unwrap_err().kind(), Kind::Missing);

    pool().clone(id, &name, Bytes::mib(32), &tags(&name)).unwrap();
    let held = File::open(pool().device(&id.lv_name())).unwrap();
    let busy = pool().remove(id).unwrap_err();
    assert_eq!(busy.kind(), Kind::Busy, "{}", busy.chain());
    drop(held);
    assert_eq!(pool().remove(id).unwrap(), CHANGED);
    pool().remove_image(&name).unwrap();
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_only_we_activate_a_clone_and_foreign_volumes_are_not_listed() {
    let (name, id) = (image("asleep", Bytes::mib(16), 1), VolumeId(4 << 100));
    pool().clone(id, &name, Bytes::mib(32), &tags(&name)).unwrap();
    assert_eq!(pool().activate(id).unwrap(), ALREADY);
    sh(&format!("lvchange -an {VG}/{}; vgchange -ay {VG}; vgchange -aay {VG}", id.lv_name()));
    assert!(!volume(id).active, "a boot leaves it alone");
    assert_eq!(pool().activate(id).unwrap(), CHANGED);
    assert!(volume(id).active);
    sh(&format!("lvcreate -y -V 16m --thinpool pool -n foreign --addtag sheath.making {VG}"));
    let all = pool().volumes().unwrap().volumes;
    assert!(all.keys().all(|lv| lv.as_str() != "foreign") && all.contains_key(&id.lv_name()));
    sh(&format!("lvremove -y {VG}/foreign"));
    pool().remove(id).unwrap();
    pool().remove_image(&name).unwrap();
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_a_fresh_disk_is_partitioned_and_seeded_and_takes_little_of_the_pool() {
    let (name, id) = (image("whole", Bytes::mib(64), 4), VolumeId(5 << 100));
    pool().clone(id, &name, Bytes::gib(20), &tags(&name)).unwrap();
    let device = pool().device(&id.lv_name());
    let layout = Layout::plain(DiskGuid::from_random(9));
    let seed = Seed {
        instance_id: id.to_string(),
        hostname: "blade3".parse().unwrap(),
        boot_nic: "52:54:00:12:34:56".parse().unwrap(),
        ssh_keys: vec!["ssh-ed25519 AAAA".into()],
        user_data: None,
    };
    let before = volume(id).used_percent.unwrap();
    let begin = std::time::Instant::now();
    for expected in [CHANGED, ALREADY] {
        assert_eq!(gpt::apply_layout(&device, &layout).unwrap(), expected);
        assert_eq!(write_seed(&device, &seed).unwrap(), expected);
    }
    println!("partitioned and seeded twice in {:?}", begin.elapsed());
    let grown = (volume(id).used_percent.unwrap() - before) / 100.0 * (20 << 30) as f32;
    assert!(grown < 1e6, "{grown} bytes of the pool");
    let verified = sh(&format!("sfdisk --verify {}", device.display()));
    assert!(verified.contains("No errors detected"), "{verified}");
    // The kernel and the blade see the seed where cloud-init looks for it.
    let seen = sh(&format!(
        "modprobe -a vfat nls_cp437 nls_ascii; mkdir -p /run/seed
         start=$(sfdisk -d {0} | awk '/CIDATA/ {{ gsub(/[^0-9]/, \"\", $4); print $4 }}')
         l=$(losetup -f --show -o $((512 * start)) --sizelimit 4194304 {0})
         mount -o ro $l /run/seed && cat /run/seed/meta-data && blkid -p $l; umount /run/seed; losetup -d $l",
        device.display()
    ));
    assert!(seen.contains("local-hostname: \"blade3\"") && seen.contains("LABEL=\"CIDATA\""), "{seen}");
    pool().remove(id).unwrap();
    pool().remove_image(&name).unwrap();
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_a_clone_is_laid_out_as_its_profile_says() {
    let (name, id) = (image("profiled", Bytes::mib(64), 4), VolumeId(6 << 100));
    let profile: DiskProfile = "size:2GiB/root:keep/swap:256MiB/data:512MiB/reserve:128MiB".parse().unwrap();
    let size = profile.size.unwrap();
    let like = [Tag::Making, Tag::Image(name.clone()), Tag::Profile(profile)];
    pool().clone(id, &name, size, &like).unwrap();
    assert_eq!(volume(id).role, Role::Spare { id, image: name.clone(), profile: Some(profile) });
    let device = pool().device(&id.lv_name());
    gpt::apply_layout(&device, &profile.layout(DiskGuid::from_random(10))).unwrap();
    // What the world's tool reads: start and size of each partition, in sectors.
    let listed = sh(&format!(
        "sfdisk --dump {} | sed -n 's/.*start= *\\([0-9]*\\), size= *\\([0-9]*\\),.*/\\1 \\2/p'",
        device.display()
    ));
    let mut parts: Vec<(u64, u64)> = listed
        .lines()
        .map(|line| line.split_once(' ').map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap())).unwrap())
        .collect();
    parts.sort_unstable();
    let (mib, disk) = (2048, size.0 / 512);
    let [.., root, swap, data, seed] = parts.as_slice() else { panic!("{listed}") };
    assert!(root.0 + root.1 <= 64 * mib, "root is kept: {listed}");
    assert_eq!((swap.1, data.1, seed.1), (256 * mib, 512 * mib, 4 * mib), "{listed}");
    let free = disk - (seed.0 + seed.1);
    assert!((128 * mib..130 * mib).contains(&free), "{free} sectors are left at the end: {listed}");
    let verified = sh(&format!("sfdisk --verify {}", device.display()));
    assert!(verified.contains("No errors detected"), "{verified}");
    pool().remove(id).unwrap();
    pool().remove_image(&name).unwrap();
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_a_pool_above_its_watermark_admits_nothing() {
    let name = image("filler", Bytes::mib(128), 64);
    let usage = pool().volumes().unwrap().pool;
    assert!(usage.data_percent > 0.0 && usage.metadata_percent > 1.0, "{usage:?}");
    let refused = admit(&usage, 1).unwrap_err();
    assert_eq!(refused.kind(), Kind::Full);
    assert!(admit(&usage, 90).is_ok());
    pool().remove_image(&name).unwrap();
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_a_loop_file_is_attached_once_and_found_again() {
    let path = PathBuf::from("/run/sheath-test.img");
    loopfile::create(&path, Bytes::mib(16)).unwrap();
    let device = loopfile::attach(&path).unwrap();
    assert_eq!(loopfile::attach(&path).unwrap(), device);
    assert_eq!(inspect_disk(&device).unwrap(), Vec::<String>::new());
    sh(&format!("modprobe ext4; mkdir -p /run/old; mkfs.ext2 -q {0}; mount {0} /run/old", device.display()));
    let found = inspect_disk(&device).unwrap().join("; ");
    assert!(found.contains("mounted at '/run/old'") && found.contains("ext2"), "{found}");
    sh("umount /run/old");
    assert_eq!(loopfile::detach(&path).unwrap(), CHANGED);
    assert_eq!(loopfile::detach(&path).unwrap(), ALREADY);
}
