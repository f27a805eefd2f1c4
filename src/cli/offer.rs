//! `sheath image offer`: leads an image from as it came to where blades can choose it: sealed, proved, published.
//!
//! Each step is one that has a command of its own; where one fails, this ends there, and what was made until then stays.

use serde::Serialize;

use super::{args::ProofFirmware, ask, human, session::Session, work};
use crate::{
    control::api::Request,
    error::{Error, Kind, Result},
    model::{Change, Checkup, Firmware, ImageRef, Proof},
    status::Task,
};

/// What came of it.
#[derive(Debug, Serialize)]
struct Offered {
    /// The version that blades can choose.
    image: ImageRef,
    /// What was changed in it.
    changes: Vec<Change>,
    /// What it was seen to boot by.
    proofs: Vec<Proof>,
}

/// Seals the image where it needs that, proves what comes of it by each firmware that is asked for and that it is made for, and
/// publishes it.
pub(super) fn offer(session: &mut Session<'_>, image: &ImageRef, by: ProofFirmware) -> Result<()> {
    let image = newest(session, image)?;
    step(session, "seal", &image)?;
    let sealing = work::sealing(session, &image, Task::Seal { dry_run: false })?;
    let image = sealing.image.map_or(image, ImageRef::from);
    let firmware = bootable(&image, sealing.checkup.as_ref(), by)?;
    let mut proofs = vec![];
    for firmware in firmware {
        step(session, &format!("prove by {firmware}"), &image)?;
        proofs.push(work::proof(session, &image, firmware)?);
    }
    step(session, "publish", &image)?;
    ask::accepted(session.ask, Request::Publish { image: image.clone(), published: true, unproved: false })?;
    let offered = Offered { image, changes: sealing.changes, proofs };
    session.answer(&offered, |offered, _| shown(offered))
}

/// Returns the version that is meant: a name alone is its newest one here, because what is offered already need not be.
fn newest(session: &Session<'_>, image: &ImageRef) -> Result<ImageRef> {
    if image.version.is_some() {
        return Ok(image.clone());
    }
    let images = ask::images(session.ask)?.into_iter().filter(|view| !view.importing);
    let found = images.map(|view| view.image).filter(|id| id.name == image.name).max_by_key(|id| id.version);
    found.map(ImageRef::from).ok_or_else(|| Error::new(Kind::Missing, format!("there is no image '{image}'")))
}

/// Returns by what of `by` the image can be expected to boot, where nothing is to be mended by hand. What it lacks for another
/// firmware is no matter.
fn bootable(image: &ImageRef, checkup: Option<&Checkup>, by: ProofFirmware) -> Result<Vec<Firmware>> {
    let Some(checkup) = checkup else {
        return Err(Error::new(Kind::Failed, format!("image '{image}' was sealed and not looked at again")));
    };
    let boots = |firmware: &Firmware| match firmware {
        Firmware::Bios => checkup.bios,
        Firmware::Uefi => checkup.uefi,
    };
    let bootable: Vec<_> = by.all().iter().copied().filter(boots).collect();
    let matters = |of: Firmware| bootable.contains(&of) || bootable.is_empty() && by.all().contains(&of);
    let bad = checkup.findings.iter().filter(|finding| finding.judgement.is_bad());
    let left = bad.filter(|finding| finding.firmware.is_none_or(matters));
    let left: Vec<_> = left.map(|finding| human::tame(&finding.about)).collect();
    if !left.is_empty() {
        let text = format!("image '{image}' lacks what sealing cannot give it: {}", left.join(", "));
        return Err(Error::new(Kind::Failed, format!("{text} (sheath image check {image} has the fixes)")));
    }
    Ok(bootable)
}

fn step(session: &mut Session<'_>, what: &str, image: &ImageRef) -> Result<()> {
    if session.json { Ok(()) } else { session.complain(&format!("{what}: image '{image}'")) }
}

fn shown(offered: &Offered) -> String {
    let Offered { image, changes, proofs } = offered;
    let proofs: Vec<_> = proofs.iter().map(|proof| proof.firmware.to_string()).collect();
    let changes = match changes.len() {
        1 => "1 change".to_owned(),
        count => format!("{count} changes"),
    };
    format!("image '{image}' is offered to blades: {changes}, boots by {}\n", proofs.join(" and "))
}
