//! A full audit that finds nothing to do: a second start of the line on a machine that is as it should be, beside
//! `targetctl save` of the same targets, the least that the distribution's tool reads.

use std::{path::Path, time::Instant};

use crate::{
    clear,
    fixture::{self, Fixture},
    line::Line,
    restore,
    row::{median, ms, say, tell},
};

/// `lio.audit.N.vs_targetctl_save`.
pub(crate) fn against_save(targets: usize, rounds: usize) {
    restore::engine(targets);
    let (fixture, mut ours) = (Fixture::new(targets), vec![]);
    for _ in 0..rounds {
        let mut line = Line::new(&fixture);
        ours.push(ms(line.start(targets)));
        assert_eq!(line.host.changed(), 0, "an audit of what is as it should be changes nothing");
    }
    let begin = Instant::now();
    fixture::run("targetctl", &["save", "/run/bench-audit.json"]);
    let theirs = ms(begin.elapsed());
    assert!(Path::new("/run/bench-audit.json").exists());
    clear::all();
    say(&format!("audits: {ours:.0?} ms, targetctl save {theirs:.0} ms"));
    let note = format!("{rounds} rounds, one of targetctl");
    tell(&format!("lio.audit.{targets}.vs_targetctl_save"), median(ours), "ms", Some(theirs), &note);
}
