//! Beside the distribution's own tool, on the same targets: a full audit that finds nothing to do (a second start of the
//! line on a machine that is as it should be) beside `targetctl save`, the least that the tool reads; and all of them
//! made from nothing beside `targetctl restore`. One round of the tool's: a restore takes minutes.

use std::{fs, time::Instant};

use crate::{
    clear,
    fixture::{self, Fixture},
    line::Line,
    restore,
    row::{median, ms, say, tell},
};

const SAVED: &str = "/run/bench-saved.json";

/// `lio.audit.N.vs_targetctl_save` and `lio.restore.N.vs_targetctl`.
pub(crate) fn beside(targets: usize, rounds: usize) {
    let made: Vec<f64> = (0..rounds).map(|_| ms(made_anew(targets))).collect();
    let audits: Vec<f64> = (0..rounds).map(|_| audit(targets)).collect();
    let save = timed(&["save", SAVED]);
    clear::all();
    let restore = timed(&["restore", SAVED]);
    assert_eq!(count(), targets, "targetctl restore left some out");
    clear::all();
    say(&format!(
        "made {made:.0?} ms, audits {audits:.0?} ms; targetctl save {save:.0} ms, restore {restore:.0} ms"
    ));
    let note = format!("{rounds} rounds, one of targetctl");
    tell(&format!("lio.audit.{targets}.vs_targetctl_save"), median(audits), "ms", Some(save), &note);
    tell(&format!("lio.restore.{targets}.vs_targetctl"), median(made), "ms", Some(restore), &note);
}

fn made_anew(targets: usize) -> std::time::Duration {
    clear::all();
    restore::engine(targets)
}

fn audit(targets: usize) -> f64 {
    let mut line = Line::new(&Fixture::new(targets));
    let took = ms(line.start(targets));
    assert_eq!(line.host.changed(), 0, "an audit of what is as it should be changes nothing");
    took
}

fn timed(words: &[&str]) -> f64 {
    let begin = Instant::now();
    fixture::run("targetctl", words);
    ms(begin.elapsed())
}

fn count() -> usize {
    let entries = fs::read_dir("/sys/kernel/config/target/iscsi").unwrap().map(Result::unwrap);
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("iqn.")).count()
}
