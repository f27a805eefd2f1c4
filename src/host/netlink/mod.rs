//! The chassis network over rtnetlink: the bridge, its address, the slots' ports.
//!
//! A blocking facade for the acting side: each call makes a tokio runtime of its own, so call it from plain threads,
//! never from inside a runtime. `client` asks the kernel and believes no answer that did not end well; `link` reads
//! what the kernel says of one interface. Whatever happens by itself (carrier, frames) is for `watch`.

mod client;
mod link;
#[cfg(test)]
pub(crate) mod testnet;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{BridgeStpState, InfoBridgePort, InfoPortKind, LinkMessage},
};
use rtnetlink::{AddressMessageBuilder, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec};

pub(crate) use client::Client;
pub(crate) use link::LinkFacts;

use crate::{
    error::{Context, Error, Kind, Result},
    model::PortName,
    observed::{ObservedChassis, ObservedPort},
    plan::Changed,
};

/// Makes the bridge exist, be up and have this address; a bridge that is made here has STP off.
///
/// Other addresses on it stay: an administrator's is none of our business.
///
/// # Errors
/// [`Kind::Exists`] where an interface of that name is not a bridge, [`Kind::Denied`] without `CAP_NET_ADMIN`.
pub fn bridge(name: &PortName, address: (Ipv4Addr, u8)) -> Result<Changed> {
    run(make_bridge(name, address)).map_err(|e| e.while_doing(format!("set up bridge '{name}'")))
}

/// Makes the interface up, a port of the bridge, and isolated from its other isolated ports or not.
///
/// # Errors
/// [`Kind::Missing`] where the interface or the bridge does not exist, [`Kind::Exists`] where the interface belongs to
/// another bridge or bond, or the bridge is none.
pub fn port(port: &PortName, bridge: &PortName, isolated: bool) -> Result<Changed> {
    run(make_port(port, bridge, isolated))
        .map_err(|e| e.while_doing(format!("make '{port}' a port of bridge '{bridge}'")))
}

/// Returns what the bridge and these ports are like now; a port that does not exist is not among them.
///
/// # Errors
/// The refusal of a dump: an answer that cannot be had is never an empty chassis.
pub fn observe_chassis(bridge: &PortName, ports: &[PortName]) -> Result<ObservedChassis> {
    run(observe(bridge, ports)).map_err(|e| e.while_doing(format!("look at bridge '{bridge}'")))
}

/// Runs one conversation with the kernel to its end.
fn run<T>(conversation: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .attempt(|| "start a runtime".to_owned())?
        .block_on(conversation)
}

async fn make_bridge(name: &PortName, address: (Ipv4Addr, u8)) -> Result<Changed> {
    let mut client = Client::open()?;
    let mut changed = false;
    let mut found = links(&mut client).await?;
    if !found.contains_key(name.as_str()) {
        changed = true;
        // With STP a blade's first frames would be dropped for 30 s. Ageing stays the kernel's 300 s.
        let wanted = LinkBridge::new(name.as_str()).stp_state(BridgeStpState::Disabled).build();
        client.create(&format!("create bridge '{name}'"), RouteNetlinkMessage::NewLink(wanted)).await?;
        found = links(&mut client).await?;
    }
    let link = a_bridge(&found, name)?;
    if !addresses(&mut client, link.index).await?.contains(&address) {
        changed = true;
        let (ip, prefix) = address;
        let wanted = AddressMessageBuilder::<Ipv4Addr>::new().index(link.index).address(ip, prefix).build();
        let what = format!("give '{name}' the address {ip}/{prefix}");
        client.create(&what, RouteNetlinkMessage::NewAddress(wanted)).await?;
    }
    if !link.up {
        changed = true;
        bring_up(&mut client, link.index, name).await?;
    }
    Ok(Changed::from_bool(changed))
}

async fn make_port(port: &PortName, bridge: &PortName, isolated: bool) -> Result<Changed> {
    let mut client = Client::open()?;
    let found = links(&mut client).await?;
    let owner = a_bridge(&found, bridge)?.index;
    let link = found
        .get(port.as_str())
        .ok_or_else(|| Error::new(Kind::Missing, format!("interface '{port}' does not exist")))?;
    let mut changed = false;
    match link.master {
        Some(master) if master == owner => {}
        Some(master) => return Err(taken(&found, port, master)),
        None => {
            changed = true;
            let wanted = LinkMessageBuilder::<LinkUnspec>::new().index(link.index).controller(owner).build();
            client
                .change(&format!("add '{port}' to '{bridge}'"), RouteNetlinkMessage::SetLink(wanted))
                .await?;
        }
    }
    // Isolation comes before the port is up: no frame of a blade passes a door that is not shut yet.
    if changed || link.isolated != Some(isolated) {
        changed |= link.isolated.unwrap_or(false) != isolated;
        let what = format!("set isolation of '{port}' to {isolated}");
        client.change(&what, RouteNetlinkMessage::NewLink(isolation(link.index, isolated))).await?;
    }
    if !link.up {
        changed = true;
        bring_up(&mut client, link.index, port).await?;
    }
    Ok(Changed::from_bool(changed))
}

async fn observe(bridge: &PortName, ports: &[PortName]) -> Result<ObservedChassis> {
    let mut client = Client::open()?;
    let found = links(&mut client).await?;
    let names: BTreeMap<u32, &PortName> =
        found.values().filter_map(|l| Some((l.index, l.name.as_ref()?))).collect();
    let master = found.get(bridge.as_str()).filter(|link| link.is_bridge);
    let addresses = match master {
        Some(link) => addresses(&mut client, link.index).await?,
        None => BTreeSet::new(),
    };
    let seen = |port: &PortName| {
        let link = found.get(port.as_str())?;
        let master = link.master.and_then(|index| names.get(&index)).map(|&name| name.clone());
        let isolated = link.isolated.unwrap_or(false);
        Some(ObservedPort { up: link.up, carrier: link.carrier, master, isolated })
    };
    Ok(ObservedChassis {
        bridge_up: master.is_some_and(|link| link.up),
        addresses,
        ports: ports.iter().filter_map(|port| Some((port.clone(), seen(port)?))).collect(),
        ..ObservedChassis::default()
    })
}

/// Returns all interfaces by the name that the kernel gives them.
async fn links(client: &mut Client) -> Result<BTreeMap<String, LinkFacts>> {
    let messages =
        client.dump("list interfaces", RouteNetlinkMessage::GetLink(LinkMessage::default())).await?;
    Ok(messages
        .iter()
        .filter_map(|m| if let RouteNetlinkMessage::NewLink(link) = m { LinkFacts::read(link) } else { None })
        .map(|facts| (facts.raw_name.clone(), facts))
        .collect())
}

/// Returns the IPv4 addresses of one interface.
async fn addresses(client: &mut Client, index: u32) -> Result<BTreeSet<(Ipv4Addr, u8)>> {
    let mut request = AddressMessage::default();
    request.header.family = AddressFamily::Inet;
    let messages = client.dump("list addresses", RouteNetlinkMessage::GetAddress(request)).await?;
    Ok(messages
        .iter()
        .filter_map(|m| if let RouteNetlinkMessage::NewAddress(a) = m { Some(a) } else { None })
        .filter(|message| message.header.index == index)
        .filter_map(|message| Some((own_address(message)?, message.header.prefix_len)))
        .collect())
}

/// Returns the interface's own address in the message (the other one is a peer's).
fn own_address(message: &AddressMessage) -> Option<Ipv4Addr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(std::net::IpAddr::V4(ip)) => Some(*ip),
        _ => None,
    })
}

/// Returns the bridge of this name.
fn a_bridge<'a>(found: &'a BTreeMap<String, LinkFacts>, name: &PortName) -> Result<&'a LinkFacts> {
    let link = found
        .get(name.as_str())
        .ok_or_else(|| Error::new(Kind::Missing, format!("bridge '{name}' does not exist")))?;
    if link.is_bridge {
        return Ok(link);
    }
    Err(Error::new(Kind::Exists, format!("interface '{name}' exists and is not a bridge")))
}

fn taken(found: &BTreeMap<String, LinkFacts>, port: &PortName, master: u32) -> Error {
    let other = found
        .values()
        .find(|link| link.index == master)
        .map_or_else(|| format!("interface {master}"), |link| format!("'{}'", link.raw_name));
    Error::new(Kind::Exists, format!("'{port}' belongs to {other} already"))
}

async fn bring_up(client: &mut Client, index: u32, name: &PortName) -> Result<()> {
    let wanted = LinkMessageBuilder::<LinkUnspec>::new().index(index).up().build();
    client.change(&format!("bring '{name}' up"), RouteNetlinkMessage::SetLink(wanted)).await
}

fn isolation(index: u32, isolated: bool) -> LinkMessage {
    LinkBridgePort::new(index)
        .set_port_kind(InfoPortKind::Bridge)
        .append_info_data(InfoBridgePort::Isolated(isolated))
        .build()
}
