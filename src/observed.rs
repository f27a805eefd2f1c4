//! What the machine has, as read back: never mixed up with what should be (`policy`), compared in `plan`.
//!
//! Nouns beside `model`'s: the host fills them, the pure rooms read them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use crate::model::{Bytes, Iqn, LvName, PoolUsage, PortName, Portal, Stray, Volume};

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

/// A target that is not ours, looked at by somebody who wants to take it over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedForeign {
    /// The target's name.
    pub target: Iqn,
    /// Its TPGs' folders.
    pub tpgs: Vec<String>,
    /// Its LUNs, of all TPGs.
    pub luns: Vec<ForeignLun>,
    /// The initiators that are logged in.
    pub logged_in: Vec<String>,
}

/// A LUN of such a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignLun {
    /// The folder of the backstore's HBA, such as `iblock_3` or `fileio_0`.
    pub hba: String,
    /// The backstore's name in that folder.
    pub backstore: String,
    /// The backstore's `udev_path`: text that somebody wrote.
    pub device: PathBuf,
    /// Major and minor number of the block device that it really holds.
    pub number: Option<(u32, u32)>,
    /// The LUNs of all targets that lead to the backstore, this one among them.
    pub exports: Vec<String>,
    /// The logical volume with that number, where there is one in our volume group.
    pub volume: Option<ForeignVolume>,
}

/// A logical volume behind a foreign LUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignVolume {
    /// Its name.
    pub lv: LvName,
    /// Its size.
    pub size: Bytes,
    /// Whether it is a thin volume of our pool.
    pub in_pool: bool,
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

/// How much of the pool a volume takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// What is mapped: written by somebody, or by whoever had what it was made from.
    pub mapped: Bytes,
    /// What of that no other volume shares: what is freed when this one is removed.
    pub own: Bytes,
}

/// What the kernel has counted for one blade's disk and target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Sessions of the target. Two while a blade goes from iPXE to its operating system: LIO shows only the latest.
    pub sessions: u32,
    /// Sessions that ended in an error since the target was made: of the connection, of a digest, of a PDU's format.
    pub session_errors: u64,
    /// Logins that were let in since the target was made.
    pub logins: u64,
    /// Logins that were refused since the target was made.
    pub refused_logins: u64,
    /// What the disk has done since its volume was activated; `None` while it is not active.
    pub disk: Option<DiskCounters>,
}

/// What a block device has done since it came: operations and bytes, exactly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskCounters {
    /// Read operations.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Write operations.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Discard operations: UNMAP and WRITE SAME of the blade.
    pub discards: u64,
    /// Bytes discarded.
    pub discarded_bytes: u64,
}

/// What LIO has counted of refused logins to one target since the target was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginFailures {
    /// All of them.
    pub refused: u64,
    /// Those of initiators that the target does not admit.
    pub unauthorised: u64,
    /// Those whose CHAP failed.
    pub unauthenticated: u64,
    /// The last one's initiator, where LIO knows it.
    pub initiator: Option<String>,
    /// The last one's address.
    pub address: Option<IpAddr>,
}

/// Why a login was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalCause {
    /// There is no such target.
    UnknownTarget,
    /// The target is disabled.
    Disabled,
    /// The target has no ACL for the initiator.
    NotAdmitted,
    /// CHAP with another user.
    WrongUser,
    /// CHAP with another password.
    WrongPassword,
    /// The initiator offers no CHAP.
    NoChap,
    /// The ACL holds no CHAP credentials.
    NoCredentials,
    /// CHAP failed, for one of several reasons that were told at once.
    Chap,
    /// A connection did not say who it is in time; every other login at its portal waited.
    Timeout,
    /// The initiator gave up, or the two found no terms.
    Negotiation,
}

impl RefusalCause {
    /// Returns the cause for people.
    pub fn text(self) -> &'static str {
        match self {
            Self::UnknownTarget => "there is no such target",
            Self::Disabled => "the target is disabled",
            Self::NotAdmitted => "the target does not admit this initiator",
            Self::WrongUser => "wrong CHAP user",
            Self::WrongPassword => "wrong CHAP password",
            Self::NoChap => "the initiator offers no CHAP",
            Self::NoCredentials => "the target has no CHAP credentials for this initiator",
            Self::Chap => "CHAP failed",
            Self::Timeout => {
                "the connection said nothing in time, and held up every other login at its portal"
            }
            Self::Negotiation => "the initiator gave up, or no terms were found (mutual CHAP?)",
        }
    }
}

/// A login that was refused, as far as it is known whose.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Refusal {
    /// Why.
    pub cause: RefusalCause,
    /// The initiator's name, as it sent it.
    pub initiator: Option<String>,
    /// The target's name, as the initiator sent it.
    pub target: Option<String>,
    /// Where the login came from.
    pub address: Option<IpAddr>,
    /// The portal, where that is all that is known.
    pub portal: Option<String>,
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

/// A disk that is not the appliance's own: a donor's, plugged in. A line of `sheath donors`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Donor {
    /// Its node.
    pub device: PathBuf,
    /// Its size.
    pub size: Bytes,
    /// What it says that it is.
    pub model: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its partitions, or what else udev has found on it, in words.
    pub content: Vec<String>,
    /// Who uses it, in words: it cannot be imported before they leave it.
    pub users: Vec<String>,
    /// Its logical sectors' size: only 512 bytes can be imported.
    pub sector: Bytes,
}
