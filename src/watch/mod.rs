//! What happens by itself: one file per source of events, each a task that tells plain [`WatchEvent`]s.
//!
//! Sources are the kernel's network tables (`netlink`), devices (`udev`), files (`files`), who touches our exports
//! (`configfs`), the kernel log (`kmsg`) and LIO's sessions (`sessions`). A source that loses events says so by telling the
//! whole again, or that all is to be looked at; one that fails tells [`WatchEvent::Trouble`] and begins anew. What an
//! event means is for `roster` and `policy`; nothing here decides or logs.
//!
//! ```text
//!   kernel ── rtnetlink ──► netlink::run ──┐
//!   udevd ─── udev socket ──► udev::run ───┼──► UnboundedSender<WatchEvent> ──► the daemon's line
//!   /etc/sheath, leases ──► files::…  ─────┤
//!   LIO ── inotify ──► configfs::run ──────┤
//!   kernel log ─── LIO's ───► kmsg::run ───┘
//! ```

pub mod configfs;
pub mod files;
mod fold;
pub mod kmsg;
pub mod netlink;
mod reactor;
pub mod sessions;
pub mod udev;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use tokio::sync::mpsc::UnboundedSender;

use crate::{
    error::Error,
    model::{BladeId, LvName, Mac, PortName},
    observed::Refusal,
};

/// Where events go. The receiver must never block: it folds them into its facts.
pub type Events = UnboundedSender<WatchEvent>;

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// The whole of the network tables: replaces everything that earlier events said of them.
    ///
    /// Told at the start, after lost events, after a new start of the source, and every few minutes.
    Resync(Network),
    /// An interface is there now, or has changed.
    Link {
        /// Its name.
        name: PortName,
        /// What it is like.
        link: Link,
    },
    /// An interface is gone (or has another name now).
    LinkGone {
        /// Its name.
        name: PortName,
    },
    /// The bridge learnt by which port frames of this address come in, or forgot it.
    ///
    /// Forgotten by age is not gone: a blade that says nothing for 300 s is forgotten. Carrier says who is gone.
    Fdb {
        /// The address.
        mac: Mac,
        /// The port.
        port: PortName,
        /// Whether the bridge knows it now.
        present: bool,
    },
    /// A machine on the chassis network answered ARP: this address is at that MAC.
    Neigh {
        /// Its address.
        ip: Ipv4Addr,
        /// Its MAC.
        mac: Mac,
    },
    /// Nobody answers at this address.
    NeighGone {
        /// The address.
        ip: Ipv4Addr,
    },
    /// udev is done with an interface that came.
    PortAdded {
        /// Its name.
        name: PortName,
    },
    /// An interface was taken out (or has another name now).
    PortRemoved {
        /// Its name.
        name: PortName,
    },
    /// A volume of ours has a device, or has lost it.
    Volume {
        /// Its logical volume.
        lv: LvName,
        /// Whether device-mapper has it, ready.
        present: bool,
    },
    /// A disk that LVM keeps volumes on is there now: what was missing may be there too.
    PhysicalVolume,
    /// A whole disk came or went, or what is in a drive: no volume, and nothing else that is made of other devices.
    Disk {
        /// The kernel's name of it.
        name: String,
        /// Whether it is there.
        present: bool,
    },
    /// udev's events overflowed: look at all devices anew.
    DevicesLost,
    /// A file of the configuration has changed and is quiet since.
    ConfigChanged,
    /// dnsmasq's leases, all of them.
    Leases(BTreeMap<Mac, Ipv4Addr>),
    /// Somebody, maybe we, wrote below an export of ours.
    Touched {
        /// Whose export.
        blade: BladeId,
        /// What was touched, such as `tpgt_1/attrib/authentication`; at most a handful.
        paths: Vec<String>,
    },
    /// What was touched below our exports is not known: look at all of them.
    EditsLost,
    /// A source failed and begins anew: for the journal.
    Trouble {
        /// The source.
        source: Source,
        /// The error's chain.
        text: String,
    },
    /// Logins were refused: once now, or so many since this was told the last time.
    LoginRefused {
        /// Whose and why, as far as it is known.
        refusal: Refusal,
        /// How many.
        count: u64,
    },
    /// A source cannot be had; the agent goes on without it. Told once.
    Without {
        /// The source.
        source: Source,
        /// The error's chain.
        text: String,
    },
}

/// A source of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The kernel's network tables.
    Netlink,
    /// Devices.
    Udev,
    /// The configuration folder.
    Config,
    /// dnsmasq's lease file.
    Leases,
    /// LIO's configfs.
    Configfs,
    /// The kernel log.
    KernelLog,
}

/// The network tables, as far as blades are concerned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// All interfaces.
    pub links: BTreeMap<PortName, Link>,
    /// Which addresses the chassis bridge learnt by which port. An address is at one port, but for VLANs.
    pub fdb: BTreeSet<(Mac, PortName)>,
    /// Who answered ARP on the chassis bridge.
    pub neigh: BTreeMap<Ipv4Addr, Mac>,
}

/// An interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it.
    pub index: u32,
    /// Whether it is up and its cable carries a signal.
    pub carrier: bool,
    /// The bridge or bond that it is a port of, by its index.
    pub master: Option<u32>,
}

/// Tells that a source failed. Nobody listening is no error: the daemon is ending then.
fn trouble(events: &Events, source: Source, error: &Error) {
    let _ = events.send(WatchEvent::Trouble { source, text: error.chain() });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_can_be_a_task_of_any_runtime() {
        fn is_task(_: impl Future<Output = ()> + Send + 'static) {}
        let (events, _) = tokio::sync::mpsc::unbounded_channel();
        is_task(netlink::run("br0".parse().unwrap(), events.clone()));
        is_task(udev::run(events.clone()));
        is_task(files::config("/etc/sheath".into(), events.clone()));
        is_task(files::leases("/run/leases".into(), events.clone()));
        is_task(configfs::run("/sys".into(), configfs::Orders::default(), events));
    }
}
