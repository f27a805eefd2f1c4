//! What is shown: views made from facts, at the moment they are asked for.

use super::Core;
use crate::{
    model::{BladeId, Bytes, ImageId, Role, Volume, VolumeState},
    policy,
    roster::Blade,
    status::{BladeView, ImageView, SlotView, Status},
};

impl Core {
    pub(super) fn status(&self) -> Status {
        let mut blades = std::collections::BTreeMap::new();
        for blade in self.roster.blades.values() {
            *blades.entry(blade.phase()).or_default() += 1;
        }
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            started: self.started,
            config_loaded: self.config_loaded,
            config_faults: self.config_faults.clone(),
            slots: self.slots(),
            blades,
            pool: self.volumes.as_ref().map(|volumes| volumes.pool),
            problems: self.problems.values().cloned().collect(),
        }
    }

    fn slots(&self) -> Vec<SlotView> {
        let view = |(slot, port): (&_, &crate::model::PortName)| SlotView {
            slot: *slot,
            port: port.clone(),
            carrier: self.presence.carrier.get(port).copied(),
        };
        self.config.chassis.slots.iter().map(view).collect()
    }

    pub(super) fn blades(&self) -> Vec<BladeView> {
        let mut views: Vec<_> =
            self.roster.blades.iter().map(|(id, blade)| self.blade_view(*id, blade)).collect();
        views.sort_by_key(|view| (view.slot, view.blade));
        views
    }

    fn blade_view(&self, id: BladeId, blade: &Blade) -> BladeView {
        let volume = blade.disk.as_ref().map(|disk| disk.volume);
        let found = volume.and_then(|volume| self.volumes.as_ref()?.volumes.get(&volume.lv_name()));
        let granted = blade.grant.as_ref().map(|grant| grant.image.clone());
        BladeView {
            slot: blade.slot,
            blade: id,
            mac: id.0,
            phase: blade.phase(),
            image: blade.disk.as_ref().map(|disk| disk.image.clone()).or(granted),
            volume,
            size: found.map(|volume| volume.size),
            used_percent: found.and_then(|volume| volume.used_percent),
            ip: blade.ip,
            hostname: policy::hostname_of(&self.config, id, blade.slot).to_string(),
            target: volume.and_then(|_| policy::target_of(&self.config, id).ok()).map(|iqn| iqn.to_string()),
            session: blade.session.clone(),
            problem: blade.problem.as_ref().map(|fault| fault.text.clone()),
            held: blade.held.clone(),
            times: blade.times.clone(),
            hardware: blade.hardware.clone(),
            drift: self.drift.of(id),
            counters: None,
            refused: self.refusals.of(id).cloned(),
        }
    }

    pub(super) fn images(&self) -> Vec<ImageView> {
        let volumes = self.volumes.iter().flat_map(|all| all.volumes.values());
        let golden = volumes.filter_map(|volume| match &volume.role {
            Role::Image { image, published, pinned, .. } => Some((image, (*published, *pinned), volume)),
            _ => None,
        });
        let mut views: Vec<_> =
            golden.map(|(image, marks, volume)| self.image_view(image, marks, volume)).collect();
        views.extend(self.coming(&views));
        views.sort_by(|a, b| a.image.cmp(&b.image));
        views
    }

    fn image_view(&self, id: &ImageId, (published, pinned): (bool, bool), volume: &Volume) -> ImageView {
        let default = self.volumes.as_ref().and_then(|all| policy::images::default_of(all, &id.name));
        let import = self.imports.get(&id.name).filter(|import| import.is_running() && import.image == *id);
        ImageView {
            image: id.clone(),
            default: default.as_ref() == Some(id),
            pinned,
            published,
            importing: volume.state == VolumeState::Making || import.is_some(),
            mbr: volume.has_mbr(),
            size: volume.size,
            space: None,
            disks: self.count(|role| matches!(role, Role::Disk { image, .. } if image == id)),
            spares: self.count(|role| matches!(role, Role::Spare { image, .. } if image == id)),
            progress: import.map(|import| import.progress.clone()),
        }
    }

    /// Returns what is being imported and has no volume yet.
    fn coming(&self, listed: &[ImageView]) -> Vec<ImageView> {
        let running = self.imports.values().filter(|import| import.is_running());
        let unlisted = running.filter(|import| listed.iter().all(|view| view.image != import.image));
        unlisted
            .map(|import| ImageView {
                image: import.image.clone(),
                default: false,
                pinned: false,
                published: false,
                importing: true,
                mbr: false,
                size: Bytes(0),
                space: None,
                disks: 0,
                spares: 0,
                progress: Some(import.progress.clone()),
            })
            .collect()
    }

    fn count(&self, which: impl Fn(&Role) -> bool) -> usize {
        let volumes = self.volumes.iter().flat_map(|all| all.volumes.values());
        volumes.filter(|volume| which(&volume.role)).count()
    }
}
