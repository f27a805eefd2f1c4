//! What a fresh disk is to be like: the same keys in `[policy]`, in `[image.NAME]`, for one slot and for one blade.
//!
//! Of each key, the narrowest table that has it counts: the blade's own, else its slot's; then the image's; then
//! `[policy]`. They count when a disk is made, and never change one that exists.

use crate::model::{Bytes, DiskProfile, ImageName, Mac, Root, Slot};

use super::Config;

/// A size that a table gives, or that it takes away what a wider one gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// There is none.
    Nothing,
    /// So much.
    Size(Bytes),
}

impl Given {
    /// Returns the size, where there is one.
    pub fn size(self) -> Option<Bytes> {
        match self {
            Self::Nothing => None,
            Self::Size(size) => Some(size),
        }
    }
}

/// The keys of one table; `None` where it says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskKeys {
    /// The disk's size.
    pub disk_size: Option<Given>,
    /// What becomes of the root partition.
    pub root: Option<Root>,
    /// A swap partition that the image does not have.
    pub swap: Option<Given>,
    /// A data partition that the image does not have.
    pub data: Option<Given>,
    /// What stays unpartitioned at the disk's end.
    pub reserve: Option<Given>,
}

impl DiskKeys {
    /// Returns these keys, and a wider table's where they say nothing.
    #[must_use]
    pub fn over(self, wider: Self) -> Self {
        Self {
            disk_size: self.disk_size.or(wider.disk_size),
            root: self.root.or(wider.root),
            swap: self.swap.or(wider.swap),
            data: self.data.or(wider.data),
            reserve: self.reserve.or(wider.reserve),
        }
    }

    /// Returns what a disk is like where nothing else is said.
    pub fn profile(self) -> DiskProfile {
        let size = |given: Option<Given>| given.and_then(Given::size);
        DiskProfile {
            size: size(self.disk_size),
            root: self.root.unwrap_or_default(),
            swap: size(self.swap),
            data: size(self.data),
            reserve: size(self.reserve),
        }
    }
}

impl Config {
    /// Returns what a disk of this image is like that is nobody's yet: a spare's, a proof's.
    pub fn disk_from(&self, image: &ImageName) -> DiskProfile {
        self.profile_of(image).disk.over(self.policy.default.disk).profile()
    }

    /// Returns what a disk of this image is like for this blade in this slot.
    pub fn disk_of(&self, blade: Mac, slot: Slot, image: &ImageName) -> DiskProfile {
        let narrow = self.policy.blades.get(&blade).or_else(|| self.policy.slots.get(&slot));
        let narrow = narrow.map(|policy| policy.disk).unwrap_or_default();
        narrow.over(self.profile_of(image).disk).over(self.policy.default.disk).profile()
    }
}
