//! Where an image comes from: a checked path, URL, device or export.

use std::{fmt, path::PathBuf, str::FromStr};

use super::{iscsi::Lun, nbd::Export, remote::Remote};
use crate::{
    error::{Error, Result},
    model::NetDonor,
};

/// Longest path or URL that is taken: PATH_MAX of Linux.
const LONGEST: usize = 4096;
/// Where block devices are.
const DEVICES: &str = "/dev/";

/// Where an image comes from. Parsed once, at the edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file of this machine, by its absolute path.
    File(PathBuf),
    /// An http or https URL.
    Url(Url),
    /// A block device of this machine: a donor's disk, by its path below `/dev`.
    Device(PathBuf),
    /// Somebody's NBD export.
    Export(Export),
    /// A donor that starts over the network: see `capture`.
    Donor(NetDonor),
    /// A file or a disk of another machine, over SSH.
    Remote(Remote),
    /// A LUN of an iSCSI target.
    Lun(Lun),
}

/// An http or https URL without anything in it that a configuration line could end with.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// Returns the URL as text, with a password that may be in it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the URL's parts that may be shown: without user, password, query.
    fn shown(&self) -> (&str, &str, &str) {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let host = rest[..end].rsplit('@').next().unwrap_or_default();
        let path = rest[end..].split(['?', '#']).next().unwrap_or_default();
        (scheme, host, path)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, path) = self.shown();
        write!(f, "Url(\"{scheme}://{host}{path}\")")
    }
}

impl Source {
    /// Returns the name of the file that it is, as lists of checksums have it.
    pub fn file_name(&self) -> Option<&str> {
        let path = match self {
            Self::File(path) => path.to_str()?,
            Self::Url(url) => url.shown().2,
            Self::Remote(remote) => remote.path(),
            Self::Device(_) | Self::Export(_) | Self::Donor(_) | Self::Lun(_) => return None,
        };
        path.rsplit('/').next().filter(|name| !name.is_empty())
    }
}

impl FromStr for Source {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let shown = || text.chars().take(200).collect::<String>().escape_debug().to_string();
        if text.len() > LONGEST || text.chars().any(char::is_control) {
            return Err(Error::invalid("the source is too long or has control characters in it"));
        }
        if text.starts_with(DEVICES) {
            return Ok(Self::Device(text.into()));
        }
        if text.starts_with('/') {
            return Ok(Self::File(text.into()));
        }
        if text.starts_with(Export::SCHEME) {
            return text.parse().map(Self::Export);
        }
        if text.starts_with(Remote::SCHEME) {
            return text.parse().map(Self::Remote);
        }
        if text.starts_with(Lun::SCHEME) {
            return text.parse().map(Self::Lun);
        }
        if text.starts_with(NetDonor::SCHEME) {
            return text.parse().map(Self::Donor);
        }
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let Some(rest) = rest else {
            return Err(Error::invalid(format!(
                "'{}' is neither an absolute path nor a slot (slot:3) nor an http, https, ssh, nbd or iscsi URL",
                shown()
            )));
        };
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '<' | '>' | '`' | '{' | '}');
        if host.is_empty() || !text.chars().all(plain) {
            // It may have a password in it.
            return Err(Error::invalid(
                "the source is a damaged URL: special characters stand as %XX in one",
            ));
        }
        Ok(Self::Url(Url(text.to_owned())))
    }
}

impl fmt::Display for Source {
    /// Writes the source for people; a URL without what may be a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) | Self::Device(path) => write!(f, "{}", path.display()),
            Self::Export(export) => export.fmt(f),
            Self::Donor(donor) => donor.fmt(f),
            Self::Remote(remote) => remote.fmt(f),
            Self::Lun(lun) => lun.fmt(f),
            Self::Url(url) => {
                let (scheme, host, path) = url.shown();
                write!(f, "{scheme}://{host}{path}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_devices_urls_and_exports_are_told_apart() {
        assert_eq!("/srv/a b.qcow2".parse::<Source>().unwrap(), Source::File("/srv/a b.qcow2".into()));
        let disk = "/dev/disk/by-id/ata-x";
        assert_eq!(disk.parse::<Source>().unwrap(), Source::Device(disk.into()));
        assert!(matches!("slot:3/sda".parse::<Source>().unwrap(), Source::Donor(_)));
        assert!(matches!("nbd://donor/disk".parse::<Source>().unwrap(), Source::Export(_)));
        assert!(matches!("iscsi://donor/iqn.x/0".parse::<Source>().unwrap(), Source::Lun(_)));
        assert!(matches!("ssh://donor/dev/sda".parse::<Source>().unwrap(), Source::Remote(_)));
        for good in ["http://h/x.img", "https://u:p@[::1]:8443/a?b=%20&c=$d", "https://host"] {
            assert!(matches!(good.parse::<Source>().unwrap(), Source::Url(url) if url.as_str() == good));
        }
    }

    #[test]
    fn nothing_else_is_a_source() {
        let long = format!("http://h/{}", "x".repeat(5000));
        for bad in [
            "",
            "x.img",
            "./x",
            "ftp://h/x",
            "file:///etc/shadow",
            "http://",
            "http:///x",
            "https://h/\"\nurl = \"file:///etc/shadow",
            "https://h/a b",
            "https://h/ä",
            "https://h/{a,b}",
            "nbd://h/a,b",
            "slot:x",
            "-o/etc/passwd",
            "/a\nb",
            &long,
        ] {
            assert!(bad.parse::<Source>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_not_shown() {
        let source: Source = "https://me:secret@host/path/x.img?token=secret".parse().unwrap();
        assert_eq!(source.to_string(), "https://host/path/x.img");
        assert!(!format!("{source:?}").contains("secret"));
        let error = "https://me:secret@host/a b".parse::<Source>().unwrap_err();
        assert!(!error.chain().contains("secret"), "{error}");
    }

    #[test]
    fn a_file_and_a_url_have_the_name_that_a_list_knows_them_by() {
        let name = |text: &str| text.parse::<Source>().unwrap().file_name().map(str::to_owned);
        assert_eq!(name("/srv/a b.raw").as_deref(), Some("a b.raw"));
        assert_eq!(name("https://u:p@h/d/x.raw.xz?token=/y").as_deref(), Some("x.raw.xz"));
        for none in ["https://h", "https://h/d/", "/dev/sdb", "nbd://h/x"] {
            assert_eq!(name(none), None, "{none}");
        }
    }
}
