//! Blades and the slots that they are inserted in.

use std::{fmt, str::FromStr};

use super::{Mac, names::serde_as_text};
use crate::error::Error;

/// The number of a slot of the chassis, 1 to 999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// Returns the slot's number.
    pub fn number(self) -> u16 {
        self.0
    }
}

impl FromStr for Slot {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let plain = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()) && !text.starts_with('0');
        match text.parse() {
            Ok(n @ 1..=999) if plain => Ok(Self(n)),
            _ => Err(Error::invalid(format!("'{}' is not a slot number (1 to 999)", text.escape_debug()))),
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

serde_as_text!(Slot);

/// A blade, known by the address of the NIC that it boots from.
///
/// Its text is `b-` and the twelve hex digits of the address: a valid IQN suffix, LVM tag part and host name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BladeId(pub Mac);

impl fmt::Display for BladeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b-{}", self.0.hex())
    }
}

impl fmt::Debug for BladeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BladeId {
    type Err = Error;

    /// Reads `b-525400123456`, or any spelling of the address itself.
    fn from_str(text: &str) -> Result<Self, Error> {
        text.strip_prefix("b-").unwrap_or(text).parse().map(Self)
    }
}

serde_as_text!(BladeId);

/// The firmware that a blade starts with; it decides which loaders an image must carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// PC BIOS: iPXE's platform `pcbios`.
    Bios,
    /// UEFI: iPXE's platform `efi`.
    Uefi,
}

impl Firmware {
    /// Returns its word, the same as in JSON and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Uefi => "uefi",
        }
    }
}

impl FromStr for Firmware {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self, Error> {
        match word {
            "bios" => Ok(Self::Bios),
            "uefi" => Ok(Self::Uefi),
            _ => Err(Error::invalid(format!("'{}' is no firmware: bios or uefi", word.escape_debug()))),
        }
    }
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bios => "BIOS",
            Self::Uefi => "UEFI",
        })
    }
}

/// What a blade says of itself (SMBIOS, by way of iPXE). Shown to people; nothing is ever decided by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Hardware {
    /// SMBIOS system UUID.
    pub uuid: Option<String>,
    /// SMBIOS system serial number.
    pub serial: Option<String>,
    /// SMBIOS manufacturer.
    pub manufacturer: Option<String>,
    /// SMBIOS product name.
    pub product: Option<String>,
    /// The firmware, from iPXE's `${platform}`.
    pub firmware: Option<Firmware>,
    /// The version of the iPXE that asked.
    pub ipxe: Option<String>,
}
