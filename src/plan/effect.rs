//! What a step makes true of the volumes: lets a cached LVM report follow our own steps without asking LVM again.

use std::collections::BTreeSet;

use crate::{
    model::{Role, Tag, VgName, Volume, VolumeId, VolumeState},
    observed::Volumes,
    plan::Step,
};

impl Volumes {
    /// Makes the step's result true of this report.
    pub fn after(&mut self, step: &Step, vg: &VgName) {
        match step {
            Step::Clone { volume, size, tags, .. } => {
                let tags: BTreeSet<Tag> = tags.iter().cloned().collect();
                let lv = volume.lv_name();
                let Some((role, state)) = Volume::identify(lv.as_str(), &tags) else { return };
                let device = format!("/dev/{vg}/{lv}").into();
                let made = Volume { lv, role, state, size: *size, device, active: true, used_percent: None };
                self.volumes.insert(made.lv.clone(), made);
            }
            Step::Activate { volume } => {
                if let Some(found) = self.volumes.get_mut(&volume.lv_name()) {
                    found.active = true;
                }
            }
            Step::Tag { volume, add, remove } => self.retag(*volume, add, remove),
            Step::RemoveVolume { volume } => {
                self.volumes.remove(&volume.lv_name());
            }
            Step::CreateImage { image, size } => {
                let (lv, role) = (image.lv_name(), Role::Image { name: image.clone(), published: false });
                let (device, state) = (format!("/dev/{vg}/{lv}").into(), VolumeState::Making);
                let made = Volume { lv, role, state, size: *size, device, active: true, used_percent: None };
                self.volumes.entry(made.lv.clone()).or_insert(made);
            }
            Step::FinishImage { image, published } => {
                if let Some(found) = self.volumes.get_mut(&image.lv_name()) {
                    found.role = Role::Image { name: image.clone(), published: *published };
                    found.state = VolumeState::Ready;
                }
            }
            Step::RemoveImage { image } => {
                self.volumes.remove(&image.lv_name());
            }
            _ => {}
        }
    }

    fn retag(&mut self, volume: VolumeId, add: &[Tag], remove: &[Tag]) {
        let Some(found) = self.volumes.get_mut(&volume.lv_name()) else { return };
        let mut tags = tags_of(found);
        tags.retain(|tag| !remove.contains(tag));
        tags.extend(add.iter().cloned());
        if let Some((role, state)) = Volume::identify(found.lv.as_str(), &tags) {
            (found.role, found.state) = (role, state);
        }
    }
}

/// Returns the tags that a volume must carry to be what it is.
fn tags_of(volume: &Volume) -> BTreeSet<Tag> {
    let mut tags = match &volume.role {
        Role::Image { published: true, .. } => vec![Tag::Published],
        Role::Image { .. } => vec![],
        Role::Spare { image, .. } => vec![Tag::Image(image.clone())],
        Role::Disk { image, blade, slot, .. } => {
            vec![Tag::Image(image.clone()), Tag::Blade(*blade), Tag::Slot(*slot)]
        }
    };
    if volume.state == VolumeState::Making {
        tags.push(Tag::Making);
    }
    tags.into_iter().collect()
}
