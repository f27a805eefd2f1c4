//! The product's own line, `daemon::core::Core` with real lanes, turned by the benchmark: what `sheathd` runs, without its
//! sockets and watchers.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use sheath::{
    apply::{Lanes, Report, Subject},
    daemon::core::{self, Core, Event, Journal, Outside},
    model::BladeId,
    roster::Roster,
};

use crate::{fixture::Fixture, host::LioAlone};

/// Where the line saves its roster: a real disk, as the product's.
const STATE: &str = "/var/lib/sheath-bench";
/// The longest wait for a report, emulated on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A line that runs.
pub(crate) struct Line {
    pub(crate) core: Core,
    pub(crate) host: Arc<LioAlone>,
    /// The blades that the line believes logged in.
    pub(crate) logged_in: BTreeSet<usize>,
    events: mpsc::Receiver<Event>,
}

impl Line {
    /// Returns the line of these blades, before its start, with nothing remembered.
    pub(crate) fn new(fixture: &Fixture) -> Self {
        Self::with_state(fixture, "roster.json")
    }

    /// As [`Line::new`], with its roster in a file of this name.
    pub(crate) fn with_state(fixture: &Fixture, file: &str) -> Self {
        fs::create_dir_all(STATE).unwrap();
        let state = PathBuf::from(STATE).join(file);
        let _ = fs::remove_file(&state);
        let host = Arc::new(LioAlone::new(fixture));
        let (tell, events) = mpsc::channel();
        let lanes = Lanes::start(host.clone(), move |report| drop(tell.send(Event::Done(report))));
        let (config, mut random) = (fixture.config.clone(), 1_u128 << 100);
        let outside = Outside {
            submit: Box::new(move |job| lanes.submit(job)),
            word: Box::new(|_| None),
            import: Box::new(|_| ()),
            work: Box::new(|_| ()),
            freeze: Box::new(|_| ()),
            now: Box::new(core::now),
            fresh: Box::new(move || {
                random += 1;
                random
            }),
            reload: Box::new(move || Ok(config.clone())),
            files: Box::new(|_| vec![]),
            host: host.clone(),
            state,
        };
        let core = Core::new(outside, fixture.config.clone(), Roster::default(), Journal::default());
        Self { core, host, logged_in: BTreeSet::new(), events }
    }

    /// Starts the line and turns it until `blades` blades are as wished. Returns how long that took.
    pub(crate) fn start(&mut self, blades: usize) -> Duration {
        let begin = Instant::now();
        self.core.start();
        let (mut ready, mut reported) = (BTreeSet::new(), false);
        while ready.len() < blades || !reported {
            match self.turn() {
                Some(Subject::Blade(id)) => drop(ready.insert(id)),
                Some(Subject::Volumes) => reported = true,
                _ => {}
            }
        }
        begin.elapsed()
    }

    /// Turns the line until this blade's report has come in.
    pub(crate) fn until_done(&mut self, blade: BladeId) {
        while self.turn() != Some(Subject::Blade(blade)) {}
    }

    /// Takes the next event down the line; returns whose report it was.
    fn turn(&mut self) -> Option<Subject> {
        let event = self.events.recv_timeout(PATIENCE).expect("a lane reports in time");
        let subject = if let Event::Done(report) = &event { Some(succeeded(report)) } else { None };
        self.core.handle(event);
        subject
    }
}

fn succeeded(report: &Report) -> Subject {
    if let Some(failure) = &report.failure {
        panic!("{}: {failure}", report.subject);
    }
    report.subject.clone()
}
