//! `sheath images` and the short verbs of `sheath image`; importing has a file of its own.

use super::{
    ask,
    human::{self, NONE},
    session::Session,
    table::{FAINT, PLAIN, Table, WAITS},
};
use crate::{
    control::api::Request,
    error::Result,
    model::{ImageName, ImageRef},
    status::ImageView,
};

/// Lists the images.
pub(super) fn list(session: &mut Session<'_>) -> Result<()> {
    let images = ask::images(session.ask)?;
    session.answer(&images, |images, session| match images.is_empty() {
        true => "no images (sheath image import)\n".into(),
        false => session.table(&table(images)),
    })
}

fn table(images: &[ImageView]) -> Table {
    let headings = ["IMAGE", "STATE", "SIZE", "USED", "DISKS", "SPARES"];
    let mut table = Table::new(&headings).right(2).right(3).right(4).right(5);
    for image in images {
        let (state, style) = match (image.importing, image.published) {
            (true, _) => (image.progress.as_ref().map_or("importing".into(), super::import::short), WAITS),
            (false, true) if image.pinned && image.default => ("published, default, pinned".into(), PLAIN),
            (false, true) if image.default => ("published, default".into(), PLAIN),
            (false, true) => ("published".into(), PLAIN),
            (false, false) => ("unpublished".into(), FAINT),
        };
        // What is still to come has no size yet.
        let size = if image.size.0 == 0 { NONE.into() } else { image.size.human() };
        let cells = [
            image.image.to_string(),
            state,
            size,
            image.used_percent.map_or(NONE.into(), human::percent),
            image.disks.to_string(),
            image.spares.to_string(),
        ];
        table.row(style, cells);
    }
    table
}

/// Stops an import.
pub(super) fn cancel(session: &mut Session<'_>, name: ImageName) -> Result<()> {
    let message = ask::accepted(session.ask, Request::CancelImport { name })?;
    session.accepted(message)
}

/// Publishes an image, or takes it back.
pub(super) fn publish(session: &mut Session<'_>, image: ImageRef, published: bool) -> Result<()> {
    let message = ask::accepted(session.ask, Request::Publish { image, published })?;
    session.accepted(message)
}

/// Removes an image.
pub(super) fn remove(session: &mut Session<'_>, image: ImageRef, yes: bool) -> Result<()> {
    let question = format!("Delete image '{image}' for good?");
    session.confirm(yes, &format!("remove image '{image}'"), &question)?;
    let message = ask::accepted(session.ask, Request::RemoveImage { image })?;
    session.accepted(message)
}
