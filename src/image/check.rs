//! Judges an image by its facts: what is as it has to be to live on an iSCSI disk, what is not, and what mends it.
//!
//! Pure: the facts were gathered in the workshop (`inside`), and nothing is looked at here. Each thing that has kept a
//! blade from booting, or made two blades the same machine, is one line.

use super::facts::{Boot, Facts, Initramfs, Kernel, Maker, Partition, is_by_place};
use crate::model::{Checkup, Finding, Firmware, Judgement};

/// What mends most things.
const SEAL: &str = "sheath image seal";
/// Kernel arguments that make dracut's initramfs log in.
const DRACUT_ARGS: &str = "rd.iscsi.firmware=1 rd.iscsi.ibft=1 rd.neednet=1";

/// Returns what is to be said of an image with these facts.
pub fn judge(facts: &Facts) -> Checkup {
    let mut findings = vec![root(facts)];
    if facts.root.is_some() {
        findings.extend(system(facts));
        findings.extend(initramfs(facts));
        findings.extend(iscsi(facts));
        findings.extend(identity(facts));
        findings.extend(running(facts));
    }
    findings.extend(table(facts));
    findings.extend(bios(facts));
    findings.extend(uefi(facts));
    let boots = |firmware| {
        !findings.iter().any(|finding| {
            finding.fatal && finding.judgement.is_bad() && finding.firmware.is_none_or(|of| of == firmware)
        })
    };
    Checkup {
        system: facts.os.as_ref().map(|os| os.name.clone()),
        kernel: facts.kernels.last().map(|kernel| kernel.version.clone()),
        bios: boots(Firmware::Bios),
        uefi: boots(Firmware::Uefi),
        findings,
    }
}

fn ok(about: &str, text: impl Into<String>) -> Finding {
    let (about, text) = (about.to_owned(), text.into());
    Finding { about, judgement: Judgement::Ok, text, fix: None, firmware: None, fatal: false }
}

fn note(about: &str, text: impl Into<String>) -> Finding {
    Finding { judgement: Judgement::Note, ..ok(about, text) }
}

fn missing(about: &str, text: impl Into<String>, fix: &str) -> Finding {
    Finding { judgement: Judgement::Missing, fix: Some(fix.to_owned()), ..ok(about, text) }
}

fn wrong(about: &str, text: impl Into<String>, fix: &str) -> Finding {
    Finding { judgement: Judgement::Wrong, ..missing(about, text, fix) }
}

/// Makes it one without which a blade does not boot.
fn fatal(finding: Finding) -> Finding {
    Finding { fatal: true, ..finding }
}

/// Makes it one of this firmware's alone, without which a blade that has it does not boot.
fn of(firmware: Firmware, finding: Finding) -> Finding {
    Finding { firmware: Some(firmware), ..fatal(finding) }
}

/// Returns "as it has to be", or the finding that says otherwise.
fn either(good: bool, about: &str, text: &str, otherwise: Finding) -> Finding {
    if good { ok(about, text) } else { otherwise }
}

/// A blade's disk is partitioned for it, and only a GPT can be.
fn table(facts: &Facts) -> Option<Finding> {
    let mbr = facts.boot.mbr.as_ref()?;
    let text = "the disk has an MBR, and a blade's must have a GPT";
    let finding = match &mbr.refusal {
        None => wrong("mbr", text, SEAL),
        Some(why) => wrong("mbr", text, why),
    };
    Some(fatal(finding))
}

/// Returns what mends what an MBR's conversion puts right on the way: that, where there is one.
fn sealed_or(boot: &Boot, by_hand: &'static str) -> &'static str {
    if boot.mbr.is_some() { SEAL } else { by_hand }
}

fn root(facts: &Facts) -> Finding {
    let Some(root) = facts.root else {
        let text = "no partition holds a Linux system that could be read";
        return fatal(missing("root", text, "install it on a plain partition: LVM and LUKS are not read"));
    };
    // Of a promoted image: swap, data and seed of the blade's are replaced by a clone's own.
    let dropped = facts.boot.mbr.as_ref().map(|mbr| mbr.dropped.as_slice()).unwrap_or_default();
    let stays = |partition: &&Partition| !partition.ours && !dropped.contains(&partition.number);
    let last = facts.partitions.iter().rfind(stays).map(|partition| partition.number);
    let fs = facts.partitions.iter().find(|partition| partition.number == root);
    let text = format!("partition {root}, {}", fs.map_or("", |partition| &partition.fs));
    match last {
        Some(last) if last != root => wrong(
            "root",
            format!("{text}; partition {last} lies behind it, and is the one that grows with the disk"),
            "put the root partition last",
        ),
        _ => ok("root", text),
    }
}

fn system(facts: &Facts) -> Vec<Finding> {
    let os = facts.os.as_ref();
    let name = os.map(|os| if os.name.is_empty() { os.id.clone() } else { os.name.clone() });
    let mut found = vec![match name {
        Some(name) => note("system", name),
        None => missing("system", "no /etc/os-release", "is this partition the system's?"),
    }];
    found.push(match facts.kernels.last() {
        Some(kernel) => ok("kernel", &kernel.version),
        None => fatal(missing("kernel", "none below /boot", "install a kernel")),
    });
    found
}

/// Judges the newest kernel's: the one that is started.
fn initramfs(facts: &Facts) -> Vec<Finding> {
    let Some(Kernel { initramfs, .. }) = facts.kernels.last() else { return vec![] };
    let about = "initramfs";
    let Some(found) = initramfs else {
        return vec![fatal(missing(about, "the kernel has none", SEAL))];
    };
    if let Some(why) = &found.unread {
        return vec![note(about, format!("{} could not be looked into: {why}", found.path))];
    }
    let Initramfs { path, initiator, tcp, ibft, .. } = found;
    let lacks: Vec<&str> = [
        (*initiator, "the iSCSI initiator"),
        (*tcp, "the module iscsi_tcp"),
        (*ibft, "the module iscsi_ibft"),
    ]
    .iter()
    .filter_map(|(has, what)| (!has).then_some(*what))
    .collect();
    if lacks.is_empty() {
        return vec![ok(about, format!("{path} logs in over iSCSI"))];
    }
    vec![fatal(missing(about, format!("{path} has not {}", lacks.join(", ")), SEAL))]
}

fn iscsi(facts: &Facts) -> Vec<Finding> {
    let iscsi = &facts.iscsi;
    let package = match iscsi.maker {
        Some(Maker::Dracut) => "install iscsi-initiator-utils in the image",
        _ => "install open-iscsi in the image",
    };
    let how = match iscsi.maker {
        Some(Maker::Dracut) => DRACUT_ARGS,
        _ => "ISCSI_AUTO=true in /etc/iscsi/iscsi.initramfs",
    };
    let mut found = vec![
        either(
            iscsi.daemon,
            "iscsid",
            "installed",
            missing("iscsid", "not installed: a session that is lost is never taken up again", package),
        ),
        either(
            iscsi.automatic,
            "iscsi-login",
            "the initramfs logs in by what the firmware left (iBFT)",
            fatal(missing("iscsi-login", format!("nothing tells the initramfs to log in: {how}"), SEAL)),
        ),
    ];
    let about = "initiator-name";
    found.push(match (&iscsi.initiator, iscsi.name_from_ibft) {
        (_, true) => ok(about, "taken from the firmware (iBFT) at each start"),
        (Some(line), false) => wrong(
            about,
            format!("the image's own: {line}: a lost session is refused when it comes back"),
            SEAL,
        ),
        (None, false) => missing(about, "none, and iscsid does not start without one", SEAL),
    });
    let gone = "the root disk fails two minutes after its target is gone, as while the appliance restarts";
    let waits = "the root disk waits for its target";
    found.push(either(iscsi.patient, "patience", waits, wrong("patience", gone, SEAL)));
    found
}

fn identity(facts: &Facts) -> Vec<Finding> {
    let identity = &facts.identity;
    let list = |about: &str, what: &str, found: &[String]| {
        let text = format!("{what} left: {}", found.join(", "));
        either(found.is_empty(), about, &format!("no {what} left"), wrong(about, text, SEAL))
    };
    let same = "clones would be one machine for DHCP and systemd";
    vec![
        either(
            !identity.machine_id,
            "machine-id",
            "empty",
            wrong("machine-id", format!("set: {same}"), SEAL),
        ),
        either(
            !identity.dbus_machine_id,
            "dbus-machine-id",
            "none of its own",
            wrong("dbus-machine-id", format!("set in /var/lib/dbus: {same}"), SEAL),
        ),
        list("ssh-host-keys", "SSH host keys", &identity.ssh_keys),
        list("leases", "DHCP leases", &identity.leases),
        list("random-seed", "random seeds", &identity.seeds),
        list("net-names", "interface names by MAC address", &identity.net_names),
        either(
            !identity.cloud_state,
            "cloud-state",
            "none",
            wrong("cloud-state", "cloud-init remembers another instance", SEAL),
        ),
    ]
}

/// Judges what matters once it runs.
fn running(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![boot_nic(facts), first_boot(facts)];
    let places = facts.fstab_by_place.join("; ");
    found.push(either(
        facts.fstab_by_place.is_empty(),
        "fstab",
        "no disk by its place",
        wrong(
            "fstab",
            format!("disks by their place: {places}"),
            sealed_or(&facts.boot, "name them by UUID= or LABEL="),
        ),
    ));
    found.push(kernel_root(facts));
    found.push(match facts.boot.cmdline.split(' ').any(|word| word.starts_with("console=ttyS")) {
        true => ok("console", "serial"),
        false => note("console", "no serial console: 'sheath image prove' cannot see a login prompt"),
    });
    found
}

/// Judges what the kernel is told to take for root.
fn kernel_root(facts: &Facts) -> Finding {
    let about = "kernel-root";
    let named = facts.boot.cmdline.split(' ').rev().find_map(|word| word.strip_prefix("root="));
    let fix = sealed_or(&facts.boot, "name it by UUID= or LABEL=, and run update-grub in the image");
    match named {
        Some(name) if is_by_place(name) => {
            wrong(about, format!("root={name}: another disk is called so, or none"), fix)
        }
        Some(name) => ok(about, format!("root={name}")),
        None => note(about, "the boot loader's configuration has no root="),
    }
}

fn boot_nic(facts: &Facts) -> Finding {
    let (about, network) = ("boot-nic", &facts.network);
    match (network.kept, network.networkd, network.manager) {
        (true, _, _) => ok(about, "kept up until the end"),
        // ifupdown leaves an interface alone that the initramfs has marked, and NetworkManager leaves all up when it ends.
        (false, false, _) => ok(about, "nobody takes it down"),
        (false, true, _) => wrong(
            about,
            "systemd-networkd takes it down at shutdown, and the root disk with it: a reboot hangs",
            SEAL,
        ),
    }
}

fn first_boot(facts: &Facts) -> Finding {
    let about = "first-boot";
    match (facts.cloud_init, facts.first_boot) {
        (true, _) => ok(about, "cloud-init takes the seed"),
        (false, true) => ok(about, "the first-boot unit takes the seed, but for user_data"),
        (false, false) => {
            missing(about, "nothing takes the seed: no host name and no SSH keys of its own", SEAL)
        }
    }
}

fn bios(facts: &Facts) -> Vec<Finding> {
    let boot = &facts.boot;
    let fix = sealed_or(boot, "grub-install --target=i386-pc in the image");
    let about = "bios";
    let finding = match (boot.bios_code, boot.bios_partition, boot.bios_core) {
        (true, true, true) => ok(about, "GRUB in the first sector and in the BIOS boot partition"),
        (_, false, _) => missing(about, "no BIOS boot partition", fix),
        (false, true, _) => missing(about, "no boot code in the first sector", fix),
        (true, true, false) => missing(about, "no GRUB core in the BIOS boot partition", fix),
    };
    vec![of(Firmware::Bios, finding)]
}

fn uefi(facts: &Facts) -> Vec<Finding> {
    let boot = &facts.boot;
    let about = "uefi";
    let finding = match (boot.esp, boot.removable, boot.loaders.first()) {
        (true, true, _) => ok(about, "\\EFI\\BOOT\\BOOTX64.EFI is in the EFI system partition"),
        (true, false, Some(other)) => {
            missing(about, format!("no \\EFI\\BOOT\\BOOTX64.EFI, only {other}: iPXE does not find it"), SEAL)
        }
        (true, false, None) => {
            let fix = "grub-install --target=x86_64-efi --removable in the image";
            missing(about, "no boot loader in the EFI system partition", fix)
        }
        (false, _, _) => missing(about, "no EFI system partition", "make one, with GRUB in it"),
    };
    vec![of(Firmware::Uefi, finding)]
}

#[cfg(test)]
mod tests;
