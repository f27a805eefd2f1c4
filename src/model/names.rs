//! Names made of text: each kind is a type whose constructor is the only door.
//!
//! A name that exists is safe wherever we put it: in an iPXE script, an LVM argument, a dnsmasq line, a path. None
//! can hold a newline, a slash, a space or a leading hyphen.

use std::{fmt, str::FromStr};

use crate::error::Error;

/// Gives a type serde through its `Display` and `FromStr`, so that saved text passes the same door as typed text.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_as_text;

/// Declares a checked name: what it is, what is allowed, and the predicate that says so.
macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $allowed:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    return Ok(Self(text.to_owned()));
                }
                Err(Error::invalid(format!("'{}' is not {}", text.escape_debug(), $allowed)))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        serde_as_text!($type);
    };
}

/// Returns whether `text` has 1 to `max` bytes, starts with one of `first` and goes on with `first` or `more`.
fn made_of(text: &str, max: usize, first: fn(u8) -> bool, more: &[u8]) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= max
        && bytes.first().is_some_and(|&c| first(c))
        && bytes.iter().all(|&c| first(c) || more.contains(&c))
}

/// Returns whether this is a lower-case letter or a digit.
fn lower_or_digit(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

/// Returns whether LVM accepts the character at a name's start (lvm(8), "valid names").
fn lvm_first(c: u8) -> bool {
    c.is_ascii_alphanumeric() || c == b'_'
}

name!(
    /// The name of a family of golden images, such as `debian13`: its versions are [`ImageId`](super::ImageId)s.
    ImageName,
    "an image name (1 to 40 of a-z 0-9 . -, starting with a letter or digit)",
    |text| made_of(text, 40, lower_or_digit, b".-") && !text.ends_with(['.', '-'])
);

name!(
    /// The name of a network interface of the appliance: a slot's port or the bridge (IFNAMSIZ is 16 with its NUL).
    PortName,
    "an interface name (1 to 15 of letters, digits, . _ -, starting with a letter or digit)",
    |text| made_of(text, 15, |c| c.is_ascii_alphanumeric(), b"._-")
);

name!(
    /// The name of an LVM volume group.
    VgName,
    "a volume group name (1 to 60 of letters, digits, _ . + -, not starting with a hyphen)",
    |text| made_of(text, 60, lvm_first, b".+-") && text != "." && text != ".."
);

name!(
    /// The name of a logical volume.
    LvName,
    "a logical volume name (1 to 60 of letters, digits, _ . + -, not starting with a hyphen)",
    |text| made_of(text, 60, lvm_first, b".+-")
);

name!(
    /// A host name: one label of RFC 1123, which cloud-init gives to the blade.
    Hostname,
    "a host name (1 to 63 of a-z 0-9 -, starting and ending with a letter or digit)",
    |text| made_of(text, 63, lower_or_digit, b"-") && !text.ends_with('-')
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newline_is_never_part_of_a_name() {
        for bad in ["a\nb", "a b", "", "-a", "a/b", "a;b", "a${b}", "ä", "a\0", "../x", "a%2f"] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad:?}");
            assert!(bad.parse::<PortName>().is_err(), "{bad:?}");
            assert!(bad.parse::<VgName>().is_err(), "{bad:?}");
            assert!(bad.parse::<LvName>().is_err(), "{bad:?}");
            assert!(bad.parse::<Hostname>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn saved_text_passes_the_same_door_as_typed_text() {
        assert!(serde_json::from_str::<ImageName>("\"debian13\"").is_ok());
        assert!(serde_json::from_str::<ImageName>("\"Debian 13\"").is_err());
    }
}
