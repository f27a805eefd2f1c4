//! Files that other services read, and the word to systemd when they have changed.
//!
//! What stands in them is made elsewhere (`dnsmasq`, the daemon); a service that does not run is left alone.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    cmd::{Cmd, Tool},
    file,
};
use crate::{
    error::{Context, Result},
    plan::Changed,
};

/// systemd only has to note it down: the restart itself is not waited for.
const NOTE_DOWN: Duration = Duration::from_secs(20);

/// Makes the service run with this file, if it runs at all.
///
/// # Errors
/// The failing system call, or systemctl's refusal; called again, it goes on where it failed.
pub fn install(unit: &str, path: &Path, text: &str) -> Result<Changed> {
    let changed = save(path, text)?;
    if changed == Changed::Changed {
        // Not waited for: the unit is ordered after ours, and while ours starts its job would wait for us.
        Cmd::new(Tool::Systemctl, NOTE_DOWN).args(["--no-block", "try-reload-or-restart", unit]).run()?;
        settled(path)?;
    }
    Ok(changed)
}

/// There while the service does not run with what was saved: survives our end between the saving and the restart.
fn pending(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pending");
    name.into()
}

fn save(path: &Path, text: &str) -> Result<Changed> {
    let pending = pending(path);
    if !pending.exists() && fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(Changed::AlreadyTrue);
    }
    file::save(&pending, b"", 0o600)?;
    file::save(path, text.as_bytes(), 0o644)?;
    Ok(Changed::Changed)
}

fn settled(path: &Path) -> Result<()> {
    let pending = pending(path);
    fs::remove_file(&pending).attempt(|| format!("remove '{}'", pending.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_that_did_not_happen_is_asked_for_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("service.conf");
        assert_eq!(save(&path, "a").unwrap(), Changed::Changed);
        assert_eq!(save(&path, "a").unwrap(), Changed::Changed, "the restart did not happen");
        settled(&path).unwrap();
        assert_eq!(save(&path, "a").unwrap(), Changed::AlreadyTrue);
        assert_eq!(save(&path, "b").unwrap(), Changed::Changed);
    }
}
