//! Images as they are shown: what there is, where it came from, how far an import is.

use serde::{Deserialize, Serialize};

use crate::{
    model::{BladeId, Bytes, ImageId, Manifest, Slot, VolumeId},
    observed::Space,
};

/// One image, as `sheath images` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageView {
    /// Which version of which family.
    pub image: ImageId,
    /// Whether it is what its family's name stands for.
    pub default: bool,
    /// Whether the operator has made it so.
    pub pinned: bool,
    /// Whether it may be chosen.
    pub published: bool,
    /// Whether it is still being imported.
    pub importing: bool,
    /// Whether its disk has an MBR: it is neither proved nor published before it is sealed.
    #[serde(default)]
    pub mbr: bool,
    /// Its size.
    pub size: Bytes,
    /// How much of the pool it takes; `None` where that was not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<Space>,
    /// How many blades' disks came from it.
    pub disks: usize,
    /// How many clones are ready ahead.
    pub spares: usize,
    /// How far its import is, while it is imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<ImportProgress>,
}

/// Everything about one image, as `sheath image show` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageDetail {
    /// The image itself.
    #[serde(flatten)]
    pub view: ImageView,
    /// Where it came from and what was done with it; `None` where nobody knows any more.
    pub manifest: Option<Manifest>,
    /// Whose disks came from it, by slot.
    pub clones: Vec<CloneView>,
    /// Why it is not known how much of the pool it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space_unknown: Option<String>,
}

/// A blade's disk, as seen from the image that it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneView {
    /// Whose disk it is.
    pub blade: BladeId,
    /// The slot that it belongs to.
    pub slot: Slot,
    /// The disk.
    pub volume: VolumeId,
}

/// How far an import is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum ImportProgress {
    /// Fetching from a URL.
    Fetching {
        /// Bytes so far.
        done: Bytes,
        /// Bytes in all, where the server says.
        total: Option<Bytes>,
        /// How fast.
        #[serde(flatten)]
        pace: Pace,
    },
    /// Writing to the image's volume. At its end the agent asks LVM: it is done when it is listed.
    Writing {
        /// In hundredths of a percent.
        permyriad: u16,
        /// How fast: what really goes to the volume, zeros left out.
        #[serde(flatten)]
        pace: Pace,
    },
    /// Done.
    Done,
    /// Failed: what and why.
    Failed {
        /// The error's chain.
        error: String,
        /// Its kind.
        kind: crate::error::Kind,
    },
    /// All is ready for a donor that starts over the network.
    Awaiting {
        /// Where it is.
        slot: Slot,
    },
    /// Comparing the source with its checksum, or a donor's copy with its disk.
    Checking {
        /// In hundredths of a percent.
        permyriad: u16,
        /// How fast.
        #[serde(flatten)]
        pace: Pace,
    },
}

impl ImportProgress {
    /// Returns what is told of an import that has just been accepted.
    pub fn begin() -> Self {
        Self::Writing { permyriad: 0, pace: Pace::default() }
    }

    /// Returns whether it goes on.
    pub fn is_running(&self) -> bool {
        match self {
            Self::Fetching { .. } | Self::Awaiting { .. } | Self::Checking { .. } | Self::Writing { .. } => {
                true
            }
            Self::Done | Self::Failed { .. } => false,
        }
    }
}

/// How fast something goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Bytes a second, over the last seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Bytes>,
    /// Seconds that are left at this pace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
}
