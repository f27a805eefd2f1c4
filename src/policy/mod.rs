//! Who gets what: from wishes (`config`) and facts (`roster`) to what should exist. Pure.
//!
//! [`wish`] says what should exist for one blade, [`chassis`] for the chassis, [`boot`] what a blade that asks is told,
//! [`images`] which image a name stands for, [`capture`] what a donor is lent.
//! How to get there is `plan`'s.

pub mod boot;
pub mod capture;
pub mod chassis;
pub mod images;

use std::collections::BTreeMap;

use crate::{
    config::Config,
    error::Result,
    model::{
        Backstore, BladeId, DiskGuid, DiskProfile, Export, ForeignExport, Hostname, ImageId, Iqn, LvName,
        Mac, Portal, Seed, Slot, Tag, Variables, VolumeId,
    },
    plan::Step,
    roster::{Blade, Grant},
};

/// What should exist for one blade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BladeWish {
    /// Whose.
    pub blade: BladeId,
    /// The blade's target, whether it should exist or not.
    pub target: Iqn,
    /// Its disk and target; `None` where it should have none.
    pub disk: Option<DiskWish>,
    /// Volumes to take away, with the operator's consent.
    pub releases: Vec<VolumeId>,
    /// Whether its operating system runs: a session that is gone for a moment comes back.
    pub running: bool,
    /// The operator's consent to end the blade's session where a change needs that.
    pub interrupt: bool,
}

/// A disk that should exist and be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskWish {
    /// How it is made, where a grant allows that; without one a missing volume stays missing and is reported.
    pub make: Option<MakeWish>,
    /// The foreign target that it is taken over from, where a grant allows that.
    pub adopt: Option<AdoptWish>,
    /// How LIO serves it.
    pub export: Export,
    /// What udev is told.
    pub properties: BTreeMap<String, String>,
}

/// How a foreign target's volume becomes a blade's disk. Nothing is written to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdoptWish {
    /// What has to go, and the volume.
    pub from: ForeignExport,
    /// The tags that make the volume the blade's.
    pub tags: Vec<Tag>,
}

/// How a volume is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MakeWish {
    /// The golden image.
    pub image: ImageId,
    /// Its GUID.
    pub guid: DiskGuid,
    /// Its size and its partitions.
    pub profile: DiskProfile,
    /// The blade's identity and the slot it is bound to; `None` for a spare.
    pub owner: Option<(BladeId, Slot, Seed)>,
    /// No new volume above this fill of the pool, in percent.
    pub watermark: u8,
}

impl BladeWish {
    /// Returns the volumes that a plan for it looks at: its disk, what the disk is made from, what is taken away.
    pub fn volumes(&self) -> Vec<LvName> {
        let disk = self.disk.as_ref();
        let image = disk.and_then(|disk| disk.make.as_ref()).map(|make| make.image.lv_name());
        let own = disk.map(|disk| disk.export.backstore.volume.lv_name());
        own.into_iter().chain(image).chain(self.releases.iter().map(|volume| volume.lv_name())).collect()
    }
}

/// Returns the name of the blade's target.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid) where the configured prefix leaves no room for the suffix.
pub fn target_of(config: &Config, blade: BladeId) -> Result<Iqn> {
    config.target.iqn_prefix.join(&blade.to_string())
}

/// Returns the name that the blade logs in with: we assign it, nobody types it (patent: "retrieves the IQN").
///
/// # Errors
/// As [`target_of`].
pub fn initiator_of(config: &Config, blade: BladeId) -> Result<Iqn> {
    config.target.iqn_prefix.join(&format!("initiator:{blade}"))
}

/// Returns what should exist for this blade.
///
/// # Errors
/// As [`target_of`].
pub fn wish(config: &Config, id: BladeId, blade: &Blade) -> Result<BladeWish> {
    let target = target_of(config, id)?;
    let disk = match (&blade.grant, &blade.disk) {
        (Some(grant), _) => Some(granted_disk(config, id, blade, grant)?),
        (None, Some(disk)) => Some(DiskWish {
            make: None,
            adopt: None,
            export: export(config, id, disk.volume, config.target.portal_of(disk.slot))?,
            properties: properties(id, disk.slot, &disk.image),
        }),
        (None, None) => None,
    };
    Ok(BladeWish {
        blade: id,
        target,
        disk,
        releases: blade.releases.clone(),
        running: blade.is_running(),
        interrupt: blade.interrupt,
    })
}

fn granted_disk(config: &Config, id: BladeId, blade: &Blade, grant: &Grant) -> Result<DiskWish> {
    let disk = DiskWish {
        make: None,
        adopt: None,
        export: export(config, id, grant.volume, config.target.portal_of(blade.slot))?,
        properties: properties(id, blade.slot, &grant.image),
    };
    if let Some(from) = &grant.from {
        let tags = vec![Tag::Image(grant.image.clone()), Tag::Blade(id), Tag::Slot(blade.slot)];
        return Ok(DiskWish { adopt: Some(AdoptWish { from: from.clone(), tags }), ..disk });
    }
    let profile = config.profile_of(&grant.image.name);
    let hostname = hostname_of(config, id, blade.slot);
    let variables = Variables::new(id, blade.slot, &hostname, &grant.image);
    let user_data = profile.user_data.map(|template| template.fill(&variables)).transpose();
    let user_data =
        user_data.map_err(|e| e.while_doing(format!("fill user_data of image '{}'", grant.image.name)))?;
    let seed = Seed {
        instance_id: format!("i-{}", grant.volume),
        hostname,
        boot_nic: id.0,
        ssh_keys: profile.ssh_keys,
        user_data,
    };
    let owner = Some((id, blade.slot, seed));
    let profile = config.disk_of(id.0, blade.slot, &grant.image.name);
    let make = MakeWish { owner, profile, ..make(config, &grant.image, grant.volume) };
    Ok(DiskWish { make: Some(make), ..disk })
}

/// Returns how a clone of the image is made that is nobody's yet.
pub fn make(config: &Config, image: &ImageId, volume: VolumeId) -> MakeWish {
    MakeWish {
        image: image.clone(),
        guid: guid_of(volume),
        profile: config.disk_from(&image.name),
        owner: None,
        watermark: config.pool.watermark,
    }
}

/// Returns the disk GUID of a volume: its id with some bits turned, so that making it twice gives the same disk.
fn guid_of(volume: VolumeId) -> DiskGuid {
    DiskGuid::from_random(volume.0.rotate_left(64))
}

/// Returns the host name that the blade gets.
pub fn hostname_of(config: &Config, id: BladeId, slot: Slot) -> Hostname {
    let configured = config.policy_of(id.0, slot).hostname.clone();
    configured.unwrap_or_else(|| id.to_string().parse().expect("a blade's id is a host name"))
}

/// Returns how LIO serves this volume to this blade at this portal.
///
/// # Errors
/// As [`target_of`].
pub fn export(config: &Config, id: BladeId, volume: VolumeId, portal: Portal) -> Result<Export> {
    let device = format!("/dev/{}/{}", config.pool.vg, volume.lv_name()).into();
    Ok(Export {
        backstore: Backstore { volume, device },
        target: target_of(config, id)?,
        initiator: initiator_of(config, id)?,
        portals: vec![portal],
        chap: config.target.chap,
    })
}

/// Returns the blade that stands in for one where a disk is served to nobody's: a locally administered address, made of
/// the volume's id.
pub fn stand_in(volume: VolumeId) -> BladeId {
    let id = volume.0.to_be_bytes();
    let mac = Mac::from_bytes(&[0x02, id[0], id[1], id[2], id[3], id[4]]);
    BladeId(mac.expect("a locally administered address of one machine"))
}

/// Returns the steps that end the serving of this volume to this blade, whatever of it is there.
pub fn unserve(config: &Config, blade: BladeId, volume: VolumeId) -> Vec<Step> {
    let target = target_of(config, blade).ok();
    let served = target
        .into_iter()
        .flat_map(|target| [Step::Disable { target: target.clone() }, Step::RemoveTarget { target }]);
    served.chain([Step::RemoveBackstore { volume }]).collect()
}

fn properties(id: BladeId, slot: Slot, image: &ImageId) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("SHEATH_BLADE".to_owned(), id.to_string()),
        ("SHEATH_SLOT".to_owned(), slot.to_string()),
        ("SHEATH_IMAGE".to_owned(), image.name.to_string()),
        ("SHEATH_IMAGE_VERSION".to_owned(), image.version.to_string()),
    ])
}

#[cfg(test)]
mod tests;
