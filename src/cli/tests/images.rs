//! Images, as the command line shows them.

use super::{NOW, shown};
use crate::{
    model::{Bytes, Check, Consistency, Firmware, Imported, Manifest, Origin, Parent, VolumeId},
    observed::Space,
    status::{CloneView, ImageDetail, ImageView, ImportProgress, Pace},
};

pub(super) fn images() -> Vec<ImageView> {
    let debian = ImageView {
        image: "debian13@2".parse().unwrap(),
        default: true,
        pinned: false,
        published: true,
        importing: false,
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

#[test]
fn an_imported_image_says_where_from_and_an_unknown_one_that_nobody_knows() {
    let mut detail = detail();
    let text = shown("image show debian13");
    assert!(
        text.contains("while it was running: as after a power cut") && !text.contains('\u{1b}'),
        "{text}"
    );
    let manifest = detail.manifest.as_mut().unwrap();
    manifest.origin = Origin::Import(Imported {
        source: "https://host/web.qcow2".into(),
        format: Some("qcow2".into()),
        size: Some(Bytes::mib(300)),
        sha256: Some("00ff".into()),
    });
    let text = super::super::images::text(&detail, NOW);
    assert!(
        text.contains("origin     https://host/web.qcow2 (qcow2), 300.0 MiB\nsha256     00ff\n"),
        "{text}"
    );
    (detail.manifest, detail.view.space, detail.clones) = (None, None, vec![]);
    detail.space_unknown = Some("thin_ls is not installed".into());
    let text = super::super::images::text(&detail, NOW);
    assert!(text.contains("origin     not known any more\n"), "{text}");
    assert!(text.contains("space      not known: thin_ls is not installed\n"), "{text}");
}
