//! System calls per target created, as strace counts them: of the whole engine process and of the raw one, each less
//! what it takes for no target at all.

use std::process::Command;

use crate::{
    clear,
    fixture::{Fixture, keys},
    raw,
    row::{say, tell},
};

const COUNTS: &str = "/run/bench-strace";

/// `lio.syscalls_per_target`.
pub(crate) fn against_raw(targets: usize) {
    // Modules are loaded and folders made before anything is counted.
    counted("engine", 1);
    let none = counted("engine", 0);
    let some = counted("engine", targets);
    let ours = per_target(&some, &none, targets);
    let bare = per_target(&counted("raw", targets), &counted("raw", 0), targets);
    let disk = &Fixture::new(1).disks()[0];
    let minimum: usize = raw::acts(disk, &keys()).iter().map(raw::Act::calls).sum();
    say(&format!("engine {ours:.1}, raw {bare:.1} by strace, {minimum} by its list"));
    let by_name = breakdown(&some, &none, targets);
    say(&format!("engine, by name: {by_name}"));
    #[allow(clippy::cast_precision_loss, reason = "some dozens")]
    let minimum = minimum as f64;
    tell(
        "lio.syscalls_per_target",
        ours,
        "calls",
        Some(minimum),
        &format!("of {targets}, by strace; {by_name}"),
    );
}

/// One line of strace's table.
struct Count {
    name: String,
    calls: f64,
}

/// Runs a part of this program below strace, and empties LIO again.
fn counted(part: &str, targets: usize) -> Vec<Count> {
    let program = std::env::current_exe().unwrap();
    let strace = ["-f", "-c", "-U", "name,calls", "-o", COUNTS];
    let status = Command::new("strace").args(strace).arg(program).args([part, &targets.to_string()]).status();
    assert!(status.unwrap().success(), "strace of {part} {targets}");
    clear::all();
    let text = std::fs::read_to_string(COUNTS).unwrap();
    text.lines().filter_map(count).collect()
}

fn count(line: &str) -> Option<Count> {
    let mut words = line.split_whitespace();
    let (name, calls) = (words.next()?, words.next()?.parse().ok()?);
    (name != "total").then(|| Count { name: name.to_owned(), calls })
}

#[allow(clippy::cast_precision_loss, reason = "some hundreds")]
fn per_target(some: &[Count], none: &[Count], targets: usize) -> f64 {
    let sum = |counts: &[Count]| counts.iter().map(|count| count.calls).sum::<f64>();
    (sum(some) - sum(none)) / targets as f64
}

/// Returns the calls per target by name, the most frequent first.
#[allow(clippy::cast_precision_loss, reason = "some hundreds")]
fn breakdown(some: &[Count], none: &[Count], targets: usize) -> String {
    let before = |name: &str| none.iter().find(|count| count.name == name).map_or(0.0, |count| count.calls);
    let mut all: Vec<_> =
        some.iter().map(|c| ((c.calls - before(&c.name)) / targets as f64, c.name.as_str())).collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    let all = all.iter().filter(|(calls, _)| *calls >= 0.05);
    all.map(|(calls, name)| format!("{name} {calls:.1}")).collect::<Vec<_>>().join(", ")
}
