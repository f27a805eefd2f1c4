//! The nouns: what the agent talks about, each identity a type of its own, parsed once at the edge.
//!
//! Nothing here does anything: no I/O, no clock, no policy. LIO's and LVM's own words are used for their things.

mod blade;
mod bytes;
mod difference;
mod donor;
mod finding;
mod image;
mod iqn;
mod lio;
mod mac;
mod manifest;
mod names;
mod profile;
mod secret;
mod template;
mod volume;

pub use blade::{BladeId, Firmware, Hardware, Slot};
pub use bytes::{Bytes, Growth};
pub use difference::{Difference, Part};
pub use donor::{DonorWord, NetDonor};
pub use finding::{Change, Checkup, Finding, Judgement, Proof, Sealing};
pub use image::{ImageId, ImageRef, Version};
pub use iqn::Iqn;
pub use lio::{Backstore, Chap, Export, ForeignExport, NopIn, Portal, Stray};
pub use mac::Mac;
pub use manifest::{Check, Consistency, Imported, Manifest, Origin, Parent};
pub use names::{Hostname, ImageName, LvName, PortName, VgName};
pub use profile::{DiskGuid, DiskProfile, ExtraPartition, Layout, PartitionKind, Root, Seed};
pub use secret::{Credentials, Secret};
pub use template::{Template, Variables};
pub use volume::{PoolUsage, Role, Tag, Volume, VolumeId, VolumeState};

#[cfg(test)]
mod tests;
