//! Jobs on the simulated machine, with faults at each step.

use std::sync::{Arc, mpsc};

use super::*;
use crate::{
    error::Kind,
    host::sim::{Machine, Sim},
    policy,
    roster::{Blade, Grant, GrantedBy},
    sample,
};

fn sim() -> Sim {
    Sim::new("sheath".parse().unwrap(), Machine { volumes: sample::volumes(), ..Machine::default() })
}

fn install(host: &Sim) -> Job {
    let mut blade = Blade::new(sample::slot(1));
    blade.grant = Some(Grant {
        image: sample::image(),
        volume: VolumeId(9 << 100),
        by: GrantedBy::Console,
        at: 1,
        from: None,
    });
    let wish = Box::new(policy::wish(&sample::config(), sample::blade_id(1), &blade).unwrap());
    let volumes = host.volumes().unwrap();
    Job {
        subject: Subject::Blade(sample::blade_id(1)),
        cause: "choice".into(),
        work: Work::Blade { wish, volumes },
    }
}

#[test]
fn a_fault_at_any_step_is_reported_undone_and_the_next_try_succeeds() {
    for nth in 0..12 {
        let host = sim();
        let before = host.machine();
        host.fail_step(nth, Kind::Failed);
        let report = carry_out(&host, install(&host), |_| ());
        let failure = report.failure.expect("the fault was reported");
        assert!(failure.to_string().contains("simulated fault"), "{failure}");
        let made = |machine: &Machine| machine.volumes.volumes.len();
        // The last step is udev's: the disk is whole by then and stays.
        if nth < 11 {
            assert_eq!(made(&host.machine()), made(&before), "step {nth} left a volume behind");
        }
        assert!(carry_out(&host, install(&host), |_| ()).failure.is_none(), "step {nth}");
        assert!(host.machine().targets.values().all(|target| target.enabled));
    }
}

#[test]
fn a_fault_names_the_step_and_the_cause() {
    let host = sim();
    host.fail_step(0, Kind::Full);
    let failure = carry_out(&host, install(&host), |_| ()).failure.unwrap();
    assert!(failure.to_string().starts_with("preparing disk: simulated fault"), "{failure}");
    assert_eq!(failure.error.kind(), Kind::Full);
}

#[test]
fn a_refused_plan_runs_no_step() {
    let host = sim();
    host.meddle(|machine| machine.volumes.pool.data_percent = 99.0);
    let before = host.machine();
    let report = carry_out(&host, install(&host), |step| panic!("{step} must not run"));
    assert_eq!(report.failure.unwrap().error.kind(), Kind::Full);
    assert_eq!(host.machine(), before);
}

#[test]
fn lanes_report_every_job() {
    let host = Arc::new(sim());
    let (tell, told) = mpsc::channel();
    let lanes = Lanes::start(host.clone(), move |report| tell.send(report).unwrap());
    for _ in 0..8 {
        lanes.submit(Job { subject: Subject::Volumes, cause: "test".into(), work: Work::Report });
    }
    assert_eq!((0..8).filter(|_| told.recv().unwrap().volumes.is_some()).count(), 8);
}
