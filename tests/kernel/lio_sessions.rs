//! LIO with an initiator logged in: who is let in, what a session survives, and what ends it.

use std::{
    fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, symlink},
    path::Path,
};

use sheath::{
    error::Kind,
    host::{MapState, ObservedExport, SessionKind, keys::MasterKey},
    model::{Chap, Credentials, NopIn, Secret, Stray},
    plan::Changed,
};

use crate::{
    blade::{Blade, MIB, PREFIX, ROOT, all_already_true, said},
    guest::{Disk, alone, run, wait_for},
    initiator::Initiator,
};

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_a_blade_logs_in_with_chap_and_has_its_own_disk() {
    let _alone = alone();
    for (number, chap) in [(5, Chap::OneWay), (6, Chap::Mutual)] {
        let blade = Blade { chap, ..Blade::new(number) };
        blade.make();
        let login = blade.login();
        let session = said(blade.lio.session(&blade.target, &blade.initiator)).unwrap();
        assert_eq!(session.kind, SessionKind::Os);
        assert_eq!(session.initiator, blade.initiator.as_str());
        assert_eq!(session.address, Some("127.0.0.1".parse().unwrap()));
        assert_eq!(blade.seen_acl().session, Some(session));

        let name = format!("naa.6001405{}", &blade.backstore.serial()[..25]);
        assert_eq!(login.sysfs("device/wwid"), name);
        assert_eq!(login.sysfs("size"), (64 * MIB / 512).to_string());
        assert_ne!(login.sysfs("queue/discard_max_bytes"), "0", "a blade's discards reach the pool");
        let device = Path::new("/dev").join(login.disk());
        let mut blades_side = fs::OpenOptions::new().write(true).open(device).unwrap();
        blades_side.write_all(b"written by the blade").unwrap();
        blades_side.sync_all().unwrap();
        run("blockdev", &["--flushbufs", blade.backstore.device.to_str().unwrap()]).unwrap();
        assert!(fs::read(blade.disk.as_ref().unwrap().image()).unwrap().starts_with(b"written by the blade"));

        drop((blades_side, login));
        wait_for("the end of the session", || blade.session_id().is_none().then_some(()));
        blade.remove();
    }
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_a_wrong_name_a_wrong_secret_and_a_missing_acl_are_refused() {
    let _alone = alone();
    let blade = Blade { chap: Chap::Mutual, ..Blade::new(7) };
    blade.make();
    let right = blade.credentials();
    let other = MasterKey::from_bytes([8; 32]).credentials(blade.backstore.volume, blade.chap);
    let wrong_password = Credentials { password: other.password.clone(), ..right.clone() };
    let wrong_user = Credentials { user: "somebody".into(), ..right.clone() };
    let lying_target = Credentials {
        mutual: right.mutual.clone().map(|(user, _)| (user, Secret::new("another-target-1".into()))),
        ..right.clone()
    };
    let stranger = format!("{PREFIX}:i-stranger");
    for (what, name, with) in [
        ("name", stranger.as_str(), &right),
        ("password", blade.initiator.as_str(), &wrong_password),
        ("user", blade.initiator.as_str(), &wrong_user),
        ("target's password", blade.initiator.as_str(), &lying_target),
    ] {
        let refused = Initiator::new("refused", name).login(&blade.target, blade.portal, with);
        assert!(refused.is_err(), "wrong {what}");
        assert_eq!(blade.session_id(), None, "wrong {what}");
    }
    let login = blade.login();
    drop(login);
    said(blade.lio.remove_acl(&blade.target, blade.initiator.as_str()));
    let refused =
        Initiator::new("refused", blade.initiator.as_str()).login(&blade.target, blade.portal, &right);
    assert!(refused.err().unwrap().contains("authorization"), "no ACL");
    blade.remove();
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_targets_are_hidden_from_a_discovery() {
    let _alone = alone();
    let blade = Blade::new(8);
    blade.make();
    let found = run("iscsiadm", &["-m", "discovery", "-t", "sendtargets", "-p", &blade.portal.to_string()]);
    assert!(!found.unwrap_or_default().contains(blade.target.as_str()));
    blade.remove();
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_a_dead_mapping_is_found_and_mended() {
    let _alone = alone();
    let blade = Blade::new(9);
    blade.make();
    fs::remove_file(blade.tpg("lun/lun_0/dev")).unwrap();
    assert_eq!(blade.seen_acl().map, MapState::Broken);
    said(blade.lio.lun(&blade.target, &blade.backstore));
    assert_eq!(blade.seen_acl().map, MapState::Broken, "linking the LUN again does not revive its mapping");
    assert_eq!(said(blade.lio.map_lun(&blade.target, &blade.initiator)), Changed::Changed);
    assert_eq!(blade.export(), blade.desired());
    assert_eq!(blade.login().sysfs("size"), (64 * MIB / 512).to_string());
    blade.remove();
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_a_foreign_edit_is_drift_and_is_put_right_in_place() {
    let _alone = alone();
    let blade = Blade::new(10);
    blade.make();
    let login = blade.login();
    let session = blade.session_id();
    let acl = blade.tpg(&format!("acls/{}", blade.initiator));
    let device = format!("{ROOT}/core/iblock_{}/{}", blade.backstore.hba(), blade.backstore.name());
    for (file, value) in [
        (blade.tpg("attrib/authentication"), "0"),
        (blade.tpg("attrib/generate_node_acls"), "1"),
        (blade.tpg("attrib/demo_mode_discovery"), "1"),
        (blade.tpg("attrib/demo_mode_write_protect"), "0"),
        (blade.tpg("attrib/prod_mode_write_protect"), "1"),
        (format!("{acl}/auth/password"), "another"),
        (format!("{acl}/auth/userid_mutual"), "another"),
        (format!("{acl}/attrib/authentication"), "0"),
        (format!("{acl}/attrib/nopin_timeout"), "7"),
        (format!("{acl}/lun_0/write_protect"), "1"),
        (format!("{device}/attrib/emulate_tpu"), "0"),
    ] {
        fs::write(&file, value).unwrap();
        let mut seen = blade.export();
        seen.target.as_mut().unwrap().acls.get_mut(blade.initiator.as_str()).unwrap().session = None;
        assert_ne!(seen, blade.desired(), "{file}");
        assert!(blade.make().contains(&Changed::Changed), "{file}");
        assert!(all_already_true(&blade.make()), "{file}");
    }
    assert_eq!(blade.session_id(), session, "none of it cost the blade its session");
    drop(login);
    wait_for("the end of the session", || blade.session_id().is_none().then_some(()));
    assert_eq!(blade.export(), blade.desired());
    blade.remove();
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_changed_pings_and_credentials_keep_the_session() {
    let _alone = alone();
    let mut blade = Blade::new(11);
    blade.make();
    let login = blade.login();
    let session = blade.session_id().unwrap();
    for (nopin, chap) in [(NopIn::Off, Chap::OneWay), (NopIn::On, Chap::Mutual), (NopIn::On, Chap::OneWay)] {
        blade = Blade { nopin, chap, ..blade };
        assert_eq!(said(blade.lio.acl(&blade.target, &blade.acl())), Changed::Changed);
        assert_eq!(blade.seen_acl().nopin_timeout, nopin.seconds());
        let read = fs::read(Path::new("/dev").join(login.disk())).unwrap();
        assert_eq!(read.len() as u64, 64 * MIB);
    }
    assert_eq!(blade.session_id(), Some(session));
    drop(login);
    let login = blade.login();
    assert!(blade.session_id().is_some_and(|again| again != session), "a new login is a new session");
    drop(login);
    blade.remove();
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_removing_an_acl_closes_its_session_for_good() {
    let _alone = alone();
    let blade = Blade::new(12);
    blade.make();
    let login = blade.login();
    assert!(blade.session_id().is_some());
    assert_eq!(said(blade.lio.remove_acl(&blade.target, blade.initiator.as_str())), Changed::Changed);
    assert_eq!(said(blade.lio.remove_acl(&blade.target, blade.initiator.as_str())), Changed::AlreadyTrue);
    let target = blade.export().target.unwrap();
    assert!(target.enabled && target.acls.is_empty());
    assert_eq!(blade.session_id(), None);
    drop(login);
    blade.remove();
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_teardown_under_a_session_leaves_nothing() {
    let _alone = alone();
    let before = (names("iscsi"), names("core"));
    let blade = Blade::new(17);
    blade.make();
    let _login = blade.login();
    assert!(!is_free(&blade));
    let error = blade.lio.remove_target(&blade.target).unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "an enabled target stays");
    // What somebody added by hand goes too.
    fs::create_dir(blade.tpg("lun/lun_7")).unwrap();
    fs::create_dir(blade.tpg("acls/iqn.1993-08.org.debian:01:abc")).unwrap();
    fs::create_dir(format!("{ROOT}/iscsi/{}/tpgt_2", blade.target)).unwrap();
    said(blade.lio.disable(&blade.target));
    said(blade.lio.remove_target(&blade.target));
    said(blade.lio.remove_backstore(blade.backstore.volume));
    assert_eq!(blade.export(), ObservedExport::default());
    assert_eq!((names("iscsi"), names("core")), before);
    assert!(all_already_true(&blade.remove()));
    assert!(is_free(&blade), "an exported device is held");
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_what_a_hand_added_is_seen_and_goes_and_the_blade_keeps_its_session() {
    let _alone = alone();
    let (blade, disk) = (Blade::new(22), Disk::new("added", 16 * MIB));
    blade.make();
    let login = blade.login();
    let session = blade.session_id();
    let hba = format!("{ROOT}/core/iblock_922");
    let added = format!("{hba}/added");
    fs::create_dir_all(&added).unwrap();
    fs::write(format!("{added}/control"), format!("udev_path={}", disk.path().display())).unwrap();
    fs::write(format!("{added}/enable"), "1").unwrap();
    let (lun, acl) = (blade.tpg("lun/lun_7"), blade.tpg(&format!("acls/{}", blade.initiator)));
    fs::create_dir(&lun).unwrap();
    symlink(&added, format!("{lun}/x")).unwrap();
    fs::create_dir(format!("{acl}/lun_5")).unwrap();
    symlink(&lun, format!("{acl}/lun_5/y")).unwrap();
    fs::create_dir(blade.tpg("np/127.0.0.1:4999")).unwrap();
    fs::create_dir(blade.tpg("np/[::1]:4998")).unwrap();
    let tpg = format!("{ROOT}/iscsi/{}/tpgt_2", blade.target);
    fs::create_dir(&tpg).unwrap();
    fs::write(format!("{tpg}/enable"), "1").unwrap();

    let seen = blade.export().target.unwrap();
    let strays = [
        Stray::MappedLun(blade.initiator.to_string(), "lun_5".into()),
        Stray::Lun("lun_7".into()),
        Stray::Portal("[::1]:4998".into()),
        Stray::Tpg("tpgt_2".into()),
    ];
    assert_eq!(seen.strays, strays.clone().into());
    assert_eq!(seen.portals.len(), 2);
    for stray in strays.iter().chain([&Stray::Portal("127.0.0.1:4999".into())]) {
        assert_eq!(said(blade.lio.remove_stray(&blade.target, stray)), Changed::Changed, "{stray}");
        assert_eq!(said(blade.lio.remove_stray(&blade.target, stray)), Changed::AlreadyTrue, "{stray}");
    }
    for ours in [Stray::Lun("lun_0".into()), Stray::Tpg("tpgt_1".into()), Stray::Lun("../np".into())] {
        assert_eq!(blade.lio.remove_stray(&blade.target, &ours).unwrap_err().kind(), Kind::Invalid, "{ours}");
    }
    assert_eq!(blade.session_id(), session);
    let read = fs::read(Path::new("/dev").join(login.disk())).unwrap();
    assert_eq!(read.len() as u64, 64 * MIB);
    drop(login);
    wait_for("the end of the session", || blade.session_id().is_none().then_some(()));
    assert_eq!(blade.export(), blade.desired());
    blade.remove();
    [added, hba].iter().for_each(|folder| fs::remove_dir(folder).unwrap());
}

/// Returns whether nobody holds the blade's device.
fn is_free(blade: &Blade) -> bool {
    let exclusive = nix::libc::O_EXCL;
    fs::OpenOptions::new().read(true).custom_flags(exclusive).open(&blade.backstore.device).is_ok()
}

/// Returns the names of the folders below LIO's root.
fn names(below: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new(ROOT).join(below)).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
