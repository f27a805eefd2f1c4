//! Lanes on a machine whose calls hang until the test lets them go.

use std::{collections::BTreeSet, sync::mpsc, time::Duration};

use super::*;
use crate::{
    apply::Work,
    host::sim::{Machine, Sim},
    model::VolumeId,
    sample,
};

/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// The lanes, their machine, and what they tell.
struct Bench {
    host: Arc<Sim>,
    lanes: Lanes,
    told: mpsc::Receiver<Report>,
}

impl Bench {
    /// Returns lanes on a machine on which removing these volumes' backstores hangs.
    fn new(hung: impl IntoIterator<Item = u128>) -> Self {
        let host = Arc::new(Sim::new("sheath".parse().unwrap(), Machine::default()));
        hung.into_iter().for_each(|volume| host.hang(&backstore(volume)));
        let (tell, told) = mpsc::channel();
        let deadlines = |doing: &Doing| match doing {
            // Those that no test hangs have time enough on a machine that is busy.
            Doing::Step(Step::RemoveBackstore { volume }) if volume.0 < 100 => Duration::from_millis(50),
            Doing::Step(Step::RemoveBackstore { volume }) if volume.0 < 200 => Duration::from_secs(2),
            _ => Duration::from_secs(3600),
        };
        let lanes = Lanes::with_deadlines(host.clone(), deadlines, move |report| drop(tell.send(report)));
        Self { host, lanes, told }
    }

    /// Submits the removal of a volume: its backstore first.
    fn remove(&self, volume: u128) {
        let id = VolumeId(volume);
        let steps = vec![Step::RemoveBackstore { volume: id }, Step::RemoveVolume { volume: id }];
        self.submit(subject(volume), Work::Steps(steps));
    }

    fn submit(&self, subject: Subject, work: Work) {
        self.lanes.submit(Job { subject, cause: "test".into(), work });
    }

    fn next(&self) -> Report {
        self.told.recv_timeout(PATIENCE).expect("a report in time")
    }

    /// Waits until a lane is at the removal of this volume's backstore.
    fn await_step(&self, wanted: u128) {
        let begin = Instant::now();
        let is_at = |running: &std::sync::Arc<Running>| matches!(&running.now().doing, Doing::Step(Step::RemoveBackstore { volume }) if volume.0 == wanted);
        while !self.lanes.0.lock().running.values().any(is_at) {
            assert!(begin.elapsed() < PATIENCE, "step {wanted} was not begun");
            thread::yield_now();
        }
    }

    fn is_silent(&self) -> bool {
        self.told.recv_timeout(Duration::from_millis(300)).is_err()
    }
}

fn backstore(volume: u128) -> String {
    format!("backstore of volume '{}'", VolumeId(volume))
}

fn subject(volume: u128) -> Subject {
    Subject::Leftover(VolumeId(volume))
}

#[test]
fn a_job_that_hangs_is_reported_within_its_deadline_and_named() {
    let bench = Bench::new([7]);
    bench.remove(7);
    let report = bench.next();
    assert_eq!((report.subject, report.ending), (subject(7), Ending::Overdue));
    let failure = report.failure.unwrap();
    assert_eq!(failure.error.kind(), Kind::Timeout);
    assert_eq!(failure.step.as_deref(), Some(&Step::RemoveBackstore { volume: VolumeId(7) }));
    let named = format!("removing disk: wait until {} is gone: no end after 0 s", backstore(7));
    assert_eq!(failure.to_string(), named);
}

#[test]
fn other_jobs_go_on_while_every_first_lane_hangs() {
    let hung = LANES as u128 * 2;
    let bench = Bench::new(0..hung);
    (0..hung).for_each(|volume| bench.remove(volume));
    for volume in 200..220 {
        bench.remove(volume);
    }
    let reports: Vec<_> = (0..hung + 20).map(|_| bench.next()).collect();
    let (overdue, in_time): (Vec<_>, Vec<_>) =
        reports.into_iter().partition(|report| report.ending == Ending::Overdue);
    let overdue: BTreeSet<_> = overdue.into_iter().map(|report| report.subject).collect();
    assert_eq!(overdue, (0..hung).map(subject).collect());
    assert!(in_time.iter().all(|report| report.ending == Ending::InTime && report.failure.is_none()));
}

#[test]
fn a_job_that_comes_back_is_reported_as_late_and_begins_nothing_more() {
    let bench = Bench::new([7]);
    bench.remove(7);
    assert_eq!(bench.next().ending, Ending::Overdue);
    assert!(bench.is_silent(), "it is told of once");
    bench.host.resume(&backstore(7));
    let late = bench.next();
    assert_eq!((late.subject, late.ending, late.steps.len()), (subject(7), Ending::Late, 1));
    let failure = late.failure.unwrap();
    assert_eq!(failure.step.as_deref(), Some(&Step::RemoveVolume { volume: VolumeId(7) }));
    assert!(failure.to_string().contains("too late, it is planned anew"), "{failure}");
    // The lanes are as many as ever.
    let lanes = || bench.lanes.0.lock().lanes;
    assert_eq!((lanes(), bench.lanes.0.lock().running.len()), (LANES, 0));
    bench.remove(207);
    assert_eq!(bench.next().ending, Ending::InTime);
}

#[test]
fn long_work_of_short_steps_is_in_time() {
    let steps = 100..112;
    let bench = Bench::new(steps.clone());
    let work = steps.clone().map(|volume| Step::RemoveBackstore { volume: VolumeId(volume) });
    bench.submit(Subject::Volumes, Work::Steps(work.collect()));
    for volume in steps.clone() {
        bench.await_step(volume);
        assert_eq!(bench.lanes.word(&Subject::Volumes), Some("removing disk"));
        assert!(bench.told.recv_timeout(Duration::from_millis(200)).is_err());
        bench.host.resume(&backstore(volume));
    }
    let report = bench.next();
    assert_eq!((report.ending, report.steps.len()), (Ending::InTime, steps.count()));
    assert!(report.elapsed > Duration::from_secs(2), "{:?}", report.elapsed);
}

#[test]
fn threads_left_behind_are_bounded_and_one_that_comes_back_works_again() {
    let all = (LEFT_BEHIND + LANES) as u128;
    let bench = Bench::new(0..all);
    (0..all).for_each(|volume| bench.remove(volume));
    (0..all).for_each(|_| assert_eq!(bench.next().ending, Ending::Overdue));
    bench.remove(1000);
    assert!(bench.is_silent(), "nobody is left to work");
    bench.host.resume(&backstore(0));
    assert_eq!((bench.next().subject, bench.next().subject), (subject(0), subject(1000)));
}

#[test]
fn a_job_that_panics_is_reported_and_its_lane_goes_on() {
    let bench = Bench::new([]);
    for _ in 0..LANES + 1 {
        bench.submit(Subject::Image(sample::image()), Work::Ask(Box::new(|_| panic!("on purpose"))));
        let report = bench.next();
        assert_eq!((report.subject, report.ending), (Subject::Image(sample::image()), Ending::InTime));
        assert!(report.failure.unwrap().to_string().contains("this is a bug"));
    }
}

#[test]
fn dropped_lanes_do_what_they_have_and_end() {
    let bench = Bench::new([]);
    (200..220).for_each(|volume| bench.remove(volume));
    let Bench { lanes, told, .. } = bench;
    drop(lanes);
    assert_eq!(told.iter().count(), 20);
}
