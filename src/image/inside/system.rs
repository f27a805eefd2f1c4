//! What the system in an image is and has: release, kernels, iSCSI, network, first boot.

use std::path::{Path, PathBuf};

use super::tree::{is_there, list, matching, name, text, value};
use crate::{
    host::cmd::Tool,
    image::facts::{Facts, Iscsi, Kernel, Maker, Network, Os, is_by_place},
};

/// Where the sealer says that it has been.
pub(super) const STAMP: &str = "etc/sheath-seal";
/// The sealer's unit that takes the seed where there is no cloud-init.
pub(super) const FIRST_BOOT: &str = "sheath-first-boot.service";
/// What a unit has in it that takes the initiator's name from the firmware.
pub(super) const IBFT_NAME: &str = "/sys/firmware/ibft/initiator";
/// What a unit has in it that makes the root disk wait.
pub(super) const RECOVERY: &str = "recovery_tmo";
/// What installs GRUB: Debian's and RHEL's name for it.
const GRUB_INSTALL: [Tool; 2] = [Tool::GrubInstall, Tool::Grub2Install];
/// Where systemd has the administrator's units.
pub(super) const UNITS: &str = "etc/systemd/system";

/// Puts everything that the tree shows into the facts. The command line must be there already.
pub(super) fn facts(root: &Path, facts: &mut Facts) {
    facts.os = os(root);
    facts.kernels = kernels(root);
    facts.iscsi = iscsi(root, &facts.boot.cmdline);
    facts.network = network(root);
    facts.cloud_init =
        ["usr/bin/cloud-init", "usr/local/bin/cloud-init"].iter().any(|p| root.join(p).is_file());
    facts.first_boot = is_enabled(root, FIRST_BOOT);
    facts.fstab_by_place = by_place(&text(&root.join("etc/fstab")));
    facts.boot.grub = GRUB_INSTALL.iter().any(|tool| root.join(&tool.path()[1..]).is_file())
        && root.join("usr/lib/grub/i386-pc/boot.img").is_file();
    facts.sealed = Some(text(&root.join(STAMP)).trim().to_owned()).filter(|stamp| !stamp.is_empty());
}

fn os(root: &Path) -> Option<Os> {
    let text = ["etc/os-release", "usr/lib/os-release"].iter().map(|path| text(&root.join(path)));
    let text = text.into_iter().find(|text| !text.is_empty())?;
    let get = |key| value(&text, key).unwrap_or_default();
    Some(Os { id: get("ID"), like: get("ID_LIKE"), version: get("VERSION_ID"), name: get("PRETTY_NAME") })
}

/// Returns the kernels below `/boot`, newest last.
fn kernels(root: &Path) -> Vec<Kernel> {
    let boot = root.join("boot");
    let names = matching(&boot, "vmlinuz-", "");
    let mut versions: Vec<String> =
        names.iter().map(|path| name(path)["vmlinuz-".len()..].to_owned()).collect();
    // A rescue kernel is nobody's first choice.
    versions.retain(|version| !version.contains("rescue"));
    versions.sort_by_key(|version| natural(version));
    versions.into_iter().map(|version| Kernel { version, initramfs: None }).collect()
}

/// Returns where a kernel's initramfs lies.
pub(super) fn initramfs_of(root: &Path, version: &str) -> Option<PathBuf> {
    let names = [
        format!("boot/initrd.img-{version}"),
        format!("boot/initramfs-{version}.img"),
        format!("boot/initrd-{version}"),
    ];
    names.iter().map(|name| root.join(name)).find(|path| path.is_file())
}

/// Returns what sorts versions as people do: numbers by their value.
fn natural(version: &str) -> Vec<(u64, String)> {
    let mut parts = vec![];
    let mut rest = version;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let words = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        parts.push((number.parse().unwrap_or(0), tail[..words].to_owned()));
        rest = &tail[words..];
    }
    parts
}

fn iscsi(root: &Path, cmdline: &str) -> Iscsi {
    let has = |path: &str| root.join(path).is_file();
    let maker = match (has("usr/sbin/mkinitramfs"), has("usr/bin/dracut") || has("usr/sbin/dracut")) {
        (true, _) => Some(Maker::InitramfsTools),
        (false, true) => Some(Maker::Dracut),
        (false, false) => None,
    };
    let auto = text(&root.join("etc/iscsi/iscsi.initramfs"));
    let words = [
        "iscsi_auto",
        "rd.iscsi.firmware",
        "rd.iscsi.firmware=1",
        "rd.iscsi.ibft=1",
        "rd.iscsi.ibft",
        "ip=ibft",
    ];
    // dracut's own files may hold a command line for the initramfs.
    let dracut = matching(&root.join("etc/dracut.conf.d"), "", ".conf")
        .iter()
        .map(|path| text(path))
        .collect::<String>();
    let dracut =
        dracut.lines().filter(|line| line.trim_start().starts_with("kernel_cmdline")).collect::<Vec<_>>();
    let dracut = dracut.join(" ").replace(['"', '\''], " ");
    let asked = cmdline.split_whitespace().chain(dracut.split_whitespace()).any(|word| words.contains(&word));
    let named = text(&root.join("etc/iscsi/initiatorname.iscsi"));
    let mut named = named.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Iscsi {
        maker,
        daemon: ["usr/sbin/iscsid", "sbin/iscsid", "usr/bin/iscsid"].iter().any(|path| has(path)),
        automatic: asked || value(&auto, "ISCSI_AUTO").is_some_and(|value| value == "true"),
        name_from_ibft: enabled_units(root).iter().any(|unit| text(unit).contains(IBFT_NAME)),
        patient: enabled_units(root).iter().any(|unit| text(unit).contains(RECOVERY)),
        initiator: named.next_back().map(str::to_owned),
    }
}

fn network(root: &Path) -> Network {
    let netplan = matching(&root.join("etc/netplan"), "", ".yaml");
    let manager = is_enabled(root, "NetworkManager.service");
    let plans: Vec<String> = netplan.iter().map(|path| text(path)).collect();
    let by_netplan = !plans.is_empty() && !plans.iter().any(|plan| plan.contains("renderer: NetworkManager"));
    let networks = matching(&root.join("etc/systemd/network"), "", ".network");
    let keeps = |text: &str| value(text, "KeepConfiguration").is_some_and(|value| value != "no");
    Network {
        networkd: is_enabled(root, "systemd-networkd.service") || by_netplan,
        manager,
        ifupdown: root.join("usr/sbin/ifup").is_file() || root.join("sbin/ifup").is_file(),
        kept: networks.iter().any(|path| keeps(&text(path)))
            || plans.iter().any(|plan| plan.contains("critical: true"))
            || enabled_units(root).iter().any(|unit| text(unit).contains("KeepConfiguration=")),
    }
}

/// Returns the administrator's units that something wants.
fn enabled_units(root: &Path) -> Vec<PathBuf> {
    let units = matching(&root.join(UNITS), "", ".service");
    units.into_iter().filter(|path| is_enabled(root, &name(path))).collect()
}

/// Returns whether something wants the unit.
pub(super) fn is_enabled(root: &Path, unit: &str) -> bool {
    let folders = list(&root.join(UNITS));
    let wants = folders
        .iter()
        .filter(|path| matches!(path.extension(), Some(end) if end == "wants" || end == "requires"));
    wants.into_iter().any(|folder| is_there(&folder.join(unit)))
}

/// Returns the lines of a file system table that name a disk by its place.
fn by_place(fstab: &str) -> Vec<String> {
    let lines = fstab
        .lines()
        .map(str::trim)
        .filter(|line| is_by_place(line.split_whitespace().next().unwrap_or_default()));
    lines.map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::tree::tests::plant, *};

    fn look(files: &[(&str, &str)], cmdline: &str) -> Facts {
        let dir = tempfile::tempdir().unwrap();
        plant(dir.path(), files);
        let mut found = Facts::default();
        found.boot.cmdline = cmdline.into();
        facts(dir.path(), &mut found);
        found
    }

    #[test]
    fn a_debian_is_known_by_its_files() {
        let found = look(
            &[
                (
                    "usr/lib/os-release",
                    "ID=debian\nVERSION_ID=\"13\"\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n",
                ),
                ("boot/vmlinuz-6.12.9-amd64", ""),
                ("boot/vmlinuz-6.12.38-amd64", ""),
                ("usr/sbin/mkinitramfs", ""),
                ("usr/sbin/iscsid", ""),
                ("etc/iscsi/iscsi.initramfs", "ISCSI_AUTO=true\n"),
                ("etc/iscsi/initiatorname.iscsi", "# text\nInitiatorName=iqn.x:y\n"),
                (
                    "etc/fstab",
                    "LABEL=root / ext4 errors=remount-ro 0 1\n/dev/sda1 /boot/efi vfat defaults 0 0\n",
                ),
                ("usr/bin/cloud-init", ""),
            ],
            "",
        );
        let versions: Vec<_> = found.kernels.iter().map(|kernel| kernel.version.as_str()).collect();
        assert_eq!(versions, ["6.12.9-amd64", "6.12.38-amd64"]);
        assert_eq!(found.os.unwrap().name, "Debian GNU/Linux 13 (trixie)");
        assert_eq!(found.iscsi.maker, Some(Maker::InitramfsTools));
        assert!(
            found.iscsi.daemon && found.iscsi.automatic && !found.iscsi.name_from_ibft && found.cloud_init
        );
        assert_eq!(found.iscsi.initiator.as_deref(), Some("InitiatorName=iqn.x:y"));
        assert_eq!(found.fstab_by_place, ["/dev/sda1 /boot/efi"]);
        assert_eq!(found.sealed, None);
    }

    #[test]
    fn a_unit_counts_when_something_wants_it() {
        let unit = format!("[Service]\nExecStart=/bin/sh -c 'cat {IBFT_NAME}/initiator-name'\n");
        let path = format!("{UNITS}/ibft.service");
        assert!(!look(&[(&path, &unit)], "").iscsi.name_from_ibft);
        let wanted = format!("{UNITS}/sysinit.target.wants/ibft.service");
        let iscsi = look(&[(&path, &unit), (&wanted, "")], "").iscsi;
        assert!(iscsi.name_from_ibft && !iscsi.patient);
    }

    #[test]
    fn dracut_logs_in_when_the_command_line_says_so() {
        let files =
            [("usr/bin/dracut", ""), ("boot/vmlinuz-0-rescue-1", ""), ("boot/vmlinuz-5.14.0-1.el9", "")];
        let found = look(&files, "ro rd.iscsi.firmware=1");
        assert_eq!((found.iscsi.maker, found.iscsi.automatic), (Some(Maker::Dracut), true));
        assert_eq!(found.kernels.len(), 1);
        assert!(!look(&files, "ro").iscsi.automatic);
    }

    #[test]
    fn networkd_is_seen_directly_and_behind_netplan() {
        let wanted = format!("{UNITS}/multi-user.target.wants/systemd-networkd.service");
        assert!(look(&[(&wanted, "")], "").network.networkd);
        assert!(look(&[("etc/netplan/50-cloud-init.yaml", "network: {version: 2}")], "").network.networkd);
        let manager = ("etc/netplan/01.yaml", "network:\n  renderer: NetworkManager\n");
        assert!(!look(&[manager], "").network.networkd);
        let kept = [
            (wanted.as_str(), ""),
            ("etc/systemd/network/50-x.network", "[Network]\nKeepConfiguration=yes\n"),
        ];
        assert!(look(&kept, "").network.kept);
    }
}
