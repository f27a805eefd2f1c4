//! The benchmark's conductor: starts the guests, has each part measured, judges the figures by their bars, and writes
//! them down. `ONLY=lio.restore` leaves all parts out but those with a figure of that name or below it.
//!
//! Two stages: `engine` is a bare appliance in which the benchmark's own program drives the product's library;
//! `install` has the package on it and a blade in a slot. Sides of one figure are always measured in the same guest and
//! the same run.

mod engine;
mod install;
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
    let wanted = |names: &[&str]| names.iter().any(|name| name.starts_with(&only));
    let mut report = Report::default();
    if wanted(engine::NAMES) {
        engine::run(program, &wanted, &mut report)?;
    }
    if wanted(install::NAMES) {
        install::run(&mut report)?;
    }
    report.write()
}
