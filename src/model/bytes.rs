//! Sizes in bytes, written by people as `20GiB` and by LVM as plain numbers.

use std::{fmt, str::FromStr};

use super::names::serde_as_text;
use crate::error::Error;

/// A number of bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

/// Binary units, largest first.
const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

impl Bytes {
    /// Returns so many MiB.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// Returns so many GiB.
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// Returns the size with one decimal and a unit, for people: `2.5 GiB`.
    pub fn human(self) -> String {
        for (unit, shift) in UNITS {
            if self.0 >> shift > 0 {
                let tenths = u128::from(self.0) * 10 / (1_u128 << shift);
                return format!("{}.{} {unit}", tenths / 10, tenths % 10);
            }
        }
        format!("{} B", self.0)
    }
}

impl FromStr for Bytes {
    type Err = Error;

    /// Reads a whole number with an optional `KiB`, `MiB`, `GiB`, `TiB` (or `K`, `M`, `G`, `T`: powers of 1024 too).
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || {
            let text = text.escape_debug();
            Error::invalid(format!("'{text}' is not a size (a whole number and KiB, MiB, GiB or TiB)"))
        };
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = &text[digits.len()..];
        let shift = match unit {
            "" | "B" => 0,
            _ => UNITS
                .iter()
                .find(|(name, _)| *name == unit || name.get(..1) == Some(unit))
                .map(|(_, shift)| *shift)
                .ok_or_else(bad)?,
        };
        let digits = digits.trim_end_matches(' ');
        if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
            return Err(bad());
        }
        let number: u64 = digits.parse().map_err(|_| bad())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for Bytes {
    /// Writes the largest unit that divides the size exactly, so that the text reads back as the same number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = UNITS.iter().find(|(_, shift)| self.0 != 0 && self.0.trailing_zeros() >= *shift);
        match exact {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl serde::Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        /// A size as written: a number of bytes, or text with a unit.
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(from)? {
            Written::Number(n) => Ok(Self(n)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// How large something is to become: `40GiB`, or `+10GiB` for so much more than it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    /// So large.
    To(Bytes),
    /// So much larger.
    By(Bytes),
}

impl Growth {
    /// Returns the size that something of this size becomes, or `None` where no number holds it.
    pub fn of(self, has: Bytes) -> Option<Bytes> {
        match self {
            Self::To(size) => Some(size),
            Self::By(more) => has.0.checked_add(more.0).map(Bytes),
        }
    }
}

impl FromStr for Growth {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.strip_prefix('+') {
            Some(more) => more.parse().map(Self::By),
            None => text.parse().map(Self::To),
        }
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::To(size) => size.fmt(f),
            Self::By(more) => write!(f, "+{more}"),
        }
    }
}

serde_as_text!(Growth);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_reads_back_as_the_same_number() {
        for n in [0, 1, 1023, 1024, 1536, 1 << 20, 20 << 30, (20 << 30) + 512, u64::MAX] {
            assert_eq!(Bytes(n).to_string().parse::<Bytes>().unwrap(), Bytes(n));
        }
    }

    #[test]
    fn a_growth_is_a_size_or_so_much_more_and_never_wraps() {
        for (text, has, becomes) in [
            ("40GiB", 20, Some(Bytes::gib(40))),
            ("+10GiB", 20, Some(Bytes::gib(30))),
            ("10GiB", 20, Some(Bytes::gib(10))),
            ("+16777215TiB", 1 << 20, None),
        ] {
            let growth: Growth = text.parse().unwrap();
            assert_eq!(growth.of(Bytes::gib(has)), becomes, "{text}");
            assert_eq!(growth.to_string(), text);
        }
        for bad in ["", "+", "++1GiB", "-1GiB", "+-1", "+x"] {
            assert!(bad.parse::<Growth>().is_err(), "{bad}");
        }
    }

    #[test]
    fn units_and_bad_words() {
        assert_eq!("20GiB".parse::<Bytes>().unwrap(), Bytes::gib(20));
        assert_eq!("20G".parse::<Bytes>().unwrap(), Bytes::gib(20));
        assert_eq!("512 MiB".parse::<Bytes>().unwrap(), Bytes::mib(512));
        for bad in ["", "G", "-1", "1.5GiB", "20GB", "99999999999TiB", "1 2"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad}");
        }
        assert_eq!(Bytes((5 << 30) / 2).human(), "2.5 GiB");
    }
}
