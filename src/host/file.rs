//! Files that survive a power cut: the one place where they are saved.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg, OFlag},
};

use crate::error::{Context, Error, Kind, Result};

/// Saves `bytes` as `path`, readable as `mode` says: either the old content or the new one, never a part.
///
/// Temp file in the same folder, fsync, rename, fsync of the folder. There is one writer per path.
///
/// # Errors
/// The failing system call, with the path; the old content is untouched then.
pub fn save(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let folder =
        path.parent().ok_or_else(|| Error::invalid(format!("save '{}': no folder", path.display())))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temp = folder.join(format!(".{name}.tmp"));
    let written = write_new(&temp, bytes, mode)
        .and_then(|()| fs::rename(&temp, path))
        .and_then(|()| File::open(folder)?.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(&temp);
    }
    written.attempt(|| format!("save '{}'", path.display()))
}

fn write_new(temp: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    // A left-over of a crash may have another mode, or be a link: it goes first.
    match fs::remove_file(temp) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(temp)?;
    // The umask may have taken bits away that somebody else needs to read the file.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A large file that appears under its name whole, or not at all.
///
/// It is written beside that name as `.NAME.part`. What a killed process has left there is taken over by the next one.
#[derive(Debug)]
pub struct Pending {
    path: PathBuf,
    temp: PathBuf,
    file: Flock<File>,
    force: bool,
    finished: bool,
}

impl Pending {
    /// Begins a file; one that is there is replaced at the end where `force`.
    ///
    /// # Errors
    /// [`Kind::Exists`] where it is there, [`Kind::Busy`] where another process writes it; else the failing system call.
    pub fn create(path: &Path, force: bool) -> Result<Self> {
        let shown = path.display();
        let name =
            path.file_name().ok_or_else(|| Error::invalid(format!("write '{shown}': it has no name")))?;
        match path.symlink_metadata() {
            Ok(found) if found.is_dir() => {
                return Err(Error::invalid(format!("write '{shown}': it is a folder")));
            }
            Ok(_) if !force => return Err(there(path)),
            _ => {}
        }
        let temp = path.with_file_name(format!(".{}.part", name.to_string_lossy()));
        let attempt = || format!("write '{}'", temp.display());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
        let file = options.open(&temp).attempt(attempt)?;
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => Error::new(Kind::Busy, format!("{}: another process writes it", attempt())),
            other => Error::io(attempt(), other.into()),
        })?;
        file.set_len(0).attempt(attempt)?;
        Ok(Self { path: path.to_owned(), temp, file, force, finished: false })
    }

    /// Returns the file, to be written.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// [`Kind::Exists`] where somebody else made one of that name meanwhile; else the failing system call.
    pub fn finish(mut self) -> Result<()> {
        let attempt = || format!("write '{}'", self.path.display());
        self.file.sync_all().attempt(attempt)?;
        if self.force {
            fs::rename(&self.temp, &self.path).attempt(attempt)?;
            self.finished = true;
            return Ok(());
        }
        // A link never replaces anything. Some file systems have none: there, the look above has to do.
        match fs::hard_link(&self.temp, &self.path) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(there(&self.path)),
            Err(_) => {
                self.finished = true;
                fs::rename(&self.temp, &self.path).attempt(attempt)
            }
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_file(&self.temp);
        }
    }
}

fn there(path: &Path) -> Error {
    Error::new(Kind::Exists, format!("write '{}': it exists (--force replaces it)", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_file_has_its_mode_and_leaves_no_temp_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        File::create(dir.path().join(".state.json.tmp")).unwrap();
        save(&path, b"one", 0o600).unwrap();
        save(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_save_names_the_path() {
        let error = save(Path::new("/nowhere/at/all"), b"", 0o600).unwrap_err();
        assert_eq!(error.to_string(), "save '/nowhere/at/all'");
    }

    #[test]
    fn a_large_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web.qcow2");
        let names = || fs::read_dir(dir.path()).unwrap().count();
        // What a killed one has left, longer than what comes.
        File::create(dir.path().join(".web.qcow2.part")).unwrap().write_all(b"longer").unwrap();
        let pending = Pending::create(&path, false).unwrap();
        assert_eq!(Pending::create(&path, false).unwrap_err().kind(), Kind::Busy);
        pending.file().write_all(b"one").unwrap();
        assert!(!path.exists());
        pending.finish().unwrap();
        assert_eq!((fs::read(&path).unwrap(), names()), (b"one".to_vec(), 1));
        assert_eq!(Pending::create(&path, false).unwrap_err().kind(), Kind::Exists);
        let pending = Pending::create(&path, true).unwrap();
        pending.file().write_all(b"half").unwrap();
        drop(pending);
        assert_eq!((fs::read(&path).unwrap(), names()), (b"one".to_vec(), 1), "given up");
        Pending::create(&path, true).unwrap().finish().unwrap();
        assert_eq!((fs::read(&path).unwrap(), names()), (vec![], 1));
        let late = dir.path().join("late");
        let pending = Pending::create(&late, false).unwrap();
        File::create(&late).unwrap();
        assert_eq!(pending.finish().unwrap_err().kind(), Kind::Exists, "somebody was faster");
        assert_eq!(names(), 2);
    }
}
