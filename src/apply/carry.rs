//! One job, from observation to report.

use std::time::Instant;

use super::{Doing, Failure, Job, Report, Work, look::look};
use crate::{
    error::{Error, Result},
    host::Host,
    model::VolumeId,
    observed::Volumes,
    plan::{self, Changed, Plan, Step},
    policy::{BladeWish, chassis::ChassisWish},
};

/// Hears what a job is about to do. An error ends the job: nothing more of it is begun.
pub(super) type Begin<'a> = dyn FnMut(Doing) -> Result<()> + 'a;

/// Carries the job out and reports. `on_step` hears of each step before it runs.
pub fn carry_out(host: &dyn Host, job: Job, mut on_step: impl FnMut(&Step)) -> Report {
    carry(host, job, &mut |doing| {
        if let Doing::Step(step) = &doing {
            on_step(step);
        }
        Ok(())
    })
}

/// Carries the job out and reports, for as long as `begin` lets it.
pub(super) fn carry(host: &dyn Host, job: Job, begin: &mut Begin<'_>) -> Report {
    let start = Instant::now();
    let mut report = Report::blank(job.subject, job.cause);
    let outcome = match job.work {
        Work::Report => {
            ask_volumes(host, begin).map(|volumes| report.volumes = Some(volumes)).map_err(unstepped)
        }
        Work::Chassis(wish) => begin(Doing::Look)
            .and_then(|()| chassis_steps(host, &wish))
            .map_err(unstepped)
            .and_then(|steps| run(host, &steps, &mut report, begin)),
        Work::Blade { wish, volumes } => {
            let outcome = begin(Doing::Look)
                .and_then(|()| blade_plan(host, &wish, &volumes))
                .map_err(unstepped)
                .and_then(|plan| {
                    report.held = plan.held;
                    run(host, &plan.steps, &mut report, begin)
                });
            if outcome.is_err() {
                undo(host, &wish, &mut report, begin);
            }
            report.wish = Some(wish);
            outcome
        }
        Work::Spare { volume, make, volumes } => plan::spare(volume, &make, &volumes)
            .map_err(unstepped)
            .and_then(|steps| run(host, &steps, &mut report, begin))
            .inspect_err(|_| drop(step(host, &Step::RemoveVolume { volume }, begin))),
        Work::Steps(steps) => run(host, &steps, &mut report, begin),
        Work::Ask(question) => begin(Doing::Look).map(|()| question(host)).map_err(unstepped),
        Work::Survey(target) => begin(Doing::Look)
            .and_then(|()| host.foreign(&target))
            .map(|found| report.foreign = Some(found))
            .map_err(unstepped),
        // LVM says which are its own: it may take as long as its report.
        Work::Donors => begin(Doing::Report)
            .and_then(|()| host.donors())
            .map(|found| report.donors = Some(found))
            .map_err(unstepped),
        Work::Look { wish, volumes, edits } => {
            let outcome = look(host, (&wish, &volumes), edits, &mut report, begin);
            report.wish = Some(wish);
            outcome
        }
    };
    report.failure = outcome.err();
    report.elapsed = start.elapsed();
    report
}

pub(super) fn unstepped(error: Error) -> Failure {
    Failure { step: None, error }
}

fn ask_volumes(host: &dyn Host, begin: &mut Begin<'_>) -> Result<Volumes> {
    begin(Doing::Report)?;
    host.volumes()
}

/// Returns the steps for the chassis that are not true yet.
///
/// # Errors
/// What keeps the machine from being observed.
pub fn chassis_steps(host: &dyn Host, wish: &ChassisWish) -> Result<Vec<Step>> {
    let files: Vec<_> = wish.files.iter().map(|file| file.path.clone()).collect();
    let found = host.chassis(&wish.bridge, &wish.ports, &files)?;
    Ok(plan::chassis(wish, &found))
}

/// Returns the volume that a wish is about first.
fn volume_of(wish: &BladeWish) -> Option<VolumeId> {
    let disk = wish.disk.as_ref().map(|disk| disk.export.backstore.volume);
    disk.or_else(|| wish.releases.first().copied())
}

/// Returns what is not true yet for a blade: what `sheath plan` shows and what a job runs.
///
/// # Errors
/// What keeps the machine from being observed, or the wish from being planned (a missing volume, a full pool).
pub fn blade_plan(host: &dyn Host, wish: &BladeWish, volumes: &Volumes) -> Result<Plan> {
    let Some(volume) = volume_of(wish) else { return Ok(Plan::default()) };
    plan::blade(wish, volumes, &host.export(&wish.target, volume)?)
}

pub(super) fn run(
    host: &dyn Host,
    steps: &[Step],
    report: &mut Report,
    begin: &mut Begin<'_>,
) -> Result<(), Failure> {
    for next in steps {
        let changed =
            step(host, next, begin).map_err(|error| Failure { step: Some(Box::new(next.clone())), error })?;
        report.steps.push((next.clone(), changed));
    }
    Ok(())
}

fn step(host: &dyn Host, step: &Step, begin: &mut Begin<'_>) -> Result<Changed> {
    begin(Doing::Step(step.clone()))?;
    host.run(step)
}

/// Takes away what a failed installation left. What cannot be taken away now is found by the next plan.
fn undo(host: &dyn Host, wish: &BladeWish, report: &mut Report, begin: &mut Begin<'_>) {
    let Some(volume) = volume_of(wish) else { return };
    let Ok(volumes) = ask_volumes(host, begin) else { return };
    let Ok(found) = begin(Doing::Look).and_then(|()| host.export(&wish.target, volume)) else { return };
    let steps = plan::undo(wish, &volumes, &found);
    if let Err(failure) = run(host, &steps, report, begin) {
        log::warn!("undo of {} stopped, the next plan goes on: {failure}", report.subject);
    }
}
