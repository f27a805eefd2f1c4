//! Volumes: golden images, spares and blades' disks, and the LVM tags that say which is which.
//!
//! The tags are the truth that survives everything else: with the state folder gone, they still say whose disk a
//! volume is.

use std::{collections::BTreeSet, fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{BladeId, Bytes, DiskProfile, ImageId, LvName, Mac, Slot, names::serde_as_text};
use crate::error::Error;

/// The id of a clone: 128 random bits, made once, never reused, written as 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId(pub u128);

/// Clones' logical volumes are called `sheath-vol-<id>`: udev rules match on it.
const VOLUME_PREFIX: &str = "sheath-vol-";

impl VolumeId {
    /// Returns the name of the logical volume.
    pub fn lv_name(self) -> LvName {
        format!("{VOLUME_PREFIX}{self}").parse().expect("a fixed prefix and hex digits are a valid name")
    }

    /// Returns the id in a logical volume's name, or `None` where the name is not a clone's.
    pub fn from_lv_name(name: &str) -> Option<Self> {
        name.strip_prefix(VOLUME_PREFIX)?.parse().ok()
    }

    /// Returns the number of the LIO HBA that is this volume's own: the id's top 31 bits.
    pub fn hba(self) -> u32 {
        u32::try_from(self.0 >> 97).expect("128 - 97 bits fit")
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for VolumeId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let canonical = text.len() == 32 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        u128::from_str_radix(text, 16).ok().filter(|_| canonical).map(Self).ok_or_else(|| {
            Error::invalid(format!("'{}' is not a volume id (32 hex digits)", text.escape_debug()))
        })
    }
}

serde_as_text!(VolumeId);

/// One fact that we keep in an LVM tag, each `sheath.<key>[=<value>]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tag {
    /// Half-made: never exported, removed when nothing wants it finished.
    Making,
    /// The golden image that a clone came from.
    Image(ImageId),
    /// The blade whose disk this is.
    Blade(BladeId),
    /// The slot that the blade was in when it got the disk.
    Slot(Slot),
    /// An image that may be chosen.
    Published,
    /// The version that its family's name stands for, because the operator says so.
    Default,
    /// What a clone was made like.
    Profile(DiskProfile),
    /// An image with a master boot record: no disk is made of it before it is sealed.
    Mbr,
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Making => f.write_str("sheath.making"),
            Self::Image(image) => write!(f, "sheath.image={}", image.tag_value()),
            Self::Blade(blade) => write!(f, "sheath.blade={}", blade.0.hex()),
            Self::Slot(slot) => write!(f, "sheath.slot={slot}"),
            Self::Published => f.write_str("sheath.published"),
            Self::Default => f.write_str("sheath.default"),
            Self::Mbr => f.write_str("sheath.mbr"),
            Self::Profile(profile) => write!(f, "sheath.profile={profile}"),
        }
    }
}

impl FromStr for Tag {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let foreign = || Error::invalid(format!("'{}' is not a tag of ours", text.escape_debug()));
        let rest = text.strip_prefix("sheath.").ok_or_else(foreign)?;
        match rest.split_once('=') {
            None if rest == "making" => Ok(Self::Making),
            None if rest == "published" => Ok(Self::Published),
            None if rest == "default" => Ok(Self::Default),
            None if rest == "mbr" => Ok(Self::Mbr),
            Some(("image", value)) => ImageId::from_tag_value(value).map(Self::Image),
            Some(("blade", value)) => value.parse::<Mac>().map(|mac| Self::Blade(BladeId(mac))),
            Some(("slot", value)) => value.parse().map(Self::Slot),
            Some(("profile", value)) => value.parse().map(Self::Profile),
            _ => Err(foreign()),
        }
    }
}

/// What a volume is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A golden image.
    Image {
        /// Which.
        image: ImageId,
        /// Whether it may be chosen.
        published: bool,
        /// Whether the operator has made it its family's default version.
        pinned: bool,
        /// Whether it has a master boot record, of which the sealer makes a GPT.
        mbr: bool,
    },
    /// A clone made ahead, nobody's yet.
    Spare {
        /// The clone's id.
        id: VolumeId,
        /// The image that it came from.
        image: ImageId,
        /// What it is like; `None` where nothing says so: then it is given to nobody.
        profile: Option<DiskProfile>,
    },
    /// A blade's disk.
    Disk {
        /// The clone's id.
        id: VolumeId,
        /// The image that it came from.
        image: ImageId,
        /// Whose disk it is.
        blade: BladeId,
        /// The slot that the blade is bound to.
        slot: Slot,
    },
}

/// Whether a volume is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeState {
    /// Being made: tagged `sheath.making`.
    Making,
    /// Whole.
    Ready,
}

/// A logical volume of ours, as LVM reports it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// The name of the logical volume.
    pub lv: LvName,
    /// What it is for.
    pub role: Role,
    /// Whether it is whole.
    pub state: VolumeState,
    /// Its size as the initiator will see it.
    pub size: Bytes,
    /// `/dev/VG/LV`.
    pub device: PathBuf,
    /// Whether device-mapper has it.
    pub active: bool,
    /// Whether it can be written to. An image cannot, once it is at rest.
    pub writable: bool,
    /// Share of its size that is mapped in the pool, in percent; `None` while it is not active.
    pub used_percent: Option<f32>,
}

impl Volume {
    /// Returns whether it is an image with an MBR: no disk can be made of it before it is sealed.
    pub fn has_mbr(&self) -> bool {
        matches!(self.role, Role::Image { mbr: true, .. })
    }

    /// Returns what a logical volume's name and tags say it is, or `None` where it is not one of ours.
    pub fn identify(name: &str, tags: &BTreeSet<Tag>) -> Option<(Role, VolumeState)> {
        let state = if tags.contains(&Tag::Making) { VolumeState::Making } else { VolumeState::Ready };
        if let Some(image) = ImageId::from_lv_name(name) {
            let (published, pinned) = (tags.contains(&Tag::Published), tags.contains(&Tag::Default));
            let mbr = tags.contains(&Tag::Mbr);
            return Some((Role::Image { image, published, pinned, mbr }, state));
        }
        let id = VolumeId::from_lv_name(name)?;
        let image =
            tags.iter().find_map(|t| if let Tag::Image(image) = t { Some(image.clone()) } else { None })?;
        let blade = tags.iter().find_map(|t| if let Tag::Blade(blade) = t { Some(*blade) } else { None });
        let slot = tags.iter().find_map(|t| if let Tag::Slot(slot) = t { Some(*slot) } else { None });
        let role = match (blade, slot) {
            (Some(blade), Some(slot)) => Role::Disk { id, image, blade, slot },
            _ => {
                let profile =
                    tags.iter().find_map(|t| if let Tag::Profile(it) = t { Some(*it) } else { None });
                Role::Spare { id, image, profile }
            }
        };
        Some((role, state))
    }

    /// Returns the clone's id, or `None` for an image.
    pub fn id(&self) -> Option<VolumeId> {
        match self.role {
            Role::Image { .. } => None,
            Role::Spare { id, .. } | Role::Disk { id, .. } => Some(id),
        }
    }
}

/// How full the thin pool is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolUsage {
    /// The pool's size.
    pub size: Bytes,
    /// Data space in use, in percent.
    pub data_percent: f32,
    /// Metadata space in use, in percent.
    pub metadata_percent: f32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_read_back_as_what_was_written() {
        let blade = BladeId("52:54:00:12:34:56".parse().unwrap());
        for tag in [
            Tag::Making,
            Tag::Published,
            Tag::Default,
            Tag::Mbr,
            Tag::Image("debian13".parse().unwrap()),
            Tag::Image("debian13@12".parse().unwrap()),
            Tag::Blade(blade),
            Tag::Slot("3".parse().unwrap()),
            Tag::Profile(DiskProfile { swap: Some(Bytes::gib(1)), ..DiskProfile::default() }),
        ] {
            assert_eq!(tag.to_string().parse::<Tag>().unwrap(), tag);
        }
        assert!("bladed".parse::<Tag>().is_err());
    }

    #[test]
    fn a_volume_with_half_an_owner_is_a_spare_and_never_somebodys_disk() {
        let id = VolumeId(7);
        let image: ImageId = "debian13".parse().unwrap();
        let tags = BTreeSet::from([Tag::Image(image.clone()), Tag::Slot("3".parse().unwrap())]);
        let (role, state) = Volume::identify(id.lv_name().as_str(), &tags).unwrap();
        assert_eq!((role, state), (Role::Spare { id, image, profile: None }, VolumeState::Ready));
        assert!(Volume::identify("root", &tags).is_none());
    }

    #[test]
    fn serials_of_two_volumes_differ_in_their_first_25_digits_when_the_ids_do() {
        let a = VolumeId(1 << 100);
        assert_eq!(a.to_string().len(), 32);
        assert_eq!(VolumeId::from_lv_name(a.lv_name().as_str()), Some(a));
        assert_eq!(a.hba(), 8);
    }
}
