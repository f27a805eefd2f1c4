//! Hand edits on the simulated machine: told, mended or left, and never in circles.

use super::*;
use crate::config::Drift;

fn config(drift: Drift) -> Config {
    let mut config = sample::config();
    config.target.drift = drift;
    config
}

/// Returns a bench with one blade that is served.
fn served(drift: Drift) -> Bench {
    let mut bench = Bench::new(config(drift));
    bench.plug(1, 1);
    bench.install(1);
    bench
}

fn touched(bench: &mut Bench) {
    let paths = vec!["tpgt_1/enable".to_owned()];
    bench.watch(WatchEvent::Touched { blade: sample::blade_id(1), paths });
    bench.settle();
}

fn edit(bench: &Bench) {
    bench.host.meddle(|machine| {
        for target in machine.targets.values_mut() {
            target.portals.clear();
            target.acls.values_mut().for_each(|acl| acl.auth = crate::observed::AuthState::Foreign);
        }
    });
}

fn last(bench: &Bench, kind: &str) -> String {
    let (recent, _) = bench.core.journal.subscription().subscribe();
    recent.into_iter().rfind(|event| event.kind == kind).map(|event| event.text).unwrap_or_default()
}

fn shown(bench: &Bench) -> Vec<String> {
    bench.core.blades()[0].drift.clone()
}

fn pass(bench: &mut Bench, seconds: u64) {
    for _ in 0..seconds {
        *locked(&bench.clock) += 1_000;
        bench.core.handle(Event::Tick);
        bench.settle();
    }
}

#[test]
fn a_hand_edit_is_told_from_and_to_and_put_right() {
    let mut bench = served(Drift::Repair);
    let before = bench.host.machine();
    edit(&bench);
    touched(&mut bench);
    assert_eq!(bench.host.machine(), before);
    let told = last(&bench, "drift");
    assert!(told.starts_with("changed by somebody else, put right: tpgt_1/acls/iqn."), "{told}");
    assert!(told.ends_with("; tpgt_1/np/10.77.0.1:3260: removed"), "{told}");
    assert!(last(&bench, "plan").contains("(touched: tpgt_1/enable): 2 steps"), "{}", last(&bench, "plan"));
    assert_eq!((bench.events("drift"), shown(&bench)), (1, vec![]));
}

#[test]
fn our_own_steps_are_touches_too_and_nothing_follows_from_them() {
    let mut bench = served(Drift::Repair);
    let plans = bench.events("plan");
    for _ in 0..20 {
        touched(&mut bench);
    }
    assert_eq!((bench.events("drift"), bench.events("plan")), (0, plans));
}

#[test]
fn a_touch_while_a_job_runs_is_looked_at_after_it() {
    let mut bench = served(Drift::Repair);
    bench.core.converge(sample::blade_id(1), "test");
    edit(&bench);
    let job = locked(&bench.jobs).pop_front().unwrap();
    bench.watch(WatchEvent::Touched { blade: sample::blade_id(1), paths: vec![] });
    assert!(locked(&bench.jobs).is_empty());
    let report = carry_out(bench.host.as_ref(), job, |_| ());
    edit(&bench);
    bench.core.handle(Event::Done(report));
    bench.settle();
    assert!(bench.host.machine().targets.values().all(|target| !target.portals.is_empty()));
    assert_eq!(bench.events("drift"), 2);
}

#[test]
fn where_policy_says_report_a_hand_edit_is_told_once_shown_and_left() {
    let mut bench = served(Drift::Report);
    edit(&bench);
    let edited = bench.host.machine();
    for _ in 0..3 {
        touched(&mut bench);
    }
    pass(&mut bench, 700);
    assert_eq!((bench.host.machine(), bench.events("drift")), (edited, 1));
    assert_eq!(shown(&bench).len(), 2, "{:?}", shown(&bench));
    let problems = bench.core.status().problems;
    assert!(problems.iter().any(|problem| problem.text.contains("'sheath reload'")), "{problems:?}");
    let Reply::Plan(plans) = bench.operate(Request::Plan).unwrap() else { panic!("not a plan") };
    assert_eq!(plans[0].steps.len(), 2);
    bench.operate(Request::Reload).unwrap();
    assert!(matches!(bench.operate(Request::Plan).unwrap(), Reply::Plan(plans) if plans.is_empty()));
    assert_eq!((shown(&bench), bench.core.status().problems), (vec![], vec![]));
}

#[test]
fn a_hand_edit_that_is_taken_back_is_no_problem_any_more() {
    let mut bench = served(Drift::Report);
    let before = bench.host.machine();
    edit(&bench);
    touched(&mut bench);
    bench.host.meddle(|machine| *machine = before);
    touched(&mut bench);
    assert_eq!((shown(&bench), bench.core.status().problems), (vec![], vec![]));
}

#[test]
fn our_own_wish_is_carried_out_beside_a_hand_edit_that_is_left() {
    let mut bench = served(Drift::Report);
    bench.host.meddle(|machine| machine.targets.values_mut().for_each(|target| target.portals.clear()));
    touched(&mut bench);
    let session = Session { initiator: "i".into(), address: None, kind: SessionKind::Os, id: 1 };
    bench.host.meddle(|machine| {
        let acls = machine.targets.values_mut().flat_map(|target| target.acls.values_mut());
        acls.for_each(|acl| acl.session = Some(session.clone()));
    });
    bench.core.handle(Event::Session(sample::blade_id(1), Some(session)));
    bench.settle();
    let machine = bench.host.machine();
    let target = machine.targets.values().next().unwrap();
    assert!(target.portals.is_empty());
    assert!(target.acls.values().all(|acl| acl.nopin_timeout == 15), "pings follow the session");
}

#[test]
fn whole_objects_that_are_gone_are_made_again() {
    let mut bench = served(Drift::Repair);
    let before = bench.host.machine();
    bench.host.meddle(|machine| {
        machine.targets.clear();
        machine.backstores.clear();
    });
    touched(&mut bench);
    assert_eq!(bench.host.machine(), before);
    assert!(last(&bench, "drift").ends_with("put right: backstore: removed; target: removed"));
}

#[test]
fn the_audit_finds_within_its_time_what_nobody_told() {
    let mut bench = served(Drift::Repair);
    edit(&bench);
    pass(&mut bench, 601);
    assert_eq!(bench.events("drift"), 1);
    assert!(last(&bench, "plan").contains("(audit)"), "{}", last(&bench, "plan"));
}

#[test]
fn lost_events_lead_to_a_look_at_everybody_at_the_next_tick() {
    let mut bench = served(Drift::Repair);
    edit(&bench);
    bench.watch(WatchEvent::EditsLost);
    pass(&mut bench, 1);
    assert_eq!(bench.events("drift"), 1);
}

#[test]
fn a_fight_with_somebody_who_keeps_changing_it_back_rests() {
    let mut bench = served(Drift::Repair);
    for _ in 0..50 {
        edit(&bench);
        touched(&mut bench);
    }
    assert_eq!(bench.events("drift"), 20);
    pass(&mut bench, 12);
    assert_eq!(bench.events("drift"), 21, "looked at again when it has rested");
    assert!(bench.host.machine().targets.values().all(|target| !target.portals.is_empty()));
}

#[test]
fn what_cannot_be_mended_is_told_once_and_tried_again() {
    let mut bench = served(Drift::Repair);
    for _ in 0..3 {
        edit(&bench);
        bench.host.fail_step(0, Kind::Failed);
        touched(&mut bench);
    }
    assert_eq!((bench.events("drift"), bench.phase(1), shown(&bench).len()), (1, BladePhase::Failed, 2));
    pass(&mut bench, 31);
    assert_eq!((bench.events("drift"), shown(&bench).len()), (2, 0));
}

#[test]
fn an_installation_and_a_new_configuration_are_no_drift() {
    let mut bench = served(Drift::Repair);
    let install = Request::Install { slot: sample::slot(1), image: sample::image().into(), replace: true };
    bench.operate(install).unwrap();
    touched(&mut bench);
    let mut other = sample::config();
    other.target.chap = crate::model::Chap::Mutual;
    *locked(&bench.next_config) = Ok(other);
    bench.watch(WatchEvent::ConfigChanged);
    bench.settle();
    touched(&mut bench);
    assert_eq!((bench.events("drift"), shown(&bench)), (0, vec![]));
    bench.operate(Request::Release { slot: sample::slot(1) }).unwrap();
    touched(&mut bench);
    assert_eq!(bench.events("drift"), 0);
}
