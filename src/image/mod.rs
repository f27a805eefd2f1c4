//! Golden images: from a file, a URL, a donor's disk or an export to a read-only volume that clones are made from.
//!
//! ```text
//! Source ─► fetch (curl) ─► checksum ─► probe (header) ─► create_image ─► convert (qemu-img) ─► GPT check ─► complete_image
//!           no privileges,  └─────── no network, ───────┘                 or unpack (xz …), no network,
//!           no files           sees the source alone                      sees the source and one device alone
//! ```
//!
//! A raw disk on this machine takes a shorter way (`import::near`): a child looks at it while LVM makes the volume, and copies it
//! to the volume. It is handed both as open files (`hand`, `copy`) and gives up everything else (`host::privileges`).
//!
//! Whoever hands us an image may have made every byte of it, so nothing that reads it runs in the agent: each arrow
//! with a program in it is a transient unit of systemd with nothing but what it needs (`sandbox`). Publishing and
//! removing are `host::lvm`'s, and so is the rest of a whole image's volume: read-only, inactive.
//!
//! A donor that starts over the network brings its disk itself: see `capture`.
//!
//! What is inside of a finished image is looked at by a kernel of its own, in a guest that is thrown away:
//!
//! ```text
//! work ─► workshop (a small Linux, made once) ─► guest (QEMU on a clone) ─► answer (facts, as JSON) ─► check ─► findings
//!                                                no privileges, no network     ▲
//!                                                                              └ inside: its first process
//! ```

mod address;
mod answer;
mod blocks;
mod capture;
mod check;
mod checksum;
mod copy;
pub mod export;
mod extents;
mod facts;
mod fetch;
mod folder;
mod freeze;
mod hand;
pub mod header;
mod import;
pub mod inside;
pub mod internal;
mod iscsi;
mod limits;
mod logs;
mod nbd;
mod progress;
mod prove;
mod pull;
pub mod qcow2;
mod remote;
mod sandbox;
mod seal;
mod source;
mod ssh;
mod unpack;
mod watch;
mod work;
pub mod workshop;

pub use capture::{Capture, Lend};
pub use check::judge;
pub use checksum::{Check, Checksum};
pub use facts::Facts;
pub use folder::Folder;
pub use freeze::Freeze;
pub use import::{Import, Whole};
pub use iscsi::Lun;
pub use limits::STALL;
pub use logs::Logs;
pub use nbd::Export;
pub use prove::Trial;
pub use remote::Remote;
pub use source::{Source, Url};
pub use watch::Cancel;
pub use work::Work;
