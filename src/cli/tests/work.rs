//! Work on images: phases as they come, findings as a table, the exit status that a script goes by.

use super::*;
use crate::{
    model::{Change, Checkup, Finding, Judgement, Proof, Sealing},
    status::{Phase, Task, WorkProgress, WorkResult, WorkView},
};

fn view(names: &[&str], progress: WorkProgress) -> WorkView {
    let phases = names.iter().map(|name| Phase { name: (*name).into(), millis: 1_500 }).collect();
    WorkView { task: Task::Check, begun: NOW, phases, progress }
}

fn finding(about: &str, judgement: Judgement, text: &str, fix: Option<&str>) -> Finding {
    let (about, text, fix) = (about.into(), text.into(), fix.map(str::to_owned));
    Finding { about, judgement, text, fix, firmware: None, fatal: judgement == Judgement::Missing }
}

fn checkup(findings: Vec<Finding>) -> WorkView {
    let kernel = Some("6.12.38-amd64".to_owned());
    let checkup =
        Checkup { system: Some("Debian\u{1b}[2J 13".into()), kernel, bios: true, uefi: false, findings };
    view(
        &["starting the guest", "looking"],
        WorkProgress::Done { result: Box::new(WorkResult::Checkup(checkup)) },
    )
}

fn agent(works: Vec<WorkView>) -> Agent {
    Agent { works: RefCell::new(works), ..Agent::default() }
}

#[test]
fn a_check_shows_its_phases_once_and_its_findings_as_a_table() {
    let findings = vec![
        finding("root", Judgement::Ok, "partition 3, ext4", None),
        finding("uefi", Judgement::Missing, "no \\EFI\\BOOT\\BOOTX64.EFI", Some("sheath image seal")),
        finding("bios", Judgement::Ok, "GRUB", None),
        finding("console", Judgement::Note, "none", None),
    ];
    let running = view(&["starting the guest"], WorkProgress::Running);
    let agent = agent(vec![running.clone(), running, checkup(findings)]);
    let ran = run(&agent, "image check debian13", None);
    assert_eq!(
        ran.result.unwrap_err().kind(),
        Kind::Failed,
        "a script must see that something is to be mended"
    );
    insta::assert_snapshot!(format!("{}--\n{}", ran.out, ran.err));
}

#[test]
fn a_clean_check_succeeds_and_its_json_is_the_apis_type() {
    let clean = checkup(vec![finding("root", Judgement::Ok, "partition 3, ext4", None)]);
    let ran = run(&agent(vec![clean.clone()]), "--json image check debian13", None);
    ran.result.unwrap();
    assert_eq!(ran.err, "");
    let WorkProgress::Done { result } = clean.progress else { panic!("it is done") };
    let WorkResult::Checkup(checkup) = *result else { panic!("a checkup") };
    assert_eq!(serde_json::from_str::<Checkup>(&ran.out).unwrap(), checkup);
}

#[test]
fn a_failed_work_fails_with_the_kind_that_the_agent_says() {
    let failed =
        WorkProgress::Failed { error: "there is no '/usr/sbin/mkinitramfs'".into(), kind: Kind::Missing };
    let error = run(&agent(vec![view(&[], failed)]), "image check x", None).result.unwrap_err();
    assert_eq!(
        (error.kind(), error.chain().as_str()),
        (Kind::Missing, "there is no '/usr/sbin/mkinitramfs'")
    );
}

#[test]
fn a_seal_lists_its_changes_and_names_the_version_that_it_made() {
    let change = Change { about: "machine-id".into(), text: "/etc/machine-id emptied".into() };
    let findings =
        vec![finding("fstab", Judgement::Wrong, "disks by their place: /dev/sda2 /boot/efi", Some("x"))];
    let checkup = Checkup { system: None, kernel: None, bios: true, uefi: true, findings };
    let done = |changes: &[Change], image: Option<&str>, checkup: Option<Checkup>| {
        let (changes, image) = (changes.to_vec(), image.map(|image| image.parse().unwrap()));
        let result = WorkResult::Sealing(Sealing { changes, image, checkup });
        let view = view(&["sealing"], WorkProgress::Done { result: Box::new(result) });
        WorkView { task: Task::Seal { dry_run: false }, ..view }
    };
    let shown = |words: &str, work: WorkView| {
        let ran = run(&agent(vec![work]), words, None);
        ran.result.unwrap();
        ran.out
    };
    let sealed =
        shown("image seal debian13", done(std::slice::from_ref(&change), Some("debian13@4"), Some(checkup)));
    let preview = shown("image seal debian13 --dry-run", done(&[change], None, None));
    let again = shown("image seal debian13@4", done(&[], None, None));
    insta::assert_snapshot!(format!("{sealed}--\n{preview}--\n{again}"));
}

fn sealing(changes: usize, image: Option<&str>, findings: Vec<Finding>) -> WorkView {
    let change = Change { about: "machine-id".into(), text: "/etc/machine-id emptied".into() };
    let checkup = Checkup { system: None, kernel: None, bios: true, uefi: true, findings };
    let image = image.map(|image| image.parse().unwrap());
    let sealing = Sealing { changes: vec![change; changes], image, checkup: Some(checkup) };
    view(&["sealing"], WorkProgress::Done { result: Box::new(WorkResult::Sealing(sealing)) })
}

fn proof(firmware: Firmware) -> WorkView {
    let proof = Proof { firmware, millis: 90_000, log: "/l".into() };
    view(&["booting over the network"], WorkProgress::Done { result: Box::new(WorkResult::Proof(proof)) })
}

#[test]
fn an_image_is_offered_sealed_and_proved_by_each_firmware() {
    let works = vec![sealing(1, Some("debian13@9"), vec![]), proof(Firmware::Bios), proof(Firmware::Uefi)];
    let agent = agent(works);
    let ran = run(&agent, "image offer debian13@8", None);
    ran.result.unwrap();
    assert_eq!(ran.out, "image 'debian13@9' is offered to blades: 1 change, boots by BIOS and UEFI\n");
    let asked = agent.asked.borrow();
    let published =
        Request::Publish { image: "debian13@9".parse().unwrap(), published: true, unproved: false };
    assert_eq!(asked.last(), Some(&published), "never past the proof");
}

#[test]
fn an_image_that_sealing_cannot_mend_is_not_offered() {
    let left = finding("fstab", Judgement::Wrong, "disks by their place", Some("x"));
    let agent = agent(vec![sealing(0, None, vec![left])]);
    let error = run(&agent, "image offer debian13@8", None).result.unwrap_err();
    assert!(error.to_string().contains("lacks what sealing cannot give it: fstab"), "{error}");
    assert!(!agent.asked.borrow().iter().any(|asked| matches!(asked, Request::Publish { .. })));
}

#[test]
fn an_image_for_one_firmware_is_offered_for_that_and_not_for_the_other() {
    let mut left = finding("uefi", Judgement::Missing, "no EFI system partition", Some("x"));
    left.firmware = Some(Firmware::Uefi);
    let sealed = || {
        let mut view = sealing(0, None, vec![left.clone()]);
        let WorkProgress::Done { result } = &mut view.progress else { panic!("it is done") };
        let WorkResult::Sealing(Sealing { checkup: Some(checkup), .. }) = &mut **result else {
            panic!("sealed")
        };
        checkup.uefi = false;
        view
    };
    let agent_of = |works| agent(works);
    for words in ["image offer debian13@8", "image offer debian13@8 --firmware bios"] {
        let ran = run(&agent_of(vec![sealed(), proof(Firmware::Bios)]), words, None);
        ran.result.unwrap();
        assert!(ran.out.ends_with("boots by BIOS\n"), "{}", ran.out);
    }
    let refused = run(&agent_of(vec![sealed()]), "image offer debian13@8 --firmware uefi", None);
    assert!(refused.result.unwrap_err().to_string().contains("cannot give it: uefi"));
}

#[test]
fn what_does_not_boot_is_not_offered() {
    let failed = WorkProgress::Failed { error: "no login prompt".into(), kind: Kind::Failed };
    let agent = agent(vec![sealing(0, None, vec![]), view(&[], failed)]);
    let error = run(&agent, "image offer debian13@8", None).result.unwrap_err();
    assert_eq!(error.to_string(), "no login prompt");
    assert!(!agent.asked.borrow().iter().any(|asked| matches!(asked, Request::Publish { .. })));
}
