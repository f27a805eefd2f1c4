//! The roster as it is saved: what cannot be learnt again from the kernel or from LVM.
//!
//! Apart from the live type on purpose: a saved field is a promise to read it for ever. A lost or damaged file costs
//! pending grants and what blades said of themselves, nothing else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Blade, Disk, Grant, Roster};
use crate::{
    error::{Error, Result},
    model::{BladeId, Hardware, Slot, VolumeId},
};

/// The saved form's version: a newer one is refused, never half understood.
const VERSION: u32 = 1;

/// The roster's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    version: u32,
    /// Counts up with each save.
    pub generation: u64,
    blades: BTreeMap<BladeId, SavedBlade>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SavedBlade {
    slot: Slot,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    disk: Option<Disk>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grant: Option<Grant>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    releases: Vec<VolumeId>,
    #[serde(default)]
    restart_due: bool,
    #[serde(default)]
    hardware: Hardware,
}

impl SavedBlade {
    fn of(blade: &Blade) -> Self {
        Self {
            slot: blade.slot,
            disk: blade.disk.clone(),
            grant: blade.grant.clone(),
            releases: blade.releases.clone(),
            restart_due: blade.restart_due,
            hardware: blade.hardware.clone(),
        }
    }
}

impl Saved {
    /// Returns what there is to save of the roster.
    pub fn of(roster: &Roster, generation: u64) -> Self {
        let blades = roster.blades.iter().map(|(id, blade)| (*id, SavedBlade::of(blade))).collect();
        Self { version: VERSION, generation, blades }
    }

    /// Makes the saved form follow these blades, and returns whether it had to change. No other blade is looked at.
    pub fn follow(&mut self, roster: &Roster, touched: impl IntoIterator<Item = BladeId>) -> bool {
        let mut changed = false;
        for id in touched {
            let Some(blade) = roster.blades.get(&id).map(SavedBlade::of) else { continue };
            if self.blades.get(&id) != Some(&blade) {
                self.blades.insert(id, blade);
                changed = true;
            }
        }
        changed
    }

    /// Reads the file's bytes.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) where they are not a whole roster of a version that we know.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let saved: Self =
            serde_json::from_slice(bytes).map_err(|e| Error::invalid("read the saved roster").because(e))?;
        if saved.version != VERSION {
            return Err(Error::invalid(format!(
                "read the saved roster: version {} is not known",
                saved.version
            )));
        }
        Ok(saved)
    }

    /// Returns the file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("maps with text keys always serialise")
    }

    /// Returns the roster: nobody present, everything else as saved.
    pub fn into_roster(self) -> Roster {
        let live = |saved: SavedBlade| Blade {
            disk: saved.disk,
            grant: saved.grant,
            releases: saved.releases,
            restart_due: saved.restart_due,
            hardware: saved.hardware,
            ..Blade::new(saved.slot)
        };
        Roster { blades: self.blades.into_iter().map(|(id, blade)| (id, live(blade))).collect() }
    }
}
