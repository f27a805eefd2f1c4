//! Descriptors of other libraries, watched by tokio's reactor: the one place with `unsafe`.
//!
//! tokio cannot know that a foreign object keeps its descriptor, so it asks for a promise. It is given here, for all
//! callers, about types that own their descriptor. What is read from it is for the callers.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// Returns `io` registered with this task's reactor for reading.
///
/// `io` must own its descriptor and answer with the same one always, as the types that are handed in here do
/// (`udev::MonitorSocket`, `inotify::Inotify`, `OwnedFd`).
#[allow(unsafe_code, reason = "tokio's `AsyncFd::new` is deprecated as unsound and `register` is unsafe")]
pub(super) fn watch<T: AsFd + AsRawFd>(io: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: `io` is moved in and owns its open descriptor; none of these types replaces or closes it before its drop, and
    // no caller takes it out of the `AsyncFd`.
    unsafe { AsyncFd::register_with_interest(io, Interest::READABLE) }.map_err(io::Error::from)
}
