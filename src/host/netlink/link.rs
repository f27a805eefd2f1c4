//! What the kernel says of one interface, read from its message once, at the door.
//!
//! The acting side and the watching side read the same messages with the same eyes. What follows from it is for them.

use netlink_packet_route::link::{
    InfoBridgePort, InfoKind, InfoPortData, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use crate::model::PortName;

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkFacts {
    /// The kernel's number for it; a new one whenever it is made again.
    pub(crate) index: u32,
    /// Its name as the kernel spells it.
    pub(crate) raw_name: String,
    /// Its name, where it is one that a configuration can hold.
    pub(crate) name: Option<PortName>,
    /// Whether it was brought up (`IFF_UP`).
    pub(crate) up: bool,
    /// Whether the cable carries a signal; never so while it is down.
    pub(crate) carrier: bool,
    /// The bridge or bond that it is a port of.
    pub(crate) master: Option<u32>,
    /// Whether it is a bridge itself.
    pub(crate) is_bridge: bool,
    /// Whether it is isolated from the bridge's other isolated ports; `None` where the message does not say.
    pub(crate) isolated: Option<bool>,
}

impl LinkFacts {
    /// Returns the facts, or `None` for a message that names no interface (a wireless event is such a one).
    pub(crate) fn read(message: &LinkMessage) -> Option<Self> {
        let index = message.header.index;
        let raw_name = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })?;
        let master = message.attributes.iter().find_map(|attribute| match attribute {
            // In a message of family AF_BRIDGE the bridge is called its own master.
            LinkAttribute::Controller(master) if *master != 0 && *master != index => Some(*master),
            _ => None,
        });
        let infos = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos.as_slice()),
            _ => None,
        });
        let infos = infos.unwrap_or_default();
        let flags = message.header.flags;
        Some(Self {
            index,
            name: raw_name.parse().ok(),
            raw_name,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            master,
            is_bridge: infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Bridge))),
            isolated: isolated(infos),
        })
    }
}

fn isolated(infos: &[LinkInfo]) -> Option<bool> {
    let port = infos.iter().find_map(|info| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(data)) => Some(data),
        _ => None,
    })?;
    port.iter().find_map(|data| match data {
        InfoBridgePort::Isolated(isolated) => Some(*isolated),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::{AddressFamily, link::InfoPortKind};

    use super::*;

    fn message(attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
        message.attributes = attributes;
        message
    }

    #[test]
    fn a_port_is_read_with_its_bridge_carrier_and_isolation() {
        let facts = LinkFacts::read(&message(vec![
            LinkAttribute::IfName("slot3".to_owned()),
            LinkAttribute::Controller(2),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::PortKind(InfoPortKind::Bridge),
                LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::Isolated(true)])),
            ]),
        ]))
        .unwrap();
        assert_eq!(facts.name.unwrap().as_str(), "slot3");
        assert_eq!((facts.index, facts.master, facts.isolated), (7, Some(2), Some(true)));
        assert!(facts.up && facts.carrier && !facts.is_bridge);
    }

    #[test]
    fn a_bridge_is_not_a_port_of_itself() {
        let mut own = message(vec![LinkAttribute::IfName("br0".to_owned()), LinkAttribute::Controller(7)]);
        own.header.interface_family = AddressFamily::Bridge;
        assert_eq!(LinkFacts::read(&own).unwrap().master, None);
    }

    #[test]
    fn a_message_that_names_nobody_is_nobody() {
        assert_eq!(LinkFacts::read(&message(vec![])), None);
    }
}
