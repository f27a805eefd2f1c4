//! A LUN of somebody's iSCSI target as a source: LIO in this guest serves it, QEMU's own initiator reads it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use sheath::{error::Kind, image::Cancel};

use crate::{
    guest::alone,
    import::{Lab, Loop, assert_imported, assert_refused, ready},
    lvm::{pool, sh},
};

const IQN: &str = "iqn.2003-01.org.example:donor";
const PORTAL: &str = "127.0.0.1:3269";
const SECRET: &str = "not/for@eyes";
const WRITTEN: &str = "not%2Ffor%40eyes";

/// A target that lets anybody in who knows the secret, to read.
struct Target {
    root: PathBuf,
    _disk: Loop,
}

impl Target {
    fn of(lab: &Lab) -> Self {
        sh("ip link set lo up");
        let disk = lab.disk("exported", 48 << 20);
        lab.sh(&format!("dd if=disk.raw of={} bs=1M status=none && sync", disk.0));
        let root = PathBuf::from("/sys/kernel/config/target");
        let (core, tpg) = (root.join("core/iblock_77/donor"), root.join("iscsi").join(IQN).join("tpgt_1"));
        fs::create_dir_all(&core).unwrap();
        set(&core, "control", &format!("udev_path={},readonly=1", disk.0));
        set(&core, "enable", "1");
        for folder in [tpg.join("lun/lun_0"), tpg.join("np").join(PORTAL)] {
            fs::create_dir_all(folder).unwrap();
        }
        symlink(&core, tpg.join("lun/lun_0/donor")).unwrap();
        for (key, value) in [
            ("attrib/generate_node_acls", "1"),
            ("attrib/authentication", "1"),
            ("auth/userid", "ann"),
            ("auth/password", SECRET),
            ("param/AuthMethod", "CHAP"),
            ("enable", "1"),
        ] {
            set(&tpg, key, value);
        }
        Self { root, _disk: disk }
    }

    fn url(login: &str) -> String {
        format!("iscsi://{login}{PORTAL}/{IQN}/0")
    }
}

fn set(folder: &Path, key: &str, value: &str) {
    fs::write(folder.join(key), value).unwrap_or_else(|e| panic!("{key}: {e}"));
}

impl Drop for Target {
    fn drop(&mut self) {
        sh(&format!(
            "cd {} && cd iscsi/{IQN}/tpgt_1 && echo 0 > enable && unlink lun/lun_0/donor && rmdir lun/lun_0 np/{PORTAL} \
             && cd ../.. && rmdir {IQN}/tpgt_1 {IQN} && rmdir ../core/iblock_77/donor ../core/iblock_77",
            self.root.display()
        ));
    }
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_iscsi_takes_a_lun_and_shows_its_secret_to_nobody() {
    let Some(_turn) = ready() else { return };
    let _alone = alone();
    let lab = Lab::new();
    let _target = Target::of(&lab);
    let (order, seen) =
        (lab.order("a-lun", &Target::url(&format!("ann:{WRITTEN}@"))), AtomicBool::new(false));
    let result = order.run(pool(), &Cancel::default(), &mut |_| {
        let shown = sh("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null; true");
        seen.fetch_or(shown.contains(SECRET) || shown.contains(WRITTEN), Ordering::SeqCst);
    });
    lab.assert_clean(&order.image.name);
    let found = result.map_err(|e| e.chain()).unwrap().0.found;
    assert_eq!(found.source, format!("iscsi://ann@{PORTAL}/{IQN}/0"));
    assert!(!seen.into_inner(), "a command line has the secret");
    assert_imported("a-lun");

    let wrong = lab.import("a-lun", &Target::url("ann:not-the-secret@")).0;
    let text = wrong.as_ref().map_err(sheath::error::Error::chain).unwrap_err().clone();
    assert!(!text.contains("not-the-secret"), "{text}");
    assert_refused(wrong, "a-lun", Kind::Missing, "ask for 'iscsi://ann@127.0.0.1:3269");
    let missing =
        lab.import("a-lun", &Target::url(&format!("ann:{WRITTEN}@")).replace("donor/0", "other/0")).0;
    assert_refused(missing, "a-lun", Kind::Missing, "ask for 'iscsi://");
    assert!(!sh("journalctl -b --no-pager").contains(SECRET));
}
