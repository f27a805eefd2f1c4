//! What the package ships for systemd and udev: units as tight as promised, paths that agree with the package's list of
//! files, no directive that breaks LIO or LVM, and no way for one service to take a blade's disk away with it.
//!
//! systemd's own tools judge where they are installed; without them a test says so and passes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Unit, and the highest exposure (tenths) that `systemd-analyze security` may give it.
const UNITS: &[(&str, u32)] =
    &[("sheathd", 35), ("sheath-bootd", 15), ("sheath-dnsmasq", 25), ("sheath-loop", 40)];

/// What must not stand in the agent's unit, and what it would break.
const BREAKS_THE_AGENT: &[(&str, &str)] = &[
    ("ProtectKernelTunables", "configfs becomes read-only"),
    ("PrivateDevices", "volumes and /dev/mapper disappear"),
    ("ProtectKernelLogs", "refused logins have no cause: /dev/kmsg is hidden"),
    ("PrivateNetwork", "LIO's portals are made in an empty network"),
    ("PrivateIPC", "lvm waits for udev's semaphore for ever"),
    ("PrivateUsers", "configfs and device-mapper refuse"),
    (
        "IPAddressDeny",
        "the filter applies to LIO's portal sockets: they are made in the agent's control group",
    ),
    ("MemoryMax", "LIO's socket memory is charged to the agent's control group"),
    ("ExecStop", "stopping leaves kernel objects alone"),
    ("ExecStopPost", "stopping leaves kernel objects alone"),
];

/// What gives a service a mount namespace of its own.
const MOUNT_NAMESPACE: &[&str] = &[
    "BindPaths",
    "BindReadOnlyPaths",
    "DynamicUser",
    "InaccessiblePaths",
    "PrivateDevices",
    "PrivateMounts",
    "PrivateNetwork",
    "PrivateTmp",
    "ProcSubset",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectProc",
    "ProtectSystem",
    "ReadOnlyPaths",
    "ReadWritePaths",
    "RuntimeDirectory",
    "StateDirectory",
    "TemporaryFileSystem",
];

/// Directives that would make a service stop, or fail to start, because the agent does.
const TIES: &[&str] = &["Requires", "Requisite", "BindsTo", "PartOf", "StopPropagatedFrom"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("read '{path}': {e}"))
}

/// A unit file: directive to its values, in order.
fn unit(name: &str) -> BTreeMap<String, Vec<String>> {
    let mut unit: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in read(&format!("systemd/{name}.service")).lines() {
        if line.starts_with(['#', '[']) || line.is_empty() {
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{name}: not a directive: {line}"));
        unit.entry(key.to_owned()).or_default().push(value.to_owned());
    }
    unit
}

/// The package's list of files: source to the path where it is installed. A `*` stays one.
fn assets() -> BTreeMap<String, String> {
    let manifest: toml::Table = read("Cargo.toml").parse().expect("Cargo.toml is TOML");
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().expect("a list of assets");
    let pair = |row: &toml::Value| {
        let text = |i: usize| row[i].as_str().expect("an asset is three texts").to_owned();
        let (from, mut to) = (text(0), text(1));
        if to.ends_with('/') {
            to += from.rsplit('/').next().expect("a path has a last part");
        }
        (from, format!("/{to}"))
    };
    assets.iter().map(pair).collect()
}

/// Runs a tool, if it is installed.
fn run(tool: &str, args: &[&str]) -> Option<Output> {
    #[allow(
        clippy::disallowed_methods,
        reason = "a test asks systemd's own tools; nothing of the product is started"
    )]
    let output = Command::new(tool).args(args).output();
    #[allow(clippy::print_stdout, reason = "a skipped test says why")]
    if output.is_err() {
        println!("skipped: {tool} is not installed");
    }
    output.ok()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn every_unit_is_in_the_table_of_exposures() {
    let folder = fs::read_dir(root().join("systemd")).expect("the folder is there");
    let files = folder.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned());
    let units: BTreeSet<_> =
        files.filter_map(|name| name.strip_suffix(".service").map(str::to_owned)).collect();
    assert_eq!(units, UNITS.iter().map(|row| row.0.to_owned()).collect());
}

#[test]
fn no_unit_is_more_exposed_than_promised() {
    for (name, threshold) in UNITS {
        let file = root().join(format!("systemd/{name}.service"));
        let threshold = format!("--threshold={threshold}");
        let args = ["security", "--offline=true", "--no-pager", &threshold, &file.to_string_lossy()];
        let Some(output) = run("systemd-analyze", &args) else { return };
        assert!(output.status.success(), "{name}: {}", said(&output).lines().last().unwrap_or_default());
    }
}

#[test]
fn systemd_finds_no_fault_in_any_unit() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut args = vec!["verify".to_owned(), "--man=no".to_owned()];
    for (name, _) in UNITS {
        // The programs are not installed here; `/bin/true` stands in.
        let stand_in = |line: &str| match line.split_once('=') {
            Some((key @ "ExecStart", _)) => format!("{key}=/bin/true\n"),
            _ => format!("{line}\n"),
        };
        let text: String = read(&format!("systemd/{name}.service")).lines().map(stand_in).collect();
        let path = dir.path().join(format!("{name}.service"));
        #[allow(clippy::disallowed_methods, reason = "a scratch file of a test needs no fsync")]
        fs::write(&path, text).expect("the temporary folder is writable");
        args.push(path.to_string_lossy().into_owned());
    }
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let Some(output) = run("systemd-analyze", &args) else { return };
    assert!(output.status.success() && said(&output).is_empty(), "{}", said(&output));
}

#[test]
fn each_unit_starts_a_program_that_the_package_installs_or_depends_on() {
    let installed: BTreeSet<_> = assets().into_values().collect();
    for (name, _) in UNITS {
        let start = unit(name)["ExecStart"][0].split(' ').next().expect("a command").to_owned();
        let of_others = ["/usr/sbin/dnsmasq", "/usr/sbin/losetup"].contains(&start.as_str());
        assert!(of_others || installed.contains(&start), "{name} starts '{start}'");
    }
}

#[test]
fn every_file_that_the_package_lists_is_there() {
    for (from, _) in assets().iter().filter(|(from, _)| !from.starts_with("target/")) {
        let (folder, pattern) = from.rsplit_once('/').unwrap_or((".", from));
        let (before, after) = pattern.split_once('*').unwrap_or((pattern, ""));
        let entries = fs::read_dir(root().join(folder)).unwrap_or_else(|e| panic!("{from}: {e}"));
        let names: Vec<_> = entries
            .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
            .collect();
        let found = names.iter().any(|name| name.starts_with(before) && name.ends_with(after));
        assert!(found, "nothing matches '{from}'");
    }
}

#[test]
fn what_would_break_lio_or_lvm_is_not_in_the_agents_unit() {
    let unit = unit("sheathd");
    for (directive, breaks) in BREAKS_THE_AGENT {
        assert!(!unit.contains_key(*directive), "{directive}: {breaks}");
    }
}

#[test]
fn the_pools_file_is_attached_where_everybody_sees_its_path() {
    let unit = unit("sheath-loop");
    let private: Vec<_> = MOUNT_NAMESPACE.iter().filter(|directive| unit.contains_key(**directive)).collect();
    assert!(private.is_empty(), "the loop device's backing file would lose its path: {private:?}");
}

#[test]
fn every_capability_has_its_reason_beside_it() {
    for (name, _) in UNITS {
        let text = read(&format!("systemd/{name}.service"));
        for capability in unit(name)["CapabilityBoundingSet"].iter().flat_map(|set| set.split_whitespace()) {
            let reason = format!("#  {capability} ");
            assert!(text.lines().any(|line| line.starts_with(&reason)), "{name}: why {capability}?");
        }
    }
}

#[test]
fn the_agent_keeps_the_capabilities_that_its_unit_gives() {
    let code = read("src/daemon/privileges.rs");
    let words = code.split(|c: char| !c.is_ascii_uppercase() && c != '_');
    let kept: BTreeSet<_> = words.filter(|word| word.starts_with("CAP_") && *word != "CAP_SETPCAP").collect();
    let unit = unit("sheathd");
    assert_eq!(kept, unit["CapabilityBoundingSet"][0].split(' ').collect());
}

#[test]
fn no_service_dies_with_the_agent() {
    for (name, _) in UNITS.iter().filter(|row| row.0 != "sheathd") {
        let unit = unit(name);
        for tie in TIES {
            let tied = unit.get(*tie).into_iter().flatten().any(|value| value.contains("sheathd"));
            assert!(!tied, "{name}: {tie}=sheathd.service");
        }
    }
    assert_eq!(unit("sheathd")["RuntimeDirectoryPreserve"], ["yes"]);
}

#[test]
fn nothing_of_ours_starts_the_service_that_restores_and_clears_targets() {
    for (name, _) in UNITS {
        for (directive, values) in unit(name) {
            let named =
                values.iter().any(|value| value.contains("targetctl") || value.contains("target.service"));
            assert!(!named || directive == "After", "{name}: {directive}");
        }
    }
}

#[test]
fn every_group_and_user_that_a_unit_names_is_made_by_sysusers() {
    let text = read("systemd/sysusers.d/sheath.conf");
    let made: BTreeSet<_> = text
        .lines()
        .filter(|line| line.starts_with(['g', 'u']))
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    for (name, _) in UNITS {
        let unit = unit(name);
        let named = ["User", "Group", "SupplementaryGroups"].into_iter().filter_map(|key| unit.get(key));
        for who in named.flatten().flat_map(|value| value.split_whitespace()) {
            assert!(made.contains(who), "{name}: nobody makes '{who}'");
        }
    }
}

#[test]
fn the_package_starts_and_enables_nothing_by_itself() {
    for script in ["postinst", "prerm", "postrm"] {
        let text = read(&format!("config/debian/{script}"));
        let calls = text.lines().filter_map(|line| line.split("systemctl ").nth(1));
        let words: Vec<_> = calls.filter_map(|call| call.split_whitespace().next()).collect();
        for word in &words {
            let harmless = ["daemon-reload", "try-restart", "restart", "stop"].contains(word);
            assert!(harmless, "{script}: systemctl {word}");
        }
        let restarts = text.lines().filter(|line| line.contains("systemctl restart"));
        restarts.for_each(|line| assert!(line.contains("systemd-modules-load.service"), "{script}: {line}"));
    }
}

#[test]
fn removing_the_package_touches_no_volume_and_no_target() {
    for script in ["prerm", "postrm"] {
        let text = read(&format!("config/debian/{script}"));
        let code = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        for line in code {
            let touches =
                ["lvremove", "vgremove", "/sys/kernel/config", "targetcli", "sheath-pool", "losetup"];
            assert!(!touches.iter().any(|word| line.contains(word)), "{script}: {line}");
        }
        let output = run("sh", &["-n", &root().join("config/debian").join(script).to_string_lossy()]);
        assert!(output.is_none_or(|output| output.status.success()), "{script} is not a shell script");
    }
}

#[test]
fn udev_rules_are_named_for_their_place_in_the_order() {
    // A missing folder is the package's fault, and another test's.
    let Ok(folder) = fs::read_dir(root().join("udev-rules")) else { return };
    for entry in folder {
        let name = entry.expect("readable").file_name().to_string_lossy().into_owned();
        let (number, rest) = name.split_at(2.min(name.len()));
        let good = number.parse::<u8>().is_ok() && rest.starts_with("-sheath-") && rest.ends_with(".rules");
        assert!(good, "udev-rules/{name}");
        // systemd 254 has `udevadm verify`; older ones say that they do not know it.
        let path = root().join("udev-rules").join(&name);
        let Some(output) = run("udevadm", &["verify", &path.to_string_lossy()]) else { continue };
        assert!(output.status.success() || said(&output).contains("verb"), "{}", said(&output));
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "a skipped test says why")]
fn root_users_and_folders_are_made_as_their_files_say() {
    if !nix::unistd::Uid::effective().is_root() {
        println!("skipped: giving folders to users needs root");
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let place = |kind: &str| dir.path().join("usr/lib").join(kind);
    fs::create_dir_all(dir.path().join("etc")).expect("writable");
    for kind in ["sysusers.d", "tmpfiles.d"] {
        fs::create_dir_all(place(kind)).expect("writable");
        fs::copy(root().join(format!("systemd/{kind}/sheath.conf")), place(kind).join("sheath.conf"))
            .expect("the file is there");
    }
    let at = format!("--root={}", dir.path().display());
    for args in [["systemd-sysusers", &at, ""], ["systemd-tmpfiles", &at, "--create"]] {
        let rest: Vec<_> = args[1..].iter().copied().filter(|arg| !arg.is_empty()).collect();
        let Some(output) = run(args[0], &rest) else { return };
        assert!(output.status.success(), "{}: {}", args[0], said(&output));
    }
    let made = [
        "etc/target/pr",
        "etc/target/alua",
        "etc/sheath",
        "var/lib/sheath",
        "var/lib/sheath-dnsmasq",
        "run/sheath/udev",
    ];
    made.iter().for_each(|folder| assert!(Path::new(dir.path()).join(folder).is_dir(), "{folder}"));
}
