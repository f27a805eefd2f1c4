//! Lanes on a machine whose calls hang until the test lets them go.

use std::{collections::BTreeSet, path::PathBuf, sync::mpsc, time::Duration};

use super::*;
use crate::{
    apply::Work,
    host::sim::{Machine, Sim},
    model::{Chap, Credentials, Iqn, PortName, VolumeId},
    observed::{ObservedChassis, ObservedExport, Session, TargetSummary, Volumes},
    plan::Changed,
};

/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A machine on which removing a backstore hangs as long as its volume is in the set.
struct Hanging {
    sim: Sim,
    hung: Mutex<BTreeSet<VolumeId>>,
    resumed: Condvar,
}

impl Hanging {
    fn new(hung: impl IntoIterator<Item = u128>) -> Arc<Self> {
        let sim = Sim::new("sheath".parse().unwrap(), Machine::default());
        let hung = Mutex::new(hung.into_iter().map(VolumeId).collect());
        Arc::new(Self { sim, hung, resumed: Condvar::new() })
    }

    fn resume(&self, volume: u128) {
        self.hung.lock().unwrap().remove(&VolumeId(volume));
        self.resumed.notify_all();
    }
}

impl Host for Hanging {
    fn volumes(&self) -> Result<Volumes> {
        self.sim.volumes()
    }

    fn export(&self, target: &Iqn, volume: VolumeId) -> Result<ObservedExport> {
        self.sim.export(target, volume)
    }

    fn session(&self, target: &Iqn, initiator: &Iqn) -> Result<Option<Session>> {
        self.sim.session(target, initiator)
    }

    fn chassis(&self, bridge: &PortName, ports: &[PortName], files: &[PathBuf]) -> Result<ObservedChassis> {
        self.sim.chassis(bridge, ports, files)
    }

    fn targets(&self) -> Result<Vec<TargetSummary>> {
        self.sim.targets()
    }

    fn credentials(&self, volume: VolumeId, chap: Chap) -> Credentials {
        self.sim.credentials(volume, chap)
    }

    fn run(&self, step: &Step) -> Result<Changed> {
        match step {
            Step::RemoveBackstore { volume } => {
                let hung = self.hung.lock().unwrap();
                drop(self.resumed.wait_while(hung, |hung| hung.contains(volume)).unwrap());
            }
            // Takes its time, but comes back by itself.
            Step::Activate { .. } => {
                let hung = self.hung.lock().unwrap();
                drop(self.resumed.wait_timeout(hung, Duration::from_millis(150)).unwrap());
                return Ok(Changed::Changed);
            }
            Step::RemoveImage { .. } => panic!("a bug"),
            _ => {}
        }
        self.sim.run(step)
    }
}

/// The lanes, their machine, and what they tell.
struct Bench {
    host: Arc<Hanging>,
    lanes: Lanes,
    told: mpsc::Receiver<Report>,
}

impl Bench {
    fn new(hung: impl IntoIterator<Item = u128>) -> Self {
        let host = Hanging::new(hung);
        let (tell, told) = mpsc::channel();
        let deadlines = |doing: &Doing| match doing {
            // Those that no test hangs have time enough on a machine that is busy.
            Doing::Step(Step::RemoveBackstore { volume }) if volume.0 < 100 => Duration::from_millis(50),
            Doing::Step(Step::Activate { .. }) => Duration::from_secs(1),
            _ => Duration::from_secs(3600),
        };
        let done = move |report| drop(tell.send(report));
        let lanes = Lanes::with_deadlines(host.clone(), deadlines, done, |_, _| ());
        Self { host, lanes, told }
    }

    /// Submits the removal of a volume: its backstore first.
    fn remove(&self, volume: u128) {
        let volume = VolumeId(volume);
        self.submit(vec![Step::RemoveBackstore { volume }, Step::RemoveVolume { volume }]);
    }

    fn submit(&self, steps: Vec<Step>) {
        let Some(Step::RemoveBackstore { volume } | Step::Activate { volume }) = steps.first() else {
            panic!("not a test's steps: {steps:?}")
        };
        let subject = Subject::Leftover(*volume);
        self.lanes.submit(Job { subject, cause: "test".into(), work: Work::Steps(steps) });
    }

    fn next(&self) -> Report {
        self.told.recv_timeout(PATIENCE).expect("a report in time")
    }

    fn is_silent(&self) -> bool {
        self.told.recv_timeout(Duration::from_millis(300)).is_err()
    }
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
    let volume = VolumeId(7);
    let named = format!("removing disk: wait until backstore of volume '{volume}' is gone: no end after 0 s");
    assert_eq!(failure.to_string(), named);
}

#[test]
fn other_jobs_go_on_while_every_first_lane_hangs() {
    let hung = LANES as u128 * 2;
    let bench = Bench::new(0..hung);
    (0..hung).for_each(|volume| bench.remove(volume));
    for volume in 100..120 {
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
    bench.host.resume(7);
    let late = bench.next();
    assert_eq!((late.subject, late.ending, late.steps.len()), (subject(7), Ending::Late, 1));
    let failure = late.failure.unwrap();
    assert_eq!(failure.step.as_deref(), Some(&Step::RemoveVolume { volume: VolumeId(7) }));
    assert!(failure.to_string().contains("too late, it is planned anew"), "{failure}");
    // The lanes are as many as ever.
    let lanes = || bench.lanes.0.lock().lanes;
    assert_eq!((lanes(), bench.lanes.0.lock().running.len()), (LANES, 0));
    bench.remove(107);
    assert_eq!(bench.next().ending, Ending::InTime);
}

#[test]
fn long_work_of_short_steps_is_in_time() {
    let bench = Bench::new([]);
    let volume = VolumeId(1);
    bench.submit(vec![Step::Activate { volume }; 10]);
    let report = bench.next();
    assert_eq!((report.ending, report.steps.len()), (Ending::InTime, 10));
    assert!(report.elapsed > Duration::from_secs(1), "{:?}", report.elapsed);
}

#[test]
fn threads_left_behind_are_bounded_and_one_that_comes_back_works_again() {
    let all = (LEFT_BEHIND + LANES) as u128;
    let bench = Bench::new(0..all);
    (0..all).for_each(|volume| bench.remove(volume));
    (0..all).for_each(|_| assert_eq!(bench.next().ending, Ending::Overdue));
    bench.remove(1000);
    assert!(bench.is_silent(), "nobody is left to work");
    bench.host.resume(0);
    assert_eq!((bench.next().subject, bench.next().subject), (subject(0), subject(1000)));
}

#[test]
fn a_job_that_panics_is_reported_and_its_lane_goes_on() {
    let bench = Bench::new([]);
    let (volume, image) = (VolumeId(1), crate::sample::image());
    for _ in 0..LANES + 1 {
        bench.submit(vec![Step::Activate { volume }, Step::RemoveImage { image: image.clone() }]);
        let failure = bench.next().failure.unwrap();
        assert!(failure.to_string().contains("this is a bug"), "{failure}");
    }
}

#[test]
fn dropped_lanes_do_what_they_have_and_end() {
    let bench = Bench::new([]);
    (100..120).for_each(|volume| bench.remove(volume));
    let Bench { lanes, told, .. } = bench;
    drop(lanes);
    assert_eq!(told.iter().count(), 20);
}
