//! From a blade's wish and what exists to steps: make the disk, serve it, or take it away.
//!
//! Order is safety here. A volume carries its owner's tags from its first moment and `sheath.making` until it is whole;
//! everything of a target is written before its portal and its `enable`; sessions go before LUNs, LUNs before
//! backstores, backstores before volumes. What LIO holds of it is compared in `export`.

use std::collections::BTreeMap;

use crate::{
    error::{Error, Kind, Result},
    model::{Role, Tag, Volume, VolumeId, VolumeState},
    observed::{ObservedExport, ObservedTarget, Volumes},
    plan::{Plan, Step, adopt::take_over, export::change, volume::clone_steps},
    policy::{BladeWish, DiskWish, MakeWish},
};

/// Returns the steps that are not true yet.
///
/// # Errors
/// [`Kind::Missing`] where a volume or an image is not there, [`Kind::Full`] where the pool is too full for another
/// volume: the blade stays pending with that reason, and nothing has been touched.
pub fn blade(wish: &BladeWish, volumes: &Volumes, export: &ObservedExport) -> Result<Plan> {
    let mut steps = vec![];
    for volume in &wish.releases {
        steps.extend(release(wish, *volume, volumes, export));
    }
    let Some(disk) = &wish.disk else { return Ok(Plan { steps, held: vec![] }) };
    let found = find(volumes, disk.export.backstore.volume);
    steps.extend(volume_steps(disk, found, volumes)?);
    // What a release takes away above is not there any more when these run.
    let released = export.target.as_ref().is_some_and(|target| serves_one_of(target, &wish.releases));
    let blank = ObservedExport::default();
    let export_now = if released { &blank } else { export };
    let in_use = wish.running || export_now.target.as_ref().is_some_and(ObservedTarget::is_in_use);
    let change = change(&disk.export, export_now, in_use && !wish.interrupt);
    steps.extend(change.steps);
    steps.extend(adoption_steps(disk, found, export));
    Ok(Plan { steps, held: change.held })
}

/// Returns the steps that take away what a failed installation left: nothing half-made stays behind.
pub fn undo(wish: &BladeWish, volumes: &Volumes, export: &ObservedExport) -> Vec<Step> {
    let Some(disk) = wish.disk.as_ref().filter(|disk| disk.make.is_some()) else { return vec![] };
    let volume = disk.export.backstore.volume;
    let mut steps = unexport(wish, volume, export);
    if find(volumes, volume).is_some_and(|found| found.state == VolumeState::Making) {
        steps.push(Step::RemoveVolume { volume });
    }
    steps
}

fn find(volumes: &Volumes, id: VolumeId) -> Option<&Volume> {
    volumes.volumes.get(&id.lv_name())
}

fn serves_one_of(target: &ObservedTarget, volumes: &[VolumeId]) -> bool {
    let Some((name, _)) = &target.lun else { return false };
    volumes.iter().any(|volume| volume.lv_name().as_str() == name)
}

/// Returns the steps that take a volume away for ever. Its target goes first, but only if it serves that volume, or
/// nothing where nothing is to be served: a removal that was killed half-way leaves a target without a LUN.
fn release(wish: &BladeWish, volume: VolumeId, volumes: &Volumes, export: &ObservedExport) -> Vec<Step> {
    let serves = export.target.as_ref().is_some_and(|target| {
        serves_one_of(target, &[volume]) || (target.lun.is_none() && wish.disk.is_none())
    });
    let mut steps = if serves { untarget(wish, export) } else { vec![] };
    // What was observed is the new disk's; these find out by themselves whether there is anything to do.
    steps.push(Step::RemoveBackstore { volume });
    steps.push(Step::Announce { volume, properties: BTreeMap::new() });
    if find(volumes, volume).is_some() {
        steps.push(Step::RemoveVolume { volume });
    }
    steps
}

/// Returns the steps that take the target away, sessions first.
fn untarget(wish: &BladeWish, export: &ObservedExport) -> Vec<Step> {
    let Some(found) = &export.target else { return vec![] };
    let target = wish.target.clone();
    let mut steps = vec![];
    if found.enabled {
        steps.push(Step::Disable { target: target.clone() });
    }
    let admitted = found.acls.keys().cloned();
    steps.extend(admitted.map(|initiator| Step::RemoveAcl { target: target.clone(), initiator }));
    steps.push(Step::RemoveTarget { target });
    steps
}

/// Returns the steps that take target and backstore away and keep the volume.
fn unexport(wish: &BladeWish, volume: VolumeId, export: &ObservedExport) -> Vec<Step> {
    let mut steps = untarget(wish, export);
    if export.backstore.is_some() {
        steps.push(Step::RemoveBackstore { volume });
    }
    if !export.properties.is_empty() {
        steps.push(Step::Announce { volume, properties: BTreeMap::new() });
    }
    steps
}

/// Returns the steps until the volume is there, whole but for its tags, and active.
fn volume_steps(disk: &DiskWish, found: Option<&Volume>, volumes: &Volumes) -> Result<Vec<Step>> {
    let id = disk.export.backstore.volume;
    match (found, &disk.make) {
        (None, None) if disk.adopt.is_some() => {
            Ok(disk.adopt.iter().flat_map(|adopt| take_over(id, adopt)).collect())
        }
        (None, None) => {
            Err(Error::new(Kind::Missing, format!("serve volume '{id}': it is not in the volume group")))
        }
        (None, Some(make)) => clone_steps(id, make, volumes),
        (Some(found), Some(make)) if found.state == VolumeState::Making => {
            let mut steps = clone_steps(id, make, volumes)?;
            // It exists: no new space is asked for. A kill between making and growing it leaves it too small.
            steps.retain(
                |step| !matches!(step, Step::Clone { size, .. } if found.active && found.size >= *size),
            );
            Ok(steps)
        }
        (Some(found), make) => Ok(ready_volume_steps(id, found, make.as_ref())),
    }
}

fn ready_volume_steps(volume: VolumeId, found: &Volume, make: Option<&MakeWish>) -> Vec<Step> {
    let mut steps = vec![];
    if !found.active {
        steps.push(Step::Activate { volume });
    }
    let seed = make.and_then(|make| make.owner.as_ref()).map(|(_, _, seed)| seed.clone());
    // A spare is whole but for whose it is; a disk that is somebody's is never seeded again.
    if let (Role::Spare { .. }, Some(seed)) = (&found.role, seed) {
        steps.push(Step::Seed { volume, seed });
    }
    steps
}

/// Returns the steps that come last: the tags that make the disk the blade's, and the word to udev.
///
/// The blade is told of its disk only after them, so it cannot have written before the tags say whose the data is.
fn adoption_steps(disk: &DiskWish, found: Option<&Volume>, export: &ObservedExport) -> Vec<Step> {
    let volume = disk.export.backstore.volume;
    let mut steps = vec![];
    let owner = disk.make.as_ref().and_then(|make| make.owner.as_ref());
    if let Some((blade, slot, _)) = owner {
        let spare = found.is_some_and(|found| matches!(found.role, Role::Spare { .. }));
        let making = found.is_none_or(|found| found.state == VolumeState::Making);
        let add = if spare { vec![Tag::Blade(*blade), Tag::Slot(*slot)] } else { vec![] };
        let remove = if making { vec![Tag::Making] } else { vec![] };
        if spare || making {
            steps.push(Step::Tag { volume, add, remove });
        }
    }
    if export.properties != disk.properties {
        steps.push(Step::Announce { volume, properties: disk.properties.clone() });
    }
    steps
}
