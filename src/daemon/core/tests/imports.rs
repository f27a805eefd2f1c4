//! Imports: who asked, how far, and that the end is told when LVM lists the image.

use super::*;
use crate::{
    model::{Bytes, ImageId, Version, Volume},
    status::Pace,
};

fn name() -> ImageName {
    "rocky".parse().unwrap()
}

fn image() -> ImageId {
    ImageId::new(name(), Version::FIRST)
}

fn request(source: &str) -> ImportRequest {
    ImportRequest {
        name: name(),
        source: source.into(),
        publish: true,
        sha256: None,
        checksum: None,
        unproved: true,
    }
}

impl Bench {
    fn ask_import(&mut self, source: &str) -> Result<Reply> {
        self.operate(Request::Import(request(source)))
    }

    fn tell_import(&mut self, progress: ImportProgress) {
        self.core.handle(Event::Import(image(), true, progress));
        self.settle();
    }

    fn progress(&mut self) -> ImportProgress {
        let Ok(Reply::ImportProgress(progress)) = self.operate(Request::ImportProgress { name: name() })
        else {
            panic!("no import")
        };
        progress
    }

    fn has_volume(&mut self, state: VolumeState) {
        self.host.meddle(|machine| {
            let golden = machine.volumes.volumes[&sample::image().lv_name()].clone();
            let role = Role::Image { image: image(), published: true, pinned: false, mbr: false };
            let volume = Volume { lv: image().lv_name(), role, state, ..golden };
            machine.volumes.volumes.insert(volume.lv.clone(), volume);
        });
    }

    fn orders(&self) -> Vec<ImportOrder> {
        std::mem::take(&mut locked(&self.orders))
    }
}

#[test]
fn an_import_is_over_when_its_image_is_listed_and_not_before() {
    let mut bench = Bench::new(sample::config());
    bench.ask_import("/srv/rocky.raw").unwrap();
    assert_eq!(bench.orders(), [ImportOrder::Start(image(), request("/srv/rocky.raw"))]);
    bench.has_volume(VolumeState::Making);
    let written = ImportProgress::Writing { permyriad: 10_000, pace: Pace::default() };
    bench.tell_import(written.clone());
    // The report that the end asks for still shows it as half-made.
    bench.tell_import(ImportProgress::Done);
    assert_eq!(bench.progress(), written);
    assert!(bench.host.machine().volumes.volumes.contains_key(&image().lv_name()), "nobody takes it away");
    bench.has_volume(VolumeState::Ready);
    bench.core.ask_volumes("test");
    bench.settle();
    assert_eq!(bench.progress(), ImportProgress::Done);
    assert_eq!(bench.orders(), [ImportOrder::Forget(name())], "now that its end is told");
    let listed = bench.images().into_iter().find(|view| view.image == image()).unwrap();
    assert!(!listed.importing && listed.published && listed.progress.is_none());
}

#[test]
fn an_image_that_somebody_removes_before_it_is_listed_is_a_failure() {
    let mut bench = Bench::new(sample::config());
    bench.ask_import("/srv/rocky.raw").unwrap();
    bench.tell_import(ImportProgress::Done);
    for _ in 0..2 {
        assert!(bench.progress().is_running());
        bench.core.ask_volumes("test");
        bench.settle();
    }
    assert!(matches!(bench.progress(), ImportProgress::Failed { kind: Kind::Missing, .. }));
}

#[test]
fn the_same_words_again_follow_an_import_that_runs_and_others_are_refused() {
    let mut bench = Bench::new(sample::config());
    bench.ask_import("/srv/rocky.raw").unwrap();
    bench.ask_import("/srv/rocky.raw").unwrap();
    assert_eq!(bench.orders().len(), 1);
    assert_eq!(bench.ask_import("/srv/other.raw").unwrap_err().kind(), Kind::Busy);
    let failed = ImportProgress::Failed { error: "no".into(), kind: Kind::Full };
    bench.tell_import(failed.clone());
    assert_eq!(bench.progress(), failed);
    bench.ask_import("/srv/other.raw").unwrap();
    let [ImportOrder::Forget(_), rest @ ..] = &bench.orders()[..] else { panic!("it is not forgotten") };
    assert_eq!(rest, [ImportOrder::Start(image(), request("/srv/other.raw"))]);
}

#[test]
fn who_waits_for_an_imports_next_word_hears_of_its_end_at_once_and_of_the_rest_in_a_second() {
    let mut bench = Bench::new(sample::config());
    let next = |bench: &mut Bench| {
        let (reply, answer) = oneshot::channel();
        bench.core.handle(Event::Operator(Request::NextProgress { name: name() }, reply));
        answer
    };
    let missing = next(&mut bench).try_recv().unwrap().unwrap_err();
    assert_eq!(missing.kind(), Kind::Missing, "it waits for nothing that does not run");
    bench.ask_import("/srv/rocky.raw").unwrap();
    let mut answer = next(&mut bench);
    let written = ImportProgress::Writing { permyriad: 5000, pace: Pace::default() };
    bench.tell_import(written.clone());
    bench.core.handle(Event::Tick);
    assert!(answer.try_recv().is_err(), "not yet");
    *locked(&bench.clock) += 1000;
    bench.core.handle(Event::Tick);
    assert_eq!(answer.try_recv().unwrap().unwrap(), Reply::ImportProgress(written));
    let (mut answer, mut other) = (next(&mut bench), next(&mut bench));
    bench.has_volume(VolumeState::Ready);
    bench.tell_import(ImportProgress::Done);
    for answer in [&mut answer, &mut other] {
        assert_eq!(answer.try_recv().unwrap().unwrap(), Reply::ImportProgress(ImportProgress::Done));
    }
}

#[test]
fn no_report_is_asked_for_because_of_what_an_import_does_to_lvm() {
    let mut bench = Bench::new(sample::config());
    bench.watch(WatchEvent::PhysicalVolume);
    bench.ask_import("/srv/rocky.raw").unwrap();
    let reported = bench.core.reported;
    bench.watch(WatchEvent::PhysicalVolume);
    *locked(&bench.clock) += 3_000;
    bench.core.handle(Event::Tick);
    assert_eq!(bench.core.reported, reported, "what was due before waits, too");
    bench.tell_import(ImportProgress::Failed { error: "no".into(), kind: Kind::Full });
    assert!(bench.core.reported > reported, "its end asks");
}

#[test]
fn what_is_fetched_is_listed_before_it_has_a_volume() {
    let mut bench = Bench::new(sample::config());
    bench.ask_import("https://example.org/rocky.raw").unwrap();
    let fetching = ImportProgress::Fetching { done: Bytes(1), total: Some(Bytes(2)), pace: Pace::default() };
    bench.tell_import(fetching.clone());
    let images = bench.images();
    let coming = images.iter().find(|view| view.image == image()).unwrap();
    assert_eq!((coming.importing, coming.progress.as_ref()), (true, Some(&fetching)));
    assert_eq!(images.len(), 2);
}

#[test]
fn a_cancelled_import_is_no_failure_and_none_can_be_cancelled_that_does_not_run() {
    let mut bench = Bench::new(sample::config());
    let cancel = Request::Cancel { image: name().into() };
    assert_eq!(bench.operate(cancel.clone()).unwrap_err().kind(), Kind::Missing);
    bench.ask_import("/srv/rocky.raw").unwrap();
    bench.operate(cancel.clone()).unwrap();
    assert_eq!(bench.orders().last(), Some(&ImportOrder::Cancel(name())));
    bench.tell_import(ImportProgress::Failed { error: "cancelled".into(), kind: Kind::Denied });
    assert_eq!(bench.events("failed"), 0);
    assert_eq!(bench.operate(cancel).unwrap_err().kind(), Kind::Missing);
}

#[test]
fn an_import_that_is_whole_when_it_is_cancelled_says_so() {
    let mut bench = Bench::new(sample::config());
    bench.ask_import("/srv/rocky.raw").unwrap();
    bench.operate(Request::Cancel { image: name().into() }).unwrap();
    bench.has_volume(VolumeState::Ready);
    bench.tell_import(ImportProgress::Done);
    bench.core.ask_volumes("test");
    bench.settle();
    assert_eq!(bench.progress(), ImportProgress::Done);
    assert!(bench.told("it was whole before it could be cancelled"));
}

#[test]
fn an_import_that_was_cut_off_goes_on_and_its_half_made_volume_is_left_to_it() {
    let mut bench = Bench::new(sample::config());
    bench.has_volume(VolumeState::Making);
    bench.core.resume_import(image(), request("/srv/rocky.raw"));
    bench.core.ask_volumes("test");
    bench.settle();
    assert_eq!(bench.orders(), [ImportOrder::Start(image(), request("/srv/rocky.raw"))]);
    assert!(bench.host.machine().volumes.volumes.contains_key(&image().lv_name()));
    assert!(bench.progress().is_running());
}
