//! The appliance's own SSH key pair, and the machines whose host keys it knows.
//!
//! One folder for root alone: `id_ed25519`, and `known_hosts`, which the operator fills. Whoever reads from another machine
//! with them is a sandboxed child elsewhere; nothing is accepted on anybody's behalf here.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use super::cmd::{Cmd, Tool};
use crate::error::{Context, Error, Kind, Result};

/// Where the folder is.
pub const FOLDER: &str = "/etc/sheath/ssh";
/// Longest time to make a key pair, or to read one.
const KEYGEN: Duration = Duration::from_secs(60);

/// The folder of the key pair and of the known hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys(PathBuf);

impl Default for Keys {
    fn default() -> Self {
        Self(FOLDER.into())
    }
}

impl Keys {
    /// Returns the keys of this folder, which need not be there.
    pub fn of_folder(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// Returns where the private key is.
    pub fn private(&self) -> PathBuf {
        self.0.join("id_ed25519")
    }

    /// Returns where the host keys are that the operator has accepted; the file need not be there.
    pub fn known_hosts(&self) -> PathBuf {
        self.0.join("known_hosts")
    }

    /// Makes sure that there is a private key that nobody else may read.
    ///
    /// # Errors
    /// [`Kind::Missing`] and [`Kind::Denied`], with what to do about it.
    pub fn check(&self) -> Result<()> {
        let path = self.private();
        let shown = path.display();
        let found = path.metadata().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::new(
                Kind::Missing,
                format!("this appliance has no SSH key '{shown}': 'sheath image key' makes one"),
            ),
            _ => Error::io(format!("look at '{shown}'"), e),
        })?;
        let mode = found.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(Error::new(
                Kind::Denied,
                format!("SSH key '{shown}' is open to others (mode {mode:04o}): run 'chmod 0600 {shown}'"),
            ));
        }
        Ok(())
    }

    /// Makes a key pair where there is none, and returns the line for `authorized_keys`.
    ///
    /// # Errors
    /// As [`Keys::check`]; the failure of `ssh-keygen` or of a system call. A key that is there is never replaced.
    pub fn create(&self) -> Result<String> {
        let path = self.private();
        if fs::symlink_metadata(&path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
            let made = DirBuilder::new().mode(0o700).recursive(true).create(&self.0);
            made.attempt(|| format!("make folder '{}'", self.0.display()))?;
            let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let comment = format!("sheath@{}", host.trim());
            let cmd =
                Cmd::new(Tool::SshKeygen, KEYGEN).args(["-q", "-t", "ed25519", "-N", "", "-C", &comment]);
            cmd.arg("-f").arg(&path).run()?;
        }
        self.check()?;
        public_of(&path)
    }
}

/// Returns the line for `authorized_keys` of a private key.
///
/// # Errors
/// The failure of `ssh-keygen`.
pub fn public_of(private: &Path) -> Result<String> {
    let said = Cmd::new(Tool::SshKeygen, KEYGEN).args(["-y", "-f"]).arg(private).run()?.stdout;
    Ok(String::from_utf8_lossy(&said).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_key_pair_is_made_once_and_for_root_alone() {
        if Tool::SshKeygen.check().is_err() {
            let _ = writeln!(std::io::stdout(), "skipped: needs ssh-keygen (Debian package openssh-client)");
            return;
        }
        let parent = tempfile::tempdir().unwrap();
        let keys = Keys::of_folder(parent.path().join("ssh"));
        assert_eq!(keys.check().unwrap_err().kind(), Kind::Missing);
        let line = keys.create().unwrap();
        assert!(line.starts_with("ssh-ed25519 AAAA") && line.contains(" sheath@") && !line.contains('\n'));
        assert_eq!(keys.create().unwrap(), line);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&keys.private()), mode(&keys.0)), (0o600, 0o700));
        fs::set_permissions(keys.private(), fs::Permissions::from_mode(0o644)).unwrap();
        let error = keys.check().unwrap_err();
        assert!(error.kind() == Kind::Denied && error.to_string().contains("chmod 0600"), "{error}");
    }
}
