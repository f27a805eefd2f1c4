//! The installed package: a blade's install, its disk as an image, a hand edit that is taken back, an import, a sealing and a
//! proof, a start with a thousand targets.

use std::path::Path;

use super::install::{self, install, release, see_a_blade};
use super::{Report, engine::part, promote};
use crate::error::Result;
use crate::payload::Payload;
use crate::phase::timed;
use crate::run::Lab;
use crate::stage::Stage;

const DRIFT: &str = "lio.drift_repair_ms";
const IMPORT: [&str; 5] = [
    "image.import.vs_qemu_img",
    "image.import.copying",
    "image.import.vs_by_hand",
    "image.import.pool_bytes",
    "image.import.rss_mib",
];
/// The figures of guests of the appliance's own.
pub(super) const WORKSHOP: &[&str] = &["image.seal", "image.prove"];
const SCALE: [&str; 2] = ["lio.rss_mib.1000", "lio.start.1000"];

/// All figures of this stage.
pub(super) const NAMES: &[&str] = &[
    "blade.ready.spare",
    "blade.ready.fresh_clone",
    "blade.pool_bytes.fresh",
    "sheathd.rss",
    promote::NAMES[0],
    DRIFT,
    IMPORT[0],
    IMPORT[1],
    IMPORT[2],
    IMPORT[3],
    IMPORT[4],
    SCALE[0],
    SCALE[1],
];

/// Measures the wanted ones.
///
/// # Errors
/// What did not work.
pub(super) fn run(program: &Path, wanted: &dyn Fn(&[&str]) -> bool, report: &mut Report) -> Result<()> {
    let mut stage = Stage::ready_with(Lab::new("bench-installed")?, Payload::new().file("figures", program))?;
    report.machine(&mut stage.appliance, &stage.lab)?;
    if wanted(install::NAMES) || wanted(&[DRIFT]) {
        let blade = see_a_blade(&mut stage)?;
        if wanted(install::NAMES) {
            install::run(&mut stage, report)?;
        }
        if wanted(&[DRIFT]) {
            install(&mut stage)?;
            add(&mut stage, report, "drift 4")?;
            release(&mut stage)?;
        }
        blade.power_off();
    }
    if wanted(promote::NAMES) {
        // Off before it has a disk: it never logs in.
        see_a_blade(&mut stage)?.power_off();
        install(&mut stage)?;
        promote::run(&mut stage, report)?;
        release(&mut stage)?;
    }
    if wanted(&IMPORT) {
        add(&mut stage, report, "import 9")?;
    }
    if wanted(&SCALE) {
        stage.appliance.ok("systemctl stop sheathd")?;
        add(&mut stage, report, "volumes 1000")?;
        add(&mut stage, report, "served 1000")?;
    }
    Ok(())
}

/// Measures what the agent does in guests, on an appliance that may have some.
///
/// # Errors
/// What did not work.
pub(super) fn run_with_guests(program: &Path, report: &mut Report) -> Result<()> {
    let lab = Lab::new("bench-workshop")?.with_guests();
    let mut stage = Stage::ready_with(lab, Payload::new().file("figures", program))?;
    report.machine(&mut stage.appliance, &stage.lab)?;
    add(&mut stage, report, "workshop")
}

/// Has the program do a part, and keeps its figures.
fn add(stage: &mut Stage, report: &mut Report, words: &str) -> Result<()> {
    let rows = timed(words, || part(&mut stage.appliance, words))?;
    rows.into_iter().for_each(|row| report.add(row));
    Ok(())
}
