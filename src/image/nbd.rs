//! NBD exports as sources: `nbd://HOST[:PORT]/EXPORT`, read by qemu's own driver in the sandbox.
//!
//! NBD has no encryption here and no password: it is for a donor on a network of one's own.

use std::{fmt, str::FromStr};

use super::address::Address;
use crate::error::{Error, Result};

/// NBD's port (IANA).
const PORT: u16 = 10809;
/// Longest export that is taken.
const LONGEST: usize = 255;

/// One export, in words that no option of qemu's can end at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    address: Address,
    name: String,
}

impl Export {
    /// What its URLs begin with.
    pub(super) const SCHEME: &str = "nbd://";

    /// Returns the export as qemu's options have it: the disk's bytes, whatever they look like.
    pub(super) fn options(&self) -> String {
        let Self { address: Address { host, port }, name } = self;
        format!(
            "driver=raw,file.driver=nbd,file.server.type=inet,file.server.host={host},file.server.port={port},\
             file.export={name}"
        )
    }
}

impl FromStr for Export {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let shown = || text.chars().take(200).collect::<String>().escape_debug().to_string();
        let bad = || Error::invalid(format!("'{}' is not an NBD export (nbd://HOST[:PORT]/EXPORT)", shown()));
        let rest = text.strip_prefix(Self::SCHEME).ok_or_else(bad)?;
        let (address, name) = rest.split_once('/').unwrap_or((rest, ""));
        let address = Address::parse(address, PORT).map_err(|_| bad())?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':' | '+');
        if name.len() > LONGEST || !name.chars().all(plain) {
            return Err(bad());
        }
        Ok(Self { address, name: name.to_owned() })
    }
}

impl fmt::Display for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, name } = self;
        write!(f, "nbd://{address}/{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_has_host_port_and_name() {
        for (text, shown) in [
            ("nbd://donor/disk", "nbd://donor:10809/disk"),
            ("nbd://10.0.0.7:10810/a/b", "nbd://10.0.0.7:10810/a/b"),
            ("nbd://[fe80::1]:1/x", "nbd://[fe80::1]:1/x"),
            ("nbd://donor", "nbd://donor:10809/"),
        ] {
            let export: Export = text.parse().unwrap();
            assert_eq!(export.to_string(), shown);
            assert_eq!(shown.parse::<Export>().unwrap(), export, "{shown}");
        }
    }

    #[test]
    fn nothing_in_an_export_ends_an_option_or_begins_another() {
        for bad in [
            "nbd://",
            "nbd:///x",
            "nbd://h:0/x",
            "nbd://h:99999/x",
            "nbd://u:p@h/x",
            "nbd://h,file.driver=file/x",
            "nbd://h/x,read-only=off",
            "nbd://h/x=y",
            "nbd://h/a b",
            "nbd://[::1/x",
            "nbd://[x]/x",
            "nbd+unix:///x?socket=/run/x",
            "http://h/x",
        ] {
            assert!(bad.parse::<Export>().is_err(), "{bad}");
        }
    }
}
