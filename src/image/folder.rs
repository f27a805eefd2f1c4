//! The folder of one import: what is fetched, what a sandbox sees, what the agent notes for a restart.
//!
//! What is of the work goes when the work is over, however it ended; the note stays until the end was told, so that an agent which
//! is killed between the two tells it at its next start. What a killed agent has left is gone on with.

use std::{
    fs::{self, DirBuilder, Permissions},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::{
    error::{Context, Result},
    model::ImageName,
};

/// What the folders' names begin with.
const PREFIX: &str = "import-";
/// The agent's note of what was asked for.
const NOTE: &str = "request.json";

/// A folder for one import: what is in it but the agent's note is gone when the work is over.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes the folder. A part that a killed agent has fetched stays, and so does the agent's note; all else goes.
    ///
    /// # Errors
    /// The failing system call.
    pub(super) fn make(parent: &Path, image: &ImageName) -> Result<Self> {
        let folder = Self(of(parent, image));
        folder.clear_work();
        let attempt = || format!("make folder '{}'", folder.0.display());
        DirBuilder::new().mode(0o700).recursive(true).create(&folder.0).attempt(attempt)?;
        DirBuilder::new().create(folder.root()).attempt(attempt)?;
        // Whatever our umask: a passing user is to stand in it.
        fs::set_permissions(folder.root(), Permissions::from_mode(0o755)).attempt(attempt)?;
        Ok(folder)
    }

    /// Returns where the agent notes what was asked for, so that it can go on after a restart. The folder is made, for
    /// root alone.
    ///
    /// # Errors
    /// The failing system call.
    pub fn note(parent: &Path, image: &ImageName) -> Result<PathBuf> {
        let path = of(parent, image);
        let made = DirBuilder::new().mode(0o700).recursive(true).create(&path);
        made.attempt(|| format!("make folder '{}'", path.display()))?;
        Ok(path.join(NOTE))
    }

    /// Returns the notes of the imports that a killed agent has left. A folder without one is taken away.
    pub fn left(parent: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
        let mut notes = vec![];
        for folder in folders.map(|entry| entry.path()) {
            let note = folder.join(NOTE);
            if note.is_file() { notes.push(note) } else { drop(Self(folder)) }
        }
        notes.sort();
        notes
    }

    /// Takes the folder of a note away.
    pub fn discard(note: &Path) {
        let _ = fs::remove_file(note);
        if let Some(folder) = note.parent() {
            drop(Self(folder.to_owned()));
        }
    }

    /// Takes the folder away, whatever is in it.
    pub fn forget(parent: &Path, image: &ImageName) {
        Self::discard(&of(parent, image).join(NOTE));
    }

    /// Takes the note away: nobody goes on with the import after a restart.
    pub fn forsake(parent: &Path, image: &ImageName) {
        let _ = fs::remove_file(of(parent, image).join(NOTE));
    }

    /// Returns where the image is, or a link to it.
    pub(super) fn source(&self) -> PathBuf {
        self.0.join("source")
    }

    /// Returns where the image is while it is fetched.
    pub(super) fn part(&self) -> PathBuf {
        self.0.join("part")
    }

    /// Returns where it is kept of what the part is one.
    pub(super) fn part_about(&self) -> PathBuf {
        self.0.join("part.json")
    }

    /// Returns where a list of checksums is, or a link to it.
    pub(super) fn list(&self) -> PathBuf {
        self.0.join("list")
    }

    /// Returns the empty folder that is a sandbox's root.
    pub(super) fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    fn clear_work(&self) {
        [self.source(), self.list()].iter().for_each(|path| drop(fs::remove_file(path)));
        sweep(&self.root());
        let _ = fs::remove_dir(self.root());
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nobody to tell what is left; the next import of this name tries again.
        self.clear_work();
        [self.part(), self.part_about()].iter().for_each(|path| drop(fs::remove_file(path)));
        sweep(&self.0);
        let _ = fs::remove_dir(&self.0);
    }
}

/// Returns an import's folder's path.
fn of(parent: &Path, image: &ImageName) -> PathBuf {
    parent.join(format!("{PREFIX}{image}"))
}

/// Removes empty folders and empty files below `folder`: the places where systemd has mounted things for a sandbox.
///
/// Nothing with content in it is ever removed, so that a mount that should have been gone loses nothing.
pub(super) fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(found) = entry.metadata() else { continue };
        if found.is_dir() {
            sweep(&entry.path());
            let _ = fs::remove_dir(entry.path());
        } else if found.is_file() && found.len() == 0 {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        os::unix::fs::{MetadataExt, symlink},
    };

    use super::*;

    fn name() -> ImageName {
        "debian13".parse().unwrap()
    }

    #[test]
    fn the_folder_is_private_and_gone_afterwards() {
        let parent = tempfile::tempdir().unwrap();
        let left = parent.path().join("import-debian13");
        fs::create_dir_all(left.join("root/usr/lib")).unwrap();
        fs::File::create(left.join("root/source")).unwrap();
        symlink("/etc/passwd", left.join("source")).unwrap();
        let folder = Folder::make(parent.path(), &name()).unwrap();
        assert_eq!(fs::metadata(folder.root()).unwrap().mode() & 0o777, 0o755);
        assert_eq!(fs::read_dir(folder.root()).unwrap().count(), 0);
        assert!(!folder.source().exists());
        drop(folder);
        assert!(!left.exists());
        drop(Folder::make(parent.path(), &name()).unwrap());
        let note = Folder::note(parent.path(), &name()).unwrap();
        assert_eq!(fs::metadata(note.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_a_killed_agent_has_fetched_and_noted_stays_and_a_folder_without_a_note_goes() {
        let parent = tempfile::tempdir().unwrap();
        let keep = |path: PathBuf| fs::File::create(path).unwrap().write_all(b"x").unwrap();
        let note = Folder::note(parent.path(), &name()).unwrap();
        keep(note.clone());
        let folder = Folder::make(parent.path(), &name()).unwrap();
        [folder.part(), folder.source()].into_iter().for_each(keep);
        std::mem::forget(folder);
        fs::create_dir_all(parent.path().join("import-other/root")).unwrap();
        keep(parent.path().join("roster.json"));

        assert_eq!(Folder::left(parent.path()), [note]);
        assert!(!parent.path().join("import-other").exists() && parent.path().join("roster.json").exists());
        let folder = Folder::make(parent.path(), &name()).unwrap();
        assert!(folder.part().exists() && !folder.source().exists());
        let part = folder.part();
        drop(folder);
        // The work is over, and nobody was told.
        assert!(!part.exists());
        assert_eq!(Folder::left(parent.path()).len(), 1);
        Folder::forget(parent.path(), &name());
        assert!(Folder::left(parent.path()).is_empty() && !parent.path().join("import-debian13").exists());
    }

    #[test]
    fn a_forsaken_import_is_nobodys_and_its_work_is_still_its_own() {
        let parent = tempfile::tempdir().unwrap();
        let mut note = fs::File::create(Folder::note(parent.path(), &name()).unwrap()).unwrap();
        note.write_all(b"{}").unwrap();
        let folder = Folder::make(parent.path(), &name()).unwrap();
        Folder::forsake(parent.path(), &name());
        assert!(folder.root().exists());
        drop(folder);
        assert!(!parent.path().join("import-debian13").exists());
    }

    #[test]
    fn what_is_mounted_in_a_sandbox_by_mistake_is_not_swept_away() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::make(parent.path(), &"x".parse().unwrap()).unwrap();
        let precious = folder.root().join("usr/precious");
        fs::create_dir(folder.root().join("usr")).unwrap();
        fs::copy("/proc/self/exe", &precious).unwrap();
        symlink("/etc", folder.root().join("etc")).unwrap();
        drop(folder);
        assert!(precious.exists());
        assert!(Path::new("/etc/passwd").exists());
    }
}
