//! Files that survive a power cut: the one place where they are saved.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use crate::error::{Context, Error, Result};

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
}
