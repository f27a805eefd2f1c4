//! A blade's disk becomes an image, from the operator's command to its answer; beside the snapshot alone, by hand.

use super::report::{Report, Row, median};
use crate::error::{Attempt, Result};
use crate::phase::timed;
use crate::stage::Stage;
use crate::wait::{secs, until};

/// The figures of this part.
pub(super) const NAMES: &[&str] = &["image.promote"];

/// How often each side is measured, in turn; medians are reported.
const ROUNDS: usize = 7;
/// The family that the images are of: none that a blade is offered.
const FAMILY: &str = "bench";

/// Measures both in turn; the blade in slot 1 has a disk and is off.
///
/// # Errors
/// What did not work.
pub(super) fn run(stage: &mut Stage, report: &mut Report) -> Result<()> {
    let words = "lvs --noheadings -o lv_name -S 'lv_name=~^sheath-vol- && tags=sheath.slot=1' sheath";
    let volume = stage.appliance.ok(words)?.trim().to_owned();
    let by_hand = format!("lvcreate -qq -s -n hand sheath/{volume}");
    let (mut ours, mut theirs) = (vec![], vec![]);
    for round in 1..=ROUNDS {
        timed(&format!("round {round}: promoted, and a snapshot by hand"), || {
            ours.push(took(stage, &format!("sheath image promote 1 {FAMILY}"))?);
            remove(stage)?;
            theirs.push(took(stage, &by_hand)?);
            stage.appliance.ok("lvremove -qq -y sheath/hand").map(drop)
        })?;
    }
    let note = format!("{ROUNDS} rounds in turn; the command line and the agent are in ours");
    report.add(Row::new(NAMES[0], median(ours), "ms", Some(median(theirs))).note(note));
    Ok(())
}

/// Runs the command in the guest, and returns how long it took there, in milliseconds. By the guest's own clock: whoever asks its
/// agent looks at an end only a quarter of a second later.
fn took(stage: &mut Stage, command: &str) -> Result<f64> {
    let timed =
        format!("begin=${{EPOCHREALTIME/./}}; {command} >&2 && echo $((${{EPOCHREALTIME/./}} - begin))");
    let output = stage.appliance.run_within(&format!("bash -c '{timed}'"), secs(120))?.ok()?;
    let micros: f64 = output.trim().parse().attempt(|| format!("read how long '{command}' took"))?;
    Ok(micros / 1000.0)
}

/// Removes the image, and waits for its end.
fn remove(stage: &mut Stage) -> Result<()> {
    stage.appliance.ok(&format!("sheath image remove {FAMILY} --yes"))?;
    until("the image's end", secs(120), || {
        let images = stage.sheath("images").ok()?;
        let is_gone = images.as_array()?.iter().all(|image| image["image"] != format!("{FAMILY}@1"));
        is_gone.then_some(())
    })
}
