//! Work on images: one at a time, its clone is wanted while it runs, its phases are timed.

use super::*;
use crate::{
    model::{Checkup, Tag, VolumeId},
    plan::Step,
    status::{Task, WorkProgress, WorkResult, WorkView},
};

fn check(bench: &mut Bench) -> Result<Reply> {
    bench.operate(Request::Work { image: sample::image().into(), task: Task::Check })
}

fn view(bench: &mut Bench) -> WorkView {
    let Ok(Reply::Work(view)) = bench.operate(Request::WorkProgress { image: sample::image().into() }) else {
        panic!("no work")
    };
    *view
}

fn tell(bench: &mut Bench, news: WorkNews) {
    bench.core.handle(Event::Work(sample::image(), news));
}

fn checkup() -> WorkResult {
    WorkResult::Checkup(Checkup { system: None, kernel: None, bios: true, uefi: true, findings: vec![] })
}

#[test]
fn a_second_work_on_an_image_waits_for_the_first() {
    let mut bench = Bench::new(sample::config());
    check(&mut bench).unwrap();
    assert_eq!(check(&mut bench).unwrap_err().kind(), Kind::Busy);
    tell(&mut bench, WorkNews::Ended(Ok(checkup())));
    assert!(matches!(view(&mut bench).progress, WorkProgress::Done { .. }));
    check(&mut bench).unwrap();
    let nothing = Request::Work { image: "nothing".parse().unwrap(), task: Task::Check };
    assert_eq!(bench.operate(nothing).unwrap_err().kind(), Kind::Missing);
}

#[test]
fn the_phases_of_a_work_are_timed() {
    let mut bench = Bench::new(sample::config());
    check(&mut bench).unwrap();
    tell(&mut bench, WorkNews::Phase("starting the guest".into()));
    *locked(&bench.clock) += 3_000;
    tell(&mut bench, WorkNews::Phase("looking".into()));
    *locked(&bench.clock) += 500;
    let phases: Vec<_> =
        view(&mut bench).phases.into_iter().map(|phase| (phase.name, phase.millis)).collect();
    assert_eq!(phases, [("starting the guest".to_owned(), 3_000), ("looking".to_owned(), 500)]);
    let failure = Error::new(Kind::Timeout, "check image 'debian13'");
    tell(&mut bench, WorkNews::Ended(Err(failure)));
    let WorkProgress::Failed { kind, .. } = view(&mut bench).progress else { panic!("it failed") };
    assert_eq!(kind, Kind::Timeout);
}

#[test]
fn a_clone_in_the_workshop_is_kept_while_the_work_runs_and_swept_up_afterwards() {
    let mut bench = Bench::new(sample::config());
    check(&mut bench).unwrap();
    let volume = locked(&bench.works).last().expect("the work was ordered").volume;
    let there = |bench: &Bench, volume: VolumeId| {
        bench.host.volumes().unwrap().volumes.contains_key(&volume.lv_name())
    };
    let (size, tags) = (crate::model::Bytes::gib(2), vec![Tag::Making, Tag::Image(sample::image())]);
    bench.host.run(&Step::Clone { volume, image: sample::image(), size, tags }).unwrap();
    bench.core.ask_volumes("a test");
    bench.settle();
    assert!(there(&bench, volume), "a clone under work was taken away");
    tell(&mut bench, WorkNews::Ended(Ok(checkup())));
    bench.settle();
    assert!(!there(&bench, volume), "a clone that nobody wants was left");
}

fn seal(bench: &mut Bench, dry_run: bool) -> Result<Reply> {
    bench.operate(Request::Work { image: sample::image().into(), task: Task::Seal { dry_run } })
}

#[test]
fn a_seal_makes_the_next_version_and_a_preview_makes_none() {
    let mut bench = Bench::new(sample::config());
    seal(&mut bench, true).unwrap();
    assert_eq!(locked(&bench.works).last().expect("ordered").next, None);
    tell(&mut bench, WorkNews::Ended(Err(Error::invalid("open-iscsi is not installed in it"))));
    seal(&mut bench, false).unwrap();
    let next = locked(&bench.works).last().expect("ordered").next.clone();
    assert_eq!(next.map(|image| image.to_string()).as_deref(), Some("debian13@2"));
}

#[test]
fn a_half_made_version_is_kept_while_its_seal_runs_and_swept_up_afterwards() {
    let mut bench = Bench::new(sample::config());
    seal(&mut bench, false).unwrap();
    let next: crate::model::ImageId = "debian13@2".parse().unwrap();
    let size = crate::model::Bytes::gib(2);
    bench.host.run(&Step::CreateImage { image: next.clone(), size }).unwrap();
    let there = |bench: &Bench| bench.host.volumes().unwrap().volumes.contains_key(&next.lv_name());
    bench.core.ask_volumes("a test");
    bench.settle();
    assert!(there(&bench), "a version under work was taken away");
    tell(&mut bench, WorkNews::Ended(Err(Error::invalid("no"))));
    bench.settle();
    assert!(!there(&bench), "half of a version was left");
}

/// An import of the sample image's family.
fn import() -> Request {
    let name = sample::image().name;
    let source = "https://images.example.org/x.raw".to_owned();
    let (publish, unproved) = (false, false);
    Request::Import(ImportRequest { name, source, publish, unproved, sha256: None, checksum: None })
}

#[test]
fn a_seal_and_an_import_of_one_family_wait_for_each_other() {
    let mut bench = Bench::new(sample::config());
    seal(&mut bench, false).unwrap();
    assert_eq!(bench.operate(import()).unwrap_err().kind(), Kind::Busy);
}

fn trial(bench: &mut Bench, firmware: crate::model::Firmware) -> crate::image::Trial {
    let task = Task::Prove { firmware };
    bench.operate(Request::Work { image: sample::image().into(), task }).unwrap();
    let trial = locked(&bench.works).last().expect("ordered").trial.clone();
    *trial.expect("a proof has its trial")
}

#[test]
fn a_proof_has_a_disk_and_a_target_as_a_blades_and_takes_both_away() {
    let mut bench = Bench::new(sample::config());
    let trial = trial(&mut bench, crate::model::Firmware::Uefi);
    let names: Vec<String> = trial.steps.iter().map(|step| format!("{step:?}")).collect();
    let first: Vec<&str> = names.iter().filter_map(|name| name.split(' ').next()).collect();
    assert_eq!(
        first,
        ["Clone", "Partition", "Seed", "Backstore", "Target", "Lun", "Acl", "MapLun", "Portal", "Enable"]
    );
    for line in
        ["set username", "set password", "sanboot --drive 0x80 --filename", "iscsi:10.77.0.1::3260:0:"]
    {
        assert!(trial.script.contains(line), "{line}: {}", trial.script);
    }
    assert!(!trial.script.contains("prompt"), "nobody is there to answer");
    let before = bench.host.volumes().unwrap();
    trial.steps.iter().for_each(|step| assert!(bench.host.run(step).is_ok(), "{step}"));
    assert_eq!(bench.host.targets().unwrap().len(), 1);
    trial.undo.iter().for_each(|step| assert!(bench.host.run(step).is_ok(), "{step}"));
    assert_eq!((bench.host.targets().unwrap().len(), bench.host.volumes().unwrap()), (0, before));
}

#[test]
fn what_a_proof_has_left_behind_is_found_by_its_volume_and_swept_up() {
    let mut bench = Bench::new(sample::config());
    let trial = trial(&mut bench, crate::model::Firmware::Bios);
    let before = bench.host.volumes().unwrap();
    trial.steps.iter().for_each(|step| assert!(bench.host.run(step).is_ok(), "{step}"));
    bench.core.ask_volumes("a test");
    bench.settle();
    assert_eq!(bench.host.targets().unwrap().len(), 1, "a proof under way lost its target");
    tell(&mut bench, WorkNews::Ended(Err(Error::new(Kind::Timeout, "no login prompt"))));
    bench.settle();
    assert_eq!((bench.host.targets().unwrap().len(), bench.host.volumes().unwrap()), (0, before));
}

#[test]
fn what_was_tried_stands_in_the_manifest_and_a_sealed_version_begins_with_its_seal() {
    let mut bench = Bench::new(sample::config());
    let imported = crate::model::Imported {
        source: "/srv/x.raw".into(),
        format: None,
        size: None,
        sha256: None,
        caution: None,
    };
    let origin = crate::model::Origin::Import(imported);
    bench.core.keep_manifest(crate::model::Manifest::new(sample::image(), 5, origin));
    check(&mut bench).unwrap();
    tell(&mut bench, WorkNews::Ended(Ok(checkup())));
    trial(&mut bench, crate::model::Firmware::Uefi);
    tell(&mut bench, WorkNews::Ended(Err(Error::new(Kind::Failed, "no login prompt"))));
    let manifest = bench.core.manifests.get(&sample::image()).expect("kept").clone();
    assert!(manifest.has_passed("checked") && !manifest.has_passed("proved-uefi"));
    assert_eq!((manifest.checks.len(), manifest.firmware.len()), (2, 2));

    seal(&mut bench, false).unwrap();
    let next: crate::model::ImageId = "debian13@2".parse().unwrap();
    let change = crate::model::Change { about: "machine-id".into(), text: "emptied".into() };
    let sealing = crate::model::Sealing { changes: vec![change], image: Some(next.clone()), checkup: None };
    tell(&mut bench, WorkNews::Ended(Ok(WorkResult::Sealing(sealing))));
    bench.settle();
    let sealed = bench.core.manifests.get(&next).expect("kept before LVM lists its volume");
    assert!(sealed.has_passed("sealed") && !sealed.has_passed("checked"));
    assert_eq!(bench.core.manifests.get(&sample::image()).map(|manifest| manifest.checks.len()), Some(2));
}

fn cancel(bench: &mut Bench, image: &str) -> Result<Reply> {
    bench.operate(Request::Cancel { image: image.parse().unwrap() })
}

#[test]
fn a_work_that_is_cancelled_is_no_failure_and_nothing_is_noted_of_it() {
    let mut bench = Bench::new(sample::config());
    assert_eq!(cancel(&mut bench, "debian13").unwrap_err().kind(), Kind::Missing);
    trial(&mut bench, crate::model::Firmware::Bios);
    assert_eq!(cancel(&mut bench, "debian13@2").unwrap_err().kind(), Kind::Missing, "another version");
    let Ok(Reply::Accepted { message }) = cancel(&mut bench, "debian13") else { panic!("not accepted") };
    assert!(message.contains("proof by BIOS of image 'debian13@1'"), "{message}");
    // Whatever it is that a guest says while it is being stopped.
    let ended = Error::new(Kind::Failed, "no login prompt");
    tell(&mut bench, WorkNews::Ended(Err(ended)));
    assert_eq!(bench.events("failed"), 0);
    assert!(bench.core.manifests.get(&sample::image()).is_none(), "it says nothing of the image");
    assert_eq!(cancel(&mut bench, "debian13").unwrap_err().kind(), Kind::Missing, "it is over");
}

#[test]
fn a_name_stands_for_the_version_that_is_worked_on_and_of_several_one_has_to_be_named() {
    let mut bench = Bench::new(sample::config());
    bench.import("debian13", false);
    let check = |image: &str| Request::Work { image: image.parse().unwrap(), task: Task::Check };
    bench.operate(check("debian13@2")).unwrap();
    bench.operate(check("debian13@1")).unwrap();
    let several = cancel(&mut bench, "debian13").unwrap_err();
    assert_eq!(several.kind(), Kind::Invalid);
    assert!(several.to_string().contains("'debian13@1' or 'debian13@2'"), "{several}");
    cancel(&mut bench, "debian13@1").unwrap();
    tell(&mut bench, WorkNews::Ended(Err(Error::new(Kind::Denied, "it was cancelled"))));
    let Ok(Reply::Accepted { message }) = cancel(&mut bench, "debian13") else { panic!("not accepted") };
    assert!(message.contains("check of image 'debian13@2'"), "{message}");
}

#[test]
fn a_family_that_is_imported_has_its_import_cancelled_and_not_the_work_on_another_version() {
    let mut bench = Bench::new(sample::config());
    check(&mut bench).unwrap();
    bench.operate(import()).unwrap();
    cancel(&mut bench, "debian13").unwrap();
    assert_eq!(locked(&bench.orders).last(), Some(&ImportOrder::Cancel(sample::image().name)));
    cancel(&mut bench, "debian13@1").unwrap();
    assert!(bench.told("the check of image 'debian13@1' is being cancelled"));
}

#[test]
fn a_work_that_was_ordered_by_name_is_followed_although_the_name_means_another_version_meanwhile() {
    let mut bench = Bench::new(sample::config());
    let (image, begun): (crate::model::ImageRef, _) = ("debian13".parse().unwrap(), *locked(&bench.clock));
    bench.operate(Request::Work { image: image.clone(), task: Task::Check }).unwrap();
    tell(&mut bench, WorkNews::Ended(Ok(checkup())));
    bench.import("debian13", true);
    let follow = Request::WorkProgress { image };
    let Ok(Reply::Work(view)) = bench.operate(follow.clone()) else { panic!("lost sight of") };
    assert!(view.begun == begun && matches!(view.progress, WorkProgress::Done { .. }), "{view:?}");
    // The other version's own work is the one that is meant from then on.
    *locked(&bench.clock) += 1_000;
    bench.operate(Request::Work { image: "debian13".parse().unwrap(), task: Task::Check }).unwrap();
    let Ok(Reply::Work(view)) = bench.operate(follow) else { panic!("lost sight of") };
    assert_eq!((view.begun, view.progress), (begun + 1_000, WorkProgress::Running));
    assert_eq!(
        locked(&bench.works).last().map(|order| order.image.to_string()).as_deref(),
        Some("debian13@2")
    );
}

#[test]
fn a_seal_is_over_when_its_version_is_listed_or_when_reports_have_come_without_it() {
    let mut bench = Bench::new(sample::config());
    let sealed = |bench: &mut Bench, version: &str| {
        seal(bench, false).unwrap();
        let (changes, image) = (vec![], Some(version.parse().unwrap()));
        let sealing = crate::model::Sealing { changes, image, checkup: None };
        tell(bench, WorkNews::Ended(Ok(WorkResult::Sealing(sealing))));
    };
    let next: crate::model::ImageId = "debian13@2".parse().unwrap();
    let size = crate::model::Bytes::gib(2);
    bench.host.run(&Step::CreateImage { image: next.clone(), size }).unwrap();
    bench.host.run(&Step::FinishImage { image: next, published: false }).unwrap();
    sealed(&mut bench, "debian13@2");
    assert_eq!(view(&mut bench).progress, WorkProgress::Running, "nobody would find the version yet");
    bench.settle();
    assert!(matches!(view(&mut bench).progress, WorkProgress::Done { .. }));

    sealed(&mut bench, "debian13@3");
    bench.settle();
    assert_eq!(view(&mut bench).progress, WorkProgress::Running);
    for _ in 0..2 {
        bench.core.ask_volumes("a test");
        bench.settle();
    }
    assert!(matches!(view(&mut bench).progress, WorkProgress::Done { .. }), "it was taken away meanwhile");
}
