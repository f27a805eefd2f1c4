//! What is true of an image's content: plain data, gathered inside the workshop (`inside`), judged outside (`check`).
//!
//! Whoever made the image can make any of it up, so it crosses the border as bounded JSON and is only ever compared and
//! shown.

use serde::{Deserialize, Serialize};

/// Everything that was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// The partitions, in the order in which they lie on the disk.
    pub partitions: Vec<Partition>,
    /// The number of the partition with the root file system.
    pub root: Option<u32>,
    /// What `os-release` says.
    pub os: Option<Os>,
    /// The kernels below `/boot`, newest last.
    pub kernels: Vec<Kernel>,
    /// How it can be started.
    pub boot: Boot,
    /// What it brings to live on an iSCSI disk.
    pub iscsi: Iscsi,
    /// What would make two blades the same machine.
    pub identity: Identity,
    /// Who looks after its network.
    pub network: Network,
    /// Whether cloud-init is installed.
    pub cloud_init: bool,
    /// Whether our own first-boot unit is there.
    pub first_boot: bool,
    /// Lines of `/etc/fstab` that name a disk by its place (`/dev/sda1`).
    pub fstab_by_place: Vec<String>,
    /// Which version of the sealer has been here last.
    pub sealed: Option<String>,
}

/// One partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Partition {
    /// Its number.
    pub number: u32,
    /// Its type's GUID, lower case.
    pub kind: String,
    /// The file system on it: `ext4`, `vfat`, …; empty where none is known.
    pub fs: String,
    /// The file system's label.
    pub label: String,
    /// Its size in bytes.
    pub size: u64,
    /// Whether we have put it there, when the disk was a blade's: a clone gets its own in its place.
    pub ours: bool,
}

/// What `/etc/os-release` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Os {
    /// `debian`.
    pub id: String,
    /// What it is like: `debian` for Ubuntu, `rhel fedora` for Rocky.
    pub like: String,
    /// `13`.
    pub version: String,
    /// For people.
    pub name: String,
}

/// How a system makes its initramfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Maker {
    /// initramfs-tools: Debian, Ubuntu up to 24.04.
    InitramfsTools,
    /// dracut: Fedora, RHEL and its likes, SUSE.
    Dracut,
}

/// One kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kernel {
    /// Its version, as its file's name has it.
    pub version: String,
    /// Its initramfs, where it has one.
    pub initramfs: Option<Initramfs>,
}

/// What an initramfs holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Initramfs {
    /// Its path in the image.
    pub path: String,
    /// Why it could not be looked into; the rest is unknown then.
    pub unread: Option<String>,
    /// `iscsistart`, or dracut's iSCSI module.
    pub initiator: bool,
    /// The kernel module `iscsi_tcp`, or one that is built in.
    pub tcp: bool,
    /// The kernel module `iscsi_ibft`, or one that is built in.
    pub ibft: bool,
}

/// How the image can be started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Boot {
    /// Whether there is an EFI system partition.
    pub esp: bool,
    /// Whether `\EFI\BOOT\BOOTX64.EFI` is in it.
    pub removable: bool,
    /// Other loaders in it, such as `EFI/debian/grubx64.efi`.
    pub loaders: Vec<String>,
    /// Whether there is a BIOS boot partition.
    pub bios_partition: bool,
    /// Whether GRUB's boot code stands in the first sector.
    pub bios_code: bool,
    /// Whether GRUB's core image stands in the BIOS boot partition.
    pub bios_core: bool,
    /// The kernel's command line, as the boot loader's configuration has it.
    pub cmdline: String,
    /// The disk has a master boot record in place of a GPT.
    pub mbr: Option<Mbr>,
    /// Whether the system can install GRUB for BIOS by itself.
    pub grub: bool,
}

/// What making a GPT of a master boot record would be like.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mbr {
    /// The numbers of swap partitions behind all others, which would be left out.
    pub dropped: Vec<u32>,
    /// Why it cannot be done, with what to do.
    pub refusal: Option<String>,
}

/// What the image brings to live on an iSCSI disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Iscsi {
    /// How its initramfs is made.
    pub maker: Option<Maker>,
    /// Whether `iscsid` is installed.
    pub daemon: bool,
    /// Whether its initramfs logs in by itself: `ISCSI_AUTO=true`, `iscsi_auto`, `rd.iscsi.firmware`.
    pub automatic: bool,
    /// Whether a unit takes the initiator's name from the iBFT at each start.
    pub name_from_ibft: bool,
    /// Whether a unit lets the root disk wait for a target that is gone for long.
    pub patient: bool,
    /// The line of `/etc/iscsi/initiatorname.iscsi` that counts; `None` where there is no such file.
    pub initiator: Option<String>,
}

/// What would make two blades the same machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Identity {
    /// `/etc/machine-id` holds an id.
    pub machine_id: bool,
    /// `/var/lib/dbus/machine-id` is a file with an id of its own.
    pub dbus_machine_id: bool,
    /// SSH host keys.
    pub ssh_keys: Vec<String>,
    /// DHCP leases.
    pub leases: Vec<String>,
    /// Saved random seeds.
    pub seeds: Vec<String>,
    /// What cloud-init remembers of an instance.
    pub cloud_state: bool,
    /// Rules that give interfaces names by MAC address.
    pub net_names: Vec<String>,
}

/// Who looks after the network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// systemd-networkd is enabled, or netplan drives it.
    pub networkd: bool,
    /// NetworkManager is enabled.
    pub manager: bool,
    /// ifupdown is installed.
    pub ifupdown: bool,
    /// Something keeps the boot NIC up until the end.
    pub kept: bool,
}

/// Where disks are that are named by their place.
const PLACES: [&str; 5] = ["/dev/sd", "/dev/vd", "/dev/hd", "/dev/xvd", "/dev/nvme"];

/// Returns whether this names a partition by where its disk is, or by the signature that a master boot record had: on a
/// blade's disk, that is another one, or none.
pub(super) fn is_by_place(name: &str) -> bool {
    let by_signature = name.strip_prefix("PARTUUID=").is_some_and(|id| {
        let id = id.trim_matches('"');
        id.len() == 11 && id.as_bytes()[8] == b'-'
    });
    by_signature || PLACES.iter().any(|place| name.starts_with(place))
}
