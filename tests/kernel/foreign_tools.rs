//! Others beside us: targetcli reads our tree, and a configfs that we are not given is told from one without LIO.

use std::{env, fs, process::Command};

use sheath::{
    error::Kind,
    host::{keys::MasterKey, lio::Lio},
};

use crate::{
    blade::{Blade, PREFIX, ROOT},
    guest::{alone, run},
};

/// How configfs is there, for the process that looks.
const VIEW: &str = "SHEATH_CONFIGFS";

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_targetcli_reads_and_saves_our_tree_without_complaint() {
    let _alone = alone();
    let (blade, other) = (Blade::new(50), Blade::new(51));
    for blade in [&blade, &other] {
        blade.make();
    }
    // Debian's targetcli ends every command with a failure where there is no bus.
    run("systemctl", &["start", "dbus"]).unwrap();
    let output = Command::new("targetcli").args(["ls"]).output().unwrap();
    let shown = text(&output.stdout);
    assert!(
        output.status.success() && complaints(&output.stderr).is_empty(),
        "{shown}{}",
        text(&output.stderr)
    );
    for blade in [&blade, &other] {
        for name in [blade.target.as_str(), blade.initiator.as_str(), &blade.backstore.name()] {
            assert!(shown.contains(name), "{name}: {shown}");
        }
        assert!(shown.contains(&blade.portal.to_string()), "{shown}");
    }
    let output = Command::new("targetctl").args(["save", "/run/saved.json"]).output().unwrap();
    assert!(output.status.success() && complaints(&output.stderr).is_empty(), "{}", text(&output.stderr));
    let saved: serde_json::Value = serde_json::from_slice(&fs::read("/run/saved.json").unwrap()).unwrap();
    let has = |list: &str, key: &str, value: &str| {
        saved[list].as_array().unwrap().iter().any(|object| object[key] == value)
    };
    for blade in [blade, other] {
        assert!(has("targets", "wwn", blade.target.as_str()), "{saved}");
        assert!(has("storage_objects", "wwn", &blade.backstore.serial()), "{saved}");
        assert_eq!(blade.export(), blade.desired(), "they only read");
        blade.remove();
    }
}

/// Returns what it says on standard error, but for one thing that is said wherever LIO is not rtslib's alone: Debian's
/// rtslib would like the folder for persistent reservations to be its own, and cannot have it while there are devices.
fn complaints(stderr: &[u8]) -> Vec<String> {
    let known = ["Cannot set dbroot to"];
    let lines = text(stderr).lines().map(str::to_owned).collect::<Vec<_>>();
    lines.into_iter().filter(|line| known.iter().all(|known| !line.contains(known))).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
#[ignore = "a process of the test below, with mounts of its own"]
fn child_looks_at_a_configfs_that_is_wrong() {
    let Ok(view) = env::var(VIEW) else { return };
    let lio = Lio::new(ROOT.into(), PREFIX.parse().unwrap(), MasterKey::from_bytes([7; 32]));
    let error = lio.check().unwrap_err();
    let (kind, words) = match view.as_str() {
        "read-only" => (Kind::Denied, "is read-only): run 'mount -o remount,rw /sys/kernel/config'"),
        "missing" => (Kind::Missing, "mount configfs on '/sys/kernel/config', then 'modprobe"),
        _ => (Kind::Missing, "is not configfs): mount configfs on '/sys/kernel/config'"),
    };
    assert_eq!(error.kind(), kind, "{}", error.chain());
    assert!(error.chain().contains(words), "{}", error.chain());
    if view == "read-only" {
        let error = lio.target(&format!("{PREFIX}:b-52").parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{}", error.chain());
    }
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_a_configfs_that_is_missing_read_only_or_none_is_told_and_nothing_is_lost() {
    let _alone = alone();
    let blade = Blade::new(53);
    blade.make();
    let views = [
        ("read-only", "mount -o remount,bind,ro /sys/kernel/config"),
        ("missing", "umount /sys/kernel/config"),
        ("another", "mount -t tmpfs none /sys/kernel/config && mkdir /sys/kernel/config/target"),
    ];
    for (view, mount) in views {
        let child = env::current_exe().unwrap().display().to_string();
        let name = "foreign_tools::child_looks_at_a_configfs_that_is_wrong";
        let script = format!("{mount} && {VIEW}={view} {child} --ignored --exact {name}");
        let said = run("unshare", &["--mount", "sh", "-c", &script]).unwrap();
        assert!(said.contains("1 passed"), "{view}: {said}");
        assert_eq!(blade.export(), blade.desired(), "{view}");
    }
    blade.remove();
}
