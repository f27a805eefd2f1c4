//! The workshop: a small Linux made of what the appliance has installed, in which images are looked into and worked on.
//!
//! ```text
//! build   kernel + initramfs, once per kernel and version ──► Workshop
//! guest   QEMU without privileges on a clone ──► lines of the answer      (what runs in it: `inside`)
//! netboot QEMU without privileges or disk, started over the network ──► its console      (what runs in it: the image)
//! ```
//!
//! The appliance's kernel never mounts an image. The same kernel and initramfs can be started on any machine: what they
//! do there is the role on the kernel's command line.

mod build;
pub(super) mod guest;
pub(super) mod netboot;
pub(super) mod place;
mod qemu;

pub use build::{BUILD, Flavour, Workshop, fill};

/// How often a guest is started that falls silent, or is lost without a word: an appliance that is emulated itself loses one now
/// and then.
pub(super) const TRIES: usize = 3;
/// What is told between two of them.
pub(super) const ONCE_MORE: &str = "no word of the guest, once more";
