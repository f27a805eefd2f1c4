//! The hidden commands that run inside sandboxes and guests. Only passes the words on.

use std::{ffi::OsString, path::Path};

use crate::{
    error::Result,
    image::{
        inside,
        internal::{self, CONVERT, COPY, PROBE},
        workshop,
    },
};

/// Looks at an image file.
pub(super) fn probe(args: &[OsString]) -> Result<()> {
    run(PROBE, args)
}

/// Writes an image to a device.
pub(super) fn convert(args: &[OsString]) -> Result<()> {
    run(CONVERT, args)
}

/// Looks at an image file, and copies a raw one.
pub(super) fn copy(args: &[OsString]) -> Result<()> {
    run(COPY, args)
}

/// Is the workshop's first process.
pub(super) fn workshop() -> Result<()> {
    inside::run()
}

/// Makes the workshop in a folder.
pub(super) fn build_workshop(folder: &Path, flavour: &str) -> Result<()> {
    workshop::fill(folder, flavour.parse()?)
}

fn run(verb: &str, args: &[OsString]) -> Result<()> {
    let words: Vec<_> = std::iter::once(OsString::from(verb)).chain(args.iter().cloned()).collect();
    internal::run(&words)
}
