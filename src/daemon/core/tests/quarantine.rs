//! Jobs that do not come back: what is told, what goes on, and how it ends.

use std::time::Duration;

use super::*;
use crate::{
    apply::{Ending, Failure, LEFT_BEHIND, Report},
    plan::Step,
};

/// Returns what the lanes tell of a job that hangs.
fn overdue(subject: Subject) -> Event {
    let step = Step::Disable { target: "iqn.2026-11.org.example:b-1".parse().unwrap() };
    let error = Error::new(Kind::Timeout, format!("wait until {step}: no end after 20 s"));
    Event::Done(Report {
        subject,
        cause: "test".into(),
        steps: vec![],
        volumes: None,
        wish: None,
        held: vec![],
        drift: vec![],
        foreign: None,
        donors: None,
        failure: Some(Failure { step: Some(Box::new(step)), error }),
        elapsed: Duration::from_secs(20),
        ending: Ending::Overdue,
    })
}

fn blade(n: u8) -> Subject {
    Subject::Blade(sample::blade_id(n))
}

impl Bench {
    /// Lets the job at the head of the queue hang, and returns it.
    fn hang(&mut self) -> Job {
        let job = locked(&self.jobs).pop_front().expect("a job");
        self.core.handle(overdue(job.subject.clone()));
        job
    }

    /// Lets a job that hung come back.
    fn resume(&mut self, job: Job) {
        let report = carry_out(self.host.as_ref(), job, |_| ());
        self.core.handle(Event::Done(Report { ending: Ending::Late, ..report }));
    }

    /// Goes through the prompt and lets the installation hang.
    fn hang_install(&mut self, n: u8) -> (Job, Answer) {
        let Answer::Menu(menu) = self.ask(n, Ask::Start) else { panic!("no menu") };
        let choice = Ask::Choose { token: menu.token, choice: Choice::Install(sample::image().into()) };
        let mut answer = self.send(n, n, choice);
        let job = self.hang();
        assert_eq!(job.subject, blade(n));
        (job, answer.try_recv().expect("who waits is answered at once"))
    }

    fn problems(&self) -> Vec<String> {
        self.core.status().problems.into_iter().map(|problem| problem.about).collect()
    }

    fn jobs(&self) -> usize {
        locked(&self.jobs).len()
    }
}

#[test]
fn a_blade_whose_job_hangs_is_named_everywhere_and_heals_by_itself() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    let (job, answer) = bench.hang_install(1);
    let Answer::Failed { message, .. } = answer else { panic!("no failure told: {answer:?}") };
    for word in ["quarantined", "iqn.2026-11.org.example:b-1", "20 s", "dmsetup info", "by itself"] {
        assert!(message.contains(word), "{message}");
    }
    assert_eq!(bench.core.blades()[0].problem.as_ref(), Some(&message));
    assert_eq!((bench.phase(1), bench.problems()), (BladePhase::Pending, vec![blade(1).to_string()]));
    assert_eq!((bench.events("problem"), bench.events("solved")), (1, 0));

    bench.resume(job);
    bench.settle();
    assert_eq!((bench.problems(), bench.events("solved")), (vec![], 1));
    assert!(matches!(bench.ask(1, Ask::Start), Answer::Restart { .. }));
    assert!(matches!(bench.ask(1, Ask::Start), Answer::Boot(_)));
    assert_eq!(bench.events("granted"), 1);
}

#[test]
fn no_job_of_a_quarantined_blade_begins_and_its_console_is_told_why() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    let (job, _) = bench.hang_install(1);
    for _ in 0..40 {
        *locked(&bench.clock) += 1_000;
        bench.core.handle(Event::Tick);
        let mut answer = bench.send(1, 1, Ask::Start);
        assert!(
            matches!(answer.try_recv(), Ok(Answer::Failed { message, .. }) if message.contains("quarantined"))
        );
    }
    assert!(locked(&bench.jobs).iter().all(|job| !matches!(job.subject, Subject::Blade(_))));
    // The operator's verbs do not hide it.
    bench.core.handle(Event::Operator(Request::Release { slot: sample::slot(1) }, oneshot::channel().0));
    assert!(bench.core.blades()[0].problem.as_ref().is_some_and(|problem| problem.contains("quarantined")));
    bench.resume(job);
    bench.settle();
    let machine = bench.host.machine();
    assert_eq!((machine.volumes.volumes.len(), machine.targets.len()), (1, 0), "released once it came back");
    assert!(matches!(bench.ask(1, Ask::Start), Answer::Menu(_)));
}

#[test]
fn other_blades_and_spares_are_served_while_one_is_quarantined() {
    let mut config = sample::config();
    config.images.insert(sample::image().name, ImageProfile { spares: 1, ..ImageProfile::default() });
    let mut bench = Bench::new(config);
    bench.plug(1, 1);
    bench.plug(2, 2);
    let (job, _) = bench.hang_install(1);
    bench.work();
    let mut menu = bench.send(2, 2, Ask::Menu);
    let Ok(Answer::Menu(menu)) = menu.try_recv() else { panic!("no menu") };
    let choice = Ask::Choose { token: menu.token, choice: Choice::Install(sample::image().into()) };
    let mut answer = bench.send(2, 2, choice);
    bench.work();
    assert!(matches!(answer.try_recv(), Ok(Answer::Restart { .. })));
    let roles = bench.host.machine().volumes.volumes.into_values().map(|volume| volume.role);
    assert_eq!(roles.filter(|role| matches!(role, Role::Spare { .. })).count(), 2, "blade 1's and a new one");
    bench.resume(job);
    bench.settle();
    assert!(matches!(bench.ask(1, Ask::Start), Answer::Restart { .. }));
}

#[test]
fn a_plan_leaves_a_quarantined_blade_alone_and_says_why() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    let (job, _) = bench.hang_install(1);
    let (reply, mut answer) = oneshot::channel();
    bench.core.handle(Event::Operator(Request::Plan, reply));
    bench.work();
    let Ok(Ok(Reply::Plan(plans))) = answer.try_recv() else { panic!("no plan") };
    assert_eq!((plans.len(), &plans[0].subject, plans[0].steps.len()), (1, &blade(1).to_string(), 0));
    assert!(plans[0].problem.as_ref().unwrap().contains("quarantined"));
    bench.resume(job);
    bench.settle();
}

#[test]
fn a_verb_that_would_be_lost_is_refused_while_its_subject_is_quarantined() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    bench.install(1);
    bench.host.meddle(|machine| machine.targets.values_mut().for_each(|target| target.portals.clear()));
    let _answer = bench.send(1, 1, Ask::BootFailed { errno: "1".into() });
    let job = bench.hang();
    let (reply, mut answer) = oneshot::channel();
    let request = Request::Move { slot: sample::slot(2), blade: sample::blade_id(1) };
    bench.core.handle(Event::Operator(request, reply));
    let refused = answer.try_recv().unwrap().unwrap_err();
    assert_eq!(refused.kind(), Kind::Busy);
    assert!(refused.to_string().contains("quarantined"), "{refused}");
    bench.resume(job);
    bench.settle();
    assert!(bench.host.machine().targets.values().all(|target| !target.portals.is_empty()));
}

#[test]
fn while_a_question_hangs_the_next_one_is_not_asked() {
    let mut bench = Bench::new(sample::config());
    let ask = |bench: &mut Bench| {
        let (reply, answer) = oneshot::channel();
        bench.core.handle(Event::Operator(Request::Targets, reply));
        answer
    };
    let mut first = ask(&mut bench);
    let job = bench.hang();
    assert_eq!((bench.problems(), bench.jobs()), (vec!["questions".to_owned()], 0));
    assert!(matches!(ask(&mut bench).try_recv(), Err(oneshot::error::TryRecvError::Closed)));
    assert_eq!(bench.jobs(), 0);
    bench.resume(job);
    assert!(matches!(first.try_recv(), Ok(Ok(Reply::Targets(_)))));
    assert!(bench.problems().is_empty());
    assert!(matches!(bench.operate(Request::Targets), Ok(Reply::Targets(_))));
}

#[test]
fn a_chassis_that_hangs_does_not_keep_the_agent_from_being_ready() {
    let mut bench = Bench::new(sample::config());
    (bench.core.chassis_seen, bench.core.busy) = (false, [(Subject::Chassis, Busy::default())].into());
    bench.core.handle(overdue(Subject::Chassis));
    assert!(bench.core.knows_chassis());
    assert_eq!(bench.problems(), ["chassis"]);
}

#[test]
fn too_many_stuck_jobs_are_a_problem_of_their_own() {
    let mut bench = Bench::new(sample::config());
    for hung in 0..=LEFT_BEHIND {
        assert!(!bench.problems().contains(&"lanes".to_owned()), "{hung} hang");
        bench.core.handle(overdue(Subject::Question));
    }
    assert!(bench.problems().contains(&"lanes".to_owned()));
}

#[test]
fn a_start_serves_all_others_however_many_hang() {
    let host = Arc::new(Sim::new("sheath".parse().unwrap(), machine()));
    own_disks(&host, 1..=40);
    let mut bench = Bench::held(sample::config(), host, tempfile::tempdir().unwrap());
    while bench.core.volumes.is_none() {
        bench.carry_one();
    }
    let mut hung = vec![];
    while hung.len() < 12 {
        let next = locked(&bench.jobs).front().map(|job| job.subject.clone());
        match next.expect("a job") {
            Subject::Blade(_) => hung.push(bench.hang()),
            _ => drop(bench.carry_one()),
        }
    }
    bench.work();
    assert_eq!(host_targets(&bench), 40 - 12);
    hung.into_iter().for_each(|job| bench.resume(job));
    bench.settle();
    assert_eq!(host_targets(&bench), 40);
}
