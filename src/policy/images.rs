//! Which version of an image a name stands for, which are offered, and which comes next. Pure.
//!
//! The versions of a family are its volumes; the operator's choice among them is a tag on one of them. So all of this is
//! found again by whoever has the pool.

use crate::{
    error::{Error, Kind, Result},
    model::{Bytes, Firmware, ImageId, ImageName, ImageRef, Manifest, Role, Version, Volume, VolumeState},
    observed::Volumes,
};

/// Returns the image that an operator means, finished or not.
///
/// # Errors
/// [`Kind::Missing`] where there is none such; [`Kind::Busy`] where all that there is of the family is being made.
pub fn resolve(volumes: &Volumes, image: &ImageRef) -> Result<ImageId> {
    let ImageRef { name, version } = image;
    let Some(version) = *version else {
        return default_of(volumes, name).ok_or_else(|| match versions(volumes, name).next() {
            None => missing(image, "there is none, see 'sheath images'"),
            Some(_) => Error::new(Kind::Busy, format!("use image '{name}': it is still being made")),
        });
    };
    let id = ImageId::new(name.clone(), version);
    if volumes.volumes.contains_key(&id.lv_name()) {
        return Ok(id);
    }
    let known: Vec<String> = versions(volumes, name).map(|(id, _)| id.version.to_string()).collect();
    Err(missing(
        image,
        &match known.is_empty() {
            true => "there is none, see 'sheath images'".to_owned(),
            false => format!("its versions are {}", known.join(", ")),
        },
    ))
}

fn missing(image: &ImageRef, why: &str) -> Error {
    Error::new(Kind::Missing, format!("find image '{image}': {why}"))
}

/// Returns the version that the family's name stands for: the one that the operator has pinned, else the newest that is
/// published, else the newest. Only whole ones count, and a pin only while it is published.
pub fn default_of(volumes: &Volumes, name: &ImageName) -> Option<ImageId> {
    let whole = versions(volumes, name).filter(|(_, volume)| volume.state == VolumeState::Ready);
    whole
        .max_by_key(|(id, volume)| {
            let published = is_published(volume);
            (published && is_pinned(volume), published, id.version)
        })
        .map(|(id, _)| id.clone())
}

/// Returns what may be chosen without naming a version: each family's default version where that is published.
pub fn offered(volumes: &Volumes) -> Vec<(ImageId, Bytes)> {
    let published = volumes.volumes.values().filter(|volume| is_published(volume));
    published
        .filter_map(|volume| image_of(volume).map(|id| (id, volume.size)))
        .filter(|(id, _)| default_of(volumes, &id.name).as_ref() == Some(*id))
        .map(|(id, size)| (id.clone(), size))
        .collect()
}

/// Returns whether this image is whole and may be chosen.
pub fn may_be_chosen(volumes: &Volumes, image: &ImageId) -> bool {
    let found = volumes.volumes.get(&image.lv_name());
    found.is_some_and(|volume| volume.state == VolumeState::Ready && is_published(volume))
}

/// How an image comes to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publication {
    /// It was seen to boot.
    Proved,
    /// It was not, and the operator publishes it all the same.
    Unproved,
}

/// Returns the word that a manifest has for a proof by this firmware.
pub fn proof_of(firmware: Firmware) -> String {
    format!("proved-{}", firmware.word())
}

/// Returns whether it was seen to boot, by one firmware or the other. Of several proofs by one the last counts.
pub fn is_proved(manifest: &Manifest) -> bool {
    [Firmware::Bios, Firmware::Uefi].into_iter().any(|by| manifest.has_passed(&proof_of(by)))
}

/// Decides how this image is published; `unproved` is the operator's consent to do it without a proof.
///
/// # Errors
/// [`Kind::Denied`] without a proof and without consent.
pub fn publication(image: &ImageId, manifest: Option<&Manifest>, unproved: bool) -> Result<Publication> {
    if manifest.is_some_and(is_proved) {
        return Ok(Publication::Proved);
    }
    let way = format!("sheath image prove {image}, then sheath image publish {image}");
    consented(unproved, || format!("it is not proved to boot: {way}; or add --unproved"))
}

/// Refuses an image of which no disk can be made before it is sealed.
///
/// # Errors
/// [`Kind::Invalid`] for one with a master boot record, with what makes a GPT of it.
pub fn usable(volumes: &Volumes, image: &ImageId) -> Result<()> {
    let found = volumes.volumes.get(&image.lv_name());
    if found.is_some_and(|volume| volume.has_mbr()) {
        let text = format!("it has an MBR, and a blade's disk must have a GPT: sheath image seal {image}");
        return Err(Error::invalid(text));
    }
    Ok(())
}

/// Decides how an image is published that is still to be made: nothing can be proved of it.
///
/// # Errors
/// As [`publication`].
pub fn publication_of_new(image: &ImageId, unproved: bool) -> Result<Publication> {
    let way = format!("sheath image prove {image}, then sheath image publish {image}");
    consented(unproved, || {
        format!("nothing is proved of a new image: leave --publish out, {way}; or add --unproved")
    })
}

fn consented(unproved: bool, why: impl FnOnce() -> String) -> Result<Publication> {
    if unproved { Ok(Publication::Unproved) } else { Err(Error::new(Kind::Denied, why())) }
}

/// Returns the family's next version: after all that are there, and after those that clones came from.
///
/// # Errors
/// [`Kind::Full`] where there is no higher number.
pub fn next_version(volumes: &Volumes, name: &ImageName) -> Result<ImageId> {
    let known = volumes.volumes.values().map(|volume| match &volume.role {
        Role::Image { image, .. } | Role::Spare { image, .. } | Role::Disk { image, .. } => image,
    });
    let last = known.filter(|image| image.name == *name).map(|image| image.version).max();
    let next = last.map_or(Some(Version::FIRST), Version::next);
    next.map(|version| ImageId::new(name.clone(), version))
        .ok_or_else(|| Error::new(Kind::Full, format!("make image '{name}': it has no higher version")))
}

/// Returns the versions of the family with their volumes, half-made ones too, oldest first.
pub fn versions<'a>(
    volumes: &'a Volumes,
    name: &'a ImageName,
) -> impl Iterator<Item = (&'a ImageId, &'a Volume)> {
    let all = volumes.volumes.values().filter_map(|volume| image_of(volume).map(|image| (image, volume)));
    let mut own: Vec<_> = all.filter(|(image, _)| image.name == *name).collect();
    own.sort_by_key(|(image, _)| image.version);
    own.into_iter()
}

fn image_of(volume: &Volume) -> Option<&ImageId> {
    if let Role::Image { image, .. } = &volume.role { Some(image) } else { None }
}

fn is_published(volume: &Volume) -> bool {
    matches!(volume.role, Role::Image { published: true, .. })
}

fn is_pinned(volume: &Volume) -> bool {
    matches!(volume.role, Role::Image { pinned: true, .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    /// Returns a pool with these images of one family: version, published, pinned, whole.
    fn family(of: &[(u32, bool, bool, bool)]) -> Volumes {
        let golden = sample::volumes().volumes.into_values().next().unwrap();
        let volume = |(version, published, pinned, whole): &(u32, bool, bool, bool)| {
            let image: ImageId = format!("web@{version}").parse().unwrap();
            let state = if *whole { VolumeState::Ready } else { VolumeState::Making };
            let role =
                Role::Image { image: image.clone(), published: *published, pinned: *pinned, mbr: false };
            (image.lv_name(), Volume { lv: image.lv_name(), role, state, ..golden.clone() })
        };
        Volumes { volumes: of.iter().map(volume).collect(), ..Volumes::default() }
    }

    fn default(of: &[(u32, bool, bool, bool)]) -> Option<String> {
        default_of(&family(of), &"web".parse().unwrap()).map(|id| id.to_string())
    }

    #[test]
    fn a_name_stands_for_the_pinned_version_else_the_newest_published_else_the_newest() {
        let is = |version: u32| Some(format!("web@{version}"));
        assert_eq!(default(&[]), None);
        assert_eq!(default(&[(1, false, false, true), (2, false, false, true)]), is(2));
        assert_eq!(default(&[(1, true, false, true), (2, false, false, true)]), is(1));
        assert_eq!(default(&[(9, true, false, true), (10, true, false, true)]), is(10));
        assert_eq!(default(&[(9, true, true, true), (10, true, false, true)]), is(9));
        // A pin that nobody may choose holds nobody up; two of them are what a kill between two commands leaves.
        assert_eq!(default(&[(9, false, true, true), (10, true, false, true)]), is(10));
        assert_eq!(
            default(&[(9, true, true, true), (10, true, true, true), (11, true, false, true)]),
            is(10)
        );
        assert_eq!(default(&[(1, true, false, true), (2, true, true, false)]), is(1));
    }

    #[test]
    fn a_menu_has_one_line_for_a_family_and_none_for_what_is_not_published() {
        let mut all = family(&[(1, true, false, true), (2, true, true, true), (3, true, false, true)]);
        all.volumes.extend(sample::volumes().volumes);
        let lines: Vec<String> = offered(&all).into_iter().map(|(id, _)| id.to_string()).collect();
        assert_eq!(lines, ["debian13@1", "web@2"]);
        assert_eq!(offered(&family(&[(1, false, false, true), (2, true, false, false)])), []);
    }

    #[test]
    fn only_what_was_seen_to_boot_is_published_unless_the_operator_says_otherwise() {
        use crate::model::{Check, Origin};
        let image: ImageId = "web@2".parse().unwrap();
        let manifest = |checks: &[(&str, bool)]| {
            let check = |(what, passed): &(&str, bool)| Check {
                what: (*what).to_owned(),
                passed: *passed,
                at: 1,
                lines: vec![],
            };
            let mut manifest = Manifest::new(image.clone(), 1, Origin::Unknown);
            manifest.checks = checks.iter().map(check).collect();
            manifest
        };
        let proved = |checks| publication(&image, Some(&manifest(checks)), false).is_ok();
        assert!(proved(&[("proved-bios", true)]) && proved(&[("checked", false), ("proved-uefi", true)]));
        assert!(proved(&[("proved-bios", true), ("proved-uefi", false)]), "one of them is enough");
        assert!(proved(&[("proved-bios", false), ("proved-bios", true)]), "the last one counts");
        assert!(!proved(&[("proved-bios", true), ("proved-bios", false)]), "the last one counts");
        assert!(!proved(&[]) && !proved(&[("checked", true), ("sealed", true)]));
        let refused = publication(&image, None, false).unwrap_err();
        assert_eq!(refused.kind(), Kind::Denied);
        let text = refused.to_string();
        assert!(text.contains("sheath image prove web@2, then sheath image publish web@2"), "{text}");
        assert_eq!(publication(&image, None, true).unwrap(), Publication::Unproved);
        let proof = manifest(&[("proved-uefi", true)]);
        assert_eq!(publication(&image, Some(&proof), true).unwrap(), Publication::Proved);
        assert_eq!(publication_of_new(&image, false).unwrap_err().kind(), Kind::Denied);
    }

    #[test]
    fn a_reference_is_resolved_or_refused_with_what_there_is() {
        let all = family(&[(2, true, false, true), (10, false, false, true), (11, false, false, false)]);
        let find = |text: &str| resolve(&all, &text.parse().unwrap()).map(|id| id.to_string());
        assert_eq!((find("web").unwrap().as_str(), find("web@10").unwrap().as_str()), ("web@2", "web@10"));
        let unknown = find("web@3").unwrap_err();
        assert_eq!(unknown.kind(), Kind::Missing);
        assert_eq!(unknown.to_string(), "find image 'web@3': its versions are 2, 10, 11");
        assert!(find("db").unwrap_err().to_string().contains("there is none"));
        let making = resolve(&family(&[(1, false, false, false)]), &"web".parse().unwrap()).unwrap_err();
        assert_eq!(making.kind(), Kind::Busy);
    }

    #[test]
    fn an_image_with_an_mbr_is_not_used_before_it_is_sealed() {
        let mut all = family(&[(1, false, false, true), (2, false, false, true)]);
        let (old, new): (ImageId, ImageId) = ("web@1".parse().unwrap(), "web@2".parse().unwrap());
        let role = Role::Image { image: old.clone(), published: false, pinned: false, mbr: true };
        all.volumes.get_mut(&old.lv_name()).unwrap().role = role;
        let error = usable(&all, &old).unwrap_err();
        assert!(error.to_string().contains("sheath image seal web@1"), "{error}");
        usable(&all, &new).unwrap();
    }

    #[test]
    fn the_next_version_comes_after_every_one_that_anything_knows_of() {
        let name: ImageName = "web".parse().unwrap();
        let next = |all: &Volumes| next_version(all, &name).unwrap().to_string();
        assert_eq!(next(&family(&[])), "web@1");
        assert_eq!(next(&family(&[(1, true, false, true), (4, false, false, false)])), "web@5");
        let mut all = family(&[(1, true, false, true)]);
        let (id, image) = (crate::model::VolumeId(7), "web@6".parse().unwrap());
        let spare = all.volumes.values().next().unwrap().clone();
        all.volumes.insert(id.lv_name(), Volume { role: Role::Spare { id, image, profile: None }, ..spare });
        assert_eq!(next(&all), "web@7");
        assert_eq!(
            next_version(&family(&[(99_999, true, false, true)]), &name).unwrap_err().kind(),
            Kind::Full
        );
    }
}
