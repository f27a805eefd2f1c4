//! Images' manifests: a file for each below the state folder, all of them in memory.
//!
//! What is lost or damaged here costs words: which images there are, and what they are, is what LVM says.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use crate::{
    error::{Context, Result},
    host::file,
    model::{ImageId, Manifest},
};

/// Longest file that is read: a mistake, not a manifest.
const LONGEST: u64 = 4 << 20;

/// All manifests.
pub(super) struct Manifests {
    folder: PathBuf,
    known: BTreeMap<ImageId, Manifest>,
}

impl Manifests {
    /// Reads the folder. What cannot be read is told and left where it is.
    pub(super) fn read(folder: PathBuf) -> Self {
        let mut known = BTreeMap::new();
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let Some(image) = image_of(&path) else { continue };
            match read_one(&path) {
                Ok(manifest) if manifest.image == image => drop(known.insert(image, manifest)),
                Ok(manifest) => log::warn!("'{}' is of image '{}': not used", path.display(), manifest.image),
                Err(error) => log::warn!("'{}' is not used: {}", path.display(), error.chain()),
            }
        }
        Self { folder, known }
    }

    /// Returns the image's manifest.
    pub(super) fn get(&self, image: &ImageId) -> Option<&Manifest> {
        self.known.get(image)
    }

    /// Keeps a manifest: in memory, and in its file.
    ///
    /// # Errors
    /// What keeps the file from being saved; it is known all the same until the agent stops.
    pub(super) fn put(&mut self, manifest: Manifest) -> Result<()> {
        let (path, bytes) = (self.path(&manifest.image), manifest.to_bytes());
        self.known.insert(manifest.image.clone(), manifest);
        let attempt = || format!("make folder '{}'", self.folder.display());
        DirBuilder::new().mode(0o700).recursive(true).create(&self.folder).attempt(attempt)?;
        file::save(&path, &bytes, 0o600)
    }

    /// Forgets the manifests of images that are not there any more, and returns whose they were.
    pub(super) fn keep(&mut self, is_there: impl Fn(&ImageId) -> bool) -> Vec<ImageId> {
        let gone: Vec<ImageId> = self.known.keys().filter(|image| !is_there(image)).cloned().collect();
        for image in &gone {
            self.known.remove(image);
            // One that stays is forgotten at the next start.
            let _ = fs::remove_file(self.path(image));
        }
        gone
    }

    fn path(&self, image: &ImageId) -> PathBuf {
        self.folder.join(format!("{image}.json"))
    }
}

/// Returns the image that a file of the folder is about; others' files are nobody's business here.
fn image_of(path: &Path) -> Option<ImageId> {
    let image: ImageId = path.file_name()?.to_str()?.strip_suffix(".json")?.parse().ok()?;
    (path.file_name()?.to_str()? == format!("{image}.json")).then_some(image)
}

fn read_one(path: &Path) -> Result<Manifest> {
    let attempt = || format!("read '{}'", path.display());
    let len = path.metadata().attempt(attempt)?.len();
    if len > LONGEST {
        return Err(crate::error::Error::invalid(format!("read '{}': it has {len} bytes", path.display())));
    }
    Manifest::parse(&fs::read(path).attempt(attempt)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Imported, Origin};

    fn manifest(image: &str) -> Manifest {
        let source = "/srv/a.raw".to_owned();
        let origin =
            Origin::Import(Imported { source, format: None, size: None, sha256: None, caution: None });
        Manifest::new(image.parse().unwrap(), 7, origin)
    }

    #[test]
    fn manifests_are_found_again_and_forgotten_with_their_images() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("images");
        let mut all = Manifests::read(folder.clone());
        all.put(manifest("web@1")).unwrap();
        all.put(manifest("web@2")).unwrap();
        let mut again = Manifests::read(folder.clone());
        assert_eq!(again.known, all.known);
        again.keep(|image| image.version.number() == 2);
        assert_eq!(again.get(&"web@1".parse().unwrap()), None);
        assert_eq!(Manifests::read(folder).known, again.known);
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "damaged files, which nobody saves")]
    fn a_damaged_manifest_costs_itself_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let mut all = Manifests::read(dir.path().to_owned());
        all.put(manifest("web@1")).unwrap();
        let whole = fs::read(dir.path().join("web@1.json")).unwrap();
        for end in [0, 1, whole.len() / 2, whole.len() - 1] {
            fs::write(dir.path().join("web@2.json"), &whole[..end]).unwrap();
            assert_eq!(Manifests::read(dir.path().to_owned()).known, all.known, "cut at {end}");
        }
        // Another's manifest under this name, and names that are no image's.
        for name in ["web@3.json", "web.json", "notes.txt", "..json"] {
            fs::write(dir.path().join(name), &whole).unwrap();
        }
        assert_eq!(Manifests::read(dir.path().to_owned()).known, all.known);
    }
}
