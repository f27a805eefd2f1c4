//! Versions of images: which one a name stands for, from the operator's verb to the blade's disk.

use super::*;
use crate::{
    image::Whole,
    model::{ImageId, Role, Tag, Volume},
    plan::Step,
    status::ImageView,
};

fn id(text: &str) -> ImageId {
    text.parse().unwrap()
}

impl Bench {
    /// Imports the family's next version, as a thread of the agent's would, and returns it.
    pub(super) fn import(&mut self, name: &str, publish: bool) -> ImageId {
        let name: ImageName = name.parse().unwrap();
        let source = "/x.raw".into();
        let request = ImportRequest {
            name: name.clone(),
            source,
            publish,
            sha256: None,
            checksum: None,
            unproved: true,
        };
        self.operate(Request::Import(request)).unwrap();
        let image = self.core.imports[&name].image.clone();
        self.host.run(&Step::CreateImage { image: image.clone(), size: Bytes::gib(2) }).unwrap();
        self.core.handle(Event::Import(image.clone(), publish, ImportProgress::begin()));
        self.host.run(&Step::FinishImage { image: image.clone(), published: publish }).unwrap();
        self.core.handle(Event::Import(image.clone(), publish, ImportProgress::Done));
        self.settle();
        image
    }

    /// Returns the images as the operator sees them.
    pub(super) fn images(&mut self) -> Vec<ImageView> {
        let Reply::Images(images) = self.operate(Request::Images).unwrap() else { panic!("not a list") };
        images
    }

    /// Returns the lines of the blade's menu.
    fn menu(&mut self, blade: u8) -> Vec<String> {
        let Answer::Menu(menu) = self.ask(blade, Ask::Start) else { panic!("no menu") };
        menu.images.into_iter().map(|(image, _)| image.to_string()).collect()
    }

    /// Returns the image that the blade's disk came from.
    fn disk_of(&self, blade: u8) -> String {
        self.core.roster.blades[&sample::blade_id(blade)].disk.as_ref().unwrap().image.to_string()
    }
}

#[test]
fn an_image_that_a_killed_agent_has_left_writable_is_put_to_rest_at_the_next_start() {
    let bench = Bench::new(sample::config());
    let image = id("web");
    bench.host.run(&Step::CreateImage { image: image.clone(), size: Bytes::gib(2) }).unwrap();
    let (add, remove) = (vec![Tag::Published], vec![Tag::Making]);
    bench.host.run(&Step::TagImage { image: image.clone(), add, remove }).unwrap();
    let volume = |host: &Sim| host.machine().volumes.volumes[&image.lv_name()].clone();
    assert!(volume(&bench.host).writable);
    let bench = Bench::resumed(sample::config(), bench.host, bench.dir);
    let found = volume(&bench.host);
    assert!(!found.writable, "{found:?}");
    assert!(matches!(found.role, Role::Image { published: true, .. }), "as it was: {found:?}");
}

#[test]
fn an_import_makes_the_next_version_and_changes_none_that_is_there() {
    let mut bench = Bench::new(sample::config());
    let before = bench.host.machine().volumes.volumes;
    bench.plug(1, 1);
    assert_eq!(bench.import("debian13", false).to_string(), "debian13@2");
    assert_eq!(bench.menu(1), ["debian13@1"], "it is not published");
    assert_eq!(bench.import("debian13", true).to_string(), "debian13@3");
    assert_eq!(bench.menu(1), ["debian13@3"], "one line for the family");
    let after = bench.host.machine().volumes.volumes;
    assert!(before.iter().all(|(lv, volume)| after[lv] == *volume));
    let defaults: Vec<_> =
        bench.images().into_iter().map(|view| (view.image.to_string(), view.default)).collect();
    let expected = [("debian13@1", false), ("debian13@2", false), ("debian13@3", true)];
    assert_eq!(defaults, expected.map(|(image, default)| (image.to_owned(), default)));
}

#[test]
fn a_blade_gets_what_its_menu_showed_and_the_operator_may_name_any_version() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    bench.plug(2, 2);
    let Answer::Menu(menu) = bench.ask(1, Ask::Start) else { panic!("no menu") };
    bench.import("debian13", true);
    let choice = Choice::Install(menu.images[0].0.clone().into());
    bench.ask(1, Ask::Choose { token: menu.token, choice });
    assert_eq!(bench.disk_of(1), "debian13@1");
    let unpublished = bench.import("debian13", false);
    let install = |image: &str| Request::Install {
        slot: sample::slot(2),
        image: image.parse().unwrap(),
        replace: true,
    };
    bench.operate(install("debian13")).unwrap();
    assert_eq!(bench.disk_of(2), "debian13@2");
    bench.operate(install("debian13@3")).unwrap();
    assert_eq!(bench.disk_of(2), unpublished.to_string());
    let missing = bench.operate(install("debian13@9")).unwrap_err();
    assert_eq!(missing.to_string(), "find image 'debian13@9': its versions are 1, 2, 3");
}

#[test]
fn a_policy_or_a_menus_default_by_name_follows_the_default_version() {
    let mut config = sample::config();
    config.policy.default.menu_default = crate::config::MenuDefault::Install("debian13".parse().unwrap());
    let auto = crate::config::BladePolicy {
        policy: Policy::Auto("debian13".parse().unwrap()),
        ..config.policy.default.clone()
    };
    config.policy.slots.insert(sample::slot(2), auto);
    let mut bench = Bench::new(config);
    let newest = bench.import("debian13", true);
    bench.plug(1, 1);
    bench.plug(2, 2);
    let Answer::Menu(menu) = bench.ask(1, Ask::Start) else { panic!("no menu") };
    assert_eq!(menu.default, Choice::Install(newest.clone().into()));
    bench.ask(2, Ask::Start);
    assert_eq!(bench.disk_of(2), newest.to_string());
}

#[test]
fn of_several_versions_the_one_to_remove_or_to_take_back_has_to_be_named() {
    let mut bench = Bench::new(sample::config());
    let remove = |image: &str| Request::RemoveImage { image: image.parse().unwrap() };
    let publish = |image: &str, published| Request::Publish {
        image: image.parse().unwrap(),
        published,
        unproved: true,
    };
    bench.import("debian13", false);
    for refused in [remove("debian13"), publish("debian13", false)] {
        let error = bench.operate(refused).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains("say which of its versions: debian13@1, debian13@2"), "{error}");
    }
    bench.operate(publish("debian13", true)).unwrap();
    assert!(bench.images()[1].published, "publishing by name means the newest");
    bench.operate(publish("debian13@2", false)).unwrap();
    assert!(!bench.images()[1].published);
    bench.operate(remove("debian13@1")).unwrap();
    bench.operate(remove("debian13")).unwrap();
    assert!(bench.images().is_empty());
    assert_eq!(bench.import("debian13", false).to_string(), "debian13@1", "nothing knows of the old ones");
}

#[test]
fn images_and_disks_from_before_there_were_versions_are_found_and_served() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    bench.install(1);
    // What such a version of the agent has left: names and tags without versions, and its roster.
    let machine = bench.host.machine();
    let golden: &Volume = &machine.volumes.volumes[&id("debian13@1").lv_name()];
    assert_eq!(golden.lv.as_str(), "sheath-img-debian13");
    let state = bench.dir.path().join("roster.json");
    let text = std::fs::read_to_string(&state).unwrap().replace("debian13@1", "debian13");
    crate::host::file::save(&state, text.as_bytes(), 0o600).unwrap();
    let mut bench = Bench::resumed(sample::config(), bench.host, bench.dir);
    bench.plug(1, 1);
    assert!(matches!(bench.ask(1, Ask::Start), Answer::Boot(_) | Answer::Restart { .. }));
    assert_eq!(bench.disk_of(1), "debian13@1");
    assert_eq!(bench.host.machine().volumes, machine.volumes, "nothing is renamed");
    assert_eq!(bench.import("debian13", true).lv_name().as_str(), "sheath-img-debian13+2");
}

fn promotion(slot: u16, name: &str, running: bool) -> PromoteRequest {
    let (slot, name) = (sample::slot(slot), name.parse().unwrap());
    PromoteRequest { slot, name, running, publish: true, dry_run: false, unproved: true, freeze: None }
}

fn os_session() -> Session {
    Session { initiator: "i".into(), address: None, kind: SessionKind::Os, id: 1 }
}

fn detail(bench: &mut Bench, image: &str) -> Result<crate::status::ImageDetail> {
    match bench.operate(Request::Image { image: image.parse().unwrap() })? {
        Reply::Image(detail) => Ok(*detail),
        other => panic!("not an image: {other:?}"),
    }
}

fn parent(bench: &mut Bench, image: &str) -> crate::model::Parent {
    match detail(bench, image).unwrap().manifest.expect("a manifest").origin {
        crate::model::Origin::Blade(parent) => parent,
        other => panic!("not a blade's: {other:?}"),
    }
}

/// Returns a bench with a blade in slot 1 that has a disk and is off.
fn with_a_disk() -> Bench {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    bench.install(1);
    bench
}

#[test]
fn a_blade_that_is_off_becomes_an_image_that_others_are_made_from() {
    let mut bench = with_a_disk();
    let Reply::Accepted { message } = bench.operate(Request::Promote(promotion(1, "web", false))).unwrap()
    else {
        panic!("not accepted")
    };
    assert!(message.contains("'web@1'") && message.contains("which is off; it is published"), "{message}");
    let promoted = parent(&mut bench, "web");
    assert_eq!((promoted.slot, promoted.consistency), (sample::slot(1), crate::model::Consistency::Clean));
    assert_eq!(promoted.image.to_string(), "debian13@1");
    assert!(
        matches!(bench.ask(1, Ask::Start), Answer::Boot(_) | Answer::Restart { .. }),
        "it keeps its disk"
    );
    bench.plug(2, 2);
    let install = Request::Install { slot: sample::slot(2), image: "web".parse().unwrap(), replace: false };
    bench.operate(install).unwrap();
    assert_eq!(bench.disk_of(2), "web@1");
    let shown = detail(&mut bench, "web@1").unwrap();
    assert_eq!(shown.clones.iter().map(|disk| disk.slot).collect::<Vec<_>>(), [sample::slot(2)]);
    let refused = bench.operate(Request::RemoveImage { image: "web".parse().unwrap() }).unwrap_err();
    assert!(refused.to_string().contains("blade b-525400000002 in slot 2"), "{refused}");
}

#[test]
fn a_running_blade_is_promoted_with_consent_only_and_the_manifest_says_so() {
    let mut bench = with_a_disk();
    bench.core.handle(Event::Session(sample::blade_id(1), Some(os_session())));
    bench.settle();
    let before = bench.host.machine();
    let refused = bench.operate(Request::Promote(promotion(1, "debian13", false))).unwrap_err();
    assert_eq!(refused.kind(), Kind::Busy);
    assert!(refused.to_string().contains("shut it down first") && refused.to_string().contains("--running"));
    // Its session is gone for a moment, and it runs all the same.
    bench.core.handle(Event::Session(sample::blade_id(1), None));
    bench.settle();
    let refused = bench.operate(Request::Promote(promotion(1, "debian13", false))).unwrap_err();
    assert_eq!(refused.kind(), Kind::Busy);
    assert_eq!(bench.host.machine().volumes, before.volumes);
    let Reply::Accepted { message } =
        bench.operate(Request::Promote(promotion(1, "debian13", true))).unwrap()
    else {
        panic!("not accepted")
    };
    assert!(message.contains("'debian13@2'") && message.contains("as after a power cut"), "{message}");
    assert_eq!(parent(&mut bench, "debian13@2").consistency, crate::model::Consistency::Crash);
}

/// Has a running blade's promotion begun that freezes it; returns where its answer comes, and the order.
fn freezing(bench: &mut Bench) -> (oneshot::Receiver<Result<Reply>>, crate::daemon::core::FreezeOrder) {
    let session = Session { address: Some("10.0.0.9".parse().unwrap()), ..os_session() };
    bench.core.handle(Event::Session(sample::blade_id(1), Some(session)));
    bench.settle();
    let (reply, answer) = oneshot::channel();
    let request = PromoteRequest { freeze: Some("ann".into()), ..promotion(1, "web", true) };
    bench.core.handle(Event::Operator(Request::Promote(request), reply));
    let order = super::locked(&bench.freezes).pop().expect("it is to stand still first");
    (answer, order)
}

#[test]
fn a_running_blade_is_frozen_before_its_disk_is_taken_and_released_after_it() {
    use crate::daemon::core::FreezeNews;
    let (mut bench, id) = (with_a_disk(), sample::blade_id(1));
    for held in [true, false] {
        let (mut answer, order) = freezing(&mut bench);
        assert_eq!((order.user.as_str(), order.address), ("ann", "10.0.0.9".parse().unwrap()));
        bench.settle();
        assert!(
            detail(&mut bench, &order.image.to_string()).is_err(),
            "nothing is taken before it stands still"
        );
        bench.core.handle(Event::Freeze(id, FreezeNews::Frozen));
        assert_eq!(order.release.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty));
        bench.settle();
        assert_eq!(order.release.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected));
        assert!(answer.try_recv().is_err(), "it is not known yet whether it stood still");
        bench.core.handle(Event::Freeze(id, FreezeNews::Ended(Ok(held))));
        let Ok(Ok(Reply::Accepted { message })) = answer.try_recv() else { panic!("not accepted") };
        let (consistency, words) = match held {
            true => (crate::model::Consistency::Frozen, "with its file systems frozen"),
            false => (crate::model::Consistency::Crash, "did not stand still until that was done"),
        };
        assert!(message.contains(words), "{message}");
        assert_eq!(parent(&mut bench, &order.image.to_string()).consistency, consistency);
    }
}

#[test]
fn a_blade_that_cannot_be_frozen_is_not_promoted_and_the_reason_is_told() {
    use crate::daemon::core::FreezeNews;
    let mut bench = with_a_disk();
    let before = bench.host.machine().volumes;
    let (mut answer, order) = freezing(&mut bench);
    let why = Error::new(Kind::Denied, "add this line to its ~/.ssh/authorized_keys");
    bench.core.handle(Event::Freeze(order.blade, FreezeNews::Ended(Err(why))));
    bench.settle();
    let error = answer.try_recv().unwrap().unwrap_err();
    assert!(error.kind() == Kind::Denied && error.chain().contains("authorized_keys"), "{error}");
    assert_eq!(bench.host.machine().volumes, before);
    // A blade that cannot be promoted is not frozen for nothing.
    let (reply, mut answer) = oneshot::channel();
    let request = PromoteRequest { freeze: Some("root".into()), ..promotion(2, "web", true) };
    bench.core.handle(Event::Operator(Request::Promote(request), reply));
    assert!(answer.try_recv().unwrap().is_err() && super::locked(&bench.freezes).is_empty());
}

#[test]
fn a_blade_that_comes_up_while_its_disk_is_taken_makes_it_what_a_power_cut_leaves() {
    let mut bench = with_a_disk();
    let (reply, mut answer) = oneshot::channel();
    bench.core.handle(Event::Operator(Request::Promote(promotion(1, "web", false)), reply));
    bench.core.handle(Event::Session(sample::blade_id(1), Some(os_session())));
    bench.settle();
    let Ok(Ok(Reply::Accepted { message })) = answer.try_recv() else { panic!("not accepted") };
    assert!(message.contains("came up meanwhile"), "{message}");
    assert_eq!(parent(&mut bench, "web").consistency, crate::model::Consistency::Crash);
}

#[test]
fn a_dry_run_of_a_promotion_shows_its_steps_and_changes_nothing() {
    let mut bench = with_a_disk();
    let before = bench.host.machine();
    let dry = PromoteRequest { dry_run: true, ..promotion(1, "web", false) };
    let Reply::Plan(plan) = bench.operate(Request::Promote(dry)).unwrap() else { panic!("no plan") };
    let steps: Vec<String> = plan[0].steps.iter().map(ToString::to_string).collect();
    assert!(steps[0].starts_with("image 'web@1' is a snapshot of volume '"), "{steps:?}");
    assert_eq!(steps[1], "image 'web@1' is tagged +sheath.published -sheath.making");
    assert_eq!(bench.host.machine(), before);
    assert!(detail(&mut bench, "web").is_err());
}

#[test]
fn what_cannot_be_promoted_is_refused_with_its_reason() {
    let mut bench = with_a_disk();
    bench.plug(2, 2);
    let refused = |bench: &mut Bench, request| bench.operate(Request::Promote(request)).unwrap_err();
    assert_eq!(refused(&mut bench, promotion(2, "web", false)).kind(), Kind::Missing);
    assert_eq!(refused(&mut bench, promotion(4, "web", false)).kind(), Kind::Missing);
    let request = ImportRequest {
        name: "web".parse().unwrap(),
        source: "/x.raw".into(),
        publish: false,
        sha256: None,
        checksum: None,
        unproved: false,
    };
    bench.operate(Request::Import(request)).unwrap();
    assert_eq!(refused(&mut bench, promotion(1, "web", false)).kind(), Kind::Busy);
    bench.host.meddle(|machine| machine.volumes.pool.data_percent = 95.0);
    *locked(&bench.clock) += 60_000;
    bench.core.handle(Event::Tick);
    bench.settle();
    assert_eq!(refused(&mut bench, promotion(1, "db", false)).kind(), Kind::Full);
}

#[test]
fn a_promotion_killed_after_any_step_leaves_nothing_or_the_whole_image() {
    for survived in 0..=2 {
        let mut bench = with_a_disk();
        let (reply, _answer) = oneshot::channel();
        bench.core.handle(Event::Operator(Request::Promote(promotion(1, "web", false)), reply));
        let job = locked(&bench.jobs).pop_front().expect("the promotion");
        let crate::apply::Work::Steps(steps) = job.work else { panic!("not steps") };
        assert_eq!(steps.len(), 2);
        for step in steps.iter().take(survived) {
            bench.host.run(step).unwrap();
        }
        // kill -9: the line is gone, the machine and the state folder are as they are.
        let mut bench = Bench::resumed(sample::config(), bench.host, bench.dir);
        let whole = survived == 2;
        let names: Vec<_> =
            bench.images().into_iter().map(|view| (view.image.to_string(), view.importing)).collect();
        let expected: &[&str] = if whole { &["debian13@1", "web@1"] } else { &["debian13@1"] };
        assert_eq!(names, expected.iter().map(|name| ((*name).to_owned(), false)).collect::<Vec<_>>());
        assert_eq!(detail(&mut bench, "web").is_ok_and(|detail| detail.manifest.is_some()), whole);
        let left = std::fs::read_dir(bench.dir.path().join("images")).unwrap().count();
        assert_eq!(left, usize::from(whole), "words without an image, after {survived} steps");
        bench.plug(1, 1);
        bench.operate(Request::Promote(promotion(1, "web", false))).unwrap();
        assert_eq!(parent(&mut bench, "web").slot, sample::slot(1));
    }
}

#[test]
fn a_pinned_version_stays_the_default_one_until_it_is_taken_back() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    let default = |image: &str| Request::DefaultImage { image: image.parse().unwrap() };
    bench.import("debian13", true);
    let unpublished = bench.import("debian13", false);
    assert_eq!(bench.operate(default(&unpublished.to_string())).unwrap_err().kind(), Kind::Invalid);
    bench.operate(default("debian13@1")).unwrap();
    assert_eq!(bench.menu(1), ["debian13@1"]);
    bench.import("debian13", true);
    assert_eq!(bench.menu(1), ["debian13@1"], "a newer one does not change it");
    // The pin is with the images: a lost state folder does not lose it.
    let mut bench = Bench::resumed(sample::config(), bench.host, tempfile::tempdir().unwrap());
    bench.plug(1, 1);
    assert_eq!(bench.menu(1), ["debian13@1"]);
    bench.operate(default("debian13@2")).unwrap();
    let pinned = |bench: &mut Bench| {
        let views = bench.images().into_iter().filter(|view| view.pinned);
        views.map(|view| view.image.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        (bench.menu(1), pinned(&mut bench)),
        (vec!["debian13@2".to_owned()], vec!["debian13@2".to_owned()])
    );
    let publish =
        |published| Request::Publish { image: "debian13@2".parse().unwrap(), published, unproved: true };
    bench.operate(publish(false)).unwrap();
    bench.operate(publish(true)).unwrap();
    assert_eq!(
        (bench.menu(1), pinned(&mut bench)),
        (vec!["debian13@4".to_owned()], vec![]),
        "gone with the pin"
    );
    bench.operate(default("debian13@1")).unwrap();
    bench.operate(default("debian13")).unwrap();
    assert_eq!(bench.menu(1), ["debian13@4"]);
}

#[test]
fn spares_follow_the_default_version_and_the_configured_number() {
    let with_spares = |number| {
        let mut config = sample::config();
        config
            .images
            .insert(sample::image().name, ImageProfile { spares: number, ..ImageProfile::default() });
        config
    };
    let spares = |bench: &mut Bench| {
        let views = bench.images().into_iter().filter(|view| view.spares > 0);
        views.map(|view| (view.image.to_string(), view.spares)).collect::<Vec<_>>()
    };
    let are = |image: &str, number: usize| vec![(image.to_owned(), number)];
    let mut bench = Bench::new(with_spares(3));
    assert_eq!(spares(&mut bench), are("debian13@1", 3));
    bench.import("debian13", true);
    assert_eq!(spares(&mut bench), are("debian13@2", 3), "those of the version before are gone");
    bench.operate(Request::DefaultImage { image: "debian13@1".parse().unwrap() }).unwrap();
    assert_eq!(spares(&mut bench), are("debian13@1", 3));
    *locked(&bench.next_config) = Ok(with_spares(1));
    bench.watch(WatchEvent::ConfigChanged);
    bench.settle();
    assert_eq!(spares(&mut bench), are("debian13@1", 1));
    let publish =
        Request::Publish { image: "debian13@1".parse().unwrap(), published: false, unproved: false };
    bench.operate(publish).unwrap();
    assert_eq!(spares(&mut bench), are("debian13@2", 1));
    bench.operate(Request::RemoveImage { image: "debian13@2".parse().unwrap() }).unwrap();
    assert_eq!(spares(&mut bench), vec![]);
}

#[test]
fn an_imports_source_is_in_its_manifest_and_a_password_is_not() {
    let mut bench = Bench::new(sample::config());
    let source = "https://me:secret@host/web.qcow2?token=secret".to_owned();
    let request = ImportRequest {
        name: "web".parse().unwrap(),
        source,
        publish: false,
        sha256: None,
        checksum: None,
        unproved: false,
    };
    bench.operate(Request::Import(request)).unwrap();
    let image = id("web@1");
    bench.host.run(&Step::CreateImage { image: image.clone(), size: Bytes::gib(2) }).unwrap();
    bench.host.run(&Step::FinishImage { image: image.clone(), published: false }).unwrap();
    bench.core.handle(Event::Import(image.clone(), false, ImportProgress::Done));
    bench.settle();
    let manifest = detail(&mut bench, "web").unwrap().manifest.unwrap();
    let crate::model::Origin::Import(import) = &manifest.origin else { panic!("not imported") };
    assert_eq!(import.source, "https://host/web.qcow2");
    assert!(!String::from_utf8(manifest.to_bytes()).unwrap().contains("secret"));
    // Lost, it costs its words.
    let mut bench = Bench::resumed(sample::config(), bench.host, tempfile::tempdir().unwrap());
    let found = detail(&mut bench, "web").unwrap();
    assert_eq!((found.view.image, found.manifest), (image, None));
}

fn publish(bench: &mut Bench, image: &str, unproved: bool) -> Result<String> {
    let request = Request::Publish { image: image.parse().unwrap(), published: true, unproved };
    match bench.operate(request)? {
        Reply::Accepted { message } => Ok(message),
        other => panic!("not accepted: {other:?}"),
    }
}

fn prove(bench: &mut Bench, image: &str, outcome: Result<()>) {
    use crate::{
        model::{Firmware, Proof},
        status::{Task, WorkResult},
    };
    let firmware = Firmware::Bios;
    bench.operate(Request::Work { image: image.parse().unwrap(), task: Task::Prove { firmware } }).unwrap();
    let proof = Proof { firmware, millis: 9_000, log: "/var/lib/sheath/proofs/x.log".into() };
    let ended = WorkNews::Ended(outcome.map(|()| WorkResult::Proof(proof)));
    bench.core.handle(Event::Work(id(image), ended));
    bench.settle();
}

#[test]
fn what_is_not_proved_is_published_only_with_consent_and_says_so() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    bench.import("debian13", false);
    let refused = publish(&mut bench, "debian13@2", false).unwrap_err();
    assert_eq!(refused.kind(), Kind::Denied);
    for words in ["sheath image prove debian13@2", "sheath image publish debian13@2", "--unproved"] {
        assert!(refused.chain().contains(words), "{}", refused.chain());
    }
    assert_eq!(bench.menu(1), ["debian13@1"]);
    prove(&mut bench, "debian13@2", Err(Error::new(Kind::Failed, "no login prompt")));
    assert_eq!(publish(&mut bench, "debian13", false).unwrap_err().kind(), Kind::Denied, "it failed");

    assert!(publish(&mut bench, "debian13", true).unwrap().contains("unproved by the operator"));
    assert!(bench.told("image 'debian13@2' is published unproved by the operator"));
    assert_eq!(bench.menu(1), ["debian13@2"]);
    assert!(detail(&mut bench, "debian13@2").unwrap().manifest.unwrap().unproved.is_some());
    // Who is published is left as it is.
    assert!(publish(&mut bench, "debian13@2", false).unwrap().contains("already"));
    let back = Request::Publish { image: "debian13@2".parse().unwrap(), published: false, unproved: false };
    bench.operate(back).unwrap();
    assert_eq!(detail(&mut bench, "debian13@2").unwrap().manifest.unwrap().unproved, None);
    assert_eq!(
        publish(&mut bench, "debian13@2", false).unwrap_err().kind(),
        Kind::Denied,
        "the consent is gone"
    );
}

#[test]
fn what_is_proved_is_published_and_a_lost_manifest_can_be_proved_anew() {
    let mut bench = Bench::new(sample::config());
    bench.import("debian13", false);
    // The state is lost: nothing is known of the image but its volume.
    let mut bench = Bench::resumed(sample::config(), bench.host, tempfile::tempdir().unwrap());
    assert_eq!(publish(&mut bench, "debian13@2", false).unwrap_err().kind(), Kind::Denied);
    prove(&mut bench, "debian13@2", Ok(()));
    assert_eq!(publish(&mut bench, "debian13@2", false).unwrap(), "image 'debian13@2' is published");
    let manifest = detail(&mut bench, "debian13@2").unwrap().manifest.unwrap();
    assert_eq!((manifest.origin, manifest.unproved), (crate::model::Origin::Unknown, None));
    // A proof holds for the version that was proved, and for no other.
    bench.import("debian13", false);
    assert_eq!(publish(&mut bench, "debian13", false).unwrap_err().kind(), Kind::Denied);
}

#[test]
fn an_import_or_promotion_that_publishes_needs_consent_before_anything_is_done() {
    let mut bench = with_a_disk();
    let request = ImportRequest {
        name: "web".parse().unwrap(),
        source: "/x.raw".into(),
        publish: true,
        sha256: None,
        checksum: None,
        unproved: false,
    };
    let refused = bench.operate(Request::Import(request)).unwrap_err();
    assert_eq!(refused.kind(), Kind::Denied);
    assert!(refused.chain().contains("leave --publish out, sheath image prove web@1"), "{}", refused.chain());
    assert!(locked(&bench.orders).is_empty(), "nothing is fetched");
    let before = bench.host.machine();
    for dry_run in [true, false] {
        let request = PromoteRequest { unproved: false, dry_run, ..promotion(1, "web", false) };
        assert_eq!(bench.operate(Request::Promote(request)).unwrap_err().kind(), Kind::Denied);
    }
    assert_eq!(bench.host.machine(), before);
    bench.operate(Request::Promote(promotion(1, "web", false))).unwrap();
    assert!(detail(&mut bench, "web").unwrap().manifest.unwrap().unproved.is_some());
    assert_eq!(bench.import("db", true).to_string(), "db@1");
    assert!(detail(&mut bench, "db").unwrap().manifest.unwrap().unproved.is_some());
    assert!(bench.told("image 'db@1' is imported, published unproved by the operator"));
}

#[test]
fn a_proofs_log_is_shown_as_long_as_its_image_is_there() {
    let mut bench = Bench::new(sample::config());
    let image = bench.import("web", false);
    let ask = |bench: &mut Bench, image: &str| {
        bench.operate(Request::ImageLog { image: image.parse().unwrap(), firmware: None })
    };
    let none = ask(&mut bench, "web").unwrap_err();
    assert_eq!(none.kind(), Kind::Missing);
    assert!(none.chain().contains("sheath image prove web@1"), "{}", none.chain());
    let path = bench.dir.path().join("proofs/web@1-bios.log");
    std::fs::create_dir(bench.dir.path().join("proofs")).unwrap();
    crate::host::file::save(&path, b"web login:", 0o600).unwrap();
    let Reply::ImageLog(log) = ask(&mut bench, "web@1").unwrap() else { panic!("no log") };
    assert_eq!((log.text.as_str(), &log.image), ("web login:", &image));
    assert_eq!(ask(&mut bench, "web@7").unwrap_err().kind(), Kind::Missing);
    bench.operate(Request::RemoveImage { image: "web".parse().unwrap() }).unwrap();
    bench.core.ask_volumes("a test");
    bench.settle();
    assert!(!path.exists(), "another image may come to have its name");
}

#[test]
fn an_import_is_over_and_listed_as_soon_as_it_is_whole_and_the_next_report_changes_nothing() {
    let mut bench = Bench::new(sample::config());
    bench.settle();
    let request = |name: &str| ImportRequest {
        name: name.parse().unwrap(),
        source: "/srv/web.raw".into(),
        publish: false,
        sha256: None,
        checksum: None,
        unproved: false,
    };
    let image: ImageId = "web@1".parse().unwrap();
    bench.operate(Request::Import(request("web"))).unwrap();
    bench.host.run(&Step::CreateImage { image: image.clone(), size: Bytes::mib(70) }).unwrap();
    bench.host.run(&Step::TagImage { image: image.clone(), add: vec![Tag::Mbr], remove: vec![] }).unwrap();
    bench.host.run(&Step::FinishImage { image: image.clone(), published: false }).unwrap();
    let (source, size) = ("/srv/web.raw".into(), Some(Bytes::mib(64)));
    let found = crate::model::Imported { source, format: None, size, sha256: None, caution: None };
    bench.core.handle(Event::Imported(image.clone(), Whole { found, tags: vec![Tag::Mbr] }));
    bench.core.handle(Event::Import(image.clone(), false, ImportProgress::Done));
    let progress = bench.operate(Request::ImportProgress { name: image.name.clone() }).unwrap();
    assert_eq!(progress, Reply::ImportProgress(ImportProgress::Done), "nobody has reported yet");
    let known = |bench: &Bench| bench.core.volumes.clone().unwrap().volumes[&image.lv_name()].clone();
    let before = known(&bench);
    assert_eq!(before.role, Role::Image { image: image.clone(), published: false, pinned: false, mbr: true });
    assert!(bench.images().iter().any(|view| view.image == image && view.mbr && !view.importing));
    bench.settle();
    assert_eq!((known(&bench).role, known(&bench).size), (before.role, before.size));
}

#[test]
fn what_a_source_was_stands_in_the_manifest_and_what_was_asked_for_where_nobody_saw_it() {
    let mut bench = Bench::new(sample::config());
    let import = |bench: &mut Bench, found: Option<crate::model::Imported>| {
        let request = ImportRequest {
            name: "web".parse().unwrap(),
            source: "/srv/web.vmdk".into(),
            publish: false,
            sha256: Some("ab".repeat(64)),
            checksum: None,
            unproved: false,
        };
        bench.operate(Request::Import(request)).unwrap();
        let image = bench.core.imports[&"web".parse::<ImageName>().unwrap()].image.clone();
        bench.host.run(&Step::CreateImage { image: image.clone(), size: Bytes::gib(2) }).unwrap();
        bench.host.run(&Step::FinishImage { image: image.clone(), published: false }).unwrap();
        if let Some(found) = found {
            bench.core.handle(Event::Imported(image.clone(), Whole { found, tags: vec![] }));
        }
        bench.core.handle(Event::Import(image.clone(), false, ImportProgress::Done));
        bench.settle();
        match detail(bench, &image.to_string()).unwrap().manifest.unwrap().origin {
            crate::model::Origin::Import(imported) => imported,
            other => panic!("not imported: {other:?}"),
        }
    };
    let found = crate::model::Imported {
        source: "/srv/web.vmdk".into(),
        format: Some("vmdk".into()),
        size: Some(Bytes::gib(2)),
        sha256: Some("cd".repeat(32)),
        caution: None,
    };
    assert_eq!(import(&mut bench, Some(found.clone())), found);
    let unseen = import(&mut bench, None);
    assert_eq!((unseen.format, unseen.size), (None, None), "what the version before was is not this one's");
    assert_eq!(unseen.sha256, None, "a SHA-512 is none");
}
