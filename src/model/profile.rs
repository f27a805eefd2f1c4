//! What a fresh disk gets beyond the image's own content: its partitions and its identity.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{Bytes, Hostname, Mac, names::serde_as_text};
use crate::error::Error;

/// A GPT disk GUID, in the usual text form (`xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskGuid(pub u128);

impl DiskGuid {
    /// Returns the GUID made of these random bits, marked as version 4 (RFC 9562 §5.4).
    pub fn from_random(bits: u128) -> Self {
        let version = (bits & !(0xf << 76)) | (0x4 << 76);
        Self((version & !(0x3 << 62)) | (0x2 << 62))
    }
}

impl fmt::Display for DiskGuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032X}", self.0);
        write!(f, "{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

impl fmt::Debug for DiskGuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for DiskGuid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let hex: String = text.chars().filter(|c| *c != '-').collect();
        u128::from_str_radix(&hex, 16)
            .ok()
            .filter(|_| text.len() == 36 && hex.len() == 32)
            .map(Self)
            .ok_or_else(|| Error::invalid(format!("'{}' is not a GUID", text.escape_debug())))
    }
}

serde_as_text!(DiskGuid);

/// What an extra partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartitionKind {
    /// Linux swap.
    Swap,
    /// Linux data: formatted and mounted by the blade.
    Data,
}

/// A partition that the image does not have and the blade gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraPartition {
    /// What it is for.
    pub kind: PartitionKind,
    /// Its size.
    pub size: Bytes,
}

/// What becomes of the root partition: the image's last one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Root {
    /// It grows over all that the other partitions leave.
    #[default]
    Fill,
    /// It stays as large as the image has it; the rest stays free behind it.
    Keep,
    /// It grows to this size; the rest stays free behind it.
    Size(Bytes),
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fill => f.write_str("fill"),
            Self::Keep => f.write_str("keep"),
            Self::Size(size) => size.fmt(f),
        }
    }
}

impl FromStr for Root {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "fill" => Ok(Self::Fill),
            "keep" => Ok(Self::Keep),
            size => size.parse().map(Self::Size),
        }
    }
}

serde_as_text!(Root);

/// How a fresh disk is partitioned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The new disk's GUID.
    pub guid: DiskGuid,
    /// What becomes of the root partition.
    #[serde(default)]
    pub root: Root,
    /// Partitions after the root partition, before the seed's.
    pub extra: Vec<ExtraPartition>,
    /// What stays unpartitioned at the disk's end.
    #[serde(default)]
    pub reserve: Bytes,
}

impl Layout {
    /// Returns the layout that adds nothing: the root partition grows over the whole disk.
    pub fn plain(guid: DiskGuid) -> Self {
        Self { guid, root: Root::Fill, extra: vec![], reserve: Bytes(0) }
    }
}

/// What a fresh disk is like, as the configuration has it: the same for all disks of one profile.
///
/// As text, it is an LVM tag's value: `size:20GiB/root:fill/swap:1GiB`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct DiskProfile {
    /// The disk's size; `None` for the image's own, with room for what is added.
    pub size: Option<Bytes>,
    /// What becomes of the root partition.
    pub root: Root,
    /// A swap partition.
    pub swap: Option<Bytes>,
    /// A data partition.
    pub data: Option<Bytes>,
    /// What stays unpartitioned at the disk's end.
    pub reserve: Option<Bytes>,
}

impl DiskProfile {
    /// Returns how the disk with this GUID is partitioned.
    pub fn layout(&self, guid: DiskGuid) -> Layout {
        let swap = self.swap.map(|size| (PartitionKind::Swap, size));
        let data = self.data.map(|size| (PartitionKind::Data, size));
        let extra = swap.into_iter().chain(data).map(|(kind, size)| ExtraPartition { kind, size });
        Layout { guid, root: self.root, extra: extra.collect(), reserve: self.reserve.unwrap_or_default() }
    }

    /// Returns the sum of what is added to the image: swap, data, reserve.
    pub fn added(&self) -> Bytes {
        [self.swap, self.data, self.reserve]
            .iter()
            .flatten()
            .fold(Bytes(0), |sum, size| Bytes(sum.0.saturating_add(size.0)))
    }

    /// Returns the sizes that the configuration gives, named by their keys: `root, swap and data`.
    pub fn named(&self) -> String {
        let root = matches!(self.root, Root::Size(_));
        let keys = [
            (root, "root"),
            (self.swap.is_some(), "swap"),
            (self.data.is_some(), "data"),
            (self.reserve.is_some(), "reserve"),
        ];
        let keys: Vec<&str> = keys.iter().filter_map(|(is_there, key)| is_there.then_some(*key)).collect();
        match keys.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
            Some((last, _)) => (*last).to_owned(),
            None => String::new(),
        }
    }
}

impl fmt::Display for DiskProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(size) = self.size {
            write!(f, "size:{size}/")?;
        }
        write!(f, "root:{}", self.root)?;
        for (key, size) in [("swap", self.swap), ("data", self.data), ("reserve", self.reserve)] {
            if let Some(size) = size {
                write!(f, "/{key}:{size}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for DiskProfile {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::invalid(format!("'{}' is not a disk's profile", text.escape_debug()));
        let mut profile = Self::default();
        for word in text.split('/') {
            let (key, value) = word.split_once(':').ok_or_else(bad)?;
            match key {
                "size" => profile.size = Some(value.parse()?),
                "root" => profile.root = value.parse()?,
                "swap" => profile.swap = Some(value.parse()?),
                "data" => profile.data = Some(value.parse()?),
                "reserve" => profile.reserve = Some(value.parse()?),
                _ => return Err(bad()),
            }
        }
        Ok(profile)
    }
}

serde_as_text!(DiskProfile);

/// What cloud-init's NoCloud source finds on the partition labelled `CIDATA`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// The instance id: new for each install, so that cloud-init runs once and once only.
    pub instance_id: String,
    /// The blade's host name.
    pub hostname: Hostname,
    /// The boot NIC, kept up by the blade until the very end.
    pub boot_nic: Mac,
    /// SSH public keys for the default user and root.
    pub ssh_keys: Vec<String>,
    /// Extra user-data, a `#cloud-config` document's keys as YAML text, appended as they are.
    pub user_data: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_reads_back_as_what_was_written_and_fits_a_tag() {
        let gib = |n| Some(Bytes::gib(n));
        for profile in [
            DiskProfile::default(),
            DiskProfile { size: gib(20), root: Root::Keep, ..DiskProfile::default() },
            DiskProfile {
                size: gib(20),
                root: Root::Size(Bytes(7 << 20)),
                swap: gib(1),
                data: gib(3),
                reserve: gib(2),
            },
        ] {
            let text = profile.to_string();
            assert_eq!(text.parse::<DiskProfile>().unwrap(), profile, "{text}");
            let allowed = |c: char| c.is_ascii_alphanumeric() || "_+.-/=!:&#".contains(c);
            assert!(text.chars().all(allowed), "{text}");
        }
        for bad in ["", "size", "size:x", "colour:blue", "root:fill/"] {
            assert!(bad.parse::<DiskProfile>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes_are_named_by_their_keys() {
        let one = DiskProfile { data: Some(Bytes::gib(1)), ..DiskProfile::default() };
        assert_eq!(one.named(), "data");
        let all = DiskProfile { root: Root::Size(Bytes::gib(1)), swap: one.data, reserve: one.data, ..one };
        assert_eq!(all.named(), "root, swap, data and reserve");
        assert_eq!(all.added(), Bytes::gib(3));
    }
}
