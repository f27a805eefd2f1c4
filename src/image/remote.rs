//! Files and disks of other machines as sources: `ssh://[USER@]HOST[:PORT]/PATH`. Names only; `ssh` reads them.
//!
//! What stands behind the host is the path as it is there, without `%XX`: it never becomes an argument here, and a shell
//! there sees it in quotation marks.

use std::{fmt, str::FromStr};

use super::address::Address;
use crate::error::{Error, Result};

/// SSH's port (IANA).
const PORT: u16 = 22;
/// Who reads there, where nobody is named: a disk is root's.
const USER: &str = "root";
/// Longest user name.
const LONGEST_USER: usize = 64;
/// Longest path: PATH_MAX of Linux.
const LONGEST_PATH: usize = 4095;

/// A file or a whole disk of another machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    user: String,
    address: Address,
    path: String,
}

impl Remote {
    /// What its URLs begin with.
    pub(super) const SCHEME: &str = "ssh://";

    /// Returns the user there.
    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// Returns the host.
    pub(super) fn host(&self) -> &str {
        &self.address.host
    }

    /// Returns the port.
    pub(super) fn port(&self) -> u16 {
        self.address.port
    }

    /// Returns the path there.
    pub(super) fn path(&self) -> &str {
        &self.path
    }
}

/// Returns the text as one word of a POSIX shell.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

impl FromStr for Remote {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            // No part of it is repeated: what stands before a host may be a password.
            Error::invalid(format!(
                "the source is no file of another machine (ssh://[USER@]HOST[:PORT]/PATH): {why}"
            ))
        };
        let rest = text.strip_prefix(Self::SCHEME).ok_or_else(|| bad("it does not begin with ssh://"))?;
        let at = rest.find('/').ok_or_else(|| bad("there is no path in it"))?;
        let (address, path) = rest.split_at(at);
        let (user, address) = address.rsplit_once('@').unwrap_or((USER, address));
        if user.contains(':') {
            return Err(bad("a password is not taken, only the appliance's own key ('sheath image key')"));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
        if user.is_empty() || user.starts_with('-') || user.len() > LONGEST_USER || !user.chars().all(plain) {
            return Err(bad("its user is no user's name"));
        }
        let address = Address::parse(address, PORT).map_err(bad)?;
        if path.len() < 2
            || path.ends_with('/')
            || path.len() > LONGEST_PATH
            || path.chars().any(char::is_control)
        {
            return Err(bad("its path is not one of a file or a disk"));
        }
        Ok(Self { user: user.to_owned(), address, path: path.to_owned() })
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, address, path } = self;
        match address.port {
            PORT => write!(f, "ssh://{user}@{}{path}", address.bracketed()),
            _ => write!(f, "ssh://{user}@{address}{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_source_has_user_host_port_and_the_path_as_it_is_there() {
        for (text, shown) in [
            ("ssh://donor/dev/sda", "ssh://root@donor/dev/sda"),
            ("ssh://ann@10.0.0.7:2222/srv/a b.qcow2", "ssh://ann@10.0.0.7:2222/srv/a b.qcow2"),
            ("ssh://[fe80::1]/dev/disk/by-id/x", "ssh://root@[fe80::1]/dev/disk/by-id/x"),
            ("ssh://[fe80::1]:23/x", "ssh://root@[fe80::1]:23/x"),
            ("ssh://h:22/%20?#'$(x)`y`", "ssh://root@h/%20?#'$(x)`y`"),
        ] {
            let remote: Remote = text.parse().unwrap();
            assert_eq!(remote.to_string(), shown);
            assert_eq!(shown.parse::<Remote>().unwrap(), remote, "{shown}");
        }
    }

    #[test]
    fn nothing_in_a_source_is_an_option_of_ssh_or_a_password() {
        let long = format!("ssh://h/{}", "x".repeat(5000));
        for bad in [
            "ssh://",
            "ssh://h",
            "ssh://h/",
            "ssh://h/srv/",
            "ssh:///x",
            "ssh://@h/x",
            "ssh://-oProxyCommand=x/x",
            "ssh://-l@h/x",
            "ssh://a b@h/x",
            "ssh://h:0/x",
            "ssh://h:x/x",
            "ssh://[::1/x",
            "ssh://h/a\nb",
            "http://h/x",
            &long,
        ] {
            assert!(bad.parse::<Remote>().is_err(), "{bad}");
        }
        let error = "ssh://ann:secret@h/x".parse::<Remote>().unwrap_err().to_string();
        assert!(error.contains("sheath image key") && !error.contains("secret"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_shell_sees_any_path_as_one_word(path in "[ -~]{0,40}") {
            let script = format!("printf %s {}", quoted(&path));
            #[allow(clippy::disallowed_methods, reason = "what is tested is a shell")]
            let said = std::process::Command::new("/bin/sh").args(["-c", &script]).output().unwrap().stdout;
            prop_assert_eq!(String::from_utf8(said).unwrap(), path);
        }
    }
}
