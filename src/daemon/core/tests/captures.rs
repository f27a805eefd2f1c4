//! Captures: who is a donor, what it is told, where its words go, and that nothing of the chassis is touched by it.

use super::*;
use crate::{
    model::{Bytes, DonorWord, ImageId, Slot},
    status::ImportProgress,
};

fn web() -> ImageId {
    "web@1".parse().unwrap()
}

fn slot(number: u16) -> Slot {
    number.to_string().parse().unwrap()
}

fn request(name: &str, source: &str) -> Request {
    let name = name.parse().unwrap();
    Request::Import(ImportRequest {
        name,
        source: source.into(),
        publish: false,
        unproved: false,
        sha256: None,
        checksum: None,
    })
}

impl Bench {
    fn told_the_importer(&self) -> Vec<ImportOrder> {
        std::mem::take(&mut locked(&self.orders))
    }

    fn capture_is_ready(&mut self) {
        self.core.handle(Event::Import(web(), false, ImportProgress::Awaiting { slot: slot(3) }));
        self.settle();
    }
}

#[test]
fn a_machine_is_told_to_copy_its_disk_once_all_is_there_and_what_it_says_is_passed_on() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 3);
    bench.operate(request("web", "slot:3/sda")).unwrap();
    let orders = bench.told_the_importer();
    let [ImportOrder::Capture(image, _, donor, _)] = &orders[..] else { panic!("{orders:?}") };
    assert_eq!((image, donor.slot), (&web(), slot(3)));
    assert!(matches!(bench.ask(1, Ask::Start), Answer::Wait { .. }), "nothing is there yet");
    bench.capture_is_ready();
    let Answer::Capture(told) = bench.ask(1, Ask::Start) else { panic!("not told") };
    assert_eq!((told.to.image, told.disk.as_deref()), (web(), Some("sda")));
    let name: ImageName = "web".parse().unwrap();
    assert_eq!(bench.told_the_importer(), [ImportOrder::Word(name.clone(), DonorWord::Told)]);
    let word = DonorWord::Copying { done: Bytes(1), total: Bytes(2) };
    assert_eq!(bench.ask(1, Ask::Report(word.clone())), Answer::Heard);
    assert_eq!(bench.told_the_importer(), [ImportOrder::Word(name, word)]);
}

#[test]
fn whoever_is_in_another_slot_is_neither_told_nor_heard() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 3);
    bench.plug(2, 2);
    bench.operate(request("web", "slot:3")).unwrap();
    bench.capture_is_ready();
    bench.told_the_importer();
    assert!(matches!(bench.ask(2, Ask::Start), Answer::Menu(_)));
    let done = Ask::Report(DonorWord::Done { size: Bytes(1) });
    assert!(matches!(bench.ask(2, done), Answer::Refused { .. }));
    assert_eq!(bench.told_the_importer(), []);
}

#[test]
fn a_capture_that_is_over_is_over_for_its_donor_too() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 3);
    bench.operate(request("web", "slot:3")).unwrap();
    bench.capture_is_ready();
    let failed = ImportProgress::Failed { error: "cancelled".into(), kind: Kind::Denied };
    bench.core.handle(Event::Import(web(), false, failed));
    bench.settle();
    let word = DonorWord::Copying { done: Bytes(1), total: Bytes(2) };
    assert!(matches!(bench.ask(1, Ask::Report(word)), Answer::Refused { .. }));
    assert!(matches!(bench.ask(1, Ask::Start), Answer::Menu(_)));
}

#[test]
fn what_is_no_donor_is_refused_before_anything_is_made() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 1);
    bench.install(1);
    let mut refused = |name: &str, source: &str| bench.operate(request(name, source)).unwrap_err();
    assert_eq!(refused("web", "slot:99").kind(), Kind::Missing);
    let error = refused("web", "slot:1");
    assert!(error.to_string().contains("sheath image promote 1 web"), "{error}");
    bench.operate(request("web", "slot:3")).unwrap();
    let error = bench.operate(request("mail", "slot:3")).unwrap_err();
    assert!(error.to_string().contains("is captured for image 'web'"), "{error}");
    bench.told_the_importer();
    let Request::Import(summed) = request("mail", "slot:2") else { unreachable!() };
    let summed = ImportRequest { sha256: Some("00".into()), ..summed };
    assert_eq!(bench.operate(Request::Import(summed)).unwrap_err().kind(), Kind::Invalid);
    assert_eq!(bench.told_the_importer(), []);
}

#[test]
fn a_capture_that_an_agent_left_is_found_by_the_same_names() {
    let mut bench = Bench::new(sample::config());
    bench.operate(request("web", "slot:3")).unwrap();
    let first = bench.told_the_importer();
    let mut later = Bench::new(sample::config());
    let Request::Import(request) = request("web", "slot:3") else { unreachable!() };
    later.core.resume_import(web(), request);
    assert_eq!(later.told_the_importer(), first);
}

#[test]
fn a_console_begins_a_capture_only_where_policy_offers_it() {
    let mut bench = Bench::new(sample::config());
    bench.plug(1, 3);
    let Answer::Menu(menu) = bench.ask(1, Ask::Start) else { panic!("no menu") };
    assert_eq!(menu.capture, None);
    bench.ask(1, Ask::Choose { token: menu.token, choice: Choice::Capture });
    assert_eq!(bench.told_the_importer(), [], "a choice that was not offered");

    let mut config = sample::config();
    config.policy.default.menu_capture = Some("web".parse().unwrap());
    let mut bench = Bench::new(config);
    bench.plug(1, 3);
    let Answer::Menu(menu) = bench.ask(1, Ask::Start) else { panic!("no menu") };
    assert_eq!(menu.capture, Some("web".parse().unwrap()));
    let told = bench.ask(1, Ask::Choose { token: menu.token, choice: Choice::Capture });
    assert!(matches!(told, Answer::Wait { .. }), "{told:?}");
    let orders = bench.told_the_importer();
    assert!(matches!(&orders[..], [ImportOrder::Capture(image, ..)] if *image == web()), "{orders:?}");
}
