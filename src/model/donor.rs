//! A donor: a machine in a slot whose own disk becomes an image, and what its small Linux says meanwhile.
//!
//! Everything that a donor says is a claim: it moves a bar and ends a wait, and what it has written is looked at like any
//! image from anywhere.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{Bytes, Slot};
use crate::error::{Error, Result};

/// Longest name of a disk: a WWN, a serial number.
const LONGEST: usize = 64;

/// A donor that starts over the network: the slot that it is in, and which of its disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetDonor {
    /// Where it is plugged in.
    pub slot: Slot,
    /// Its disk, by kernel name or serial number; `None` where it has one alone.
    pub disk: Option<String>,
}

impl NetDonor {
    /// What a source of this kind begins with: `slot:3`, `slot:3/sda`.
    pub const SCHEME: &'static str = "slot:";
}

impl FromStr for NetDonor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("'{}' is no slot: slot:3, or slot:3/sda", text.escape_debug()));
        let rest = text.strip_prefix(Self::SCHEME).ok_or_else(wrong)?;
        let (slot, disk) = rest.split_once('/').map_or((rest, None), |(slot, disk)| (slot, Some(disk)));
        let plain = |disk: &str| {
            (1..=LONGEST).contains(&disk.len())
                && disk.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.:".contains(&c))
                && !disk.starts_with('-')
        };
        let slot = slot.parse().map_err(|_| wrong())?;
        match disk {
            Some(disk) if !plain(disk) => Err(wrong()),
            disk => Ok(Self { slot, disk: disk.map(str::to_owned) }),
        }
    }
}

impl fmt::Display for NetDonor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::SCHEME, self.slot)?;
        self.disk.as_ref().map_or(Ok(()), |disk| write!(f, "/{disk}"))
    }
}

/// What a donor says, or is heard to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "kebab-case")]
pub enum DonorWord {
    /// It was told to start the small Linux.
    Told,
    /// So much of what is in use of its disk is copied.
    Copying {
        /// So far.
        done: Bytes,
        /// In all.
        total: Bytes,
    },
    /// So much of it was read back and is the same.
    Verifying {
        /// So far.
        done: Bytes,
        /// In all.
        total: Bytes,
    },
    /// All is copied and verified.
    Done {
        /// The disk's size.
        size: Bytes,
    },
    /// It did not work.
    Failed {
        /// The error's chain.
        error: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_donor_is_a_slot_and_perhaps_a_disk() {
        for text in ["slot:3", "slot:12/sda", "slot:1/nvme0n1", "slot:2/S3Z8NB0K-1.2:3"] {
            assert_eq!(text.parse::<NetDonor>().unwrap().to_string(), text);
        }
        for bad in [
            "slot:",
            "slot:0",
            "slot:x",
            "3",
            "slot:3/",
            "slot:3/a b",
            "slot:3/-x",
            "slot:3/../x",
            "slot:3/a/b",
        ] {
            assert!(bad.parse::<NetDonor>().is_err(), "{bad}");
        }
    }
}
