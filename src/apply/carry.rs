//! One job, from observation to report.

use std::time::Instant;

use super::{Failure, Job, Report, Work};
use crate::{
    error::{Error, Result},
    host::Host,
    model::VolumeId,
    observed::Volumes,
    plan::{self, Plan, Step},
    policy::{BladeWish, chassis::ChassisWish},
};

/// Carries the job out and reports. `on_step` hears of each step before it runs.
pub fn carry_out(host: &dyn Host, job: Job, mut on_step: impl FnMut(&Step)) -> Report {
    let begin = Instant::now();
    let mut report = Report {
        subject: job.subject,
        cause: job.cause,
        steps: vec![],
        volumes: None,
        wish: None,
        held: vec![],
        failure: None,
        elapsed: begin.elapsed(),
    };
    let outcome = match job.work {
        Work::Report => host.volumes().map(|volumes| report.volumes = Some(volumes)).map_err(unstepped),
        Work::Chassis(wish) => chassis_steps(host, &wish)
            .map_err(unstepped)
            .and_then(|steps| run(host, &steps, &mut report, &mut on_step)),
        Work::Blade { wish, volumes } => {
            let outcome = blade_plan(host, &wish, &volumes).map_err(unstepped).and_then(|plan| {
                report.held = plan.held;
                run(host, &plan.steps, &mut report, &mut on_step)
            });
            if outcome.is_err() {
                undo(host, &wish, &mut report, &mut on_step);
            }
            report.wish = Some(wish);
            outcome
        }
        Work::Spare { volume, make, volumes } => plan::spare(volume, &make, &volumes)
            .map_err(unstepped)
            .and_then(|steps| run(host, &steps, &mut report, &mut on_step))
            .inspect_err(|_| drop(host.run(&Step::RemoveVolume { volume }))),
        Work::Steps(steps) => run(host, &steps, &mut report, &mut on_step),
        Work::Ask(question) => {
            question(host);
            Ok(())
        }
    };
    report.failure = outcome.err();
    report.elapsed = begin.elapsed();
    report
}

fn unstepped(error: Error) -> Failure {
    Failure { step: None, error }
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

fn run(
    host: &dyn Host,
    steps: &[Step],
    report: &mut Report,
    on_step: &mut impl FnMut(&Step),
) -> Result<(), Failure> {
    for step in steps {
        on_step(step);
        let changed =
            host.run(step).map_err(|error| Failure { step: Some(Box::new(step.clone())), error })?;
        report.steps.push((step.clone(), changed));
    }
    Ok(())
}

/// Takes away what a failed installation left. What cannot be taken away now is found by the next plan.
fn undo(host: &dyn Host, wish: &BladeWish, report: &mut Report, on_step: &mut impl FnMut(&Step)) {
    let Some(volume) = volume_of(wish) else { return };
    let (Ok(volumes), Ok(found)) = (host.volumes(), host.export(&wish.target, volume)) else { return };
    let steps = plan::undo(wish, &volumes, &found);
    if let Err(failure) = run(host, &steps, report, on_step) {
        log::warn!("undo of {} stopped, the next plan goes on: {failure}", report.subject);
    }
}
