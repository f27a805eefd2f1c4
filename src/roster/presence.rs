//! Who is where right now, as the kernel tells it: ports, learnt addresses, neighbours.
//!
//! Nothing here is saved or believed from a request. A frame's port is the one thing that a blade cannot choose.

use std::{collections::BTreeMap, net::Ipv4Addr};

use crate::model::{BladeId, Mac, PortName};

/// The kernel's view of the chassis.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Presence {
    /// Carrier by port; a port that does not exist is not in it.
    pub carrier: BTreeMap<PortName, bool>,
    /// The port that each address was last learnt on (the bridge's forwarding database).
    pub fdb: BTreeMap<Mac, PortName>,
    /// IPv4 neighbours.
    pub neighbours: BTreeMap<Ipv4Addr, Mac>,
}

/// Why a request cannot be ascribed to a blade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stranger {
    /// The neighbour table does not know the address.
    UnknownAddress,
    /// The frames of this address come in by no port of the chassis.
    UnknownPort(Mac),
    /// The request says that it is somebody else.
    WrongClaim {
        /// What the request says.
        claimed: Mac,
        /// Who sends from that address.
        real: Mac,
        /// The port that it sends from.
        port: PortName,
    },
}

impl Presence {
    /// Returns the blade at the other end of the cable that a request came in by, and the port.
    ///
    /// # Errors
    /// Why it is a stranger. Nothing may be done for a stranger.
    pub fn identify(&self, peer: Ipv4Addr, claimed: Option<Mac>) -> Result<(BladeId, &PortName), Stranger> {
        let real = *self.neighbours.get(&peer).ok_or(Stranger::UnknownAddress)?;
        let port = self.fdb.get(&real).ok_or(Stranger::UnknownPort(real))?;
        match claimed {
            Some(claimed) if claimed != real => {
                Err(Stranger::WrongClaim { claimed, real, port: port.clone() })
            }
            _ => Ok((BladeId(real), port)),
        }
    }

    /// Returns whether the port exists and has a carrier.
    pub fn has_carrier(&self, port: &PortName) -> bool {
        self.carrier.get(port).copied().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presence() -> Presence {
        let mut all = Presence::default();
        all.fdb.insert("52:54:00:00:00:01".parse().unwrap(), "slot1".parse().unwrap());
        all.neighbours.insert(Ipv4Addr::new(10, 0, 0, 9), "52:54:00:00:00:01".parse().unwrap());
        all.neighbours.insert(Ipv4Addr::new(10, 0, 0, 8), "52:54:00:00:00:08".parse().unwrap());
        all
    }

    #[test]
    fn a_blade_is_who_its_frames_say_and_not_who_it_claims_to_be() {
        let all = presence();
        let peer = Ipv4Addr::new(10, 0, 0, 9);
        let real: Mac = "52:54:00:00:00:01".parse().unwrap();
        assert_eq!(all.identify(peer, Some(real)).unwrap().0, BladeId(real));
        assert_eq!(all.identify(peer, None).unwrap().1.as_str(), "slot1");
        let claimed = "52:54:00:00:00:02".parse().unwrap();
        assert_eq!(
            all.identify(peer, Some(claimed)),
            Err(Stranger::WrongClaim { claimed, real, port: "slot1".parse().unwrap() })
        );
    }

    #[test]
    fn an_address_without_a_neighbour_or_a_port_is_a_strangers() {
        let all = presence();
        assert_eq!(all.identify(Ipv4Addr::new(10, 0, 0, 7), None), Err(Stranger::UnknownAddress));
        let mac = "52:54:00:00:00:08".parse().unwrap();
        assert_eq!(all.identify(Ipv4Addr::new(10, 0, 0, 8), None), Err(Stranger::UnknownPort(mac)));
    }
}
