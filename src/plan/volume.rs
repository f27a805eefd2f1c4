//! Volumes that are nobody's yet: clones on their way, spares made ahead, left-overs.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    error::{Error, Kind, Result},
    model::{Bytes, DiskProfile, Growth, ImageId, PoolUsage, Role, Tag, Volume, VolumeId, VolumeState},
    observed::Volumes,
    plan::Step,
    policy::MakeWish,
};

/// Room at a disk's end for the seed's partition and the backup GPT, in bytes.
const TAIL: Bytes = Bytes::mib(8);

/// Returns the steps that make a clone: whole, but for the tag that says so.
///
/// # Errors
/// [`Kind::Missing`] where the image is not there or not whole, [`Kind::Full`] above the pool's watermark.
pub(super) fn clone_steps(volume: VolumeId, make: &MakeWish, volumes: &Volumes) -> Result<Vec<Step>> {
    let size = size_of(make, volumes)?;
    if !volumes.volumes.contains_key(&volume.lv_name()) {
        admit(&volumes.pool, make.watermark)?;
    }
    let mut tags = vec![Tag::Making, Tag::Image(make.image.clone()), Tag::Profile(make.profile)];
    if let Some((blade, slot, _)) = &make.owner {
        tags.extend([Tag::Blade(*blade), Tag::Slot(*slot)]);
    }
    let mut steps = vec![
        Step::Clone { volume, image: make.image.clone(), size, tags },
        Step::Partition { volume, layout: make.profile.layout(make.guid) },
    ];
    if let Some((_, _, seed)) = &make.owner {
        steps.push(Step::Seed { volume, seed: seed.clone() });
    }
    Ok(steps)
}

/// Returns the steps that make a spare, to its end.
///
/// # Errors
/// As for any clone: a missing image, a full pool.
pub fn spare(volume: VolumeId, make: &MakeWish, volumes: &Volumes) -> Result<Vec<Step>> {
    let mut steps = clone_steps(volume, make, volumes)?;
    steps.push(Step::Tag { volume, add: vec![], remove: vec![Tag::Making] });
    Ok(steps)
}

/// Returns the size of a clone: the profile's, or the image's own with room for the seed.
fn size_of(make: &MakeWish, volumes: &Volumes) -> Result<Bytes> {
    let image = &make.image;
    let golden = volumes
        .volumes
        .get(&image.lv_name())
        .ok_or_else(|| Error::new(Kind::Missing, format!("clone image '{image}': there is no such image")))?;
    if golden.state == VolumeState::Making {
        return Err(Error::new(Kind::Missing, format!("clone image '{image}': it is still being imported")));
    }
    match make.profile.size {
        // A promoted image has its blade's extra partitions in it, and room for the seed: what of it is needed only the
        // table knows, and what does not fit is refused when that is made.
        Some(size) if size < golden.size => Err(Error::invalid(format!(
            "clone image '{image}': disk_size {size} is too small, the image has {} (grown on its blade?), and a disk \
             cannot shrink: raise disk_size in the configuration, or leave it out",
            golden.size.human()
        ))),
        Some(size) => Ok(size),
        None => Ok(Bytes(golden.size.0.saturating_add(make.profile.added().0).saturating_add(TAIL.0))),
    }
}

/// Returns the steps that make a disk larger, none where it is so large already.
///
/// # Errors
/// [`Kind::Invalid`] where it would become smaller, [`Kind::Full`] above the pool's watermark.
pub fn grow(disk: &Volume, growth: Growth, pool: &PoolUsage, watermark: u8) -> Result<Vec<Step>> {
    let (lv, has) = (&disk.lv, disk.size);
    let refuse = |why: String| Error::invalid(format!("grow volume '{lv}' to {growth}: {why}"));
    let size = growth.of(has).ok_or_else(|| refuse("no disk is so large".into()))?;
    let volume = disk.id().ok_or_else(|| refuse("an image stays as it is".into()))?;
    if size < has {
        return Err(refuse(format!("it has {} already, and a disk cannot shrink", has.human())));
    }
    if size == has {
        return Ok(vec![]);
    }
    admit(pool, watermark)?;
    Ok(vec![Step::Grow { volume, size }])
}

/// Refuses a new volume when the pool's data or metadata is filled to the watermark or above.
///
/// # Errors
/// [`Kind::Full`], with the figures and what to do. Refusing here comes long before the kernel stops writes.
pub fn admit(usage: &PoolUsage, watermark: u8) -> Result<()> {
    let (data, metadata) = (usage.data_percent, usage.metadata_percent);
    let (what, fix) = match f32::from(watermark) {
        limit if data >= limit => ("data", "extend the pool (lvextend --size) or remove disks"),
        limit if metadata >= limit => ("metadata", "extend it (lvextend --poolmetadatasize)"),
        _ => return Ok(()),
    };
    Err(Error::new(
        Kind::Full,
        format!(
            "the pool of {} has no room: data {data:.1} %, metadata {metadata:.1} % used, watermark {watermark} % \
             reached by {what}: {fix}",
            usage.size.human()
        ),
    ))
}

/// Returns the ready spares of the image and of this profile that no grant has taken: one of another profile is somebody
/// else's, and never made to fit.
pub fn ready_spares<'a>(
    (image, profile): (&'a ImageId, DiskProfile),
    volumes: &'a Volumes,
    taken: &'a BTreeSet<VolumeId>,
) -> impl Iterator<Item = VolumeId> + 'a {
    let ready = volumes.volumes.values().filter(|volume| volume.state == VolumeState::Ready);
    ready.filter_map(move |volume| match &volume.role {
        Role::Spare { id, image: of, profile: like } => {
            (of == image && *like == Some(profile) && !taken.contains(id)).then_some(*id)
        }
        _ => None,
    })
}

/// Returns the steps that make a disk, as it is at that moment, an image.
///
/// # Errors
/// [`Kind::Invalid`] where the volume is no whole disk of a blade's.
pub fn promote(disk: &Volume, image: &ImageId, publish: bool) -> Result<Vec<Step>> {
    let (Role::Disk { id, .. }, VolumeState::Ready) = (&disk.role, disk.state) else {
        return Err(Error::invalid(format!(
            "promote volume '{}': it is no whole disk of a blade's",
            disk.lv
        )));
    };
    let add = if publish { vec![Tag::Published] } else { vec![] };
    Ok(vec![
        Step::Promote { image: image.clone(), volume: *id },
        // Until here, a kill leaves what is taken away at the next start; after it, an image.
        Step::TagImage { image: image.clone(), add, remove: vec![Tag::Making] },
    ])
}

/// Returns the spares that are more than `wanted` says; of an image that is not in it, or of another profile, all of them.
pub fn surplus_spares(
    volumes: &Volumes,
    wanted: &BTreeMap<ImageId, (usize, DiskProfile)>,
    taken: &BTreeSet<VolumeId>,
) -> Vec<VolumeId> {
    let mut left = wanted.clone();
    let ready = volumes.volumes.values().filter(|volume| volume.state == VolumeState::Ready);
    let spares = ready.filter_map(|volume| match &volume.role {
        Role::Spare { id, image, profile } if !taken.contains(id) => Some((*id, image, *profile)),
        _ => None,
    });
    type Spare<'a> = (VolumeId, &'a ImageId, Option<DiskProfile>);
    let is_surplus = |(_, image, like): &Spare<'_>| match left.get_mut(*image) {
        Some((number, profile)) if *number > 0 && *like == Some(*profile) => {
            *number -= 1;
            false
        }
        _ => true,
    };
    spares.filter(is_surplus).map(|(id, ..)| id).collect()
}

/// Returns the half-made clones that nothing wants: they were never served, so nothing can be lost with them.
pub fn leftovers(volumes: &Volumes, wanted: &BTreeSet<VolumeId>) -> Vec<VolumeId> {
    let half_made = volumes.volumes.values().filter(|volume| volume.state == VolumeState::Making);
    half_made.filter_map(crate::model::Volume::id).filter(|id| !wanted.contains(id)).collect()
}
