//! What a proof needs: a disk and a target as a blade would get them, for a blade that nobody has.
//!
//! Decided here and carried out on a thread outside; what a killed agent leaves is found by its volume, because target and
//! blade follow from the volume's id.

use super::Core;
use crate::{
    boot::{
        script,
        wire::{Answer, BootDisk},
    },
    config::Config,
    error::Result,
    image::Trial,
    model::{BladeId, Firmware, ImageId, Seed, Slot, VolumeId},
    observed::ObservedExport,
    plan::{self, Step},
    policy::{self, BladeWish, DiskWish},
};

/// Where the script leads when the disk does not boot: nowhere, because nobody answers a blade that is not there.
const NOWHERE: &str = "http://198.18.0.2:8078";

impl Core {
    /// Returns the trial of the image by this firmware, on a disk with this id.
    ///
    /// # Errors
    /// A full pool, an image that is not there, a prefix that leaves no room for a target's name.
    pub(super) fn trial(&self, image: &ImageId, firmware: Firmware, volume: VolumeId) -> Result<Trial> {
        let (config, blade) = (&*self.config, policy::stand_in(volume));
        let portal = config.target.portal;
        let export = policy::export(config, blade, volume, portal)?;
        let target = export.target.clone();
        let credentials = self.outside.host.credentials(volume, export.chap);
        let slot = config.chassis.slots.keys().next().copied();
        let disk = BootDisk {
            slot: slot.unwrap_or_else(first_slot),
            image: image.clone(),
            initiator: export.initiator.clone(),
            target: target.clone(),
            portals: export.portals.clone(),
            credentials,
            firmware: Some(firmware),
            key_seconds: 0,
        };
        let make = Some(policy::make(config, image, volume));
        let disk_wish = DiskWish { make, adopt: None, export, properties: Default::default() };
        let wish = BladeWish {
            blade,
            target,
            disk: Some(disk_wish),
            releases: vec![],
            running: false,
            interrupt: false,
        };
        let mut steps = plan::blade(&wish, self.known_volumes()?, &ObservedExport::default())?.steps;
        let partitioned = steps.iter().position(|step| matches!(step, Step::Partition { .. }));
        steps.insert(
            partitioned.map_or(steps.len(), |at| at + 1),
            Step::Seed { volume, seed: seed(blade, volume) },
        );
        let (undo, script) = (undo(config, volume), script::render(&Answer::Boot(disk), NOWHERE));
        Ok(Trial { image: image.clone(), firmware, steps, undo, script, mac: blade.0, portal })
    }
}

/// Returns the steps that take away what a proof has made, whatever of it is there.
pub(super) fn undo(config: &Config, volume: VolumeId) -> Vec<Step> {
    let served = policy::unserve(config, policy::stand_in(volume), volume);
    served.into_iter().chain([Step::RemoveVolume { volume }]).collect()
}

fn first_slot() -> Slot {
    "1".parse().expect("a slot's number")
}

fn seed(blade: BladeId, volume: VolumeId) -> Seed {
    Seed {
        instance_id: format!("i-{volume}"),
        hostname: blade.to_string().parse().expect("a blade's id is a host name"),
        boot_nic: blade.0,
        ssh_keys: vec![],
        user_data: None,
    }
}
