//! `sheath images` and the short verbs of `sheath image`; importing has a file of its own.

use super::{
    args::{PromoteArgs, ProofFirmware},
    ask,
    human::{self, NONE},
    session::Session,
    table::{FAINT, PLAIN, Table, WAITS},
};
use crate::{
    control::api::{PromoteRequest, Request},
    error::Result,
    host::ssh::Keys,
    model::{Bytes, Check, Consistency, ImageRef, Imported, Manifest, Origin, Parent},
    status::{ImageDetail, ImageView, Millis},
};

/// The origin of an image whose manifest was lost.
const LOST: &str = "not known any more";

/// Lists the images.
pub(super) fn list(session: &mut Session<'_>) -> Result<()> {
    let images = ask::images(session.ask)?;
    session.answer(&images, |images, session| match images.is_empty() {
        true => "no images (sheath image import)\n".into(),
        false => session.table(&table(images)),
    })
}

fn table(images: &[ImageView]) -> Table {
    // OWN is what removing the image frees; the rest of DATA is shared with clones and other versions.
    let headings = ["IMAGE", "STATE", "SIZE", "DATA", "OWN", "DISKS", "SPARES"];
    let mut table = Table::new(&headings).right(2).right(3).right(4).right(5).right(6);
    for image in images {
        let style = match (image.importing, image.published) {
            (true, _) => WAITS,
            (false, true) => PLAIN,
            (false, false) => FAINT,
        };
        // What is still to come has no size yet.
        let size = if image.size.0 == 0 { NONE.into() } else { image.size.human() };
        let cells = [
            image.image.to_string(),
            state(image),
            size,
            image.space.map_or(NONE.into(), |space| space.mapped.human()),
            image.space.map_or(NONE.into(), |space| space.own.human()),
            image.disks.to_string(),
            image.spares.to_string(),
        ];
        table.row(style, cells);
    }
    table
}

/// Stops what is done with an image.
pub(super) fn cancel(session: &mut Session<'_>, image: ImageRef) -> Result<()> {
    let message = ask::accepted(session.ask, Request::Cancel { image })?;
    session.accepted(message)
}

fn state(image: &ImageView) -> String {
    let word = match (image.importing, image.published) {
        (true, _) => return image.progress.as_ref().map_or("being made".into(), super::import::short),
        (false, true) if image.pinned && image.default => "published, default (pinned)",
        (false, true) if image.default => "published, default",
        (false, true) => "published",
        (false, false) if image.mbr => "unpublished, MBR (seal it)",
        (false, false) => "unpublished",
    };
    word.into()
}

/// Shows everything about an image.
pub(super) fn show(session: &mut Session<'_>, image: ImageRef) -> Result<()> {
    let detail = ask::image(session.ask, image)?;
    session.answer(&detail, |detail, session| text(detail, session.now))
}

/// Returns everything about an image as lines.
pub(super) fn text(detail: &ImageDetail, now: Millis) -> String {
    let view = &detail.view;
    let mut lines = vec![
        ("image", view.image.to_string()),
        ("state", state(view)),
        ("size", view.size.human()),
        ("space", space_line(detail)),
        ("spares", view.spares.to_string()),
    ];
    match &detail.manifest {
        Some(manifest) => lines.extend(manifest_lines(manifest, view.published, now)),
        None => lines.push(("origin", LOST.into())),
    }
    if detail.clones.is_empty() {
        lines.push(("disks", NONE.into()));
    }
    lines.extend(detail.clones.iter().map(|disk| {
        let id = disk.volume.lv_name();
        ("disk", format!("slot {}, blade {} ({id})", disk.slot, disk.blade))
    }));
    lines.into_iter().map(|(name, value)| format!("{name:<10} {value}\n")).collect()
}

fn space_line(detail: &ImageDetail) -> String {
    match (&detail.view.space, &detail.space_unknown) {
        (Some(space), _) => {
            let shared = Bytes(space.mapped.0.saturating_sub(space.own.0));
            let (mapped, own) = (space.mapped.human(), space.own.human());
            format!("{mapped} of data, {} shared, {own} its own: freed when it is removed", shared.human())
        }
        (None, Some(why)) => format!("not known: {}", human::tame(why)),
        (None, None) => NONE.into(),
    }
}

fn manifest_lines(manifest: &Manifest, published: bool, now: Millis) -> Vec<(&'static str, String)> {
    let mut lines = vec![];
    if manifest.origin != Origin::Unknown {
        lines.push(("made", human::when(now, manifest.made)));
    }
    if let Some(at) = manifest.unproved.filter(|_| published) {
        lines.push(("published", format!("unproved by the operator, {}", human::ago(now, at))));
    }
    match &manifest.origin {
        Origin::Import(import) => lines.extend(import_lines(import)),
        Origin::Blade(parent) => lines.push(("origin", parent_line(parent))),
        Origin::Unknown => lines.push(("origin", LOST.into())),
    }
    lines.extend(manifest.system.as_deref().map(|system| ("system", human::tame(system))));
    lines.extend(manifest.kernel.as_deref().map(|kernel| ("kernel", human::tame(kernel))));
    if !manifest.firmware.is_empty() {
        let all: Vec<_> = manifest.firmware.iter().map(ToString::to_string).collect();
        lines.push(("firmware", all.join(", ")));
    }
    lines.extend(manifest.checks.iter().map(|check| ("check", check_line(check, now))));
    lines
}

fn import_lines(import: &Imported) -> Vec<(&'static str, String)> {
    let format =
        import.format.as_deref().map_or(String::new(), |format| format!(" ({})", human::tame(format)));
    let size = import.size.map_or(String::new(), |size| format!(", {}", size.human()));
    let mut lines = vec![("origin", format!("{}{format}{size}", human::tame(&import.source)))];
    lines.extend(import.sha256.as_deref().map(|digest| ("sha256", human::tame(digest))));
    lines.extend(import.caution.as_deref().map(|caution| ("caution", human::tame(caution))));
    lines
}

fn parent_line(parent: &Parent) -> String {
    let Parent { blade, slot, image, .. } = parent;
    let how = match parent.consistency {
        Consistency::Clean => "while it was off",
        Consistency::Crash => "while it was running: as after a power cut",
        Consistency::Frozen => "while it was running, its file systems frozen",
    };
    format!("the disk of blade {blade} in slot {slot}, made from '{image}', {how}")
}

fn check_line(check: &Check, now: Millis) -> String {
    let how = if check.passed { "passed" } else { "failed" };
    format!("{} {how}, {}", human::tame(&check.what), human::ago(now, check.at))
}

/// Publishes an image.
pub(super) fn publish(session: &mut Session<'_>, image: ImageRef, unproved: bool) -> Result<()> {
    let message = ask::accepted(session.ask, Request::Publish { image, published: true, unproved })?;
    session.accepted(message)
}

/// Takes an image back.
pub(super) fn unpublish(session: &mut Session<'_>, image: ImageRef) -> Result<()> {
    let message = ask::accepted(session.ask, Request::Publish { image, published: false, unproved: false })?;
    session.accepted(message)
}

/// Makes a version the default one of its family.
pub(super) fn default(session: &mut Session<'_>, image: ImageRef) -> Result<()> {
    let message = ask::accepted(session.ask, Request::DefaultImage { image })?;
    session.accepted(message)
}

/// Makes the disk of a blade an image, or shows what that would be.
pub(super) fn promote(session: &mut Session<'_>, args: &PromoteArgs) -> Result<()> {
    let PromoteArgs { slot, name, running, publish, unproved, offer, dry_run, freeze, freeze_as } =
        args.clone();
    let freeze = freeze.then_some(freeze_as);
    let request =
        Request::Promote(PromoteRequest { slot, name, running, publish, dry_run, unproved, freeze });
    if dry_run {
        return super::plan::print(session, &ask::planned(session.ask, request)?);
    }
    let message = ask::accepted(session.ask, request)?;
    if offer {
        return super::offer::offer(session, &args.name.clone().into(), ProofFirmware::Both);
    }
    session.accepted(message)
}

/// Shows the appliance's own SSH key, which is made where there is none: other machines are to let it in.
pub(super) fn key(session: &mut Session<'_>) -> Result<()> {
    let line = Keys::default().create()?;
    session.answer(&serde_json::json!({ "public_key": line }), |_, _| format!("{line}\n"))
}

/// Removes an image.
pub(super) fn remove(session: &mut Session<'_>, image: ImageRef, yes: bool) -> Result<()> {
    let question = format!("Delete image '{image}' for good?");
    session.confirm(yes, &format!("remove image '{image}'"), &question)?;
    let message = ask::accepted(session.ask, Request::RemoveImage { image })?;
    session.accepted(message)
}
