//! Images, as the command line shows them.

use super::{Agent, NOW, run, shown};
use crate::{
    control::api::Request,
    error::{Kind, Result},
    model::{Bytes, Check, Consistency, Firmware, Imported, Manifest, Origin, Parent, VolumeId},
    observed::Space,
    status::{CloneView, ImageDetail, ImageView, ImportProgress, Pace, ProofLog},
};

pub(super) fn images() -> Vec<ImageView> {
    let debian = ImageView {
        image: "debian13@2".parse().unwrap(),
        default: true,
        pinned: false,
        published: true,
        importing: false,
        mbr: false,
        size: Bytes::gib(3),
        space: Some(Space { mapped: Bytes::mib(1200), own: Bytes::mib(300) }),
        disks: 2,
        spares: 1,
        progress: None,
    };
    let progress =
        |permyriad, left| Some(ImportProgress::Writing { permyriad, pace: Pace { rate: None, left } });
    let fresh = ImageView {
        image: "rocky".parse().unwrap(),
        importing: true,
        mbr: false,
        space: None,
        progress: progress(4321, Some(150)),
        ..debian.clone()
    };
    let coming =
        ImageView { image: "suse".parse().unwrap(), size: Bytes(0), progress: None, ..fresh.clone() };
    vec![debian, fresh, coming]
}

/// Returns a promoted image that a disk came from.
pub(super) fn detail() -> ImageDetail {
    let (blade, slot) = ("b-525400123456".parse().unwrap(), "1".parse().unwrap());
    let image = images().remove(0).image;
    let parent = Parent {
        blade,
        slot,
        disk: VolumeId(0xfeed),
        image: "debian13".parse().unwrap(),
        consistency: Consistency::Crash,
    };
    let check = Check { what: "proved\u{1b}".into(), passed: true, at: NOW - 60_000, lines: vec![] };
    let mut manifest = Manifest::new(image, NOW - 7_200_000, Origin::Blade(parent));
    manifest.system = Some("Debian GNU/Linux 13 (trixie)\n".into());
    manifest.kernel = Some("6.12.0-1-amd64".into());
    manifest.firmware = [Firmware::Bios, Firmware::Uefi].into();
    manifest.checks = vec![check];
    let clone = CloneView { blade, slot, volume: VolumeId(0xbeef) };
    ImageDetail {
        view: images().remove(0),
        manifest: Some(manifest),
        clones: vec![clone],
        space_unknown: None,
    }
}

/// Returns what a guest has written that means no good.
pub(super) fn log() -> ProofLog {
    let (image, firmware) = ("debian13@2".parse().unwrap(), Firmware::Uefi);
    ProofLog { image, firmware, at: NOW - 60_000, text: "iPXE\r\n\u{1b}[2J\u{7}debian login: ".into() }
}

#[test]
fn a_proofs_log_is_harmless_on_a_terminal_and_as_it_was_written_in_json() {
    let agent = Agent::default();
    let ran = run(&agent, "image log debian13@2 --firmware uefi", None);
    ran.result.unwrap();
    assert_eq!(ran.out, "iPXE\n\\u{7}debian login: \n");
    assert_eq!(ran.err, "the last proof of image 'debian13@2' by UEFI, 60 s ago:\n");
    let asked = Request::ImageLog { image: "debian13@2".parse().unwrap(), firmware: Some(Firmware::Uefi) };
    assert_eq!(*agent.asked.borrow(), [asked]);
    assert_eq!(serde_json::from_str::<ProofLog>(&shown("image log debian13 --json")).unwrap(), log());
}

#[test]
fn an_imported_image_says_where_from_and_an_unknown_one_that_nobody_knows() {
    let mut detail = detail();
    let text = shown("image show debian13");
    assert!(
        text.contains("while it was running: as after a power cut") && !text.contains('\u{1b}'),
        "{text}"
    );
    let manifest = detail.manifest.as_mut().unwrap();
    manifest.unproved = Some(NOW - 180_000);
    manifest.origin = Origin::Import(Imported {
        source: "https://host/web.qcow2".into(),
        format: Some("qcow2".into()),
        size: Some(Bytes::mib(300)),
        sha256: Some("00ff".into()),
        caution: None,
    });
    let text = super::super::images::text(&detail, NOW);
    assert!(
        text.contains("origin     https://host/web.qcow2 (qcow2), 300.0 MiB\nsha256     00ff\n"),
        "{text}"
    );
    assert!(text.contains("published  unproved by the operator, 3 min ago\n"), "{text}");
    detail.view.published = false;
    assert!(!super::super::images::text(&detail, NOW).contains("unproved"), "it was taken back");
    detail.view.mbr = true;
    let text = super::super::images::text(&detail, NOW);
    assert!(text.contains("state      unpublished, MBR (seal it)\n"), "{text}");
    (detail.manifest, detail.view.space, detail.clones) = (None, None, vec![]);
    detail.space_unknown = Some("thin_ls is not installed".into());
    let text = super::super::images::text(&detail, NOW);
    assert!(text.contains("origin     not known any more\n"), "{text}");
    assert!(text.contains("space      not known: thin_ls is not installed\n"), "{text}");
}

/// Returns the exported bytes, or the failure, and what is in the folder afterwards.
fn exported(agent: &Agent, more: &str) -> (Result<Vec<u8>>, usize) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("web.img");
    let ran = run(agent, &format!("image export debian13@2 {} {more}", file.display()), None);
    let bytes = ran.result.map(|()| std::fs::read(&file).unwrap());
    (bytes, std::fs::read_dir(dir.path()).unwrap().count())
}

#[test]
fn an_exported_image_is_the_whole_disk_or_no_file_at_all() {
    let (bytes, files) = exported(&Agent::default(), "");
    let bytes = bytes.unwrap();
    assert_eq!((bytes.len(), &bytes[..4], bytes[(1 << 20) + 4095], files), (2 << 20, &b"boot"[..], 7, 1));
    let (bytes, _) = exported(&Agent::default(), "--format qcow2");
    assert!(bytes.unwrap().starts_with(b"QFI\xfb\0\0\0\x03"));
    let (cut, files) = exported(&Agent { cut_off: true, ..Agent::default() }, "");
    assert_eq!((cut.unwrap_err().kind(), files), (Kind::Failed, 0), "nothing is left behind");
}

#[test]
fn a_file_that_is_there_is_replaced_only_by_force() {
    let there = tempfile::NamedTempFile::new().unwrap();
    let export = |more: &str| {
        let words = format!("image export debian13 {} {more}", there.path().display());
        run(&Agent::default(), &words, None).result
    };
    let refused = export("").unwrap_err();
    assert_eq!(refused.kind(), Kind::Exists);
    assert!(refused.chain().contains("--force"), "{}", refused.chain());
    assert_eq!(there.as_file().metadata().unwrap().len(), 0);
    export("--force").unwrap();
    assert_eq!(std::fs::metadata(there.path()).unwrap().len(), 2 << 20);
}
