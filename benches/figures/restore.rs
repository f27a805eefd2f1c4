//! From an empty configfs to N targets: the engine and the raw system calls.

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use sheath::apply::{Job, Lanes, Subject, Work};

use crate::{
    clear,
    fixture::{Fixture, keys},
    host::LioAlone,
    line::Line,
    raw as bare,
    row::{median, ms, say, tell},
};

/// Makes N targets as `sheathd` does at its start: the whole line.
pub(crate) fn engine(targets: usize) -> Duration {
    let fixture = Fixture::new(targets);
    let mut line = Line::new(&fixture);
    let took = line.start(targets);
    assert!(line.host.changed() >= targets, "the engine found its targets made already");
    took
}

/// Makes N targets by the lanes alone: what the engine takes without the line's own work.
pub(crate) fn lanes(targets: usize) -> Duration {
    let fixture = Fixture::new(targets);
    let host = Arc::new(LioAlone::new(&fixture));
    let (done, reports) = mpsc::channel();
    let lanes = Lanes::start(host, move |report| drop(done.send(report)));
    let wishes: Vec<_> = (0..targets).map(|n| fixture.wish(n)).collect();
    let begin = Instant::now();
    for wish in wishes {
        let volumes = fixture.volumes.only(wish.volumes());
        let subject = Subject::Blade(wish.blade);
        lanes.submit(Job {
            subject,
            cause: "bench".into(),
            work: Work::Blade { wish: Box::new(wish), volumes },
        });
    }
    for report in reports.iter().take(targets) {
        assert!(report.failure.is_none(), "{}", report.failure.unwrap());
    }
    begin.elapsed()
}

/// Makes N targets by bare system calls in a row.
pub(crate) fn raw(targets: usize) -> Duration {
    let disks = Fixture::new(targets).disks();
    let all: Vec<_> = disks.iter().flat_map(|disk| bare::acts(disk, &keys())).collect();
    let begin = Instant::now();
    // As the fabric's folder is the engine's first act, too.
    let _ = std::fs::create_dir("/sys/kernel/config/target/iscsi");
    all.iter().for_each(bare::Act::run);
    begin.elapsed()
}

/// `lio.restore.N.vs_raw`: both in turn.
pub(crate) fn against_raw(targets: usize, rounds: usize) {
    let (mut ours, mut bare, mut alone) = (vec![], vec![], vec![]);
    // The first makes of a boot load modules and fill caches.
    engine(8);
    clear::all();
    for round in 1..=rounds {
        ours.push(ms(engine(targets)));
        let cleared = clear::all();
        bare.push(ms(raw(targets)));
        clear::all();
        alone.push(ms(lanes(targets)));
        clear::all();
        say(&format!(
            "round {round}: engine {:.0} ms, raw {:.0} ms, lanes alone {:.0} ms, removal {:.0} ms",
            ours[round - 1],
            bare[round - 1],
            alone[round - 1],
            ms(cleared)
        ));
    }
    let (ours, bare, alone) = (median(ours), median(bare), median(alone));
    let note = format!("{rounds} rounds in turn");
    tell(&format!("lio.restore.{targets}.vs_raw"), ours, "ms", Some(bare), &note);
    tell(
        &format!("lio.restore.{targets}.lanes_alone"),
        alone,
        "ms",
        Some(bare),
        &format!("{note}; without the line"),
    );
}

/// `lio.restore.growth`: 1,000 beside 400.
pub(crate) fn growth(rounds: usize) {
    let (mut few, mut many) = (vec![], vec![]);
    for round in 1..=rounds {
        few.push(ms(engine(400)));
        clear::all();
        many.push(ms(engine(1000)));
        say(&format!("round {round}: 400 in {:.0} ms, 1000 in {:.0} ms", few[round - 1], many[round - 1]));
        clear::all();
    }
    let note = format!("{rounds} rounds in turn");
    tell("lio.restore.growth", median(many), "ms", Some(median(few)), &note);
}
