//! The hidden commands that run inside the import sandbox. Only passes the words on.

use std::ffi::OsString;

use crate::{
    error::Result,
    image::internal::{self, CONVERT, PROBE},
};

/// Looks at an image file.
pub(super) fn probe(args: &[OsString]) -> Result<()> {
    run(PROBE, args)
}

/// Writes an image to a device.
pub(super) fn convert(args: &[OsString]) -> Result<()> {
    run(CONVERT, args)
}

fn run(verb: &str, args: &[OsString]) -> Result<()> {
    let words: Vec<_> = std::iter::once(OsString::from(verb)).chain(args.iter().cloned()).collect();
    internal::run(&words)
}
