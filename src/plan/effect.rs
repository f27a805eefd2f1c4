//! What a step makes true of the volumes: lets a cached LVM report follow our own steps without asking LVM again.

use std::collections::BTreeSet;

use crate::{
    model::{Bytes, ImageId, LvName, Role, Tag, VgName, Volume, VolumeState},
    observed::Volumes,
    plan::Step,
};

impl Volumes {
    /// Makes the step's result true of this report, and returns the volume that the step is about, if it is about one.
    pub fn after(&mut self, step: &Step, vg: &VgName) -> Option<LvName> {
        let lv = match step {
            Step::Clone { volume, .. }
            | Step::Activate { volume }
            | Step::TakeOver { volume, .. }
            | Step::Grow { volume, .. }
            | Step::Tag { volume, .. }
            | Step::RemoveVolume { volume } => volume.lv_name(),
            Step::CreateImage { image, .. }
            | Step::FinishImage { image, .. }
            | Step::RemoveImage { image }
            | Step::Promote { image, .. }
            | Step::TagImage { image, .. } => image.lv_name(),
            _ => return None,
        };
        match step {
            Step::Clone { size, tags, .. } | Step::TakeOver { size, tags, .. } => {
                self.cloned(&lv, *size, tags, vg)
            }
            Step::Activate { .. } => drop(self.volumes.get_mut(&lv).map(|found| found.active = true)),
            Step::Grow { size, .. } => {
                if let Some(found) = self.volumes.get_mut(&lv) {
                    found.size = found.size.max(*size);
                }
            }
            Step::Tag { add, remove, .. } | Step::TagImage { add, remove, .. } => {
                self.retag(&lv, add, remove)
            }
            Step::Promote { image, volume } => self.promoted(image, &volume.lv_name(), vg),
            Step::CreateImage { image, size } => {
                let (role, state) = (
                    Role::Image { image: image.clone(), published: false, pinned: false, mbr: false },
                    VolumeState::Making,
                );
                let made = new_volume(&lv, role, state, (*size, vg));
                self.volumes.entry(lv.clone()).or_insert(made);
            }
            Step::FinishImage { image, published } => {
                if let Some(found) = self.volumes.get_mut(&lv) {
                    let pinned = matches!(found.role, Role::Image { pinned: true, .. });
                    let mbr = found.has_mbr();
                    found.role = Role::Image { image: image.clone(), published: *published, pinned, mbr };
                    (found.state, found.writable) = (VolumeState::Ready, false);
                }
            }
            _ => drop(self.volumes.remove(&lv)),
        }
        Some(lv)
    }

    fn promoted(&mut self, image: &ImageId, from: &LvName, vg: &VgName) {
        let Some(size) = self.volumes.get(from).map(|disk| disk.size) else { return };
        let role = Role::Image { image: image.clone(), published: false, pinned: false, mbr: false };
        let made = new_volume(&image.lv_name(), role, VolumeState::Making, (size, vg));
        self.volumes.insert(image.lv_name(), Volume { active: false, writable: false, ..made });
    }

    fn cloned(&mut self, lv: &LvName, size: Bytes, tags: &[Tag], vg: &VgName) {
        let tags: BTreeSet<Tag> = tags.iter().cloned().collect();
        if let Some((role, state)) = Volume::identify(lv.as_str(), &tags) {
            self.volumes.insert(lv.clone(), new_volume(lv, role, state, (size, vg)));
        }
    }

    fn retag(&mut self, lv: &LvName, add: &[Tag], remove: &[Tag]) {
        let Some(found) = self.volumes.get_mut(lv) else { return };
        let mut tags = tags_of(found);
        tags.retain(|tag| !remove.contains(tag));
        tags.extend(add.iter().cloned());
        if let Some((role, state)) = Volume::identify(found.lv.as_str(), &tags) {
            (found.role, found.state) = (role, state);
        }
    }
}

/// Returns a volume as it is right after it was made: active, with nothing known of its use.
fn new_volume(lv: &LvName, role: Role, state: VolumeState, (size, vg): (Bytes, &VgName)) -> Volume {
    let device = format!("/dev/{vg}/{lv}").into();
    Volume { lv: lv.clone(), role, state, size, device, active: true, writable: true, used_percent: None }
}

/// Returns the tags that a volume must carry to be what it is.
fn tags_of(volume: &Volume) -> BTreeSet<Tag> {
    let mut tags = match &volume.role {
        Role::Image { published, pinned, mbr, .. } => {
            let tags = [(*published, Tag::Published), (*pinned, Tag::Default), (*mbr, Tag::Mbr)];
            tags.into_iter().filter_map(|(has, tag)| has.then_some(tag)).collect()
        }
        Role::Spare { image, profile, .. } => {
            let profile = profile.map(Tag::Profile);
            [Tag::Image(image.clone())].into_iter().chain(profile).collect()
        }
        Role::Disk { image, blade, slot, .. } => {
            vec![Tag::Image(image.clone()), Tag::Blade(*blade), Tag::Slot(*slot)]
        }
    };
    if volume.state == VolumeState::Making {
        tags.push(Tag::Making);
    }
    tags.into_iter().collect()
}
