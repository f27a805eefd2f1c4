//! A foreign target becomes a blade's disk, at the operator's word and never otherwise.

use super::*;
use crate::{
    control::api::Adopt,
    model::{Bytes, Iqn},
    observed::{ForeignLun, ForeignVolume, ObservedForeign},
    plan::Step,
};

fn target() -> Iqn {
    "iqn.2003-01.org.linux-iscsi:disk7".parse().unwrap()
}

/// Returns a machine with a target that somebody made by hand.
fn bench() -> Bench {
    let bench = Bench::new(sample::config());
    let name = format!("iSCSI/{}/tpgt_1/lun_0", target());
    let lun = ForeignLun {
        hba: "iblock_3".into(),
        backstore: "disk7".into(),
        device: "/dev/sheath/disk7".into(),
        number: Some((254, 7)),
        exports: vec![name],
        volume: Some(ForeignVolume { lv: "disk7".parse().unwrap(), size: Bytes::gib(20), in_pool: true }),
    };
    let found =
        ObservedForeign { target: target(), tpgs: vec!["tpgt_1".into()], luns: vec![lun], logged_in: vec![] };
    bench.host.meddle(|machine| drop(machine.foreign.insert(target(), found)));
    bench
}

fn request(dry_run: bool) -> Adopt {
    Adopt {
        target: target(),
        slot: sample::slot(1),
        blade: Some(sample::blade_id(1)),
        image: "adopted".parse().unwrap(),
        dry_run,
    }
}

fn adopted(bench: &Bench) -> bool {
    let machine = bench.host.machine();
    let disk = &bench.core.roster.blades[&sample::blade_id(1)].disk;
    let served = machine.targets.keys().any(|name| name.as_str().ends_with("b-525400000001"));
    let volume = disk.as_ref().and_then(|disk| machine.volumes.volumes.get(&disk.volume.lv_name()));
    machine.foreign.is_empty() && served && volume.is_some_and(|volume| volume.size == Bytes::gib(20))
}

#[test]
fn a_foreign_disk_is_the_blades_when_the_operator_is_answered() {
    let mut bench = bench();
    let Ok(Reply::Accepted { message }) = bench.operate(Request::Adopt(request(false))) else {
        panic!("refused")
    };
    assert!(message.contains("disk7") && message.contains("slot 1"), "{message}");
    assert!(adopted(&bench));
    // The blade needs nobody's choice: it has a disk.
    bench.plug(1, 1);
    assert!(matches!(bench.ask(1, Ask::Start), Answer::Boot(_)));
    assert!(matches!(bench.operate(Request::Plan).unwrap(), Reply::Plan(plans) if plans.is_empty()));
}

#[test]
fn a_dry_run_shows_the_steps_and_changes_nothing() {
    let mut bench = bench();
    let before = bench.host.machine();
    let Ok(Reply::Plan(plans)) = bench.operate(Request::Adopt(request(true))) else { panic!("no plan") };
    let [view] = plans.as_slice() else { panic!("{plans:?}") };
    assert!(matches!(view.steps[0], Step::RemoveForeign { .. }), "{view:?}");
    assert!(matches!(view.steps[1], Step::TakeOver { .. }), "{view:?}");
    assert!(matches!(view.steps.last(), Some(Step::Announce { .. })), "{view:?}");
    assert_eq!(bench.host.machine(), before);
    assert!(bench.core.roster.blades.is_empty());
}

#[test]
fn what_cannot_be_a_blades_disk_is_refused_and_stays() {
    let refused = |change: fn(&mut ObservedForeign), kind| {
        let mut bench = bench();
        bench.host.meddle(|machine| change(machine.foreign.get_mut(&target()).unwrap()));
        let before = bench.host.machine();
        for dry_run in [true, false] {
            assert_eq!(bench.operate(Request::Adopt(request(dry_run))).unwrap_err().kind(), kind);
            assert_eq!(bench.host.machine(), before);
        }
    };
    refused(|found| found.logged_in.push("iqn.x:guest".into()), Kind::Busy);
    refused(|found| found.luns[0].volume = None, Kind::Invalid);
}

#[test]
fn a_blade_that_has_a_disk_or_is_elsewhere_gets_no_other() {
    let mut bench = bench();
    bench.plug(1, 1);
    let elsewhere = Adopt { slot: sample::slot(2), ..request(false) };
    assert_eq!(bench.operate(Request::Adopt(elsewhere)).unwrap_err().kind(), Kind::Invalid);
    let nobody = Adopt { slot: sample::slot(3), blade: None, ..request(false) };
    let error = bench.operate(Request::Adopt(nobody)).unwrap_err();
    assert!(error.kind() == Kind::Missing && error.chain().contains("--blade"), "{}", error.chain());
    let none = Adopt { slot: sample::slot(9), ..request(false) };
    assert_eq!(bench.operate(Request::Adopt(none)).unwrap_err().kind(), Kind::Invalid);
    bench.install(1);
    assert_eq!(bench.operate(Request::Adopt(request(false))).unwrap_err().kind(), Kind::Exists);
    let another = Adopt { blade: Some(sample::blade_id(2)), ..request(false) };
    assert_eq!(bench.operate(Request::Adopt(another)).unwrap_err().kind(), Kind::Exists);
    assert_eq!(bench.host.machine().foreign.len(), 1);
}

#[test]
fn the_blade_that_is_in_the_slot_need_not_be_named() {
    let mut bench = bench();
    bench.plug(1, 1);
    bench.operate(Request::Adopt(Adopt { blade: None, ..request(false) })).unwrap();
    assert!(adopted(&bench));
}

#[test]
fn a_kill_after_any_step_of_it_converges_at_the_next_start() {
    for survived in 0..10 {
        let mut bench = bench();
        let (reply, _answer) = oneshot::channel();
        bench.core.handle(Event::Operator(Request::Adopt(request(false)), reply));
        // The look, and what follows from it.
        assert!(bench.carry_one());
        let job = locked(&bench.jobs).pop_front().expect("a job for the blade");
        let crate::apply::Work::Blade { wish, volumes } = job.work else { panic!("not a blade's job") };
        let steps = crate::apply::blade_plan(bench.host.as_ref(), &wish, &volumes).unwrap().steps;
        for step in steps.iter().take(survived) {
            bench.host.run(step).unwrap();
        }
        let bench = Bench::resumed(sample::config(), bench.host, bench.dir);
        assert!(adopted(&bench), "after {survived} steps of {}", steps.len());
    }
}

#[test]
fn a_step_that_fails_is_told_and_released_it_leaves_the_foreign_volume_alone() {
    let mut bench = bench();
    // The second step is the renaming.
    bench.host.fail_step(1, Kind::Failed);
    bench.host.fail_step(2, Kind::Failed);
    bench.host.fail_step(3, Kind::Failed);
    let error = bench.operate(Request::Adopt(request(false))).unwrap_err();
    assert_eq!(error.kind(), Kind::Failed);
    assert_eq!(bench.phase(1), BladePhase::Failed);
    let volumes = bench.host.machine().volumes;
    bench.operate(Request::Release { slot: sample::slot(1) }).unwrap();
    assert_eq!(bench.host.machine().volumes, volumes);
    assert_eq!(bench.core.roster.blades[&sample::blade_id(1)].grant, None);
}
