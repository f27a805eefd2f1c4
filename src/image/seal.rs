//! Decides what an image needs to become one that any blade can have: from its facts to a list of changes.
//!
//! Pure; `inside` carries the changes out. Nothing is planned that is so already, so that an image that has been sealed
//! needs nothing the second time.

use std::fmt;

use super::facts::{Facts, Initramfs, Maker};
use crate::{
    error::{Error, Kind, Result},
    model::Change,
};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    /// `/etc/machine-id` becomes empty: each blade makes its own.
    EmptyMachineId,
    /// Left-overs of another machine are removed.
    Remove(Leftover),
    /// A unit takes the initiator's name from the firmware.
    InitiatorName,
    /// A unit lets the root disk wait for its target.
    Patience,
    /// The initramfs is told to log in by itself.
    IscsiLogin(Maker),
    /// A unit keeps the boot NIC up until the end.
    KeepBootNic,
    /// A unit takes the seed, for want of cloud-init.
    FirstBoot,
    /// The loader goes where firmware and iPXE look.
    RemovableLoader {
        /// Where it lies now, in the EFI system partition.
        from: String,
    },
    /// The initramfs is made anew.
    Initramfs(Maker),
    /// The image says that it has been sealed.
    Stamp,
    /// A GPT takes the place of a master boot record.
    Gpt {
        /// The numbers of swap partitions behind all others, which are left out.
        dropped: Vec<u32>,
    },
    /// The file system table names partitions as they are called from now on.
    Names,
    /// GRUB is installed anew, for BIOS.
    Grub,
}

/// A sort of left-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Leftover {
    /// D-Bus's own machine id.
    DbusMachineId,
    /// SSH host keys.
    SshKeys,
    /// DHCP leases.
    Leases,
    /// Saved random seeds.
    Seeds,
    /// What cloud-init remembers.
    CloudState,
    /// Interface names by MAC address.
    NetNames,
}

impl Act {
    /// Returns the word that the check has for the same thing.
    pub(super) fn about(&self) -> &'static str {
        match self {
            Self::EmptyMachineId => "machine-id",
            Self::Remove(leftover) => leftover.about(),
            Self::InitiatorName => "initiator-name",
            Self::Patience => "patience",
            Self::IscsiLogin(_) => "iscsi-login",
            Self::KeepBootNic => "boot-nic",
            Self::FirstBoot => "first-boot",
            Self::RemovableLoader { .. } => "uefi",
            Self::Initramfs(_) => "initramfs",
            Self::Stamp => "seal",
            Self::Gpt { .. } => "mbr",
            Self::Names => "fstab",
            Self::Grub => "bios",
        }
    }

    /// Returns the change for people and scripts.
    pub(super) fn shown(&self) -> Change {
        Change { about: self.about().to_owned(), text: self.to_string() }
    }
}

impl Leftover {
    fn about(self) -> &'static str {
        match self {
            Self::DbusMachineId => "dbus-machine-id",
            Self::SshKeys => "ssh-host-keys",
            Self::Leases => "leases",
            Self::Seeds => "random-seed",
            Self::CloudState => "cloud-state",
            Self::NetNames => "net-names",
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::EmptyMachineId => "/etc/machine-id emptied: each blade makes its own",
            Self::Remove(Leftover::DbusMachineId) => "/var/lib/dbus/machine-id removed",
            Self::Remove(Leftover::SshKeys) => "SSH host keys removed: each blade makes its own",
            Self::Remove(Leftover::Leases) => "DHCP leases removed",
            Self::Remove(Leftover::Seeds) => "saved random seeds removed",
            Self::Remove(Leftover::CloudState) => "cloud-init's memory of an instance removed",
            Self::Remove(Leftover::NetNames) => "interface names by MAC address removed",
            Self::InitiatorName => {
                "sheath-initiator-name.service takes the initiator's name from the firmware (iBFT)"
            }
            Self::Patience => "sheath-root-patience.service lets the root disk wait a day for its target",
            Self::IscsiLogin(Maker::InitramfsTools) => "/etc/iscsi/iscsi.initramfs: ISCSI_AUTO=true",
            Self::IscsiLogin(Maker::Dracut) => {
                "/etc/dracut.conf.d/90-sheath.conf: iSCSI, by what the firmware left"
            }
            Self::KeepBootNic => "sheath-boot-nic.service keeps the boot NIC up until the end",
            Self::FirstBoot => {
                "sheath-first-boot.service takes the seed: host name, SSH keys, root's growth, swap, data"
            }
            Self::RemovableLoader { from } => {
                return write!(f, "\\EFI\\BOOT\\BOOTX64.EFI copied from {from}");
            }
            Self::Initramfs(_) => "initramfs made anew",
            Self::Stamp => "/etc/sheath-seal written",
            Self::Gpt { dropped } if dropped.is_empty() => {
                "a GPT made of the MBR, with a BIOS boot partition in the gap"
            }
            Self::Gpt { dropped } => {
                let dropped: Vec<_> = dropped.iter().map(u32::to_string).collect();
                let dropped = dropped.join(", ");
                return write!(
                    f,
                    "a GPT made of the MBR, with a BIOS boot partition in the gap; swap (partition {dropped}) behind all \
                     others left out: 'swap' in the configuration gives each blade its own"
                );
            }
            Self::Names => "/etc/fstab: partitions by UUID",
            Self::Grub => "GRUB installed for BIOS, and its configuration made anew",
        };
        f.write_str(text)
    }
}

/// Returns what is to be changed, in the order in which it is done; nothing where all is as it should be.
///
/// # Errors
/// [`Kind::Invalid`] for what the sealer cannot mend, with what to do.
pub(super) fn plan(facts: &Facts) -> Result<Vec<Act>> {
    let refuse = |why: &str| Err(Error::new(Kind::Invalid, why));
    if facts.root.is_none() {
        return refuse("no partition holds a Linux system that could be read: LVM and LUKS are not read");
    }
    let Some(maker) = facts.iscsi.maker else {
        return refuse("neither initramfs-tools nor dracut is installed in it");
    };
    if !facts.iscsi.daemon {
        return refuse(match maker {
            Maker::InitramfsTools => {
                "open-iscsi is not installed in it, and nothing can be fetched here: install it first"
            }
            Maker::Dracut => {
                "iscsi-initiator-utils is not installed in it, and nothing can be fetched here: install it first"
            }
        });
    }
    let mut acts = partitioning(facts)?;
    acts.extend(identity(facts));
    acts.extend(services(facts));
    acts.extend(booting(facts, maker));
    if facts.boot.mbr.is_some() {
        acts.push(Act::Grub);
    }
    if !acts.is_empty() || facts.sealed.is_none() {
        acts.push(Act::Stamp);
    }
    Ok(acts)
}

/// What makes a GPT of a master boot record.
fn partitioning(facts: &Facts) -> Result<Vec<Act>> {
    let Some(mbr) = &facts.boot.mbr else { return Ok(vec![]) };
    let refuse = |why: &str| Err(Error::new(Kind::Invalid, why));
    if let Some(why) = &mbr.refusal {
        return refuse(why);
    }
    if !facts.boot.bios_code {
        return refuse(
            "it has an MBR, and a boot loader that is not GRUB: install GRUB for BIOS in the donor first",
        );
    }
    if !facts.boot.grub {
        return refuse(
            "it has an MBR, and GRUB's own tools for BIOS are not installed in it (grub-pc; grub2-pc and grub2-tools)",
        );
    }
    Ok(vec![Act::Gpt { dropped: mbr.dropped.clone() }, Act::Names])
}

fn identity(facts: &Facts) -> Vec<Act> {
    let identity = &facts.identity;
    let mut acts: Vec<Act> = identity.machine_id.then_some(Act::EmptyMachineId).into_iter().collect();
    let left = [
        (identity.dbus_machine_id, Leftover::DbusMachineId),
        (!identity.ssh_keys.is_empty(), Leftover::SshKeys),
        (!identity.leases.is_empty(), Leftover::Leases),
        (!identity.seeds.is_empty(), Leftover::Seeds),
        (identity.cloud_state, Leftover::CloudState),
        (!identity.net_names.is_empty(), Leftover::NetNames),
    ];
    acts.extend(left.into_iter().filter_map(|(is_there, sort)| is_there.then_some(Act::Remove(sort))));
    acts
}

fn services(facts: &Facts) -> Vec<Act> {
    let wanted = [
        (!facts.iscsi.name_from_ibft, Act::InitiatorName),
        (!facts.iscsi.patient, Act::Patience),
        (facts.network.networkd && !facts.network.kept, Act::KeepBootNic),
        (!facts.cloud_init && !facts.first_boot, Act::FirstBoot),
    ];
    wanted.into_iter().filter_map(|(lacks, act)| lacks.then_some(act)).collect()
}

/// What the firmware and the initramfs need. The initramfs comes last: it takes in what was written before.
fn booting(facts: &Facts, maker: Maker) -> Vec<Act> {
    let mut acts = vec![];
    let boot = &facts.boot;
    if let (true, false, Some(from)) = (boot.esp, boot.removable, boot.loaders.first()) {
        acts.push(Act::RemovableLoader { from: from.clone() });
    }
    if !facts.iscsi.automatic {
        acts.push(Act::IscsiLogin(maker));
    }
    let newest = facts.kernels.last();
    let ready = newest.is_none_or(|kernel| kernel.initramfs.as_ref().is_some_and(is_ready));
    // A swap partition that is left out may be what the initramfs looks for to resume from.
    if !facts.iscsi.automatic || !ready || facts.boot.mbr.is_some() {
        acts.push(Act::Initramfs(maker));
    }
    acts
}

/// Returns whether an initramfs can log in. One that could not be read is made anew rather than trusted.
fn is_ready(found: &Initramfs) -> bool {
    found.unread.is_none() && found.initiator && found.tcp && found.ibft
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::facts::{Boot, Identity, Iscsi, Kernel, Mbr, Network};

    /// Returns an image as a distribution's installer leaves it, with open-iscsi in it.
    fn fresh() -> Facts {
        let initramfs = Some(Initramfs { path: "boot/initrd.img-6".into(), ..Initramfs::default() });
        Facts {
            root: Some(2),
            kernels: vec![Kernel { version: "6".into(), initramfs }],
            boot: Boot { esp: true, loaders: vec!["EFI/debian/grubx64.efi".into()], ..Boot::default() },
            iscsi: Iscsi { maker: Some(Maker::InitramfsTools), daemon: true, ..Iscsi::default() },
            identity: Identity {
                machine_id: true,
                ssh_keys: vec!["etc/ssh/ssh_host_rsa_key".into()],
                ..Identity::default()
            },
            network: Network { networkd: true, ..Network::default() },
            ..Facts::default()
        }
    }

    /// Returns the facts after the acts, as far as the sealer looks at them.
    fn after(mut facts: Facts, acts: &[Act]) -> Facts {
        for act in acts {
            match act {
                Act::EmptyMachineId => facts.identity.machine_id = false,
                Act::Remove(_) => {
                    facts.identity = Identity { machine_id: facts.identity.machine_id, ..Identity::default() }
                }
                Act::InitiatorName => facts.iscsi.name_from_ibft = true,
                Act::Patience => facts.iscsi.patient = true,
                Act::IscsiLogin(_) => facts.iscsi.automatic = true,
                Act::KeepBootNic => facts.network.kept = true,
                Act::FirstBoot => facts.first_boot = true,
                Act::RemovableLoader { .. } => facts.boot.removable = true,
                Act::Initramfs(_) => {
                    let all = Initramfs { initiator: true, tcp: true, ibft: true, ..Initramfs::default() };
                    facts.kernels.iter_mut().for_each(|kernel| kernel.initramfs = Some(all.clone()));
                }
                Act::Stamp => facts.sealed = Some("1".into()),
                Act::Gpt { .. } => (facts.boot.mbr, facts.boot.bios_partition) = (None, true),
                Act::Names => facts.fstab_by_place.clear(),
                Act::Grub => facts.boot.bios_core = true,
            }
        }
        facts
    }

    #[test]
    fn a_fresh_image_gets_all_that_it_lacks_and_the_initramfs_after_what_goes_into_it() {
        let acts = plan(&fresh()).unwrap();
        let about: Vec<_> = acts.iter().map(Act::about).collect();
        assert_eq!(
            about,
            [
                "machine-id",
                "ssh-host-keys",
                "initiator-name",
                "patience",
                "boot-nic",
                "first-boot",
                "uefi",
                "iscsi-login",
                "initramfs",
                "seal"
            ]
        );
    }

    #[test]
    fn sealing_twice_changes_nothing_the_second_time() {
        for change in [
            (|_: &mut Facts| ()) as fn(&mut Facts),
            |facts| facts.cloud_init = true,
            |facts| facts.iscsi.maker = Some(Maker::Dracut),
            |facts| facts.boot.loaders.clear(),
            |facts| facts.kernels.clear(),
            |facts| facts.identity.leases = vec!["x".into()],
        ] {
            let mut facts = fresh();
            change(&mut facts);
            let acts = plan(&facts).unwrap();
            assert_eq!(plan(&after(facts, &acts)).unwrap(), []);
        }
    }

    fn with_mbr(mbr: Mbr) -> Facts {
        let mut facts = fresh();
        facts.boot = Boot { mbr: Some(mbr), bios_code: true, grub: true, ..Boot::default() };
        facts
    }

    #[test]
    fn an_mbr_becomes_a_gpt_before_anything_else_and_grub_comes_after_the_initramfs() {
        let facts = with_mbr(Mbr { dropped: vec![5], refusal: None });
        let acts = plan(&facts).unwrap();
        assert_eq!(acts[..2], [Act::Gpt { dropped: vec![5] }, Act::Names]);
        let place = |wanted: &Act| acts.iter().position(|act| act == wanted).unwrap();
        assert!(place(&Act::Initramfs(Maker::InitramfsTools)) < place(&Act::Grub));
        assert_eq!(plan(&after(facts, &acts)).unwrap(), []);
    }

    #[test]
    fn an_mbr_that_cannot_become_a_gpt_is_refused_with_its_reason() {
        let refusal = |change: fn(&mut Boot)| {
            let mut facts = with_mbr(Mbr::default());
            change(&mut facts.boot);
            plan(&facts).unwrap_err().to_string()
        };
        assert!(
            refusal(|boot| boot.mbr = Some(Mbr { refusal: Some("no room".into()), dropped: vec![] }))
                .contains("no room")
        );
        assert!(refusal(|boot| boot.bios_code = false).contains("not GRUB"));
        assert!(refusal(|boot| boot.grub = false).contains("grub-pc"));
    }

    #[test]
    fn what_cannot_be_mended_here_is_refused_with_what_to_do() {
        let refusal = |change: fn(&mut Facts)| {
            let mut facts = fresh();
            change(&mut facts);
            plan(&facts).unwrap_err().to_string()
        };
        assert!(refusal(|facts| facts.root = None).contains("LVM"));
        assert!(refusal(|facts| facts.iscsi.daemon = false).contains("open-iscsi"));
        assert!(refusal(|facts| facts.iscsi.maker = None).contains("dracut"));
    }

    #[test]
    fn an_initramfs_that_nobody_could_read_is_made_anew() {
        let mut facts = fresh();
        facts.iscsi.automatic = true;
        facts.kernels[0].initramfs = Some(Initramfs { unread: Some("x".into()), ..Initramfs::default() });
        assert!(plan(&facts).unwrap().contains(&Act::Initramfs(Maker::InitramfsTools)));
    }
}
