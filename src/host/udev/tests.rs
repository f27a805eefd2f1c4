//! Announcements in a stand-in for `/`, and the shipped rules.

use super::*;

fn properties(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A machine with one volume, `dm-7`, in the group `vg-0`.
fn machine(volume: VolumeId) -> (tempfile::TempDir, Udev) {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    fs::create_dir_all(at("sys/block/dm-7/dm")).unwrap();
    fs::create_dir_all(at("sys/class/net/s1")).unwrap();
    fs::create_dir_all(at("dev/mapper")).unwrap();
    let name = format!("vg--0-sheath--vol--{volume}");
    put(&at("sys/block/dm-7/dm/name"), &format!("{name}\n"));
    put(&at("sys/block/dm-7/dev"), "253:7\n");
    put(&at("sys/block/dm-7/uevent"), "");
    put(&at("sys/class/net/s1/ifindex"), "4\n");
    put(&at("sys/class/net/s1/uevent"), "");
    fs::create_dir_all(at("run/udev/data")).unwrap();
    std::os::unix::fs::symlink("../dm-7", at("dev/mapper").join(name)).unwrap();
    let udev = Udev::new(dir.path(), "vg-0".parse().unwrap());
    (dir, udev)
}

#[allow(clippy::disallowed_methods, reason = "the test plays the kernel")]
fn put(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

#[test]
fn an_announcement_is_written_and_the_device_told_once() {
    let volume = VolumeId(42);
    let (dir, udev) = machine(volume);
    let uevent = dir.path().join("sys/block/dm-7/uevent");
    let wanted = properties(&[("SHEATH_BLADE", "b-525400000001"), ("SHEATH_SLOT", "3")]);
    assert_eq!(udev.announce(volume, &wanted).unwrap(), Changed::Changed);
    let file = dir.path().join("run/sheath/udev").join(volume.lv_name().as_str());
    assert_eq!(fs::read_to_string(&file).unwrap(), "SHEATH_BLADE=b-525400000001\nSHEATH_SLOT=3\n");
    assert_eq!(fs::read_to_string(&uevent).unwrap(), "change");
    put(&uevent, "");
    let known = "S:sheath/slot-3\nE:SHEATH_SLOT=3\nE:DM_NAME=x\nE:SHEATH_BLADE=b-525400000001\nG:sheath\n";
    put(&dir.path().join("run/udev/data/b253:7"), known);
    assert_eq!(udev.announce(volume, &wanted).unwrap(), Changed::AlreadyTrue);
    assert_eq!(fs::read_to_string(&uevent).unwrap(), "");
    assert_eq!(udev.announce(volume, &BTreeMap::new()).unwrap(), Changed::Changed);
    assert!(!file.exists());
    assert_eq!(fs::read_to_string(&uevent).unwrap(), "change");
    assert_eq!(udev.announce(volume, &BTreeMap::new()).unwrap(), Changed::AlreadyTrue);
}

#[test]
fn udev_is_told_again_when_it_does_not_know_what_was_written() {
    let volume = VolumeId(42);
    let (dir, udev) = machine(volume);
    let uevent = dir.path().join("sys/block/dm-7/uevent");
    let wanted = properties(&[("SHEATH_SLOT", "3")]);
    udev.announce(volume, &wanted).unwrap();
    put(&uevent, "");
    put(&dir.path().join("run/udev/data/b253:7"), "E:SHEATH_SLOT=4\n");
    assert_eq!(udev.announce(volume, &wanted).unwrap(), Changed::AlreadyTrue);
    assert_eq!(fs::read_to_string(&uevent).unwrap(), "change");
}

#[test]
fn a_start_makes_good_what_a_stop_left_untold() {
    let volume = VolumeId(42);
    let (dir, udev) = machine(volume);
    assert_eq!(udev.catch_up().unwrap(), 0, "nothing was ever written");
    let uevent = dir.path().join("sys/block/dm-7/uevent");
    udev.announce(volume, &properties(&[("SHEATH_SLOT", "3")])).unwrap();
    udev.announce(VolumeId(43), &properties(&[("SHEATH_SLOT", "4")])).unwrap();
    put(&uevent, "");
    assert_eq!(udev.catch_up().unwrap(), 1, "the other volume has no device");
    assert_eq!(fs::read_to_string(&uevent).unwrap(), "change");
    put(&dir.path().join("run/udev/data/b253:7"), "E:SHEATH_SLOT=3\n");
    assert_eq!(udev.catch_up().unwrap(), 0);
}

#[test]
fn a_volume_without_a_device_is_written_down() {
    let (_dir, udev) = machine(VolumeId(42));
    let wanted = properties(&[("SHEATH_SLOT", "3")]);
    assert_eq!(udev.announce(VolumeId(43), &wanted).unwrap(), Changed::Changed);
}

#[test]
fn a_link_to_somebody_elses_device_is_not_followed() {
    let (dir, udev) = machine(VolumeId(42));
    put(&dir.path().join("sys/block/dm-7/dm/name"), "other-root\n");
    udev.announce(VolumeId(42), &properties(&[("SHEATH_SLOT", "3")])).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("sys/block/dm-7/uevent")).unwrap(), "");
}

#[test]
fn a_port_is_told_its_slot() {
    let (dir, udev) = machine(VolumeId(42));
    let (port, slot) = ("s1".parse().unwrap(), Some("3".parse().unwrap()));
    assert_eq!(udev.announce_port(&port, slot).unwrap(), Changed::Changed);
    assert_eq!(udev.announce_port(&port, slot).unwrap(), Changed::AlreadyTrue);
    let file = dir.path().join("run/sheath/udev/net-s1");
    assert_eq!(fs::read_to_string(&file).unwrap(), "SHEATH_SLOT=3\n");
    assert_eq!(fs::read_to_string(dir.path().join("sys/class/net/s1/uevent")).unwrap(), "change");
    assert_eq!(udev.announce_port(&port, None).unwrap(), Changed::Changed);
    assert!(!file.exists());
}

#[test]
fn nothing_but_plain_words_becomes_a_property() {
    for (key, value) in [
        ("SHEATH_BLADE", "a\nDM_NAME=x"),
        ("SHEATH_BLADE", "a\"b"),
        ("SHEATH_BLADE", "../x"),
        ("SHEATH_BLADE", ""),
        ("SHEATH_BLADE", "a b"),
        ("SHEATH_", "a"),
        ("DM_NAME", "a"),
        ("SHEATH_A=B", "a"),
    ] {
        let error = Udev::new("/nowhere", "vg".parse().unwrap())
            .announce(VolumeId(1), &properties(&[(key, value)]))
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{key}={value}");
    }
}

/// Returns the shipped rules files with their lines joined.
fn rules() -> Vec<(String, Vec<String>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("udev-rules");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "rules"))
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap().replace("\\\n", " ");
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            (path.file_name().unwrap().to_string_lossy().into_owned(), lines.map(str::to_owned).collect())
        })
        .collect();
    files.sort();
    files
}

/// Splits a rule into its `KEY op "value"` parts; a comma separates only outside of quotes.
fn parts(rule: &str) -> Vec<(String, String, String)> {
    let mut parts = vec![];
    let mut rest = rule;
    while !rest.is_empty() {
        let (key_op, quoted) =
            rest.split_once('"').unwrap_or_else(|| panic!("no value in '{rest}' of '{rule}'"));
        let (value, after) = quoted.split_once('"').unwrap_or_else(|| panic!("no end of value in '{rule}'"));
        let at = key_op.find(['=', '!', '+', '-', ':']).unwrap_or_else(|| panic!("no operator in '{rule}'"));
        parts.push((key_op[..at].to_owned(), key_op[at..].to_owned(), value.to_owned()));
        rest = after.strip_prefix(", ").unwrap_or(after);
        assert!(after.is_empty() || after.starts_with(", "), "no comma in '{rule}'");
    }
    parts
}

#[test]
fn every_shipped_rule_is_made_of_keys_operators_and_values() {
    let matches = ["ACTION", "SUBSYSTEM", "ENV", "TAG"];
    let assigns = ["ENV", "TAG", "SYMLINK", "OPTIONS", "IMPORT", "PROGRAM", "GOTO", "LABEL"];
    for (file, lines) in rules() {
        let all: Vec<_> = lines.iter().flat_map(|line| parts(line)).collect();
        for (key, op, value) in &all {
            let (name, attribute) = key.split_once('{').unwrap_or((key, ""));
            assert!(attribute.is_empty() || attribute.ends_with('}'), "{file}: {key}");
            let known = match op.as_str() {
                "==" | "!=" => matches.contains(&name),
                "=" | "+=" | ":=" => assigns.contains(&name),
                _ => false,
            };
            assert!(known, "{file}: {key}{op}\"{value}\"");
            if name == "GOTO" {
                let label = ("LABEL".to_owned(), "=".to_owned(), value.clone());
                assert!(all.contains(&label), "{file}: no LABEL=\"{value}\"");
            }
        }
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the test asks udev itself")]
fn udev_accepts_the_shipped_rules() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("udev-rules");
    let files = rules().into_iter().map(|(name, _)| folder.join(name));
    let Ok(output) = std::process::Command::new("/usr/bin/udevadm").arg("verify").args(files).output() else {
        eprintln!("skipped: udev is not installed");
        return;
    };
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("Unknown command verb") {
        eprintln!("skipped: this udevadm has no 'verify' (systemd 254 brought it)");
        return;
    }
    assert!(output.status.success(), "{text}");
}

#[test]
fn the_rules_read_where_announcements_are_written() {
    let text: String = rules().into_iter().flat_map(|(_, lines)| lines).collect::<Vec<_>>().join("\n");
    assert!(text.contains(&format!("IMPORT{{file}}=\"/{PROPERTIES}/$env{{DM_LV_NAME}}\"")));
    assert!(text.contains(&format!("IMPORT{{file}}=\"/{PROPERTIES}/net-$name\"")));
    assert!(text.contains(VolumeId(0).lv_name().as_str().trim_end_matches('0')));
}

#[test]
fn the_rules_stand_between_those_that_name_a_volume_and_those_that_probe_it() {
    let names: Vec<_> = rules().into_iter().map(|(name, _)| name).collect();
    // Debian's names: 55-dm, 56-lvm, then 60-persistent-storage-dm; systemd's verdict is 99-systemd.
    assert_eq!(names, ["57-sheath-volumes.rules", "71-sheath-ports.rules", "98-sheath-volumes.rules"]);
    assert!("56-lvm.rules" < names[0].as_str() && names[0].as_str() < "60-persistent-storage-dm.rules");
    assert!(names[2].as_str() < "99-systemd.rules");
}
