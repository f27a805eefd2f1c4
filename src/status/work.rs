//! Works on an image as they are shown: what is done, how far it is, what came of it.

use serde::{Deserialize, Serialize};

use super::Millis;
use crate::model::{Checkup, Firmware, ImageId, Proof, Sealing};

/// What can be done with an image in the workshop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "kebab-case")]
pub enum Task {
    /// Look what is missing for it to boot over iSCSI.
    Check,
    /// Make a version of it that any blade can have.
    Seal {
        /// Only say what would be changed.
        #[serde(default)]
        dry_run: bool,
    },
    /// Boot a throw-away disk of it over the network, to its login prompt.
    Prove {
        /// What it is started by.
        firmware: Firmware,
    },
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Check => f.write_str("check"),
            Self::Seal { dry_run: false } => f.write_str("seal"),
            Self::Seal { dry_run: true } => f.write_str("preview of a seal"),
            Self::Prove { firmware } => write!(f, "proof by {firmware}"),
        }
    }
}

/// How far the work on an image is, or how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkView {
    /// What is done.
    pub task: Task,
    /// When it began.
    pub begun: Millis,
    /// Its phases so far; the last one is not over while it runs.
    pub phases: Vec<Phase>,
    /// How far it is.
    pub progress: WorkProgress,
}

/// One phase of a work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// For people: `starting the workshop`.
    pub name: String,
    /// How long it took, or has taken so far.
    pub millis: u64,
}

/// What stood on the serial console of the last proof of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofLog {
    /// The image.
    pub image: ImageId,
    /// What it was started by.
    pub firmware: Firmware,
    /// When the proof ended.
    pub at: Millis,
    /// The console's text as the guest wrote it, terminal commands and all, at most a megabyte of it.
    pub text: String,
}

/// How far a work is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum WorkProgress {
    /// It goes on.
    Running,
    /// It is done.
    Done {
        /// What came of it.
        result: Box<WorkResult>,
    },
    /// It failed; the image is as it was.
    Failed {
        /// The error's chain.
        error: String,
        /// Its kind.
        kind: crate::error::Kind,
    },
}

/// What came of a work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkResult {
    /// Of [`Task::Check`].
    Checkup(Checkup),
    /// Of [`Task::Seal`].
    Sealing(Sealing),
    /// Of [`Task::Prove`].
    Proof(Proof),
}
