//! A file that stands in for a disk, for trying the appliance without a spare one.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{errno::Errno, fcntl::posix_fallocate};
use serde::Deserialize;

use crate::{
    error::{Context, Error, Kind, Result},
    host::cmd::{Cmd, Tool},
    model::Bytes,
    plan::Changed,
};

/// Longest time for losetup, which does one ioctl; udev may be slow in between.
const LOSETUP: Duration = Duration::from_secs(30);

/// What `losetup --json` lists.
#[derive(Debug, Deserialize)]
struct Loops {
    loopdevices: Vec<Loop>,
}

#[derive(Debug, Deserialize)]
struct Loop {
    name: PathBuf,
}

/// Makes the file with all its space reserved, so that the pool on it cannot run out behind LVM's back.
///
/// # Errors
/// [`Kind::Full`] where the space is not there (and no file is left), [`Kind::Exists`] where a file of another size is.
pub fn create(path: &Path, size: Bytes) -> Result<Changed> {
    let shown = path.display();
    if let Ok(found) = path.metadata() {
        if found.is_file() && found.len() == size.0 {
            return Ok(Changed::AlreadyTrue);
        }
        return Err(Error::new(
            Kind::Exists,
            format!("'{shown}' exists and is not a file of {}", size.human()),
        ));
    }
    let attempt = || format!("make '{shown}' of {}", size.human());
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).attempt(attempt)?;
    reserve(&file, size).and_then(|()| file.sync_all()).attempt(attempt).inspect_err(|_| {
        let _ = std::fs::remove_file(path);
    })?;
    Ok(Changed::Changed)
}

fn reserve(file: &File, size: Bytes) -> std::io::Result<()> {
    let len = i64::try_from(size.0).map_err(|_| Errno::EFBIG)?;
    match posix_fallocate(file, 0, len) {
        // A file system that cannot reserve gives a sparse file, which is better than none.
        Err(Errno::EOPNOTSUPP | Errno::EINVAL) => file.set_len(size.0),
        other => Ok(other?),
    }
}

/// Returns the loop device of the file, attaching one where there is none.
///
/// # Errors
/// losetup's failure.
pub fn attach(path: &Path) -> Result<PathBuf> {
    if let Some(device) = find(path)? {
        return Ok(device);
    }
    let losetup = |more: &[&str]| {
        let fixed = ["--find", "--show", "--nooverlap"];
        Cmd::new(Tool::Losetup, LOSETUP).args(fixed).args(more).arg(path).run()
    };
    // Without direct I/O every page would be cached twice; some file systems cannot do it.
    let output = losetup(&["--direct-io=on"]).or_else(|_| losetup(&[]))?;
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// Detaches the file's loop device.
///
/// # Errors
/// losetup's failure; the device is in use, most likely.
pub fn detach(path: &Path) -> Result<Changed> {
    let Some(device) = find(path)? else { return Ok(Changed::AlreadyTrue) };
    Cmd::new(Tool::Losetup, LOSETUP).arg("--detach").arg(device).run()?;
    Ok(Changed::Changed)
}

/// Returns the loop device that the file is attached to.
fn find(path: &Path) -> Result<Option<PathBuf>> {
    let output =
        Cmd::new(Tool::Losetup, LOSETUP).args(["--json", "--list", "--associated"]).arg(path).run()?;
    parse(&output.stdout)
}

fn parse(json: &[u8]) -> Result<Option<PathBuf>> {
    // It prints nothing at all where there is none.
    if json.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let loops: Loops = serde_json::from_slice(json)
        .map_err(|e| Error::new(Kind::Failed, "read losetup's report").because(e))?;
    Ok(loops.loopdevices.into_iter().next().map(|found| found.name))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_loop_file_has_its_space_from_the_first_day() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pool.img");
        assert_eq!(create(&path, Bytes::mib(4)).unwrap(), Changed::Changed);
        assert_eq!(create(&path, Bytes::mib(4)).unwrap(), Changed::AlreadyTrue);
        assert_eq!(create(&path, Bytes::mib(5)).unwrap_err().kind(), Kind::Exists);
        let found = path.metadata().unwrap();
        assert_eq!((found.len(), found.mode() & 0o777), (4 << 20, 0o600));
        assert!(found.blocks() * 512 >= 4 << 20);
    }

    #[test]
    fn a_file_that_does_not_fit_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pool.img");
        assert!(create(&path, Bytes(u64::MAX)).is_err());
        assert!(!path.exists());
    }

    #[test]
    fn losetups_report_is_read() {
        let json = br#"{"loopdevices": [{"name":"/dev/loop7", "back-file":"/var/pool.img"}]}"#;
        assert_eq!(parse(json).unwrap(), Some("/dev/loop7".into()));
        assert_eq!(parse(b"").unwrap(), None);
        assert!(parse(b"{").is_err());
    }
}
