//! Files for the appliance guest, on a read-only disk of their own: the package under test, a golden image, a test binary.
//! Made without root or a mount, by `mksquashfs`; the guest finds it as `/payload`. Uncompressed squashfs because a golden
//! image is on it within a second; `mke2fs -d` takes six seconds of CPU for the same.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Attempt, Result};
use crate::tool::Tool;

/// A set of files on their way into a guest.
#[derive(Debug, Clone, Default)]
pub struct Payload {
    files: Vec<(String, PathBuf)>,
}

impl Payload {
    /// Returns one without files.
    pub fn new() -> Self {
        Payload::default()
    }

    /// Adds the file `source`; the guest sees it as `/payload/<name>`.
    #[must_use]
    pub fn file(mut self, name: &str, source: impl Into<PathBuf>) -> Self {
        self.files.push((name.to_owned(), source.into()));
        self
    }

    /// Writes the disk image; `scratch` is a folder that does not exist yet.
    pub(crate) fn write(&self, image: &Path, scratch: &Path) -> Result<()> {
        fs::create_dir_all(scratch).attempt(|| format!("make '{}'", scratch.display()))?;
        for (name, source) in &self.files {
            let source = source.canonicalize().attempt(|| format!("find payload '{}'", source.display()))?;
            place(&source, &scratch.join(name))?;
        }
        let make =
            Tool::new("mksquashfs").arg(scratch).arg(image).args(["-quiet", "-no-progress", "-noappend"]);
        make.args(["-noI", "-noD", "-noF", "-noX", "-all-root", "-no-xattrs"]).run()?;
        fs::remove_dir_all(scratch).attempt(|| format!("remove '{}'", scratch.display()))
    }
}

/// Puts a file in the folder: by a second name where it is on the same file system, by a copy elsewhere.
fn place(source: &Path, target: &Path) -> Result<()> {
    if fs::hard_link(source, target).is_ok() {
        return Ok(());
    }
    fs::copy(source, target)
        .map(|_| ())
        .attempt(|| format!("copy '{}' to '{}'", source.display(), target.display()))
}
