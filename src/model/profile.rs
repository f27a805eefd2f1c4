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

/// How a fresh disk is partitioned: the last partition of the image is grown to what the extra ones leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The new disk's GUID.
    pub guid: DiskGuid,
    /// Partitions after the root partition, before the seed's.
    pub extra: Vec<ExtraPartition>,
}

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
