//! Versions of images: which one a name stands for, from the operator's verb to the blade's disk.

use super::*;
use crate::{
    model::{ImageId, Volume},
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
        let request = ImportRequest { name: name.clone(), source, publish, sha256: None, checksum: None };
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
    let publish = |image: &str, published| Request::Publish { image: image.parse().unwrap(), published };
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
