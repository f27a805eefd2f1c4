//! Arithmetic on the chassis network: which addresses are in it, and which are left for the blades.

use std::{fmt, net::Ipv4Addr};

/// An IPv4 network, seen from one address in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    own: Ipv4Addr,
    prefix: u8,
}

impl Network {
    /// Returns the network of an address with a prefix length of 8 to 30, as [`parse_address`] lets through.
    pub(super) fn of((own, prefix): (Ipv4Addr, u8)) -> Self {
        Self { own, prefix }
    }

    /// Returns the first address: the network's own.
    pub(super) fn first(self) -> u32 {
        self.own.to_bits() & self.mask()
    }

    /// Returns the last address: the broadcast address.
    pub(super) fn last(self) -> u32 {
        self.first() | !self.mask()
    }

    /// Returns whether a machine may have this address here.
    pub(super) fn has_host(self, ip: Ipv4Addr) -> bool {
        (self.first() + 1..self.last()).contains(&ip.to_bits())
    }

    /// Returns the half that the appliance is not in: the upper one, mostly.
    pub(super) fn free_half(self) -> (Ipv4Addr, Ipv4Addr) {
        let middle = self.first() + (self.last() - self.first()) / 2;
        let (from, to) = if self.own.to_bits() <= middle {
            (middle + 1, self.last() - 1)
        } else {
            (self.first() + 1, middle)
        };
        (Ipv4Addr::from_bits(from), Ipv4Addr::from_bits(to))
    }

    fn mask(self) -> u32 {
        u32::MAX << (32 - self.prefix)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from_bits(self.first()), self.prefix)
    }
}

/// Reads `10.77.0.1/24`: an address that a machine may have, in a network that has room for blades.
///
/// Returns `None` for anything else: a network or broadcast address, a prefix shorter than 8 or longer than 30.
pub fn parse_address(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (ip, prefix) = text.split_once('/')?;
    let plain = !prefix.is_empty() && prefix.bytes().all(|c| c.is_ascii_digit());
    let (ip, prefix): (Ipv4Addr, u8) = (ip.parse().ok()?, prefix.parse().ok().filter(|_| plain)?);
    let unicast = !ip.is_loopback() && !ip.is_multicast() && !matches!(ip.octets()[0], 0 | 240..);
    let good = unicast && (8..=30).contains(&prefix) && Network::of((ip, prefix)).has_host(ip);
    good.then_some((ip, prefix))
}

/// Reads `10.77.0.100-10.77.0.200`.
pub(super) fn parse_range(text: &str) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let (from, to) = text.split_once('-')?;
    Some((from.trim().parse().ok()?, to.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Network::of(parse_address(text).unwrap())
    }

    #[test]
    fn an_address_is_one_that_a_machine_may_have() {
        for good in ["10.77.0.1/24", "192.168.1.254/24", "172.16.0.1/30", "10.0.0.1/8"] {
            assert!(parse_address(good).is_some(), "{good}");
        }
        for bad in [
            "10.77.0.1",
            "10.77.0.0/24",
            "10.77.0.255/24",
            "10.77.0.1/31",
            "10.77.0.1/0",
            "10.77.0.1/+24",
            "127.0.0.1/24",
            "224.0.0.1/24",
            "0.0.0.1/24",
            "10.77.0/24",
            "fe80::1/64",
            "",
        ] {
            assert!(parse_address(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn blades_get_the_half_that_the_appliance_is_not_in() {
        let half = |text| network(text).free_half();
        let ip = |text: &str| text.parse::<Ipv4Addr>().unwrap();
        assert_eq!(half("10.77.0.1/24"), (ip("10.77.0.128"), ip("10.77.0.254")));
        assert_eq!(half("10.77.0.254/24"), (ip("10.77.0.1"), ip("10.77.0.127")));
        assert_eq!(half("10.77.0.1/30"), (ip("10.77.0.2"), ip("10.77.0.2")));
        assert_eq!(half("10.77.0.2/30"), (ip("10.77.0.1"), ip("10.77.0.1")));
        assert_eq!(network("10.77.0.9/24").to_string(), "10.77.0.0/24");
    }
}
