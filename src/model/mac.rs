//! Ethernet addresses: the only name that a diskless machine brings along.

use std::{fmt, str::FromStr};

use crate::error::Error;

/// A unicast Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    /// Returns the address, or `None` where the bytes are not one of a single machine (multicast, all zero).
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; 6] = bytes.try_into().ok()?;
        (bytes[0] & 1 == 0 && bytes != [0; 6]).then_some(Self(bytes))
    }

    /// Returns the six bytes.
    pub fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// Returns twelve hex digits without separators, as names and tags use them.
    pub fn hex(self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = Error;

    /// Reads `52:54:00:12:34:56`, the same with `-` (iPXE's `hexhyp`), or twelve bare hex digits.
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::invalid(format!("'{}' is not a unicast MAC address", text.escape_debug()));
        let separated = text.len() == 17 && text.bytes().skip(2).step_by(3).all(|c| c == b':' || c == b'-');
        let digits: String = if separated {
            text.char_indices().filter(|(at, _)| at % 3 != 2).map(|(_, c)| c).collect()
        } else {
            text.to_owned()
        };
        if digits.len() != 12 || !digits.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let number = u64::from_str_radix(&digits, 16).map_err(|_| bad())?;
        Self::from_bytes(&number.to_be_bytes()[2..]).ok_or_else(bad)
    }
}

super::names::serde_as_text!(Mac);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_spellings_are_one_address() {
        let mac: Mac = "52:54:00:ab:cd:ef".parse().unwrap();
        assert_eq!("52-54-00-AB-CD-EF".parse::<Mac>().unwrap(), mac);
        assert_eq!(mac.hex().parse::<Mac>().unwrap(), mac);
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:ef");
    }

    #[test]
    fn multicast_zero_and_garbage_are_refused() {
        for bad in [
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:5g",
            "é2540012345",
            "+25400123456",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}
