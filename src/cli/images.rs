//! `sheath images` and the short verbs of `sheath image`; importing has a file of its own.

use super::{
    ask,
    human::{self, NONE},
    session::Session,
    table::{FAINT, PLAIN, Table, WAITS},
};
use crate::{control::api::Request, error::Result, model::ImageRef, status::ImageView};

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
            (true, _) => ("importing", WAITS),
            (false, true) if image.pinned && image.default => ("published, default, pinned", PLAIN),
            (false, true) if image.default => ("published, default", PLAIN),
            (false, true) => ("published", PLAIN),
            (false, false) => ("unpublished", FAINT),
        };
        let cells = [
            image.image.to_string(),
            state.into(),
            image.size.human(),
            image.used_percent.map_or(NONE.into(), human::percent),
            image.disks.to_string(),
            image.spares.to_string(),
        ];
        table.row(style, cells);
    }
    table
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
