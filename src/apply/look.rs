//! A look at an export that is complete, as far as we know: what somebody else changed is named, and put right or left.

use super::{
    Doing, Failure, Report,
    carry::{Begin, run, unstepped},
};
use crate::{
    error::{Kind, Result},
    host::Host,
    model::Difference,
    observed::{ObservedExport, Volumes},
    plan::{self, Plan},
    policy::{BladeWish, DiskWish},
};

/// What is done about hand edits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandEdits {
    /// They are told and mended.
    Mended,
    /// They are told and left; what follows from our own wish is done.
    Left,
}

/// Looks, tells the drift in the report, and runs what is to be run.
pub(super) fn look(
    host: &dyn Host,
    (wish, volumes): (&BladeWish, &Volumes),
    edits: HandEdits,
    report: &mut Report,
    begin: &mut Begin<'_>,
) -> Result<(), Failure> {
    let Some(disk) = &wish.disk else { return Ok(()) };
    let found = begin(Doing::Look).and_then(|()| observe(host, disk)).map_err(unstepped)?;
    let Plan { mut steps, held } = plan::blade(wish, volumes, &found).map_err(unstepped)?;
    // Nothing to do is what most looks find: there is nothing to name then.
    if !steps.is_empty() || !held.is_empty() {
        report.drift = drift(host, wish, &found).map_err(unstepped)?;
    }
    if edits == HandEdits::Left {
        steps = plan::leaving(steps, &report.drift);
    }
    report.held = held;
    run(host, &steps, report, begin)
}

/// Somebody who is taking a target apart makes objects go while we read: what is gone is seen at the next reading.
const READINGS: usize = 3;

fn observe(host: &dyn Host, disk: &DiskWish) -> Result<ObservedExport> {
    let read = || host.export(&disk.export.target, disk.export.backstore.volume);
    let mut found = read();
    for _ in 1..READINGS {
        match found {
            Err(e) if e.kind() == Kind::Missing => found = read(),
            _ => break,
        }
    }
    found
}

fn drift(host: &dyn Host, wish: &BladeWish, found: &ObservedExport) -> Result<Vec<Difference>> {
    let Some(disk) = &wish.disk else { return Ok(vec![]) };
    let named = host.differences(&disk.export)?;
    Ok(plan::drift(&disk.export, found, &named))
}
