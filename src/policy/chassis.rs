//! What should exist of the chassis: the bridge, its ports, what the services are told.

use std::{net::Ipv4Addr, path::PathBuf};

use crate::{config::Config, model::PortName};

/// What should exist of the chassis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChassisWish {
    /// The bridge.
    pub bridge: PortName,
    /// Its address; `None` where the host's own network tool makes bridge and ports.
    pub address: Option<(Ipv4Addr, u8)>,
    /// The slots' ports.
    pub ports: Vec<PortName>,
    /// Whether they are isolated from each other.
    pub isolated: bool,
    /// Files that services read: unit, path, content.
    pub files: Vec<ServiceFile>,
}

/// A file that a service reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFile {
    /// The service's unit.
    pub unit: String,
    /// The file.
    pub path: PathBuf,
    /// Its content.
    pub content: String,
}

/// Returns what should exist of the chassis.
pub fn wish(config: &Config, files: Vec<ServiceFile>) -> ChassisWish {
    let chassis = &config.chassis;
    ChassisWish {
        bridge: chassis.bridge.clone(),
        address: chassis.manage.then_some(chassis.address),
        ports: chassis.slots.values().cloned().collect(),
        isolated: chassis.isolate,
        files,
    }
}
