//! What the administrator wishes: `/etc/sheath/sheath.toml`, checked as a whole before any of it is believed.
//!
//! `raw` only records what was written; `check` turns it into [`Config`] and gathers every fault with file, line and
//! key. `keys` is the table of all keys. Nothing here reads the machine: whether a port exists is for `host` to say.

mod check;
mod disk;
mod fault;
mod initial;
mod keys;
mod network;
mod raw;
mod slots;

pub use check::parse;
pub use disk::{DiskKeys, Given};
pub use fault::Fault;
pub use initial::{Initial, SAMPLE, render_initial};
pub use keys::{KEYS, Key};
pub use network::parse_address;
pub use slots::Slots;

use std::{collections::BTreeMap, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::model::{
    Chap, Hostname, ImageName, ImageRef, Iqn, LvName, Mac, PortName, Portal, Slot, Template, VgName,
};

/// The whole configuration, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The chassis: bridge, address, slots.
    pub chassis: Chassis,
    /// Where volumes are made.
    pub pool: Pool,
    /// DHCP for the blades.
    pub dhcp: Dhcp,
    /// How targets are named and reached.
    pub target: TargetSettings,
    /// Who gets what.
    pub policy: PolicySettings,
    /// Per-image profiles.
    pub images: BTreeMap<ImageName, ImageProfile>,
}

/// `[chassis]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chassis {
    /// The bridge that the slots' ports belong to.
    pub bridge: PortName,
    /// The appliance's address on the bridge, with its prefix length.
    pub address: (Ipv4Addr, u8),
    /// Whether sheathd makes the bridge and its ports, or the host's own network tool does.
    pub manage: bool,
    /// Whether slots are isolated from each other.
    pub isolate: bool,
    /// The port of each slot.
    pub slots: Slots,
}

/// `[pool]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The volume group.
    pub vg: VgName,
    /// The thin pool in it.
    pub thinpool: LvName,
    /// No new volume above this fill of data or metadata, in percent (1 to 100).
    pub watermark: u8,
}

/// `[dhcp]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dhcp {
    /// First and last address given to blades; both inside the chassis network, the appliance's not among them.
    pub range: (Ipv4Addr, Ipv4Addr),
    /// Lease time in seconds.
    pub lease: u32,
}

/// `[target]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetSettings {
    /// All our targets and initiators are named below it.
    pub iqn_prefix: Iqn,
    /// CHAP, one-way or mutual.
    pub chap: Chap,
    /// Where targets are reached: the chassis address, port 3260, unless said otherwise. The first of [`Self::ports`].
    pub portal: Portal,
    /// How many ports, one after the other, the slots are spread over (1 to 64).
    pub ports: u16,
    /// What is done about hand edits of our targets.
    pub drift: Drift,
}

/// What is done when somebody else has changed a target or a backstore of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Drift {
    /// It is told, and put right at once.
    Repair,
    /// It is told and left, until the operator asks for a repair (`sheath reload`) or wishes something new.
    Report,
}

/// `[policy]`, `[policy.slot.N]` and `[policy.blade."MAC"]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySettings {
    /// For every blade that nothing narrower names.
    pub default: BladePolicy,
    /// By slot.
    pub slots: BTreeMap<Slot, BladePolicy>,
    /// By blade; stronger than the slot's.
    pub blades: BTreeMap<Mac, BladePolicy>,
}

/// What a blade may do. Each key that a narrower table leaves out is inherited, so that here all are present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BladePolicy {
    /// What happens to a blade without a disk.
    pub policy: Policy,
    /// What happens when its disk is ready.
    pub restart: Restart,
    /// For how many seconds the menu waits for a choice; 0 for ever.
    pub menu_timeout: u32,
    /// What is chosen when the time is over.
    pub menu_default: MenuDefault,
    /// The image that the menu offers to make of the machine's own disk.
    pub menu_capture: Option<ImageName>,
    /// For how many seconds a key opens the menu when the blade has a disk; 0 for never.
    pub key_timeout: u32,
    /// What its disks are like, as far as this very table says: other tables than `[policy]` stand between.
    pub disk: DiskKeys,
    /// The host name; `None` for the blade's id.
    pub hostname: Option<Hostname>,
}

/// What happens to a blade that has no disk: `"prompt"`, `"wait"`, `"ignore"` or `{ auto = "IMAGE" }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Ask at its console.
    Prompt,
    /// Wait for the administrator.
    Wait,
    /// Leave it to its firmware's boot order.
    Ignore,
    /// Install this image, unasked.
    Auto(ImageRef),
}

/// What happens when a blade's disk is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// The machine restarts and boots from its disk (the patent's way).
    Reboot,
    /// iPXE boots the disk at once.
    Direct,
}

/// What a menu that nobody answers chooses: `"wait"`, `"firmware"` or `{ install = "IMAGE" }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MenuDefault {
    /// Wait for the administrator.
    Wait,
    /// Go on with the firmware's boot order.
    Firmware,
    /// Install this image.
    Install(ImageRef),
}

/// `[image.NAME]`: what a disk made from the image is like.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageProfile {
    /// Its size and its partitions.
    pub disk: DiskKeys,
    /// How many clones are made ahead.
    pub spares: u16,
    /// SSH public keys for the blade's users.
    pub ssh_keys: Vec<String>,
    /// Extra cloud-config keys, as YAML text, with the blade's own name and place in it.
    pub user_data: Option<Template>,
}

impl TargetSettings {
    /// Returns where the target of the blade in this slot is reached.
    ///
    /// LIO takes logins of one portal one by one, and a connection that says nothing holds all others up for 15 s: so the
    /// slots take turns over several.
    pub fn portal_of(&self, slot: Slot) -> Portal {
        let mut portal = self.portal;
        let turn = (slot.number() - 1) % self.ports;
        portal.0.set_port(portal.0.port() + turn);
        portal
    }
}

impl Config {
    /// Returns the policy that counts for this blade in this slot: the blade's, else the slot's, else the default.
    pub fn policy_of(&self, blade: Mac, slot: Slot) -> &BladePolicy {
        self.policy
            .blades
            .get(&blade)
            .or_else(|| self.policy.slots.get(&slot))
            .unwrap_or(&self.policy.default)
    }

    /// Returns the image's profile, the default one where the file names none.
    pub fn profile_of(&self, image: &ImageName) -> ImageProfile {
        self.images.get(image).cloned().unwrap_or_default()
    }

    /// Returns the slot that this interface is the port of.
    pub fn slot_of(&self, port: &PortName) -> Option<Slot> {
        self.chassis.slots.of(port)
    }
}
