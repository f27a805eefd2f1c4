//! `[chassis]`, `[dhcp]` and `[target]`: everything that has to fit into one network.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
    ops::Range,
};

use toml::Spanned;

use super::{number, or_default, parsed};
use crate::{
    config::{
        Chassis, Dhcp, Drift, TargetSettings,
        network::{Network, parse_address, parse_range},
        raw::{Reader, Section},
    },
    model::{Chap, Iqn, PortName, Portal, Slot},
};

/// The port of iSCSI (RFC 7143 §13).
const ISCSI_PORT: u16 = 3260;
/// dnsmasq does not give leases shorter than this.
const SHORTEST_LEASE: u32 = 120;
/// A longer lease than a year is a slip of the pen.
const LONGEST_LEASE: u32 = 365 * 86400;
/// Leaves room for `:` and what follows below it: 223 bytes is the limit of RFC 7143.
const LONGEST_PREFIX: usize = 200;

/// `[chassis]` as far as it could be read; the other tables are checked against it.
pub(super) struct ChassisDraft {
    bridge: PortName,
    address: Option<(Ipv4Addr, u8)>,
    address_at: Range<usize>,
    manage: bool,
    isolate: bool,
    slots: BTreeMap<Slot, PortName>,
    /// Every slot that is named, also those whose port is wrong.
    pub(super) named: BTreeSet<Slot>,
}

impl ChassisDraft {
    /// Returns the table, or `None` where a required key is missing or wrong.
    pub(super) fn whole(self) -> Option<Chassis> {
        let Self { bridge, address, manage, isolate, slots, .. } = self;
        Some(Chassis { bridge, address: address?, manage, isolate, slots: slots.into_iter().collect() })
    }
}

pub(super) fn chassis(reader: &mut Reader<'_>, top: &Section<'_, '_>) -> ChassisDraft {
    let section = top.table(reader, "chassis", "chassis");
    section.refuse_unknown(reader);
    let bridge = or_default(section.value(reader, "bridge", parsed), "sheath0");
    section.require(reader, "address");
    let address = section.value(reader, "address", |v| parse_address(v.as_str()?));
    section.require(reader, "slots");
    let table = section.table(reader, "slots", "chassis.slots");
    let slots = slots(reader, &table, &bridge);
    let named = table.entries().iter().filter_map(|(name, _)| name.get_ref().parse().ok()).collect();
    let switch = |reader: &mut Reader<'_>, name: &str| {
        section.value(reader, name, |v| v.as_bool()).is_none_or(Spanned::into_inner)
    };
    ChassisDraft {
        bridge,
        address: address.map(Spanned::into_inner),
        address_at: section.at("address"),
        manage: switch(reader, "manage"),
        isolate: switch(reader, "isolate"),
        slots,
        named,
    }
}

fn slots(reader: &mut Reader<'_>, section: &Section<'_, '_>, bridge: &PortName) -> BTreeMap<Slot, PortName> {
    let mut slots: BTreeMap<Slot, PortName> = BTreeMap::new();
    for (name, value) in section.entries() {
        let path = section.path_of(name.get_ref());
        let slot = slot_number(reader, &name, &path);
        let Some(port) = section.read_value(reader, (&path, "*"), value, parsed::<PortName>) else {
            continue;
        };
        let (at, port) = (port.span(), port.into_inner());
        if port == *bridge {
            reader.fault(at, &path, "the port of a slot", &format!("\"{port}\", which is the bridge"));
        } else if let Some((other, _)) = slots.iter().find(|(_, taken)| **taken == port) {
            let found = format!("\"{port}\", which slot {other} has too");
            reader.fault(at, &path, "a port that no other slot has", &found);
        } else if let Some(slot) = slot {
            slots.insert(slot, port);
        }
    }
    if section.is_there() && section.entries().is_empty() {
        reader.fault(section.at(""), "chassis.slots", "at least one slot, such as 1 = \"eth1\"", "none");
    }
    slots
}

/// Reads a key that is a slot's number.
pub(super) fn slot_number(reader: &mut Reader<'_>, name: &Spanned<String>, path: &str) -> Option<Slot> {
    let slot = name.get_ref().parse().ok();
    if slot.is_none() {
        let found = format!("'{}'", reader.written(name.span()));
        reader.fault(name.span(), path, "a slot number (1 to 999) as the key", &found);
    }
    slot
}

/// Returns `None` where there is no network to take addresses from.
pub(super) fn dhcp(reader: &mut Reader<'_>, top: &Section<'_, '_>, chassis: &ChassisDraft) -> Option<Dhcp> {
    let section = top.table(reader, "dhcp", "dhcp");
    section.refuse_unknown(reader);
    let lease = section.value(reader, "lease", |v| lease(v.as_str()?));
    let written = section.value(reader, "range", |v| parse_range(v.as_str()?));
    let address = chassis.address?;
    let range = match &written {
        Some(range) => *range.get_ref(),
        None => Network::of(address).free_half(),
    };
    if let Some(range) = &written {
        check_range(reader, range, address);
    }
    let room = u64::from(range.1.to_bits().saturating_sub(range.0.to_bits())) + 1;
    if room < chassis.named.len() as u64 && range.0 <= range.1 {
        let (at, key) = match &written {
            Some(range) => (range.span(), "dhcp.range"),
            None => (chassis.address_at.clone(), "chassis.address"),
        };
        let expected = format!("room for {} blades", chassis.named.len());
        reader.fault(at, key, &expected, &format!("{room} addresses for them, {}-{}", range.0, range.1));
    }
    Some(Dhcp { range, lease: lease.map_or(12 * 3600, Spanned::into_inner) })
}

fn check_range(reader: &mut Reader<'_>, range: &Spanned<(Ipv4Addr, Ipv4Addr)>, address: (Ipv4Addr, u8)) {
    let ((from, to), network) = (*range.get_ref(), Network::of(address));
    let mut fault =
        |expected: &str, found: String| reader.fault(range.span(), "dhcp.range", expected, &found);
    if from > to {
        return fault("the first address before the last", format!("{from}-{to}"));
    }
    if let Some(outside) = [from, to].into_iter().find(|ip| !network.has_host(*ip)) {
        return fault(&format!("addresses of hosts in {network}"), outside.to_string());
    }
    if (from..=to).contains(&address.0) {
        fault("a range without the appliance's own address", format!("{}, inside {from}-{to}", address.0));
    }
}

/// Returns `None` where there is no chassis address to serve at.
pub(super) fn target(
    reader: &mut Reader<'_>,
    top: &Section<'_, '_>,
    chassis: &ChassisDraft,
    dhcp: &Option<Dhcp>,
) -> Option<TargetSettings> {
    let section = top.table(reader, "target", "target");
    section.refuse_unknown(reader);
    let prefix = section
        .value(reader, "iqn_prefix", |v| parsed::<Iqn>(v).filter(|iqn| iqn.as_str().len() <= LONGEST_PREFIX));
    let chap = section.value(reader, "chap", |v| match v.as_str()? {
        "one-way" => Some(Chap::OneWay),
        "mutual" => Some(Chap::Mutual),
        _ => None,
    });
    let drift = section.value(reader, "drift", |v| match v.as_str()? {
        "repair" => Some(Drift::Repair),
        "report" => Some(Drift::Report),
        _ => None,
    });
    let portal = section.value(reader, "portal", |v| parsed::<SocketAddrV4>(v).filter(|p| p.port() != 0));
    let ports = section.value(reader, "ports", |v| number(v, 1..=64));
    let ports = ports.map_or(8, Spanned::into_inner);
    let address = chassis.address?;
    if let Some(portal) = &portal {
        check_portal(reader, portal, ports, address, dhcp);
    }
    let default = SocketAddrV4::new(address.0, ISCSI_PORT);
    Some(TargetSettings {
        iqn_prefix: or_default(prefix, "iqn.2026-11.internal.sheath"),
        chap: chap.map_or(Chap::OneWay, Spanned::into_inner),
        portal: Portal(portal.map_or(default, Spanned::into_inner)),
        ports,
        drift: drift.map_or(Drift::Repair, Spanned::into_inner),
    })
}

fn check_portal(
    reader: &mut Reader<'_>,
    portal: &Spanned<SocketAddrV4>,
    ports: u16,
    address: (Ipv4Addr, u8),
    dhcp: &Option<Dhcp>,
) {
    let (ip, network) = (*portal.get_ref().ip(), Network::of(address));
    let mut fault =
        |expected: &str, found: String| reader.fault(portal.span(), "target.portal", expected, &found);
    if !network.has_host(ip) {
        // Blades have no router: what is not on their network is out of reach.
        fault(&format!("the address of a host in {network}"), ip.to_string());
    } else if dhcp.as_ref().is_some_and(|dhcp| (dhcp.range.0..=dhcp.range.1).contains(&ip)) {
        fault("an address outside the DHCP range", ip.to_string());
    } else if portal.get_ref().port().checked_add(ports - 1).is_none() {
        fault(&format!("a port with room for {ports} ports from it on"), portal.get_ref().port().to_string());
    }
}

/// Reads `12h`: a whole number and s, m, h or d.
fn lease(text: &str) -> Option<u32> {
    let unit = text.chars().last()?;
    let number: u32 =
        text.strip_suffix(unit).filter(|n| n.bytes().all(|c| c.is_ascii_digit()))?.parse().ok()?;
    let seconds = number.checked_mul(match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86400,
        _ => return None,
    })?;
    (SHORTEST_LEASE..=LONGEST_LEASE).contains(&seconds).then_some(seconds)
}
