//! LIO through configfs on a real kernel: what only the kernel can refuse, kill, or leave behind. With an initiator logged
//! in: `lio_sessions`.

use std::{fs, os::unix::fs::symlink, path::Path};

use sheath::{
    error::Kind,
    host::ObservedExport,
    model::{Backstore, Bytes, Chap, NopIn},
    plan::Changed,
};

use crate::{
    blade::{Blade, MIB, PREFIX, ROOT, all_already_true, lio, said},
    guest::{Disk, alone, run},
    lvm::{image_in, pool},
};

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_an_export_is_seen_as_it_was_made_and_a_second_run_changes_nothing() {
    let _alone = alone();
    for (number, chap, nopin) in [(1, Chap::OneWay, NopIn::On), (2, Chap::Mutual, NopIn::Off)] {
        let blade = Blade { chap, nopin, ..Blade::new(number) };
        assert_eq!(blade.export(), ObservedExport::default());
        assert!(blade.make().iter().all(|changed| *changed == Changed::Changed));
        assert_eq!(blade.export(), blade.desired());
        assert!(all_already_true(&blade.make()));
        blade.remove();
    }
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_any_stop_can_be_resumed() {
    let _alone = alone();
    let blade = Blade::new(3);
    for stop in 0..7 {
        for number in 0..stop {
            said(blade.step(number).unwrap());
        }
        blade.export();
        blade.make();
        assert_eq!(blade.export(), blade.desired(), "stopped before step {stop}");
        blade.remove();
        assert_eq!(blade.export(), ObservedExport::default());
    }
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_what_a_crash_leaves_between_two_system_calls_is_completed() {
    let _alone = alone();
    let blade = Blade::new(4);
    let hba = format!("{ROOT}/core/iblock_{}", blade.backstore.hba());
    let acl = blade.tpg(&format!("acls/{}", blade.initiator));
    let lun = blade.tpg("lun/lun_0");
    let parts: [&[&str]; 5] = [
        &[&hba],
        &[&hba, &format!("{hba}/{}", blade.backstore.name())],
        &[&format!("{ROOT}/iscsi/{}", blade.target)],
        &[&format!("{ROOT}/iscsi/{}", blade.target), &blade.tpg(""), &lun],
        &[&format!("{ROOT}/iscsi/{}", blade.target), &blade.tpg(""), &lun, &acl, &format!("{acl}/lun_0")],
    ];
    for folders in parts {
        folders.iter().for_each(|folder| fs::create_dir(folder).unwrap());
        blade.export();
        blade.make();
        assert_eq!(blade.export(), blade.desired(), "{folders:?}");
        blade.remove();
    }
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_one_disk_is_never_exported_twice() {
    let _alone = alone();
    let (blade, mut thief) = (Blade::new(13), Blade::new(14));
    blade.make();
    thief.backstore = blade.backstore.clone();
    said(thief.lio.target(&thief.target));
    let error = thief.lio.lun(&thief.target, &thief.backstore).unwrap_err();
    assert_eq!(error.kind(), Kind::Exists, "{}", error.chain());
    assert!(error.chain().contains(blade.target.as_str()), "{}", error.chain());
    let error = blade.lio.remove_backstore(blade.backstore.volume).unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{}", error.chain());
    assert!(error.chain().contains(blade.target.as_str()), "{}", error.chain());
    said(thief.lio.remove_target(&thief.target));
    assert_eq!(blade.export(), blade.desired());
    blade.remove();
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_foreign_targets_and_backstores_survive() {
    let _alone = alone();
    let blade = Blade::new(15);
    let disk = Disk::new("foreign", 16 * MIB);
    let backstore = format!("{ROOT}/core/iblock_{}/theirs", blade.backstore.hba());
    let target = "iqn.2003-01.org.linux-iscsi:Theirs";
    let tpg = format!("{ROOT}/iscsi/{target}/tpgt_3");
    fs::create_dir_all(&backstore).unwrap();
    fs::write(format!("{backstore}/control"), format!("udev_path={}", disk.path().display())).unwrap();
    fs::write(format!("{backstore}/enable"), "1").unwrap();
    fs::create_dir_all(format!("{tpg}/lun/lun_5")).unwrap();
    symlink(&backstore, format!("{tpg}/lun/lun_5/x")).unwrap();
    fs::create_dir(format!("{tpg}/acls")).unwrap_or(());
    fs::create_dir(format!("{tpg}/acls/iqn.1993-08.org.debian:01:abc")).unwrap();
    let before = tree(&tpg);

    assert_eq!(blade.lio.backstore(&blade.backstore).unwrap_err().kind(), Kind::Exists);
    let neighbour = Blade::new(16);
    neighbour.make();
    let listed = said(blade.lio.targets());
    let theirs = listed.iter().find(|summary| summary.target == target).unwrap();
    assert!(!theirs.ours && !theirs.enabled);
    assert_eq!(theirs.initiators, ["iqn.1993-08.org.debian:01:abc"]);
    assert_eq!(theirs.devices.len(), 1);
    let ours = listed.iter().find(|summary| summary.target == neighbour.target.as_str()).unwrap();
    assert!(ours.ours && ours.enabled);
    assert_eq!(ours.devices, std::slice::from_ref(&neighbour.backstore.device));
    assert_eq!(said(blade.lio.remove_backstore(blade.backstore.volume)), Changed::AlreadyTrue);
    neighbour.remove();
    assert_eq!(tree(&tpg), before);

    fs::remove_dir(format!("{tpg}/acls/iqn.1993-08.org.debian:01:abc")).unwrap();
    fs::remove_file(format!("{tpg}/lun/lun_5/x")).unwrap();
    let folders = [format!("{tpg}/lun/lun_5"), tpg, format!("{ROOT}/iscsi/{target}"), backstore];
    folders.iter().for_each(|folder| fs::remove_dir(folder).unwrap());
    fs::remove_dir(format!("{ROOT}/core/iblock_{}", blade.backstore.hba())).unwrap();
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_a_device_without_discard_has_not_drifted() {
    let _alone = alone();
    let blade = Blade::on(18, Path::new("/dev/nullb0"));
    blade.make();
    assert_eq!(blade.export(), blade.desired());
    assert!(all_already_true(&blade.make()));
    blade.remove();
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_a_missing_and_a_busy_device_are_told_apart_and_mended_later() {
    let _alone = alone();
    let missing = Blade::on(19, Path::new("/dev/not-there"));
    let error = missing.lio.backstore(&missing.backstore).unwrap_err();
    assert_eq!(error.kind(), Kind::Missing, "{}", error.chain());
    assert!(error.chain().contains("/dev/not-there"), "{}", error.chain());
    // The same volume under another path, once it is there.
    let blade = Blade::new(19);
    blade.make();
    assert_eq!(blade.export(), blade.desired());
    let other = Blade {
        target: format!("{PREFIX}:b-other").parse().unwrap(),
        ..Blade::on(20, &blade.backstore.device)
    };
    let error = other.lio.backstore(&other.backstore).unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{}", error.chain());
    said(other.lio.remove_backstore(other.backstore.volume));
    blade.remove();
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_a_volume_that_moved_gets_a_new_backstore_unless_it_is_exported() {
    let _alone = alone();
    let (blade, disk) = (Blade::new(21), Disk::new("moved", 32 * MIB));
    blade.make();
    let moved = Backstore { device: disk.path().to_owned(), ..blade.backstore.clone() };
    assert_eq!(blade.lio.backstore(&moved).unwrap_err().kind(), Kind::Busy);
    assert_eq!(blade.export(), blade.desired());
    said(blade.lio.disable(&blade.target));
    said(blade.lio.remove_target(&blade.target));
    assert_eq!(said(blade.lio.backstore(&moved)), Changed::Changed);
    assert_eq!(blade.export().backstore.unwrap().device, moved.device);
    blade.remove();
}

/// Returns every folder and link below a path, and what its `enable` and `attrib` files read.
fn tree(path: &str) -> String {
    run("sh", &["-c", &format!("cd '{path}' && find . | sort && grep -r . enable attrib param")]).unwrap()
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_a_test_that_fails_leaves_nothing_to_the_next() {
    let failed = std::panic::catch_unwind(|| {
        let _alone = alone();
        let blade = Blade::new(9);
        blade.make();
        let image = image_in(pool(), "failed", Bytes::mib(16), 1);
        // Nobody logs out, either.
        std::mem::forget(blade.login());
        panic!("as a test fails that has made all of '{image}'");
    });
    assert!(failed.is_err());
    assert!(!said(lio().targets()).is_empty(), "nothing was there to be left");
    let _alone = alone();
    assert_eq!(said(lio().targets()), []);
    assert!(pool().volumes().unwrap().volumes.is_empty());
    let cores = fs::read_dir(Path::new(ROOT).join("core")).unwrap().flatten();
    let left: Vec<_> = cores.map(|core| core.file_name()).filter(|name| name != "alua").collect();
    assert!(left.is_empty(), "{left:?}");
}
