//! What the machine has, as read back: never mixed up with what should be (`policy`), compared in `plan`.
//!
//! Nouns beside `model`'s: the host fills them, the pure rooms read them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use crate::model::{Iqn, LvName, PoolUsage, PortName, Portal, Stray, Volume};

/// All volumes of ours in the pool's volume group, by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Volumes {
    /// Ours, by the name of the logical volume.
    pub volumes: BTreeMap<LvName, Volume>,
    /// The pool's fill.
    pub pool: PoolUsage,
}

/// A backstore as configfs shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedBackstore {
    /// Whether it is enabled (`enable` reads 1).
    pub enabled: bool,
    /// The device, from `udev_path`.
    pub device: PathBuf,
    /// The `vpd_unit_serial`.
    pub serial: String,
    /// Whether every attribute of our profile that this device supports has our value.
    pub profile: bool,
}

/// Whose credentials an ACL holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthState {
    /// None are set.
    Unset,
    /// Ours, one-way.
    OneWay,
    /// Ours, mutual.
    Mutual,
    /// Something else.
    Foreign,
}

/// The state of an ACL's mapped LUN 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MapState {
    /// Not mapped.
    Missing,
    /// Mapped and writable.
    Mapped,
    /// The link is there and dead: its LUN was unlinked below it (`write_protect` reads empty), or it is read-only.
    Broken,
}

/// An ACL as configfs shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedAcl {
    /// CHAP.
    pub auth: AuthState,
    /// Mapped LUN 0.
    pub map: MapState,
    /// `nopin_timeout` in seconds.
    pub nopin_timeout: u32,
    /// The session that `info` shows, if one is there.
    pub session: Option<Session>,
}

/// A target (its one TPG) as configfs shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedTarget {
    /// Whether the TPG is enabled.
    pub enabled: bool,
    /// Whether every attribute of our profile has our value.
    pub profile: bool,
    /// The backstore that LUN 0 is linked to: its name and HBA number.
    pub lun: Option<(String, u32)>,
    /// ACLs by initiator name, ours or not.
    pub acls: BTreeMap<String, ObservedAcl>,
    /// Portals.
    pub portals: BTreeSet<Portal>,
    /// What is in it besides what we ever put there.
    pub strays: BTreeSet<Stray>,
}

/// What LIO holds for one blade's disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedExport {
    /// The backstore, if it is there.
    pub backstore: Option<ObservedBackstore>,
    /// The target, if it is there.
    pub target: Option<ObservedTarget>,
    /// The properties that udev was told of the volume; empty where it was told nothing.
    pub properties: BTreeMap<String, String>,
}

/// A port of the chassis as the kernel has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedPort {
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether there is a carrier.
    pub carrier: bool,
    /// The bridge (or whatever else) that it belongs to.
    pub master: Option<PortName>,
    /// Whether it is isolated from the bridge's other isolated ports.
    pub isolated: bool,
}

/// The chassis as the kernel has it, and what the services that we configure were told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedChassis {
    /// Whether the bridge exists and is up.
    pub bridge_up: bool,
    /// The bridge's IPv4 addresses with their prefix lengths.
    pub addresses: BTreeSet<(Ipv4Addr, u8)>,
    /// The slots' ports that exist.
    pub ports: BTreeMap<PortName, ObservedPort>,
    /// The content of the files that we write for services, by path; a missing file is not in it.
    pub files: BTreeMap<PathBuf, String>,
}

/// Who is logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionKind {
    /// The firmware's initiator.
    Ipxe,
    /// The operating system's: its ISID starts with Open-iSCSI's `00 02 3d`.
    Os,
}

/// A session of an initiator with a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The initiator's name as it sent it.
    pub initiator: String,
    /// Where it comes from.
    pub address: Option<IpAddr>,
    /// iPXE or the operating system, by the ISID.
    pub kind: SessionKind,
    /// LIO's session id, new at each login.
    pub id: u32,
}

/// One line of `sheath targets`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetSummary {
    /// The target's name, as text: a foreign one may be anything.
    pub target: String,
    /// Whether it carries our mark.
    pub ours: bool,
    /// Whether any of its TPGs is enabled.
    pub enabled: bool,
    /// The devices of its LUNs.
    pub devices: Vec<PathBuf>,
    /// The initiators that it admits.
    pub initiators: Vec<String>,
    /// Its portals, as configfs spells them.
    pub portals: Vec<String>,
    /// Who is logged in.
    pub sessions: Vec<Session>,
}

impl Volumes {
    /// Returns what the report says of these volumes and of the pool: all that one blade's plan looks at.
    #[must_use]
    pub fn only(&self, names: impl IntoIterator<Item = LvName>) -> Self {
        let found = |name: LvName| self.volumes.get(&name).map(|volume| (name, volume.clone()));
        Self { volumes: names.into_iter().filter_map(found).collect(), pool: self.pool }
    }
}

impl ObservedTarget {
    /// Returns whether any initiator is logged in.
    pub fn is_in_use(&self) -> bool {
        self.acls.values().any(|acl| acl.session.is_some())
    }

    /// Returns the session of this initiator, if it is logged in.
    pub fn session_of(&self, initiator: &Iqn) -> Option<&Session> {
        self.acls.get(initiator.as_str())?.session.as_ref()
    }
}
