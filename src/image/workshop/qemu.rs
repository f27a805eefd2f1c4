//! What all guests of ours have in common: QEMU without anything that is not asked for, and the processor's virtualisation
//! where the machine has it.

use std::fs;

use crate::image::sandbox::Sandbox;

/// The processor's virtualisation.
const KVM: &str = "/dev/kvm";
/// Room for QEMU itself beside the guest's memory, in MiB; emulation keeps what it has translated.
const OWN_MIB: u32 = 512;

/// Returns whether guests need not be emulated here.
pub(super) fn has_kvm() -> bool {
    fs::metadata(KVM).is_ok()
}

/// Returns QEMU's arguments for a machine of so much memory with a processor and nothing else.
pub(super) fn machine(kvm: bool, memory_mib: u32) -> Vec<String> {
    let accel = if kvm { "kvm:tcg" } else { "tcg" };
    let words = [
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-vga",
        "none",
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-cpu",
        "max",
        "-device",
        "virtio-rng-pci",
        "-machine",
        &format!("pc,accel={accel},graphics=off"),
        "-m",
        &format!("{memory_mib}M"),
    ];
    words.map(str::to_owned).to_vec()
}

/// Lets the sandbox have the machine's memory, and the processor's virtualisation where that is wanted.
pub(super) fn equip(sandbox: Sandbox, kvm: bool, memory_mib: u32) -> Sandbox {
    let sandbox = sandbox.with(&[&format!("MemoryMax={}M", memory_mib + OWN_MIB)]);
    if !kvm {
        return sandbox;
    }
    sandbox.with(&[&format!("DeviceAllow={KVM} rw"), &format!("BindPaths={KVM}"), "SupplementaryGroups=kvm"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtualisation_is_asked_for_only_where_it_is() {
        assert!(machine(true, 512).contains(&"pc,accel=kvm:tcg,graphics=off".to_owned()));
        assert!(machine(false, 512).contains(&"pc,accel=tcg,graphics=off".to_owned()));
    }

    #[test]
    fn a_machine_has_nothing_that_was_not_asked_for() {
        let args = machine(false, 512);
        assert!(args.contains(&"-nodefaults".to_owned()) && args.contains(&"512M".to_owned()));
        assert!(!args.iter().any(|arg| arg.contains("net") || arg.contains("drive")), "{args:?}");
    }
}
