//! The fold, message by message.

use netlink_packet_route::link::{LinkAttribute, LinkFlags};

use super::*;

fn port(name: &str) -> PortName {
    name.parse().unwrap()
}

fn mac(last: u8) -> Mac {
    Mac::from_bytes(&[2, 0, 0, 0, 0, last]).unwrap()
}

fn link_message(index: u32, name: &str, master: Option<u32>, carrier: bool) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = if carrier { LinkFlags::Up | LinkFlags::LowerUp } else { LinkFlags::Up };
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.extend(master.map(LinkAttribute::Controller));
    message
}

fn new_link(index: u32, name: &str, master: Option<u32>, carrier: bool) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewLink(link_message(index, name, master, carrier))
}

fn entry(last: u8, index: u32, state: NeighbourState, more: &[NeighbourAttribute]) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = state;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac(last).bytes().to_vec()));
    message.attributes.push(NeighbourAttribute::Controller(1));
    message.attributes.extend_from_slice(more);
    message
}

fn learnt(last: u8, index: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewNeighbour(entry(last, index, NeighbourState::Reachable, &[]))
}

fn forgotten(last: u8, index: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelNeighbour(entry(last, index, NeighbourState::Reachable, &[]))
}

fn fdb(last: u8, name: &str, present: bool) -> WatchEvent {
    WatchEvent::Fdb { mac: mac(last), port: port(name), present }
}

fn arp(ip: [u8; 4], index: u32, last: Option<u8>, state: NeighbourState) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = index;
    message.header.state = state;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(ip.into())));
    message.attributes.extend(last.map(|l| NeighbourAttribute::LinkLayerAddress(mac(l).bytes().to_vec())));
    RouteNetlinkMessage::NewNeighbour(message)
}

/// A chassis: bridge `br0` (1) with ports `s1` (2) and `s2` (3).
fn chassis() -> Fold {
    let mut fold = Fold::new(port("br0"));
    fold.replace(&[
        new_link(1, "br0", None, true),
        new_link(2, "s1", Some(1), true),
        new_link(3, "s2", Some(1), true),
    ]);
    fold
}

#[test]
fn the_first_frame_is_told_once() {
    let mut fold = chassis();
    assert_eq!(fold.apply(&learnt(9, 2)).events, [fdb(9, "s1", true)]);
    assert_eq!(fold.apply(&learnt(9, 2)).events, []);
    assert_eq!(fold.apply(&forgotten(9, 2)).events, [fdb(9, "s1", false)]);
    assert_eq!(fold.apply(&forgotten(9, 2)).events, []);
}

#[test]
fn an_address_that_moves_leaves_its_old_port() {
    let mut fold = chassis();
    fold.apply(&learnt(9, 2));
    assert_eq!(fold.apply(&learnt(9, 3)).events, [fdb(9, "s1", false), fdb(9, "s2", true)]);
    assert_eq!(fold.apply(&forgotten(9, 2)).events, [], "a late farewell from the old port");
}

#[test]
fn an_address_in_two_vlans_is_there_until_it_left_both() {
    let mut fold = chassis();
    let in_vlan = |vlan| entry(9, 2, NeighbourState::Reachable, &[NeighbourAttribute::Vlan(vlan)]);
    assert_eq!(fold.apply(&RouteNetlinkMessage::NewNeighbour(in_vlan(1))).events.len(), 1);
    assert_eq!(fold.apply(&RouteNetlinkMessage::NewNeighbour(in_vlan(5))).events, []);
    assert_eq!(fold.apply(&RouteNetlinkMessage::DelNeighbour(in_vlan(1))).events, []);
    assert_eq!(fold.apply(&RouteNetlinkMessage::DelNeighbour(in_vlan(5))).events, [fdb(9, "s1", false)]);
}

#[test]
fn what_no_frame_of_a_blade_made_is_not_told() {
    let mut fold = chassis();
    for state in [NeighbourState::Permanent, NeighbourState::Noarp] {
        let message = RouteNetlinkMessage::NewNeighbour(entry(9, 2, state, &[]));
        assert_eq!(fold.apply(&message).events, [], "{state:?}");
    }
    let mut multicast = entry(9, 2, NeighbourState::Reachable, &[]);
    multicast.attributes[0] = NeighbourAttribute::LinkLayerAddress(vec![0x33, 0x33, 0, 0, 0, 1]);
    assert_eq!(fold.apply(&RouteNetlinkMessage::NewNeighbour(multicast)).events, []);
    let mut own = entry(9, 2, NeighbourState::Reachable, &[]);
    own.header.flags = NeighbourFlags::Own;
    assert_eq!(fold.apply(&RouteNetlinkMessage::NewNeighbour(own)).events, []);
    let mut elsewhere = entry(9, 2, NeighbourState::Reachable, &[]);
    elsewhere.attributes[1] = NeighbourAttribute::Controller(77);
    assert_eq!(fold.apply(&RouteNetlinkMessage::NewNeighbour(elsewhere)).events, [], "another bridge");
}

#[test]
fn leaving_the_bridge_is_not_being_gone() {
    let mut fold = chassis();
    fold.apply(&learnt(9, 2));
    let mut left = link_message(2, "s1", Some(1), true);
    left.header.interface_family = AddressFamily::Bridge;
    let folded = fold.apply(&RouteNetlinkMessage::DelLink(left));
    let link = Link { index: 2, carrier: true, master: None };
    assert_eq!(folded.events, [fdb(9, "s1", false), WatchEvent::Link { name: port("s1"), link }]);
    let gone = RouteNetlinkMessage::DelLink(link_message(2, "s1", None, false));
    assert_eq!(fold.apply(&gone).events, [WatchEvent::LinkGone { name: port("s1") }]);
}

#[test]
fn a_cable_that_is_drawn_is_told_and_repetition_is_not() {
    let mut fold = chassis();
    let link = Link { index: 2, carrier: false, master: Some(1) };
    let drawn = new_link(2, "s1", Some(1), false);
    assert_eq!(fold.apply(&drawn).events, [WatchEvent::Link { name: port("s1"), link }]);
    assert_eq!(fold.apply(&drawn).events, []);
}

#[test]
fn a_new_name_is_one_gone_and_one_come() {
    let mut fold = chassis();
    let link = Link { index: 3, carrier: true, master: Some(1) };
    let folded = fold.apply(&new_link(3, "slot2", Some(1), true));
    let gone = WatchEvent::LinkGone { name: port("s2") };
    assert_eq!(
        folded,
        Folded { events: vec![gone, WatchEvent::Link { name: port("slot2"), link }], stale: false }
    );
    // A name that no configuration can hold is as good as none.
    assert_eq!(
        fold.apply(&new_link(3, "a b", None, true)).events,
        [WatchEvent::LinkGone { name: port("slot2") }]
    );
}

#[test]
fn a_bridge_that_was_made_anew_calls_for_a_dump() {
    let mut fold = chassis();
    assert!(fold.apply(&RouteNetlinkMessage::DelLink(link_message(1, "br0", None, false))).stale);
    assert!(!fold.apply(&new_link(8, "eth9", None, true)).stale);
    assert!(fold.apply(&new_link(9, "br0", None, true)).stale);
}

#[test]
fn neighbours_of_the_chassis_bridge_are_told_and_others_are_not() {
    let mut fold = chassis();
    let ip = Ipv4Addr::new(10, 99, 0, 2);
    assert_eq!(fold.apply(&arp([10, 99, 0, 2], 77, Some(9), NeighbourState::Reachable)).events, []);
    assert_eq!(fold.apply(&arp([10, 99, 0, 2], 1, None, NeighbourState::Incomplete)).events, []);
    assert_eq!(
        fold.apply(&arp([10, 99, 0, 2], 1, Some(9), NeighbourState::Stale)).events,
        [WatchEvent::Neigh { ip, mac: mac(9) }]
    );
    assert_eq!(fold.apply(&arp([10, 99, 0, 2], 1, Some(9), NeighbourState::Delay)).events, []);
    assert_eq!(
        fold.apply(&arp([10, 99, 0, 2], 1, Some(9), NeighbourState::Failed)).events,
        [WatchEvent::NeighGone { ip }]
    );
}

#[test]
fn a_dump_replaces_all_that_was_known() {
    let mut fold = chassis();
    fold.apply(&learnt(9, 2));
    let network = fold.replace(&[
        new_link(1, "br0", None, true),
        new_link(3, "s2", Some(1), true),
        learnt(8, 3),
        learnt(7, 2),
        arp([10, 99, 0, 2], 1, Some(8), NeighbourState::Reachable),
    ]);
    assert_eq!(network.links.keys().map(PortName::as_str).collect::<Vec<_>>(), ["br0", "s2"]);
    assert_eq!(network.fdb, BTreeSet::from([(mac(8), port("s2"))]), "a port that is not there has no blades");
    assert_eq!(network.neigh, BTreeMap::from([(Ipv4Addr::new(10, 99, 0, 2), mac(8))]));
}
