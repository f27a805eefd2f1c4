//! What a command needs of the agent: one question, one answer, and a stream of events.
//!
//! A trait, because the tests' stand-in is its second implementation. Answers come as [`Reply`]; each command takes its
//! own kind out of it here.

use std::ops::ControlFlow;

use crate::{
    control::api::{Reply, Request},
    error::{Error, Kind, Result},
    model::ImageRef,
    status::{
        BladeView, Donors, EventView, ImageDetail, ImageView, ImportProgress, PlanView, ProofLog, Sessions,
        Status, Targets, WorkView,
    },
};

/// The agent, as the command line sees it.
pub trait Ask {
    /// Returns the agent's answer.
    ///
    /// # Errors
    /// The agent's refusal with its kind, or why it could not be asked.
    fn ask(&self, request: Request) -> Result<Reply>;

    /// Hands over an image's content, piece by piece, and returns its size.
    ///
    /// # Errors
    /// As [`Ask::ask`]; else what `each` says.
    fn content(&self, image: &ImageRef, _each: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<u64> {
        Err(Error::new(Kind::Missing, format!("read image '{image}': nobody has its content")))
    }

    /// Hands over the recent events, and with `follow` all that come after, until `each` breaks.
    ///
    /// # Errors
    /// As [`Ask::ask`]; with `follow` also when the agent goes away.
    fn events(&self, follow: bool, each: &mut dyn FnMut(EventView) -> ControlFlow<()>) -> Result<()>;
}

/// Returns the error for an answer of the wrong kind: agent and command line are not of the same version.
fn mismatch(wanted: &str) -> Error {
    Error::new(Kind::Failed, format!("read the agent's answer: it is not {wanted}"))
}

/// Returns the answer to [`Request::Status`].
pub(super) fn status(ask: &dyn Ask) -> Result<Status> {
    match ask.ask(Request::Status)? {
        Reply::Status(status) => Ok(*status),
        _ => Err(mismatch("a status")),
    }
}

/// Returns the answer to [`Request::Blades`].
pub(super) fn blades(ask: &dyn Ask) -> Result<Vec<BladeView>> {
    match ask.ask(Request::Blades)? {
        Reply::Blades(blades) => Ok(blades),
        other => empty(&other).ok_or_else(|| mismatch("a list of blades")),
    }
}

/// Returns the answer to [`Request::Images`].
pub(super) fn images(ask: &dyn Ask) -> Result<Vec<ImageView>> {
    match ask.ask(Request::Images)? {
        Reply::Images(images) => Ok(images),
        other => empty(&other).ok_or_else(|| mismatch("a list of images")),
    }
}

/// Returns the answer to [`Request::Image`].
pub(super) fn image(ask: &dyn Ask, image: ImageRef) -> Result<ImageDetail> {
    match ask.ask(Request::Image { image })? {
        Reply::Image(image) => Ok(*image),
        _ => Err(mismatch("an image")),
    }
}

/// Returns the answer to [`Request::Targets`].
pub(super) fn targets(ask: &dyn Ask) -> Result<Targets> {
    match ask.ask(Request::Targets)? {
        Reply::Targets(targets) => Ok(targets),
        other => empty(&other).ok_or_else(|| mismatch("a list of targets")),
    }
}

/// Returns the answer to [`Request::Plan`], or to a request that is only to say what it would do.
pub(super) fn planned(ask: &dyn Ask, request: Request) -> Result<Vec<PlanView>> {
    match ask.ask(request)? {
        Reply::Plan(plan) => Ok(plan),
        other => empty(&other).ok_or_else(|| mismatch("a plan")),
    }
}

/// Returns the answer to [`Request::Sessions`].
pub(super) fn sessions(ask: &dyn Ask) -> Result<Sessions> {
    match ask.ask(Request::Sessions)? {
        Reply::Sessions(sessions) => Ok(sessions),
        _ => Err(mismatch("a list of sessions")),
    }
}

/// Returns the answer to [`Request::Donors`].
pub(super) fn donors(ask: &dyn Ask) -> Result<Donors> {
    match ask.ask(Request::Donors)? {
        Reply::Donors(donors) => Ok(donors),
        other => empty(&other).ok_or_else(|| mismatch("a list of donors' disks")),
    }
}

/// Returns the answer to [`Request::ImportProgress`].
pub(super) fn progress(ask: &dyn Ask, request: Request) -> Result<ImportProgress> {
    match ask.ask(request)? {
        Reply::ImportProgress(progress) => Ok(progress),
        _ => Err(mismatch("the progress of an import")),
    }
}

/// Returns the answer to [`Request::WorkProgress`].
pub(super) fn work(ask: &dyn Ask, request: Request) -> Result<WorkView> {
    match ask.ask(request)? {
        Reply::Work(view) => Ok(*view),
        _ => Err(mismatch("the progress of a work")),
    }
}

/// Returns the answer to [`Request::ImageLog`].
pub(super) fn log(ask: &dyn Ask, request: Request) -> Result<ProofLog> {
    match ask.ask(request)? {
        Reply::ImageLog(log) => Ok(*log),
        _ => Err(mismatch("a proof's log")),
    }
}

/// Returns the message of an accepted request.
pub(super) fn accepted(ask: &dyn Ask, request: Request) -> Result<String> {
    match ask.ask(request)? {
        Reply::Accepted { message } => Ok(message),
        _ => Err(mismatch("an acceptance")),
    }
}

/// An empty list looks the same whatever it is a list of, so a reader may have taken it for another kind.
fn empty<T>(reply: &Reply) -> Option<Vec<T>> {
    let none = match reply {
        Reply::Blades(list) => list.is_empty(),
        Reply::Images(list) => list.is_empty(),
        Reply::Targets(list) => list.is_empty(),
        Reply::Plan(list) => list.is_empty(),
        Reply::Donors(list) => list.is_empty(),
        Reply::Status(_)
        | Reply::ImportProgress(_)
        | Reply::Accepted { .. }
        | Reply::Sessions(_)
        | Reply::Work(_)
        | Reply::Image(_)
        | Reply::ImageLog(_) => false,
    };
    none.then(Vec::new)
}
