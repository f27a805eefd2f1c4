//! Scripts as text: what each answer becomes, and that no value can become a command.

use proptest::prelude::{any, prop_assert_eq, proptest};

use super::*;
use crate::model::{Bytes, Credentials, Secret};

const BASE: &str = "http://10.0.0.1:8078";

fn a_menu() -> Menu {
    Menu {
        slot: "3".parse().unwrap(),
        token: "tok-123".into(),
        images: vec![
            ("alpine".parse().unwrap(), Bytes::gib(2)),
            ("debian13".parse().unwrap(), Bytes::mib(2560)),
        ],
        has_disk: true,
        capture: None,
        default: Choice::Wait,
        timeout: 30,
    }
}

fn a_disk() -> BootDisk {
    BootDisk {
        slot: "3".parse().unwrap(),
        image: "debian13".parse().unwrap(),
        initiator: "iqn.2026-11.org.example:i-525400123456".parse().unwrap(),
        target: "iqn.2026-11.org.example:b-525400123456".parse().unwrap(),
        portals: vec![Portal("10.0.0.1:3260".parse().unwrap()), Portal("10.0.1.1:3261".parse().unwrap())],
        credentials: Credentials {
            user: "b-525400123456".into(),
            password: Secret::new("Zm9vYmFy+/=".into()),
            mutual: None,
        },
        firmware: Some(Firmware::Bios),
        key_seconds: 0,
    }
}

fn lines(answer: &Answer) -> Vec<String> {
    render(answer, BASE).lines().map(str::to_owned).collect()
}

fn every_answer(message: &str) -> Vec<Answer> {
    let message = || message.to_owned();
    let mutual =
        Credentials { mutual: Some(("target".into(), Secret::new("s3cret".into()))), ..a_disk().credentials };
    vec![
        Answer::Menu(a_menu()),
        Answer::Menu(Menu { capture: Some("donor".parse().unwrap()), ..a_menu() }),
        Answer::Menu(Menu { has_disk: false, images: Vec::new(), timeout: 0, ..a_menu() }),
        Answer::Wait { message: message(), seconds: 5 },
        Answer::Progress { message: message() },
        Answer::Boot(a_disk()),
        Answer::Boot(BootDisk {
            credentials: mutual,
            firmware: Some(Firmware::Uefi),
            key_seconds: 2,
            ..a_disk()
        }),
        Answer::Boot(BootDisk { firmware: None, portals: Vec::new(), ..a_disk() }),
        Answer::Capture(Capture { to: a_disk(), disk: Some("sda".into()) }),
        Answer::Capture(Capture { to: a_disk(), disk: None }),
        Answer::Heard,
        Answer::Restart { message: message() },
        Answer::Firmware { message: message() },
        Answer::Refused { message: message() },
        Answer::Failed { message: message(), seconds: 30 },
    ]
}

/// Returns whether a failure of this line leaves the blade somewhere.
fn cannot_end_the_script(line: &str) -> bool {
    line.starts_with(':')
        || line == "#!ipxe"
        || line.contains(" ||")
        || line.starts_with("goto ")
        || line == "exit 1"
}

#[test]
fn a_menu_offers_each_image_and_brings_its_token_back() {
    insta::assert_snapshot!(render(&Answer::Menu(a_menu()), BASE));
}

#[test]
fn a_bios_blade_boots_its_disk_by_both_portals() {
    insta::assert_snapshot!(render(&Answer::Boot(a_disk()), BASE));
}

#[test]
fn a_uefi_blade_is_told_its_loader_and_may_open_the_menu_first() {
    let mutual = Some(("target".to_owned(), Secret::new("s3cret".into())));
    let credentials = Credentials { mutual, ..a_disk().credentials };
    let disk = BootDisk { firmware: Some(Firmware::Uefi), key_seconds: 2, credentials, ..a_disk() };
    insta::assert_snapshot!(render(&Answer::Boot(disk), BASE));
}

#[test]
fn a_donor_logs_in_and_starts_what_copies_its_disk() {
    let capture = Capture { to: a_disk(), disk: Some("nvme0n1".into()) };
    insta::assert_snapshot!(render(&Answer::Capture(capture), BASE));
}

#[test]
fn a_blade_of_unknown_firmware_finds_out_itself() {
    let text = render(&Answer::Boot(BootDisk { firmware: None, ..a_disk() }), BASE);
    let places: Vec<usize> =
        ["iseq ${platform} efi && goto uefi ||\n", "sanboot --drive 0x80 iscsi:", ":uefi\n", "--filename"]
            .iter()
            .map(|part| text.find(part).unwrap())
            .collect();
    assert!(places.is_sorted(), "{text}");
}

#[test]
fn the_other_answers() {
    let wait = render(&Answer::Wait { message: "no image is assigned".into(), seconds: 5 }, BASE);
    let restart = render(&Answer::Restart { message: "the disk is ready".into() }, BASE);
    let refused = render(&Answer::Refused { message: "not your slot".into() }, BASE);
    insta::assert_snapshot!(format!("{}\n{wait}\n{restart}\n{refused}", start(BASE)));
}

#[test]
fn no_command_that_fails_ends_a_script() {
    let answers = every_answer("a message");
    for text in answers.iter().map(|answer| render(answer, BASE)).chain([start(BASE)]) {
        assert!(text.starts_with("#!ipxe\n") && text.ends_with('\n'), "{text}");
        for line in text.lines() {
            assert!(cannot_end_the_script(line), "{line:?} in\n{text}");
        }
        let last = text.lines().last().unwrap();
        assert!(last == "exit 1" || last.starts_with("goto "), "{text}");
    }
}

#[test]
fn every_goto_has_its_label() {
    for answer in every_answer("a message") {
        let text = render(&answer, BASE);
        for (_, rest) in text.match_indices("goto ").map(|(at, word)| text.split_at(at + word.len())) {
            let label = rest.split_whitespace().next().unwrap();
            assert_eq!(text.matches(&format!("\n:{label}\n")).count(), 1, "{label} in\n{text}");
        }
    }
}

#[test]
fn no_secret_is_part_of_a_url() {
    for answer in every_answer("a message") {
        for line in lines(&answer).iter().filter(|line| line.contains("http://")) {
            assert!(!line.contains("Zm9v") && !line.contains("s3cret"), "{line}");
        }
    }
}

#[test]
fn no_disk_is_hooked_while_the_menu_can_open() {
    let text = render(&Answer::Boot(BootDisk { key_seconds: 2, ..a_disk() }), BASE);
    assert!(text.find("prompt ").unwrap() < text.find("set initiator-iqn").unwrap());
    assert_eq!(text.matches("prompt ").count(), 1);
    assert!(!render(&Answer::Menu(a_menu()), BASE).contains("san"));
}

#[test]
fn a_default_that_the_menu_does_not_have_becomes_waiting() {
    for default in [Choice::Install("gone".parse().unwrap()), Choice::Disk] {
        let text = render(&Answer::Menu(Menu { default, has_disk: false, ..a_menu() }), BASE);
        assert!(text.contains("choose --default wait --timeout 30000 choice"), "{text}");
    }
    let install = Choice::Install("alpine@1".parse().unwrap());
    let text = render(&Answer::Menu(Menu { default: install, timeout: 0, ..a_menu() }), BASE);
    assert!(text.contains("choose --default install.alpine@1 choice"), "{text}");
}

#[test]
fn words_that_would_be_changed_are_refused_and_not_changed() {
    for bad in ["a b", "a\nb", "${x}", "-n", "", "pass#word", "a;b"] {
        let secret = Secret::new(bad.into());
        let credentials = Credentials { password: secret.clone(), ..a_disk().credentials };
        let mutual = Credentials { mutual: Some(("t".into(), secret)), ..a_disk().credentials };
        for credentials in [credentials, mutual] {
            let text = render(&Answer::Boot(BootDisk { credentials, ..a_disk() }), BASE);
            assert!(text.contains("cannot carry") && !text.contains("sanboot"), "{bad:?}: {text}");
        }
        let text = render(&Answer::Menu(Menu { token: bad.into(), ..a_menu() }), BASE);
        assert!(text.contains("cannot carry"), "{bad:?}: {text}");
    }
}

#[test]
fn a_message_stays_words() {
    let says = |message: &str| lines(&Answer::Firmware { message: message.into() })[1].clone();
    assert_eq!(
        says("create backstore 'x': No such file (os error 2)"),
        "echo create backstore 'x': No such file (os error 2) ||"
    );
    assert_eq!(says("a\nreboot"), "echo a reboot ||");
    assert_eq!(says("a || shell && b ; c # d"), "echo a ?? shell ?? b ? c ? d ||");
    assert_eq!(says("${password} \\"), "echo ??password? ? ||");
    assert_eq!(says("-n --help - --"), "echo _n __help - __ ||");
    assert_eq!(says(""), "echo  ||");
    assert!(says(&"é".repeat(5000)).len() < 400);
}

proptest! {
    #[test]
    fn whatever_the_message_the_lines_are_the_templates(message in any::<String>()) {
        for (plain, odd) in every_answer("x").iter().zip(every_answer(&message)) {
            let (plain, odd) = (lines(plain), lines(&odd));
            prop_assert_eq!(plain.len(), odd.len());
            for (plain, odd) in plain.iter().zip(&odd).filter(|(plain, odd)| plain != odd) {
                prop_assert_eq!(plain, "echo x ||");
                let words: Vec<&str> = odd.split(' ').collect();
                prop_assert_eq!(words.first(), Some(&"echo"));
                prop_assert_eq!(words.last(), Some(&"||"));
                let special = |w: &&&str| w.contains(['$', '{', '}', '#', '|', '&', ';', '\\']) || w.len() > 1 && w.starts_with('-');
                prop_assert_eq!(words[1..words.len() - 1].iter().find(special), None);
                let printable = odd.bytes().all(|c| (b' '..=b'~').contains(&c));
                prop_assert_eq!(printable, true);
            }
        }
    }
}
