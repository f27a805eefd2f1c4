//! `sheath setup`: from a machine with the package installed to an appliance that answers.
//!
//! ```text
//! words ─► Wish ─┐
//! machine ─► Survey ─► SetupPlan ─► shown ─► consent ─► run, step by step
//! ```
//!
//! It can be stopped anywhere and run again: each step says a result, and the survey finds what is true already. It
//! refuses whatever is in use, before anything is changed. `plan` decides, `live` looks and acts.

mod live;
mod plan;
mod survey;

use std::path::{Path, PathBuf};

use super::{
    args::{CONFIG, SetupArgs},
    session::Session,
    table::{FAINT, GOOD},
};
use crate::{
    error::{Context, Result},
    plan::Changed,
};
use plan::{Backing, POOL_FILE, SetupPlan, SetupStep, State, Wish};
use survey::Survey;

/// The machine that is set up.
trait SetupHost {
    /// Returns what the machine has; changes nothing.
    ///
    /// # Errors
    /// A look that failed; it is never an empty finding.
    fn survey(&self, wish: &Wish) -> Result<Survey>;

    /// Makes one step true.
    ///
    /// # Errors
    /// The step's failure; what it has changed until then is found by the next survey.
    fn run(&self, step: &SetupStep) -> Result<Changed>;
}

/// Sets this machine up.
pub(super) fn setup(session: &mut Session<'_>, args: &SetupArgs) -> Result<()> {
    let host = live::Live::new(session.ask);
    set_up(session, &host, args)
}

fn set_up(session: &mut Session<'_>, host: &dyn SetupHost, args: &SetupArgs) -> Result<()> {
    let wish = wish(args)?;
    let survey = host.survey(&wish)?;
    let plan = plan::plan(&wish, &survey)?;
    session.answer(&plan, shown)?;
    if plan.to_do().next().is_none() {
        return if session.json { Ok(()) } else { session.say("nothing to do: everything is as asked for") };
    }
    session.confirm(args.yes, "set up this machine", "Go on?")?;
    for step in plan.to_do() {
        run(session, host, step)?;
    }
    if session.json {
        return Ok(());
    }
    session.say("this machine is a blade appliance now; next: sheath image import NAME FILE|URL")
}

fn run(session: &mut Session<'_>, host: &dyn SetupHost, step: &SetupStep) -> Result<()> {
    let changed = host.run(step).map_err(|error| {
        error.while_doing(format!("make true that {step} (what was done stays; run it again to go on)"))
    })?;
    if session.json {
        return Ok(());
    }
    let word = match changed {
        Changed::Changed => session.paint(GOOD, "done"),
        Changed::AlreadyTrue => session.paint(FAINT, "was so"),
    };
    session.say(&format!("{word}: {step}"))
}

fn shown(plan: &SetupPlan, session: &Session<'_>) -> String {
    let mut text = String::from("The plan:\n");
    for (planned, n) in plan.steps.iter().zip(1..) {
        let line = format!("  {n:>2}. {}", planned.step);
        text += &match planned.state {
            State::ToDo => format!("{line}\n"),
            State::AlreadyTrue => format!("{}\n", session.paint(FAINT, &format!("{line} (already so)"))),
        };
    }
    text
}

fn wish(args: &SetupArgs) -> Result<Wish> {
    let backing = match (&args.disk, args.file) {
        (Some(disk), _) => Backing::Disk { path: absolute(disk)? },
        (None, Some(size)) => Backing::File { path: POOL_FILE.into(), size },
        (None, None) => unreachable!("clap asks for one of the two"),
    };
    Ok(Wish {
        backing,
        vg: args.vg.clone(),
        thinpool: "pool".parse().expect("a fixed name is valid"),
        slots: args.slots.clone(),
        address: args.address,
        config: CONFIG.into(),
    })
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).attempt(|| format!("find '{}'", path.display()))
}

#[cfg(test)]
mod tests;
