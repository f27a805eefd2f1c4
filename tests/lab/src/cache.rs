//! Things that take long to make and are the same every time: images, a booted guest. Each is a folder outside the clone,
//! named by its kind and by a hash of what it is made from, so that a fresh clone finds it and a changed recipe does not.
//! Knows nothing of what is inside; `images` does.
//!
//! A folder is made under another name and renamed when whole; a lock per kind keeps two runs from making it twice.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use crate::error::{Attempt, Error, Result};
use crate::phase;

/// How many hex digits of the hash a name has: enough for the few versions that one machine ever sees.
const KEY_DIGITS: usize = 12;

/// The folder that holds the artifacts.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens `$SHEATH_LAB_CACHE`, else `$XDG_CACHE_HOME/sheath-lab`, else `~/.cache/sheath-lab`.
    ///
    /// # Errors
    /// When the folder cannot be made, or no home is known.
    pub fn open() -> Result<Self> {
        let var = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = var("SHEATH_LAB_CACHE")
            .or_else(|| var("XDG_CACHE_HOME").map(|dir| dir.join("sheath-lab")))
            .or_else(|| var("HOME").map(|dir| dir.join(".cache/sheath-lab")))
            .ok_or_else(|| Error::new("find the lab's cache", "neither HOME nor SHEATH_LAB_CACHE is set"))?;
        Cache::at(root)
    }

    /// Opens a given folder.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn at(root: PathBuf) -> Result<Self> {
        fs::create_dir_all(&root).attempt(|| format!("make the cache '{}'", root.display()))?;
        let root = root.canonicalize().attempt(|| format!("resolve the cache '{}'", root.display()))?;
        Ok(Cache { root })
    }

    /// Returns the folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the folder of an artifact, calling `make` with an empty folder to fill when there is none yet.
    /// Older artifacts of that kind are then removed.
    ///
    /// # Errors
    /// When `make` fails; nothing half-made is left under the artifact's name.
    pub fn artifact(
        &self,
        kind: &str,
        made_from: &[&str],
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let name = format!("{kind}-{}", key(made_from));
        let whole = self.root.join(&name);
        if whole.is_dir() {
            return Ok(whole);
        }
        let _held = self.lock(kind)?;
        if whole.is_dir() {
            return Ok(whole);
        }
        let begun = Instant::now();
        phase::say(&format!("making {kind} (once, kept in {})", whole.display()));
        self.sweep(kind, "")?;
        let partial = self.root.join(format!("{name}.partial"));
        fs::create_dir_all(&partial).attempt(|| format!("make '{}'", partial.display()))?;
        make(&partial)?;
        fs::rename(&partial, &whole).attempt(|| format!("name '{}'", whole.display()))?;
        self.sweep(kind, &name)?;
        phase::done(kind, begun.elapsed());
        Ok(whole)
    }

    /// Holds the lock of a kind until the returned value is dropped.
    fn lock(&self, kind: &str) -> Result<Flock<File>> {
        let path = self.root.join(format!("{kind}.lock"));
        let open = || File::create(&path).attempt(|| format!("make lock '{}'", path.display()));
        match Flock::lock(open()?, FlockArg::LockExclusiveNonblock) {
            Ok(held) => Ok(held),
            Err(_) => {
                phase::say(&format!("waiting for another run that is making {kind}"));
                let held = Flock::lock(open()?, FlockArg::LockExclusive);
                held.map_err(|(_, cause)| Error::new(format!("take lock '{}'", path.display()), cause))
            }
        }
    }

    /// Removes what is left of interrupted makings (`keep` empty), or every artifact of the kind but `keep`.
    fn sweep(&self, kind: &str, keep: &str) -> Result<()> {
        let entries = fs::read_dir(&self.root).attempt(|| format!("list '{}'", self.root.display()))?;
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(rest) = name.strip_prefix(&format!("{kind}-")) else { continue };
            // Another kind's name may begin with this one's: what follows must be a key, and nothing more.
            let is_key = |text: &str| text.len() == KEY_DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit());
            let (partial, artifact) = (rest.strip_suffix(".partial").is_some_and(is_key), is_key(rest));
            if partial || (artifact && !keep.is_empty() && name != keep) {
                fs::remove_dir_all(entry.path())
                    .attempt(|| format!("remove '{}'", entry.path().display()))?;
            }
        }
        Ok(())
    }
}

/// Returns a short hash over all that an artifact is made from.
fn key(made_from: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in made_from {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    digits[..KEY_DIGITS].to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Cache, key};
    use crate::error::Error;
    use std::fs;

    fn empty(name: &str) -> Cache {
        let root = std::env::temp_dir().join(format!("sheath-lab-cache-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        Cache::at(root).unwrap()
    }

    #[test]
    fn an_artifact_is_made_once_and_an_older_one_goes() {
        let cache = empty("once");
        let old = cache
            .artifact("golden", &["v1"], |dir| {
                fs::create_dir(dir.join("x")).unwrap();
                Ok(())
            })
            .unwrap();
        assert!(old.join("x").is_dir());
        let same = cache.artifact("golden", &["v1"], |_| panic!("made twice")).unwrap();
        assert_eq!(same, old);
        let new = cache.artifact("golden", &["v2"], |_| Ok(())).unwrap();
        assert!(new.is_dir() && !old.exists());
        fs::remove_dir_all(cache.root()).unwrap();
    }

    #[test]
    fn a_failed_making_leaves_nothing_under_the_artifacts_name() {
        let cache = empty("failed");
        cache.artifact("golden", &["v1"], |_| Err(Error::new("make", "no"))).unwrap_err();
        let mut made = false;
        cache
            .artifact("golden", &["v1"], |dir| {
                made = fs::read_dir(dir).unwrap().next().is_none();
                Ok(())
            })
            .unwrap();
        assert!(made, "the second making begins with an empty folder");
        fs::remove_dir_all(cache.root()).unwrap();
    }

    #[test]
    fn a_kind_never_sweeps_another_whose_name_goes_on() {
        let cache = empty("kinds");
        let other = cache.artifact("booted-bookworm", &["v1"], |_| Ok(())).unwrap();
        let half_made = cache.root().join("booted-bookworm-0123456789ab.partial");
        fs::create_dir(&half_made).unwrap();
        cache.artifact("booted", &["v1"], |_| Ok(())).unwrap();
        cache.artifact("booted", &["v2"], |_| Ok(())).unwrap();
        assert!(other.is_dir() && half_made.is_dir());
        fs::remove_dir_all(cache.root()).unwrap();
    }

    #[test]
    fn parts_are_kept_apart_in_the_key() {
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
    }
}
