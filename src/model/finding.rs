//! What a look into an image has found, line by line, for people and scripts.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Firmware, ImageId};

/// How one thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    /// As it has to be.
    Ok,
    /// Not there, and needed.
    Missing,
    /// There, and not as it has to be.
    Wrong,
    /// Nothing to mend, but good to know.
    Note,
}

impl Judgement {
    /// Returns whether something is to be mended.
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Missing | Self::Wrong)
    }
}

/// One line of `sheath image check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is about: a stable word for scripts, such as `machine-id` or `initramfs`.
    pub about: String,
    /// How it is.
    pub judgement: Judgement,
    /// What was found.
    pub text: String,
    /// What mends it; `None` where there is nothing to mend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// The only firmware that it concerns; `None` for both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Firmware>,
    /// Whether a blade does not boot because of it.
    #[serde(default)]
    pub fatal: bool,
}

/// What `sheath image check` says of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkup {
    /// The system in it, as it names itself: `Debian GNU/Linux 13 (trixie)`.
    pub system: Option<String>,
    /// The newest kernel's version.
    pub kernel: Option<String>,
    /// Whether a blade with a PC BIOS can be expected to boot it.
    pub bios: bool,
    /// Whether a blade with UEFI can be expected to boot it.
    pub uefi: bool,
    /// Line by line.
    pub findings: Vec<Finding>,
}

impl Checkup {
    /// Returns whether nothing is to be mended.
    pub fn is_clean(&self) -> bool {
        !self.findings.iter().any(|finding| finding.judgement.is_bad())
    }
}

/// One thing that was, or would be, changed in an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What it is about: the same word as a finding has.
    pub about: String,
    /// What was changed, for people.
    pub text: String,
}

/// What `sheath image seal` has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealing {
    /// What was changed, or would be.
    pub changes: Vec<Change>,
    /// The version that was made; `None` where nothing was to be changed, and for a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageId>,
    /// How the image is then; `None` for a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkup: Option<Checkup>,
}

/// That an image boots, as far as it was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// What it was started by.
    pub firmware: Firmware,
    /// How long it took from power-on to the login prompt.
    pub millis: u64,
    /// Where the appliance keeps what stood on its serial console.
    pub log: PathBuf,
}
