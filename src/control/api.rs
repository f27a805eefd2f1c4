//! The control API's words: requests, replies, and where they live in HTTP.
//!
//! | method and path | request | reply |
//! |---|---|---|
//! | `GET /v1/status` | [`Request::Status`] | [`Reply::Status`] |
//! | `GET /v1/blades` | [`Request::Blades`] | [`Reply::Blades`] |
//! | `GET /v1/images` | [`Request::Images`] | [`Reply::Images`] |
//! | `GET /v1/targets` | [`Request::Targets`] | [`Reply::Targets`] |
//! | `GET /v1/plan` | [`Request::Plan`] | [`Reply::Plan`] |
//! | `POST /v1/blades/{slot}/install` | [`Request::Install`] | [`Reply::Accepted`] |
//! | `POST /v1/blades/{slot}/release` | [`Request::Release`] | [`Reply::Accepted`] |
//! | `POST /v1/blades/{slot}/move` | [`Request::Move`] | [`Reply::Accepted`] |
//! | `POST /v1/blades/{slot}/apply` | [`Request::Apply`] | [`Reply::Accepted`] |
//! | `POST /v1/images` | [`Request::Import`] | [`Reply::Accepted`] |
//! | `GET /v1/images/{name}/import` | [`Request::ImportProgress`] | [`Reply::ImportProgress`] |
//! | `GET /v1/images/{name}/import/next` | [`Request::NextProgress`] | [`Reply::ImportProgress`], when it has ended, or a second later |
//! | `POST /v1/images/{name}/publish` | [`Request::Publish`] | [`Reply::Accepted`] |
//! | `DELETE /v1/images/{name}` | [`Request::RemoveImage`] | [`Reply::Accepted`] |
//! | `POST /v1/reload` | [`Request::Reload`] | [`Reply::Accepted`] |
//! | `GET /v1/sessions` | [`Request::Sessions`] | [`Reply::Sessions`] |
//! | `POST /v1/sessions/{slot}/drop` | [`Request::DropSession`] | [`Reply::Accepted`] |
//! | `POST /v1/blades/{slot}/grow` | [`Request::Grow`] | [`Reply::Accepted`], or [`Reply::Plan`] for a dry run |
//! | `POST /v1/adopt` | [`Request::Adopt`] | [`Reply::Accepted`], or [`Reply::Plan`] for a dry run |
//! | `POST /v1/images/{name}/work` | [`Request::Work`] | [`Reply::Accepted`] |
//! | `GET /v1/images/{name}/work` | [`Request::WorkProgress`] | [`Reply::Work`] |
//! | `DELETE /v1/images/{image}/work` | [`Request::Cancel`] | [`Reply::Accepted`] |
//! | `GET /v1/donors` | [`Request::Donors`] | [`Reply::Donors`] |
//! | `GET /v1/images/{image}` | [`Request::Image`] | [`Reply::Image`] |
//! | `POST /v1/images/{image}/default` | [`Request::DefaultImage`] | [`Reply::Accepted`] |
//! | `POST /v1/promote` | [`Request::Promote`] | [`Reply::Accepted`], or [`Reply::Plan`] for a dry run |
//! | `GET /v1/images/{image}/log`, `…/log/bios`, `…/log/uefi` | [`Request::ImageLog`] | [`Reply::ImageLog`] |
//! | `GET /v1/images/{image}/content` | – | a stream of [`super::content`] |
//! | `GET /v1/events` | – | a stream of server-sent events, each an [`EventView`] |
//!
//! A refusal is an HTTP status of 4xx or 5xx with a [`Refusal`] as its body.

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Kind},
    model::{BladeId, Firmware, Growth, ImageId, ImageName, ImageRef, Iqn, Slot},
    status::{
        BladeView, Donors, EventView, ImageDetail, ImageView, ImportProgress, PlanView, ProofLog, Sessions,
        Status, Targets, Task, WorkView,
    },
};

/// Where the operator's socket is.
pub const SOCKET: &str = "/run/sheath/control.sock";

/// One request of an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// How the agent is.
    Status,
    /// All blades.
    Blades,
    /// All images.
    Images,
    /// All targets of the machine, ours and foreign.
    Targets,
    /// What would be changed now.
    Plan,
    /// Give the blade in this slot a disk made from the image.
    Install {
        /// The slot.
        slot: Slot,
        /// The image.
        image: ImageRef,
        /// Consent to delete the disk that it has.
        replace: bool,
    },
    /// Take the disk of the slot's blade away: its target goes; the volume is deleted.
    Release {
        /// The slot.
        slot: Slot,
    },
    /// Bind the disk of this blade to the slot that the blade is in now.
    Move {
        /// The slot.
        slot: Slot,
        /// The blade.
        blade: BladeId,
    },
    /// Do what waits until the blade in this slot is off: consent to end its session.
    Apply {
        /// The slot.
        slot: Slot,
    },
    /// Import an image.
    Import(ImportRequest),
    /// How far the import of this image is.
    ImportProgress {
        /// The image.
        name: ImageName,
    },
    /// How far an import is, as soon as it has ended, and after a second or two in any case.
    NextProgress {
        /// The image.
        name: ImageName,
    },
    /// Publish an image, or take it back.
    Publish {
        /// The image: of a family the newest version, where none is named.
        image: ImageRef,
        /// Whether it may be chosen from now on.
        published: bool,
        /// Consent to publish what is not proved to boot.
        #[serde(default)]
        unproved: bool,
    },
    /// Remove an image that no disk came from.
    RemoveImage {
        /// The image; its version has to be named where there are several.
        image: ImageRef,
    },
    /// Read the configuration again.
    Reload,
    /// Who is logged in.
    Sessions,
    /// Close the session of the slot's blade; it may log in again. The answer comes when it is closed.
    DropSession {
        /// The slot.
        slot: Slot,
    },
    /// Everything about one image.
    Image {
        /// The image.
        image: ImageRef,
    },
    /// Make a version its family's default one; without a version: the newest published one again.
    DefaultImage {
        /// The image.
        image: ImageRef,
    },
    /// Make the disk of the slot's blade the next version of an image. The answer comes when it is.
    Promote(PromoteRequest),
    /// Make the disk of the slot's blade larger. The answer comes when it is.
    Grow {
        /// The slot.
        slot: Slot,
        /// How large.
        size: Growth,
        /// Only say what would be done.
        dry_run: bool,
    },
    /// Make a foreign target's volume the disk of a blade. The answer comes when it is.
    Adopt(Adopt),
    /// Do something with an image in the workshop.
    Work {
        /// The image.
        image: ImageRef,
        /// What.
        task: Task,
    },
    /// How far the last work on this image is.
    WorkProgress {
        /// The image.
        image: ImageRef,
    },
    /// Stop the import of this image or, where none runs, the work on it; nothing is left of either.
    Cancel {
        /// The image; a name stands for whichever of its versions something is done with.
        image: ImageRef,
    },
    /// The disks that are plugged in here and are not the appliance's own.
    Donors,
    /// What stood on the console of the last proof of this image.
    ImageLog {
        /// The image.
        image: ImageRef,
        /// Only of proofs by this firmware.
        firmware: Option<Firmware>,
    },
}

/// Which foreign target becomes whose disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adopt {
    /// The foreign target.
    pub target: Iqn,
    /// The slot that the disk belongs to from then on.
    pub slot: Slot,
    /// The blade; `None` for the one that was seen in the slot.
    #[serde(default)]
    pub blade: Option<BladeId>,
    /// What the disk is said to come from: a name for people and for its settings. There need not be such an image.
    pub image: ImageId,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// What to import.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportRequest {
    /// The name of the family that it becomes the next version of.
    pub name: ImageName,
    /// An absolute path of a file or a block device, or an http, https or nbd URL.
    pub source: String,
    /// Whether it may be chosen at once.
    pub publish: bool,
    /// The checksum that the file has to have, as hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// A list of checksums that has the file's name in it: an absolute path, or a URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// Consent to publish it although nothing is proved of it.
    #[serde(default)]
    pub unproved: bool,
}

impl std::fmt::Debug for ImportRequest {
    /// Leaves out the source and the list: a password may be in them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, publish, sha256, .. } = self;
        let mut shown = f.debug_struct("ImportRequest");
        shown.field("name", name).field("publish", publish).field("sha256", sha256).finish_non_exhaustive()
    }
}

/// What to promote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromoteRequest {
    /// The slot of the blade.
    pub slot: Slot,
    /// The name of the family that its disk becomes the next version of.
    pub name: ImageName,
    /// Consent to take the disk of a blade that runs, as a power cut would leave it.
    #[serde(default)]
    pub running: bool,
    /// Whether it may be chosen at once.
    #[serde(default)]
    pub publish: bool,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// Consent to publish it although nothing is proved of it.
    #[serde(default)]
    pub unproved: bool,
    /// Who logs in to the running blade to have its file systems stand still; nobody, where that is not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freeze: Option<String>,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reply {
    /// [`Request::Status`].
    Status(Box<Status>),
    /// [`Request::ImportProgress`], [`Request::NextProgress`].
    ImportProgress(ImportProgress),
    /// [`Request::Blades`].
    Blades(Vec<BladeView>),
    /// [`Request::Images`].
    Images(Vec<ImageView>),
    /// [`Request::Targets`].
    Targets(Targets),
    /// [`Request::Plan`].
    Plan(Vec<PlanView>),
    /// Whatever was asked for is accepted; events tell how it goes on.
    Accepted {
        /// For people.
        message: String,
    },
    /// [`Request::Sessions`].
    Sessions(Sessions),
    /// [`Request::WorkProgress`].
    Work(Box<WorkView>),
    /// [`Request::Donors`].
    Donors(Donors),
    /// [`Request::Image`].
    Image(Box<ImageDetail>),
    /// [`Request::ImageLog`].
    ImageLog(Box<ProofLog>),
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// For scripts.
    pub kind: Kind,
    /// For people: the error's chain.
    pub message: String,
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        Self { kind: error.kind(), message: error.chain() }
    }
}

/// What stands behind the server: the daemon, or a stand-in in a test.
pub trait Backend: Clone + Send + Sync + 'static {
    /// Answers one request.
    ///
    /// # Errors
    /// The refusal, told to the client with its kind.
    fn ask(&self, request: Request) -> impl Future<Output = Result<Reply, Error>> + Send;

    /// Returns an image's content, as [`super::content`] writes it down; without an end where it cannot be read to its end.
    ///
    /// # Errors
    /// As [`Backend::ask`].
    fn content(
        &self,
        image: ImageRef,
    ) -> impl Future<Output = Result<tokio::sync::mpsc::Receiver<Vec<u8>>, Error>> + Send {
        async move { Err(Error::new(Kind::Missing, format!("read image '{image}': nobody has its content"))) }
    }

    /// Returns the recent events and a receiver for the ones to come.
    fn events(&self) -> (Vec<EventView>, tokio::sync::broadcast::Receiver<EventView>);
}
