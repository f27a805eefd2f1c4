//! Files for the appliance guest, on a read-only disk of their own: the package under test, a golden image, a test binary.
//! Made without root or a mount, by `mke2fs -d`; the guest finds it as `/payload`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Attempt, Result};
use crate::tool::Tool;

/// Room for the file system's own needs, over the files' size.
const SPARE_MIB: u64 = 16;

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
        let mut bytes = 0;
        for (name, source) in &self.files {
            let source = source.canonicalize().attempt(|| format!("find payload '{}'", source.display()))?;
            bytes += fs::metadata(&source).attempt(|| format!("look at '{}'", source.display()))?.len();
            place(&source, &scratch.join(name))?;
        }
        // Inode tables and the like take a few per cent of a big payload.
        let mib = bytes / (1 << 20) * 105 / 100 + SPARE_MIB;
        let make = Tool::new("mke2fs").args([
            "-q",
            "-F",
            "-t",
            "ext4",
            "-L",
            "payload",
            "-m",
            "0",
            "-O",
            "^has_journal",
        ]);
        make.args(["-E", "root_owner=0:0", "-d"]).arg(scratch).arg(image).arg(format!("{mib}M")).run()?;
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
