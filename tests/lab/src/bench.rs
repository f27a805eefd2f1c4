//! The benchmark's conductor: starts the guests, has each part measured, judges the figures by their bars, and writes
//! them down. `ONLY=lio.restore,lio.event` leaves all parts out but those with a figure of such a name or below it.
//!
//! Three stages: `engine` is a bare appliance in which the benchmark's own program drives the product's library;
//! `installed` has the package on it and a blade in a slot, and once more, guests of its own. Sides of one figure are always measured in the same guest and
//! the same run.

mod engine;
mod install;
mod installed;
mod promote;
mod report;

use std::path::Path;

use crate::error::Result;
use report::{Report, Row};

/// Runs it, with the program that is the guest's side. Returns whether every bar is met.
///
/// # Errors
/// What did not work.
pub fn run(program: &Path) -> Result<bool> {
    let only = std::env::var("ONLY").unwrap_or_default();
    let only: Vec<&str> = only.split([',', ' ']).filter(|word| !word.is_empty()).collect();
    let chosen = |name: &&str| only.is_empty() || only.iter().any(|word| name.starts_with(word));
    let wanted = |names: &[&str]| names.iter().any(chosen);
    let mut report = Report::default();
    let mut run = || -> Result<()> {
        if wanted(engine::NAMES) {
            engine::run(program, &wanted, &mut report)?;
        }
        if wanted(installed::NAMES) {
            installed::run(program, &wanted, &mut report)?;
        }
        // The last, because an emulated guest's guest may be lost, with the run.
        if wanted(installed::WORKSHOP) {
            installed::run_with_guests(program, &mut report)?;
        }
        Ok(())
    };
    // What was measured before a failure is written down, too.
    let whole = run();
    let met = report.write()?;
    whole.map(|()| met)
}
