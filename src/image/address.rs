//! Where a source over the network is: `HOST[:PORT]`, an IPv6 address in brackets.

use std::{fmt, net::Ipv6Addr};

/// Longest host that is taken.
const LONGEST: usize = 255;

/// A host and a port, in words that no option of a program can end at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// A name, or an address without brackets.
    pub(super) host: String,
    /// The port, never 0.
    pub(super) port: u16,
}

impl Address {
    /// Reads an address; `port` is the one that counts where none is named.
    ///
    /// # Errors
    /// What is wrong with it, and nothing of it.
    pub(super) fn parse(text: &str, port: u16) -> Result<Self, &'static str> {
        let (host, named) = split(text).ok_or("its host is no name and no address")?;
        let port = named.map_or(Some(port), |named| named.parse().ok().filter(|port| *port > 0));
        Ok(Self { host, port: port.ok_or("its port is none")? })
    }

    /// Returns the host as it stands in a URL.
    pub(super) fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.bracketed(), self.port)
    }
}

/// Returns host and port; an IPv6 address stands in brackets.
fn split(address: &str) -> Option<(String, Option<&str>)> {
    if let Some(rest) = address.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        let host: Ipv6Addr = host.parse().ok()?;
        let port = if port.is_empty() { None } else { Some(port.strip_prefix(':')?) };
        return Some((host.to_string(), port));
    }
    let (host, port) = address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port)));
    let plain = host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'));
    (plain && !host.is_empty() && !host.starts_with('-') && host.len() <= LONGEST)
        .then(|| (host.to_owned(), port))
}
