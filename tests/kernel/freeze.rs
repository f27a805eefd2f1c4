//! A running machine whose file systems stand still while its disk is taken: a real sshd, fsfreeze on this guest's own disks.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use sheath::{
    error::{Kind, Result},
    image::Freeze,
};

use crate::{
    guest::run,
    import::ready,
    import_ssh::{Donor, PORT},
    lvm::sh,
};

const MOUNT: &str = "/run/freeze test";

/// Freezes, writes to a file system meanwhile, and releases after so long; returns whether all stood still until then, and
/// whether the write had come through before.
fn freeze(donor: &Donor, hold: Duration) -> (Result<bool>, bool) {
    let order = Freeze {
        image: "a-freeze".parse().unwrap(),
        user: "root".into(),
        address: "127.0.0.1".parse().unwrap(),
        port: PORT,
        folder: donor.lab.path("frozen"),
        keys: donor.keys.clone(),
    };
    let (release, released) = mpsc::channel();
    let (mut release, mut writer, mut before) = (Some(release), None, false);
    let written = Arc::new(AtomicBool::new(false));
    let ended = order.run(
        &mut || {
            let tell = Arc::clone(&written);
            writer = Some(thread::spawn(move || {
                fs::write(format!("{MOUNT}/x"), "x").unwrap();
                tell.store(true, Ordering::SeqCst);
            }));
            thread::sleep(hold);
            before = written.load(Ordering::SeqCst);
            release = None;
        },
        &released,
    );
    if let Some(writer) = writer {
        writer.join().unwrap();
    }
    (ended, before)
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_freeze_holds_a_machine_until_it_is_released_and_never_for_long() {
    let Some(_turn) = ready() else { return };
    let donor = Donor::new();
    let disk = donor.lab.disk("scratch", 32 << 20);
    fs::create_dir_all(MOUNT).unwrap();
    sh(&format!("mkfs.ext4 -q {}", disk.0));
    run("mount", &[&disk.0, MOUNT]).unwrap();
    let (ended, before) = freeze(&donor, Duration::from_secs(2));
    let (late, thawed) = freeze(&donor, Duration::from_secs(34));
    fs::write(donor.lab.path("authorized"), "").unwrap();
    let (refused, _) = freeze(&donor, Duration::ZERO);
    run("umount", &[MOUNT]).unwrap();
    assert!(ended.map_err(|e| e.chain()).unwrap() && !before, "it was written to meanwhile");
    assert!(!late.map_err(|e| e.chain()).unwrap() && thawed, "it thaws by itself, and says so");
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.to_string().contains("ssh-ed25519 AAAA"), "{error}");
}
