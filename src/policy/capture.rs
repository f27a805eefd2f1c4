//! What a donor is lent: a target of its own that leads to the image's half-made volume.
//!
//! Names follow from the image's alone, so that an agent that was killed meanwhile finds again what the last one made. The
//! target is not the machine's in the slot but a stand-in's: what that machine has or gets as a blade is not touched.

use sha2::{Digest, Sha256};

use crate::{
    config::Config,
    error::Result,
    model::{Export, ImageId, Slot, VolumeId},
    plan::Step,
    policy::{export, stand_in},
};

/// Returns the id that names the capture's backstore and target. No volume of LVM's has it.
pub fn volume_of(image: &ImageId) -> VolumeId {
    let hash = Sha256::digest(format!("capture {image}"));
    let (bytes, _) = hash.split_first_chunk().expect("32 bytes");
    VolumeId(u128::from_be_bytes(*bytes))
}

/// Returns how LIO serves the image's volume to the donor in this slot.
///
/// # Errors
/// As [`super::target_of`].
pub fn lend(config: &Config, image: &ImageId, slot: Slot) -> Result<Export> {
    let volume = volume_of(image);
    let mut export = export(config, stand_in(volume), volume, config.target.portal_of(slot))?;
    export.backstore.device = format!("/dev/{}/{}", config.pool.vg, image.lv_name()).into();
    Ok(export)
}

/// Returns the steps that take the target away, whatever of it is there. The image's volume stays.
pub fn undo(config: &Config, image: &ImageId) -> Vec<Step> {
    let volume = volume_of(image);
    super::unserve(config, stand_in(volume), volume)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn a_capture_finds_its_names_again_and_leads_to_the_images_volume() {
        let (config, image) = (sample::config(), "web@2".parse().unwrap());
        let slot = "3".parse().unwrap();
        let (first, again) = (lend(&config, &image, slot).unwrap(), lend(&config, &image, slot).unwrap());
        assert_eq!(first, again);
        assert!(first.backstore.device.ends_with("sheath-img-web+2"), "{first:?}");
        let other = lend(&config, &"web@3".parse().unwrap(), slot).unwrap();
        assert_ne!((&first.target, first.backstore.volume), (&other.target, other.backstore.volume));
        let undone = undo(&config, &image);
        assert!(undone.contains(&Step::RemoveTarget { target: first.target }), "{undone:?}");
        assert!(
            !undone.iter().any(|step| matches!(step, Step::RemoveVolume { .. } | Step::RemoveImage { .. }))
        );
    }
}
