//! Sessions as LIO counts them: a hand-over's two, one that is closed and comes back, and what the disk has done.

use std::{
    fs::OpenOptions,
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use nix::libc::O_DIRECT;
use sheath::{
    error::Kind,
    host::{Counters, DiskCounters, disk::stat},
    model::{Bytes, VolumeId},
    plan::Changed,
};

use crate::{
    blade::{Blade, MIB, said},
    guest::{alone, run, wait_for},
    initiator::{Initiator, Login},
    lvm::pool,
};

/// A buffer at an address that O_DIRECT takes.
#[repr(align(4096))]
struct Aligned([u8; 1 << 16]);

fn counters(blade: &Blade) -> Counters {
    said(blade.lio.counters(&blade.target))
}

fn disk(blade: &Blade) -> DiskCounters {
    said(stat::read("/sys".as_ref(), &blade.backstore.device)).unwrap()
}

/// Logs in a second time under the blade's name, as its operating system does while iPXE's session is still there.
fn hand_over(blade: &Blade) -> Login {
    let initiator = Initiator::new("hand-over", blade.initiator.as_str());
    initiator.login(&blade.target, blade.portal, &blade.credentials()).unwrap()
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_a_hand_over_is_the_latest_session_and_one_older() {
    let _alone = alone();
    let blade = Blade::new(40);
    assert_eq!(counters(&blade), Counters::default(), "nothing there, nothing counted");
    blade.make();
    let first = blade.login();
    let id = blade.session_id().unwrap();
    assert_eq!(counters(&blade).sessions, 1);
    let second = hand_over(&blade);
    let latest = blade.session_id().unwrap();
    assert_ne!(latest, id, "LIO shows the latest");
    assert_eq!((counters(&blade).sessions, counters(&blade).logins), (2, 2));
    drop(first);
    wait_for("the end of the first session", || (counters(&blade).sessions == 1).then_some(()));
    assert_eq!(blade.session_id(), Some(latest));
    drop(second);
    wait_for("the end of the second session", || (counters(&blade).sessions == 0).then_some(()));
    blade.remove();
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_a_dropped_session_is_gone_and_the_initiator_logs_in_again_by_itself() {
    let _alone = alone();
    let blade = Blade::new(41);
    blade.make();
    let login = blade.login();
    let before = blade.export();
    let device = Path::new("/dev").join(login.disk());
    let id = blade.session_id().unwrap();
    let close = |session| said(blade.lio.drop_session(&blade.target, &blade.initiator, session));
    assert_eq!(close(id + 1), Changed::AlreadyTrue, "another session is none of ours to close");
    assert_eq!(blade.session_id(), Some(id));
    assert_eq!(close(id), Changed::Changed);
    assert_ne!(blade.session_id(), Some(id), "it is gone when the step returns");
    let again = wait_for("the login after it", || blade.session_id().filter(|again| *again != id));
    assert_eq!(close(id), Changed::AlreadyTrue);
    assert_eq!(blade.session_id(), Some(again), "the step run twice leaves the new session alone");
    // The disk is the same one, and answers.
    let mut file =
        wait_for("the disk", || OpenOptions::new().read(true).custom_flags(O_DIRECT).open(&device).ok());
    wait_for("a read", || file.read(&mut Box::new(Aligned([0; 1 << 16])).0).ok());
    let mut after = blade.export();
    let session = &mut after.target.as_mut().unwrap().acls.get_mut(blade.initiator.as_str()).unwrap().session;
    session.as_mut().unwrap().id = id;
    assert_eq!(after, before, "nothing else has changed");
    assert_eq!(
        std::fs::read_to_string(blade.tpg(&format!("acls/{}/cmdsn_depth", blade.initiator))).unwrap().trim(),
        "64"
    );
    drop((file, login));
    blade.remove();
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_counters_are_exactly_what_the_blade_did() {
    let _alone = alone();
    let blade = Blade::new(42);
    blade.make();
    let login = blade.login();
    let path = Path::new("/dev").join(login.disk());
    run("udevadm", &["settle"]).unwrap();
    let mut device = OpenOptions::new().read(true).write(true).custom_flags(O_DIRECT).open(&path).unwrap();
    let before = disk(&blade);
    let mut buffer = Box::new(Aligned([0x5a; 1 << 16]));
    for _ in 0..16 {
        device.write_all(&buffer.0).unwrap();
    }
    for _ in 0..8 {
        device.read_exact(&mut buffer.0).unwrap();
    }
    // The kernel counts an operation only when it is over, by then whoever asked for it may have its bytes.
    let operations = |now: &DiskCounters| (now.writes - before.writes, now.reads - before.reads);
    let after = wait_for("the last operation to be counted", || {
        Some(disk(&blade)).filter(|now| operations(now) >= (16, 8))
    });
    assert_eq!(operations(&after), (16, 8), "one operation each");
    assert_eq!(after.written_bytes - before.written_bytes, MIB);
    assert_eq!(after.read_bytes - before.read_bytes, MIB / 2);
    run("blkdiscard", &["--offset", "0", "--length", "1048576", path.to_str().unwrap()]).unwrap();
    assert_eq!(disk(&blade).discarded_bytes - before.discarded_bytes, MIB);
    drop((device, login));
    blade.remove();
}

#[test]
#[ignore = "needs root, LIO and device-mapper in a guest: the lab runs it there"]
fn vm_a_disk_grows_under_a_session_and_the_initiator_sees_it_after_a_rescan() {
    let _alone = alone();
    let (lvm, image, volume) = (pool(), "grown".parse().unwrap(), VolumeId(0x2b00_0001 << 96));
    let size = Bytes::mib(64);
    said(lvm.create_image(&image, size));
    said(lvm.finish_image(&image, true));
    said(lvm.clone(volume, &image, size, &[]));
    let mut blade = Blade::on(43, &lvm.device(&volume.lv_name()));
    blade.backstore.volume = volume;
    blade.make();
    let login = blade.login();
    let session = blade.session_id();
    let path = Path::new("/dev").join(login.disk());
    let mut device = OpenOptions::new().read(true).write(true).custom_flags(O_DIRECT).open(&path).unwrap();
    let mut buffer = Box::new(Aligned([0x77; 1 << 16]));
    device.write_all(&buffer.0).unwrap();
    for (grown, changed) in [(96, Changed::Changed), (96, Changed::AlreadyTrue), (32, Changed::AlreadyTrue)] {
        assert_eq!(said(lvm.enlarge(volume, Bytes::mib(grown))), changed, "{grown}");
    }
    assert_eq!(
        login.sysfs("size"),
        (64 * MIB / 512).to_string(),
        "the initiator knows the old size until it asks"
    );
    run("iscsiadm", &["-m", "session", "-R"]).unwrap();
    let sectors = (96 * MIB / 512).to_string();
    wait_for("the new size", || (login.sysfs("size") == sectors).then_some(()));
    assert_eq!(blade.session_id(), session, "nobody was thrown out");
    device.seek(SeekFrom::Start(0)).unwrap();
    device.read_exact(&mut buffer.0).unwrap();
    assert!(buffer.0.iter().all(|byte| *byte == 0x77), "what was there is there");
    device.seek(SeekFrom::Start(95 * MIB)).unwrap();
    device.write_all(&buffer.0).unwrap();
    let missing = lvm.enlarge(VolumeId(1), size).unwrap_err();
    assert_eq!(missing.kind(), Kind::Missing);
    drop((device, login));
    blade.remove();
    said(lvm.remove(volume));
    said(lvm.remove_image(&image));
}
