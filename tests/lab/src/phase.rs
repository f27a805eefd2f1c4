//! Telling the person at the terminal what takes so long, and how long it took.
//! Goes to standard error: a test's own output stays its own.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::error::Result;

/// Says a sentence.
pub fn say(what: &str) {
    // A closed terminal is no reason to stop.
    let _ = writeln!(std::io::stderr(), "lab: {what}");
}

/// Says that a phase has ended, and after how long.
pub fn done(what: &str, took: Duration) {
    say(&format!("{what}: {:.1} s", took.as_secs_f64()));
}

/// Runs one phase and says how long it took.
///
/// # Errors
/// Those of the work.
pub fn timed<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    let result = work()?;
    done(what, begun.elapsed());
    Ok(result)
}
