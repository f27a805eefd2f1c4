//! From the kernel's messages to events: pure, message by message, with the little memory that it takes.
//!
//! The kernel names interfaces by number in its forwarding and neighbour tables, and says a move of an address without
//! saying where it was before. [`Fold`] remembers names and places, so that each event is whole by itself and nothing
//! is told twice. Sockets, dumps and time are for `netlink`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::LinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
};

use super::{Link, Network, WatchEvent};
use crate::{
    host::netlink::LinkFacts,
    model::{Mac, PortName},
};

/// What the messages so far amount to.
#[derive(Debug)]
pub(super) struct Fold {
    bridge: PortName,
    links: BTreeMap<u32, (PortName, Link)>,
    /// Port by address and VLAN (0 where the bridge has none): that pair is unique on a bridge.
    fdb: BTreeMap<(Mac, u16), u32>,
    neigh: BTreeMap<Ipv4Addr, Mac>,
}

/// What one message leads to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Folded {
    /// What happened.
    pub(super) events: Vec<WatchEvent>,
    /// The chassis bridge is another interface now: what was said of the old one is void, so dump again.
    pub(super) stale: bool,
}

impl Fold {
    /// Returns a fold that knows nothing yet of the tables of this bridge.
    pub(super) fn new(bridge: PortName) -> Self {
        Self { bridge, links: BTreeMap::new(), fdb: BTreeMap::new(), neigh: BTreeMap::new() }
    }

    /// Forgets everything and takes a dump for the truth.
    ///
    /// Links come first in `messages`, since the other tables name ports by number.
    pub(super) fn replace(&mut self, messages: &[RouteNetlinkMessage]) -> Network {
        *self = Self::new(self.bridge.clone());
        for message in messages {
            self.apply(message);
        }
        self.network()
    }

    /// Takes one message in.
    pub(super) fn apply(&mut self, message: &RouteNetlinkMessage) -> Folded {
        match message {
            RouteNetlinkMessage::NewLink(link) => self.new_link(link),
            RouteNetlinkMessage::DelLink(link) => self.del_link(link),
            RouteNetlinkMessage::NewNeighbour(n) => Folded::of(self.neighbour(n, true)),
            RouteNetlinkMessage::DelNeighbour(n) => Folded::of(self.neighbour(n, false)),
            _ => Folded::default(),
        }
    }

    fn network(&self) -> Network {
        let name = |index: &u32| self.links.get(index).map(|(name, _)| name.clone());
        Network {
            links: self.links.values().cloned().collect(),
            fdb: self.fdb.iter().filter_map(|((mac, _), port)| Some((*mac, name(port)?))).collect(),
            neigh: self.neigh.clone(),
        }
    }

    fn bridge_index(&self) -> Option<u32> {
        self.links.iter().find(|(_, (name, _))| *name == self.bridge).map(|(index, _)| *index)
    }

    fn new_link(&mut self, message: &LinkMessage) -> Folded {
        let Some(facts) = LinkFacts::read(message) else { return Folded::default() };
        let bridge = self.bridge_index();
        let mut events = vec![];
        let old = self.links.get(&facts.index).cloned();
        if let Some((name, _)) = old.as_ref().filter(|(name, _)| Some(name) != facts.name.as_ref()) {
            events.push(WatchEvent::LinkGone { name: name.clone() });
            self.links.remove(&facts.index);
        }
        if let Some(name) = facts.name {
            let link = Link { index: facts.index, carrier: facts.carrier, master: facts.master };
            if old != Some((name.clone(), link)) {
                self.links.insert(facts.index, (name.clone(), link));
                events.push(WatchEvent::Link { name, link });
            }
        }
        Folded { events, stale: self.bridge_index() != bridge }
    }

    fn del_link(&mut self, message: &LinkMessage) -> Folded {
        let index = message.header.index;
        if message.header.interface_family == AddressFamily::Bridge {
            return Folded::of(self.left_bridge(index));
        }
        let bridge = self.bridge_index();
        // The kernel forgets a port's addresses before the port; this is for messages that could not be read.
        let mut events = self.forget_port(index);
        if let Some((name, _)) = self.links.remove(&index) {
            events.push(WatchEvent::LinkGone { name });
        }
        Folded { events, stale: self.bridge_index() != bridge }
    }

    /// Family `AF_BRIDGE` says that the interface left its bridge, not that it is gone.
    fn left_bridge(&mut self, index: u32) -> Vec<WatchEvent> {
        let mut events = self.forget_port(index);
        if let Some((name, link)) = self.links.get_mut(&index).filter(|(_, link)| link.master.is_some()) {
            link.master = None;
            events.push(WatchEvent::Link { name: name.clone(), link: *link });
        }
        events
    }

    fn forget_port(&mut self, index: u32) -> Vec<WatchEvent> {
        let gone: BTreeSet<(Mac, u16)> =
            self.fdb.iter().filter(|(_, port)| **port == index).map(|(key, _)| *key).collect();
        gone.into_iter().flat_map(|key| self.place(key, None)).collect()
    }

    fn neighbour(&mut self, message: &NeighbourMessage, new: bool) -> Vec<WatchEvent> {
        match message.header.family {
            AddressFamily::Bridge => self.fdb_entry(message, new),
            AddressFamily::Inet => self.arp_entry(message, new),
            _ => vec![],
        }
    }

    fn fdb_entry(&mut self, message: &NeighbourMessage, new: bool) -> Vec<WatchEvent> {
        let Some(entry) = FdbEntry::read(message) else { return vec![] };
        let port = message.header.ifindex;
        if Some(entry.bridge) != self.bridge_index() || !self.links.contains_key(&port) {
            return vec![];
        }
        let key = (entry.mac, entry.vlan);
        match (new && entry.learnt, self.fdb.get(&key)) {
            (true, _) => self.place(key, Some(port)),
            // An entry that is static now was learnt no longer; one that is gone elsewhere is not gone here.
            (false, Some(known)) if *known == port => self.place(key, None),
            (false, _) => vec![],
        }
    }

    /// Puts an address where it is now, and tells what that changes.
    fn place(&mut self, key: (Mac, u16), port: Option<u32>) -> Vec<WatchEvent> {
        let before = self.ports_of(key.0);
        match port {
            Some(port) => self.fdb.insert(key, port),
            None => self.fdb.remove(&key),
        };
        let after = self.ports_of(key.0);
        let gone = before.difference(&after).map(|port| (port, false));
        let come = after.difference(&before).map(|port| (port, true));
        // Gone comes before come: whoever keeps one port for each address ends with the right one.
        gone.chain(come)
            .map(|(port, present)| WatchEvent::Fdb { mac: key.0, port: port.clone(), present })
            .collect()
    }

    fn ports_of(&self, mac: Mac) -> BTreeSet<PortName> {
        self.fdb
            .range((mac, 0)..=(mac, u16::MAX))
            .filter_map(|(_, index)| self.links.get(index))
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn arp_entry(&mut self, message: &NeighbourMessage, new: bool) -> Vec<WatchEvent> {
        // Only the chassis bridge counts: the same address elsewhere is another network's.
        if Some(message.header.ifindex) != self.bridge_index() {
            return vec![];
        }
        let Some(ip) = arp_address(message) else { return vec![] };
        let reachable = !matches!(
            message.header.state,
            NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::None
        );
        match mac_of(message).filter(|_| new && reachable) {
            Some(mac) if self.neigh.insert(ip, mac) == Some(mac) => vec![],
            Some(mac) => vec![WatchEvent::Neigh { ip, mac }],
            None if self.neigh.remove(&ip).is_some() => vec![WatchEvent::NeighGone { ip }],
            None => vec![],
        }
    }
}

impl Folded {
    fn of(events: Vec<WatchEvent>) -> Self {
        Self { events, stale: false }
    }
}

/// An entry of a bridge's forwarding table.
struct FdbEntry {
    bridge: u32,
    mac: Mac,
    vlan: u16,
    learnt: bool,
}

impl FdbEntry {
    /// Returns the entry, or `None` for what no machine's frame made: multicast, and addresses of the port itself.
    fn read(message: &NeighbourMessage) -> Option<Self> {
        if message.header.flags.contains(NeighbourFlags::Own) {
            return None;
        }
        let bridge = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::Controller(index) => Some(*index),
            _ => None,
        })?;
        let vlan = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::Vlan(vlan) => Some(*vlan),
            _ => None,
        });
        // The bridge says Reachable or Stale for what it learnt, Noarp for static and Permanent for its own.
        let learnt = matches!(message.header.state, NeighbourState::Reachable | NeighbourState::Stale);
        Some(Self { bridge, mac: mac_of(message)?, vlan: vlan.unwrap_or(0), learnt })
    }
}

fn mac_of(message: &NeighbourMessage) -> Option<Mac> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => Mac::from_bytes(bytes),
        _ => None,
    })
}

fn arp_address(message: &NeighbourMessage) -> Option<Ipv4Addr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(*ip),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
