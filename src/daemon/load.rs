//! The configuration and the roster as they are on disk.

use std::{fs, io::ErrorKind, path::Path};

use super::core::Loaded;
use crate::{
    config::{self, Config},
    roster::{Roster, Saved},
};

/// Longest file that is read: a mistake, not a configuration.
const LONGEST: u64 = 4 << 20;

/// Reads the configuration; every fault is a line.
pub(super) fn config(path: &Path) -> Loaded {
    let name = path.display().to_string();
    let readable = fs::metadata(path).and_then(|found| match found.len() {
        0..=LONGEST => fs::read_to_string(path),
        _ => Err(std::io::Error::other("it is larger than 4 MiB")),
    });
    let text = readable.map_err(|e| vec![format!("{name}: {e}")])?;
    config::parse(&name, &text).map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

/// Reads the configuration again. What cannot change while the agent runs is a fault.
pub(super) fn reconfig(path: &Path, running: &Config) -> Loaded {
    let config = config(path)?;
    let mut faults = vec![];
    if config.pool.vg != running.pool.vg || config.pool.thinpool != running.pool.thinpool {
        faults.push("pool: another volume group or pool needs 'systemctl restart sheathd'".to_owned());
    }
    if config.target.iqn_prefix != running.target.iqn_prefix {
        faults.push("target.iqn_prefix: another prefix needs 'systemctl restart sheathd'".to_owned());
    }
    if config.chassis.bridge != running.chassis.bridge {
        faults.push("chassis.bridge: another bridge needs 'systemctl restart sheathd'".to_owned());
    }
    if faults.is_empty() { Ok(config) } else { Err(faults) }
}

/// Reads the saved roster. One that is lost or damaged is an empty one: the volumes' tags say whose disk is whose.
pub(super) fn roster(path: &Path) -> Roster {
    match fs::read(path) {
        Ok(bytes) => Saved::parse(&bytes).map(Saved::into_roster).unwrap_or_else(|error| {
            log::warn!("'{}' is not used: {}; pending grants are lost", path.display(), error.chain());
            Roster::default()
        }),
        Err(e) if e.kind() == ErrorKind::NotFound => Roster::default(),
        Err(e) => {
            log::warn!("'{}' is not used: {e}; pending grants are lost", path.display());
            Roster::default()
        }
    }
}
