//! LIO's own nouns, as we want them: one backstore, one target, one TPG, one LUN 0 and one ACL per blade.

use std::{fmt, net::SocketAddrV4, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{Bytes, Iqn, LvName, VolumeId};

/// An IP address and port that a target is reached at. IPv4: iPXE's iBFT holds nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Portal(pub SocketAddrV4);

impl fmt::Display for Portal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An iblock backstore: a block device as LIO exports it.
///
/// HBA number, name and `vpd_unit_serial` all follow from the volume's id, so that the same disk is the same device
/// for ever and two disks never look alike (facts: the initiator sees the serial's first 25 hex digits).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Backstore {
    /// The volume that it exports.
    pub volume: VolumeId,
    /// The block device, `/dev/VG/LV`.
    pub device: PathBuf,
}

impl Backstore {
    /// Returns the number of the HBA that is this backstore's alone: 31 bits of the volume's id.
    pub fn hba(&self) -> u32 {
        self.volume.hba()
    }

    /// Returns the backstore's name in `core/iblock_N/`.
    pub fn name(&self) -> String {
        self.volume.lv_name().to_string()
    }

    /// Returns the `vpd_unit_serial`: the volume's 32 hex digits.
    pub fn serial(&self) -> String {
        self.volume.to_string()
    }
}

/// Who proves what to whom at login.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Chap {
    /// The blade proves itself to the target.
    #[default]
    OneWay,
    /// The target proves itself to the blade too.
    Mutual,
}

/// Whether the target pings an idle initiator (the ACL's `nopin_timeout`).
///
/// iPXE never answers NOP-In: LIO would drop its session 45 s after the login, in the middle of a boot loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NopIn {
    /// No pings: until the operating system has logged in.
    Off,
    /// LIO's default of 15 s: an operating system answers, and a dead one is noticed.
    On,
}

impl NopIn {
    /// Returns the value of `nopin_timeout` in seconds, 0 meaning never.
    pub fn seconds(self) -> u32 {
        match self {
            Self::Off => 0,
            Self::On => 15,
        }
    }
}

/// Everything that LIO holds for one blade's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// The disk.
    pub backstore: Backstore,
    /// The target's name.
    pub target: Iqn,
    /// The name of the one initiator that may log in: we assign it.
    pub initiator: Iqn,
    /// Where the target is reached.
    pub portals: Vec<Portal>,
    /// CHAP, one-way or mutual. Never none.
    pub chap: Chap,
}

/// A target that is not ours and can be taken over: one LUN, on a thin volume of our pool.
///
/// Noted in the grant before anything of it is touched, so that a kill on the way loses nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignExport {
    /// The target's name.
    pub target: Iqn,
    /// The number of the backstore's HBA, `core/iblock_<N>`.
    pub hba: u32,
    /// The backstore's name in that folder.
    pub backstore: String,
    /// The backstore's `udev_path`.
    pub device: PathBuf,
    /// The logical volume behind it.
    pub lv: LvName,
    /// The volume's size.
    pub size: Bytes,
}

/// Something in a target of ours that nobody wished for: by hand, or from an older configuration. Names are configfs's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stray {
    /// A mapped LUN besides LUN 0: the initiator's name, the LUN's.
    MappedLun(String, String),
    /// A LUN besides LUN 0.
    Lun(String),
    /// A portal.
    Portal(String),
    /// A TPG besides the first.
    Tpg(String),
}

impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MappedLun(initiator, lun) => write!(f, "mapped {lun} of '{initiator}'"),
            Self::Lun(lun) => f.write_str(lun),
            Self::Portal(portal) => write!(f, "portal {portal}"),
            Self::Tpg(tpg) => f.write_str(tpg),
        }
    }
}
