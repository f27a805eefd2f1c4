//! The logs of proofs' consoles: the last one of each image and firmware, kept as long as the image is there.
//!
//! What is in them was written by a guest: whoever shows one makes it harmless first.

use std::{
    fs::{self, DirBuilder, File},
    io::Read,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use crate::{
    error::{Context, Error, Kind, Result},
    host::file,
    model::{Firmware, ImageId},
    status::{Millis, ProofLog},
};

/// More of a log is neither kept nor read.
pub(super) const LONGEST: usize = 1 << 20;

/// The folder of the logs.
#[derive(Debug, Clone)]
pub struct Logs(PathBuf);

impl Logs {
    /// Returns the logs below the agent's folder for learnt facts.
    pub fn below(state: &Path) -> Self {
        Self(state.join("proofs"))
    }

    /// Keeps what stood on a console in place of the log before, and returns where.
    pub(super) fn keep(&self, image: &ImageId, by: Firmware, console: &[u8]) -> Result<PathBuf> {
        let attempt = || format!("make folder '{}'", self.0.display());
        DirBuilder::new().mode(0o700).recursive(true).create(&self.0).attempt(attempt)?;
        let path = self.path(image, by);
        file::save(&path, console, 0o600)?;
        Ok(path)
    }

    /// Returns the log of the last proof, by this firmware where one is named.
    ///
    /// # Errors
    /// [`Kind::Missing`] where none was tried; else what keeps it from being read.
    pub fn read(&self, image: &ImageId, by: Option<Firmware>) -> Result<ProofLog> {
        let all = by.map_or(vec![Firmware::Bios, Firmware::Uefi], |by| vec![by]);
        let kept = all.into_iter().filter_map(|by| Some((written(&self.path(image, by))?, by)));
        let Some((at, firmware)) = kept.max_by_key(|(at, _)| *at) else {
            let (by, option) = by.map_or((String::new(), String::new()), |by| {
                (format!(" by {by}"), format!(" --firmware {}", by.word()))
            });
            let text = format!(
                "show the log of image '{image}': no proof of it{by} was tried: sheath image prove {image}{option}"
            );
            return Err(Error::new(Kind::Missing, text));
        };
        let (path, mut bytes) = (self.path(image, firmware), vec![]);
        let longest = u64::try_from(LONGEST).expect("a megabyte");
        File::open(&path)
            .and_then(|file| file.take(longest).read_to_end(&mut bytes))
            .attempt(|| format!("read '{}'", path.display()))?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(ProofLog { image: image.clone(), firmware, at, text })
    }

    /// Forgets the logs of an image that is gone: another may come to have its name.
    pub fn forget(&self, image: &ImageId) {
        for by in [Firmware::Bios, Firmware::Uefi] {
            let _ = fs::remove_file(self.path(image, by));
        }
    }

    fn path(&self, image: &ImageId, by: Firmware) -> PathBuf {
        self.0.join(format!("{image}-{}.log", by.word()))
    }
}

/// Returns when the file was written, or `None` where there is none.
fn written(path: &Path) -> Option<Millis> {
    let since = path.metadata().ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Millis::try_from(since.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn the_log_of_the_last_proof_is_read_and_none_says_how_to_make_one() {
        let dir = tempfile::tempdir().unwrap();
        let (logs, image) = (Logs::below(dir.path()), "web@2".parse().unwrap());
        let none = logs.read(&image, None).unwrap_err();
        assert_eq!(none.kind(), Kind::Missing);
        assert!(none.to_string().ends_with("no proof of it was tried: sheath image prove web@2"), "{none}");
        let older = logs.keep(&image, Firmware::Uefi, b"BdsDxe\xff: login:").unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(60);
        File::options().write(true).open(older).unwrap().set_modified(long_ago).unwrap();
        logs.keep(&image, Firmware::Bios, b"SeaBIOS").unwrap();
        assert_eq!(logs.read(&image, None).unwrap().text, "SeaBIOS");
        let uefi = logs.read(&image, Some(Firmware::Uefi)).unwrap();
        assert_eq!((uefi.text.as_str(), uefi.firmware), ("BdsDxe\u{fffd}: login:", Firmware::Uefi));
        logs.forget(&image);
        let none = logs.read(&image, Some(Firmware::Uefi)).unwrap_err().to_string();
        assert!(none.ends_with("by UEFI was tried: sheath image prove web@2 --firmware uefi"), "{none}");
    }

    #[test]
    fn a_log_without_an_end_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let (logs, image) = (Logs::below(dir.path()), "web".parse().unwrap());
        logs.keep(&image, Firmware::Bios, &vec![b'x'; LONGEST + 1]).unwrap();
        assert_eq!(logs.read(&image, None).unwrap().text.len(), LONGEST);
    }
}
