//! One blade's event, from the line's first hearing of it to its report's being handled, with many targets present and
//! with one.
//!
//! `repair` is the whole line: somebody has edited the blade's ACL, the line hears of a change at that blade, a lane
//! looks, plans and writes, the report comes back. `boot` (the blade asks what to do, and is told to boot its disk) and
//! `frame` (the bridge has learnt its address again) are the line's own work alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Instant,
};

use sheath::{
    boot::wire::{Answer, Ask, BootRequest},
    daemon::core::Event,
    model::Hardware,
    observed::{Session, SessionKind},
    watch::{Link, Network, WatchEvent},
};
use tokio::sync::oneshot;

use crate::{
    clear,
    fixture::{self, Fixture},
    line::Line,
    row::{median, say, tell},
};

/// Events of one blade before the next one's turn comes.
const IN_A_ROW: usize = 50;

/// `lio.event.growth`: a repair with one target, with `targets`, and with one again, because the machine's own pace drifts;
/// the line's own work beside that of a second line, which knows of one blade, in turns.
pub(crate) fn growth(targets: usize, events: usize) {
    let before = median(alone(1, events));
    let ([boot, frame], many) = with_many(targets, events);
    let after = median(alone(1, events));
    say(&format!("repair: {many:.0} us with {targets}, {before:.0} and {after:.0} us with 1"));
    let note = format!("median of {events} events; with 1 target before and after");
    tell("lio.event.growth", many, "us", Some((before + after) / 2.0), &note);
    for (sort, [many, one]) in [("boot", boot), ("frame", frame)] {
        let note =
            format!("median of {events} events, in turns of {IN_A_ROW} with a line that knows of 1 blade");
        tell(&format!("lio.event.growth.{sort}"), many, "us", Some(one), &note);
    }
}

/// Returns how long repairs took, in microseconds, with so many targets.
fn alone(targets: usize, events: usize) -> Vec<f64> {
    let fixture = Fixture::new(targets);
    let mut line = started(&fixture, targets, "roster.json");
    let took = (0..events).map(|event| repair(&mut line, &fixture, whose(event, targets), event)).collect();
    drop(line);
    clear::all();
    took
}

/// Returns the medians of a boot request and of a frame, with many blades and with one, and of a repair with many.
fn with_many(targets: usize, events: usize) -> ([[f64; 2]; 2], f64) {
    let (all, single) = (Fixture::new(targets), Fixture::new(1));
    let mut many = started(&all, targets, "roster.json");
    let repairs = (0..events).map(|event| repair(&mut many, &all, whose(event, targets), event)).collect();
    let mut one = started(&single, 1, "roster-of-one.json");
    let mut took = [[vec![], vec![]], [vec![], vec![]]];
    for row in 0..events / IN_A_ROW {
        let n = whose(row * IN_A_ROW, targets);
        for (side, line, n) in [(0, &mut many, n), (1, &mut one, 0)] {
            for _ in 0..IN_A_ROW {
                took[0][side].push(boot(line, n));
                took[1][side].push(frame(line, n));
            }
        }
    }
    drop((many, one));
    clear::all();
    (took.map(|sides| sides.map(median)), median(repairs))
}

/// Returns a line that has made its targets and has seen its blades.
fn started(fixture: &Fixture, targets: usize, state: &str) -> Line {
    let mut line = Line::with_state(fixture, state);
    line.start(targets);
    line.core.handle(Event::Watch(WatchEvent::Resync(network(targets))));
    line
}

/// Returns whose turn it is. The same blade some times in a row, as with one target: what is asked is what the others cost
/// it, not what a processor's cold cache does.
fn whose(event: usize, targets: usize) -> usize {
    event / IN_A_ROW * 7919 % targets
}

/// All cables in, all blades seen.
fn network(blades: usize) -> Network {
    let port = |n| format!("port{}", fixture::slot(n)).parse().unwrap();
    let link = |n: usize| Link { index: u32::try_from(n).unwrap() + 10, carrier: true, master: Some(9) };
    Network {
        links: (0..blades).map(|n| (port(n), link(n))).collect::<BTreeMap<_, _>>(),
        fdb: (0..blades).map(|n| (fixture::blade_id(n).0, port(n))).collect::<BTreeSet<_>>(),
        neigh: (0..blades).map(|n| (fixture::address(n), fixture::blade_id(n).0)).collect(),
    }
}

fn repair(line: &mut Line, fixture: &Fixture, n: usize, event: usize) -> f64 {
    let export = fixture.wish(n).disk.expect("each blade has a disk").export;
    let root = "/sys/kernel/config/target/iscsi";
    let file = format!("{root}/{}/tpgt_1/acls/{}/attrib/nopin_timeout", export.target, export.initiator);
    fs::write(&file, "33").unwrap();
    // What the line hears: somebody came or went at that target.
    let id = u32::try_from(event).unwrap() + 1;
    let session =
        Session { initiator: export.initiator.to_string(), address: None, kind: SessionKind::Os, id };
    let session = if event_is_login(line, n) { Some(session) } else { None };
    let begin = Instant::now();
    line.core.handle(Event::Session(fixture::blade_id(n), session));
    line.until_done(fixture::blade_id(n));
    let took = begin.elapsed().as_secs_f64() * 1e6;
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), "0", "the edit was not taken back");
    took
}

/// Returns whether the blade's next session event is a login: they alternate.
fn event_is_login(line: &mut Line, n: usize) -> bool {
    if line.logged_in.remove(&n) { false } else { line.logged_in.insert(n) }
}

fn boot(line: &mut Line, n: usize) -> f64 {
    let (reply, mut answer) = oneshot::channel();
    let request = BootRequest {
        peer: fixture::address(n),
        mac: Some(fixture::blade_id(n).0),
        hardware: Hardware::default(),
        ask: Ask::Start,
    };
    let begin = Instant::now();
    line.core.handle(Event::Boot(request, reply));
    let took = begin.elapsed().as_secs_f64() * 1e6;
    let answer = answer.try_recv().expect("a blade with a disk is answered at once");
    assert!(matches!(answer, Answer::Boot(_)), "blade {n} is not told to boot: {answer:?}");
    took
}

fn frame(line: &mut Line, n: usize) -> f64 {
    let port = format!("port{}", fixture::slot(n)).parse().unwrap();
    let begin = Instant::now();
    line.core.handle(Event::Watch(WatchEvent::Fdb { mac: fixture::blade_id(n).0, port, present: true }));
    begin.elapsed().as_secs_f64() * 1e6
}
