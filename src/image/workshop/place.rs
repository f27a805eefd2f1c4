//! A folder for one guest: the root of its sandbox and its console's log. Gone when the guest is, but for the log that
//! somebody has taken.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::{
    error::{Context, Result},
    image::folder::sweep,
    model::ImageId,
};

/// The folder.
pub(in crate::image) struct Place(PathBuf);

impl Place {
    /// Makes the folder anew. What a killed agent has left there goes first.
    pub(in crate::image) fn make(parent: &Path, image: &ImageId) -> Result<Self> {
        let place = Self(parent.join(format!("guest-{image}")));
        place.clear();
        let attempt = || format!("make folder '{}'", place.0.display());
        DirBuilder::new().mode(0o700).recursive(true).create(&place.0).attempt(attempt)?;
        DirBuilder::new().create(place.root()).attempt(attempt)?;
        File::create_new(place.console()).attempt(attempt)?;
        // Whatever our umask: a passing user stands in the one and writes to the other, and only root gets there.
        fs::set_permissions(place.root(), Permissions::from_mode(0o755)).attempt(attempt)?;
        fs::set_permissions(place.console(), Permissions::from_mode(0o666)).attempt(attempt)?;
        Ok(place)
    }

    /// Returns the empty folder that is the sandbox's root.
    pub(in crate::image) fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    /// Returns where the console's log is.
    pub(in crate::image) fn console(&self) -> PathBuf {
        self.0.join("console")
    }

    /// Returns where another part of the guest may lie; whoever makes it removes it.
    pub(in crate::image) fn beside(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes such a part a folder that a passing user can stand in, whatever our umask; only root gets to it.
    pub(in crate::image) fn folder_beside(&self, name: &str) -> Result<PathBuf> {
        let (folder, mode) = (self.beside(name), Permissions::from_mode(0o755));
        let made = fs::create_dir_all(&folder).and_then(|()| fs::set_permissions(&folder, mode));
        made.attempt(|| format!("make '{}'", folder.display()))?;
        Ok(folder)
    }

    /// Returns the end of the console's log, on one line.
    pub(in crate::image) fn last_words(&self, most: usize) -> String {
        end_of(&fs::read(self.console()).unwrap_or_default(), most)
    }

    fn clear(&self) {
        let _ = fs::remove_file(self.console());
        sweep(&self.0);
        let _ = fs::remove_dir(&self.0);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Nobody to tell what is left; the next guest of this image tries again.
        self.clear();
    }
}

/// Returns the end of a console's log, at most so many bytes of it, on one line.
pub(in crate::image) fn end_of(console: &[u8], most: usize) -> String {
    let end = String::from_utf8_lossy(&console[console.len().saturating_sub(most)..]);
    let lines = end.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_private_and_gone_afterwards_with_the_mount_points_in_it() {
        let parent = tempfile::tempdir().unwrap();
        let place = Place::make(parent.path(), &"debian13".parse().unwrap()).unwrap();
        let folder = parent.path().join("guest-debian13@1");
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        fs::create_dir_all(place.root().join("workshop/x")).unwrap();
        File::create(place.root().join("workshop/console")).unwrap();
        let seen = place.folder_beside("seen").unwrap();
        assert_eq!(fs::metadata(&seen).unwrap().permissions().mode() & 0o777, 0o755);
        fs::remove_dir(seen).unwrap();
        crate::host::file::save(&place.console(), b"one\r\n\r\nKernel panic\r\n", 0o666).unwrap();
        assert_eq!(place.last_words(100), "one; Kernel panic");
        drop(place);
        assert!(!folder.exists());
    }
}
