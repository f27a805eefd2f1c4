//! Golden images: from a file or a URL to a read-only volume that clones are made from.
//!
//! ```text
//! Source ─► fetch (curl) ─► probe (header) ─► create_image ─► convert (qemu-img) ─► GPT check ─► finish_image
//!           no privileges,   no network,                       no network, sees the source
//!           no files         sees the source alone             and one device alone
//! ```
//!
//! Whoever hands us an image may have made every byte of it, so nothing that reads it runs in the agent: each arrow
//! with a program in it is a transient unit of systemd with nothing but what it needs (`sandbox`). Publishing and
//! removing are `host::lvm`'s.

mod fetch;
pub mod header;
mod import;
pub mod internal;
mod progress;
mod sandbox;
mod source;

pub use import::{Cancel, Import};
pub use source::Source;
