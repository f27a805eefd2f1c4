//! Steps: what a plan is made of. Each says a result ("LUN 0 of T is B"), not an action, and is plain data.
//!
//! A step holds everything that its execution needs except secrets, which the host derives; running it twice is the
//! same as running it once.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::{
    Backstore, Bytes, Chap, ForeignExport, ImageId, Iqn, Layout, LvName, NopIn, PortName, Portal, Seed,
    Stray, Tag, VolumeId,
};

/// One idempotent step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// The bridge exists, is up and has this address.
    Bridge {
        /// Its name.
        bridge: PortName,
        /// The appliance's address on it, with the prefix length.
        address: (Ipv4Addr, u8),
    },
    /// A slot's port is up and a port of the bridge.
    Port {
        /// The slot's interface.
        port: PortName,
        /// The bridge.
        bridge: PortName,
        /// Whether the ports are isolated from each other.
        isolated: bool,
    },
    /// A service's configuration file has this content, and the service knows.
    ServiceFile {
        /// The systemd unit that reads it.
        unit: String,
        /// The file.
        path: PathBuf,
        /// Its content.
        content: String,
    },
    /// The volume is a thin snapshot of the image, of this size, tagged, active.
    Clone {
        /// The clone.
        volume: VolumeId,
        /// The golden image.
        image: ImageId,
        /// Its size; never smaller than the image.
        size: Bytes,
        /// Its tags, `sheath.making` among them.
        tags: Vec<Tag>,
    },
    /// Device-mapper has the volume.
    Activate {
        /// The clone.
        volume: VolumeId,
    },
    /// The volume's GPT fits its size and has this layout, with room for the seed.
    Partition {
        /// The clone.
        volume: VolumeId,
        /// GUID and extra partitions.
        layout: Layout,
    },
    /// The volume's `CIDATA` partition holds this seed.
    Seed {
        /// The clone.
        volume: VolumeId,
        /// Identity for cloud-init.
        seed: Seed,
    },
    /// The volume has these tags and lacks those.
    Tag {
        /// The clone.
        volume: VolumeId,
        /// Tags that it has afterwards.
        add: Vec<Tag>,
        /// Tags that it has no more.
        remove: Vec<Tag>,
    },
    /// The volume is gone.
    RemoveVolume {
        /// The clone.
        volume: VolumeId,
    },
    /// A thin volume for this image exists, half-made.
    CreateImage {
        /// The image.
        image: ImageId,
        /// Its size.
        size: Bytes,
    },
    /// The image is whole, read-only, and may be chosen or not.
    FinishImage {
        /// The image.
        image: ImageId,
        /// Whether it may be chosen.
        published: bool,
    },
    /// The image's volume is gone.
    RemoveImage {
        /// The image.
        image: ImageId,
    },
    /// udev knows whose disk the volume is: properties set, links made.
    Announce {
        /// The clone.
        volume: VolumeId,
        /// `SHEATH_…` properties; empty takes them away.
        properties: BTreeMap<String, String>,
    },
    /// The backstore exists, is enabled, and has our profile of attributes.
    Backstore {
        /// Device, name, serial.
        backstore: Backstore,
    },
    /// The target and its TPG exist with our profile of attributes, not necessarily enabled.
    Target {
        /// The target.
        target: Iqn,
    },
    /// LUN 0 of the target is the backstore.
    Lun {
        /// The target.
        target: Iqn,
        /// The disk.
        backstore: Backstore,
    },
    /// The target has an ACL for this initiator, with its CHAP and timeouts.
    Acl {
        /// The target.
        target: Iqn,
        /// The initiator.
        initiator: Iqn,
        /// The disk that the credentials are derived for.
        volume: VolumeId,
        /// One-way or mutual.
        chap: Chap,
        /// Pings.
        nopin: NopIn,
    },
    /// The initiator's mapped LUN 0 is the target's LUN 0, writable.
    MapLun {
        /// The target.
        target: Iqn,
        /// The initiator.
        initiator: Iqn,
    },
    /// The target is reached at this portal.
    Portal {
        /// The target.
        target: Iqn,
        /// Address and port.
        portal: Portal,
    },
    /// The stray object is gone from the target.
    RemoveStray {
        /// The target.
        target: Iqn,
        /// What.
        stray: Stray,
    },
    /// The TPG is enabled.
    Enable {
        /// The target.
        target: Iqn,
    },
    /// The TPG is disabled: its sessions are gone.
    Disable {
        /// The target.
        target: Iqn,
    },
    /// The ACL is gone, its mapped LUN with it.
    RemoveAcl {
        /// The target.
        target: Iqn,
        /// The initiator.
        initiator: String,
    },
    /// The target is gone with all below it. It has been disabled before.
    RemoveTarget {
        /// The target.
        target: Iqn,
    },
    /// The backstore and its HBA are gone.
    RemoveBackstore {
        /// The clone that it exported.
        volume: VolumeId,
    },
    /// This session of the initiator is gone, and all that were there beside it; the initiator may log in again.
    DropSession {
        /// The target.
        target: Iqn,
        /// The initiator.
        initiator: Iqn,
        /// LIO's id of the session: a later one is another, and stays.
        session: u32,
    },
    /// A target that is not ours is gone, its backstore with it; the volume stays. With the operator's consent.
    RemoveForeign {
        /// The target, as it was when the operator consented: another one of that name stays.
        from: ForeignExport,
    },
    /// The volume is what was another logical volume of the pool: renamed, tagged, active.
    TakeOver {
        /// The blade's disk.
        volume: VolumeId,
        /// The name that it had.
        lv: LvName,
        /// Its size, which stays.
        size: Bytes,
        /// Its tags: it has them before it has its new name.
        tags: Vec<Tag>,
    },
    /// The volume is at least so large.
    Grow {
        /// The clone.
        volume: VolumeId,
        /// Its size.
        size: Bytes,
    },
    /// A snapshot of the volume, as it was at one moment, is the image's, half-made.
    Promote {
        /// The image.
        image: ImageId,
        /// The clone that it is taken of.
        volume: VolumeId,
    },
    /// The image's volume has these tags and lacks those.
    TagImage {
        /// The image.
        image: ImageId,
        /// Tags that it has afterwards.
        add: Vec<Tag>,
        /// Tags that it has no more.
        remove: Vec<Tag>,
    },
}

/// Whether a step had anything to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Changed {
    /// It made it so.
    Changed,
    /// It was so already.
    AlreadyTrue,
}

impl Changed {
    /// Returns [`Changed::Changed`] where `changed`.
    pub fn from_bool(changed: bool) -> Self {
        if changed { Self::Changed } else { Self::AlreadyTrue }
    }
}

impl Step {
    /// Returns the blade's console's word for the step: short, for somebody who waits.
    pub fn console_word(&self) -> &'static str {
        match self {
            Self::Bridge { .. } | Self::Port { .. } | Self::ServiceFile { .. } => "preparing network",
            Self::Clone { .. }
            | Self::Activate { .. }
            | Self::RemoveForeign { .. }
            | Self::TakeOver { .. } => "preparing disk",
            Self::CreateImage { .. }
            | Self::FinishImage { .. }
            | Self::Promote { .. }
            | Self::TagImage { .. } => "preparing image",
            Self::RemoveImage { .. } => "removing image",
            Self::Partition { .. } => "partitioning disk",
            Self::Seed { .. } | Self::Tag { .. } | Self::Announce { .. } => "naming disk",
            Self::Backstore { .. }
            | Self::Target { .. }
            | Self::Lun { .. }
            | Self::Acl { .. }
            | Self::MapLun { .. }
            | Self::Portal { .. }
            | Self::RemoveStray { .. }
            | Self::Enable { .. } => "preparing target",
            Self::RemoveVolume { .. }
            | Self::Disable { .. }
            | Self::RemoveAcl { .. }
            | Self::RemoveTarget { .. }
            | Self::RemoveBackstore { .. } => "removing disk",
            Self::DropSession { .. } => "closing session",
            Self::Grow { .. } => "growing disk",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge { .. } | Self::Port { .. } | Self::ServiceFile { .. } => self.write_chassis(f),
            Self::Clone { volume, image, size, .. } => {
                write!(f, "volume '{volume}' is a clone of '{image}' of {}", size.human())
            }
            Self::Activate { volume } => write!(f, "volume '{volume}' is active"),
            Self::Partition { volume, layout } => {
                write!(f, "volume '{volume}' is partitioned as disk {}", layout.guid)
            }
            Self::Seed { volume, seed } => {
                write!(f, "volume '{volume}' carries the seed of '{}'", seed.hostname)
            }
            Self::Tag { volume, add, remove } => {
                write!(f, "volume '{volume}' is tagged{}", both(add, remove))
            }
            Self::TagImage { image, add, remove } => {
                write!(f, "image '{image}' is tagged{}", both(add, remove))
            }
            Self::Promote { image, volume } => {
                write!(f, "image '{image}' is a snapshot of volume '{volume}'")
            }
            Self::CreateImage { image, size } => {
                write!(f, "image '{image}' has a volume of {}", size.human())
            }
            Self::FinishImage { image, published } => {
                write!(f, "image '{image}' is whole and {}published", if *published { "" } else { "not " })
            }
            Self::RemoveImage { image } => write!(f, "image '{image}' is gone"),
            Self::RemoveVolume { volume } => write!(f, "volume '{volume}' is gone"),
            Self::Announce { volume, .. } => write!(f, "udev knows whose disk volume '{volume}' is"),
            Self::Backstore { backstore } => write!(f, "backstore '{}' is enabled", backstore.name()),
            Self::Target { target } => write!(f, "target '{target}' exists"),
            Self::Lun { target, backstore } => write!(f, "LUN 0 of '{target}' is '{}'", backstore.name()),
            Self::Acl { target, initiator, .. } => write!(f, "'{target}' admits '{initiator}'"),
            Self::MapLun { target, initiator } => write!(f, "LUN 0 of '{target}' is mapped to '{initiator}'"),
            Self::Portal { target, portal } => write!(f, "'{target}' is reached at {portal}"),
            Self::RemoveStray { target, stray } => write!(f, "{stray} is gone from '{target}'"),
            Self::Enable { target } => write!(f, "'{target}' is enabled"),
            Self::Disable { target } => write!(f, "'{target}' is disabled"),
            Self::RemoveAcl { target, initiator } => write!(f, "'{target}' does not admit '{initiator}'"),
            Self::RemoveTarget { target } => write!(f, "target '{target}' is gone"),
            Self::RemoveBackstore { volume } => write!(f, "backstore of volume '{volume}' is gone"),
            Self::DropSession { target, initiator, session } => {
                write!(f, "session {session} of '{initiator}' with '{target}' is gone")
            }
            Self::RemoveForeign { from } => {
                let ForeignExport { target, backstore, lv, .. } = from;
                write!(f, "foreign target '{target}' and its backstore '{backstore}' are gone, '{lv}' stays")
            }
            Self::TakeOver { volume, lv, tags: all, .. } => {
                write!(f, "volume '{volume}' is what was '{lv}', tagged{}", tags('+', all))
            }
            Self::Grow { volume, size } => write!(f, "volume '{volume}' has {} at least", size.human()),
        }
    }
}

impl Step {
    /// Writes a step about the chassis.
    fn write_chassis(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge { bridge, address: (ip, prefix) } => {
                write!(f, "bridge '{bridge}' is up with {ip}/{prefix}")
            }
            Self::Port { port, bridge, isolated } => {
                let how = if *isolated { "an isolated" } else { "a" };
                write!(f, "'{port}' is {how} port of '{bridge}'")
            }
            Self::ServiceFile { unit, path, .. } => {
                write!(f, "'{}' is what '{unit}' was told", path.display())
            }
            _ => Ok(()),
        }
    }
}

/// Returns added tags and removed ones as words.
fn both(add: &[Tag], remove: &[Tag]) -> String {
    tags('+', add) + &tags('-', remove)
}

/// Returns the tags as words behind a sign: added or removed.
fn tags(sign: char, tags: &[Tag]) -> String {
    tags.iter().map(|tag| format!(" {sign}{tag}")).collect()
}
