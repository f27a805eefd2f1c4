//! Sessions: since when they are known, and closing one.

use super::*;
use crate::{
    observed::{Refusal, RefusalCause},
    plan::Step,
};

fn session(id: u32, kind: SessionKind) -> Session {
    Session { initiator: "i".into(), address: None, kind, id }
}

impl Bench {
    /// Makes the blade's session this one, in LIO and in what the watch tells.
    fn log_in(&mut self, blade: u8, session: Option<Session>) {
        let id = sample::blade_id(blade);
        let target = policy::target_of(&self.core.config, id).unwrap();
        self.host.meddle(|machine| {
            let acls = &mut machine.targets.get_mut(&target).unwrap().acls;
            acls.values_mut().for_each(|acl| acl.session = session.clone());
        });
        self.core.handle(Event::Session(id, session));
        self.settle();
    }

    fn sessions(&mut self) -> Vec<crate::status::SessionView> {
        let Ok(Reply::Sessions(all)) = self.operate(Request::Sessions) else { panic!("no sessions") };
        all.sessions
    }
}

fn running() -> Bench {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    bench.install(1);
    bench.log_in(1, Some(session(7, SessionKind::Os)));
    bench
}

#[test]
fn a_session_is_known_since_it_was_first_seen_and_a_new_login_is_a_new_session() {
    let mut bench = running();
    let since = *locked(&bench.clock);
    *locked(&bench.clock) += 5_000;
    bench.log_in(1, Some(session(7, SessionKind::Os)));
    let [view] = &bench.sessions()[..] else { panic!("one session") };
    assert_eq!((view.since, view.session.id), (Some(since), 7));
    assert_eq!(view.slot, Some(sample::slot(1)));
    bench.log_in(1, Some(session(8, SessionKind::Os)));
    assert_eq!(bench.sessions()[0].since, Some(since + 5_000));
    bench.log_in(1, None);
    assert!(bench.sessions().is_empty());
}

#[test]
fn a_dropped_session_is_closed_when_the_operator_is_answered_and_nothing_else_changes() {
    let mut bench = running();
    let before = bench.host.machine();
    let Ok(Reply::Accepted { message }) = bench.operate(Request::DropSession { slot: sample::slot(1) })
    else {
        panic!("refused")
    };
    assert!(message.contains("session 7") && message.contains("logs in again"), "{message}");
    let mut after = bench.host.machine();
    for acl in after.targets.values_mut().flat_map(|target| target.acls.values_mut()) {
        assert_eq!(acl.session.take(), None);
        acl.session = Some(session(7, SessionKind::Os));
    }
    // Without its session the blade is not pinged until its operating system is back.
    after.targets.values_mut().flat_map(|t| t.acls.values_mut()).for_each(|acl| acl.nopin_timeout = 15);
    assert_eq!(after, before);
}

#[test]
fn there_is_nothing_to_drop_where_nobody_is_logged_in() {
    let mut bench = running();
    bench.log_in(1, None);
    for slot in [1, 2] {
        let refused = bench.operate(Request::DropSession { slot: sample::slot(slot) });
        assert_eq!(refused.unwrap_err().kind(), Kind::Missing, "slot {slot}");
    }
}

#[test]
fn a_drop_that_fails_is_told_to_who_asked_and_the_blade_stays_as_it_is() {
    let mut bench = running();
    bench.host.fail_step(0, Kind::Timeout);
    let failed = bench.operate(Request::DropSession { slot: sample::slot(1) }).unwrap_err();
    assert_eq!(failed.kind(), Kind::Timeout);
    assert_eq!(bench.phase(1), BladePhase::Running);
    assert_eq!(bench.sessions().len(), 1);
}

#[test]
fn a_verb_that_answers_with_its_outcome_is_not_queued_behind_a_plan() {
    let mut bench = running();
    let id = sample::blade_id(1);
    bench.core.converge(id, "test");
    let (reply, mut answer) = oneshot::channel();
    bench.core.handle(Event::Operator(Request::DropSession { slot: sample::slot(1) }, reply));
    assert_eq!(answer.try_recv().unwrap().unwrap_err().kind(), Kind::Busy);
    bench.settle();
}

#[test]
fn the_step_names_the_session_so_that_a_later_one_stays() {
    let bench = running();
    let id = sample::blade_id(1);
    let step = Step::DropSession {
        target: policy::target_of(&bench.core.config, id).unwrap(),
        initiator: policy::initiator_of(&bench.core.config, id).unwrap(),
        session: 6,
    };
    assert_eq!(bench.host.run(&step).unwrap(), crate::plan::Changed::AlreadyTrue);
    assert_eq!(bench.host.machine().targets.values().next().unwrap().acls.len(), 1);
}

fn refusal(bench: &Bench, blade: u8, cause: RefusalCause) -> Refusal {
    let target = policy::target_of(&bench.core.config, sample::blade_id(blade)).unwrap();
    Refusal { cause, initiator: None, target: Some(target.to_string()), address: None, portal: None }
}

#[test]
fn a_refused_login_is_told_with_its_slot_and_remembered_with_its_blade() {
    let mut bench = running();
    let before = bench.events("security");
    let refusal = refusal(&bench, 1, RefusalCause::WrongPassword);
    for count in [1, 29] {
        bench.watch(WatchEvent::LoginRefused { refusal: refusal.clone(), count });
    }
    assert_eq!(bench.events("security"), before + 2);
    let (recent, _) = bench.core.journal.subscription().subscribe();
    let last = recent.last().unwrap();
    assert_eq!(last.slot, Some(sample::slot(1)));
    assert!(last.text.contains("wrong CHAP password") && last.text.ends_with("29 times"), "{}", last.text);
    let Ok(Reply::Blades(blades)) = bench.operate(Request::Blades) else { panic!("no blades") };
    assert_eq!(blades[0].refused.as_ref().map(|login| login.count), Some(30));
    let Ok(Reply::Sessions(all)) = bench.operate(Request::Sessions) else { panic!("no sessions") };
    assert_eq!(all.refused[0].blade, Some(sample::blade_id(1)));
}

#[test]
fn a_blade_is_known_by_its_own_name_at_anothers_target_and_strangers_are_nobodys() {
    let mut bench = running();
    bench.plug(2, 2);
    let at_another = Refusal {
        initiator: Some(
            policy::initiator_of(&bench.core.config, sample::blade_id(2)).unwrap().to_string().to_uppercase(),
        ),
        ..refusal(&bench, 1, RefusalCause::NotAdmitted)
    };
    bench.watch(WatchEvent::LoginRefused { refusal: at_another, count: 1 });
    let stranger = Refusal {
        target: Some("iqn.1999-01.com.foreign:x".into()),
        ..refusal(&bench, 1, RefusalCause::UnknownTarget)
    };
    bench.watch(WatchEvent::LoginRefused { refusal: stranger, count: 1 });
    let Ok(Reply::Sessions(all)) = bench.operate(Request::Sessions) else { panic!("no sessions") };
    let whose: Vec<_> = all.refused.iter().map(|login| (login.slot, login.blade)).collect();
    assert_eq!(whose, [(Some(sample::slot(2)), Some(sample::blade_id(2))), (None, None)]);
}

#[test]
fn a_kernel_log_that_cannot_be_read_is_a_line_and_nothing_more() {
    let mut bench = running();
    let before = bench.events("problem");
    let without = WatchEvent::Without { source: crate::watch::Source::KernelLog, text: "denied".into() };
    bench.watch(without);
    assert_eq!(bench.events("problem"), before + 1);
    assert_eq!(bench.phase(1), BladePhase::Running);
}

fn grow(bench: &mut Bench, size: &str, dry_run: bool) -> Result<Reply> {
    bench.operate(Request::Grow { slot: sample::slot(1), size: size.parse().unwrap(), dry_run })
}

fn size(bench: &mut Bench) -> crate::model::Bytes {
    let Ok(Reply::Blades(blades)) = bench.operate(Request::Blades) else { panic!("no blades") };
    blades[0].size.unwrap()
}

#[test]
fn a_disk_grows_while_its_blade_runs_and_a_dry_run_only_says_so() {
    let mut bench = running();
    let before = size(&mut bench);
    let Ok(Reply::Plan(plans)) = grow(&mut bench, "+1GiB", true) else { panic!("no plan") };
    assert_eq!((plans.len(), plans[0].steps.len()), (1, 1));
    assert_eq!(size(&mut bench), before);
    let Ok(Reply::Accepted { message }) = grow(&mut bench, "+1GiB", false) else { panic!("refused") };
    assert!(message.contains("iscsiadm -m session -R") && message.contains("last partition"), "{message}");
    assert_eq!(size(&mut bench).0, before.0 + (1 << 30));
    assert_eq!(bench.phase(1), BladePhase::Running);
    let same = size(&mut bench).to_string();
    let Ok(Reply::Accepted { message }) = grow(&mut bench, &same, false) else { panic!("refused") };
    assert!(message.contains("already"), "{message}");
}

#[test]
fn a_disk_that_is_missing_would_shrink_or_finds_no_room_is_not_grown() {
    let mut bench = running();
    assert_eq!(grow(&mut bench, "1MiB", false).unwrap_err().kind(), Kind::Invalid);
    bench.plug(2, 2);
    let none = Request::Grow { slot: sample::slot(2), size: "+1GiB".parse().unwrap(), dry_run: false };
    assert_eq!(bench.operate(none).unwrap_err().kind(), Kind::Missing);
    bench.host.fail_step(0, Kind::Full);
    assert_eq!(grow(&mut bench, "+1GiB", false).unwrap_err().kind(), Kind::Full);
    assert_eq!(bench.phase(1), BladePhase::Running, "the blade has nothing to do with it");
    bench.host.meddle(|machine| machine.volumes.pool.data_percent = 95.0);
    bench.core.ask_volumes("test");
    bench.settle();
    for dry_run in [true, false] {
        assert_eq!(grow(&mut bench, "+1GiB", dry_run).unwrap_err().kind(), Kind::Full);
    }
}

#[test]
fn a_blade_whose_target_cannot_be_put_right_is_degraded_while_it_runs_and_pending_or_failed_when_it_does_not()
{
    let mut bench = running();
    let spoil = |bench: &mut Bench, kind| {
        bench.host.meddle(|machine| machine.backstores.values_mut().for_each(|found| found.profile = false));
        bench.host.fail_step(0, kind);
        bench.watch(WatchEvent::Touched { blade: sample::blade_id(1), paths: vec![] });
        bench.settle();
    };
    spoil(&mut bench, Kind::Busy);
    assert_eq!(bench.phase(1), BladePhase::Degraded);
    bench.log_in(1, None);
    assert_eq!(bench.phase(1), BladePhase::Ready, "mended by the look that the logout caused");
    spoil(&mut bench, Kind::Busy);
    assert_eq!(bench.phase(1), BladePhase::Pending);
    spoil(&mut bench, Kind::Denied);
    assert_eq!(bench.phase(1), BladePhase::Failed);
}
