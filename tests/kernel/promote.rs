//! Promoting on real LVM: a snapshot of a blade's disk becomes an image, whatever kills whom in between, and what is made
//! from it is another machine.

use std::{
    env,
    fs::OpenOptions,
    io::{Read, Seek, SeekFrom, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sheath::{
    error::Kind,
    host::{
        disk::{cidata::write_seed, gpt},
        lvm::Lvm,
    },
    model::{
        BladeId, Bytes, DiskGuid, ExtraPartition, ImageId, Layout, PartitionKind, Role, Seed, Tag, Volume,
        VolumeId, VolumeState,
    },
    plan::{self, Changed, Step},
};

use crate::{
    blade::said,
    guest::alone,
    lvm::{VG, image_in, pool, sh},
};

/// What the child promotes, and before which of its steps it kills itself.
const ORDER: &str = "SHEATH_PROMOTE";
const DISK: VolumeId = VolumeId(0x50 << 100);
const DISK_SIZE: Bytes = Bytes::mib(128);

fn blade(n: u8) -> BladeId {
    BladeId(format!("52:54:00:50:00:{n:02x}").parse().unwrap())
}

fn found(lv: &str) -> Option<Volume> {
    pool().volumes().unwrap().volumes.get(&lv.parse().unwrap()).cloned()
}

fn state(image: &ImageId) -> Option<VolumeState> {
    found(image.lv_name().as_str()).map(|volume| volume.state)
}

/// Makes a blade's disk of the image, whole, with swap and data of its own.
fn disk_of(image: &ImageId, volume: VolumeId, number: u8) -> Layout {
    let extra = [(PartitionKind::Swap, 8), (PartitionKind::Data, 16)];
    let extra = extra.map(|(kind, mib)| ExtraPartition { kind, size: Bytes::mib(mib) }).into();
    let layout = Layout { extra, ..Layout::plain(DiskGuid::from_random(volume.0)) };
    let (owner, slot) = (Tag::Blade(blade(number)), Tag::Slot(number.to_string().parse().unwrap()));
    let tags = [Tag::Making, Tag::Image(image.clone()), owner, slot];
    pool().clone(volume, image, DISK_SIZE, &tags).unwrap();
    let device = pool().device(&volume.lv_name());
    gpt::apply_layout(&device, &layout).unwrap();
    let seed = Seed {
        instance_id: format!("i-{number}"),
        hostname: format!("blade{number}").parse().unwrap(),
        boot_nic: blade(number).0,
        ssh_keys: vec![],
        user_data: None,
    };
    write_seed(&device, &seed).unwrap();
    pool().tag(volume, &[], &[Tag::Making]).unwrap();
    layout
}

fn write(device: &Path, at: u64, bytes: &[u8]) {
    let mut disk = OpenOptions::new().write(true).open(device).unwrap();
    disk.seek(SeekFrom::Start(at)).unwrap();
    disk.write_all(bytes).unwrap();
    disk.sync_all().unwrap();
}

fn read(device: &Path, at: u64) -> [u8; 4096] {
    let (mut disk, mut bytes) = (OpenOptions::new().read(true).open(device).unwrap(), [0; 4096]);
    disk.seek(SeekFrom::Start(at)).unwrap();
    disk.read_exact(&mut bytes).unwrap();
    bytes
}

fn steps(image: &ImageId) -> Vec<Step> {
    plan::promote(&found(DISK.lv_name().as_str()).unwrap(), image, true).unwrap()
}

fn run_all(image: &ImageId) {
    for step in steps(image) {
        run(&step).unwrap_or_else(|error| panic!("{}", error.chain()));
    }
}

fn run(step: &Step) -> sheath::error::Result<Changed> {
    match step {
        Step::Promote { image, volume } => pool().promote(image, *volume),
        Step::TagImage { image, add, remove } => pool().tag_image(image, add, remove),
        other => panic!("no step of a promotion: {other}"),
    }
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_versions_have_volumes_of_their_own_and_clones_know_theirs() {
    let _alone = alone();
    let (first, third) =
        (image_in(pool(), "web", Bytes::mib(16), 1), image_in(pool(), "web@3", Bytes::mib(16), 1));
    assert_eq!((first.lv_name().as_str(), third.lv_name().as_str()), ("sheath-img-web", "sheath-img-web+3"));
    let id = VolumeId(0x51 << 100);
    let tags = [Tag::Making, Tag::Image(third.clone())];
    pool().clone(id, &third, Bytes::mib(32), &tags).unwrap();
    assert_eq!(pool().clone(id, &first, Bytes::mib(32), &tags).unwrap_err().kind(), Kind::Exists);
    let clone = found(id.lv_name().as_str()).unwrap();
    assert_eq!(clone.role, Role::Spare { id, image: third.clone(), profile: None });
    assert_eq!(
        sh(&format!("lvs --noheadings -o lv_tags {VG}/{} | xargs", id.lv_name())),
        "sheath.image=web:3,sheath.making\n"
    );
    pool().tag_image(&third, &[Tag::Default], &[]).unwrap();
    let pinned = found("sheath-img-web+3").unwrap();
    assert_eq!(pinned.role, Role::Image { image: third.clone(), published: true, pinned: true, mbr: false });
    // As an agent of before has made them: the tag has no version.
    sh(&format!("lvchange --deltag sheath.image=web:3 --addtag sheath.image=web {VG}/{}", id.lv_name()));
    assert_eq!(
        found(id.lv_name().as_str()).unwrap().role,
        Role::Spare { id, image: first.clone(), profile: None }
    );
    pool().remove(id).unwrap();
    pool().remove_image(&first).unwrap();
    pool().remove_image(&third).unwrap();
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_a_promoted_disk_is_an_image_and_a_blade_made_from_it_comes_up_as_itself() {
    let _alone = alone();
    let golden = image_in(pool(), "prom", Bytes::mib(32), 1);
    let image: ImageId = "prom@2".parse().unwrap();
    let layout = disk_of(&golden, DISK, 1);
    let device = pool().device(&DISK.lv_name());
    write(&device, 24 << 20, &[0xa1; 4096]);
    let before = pool().volumes().unwrap().pool.data_percent;
    let begin = Instant::now();
    for step in steps(&image) {
        assert_eq!(run(&step).unwrap(), Changed::Changed);
    }
    let (ours, begin) = (begin.elapsed(), Instant::now());
    sh(&format!("lvcreate -qq -s -n hand {VG}/{}", DISK.lv_name()));
    println!(
        "promoted in {ours:?}, a look at the volumes included; lvcreate -s alone takes {:?}",
        begin.elapsed()
    );
    sh(&format!("lvremove -qq -y {VG}/hand"));
    let made = found(image.lv_name().as_str()).unwrap();
    assert_eq!((made.state, made.active, made.size), (VolumeState::Ready, false, DISK_SIZE));
    assert_eq!(made.role, Role::Image { image: image.clone(), published: true, pinned: false, mbr: false });
    let pool_before = before;
    assert!((pool().volumes().unwrap().pool.data_percent - pool_before).abs() < 0.2, "nothing is copied");
    assert_eq!(pool().promote(&image, DISK).unwrap_err().kind(), Kind::Exists);

    // The blade goes on; the image does not.
    write(&device, 24 << 20, &[0xb2; 4096]);
    let third = VolumeId(0x53 << 100);
    let own = disk_of(&image, third, 3);
    let clone = pool().device(&third.lv_name());
    assert_eq!((read(&clone, 24 << 20), read(&device, 24 << 20)), ([0xa1; 4096], [0xb2; 4096]));
    // The same size, with the same partitions, and nothing of the first blade in the table or in the seed.
    let table = sh(&format!("sfdisk --verify {0}; sfdisk -d {0}", clone.display()));
    let guid = own.guid.to_string();
    assert!(table.contains("No errors detected") && table.contains(&guid), "{table}");
    assert!(!table.contains(&layout.guid.to_string()));
    for name in ["CIDATA", "swap", "data", "root"] {
        assert_eq!(table.matches(&format!("name=\"{name}\"")).count(), 1, "{name}: {table}");
    }
    let seeds = sh(&format!("grep -aoE 'blade[13]' {} | sort -u", clone.display()));
    assert_eq!(seeds, "blade3\n");
    pool().remove(third).unwrap();
    pool().remove(DISK).unwrap();
    pool().remove_image(&image).unwrap();
    pool().remove_image(&golden).unwrap();
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_what_an_image_takes_and_would_free_is_counted() {
    let _alone = alone();
    let golden = image_in(pool(), "space", Bytes::mib(32), 8);
    disk_of(&golden, DISK, 1);
    let space = || pool().space().unwrap_or_else(|error| panic!("{}", error.chain()));
    let of = |image: &ImageId| space()[&image.lv_name()];
    let before = of(&golden);
    assert!((Bytes::mib(8)..Bytes::mib(10)).contains(&before.mapped), "{before:?}");
    assert!(before.own < Bytes::mib(1), "its clone shares the rest: {before:?}");
    pool().remove(DISK).unwrap();
    let alone = of(&golden);
    assert_eq!(alone.mapped, alone.own);
    assert!(space().contains_key(&golden.lv_name()), "the pool's metadata were let go");
    sh(&format!("dmsetup message {VG}-pool-tpool 0 reserve_metadata_snap"));
    let held = pool().space().unwrap_err();
    assert_eq!(held.kind(), Kind::Busy, "{}", held.chain());
    sh(&format!("dmsetup message {VG}-pool-tpool 0 release_metadata_snap"));
    assert!(pool().space().is_ok());
    pool().remove_image(&golden).unwrap();
}

#[test]
#[ignore = "a process of the tests below, which start it and see it killed"]
fn child_promotes_until_it_is_killed() {
    let Ok(order) = env::var(ORDER) else { return };
    let (image, victim) = order.split_once(' ').unwrap();
    for (n, step) in steps(&image.parse().unwrap()).iter().enumerate() {
        if n.to_string() == victim {
            kill(Pid::this(), Signal::SIGKILL).unwrap();
        }
        run(step).unwrap_or_else(|error| panic!("{}", error.chain()));
    }
}

fn child(image: &ImageId, victim: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "promote::child_promotes_until_it_is_killed"])
        .env(ORDER, format!("{image} {victim}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_a_promotion_killed_between_its_steps_leaves_nothing_or_an_image() {
    let _alone = alone();
    let golden = image_in(pool(), "killed", Bytes::mib(32), 1);
    let image: ImageId = "killed@2".parse().unwrap();
    disk_of(&golden, DISK, 1);
    let device = pool().device(&DISK.lv_name());
    for (victim, left) in [("0", None), ("1", Some(VolumeState::Making)), ("none", Some(VolumeState::Ready))]
    {
        let status = child(&image, victim).status().unwrap();
        assert_eq!(status.signal(), (victim != "none").then_some(9), "killed before step {victim}");
        assert_eq!(state(&image), left, "killed before step {victim}");
        let refused =
            pool().clone(VolumeId(93), &image, DISK_SIZE, &[Tag::Making, Tag::Image(image.clone())]);
        match left {
            None => assert_eq!(refused.unwrap_err().kind(), Kind::Missing),
            Some(VolumeState::Making) => assert_eq!(refused.unwrap_err().kind(), Kind::Busy),
            Some(VolumeState::Ready) => drop(refused.unwrap()),
        }
    }
    pool().remove(VolumeId(93)).unwrap();
    pool().remove_image(&image).unwrap();
    // What was left half-made is never finished: it is of the moment of the kill, not of the one that was asked for.
    child(&image, "1").status().unwrap();
    write(&device, 24 << 20, &[0xc3; 4096]);
    run_all(&image);
    sh(&format!("lvchange -ay -K {VG}/{}", image.lv_name()));
    assert_eq!(read(&pool().device(&image.lv_name()), 24 << 20), [0xc3; 4096]);
    pool().remove_image(&image).unwrap();
    pool().remove(DISK).unwrap();
    pool().remove_image(&golden).unwrap();
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_a_promotion_killed_with_lvm_itself_at_any_moment_can_be_done_again() {
    let _alone = alone();
    let golden = image_in(pool(), "anytime", Bytes::mib(32), 1);
    let image: ImageId = "anytime@2".parse().unwrap();
    disk_of(&golden, DISK, 1);
    let begin = Instant::now();
    assert!(child(&image, "none").status().unwrap().success());
    let whole = begin.elapsed();
    pool().remove_image(&image).unwrap();
    let mut left = vec![];
    for tenth in 0..10 {
        let mut process = child(&image, "none").spawn().unwrap();
        std::thread::sleep(whole * tenth / 10 + Duration::from_millis(5));
        // Every process of it: LVM's commands have a process group of their own.
        sh("pkill -9 -x lvm");
        process.kill().unwrap();
        process.wait().unwrap();
        left.push(state(&image));
        if state(&image) == Some(VolumeState::Ready) {
            pool().remove_image(&image).unwrap();
        }
        run_all(&image);
        assert_eq!(state(&image), Some(VolumeState::Ready));
        pool().remove_image(&image).unwrap();
    }
    println!("left after kills at tenths of {whole:?}: {left:?}");
    pool().remove(DISK).unwrap();
    pool().remove_image(&golden).unwrap();
}

/// A snapshot as the agent makes it.
fn snapshot(image: &ImageId) -> String {
    let config = "backup { backup=0 archive=0 } activation { monitoring=0 }";
    let (lv, disk) = (image.lv_name(), DISK.lv_name());
    format!("lvm lvcreate -y --config '{config}' -s -ky -an -pr -n {lv} --addtag {} {VG}/{disk}", Tag::Making)
}

/// Returns which of LVM's system calls comes when the disk is suspended and the pool not told, told half, and told.
fn moments(image: &ImageId) -> [usize; 3] {
    sh(&format!("strace -f -e trace=ioctl -o /run/trace {}", snapshot(image)));
    pool().remove_image(image).unwrap();
    let trace = std::fs::read_to_string("/run/trace").unwrap();
    let calls = (1..).zip(trace.lines().filter(|line| line.contains("ioctl(")));
    let mut messages = calls.filter(|(_, line)| line.contains("DM_TARGET_MSG")).map(|(nth, _)| nth);
    let (create, end) = (messages.next().unwrap(), messages.next().unwrap());
    [create, end, end + 1]
}

/// Makes the snapshot, and has LVM killed as it enters its nth call.
fn kill_at(nth: usize, image: &ImageId) {
    let inject = format!("-e trace=ioctl -e inject=ioctl:signal=KILL:when={nth}");
    sh(&format!("strace -f -o /dev/null {inject} {}", snapshot(image)));
    assert_eq!(state(image), Some(VolumeState::Making));
    assert_eq!(suspended(), format!("{VG}-{}\n", DISK.lv_name().as_str().replace('-', "--")));
}

fn suspended() -> String {
    sh("dmsetup info -c --noheadings -o name,suspended | sed -n 's/:Suspended//p'")
}

/// Returns LVM's number of the pool's transactions, and the kernel's.
fn transactions() -> (String, String) {
    let lvm = sh(&format!("lvs --noheadings -o transaction_id {VG}/pool"));
    let kernel = sh(&format!("dmsetup status {VG}-pool-tpool | cut -d' ' -f4"));
    (lvm.trim().to_owned(), kernel.trim().to_owned())
}

fn assert_sound(killed: &str) {
    let (lvm, kernel) = transactions();
    assert_eq!((lvm.as_str(), suspended().as_str()), (kernel.as_str(), ""), "{killed}");
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_a_pool_is_sound_after_lvm_was_killed_at_its_worst_moments() {
    let _alone = alone();
    let golden = image_in(pool(), "worst", Bytes::mib(32), 1);
    let [image, other] = ["worst@2", "worst@3"].map(|name| name.parse::<ImageId>().unwrap());
    disk_of(&golden, DISK, 1);
    let device = pool().device(&DISK.lv_name());
    for (nth, killed) in moments(&image).into_iter().zip(["not told", "told half", "told"]) {
        kill_at(nth, &image);
        // What is half-made is found by who makes it again.
        assert_eq!(said(pool().promote(&image, DISK)), Changed::Changed, "{killed}");
        assert_sound(killed);
        write(&device, 24 << 20, &[0xd4; 4096]);
        pool().remove_image(&image).unwrap();

        kill_at(nth, &image);
        // An agent that has just started does not know of it.
        let agent = Lvm::new(VG.parse().unwrap(), "pool".parse().unwrap());
        assert_eq!(said(agent.promote(&other, DISK)), Changed::Changed, "{killed}, unknown");
        assert_sound(killed);
        write(&device, 24 << 20, &[0xd5; 4096]);
        pool().remove_image(&other).unwrap();
        pool().remove_image(&image).unwrap();
        assert_sound(killed);
    }
    pool().remove(DISK).unwrap();
    pool().remove_image(&golden).unwrap();
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_a_pool_that_lvm_is_ahead_of_is_told_and_mended_as_it_is_told() {
    let _alone = alone();
    let golden = image_in(pool(), "ahead", Bytes::mib(32), 1);
    let image: ImageId = "ahead@2".parse().unwrap();
    disk_of(&golden, DISK, 1);
    let (_, kernel) = transactions();
    let set = |to: u64| {
        let pools = "/type = \"thin-pool\"/,/chunk_size/";
        let edit = format!("{pools} s/transaction_id = [0-9]*/transaction_id = {to}/");
        let file = format!("/root/{VG}.lvm");
        sh(&format!(
            "vgcfgbackup -f {file} {VG} && sed -i '{edit}' {file} && vgcfgrestore --yes --force -f {file} {VG}"
        ))
    };
    let kernel: u64 = kernel.parse().unwrap();
    set(kernel + 1);
    let told = pool().promote(&image, DISK).unwrap_err().to_string();
    assert!(told.contains(&format!("set transaction_id of 'pool' in /root/{VG}.lvm to {kernel}")), "{told}");
    let mended = set(kernel);
    assert_eq!(said(pool().promote(&image, DISK)), Changed::Changed, "{mended}");
    assert_sound("mended");
    pool().remove_image(&image).unwrap();
    pool().remove(DISK).unwrap();
    pool().remove_image(&golden).unwrap();
}
