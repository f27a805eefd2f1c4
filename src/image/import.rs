//! The import of one image, from its source to a finished volume, or to nothing at all.

use std::{
    fs::{self, DirBuilder, Permissions},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    Source,
    fetch::fetch,
    header::Screened,
    internal,
    progress::Progress,
    sandbox::{DEVICE, SOURCE, Sandbox, stop_leftovers},
};
use crate::{
    error::{Context, Error, Kind, Result},
    host::{
        disk::gpt::{self, SEED_ROOM},
        lvm::Lvm,
    },
    model::{Bytes, ImageId, ImageName, PoolUsage},
    plan::admit,
    status::ImportProgress,
};

/// How often the pool's fill is looked at meanwhile: it takes some tenths of a second, and even fast disks fill a pool
/// by little in this time.
const LOOK: Duration = Duration::from_secs(10);

/// What to import.
#[derive(Debug, Clone)]
pub struct Import {
    /// The new image.
    pub image: ImageId,
    /// Where it comes from.
    pub source: Source,
    /// Whether it may be chosen as soon as it is whole.
    pub publish: bool,
    /// A folder that only root can enter, on a file system with room for a fetched image, which systemd sees under the
    /// same name: not one that the agent's unit has privately.
    pub folder: PathBuf,
    /// No import above this fill of the pool, in percent.
    pub watermark: u8,
}

/// The wish to stop an import, given from another thread.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks the import to stop. It does at the next sign of progress, and leaves nothing behind.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::Denied, "the import was cancelled"));
        }
        Ok(())
    }
}

/// Who wants to know how far an import is, and may want to stop it.
pub(super) struct Watch<'a> {
    cancel: &'a Cancel,
    progress: &'a mut dyn FnMut(ImportProgress),
}

impl Watch<'_> {
    /// Tells how far it is, unless it is to stop.
    pub(super) fn tell(&mut self, progress: ImportProgress) -> Result<()> {
        self.cancel.check()?;
        (self.progress)(progress);
        Ok(())
    }
}

impl Import {
    /// Runs the import; returns when the image is whole, or when nothing is left of it.
    ///
    /// `progress` hears of fetching and writing, at most some times a second; the end is the returned value.
    ///
    /// # Errors
    /// [`Kind::Exists`] where this image is finished, [`Kind::Full`] where the pool or the folder is,
    /// [`Kind::Invalid`] for an image that is refused, [`Kind::Denied`] when it was cancelled; else what failed.
    pub fn run(&self, lvm: &Lvm, cancel: &Cancel, progress: &mut dyn FnMut(ImportProgress)) -> Result<()> {
        let attempt = || format!("import image '{}' from '{}'", self.image, self.source);
        stop_leftovers(&self.image.name);
        let folder = Folder::make(&self.folder, &self.image.name).map_err(|e| e.while_doing(attempt()))?;
        let mut job = Job { import: self, lvm, folder: &folder, watch: Watch { cancel, progress } };
        job.run().map_err(|e| e.while_doing(attempt()))
    }
}

/// One run of an import.
struct Job<'a> {
    import: &'a Import,
    lvm: &'a Lvm,
    folder: &'a Folder,
    watch: Watch<'a>,
}

impl Job<'_> {
    fn run(&mut self) -> Result<()> {
        let image = &self.import.image;
        self.admit(Bytes(0))?;
        self.obtain()?;
        let found = self.probe()?;
        self.admit(least(&self.folder.source(), found))?;
        self.watch.tell(ImportProgress::Writing { permyriad: 0 })?;
        let device = self.lvm.create_image(image, Bytes(found.virtual_size.0 + SEED_ROOM.0))?;
        self.fill(&device, found).inspect_err(|_| {
            // Should this fail too, the tag says that it is half-made, and the next import of the name removes it.
            let _ = self.lvm.remove_image(image);
        })
    }

    /// Makes the source a file in our folder, or a link there.
    fn obtain(&mut self) -> Result<()> {
        match &self.import.source {
            Source::Url(url) => fetch(&self.import.image.name, url, self.folder, &mut self.watch),
            // Inside, and for systemd, the file has a name of ours, whatever its own has in it. It need not be visible
            // from here: the agent's own unit may hide home folders.
            Source::File(path) => {
                symlink(path, self.folder.source()).attempt(|| format!("link '{}'", path.display()))
            }
        }
    }

    /// Refuses when the pool is above its watermark, or would be with so much more in it.
    fn admit(&self, more: Bytes) -> Result<()> {
        admit(&with_more(self.lvm.volumes()?.pool, more), self.import.watermark)
    }

    /// Returns the sandbox for a hidden subcommand.
    fn sandbox(&self, args: &[&str]) -> Sandbox {
        Sandbox::own(&self.import.image.name, &self.folder.root(), args, &self.folder.source())
    }

    /// Asks what the image is.
    fn probe(&self) -> Result<Screened> {
        let sandbox = self.sandbox(&[internal::PROBE, SOURCE]);
        let mut said = vec![];
        sandbox.run(vec![], |piece| said.extend_from_slice(piece)).map_err(|e| match e.kind() {
            Kind::Missing => {
                Error::new(Kind::Missing, format!("there is no '{}'", self.import.source)).because(e)
            }
            _ => e,
        })?;
        serde_json::from_slice(&said)
            .map_err(|e| Error::new(Kind::Failed, "read what the image is").because(e))
    }

    /// Writes the image to its volume and finishes it.
    fn fill(&mut self, device: &Path, found: Screened) -> Result<()> {
        self.convert(device, found)?;
        gpt::check(device)?;
        self.watch.cancel.check()?;
        self.lvm.finish_image(&self.import.image, self.import.publish)?;
        Ok(())
    }

    /// Writes the image to the device, watching the pool.
    fn convert(&mut self, device: &Path, found: Screened) -> Result<()> {
        let node = device.canonicalize().attempt(|| format!("find device '{}'", device.display()))?;
        let format = found.format.to_string();
        let args = [internal::CONVERT, &format, SOURCE, DEVICE];
        let sandbox = self.sandbox(&args).with_device(&node);
        let (mut figures, mut looked, mut stop) = (Progress::default(), Instant::now(), None);
        let ended = sandbox.run(vec![], |piece| {
            let Some(permyriad) = figures.feed(piece).filter(|_| stop.is_none()) else { return };
            let mut going = self.watch.tell(ImportProgress::Writing { permyriad });
            if looked.elapsed() > LOOK {
                looked = Instant::now();
                going = going.and_then(|()| self.admit(Bytes(0)));
            }
            stop = going.inspect_err(|_| sandbox.stop()).err();
        });
        match stop {
            Some(reason) => Err(reason),
            None => ended,
        }
    }
}

/// Returns how much of the pool the image takes at least: what its file takes, unless it is mostly air; nothing where the
/// file is hidden from us.
fn least(source: &Path, found: Screened) -> Bytes {
    let blocks = source.metadata().map_or(0, |file| file.blocks());
    Bytes(blocks.saturating_mul(512)).min(found.virtual_size)
}

/// Returns the pool's fill with so much more in it.
#[allow(clippy::cast_precision_loss, reason = "a share, to be compared with a percentage")]
fn with_more(pool: PoolUsage, more: Bytes) -> PoolUsage {
    let share = if pool.size.0 == 0 { 0.0 } else { more.0 as f32 / pool.size.0 as f32 };
    PoolUsage { data_percent: pool.data_percent + 100.0 * share, ..pool }
}

/// A folder for one import, gone with all in it when the import is over.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes the folder anew. What a killed agent has left there goes first.
    fn make(parent: &Path, image: &ImageName) -> Result<Self> {
        let folder = Self(parent.join(format!("import-{image}")));
        folder.clear();
        let attempt = || format!("make folder '{}'", folder.0.display());
        DirBuilder::new().mode(0o700).recursive(true).create(&folder.0).attempt(attempt)?;
        DirBuilder::new().create(folder.root()).attempt(attempt)?;
        // Whatever our umask: a passing user is to stand in it.
        fs::set_permissions(folder.root(), Permissions::from_mode(0o755)).attempt(attempt)?;
        Ok(folder)
    }

    /// Returns where the image is, or a link to it.
    pub(super) fn source(&self) -> PathBuf {
        self.0.join("source")
    }

    /// Returns the empty folder that is a sandbox's root.
    pub(super) fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    fn clear(&self) {
        let _ = fs::remove_file(self.source());
        sweep(&self.0);
        let _ = fs::remove_dir(&self.0);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nobody to tell what is left; the next import of this name tries again.
        self.clear();
    }
}

/// Removes empty folders and empty files below `folder`: the places where systemd has mounted things for a sandbox.
///
/// Nothing with content in it is ever removed, so that a mount that should have been gone loses nothing.
fn sweep(folder: &Path) {
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
    use super::*;
    use crate::image::header::Format;

    #[test]
    fn a_cancelled_import_stops_at_the_next_sign_of_progress() {
        let (cancel, mut heard) = (Cancel::default(), 0);
        let mut count = |_| heard += 1;
        let mut watch = Watch { cancel: &cancel, progress: &mut count };
        watch.tell(ImportProgress::Writing { permyriad: 1 }).unwrap();
        cancel.clone().cancel();
        assert_eq!(watch.tell(ImportProgress::Writing { permyriad: 2 }).unwrap_err().kind(), Kind::Denied);
        assert_eq!(heard, 1);
    }

    #[test]
    fn the_folder_is_private_and_gone_afterwards() {
        let parent = tempfile::tempdir().unwrap();
        let name: ImageName = "debian13".parse().unwrap();
        let left = parent.path().join("import-debian13");
        fs::create_dir_all(left.join("root/usr/lib")).unwrap();
        fs::File::create(left.join("root/source")).unwrap();
        symlink("/etc/passwd", left.join("source")).unwrap();
        let folder = Folder::make(parent.path(), &name).unwrap();
        assert_eq!(fs::metadata(&left).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(folder.root()).unwrap().count(), 0);
        drop(folder);
        assert!(!left.exists());
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

    #[test]
    fn what_an_image_takes_counts_before_it_is_written() {
        let pool = PoolUsage { size: Bytes::gib(10), data_percent: 50.0, metadata_percent: 1.0 };
        assert!(admit(&with_more(pool, Bytes::gib(3)), 90).is_ok());
        assert_eq!(admit(&with_more(pool, Bytes::gib(4)), 90).unwrap_err().kind(), Kind::Full);
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 30).unwrap();
        let sparse = Screened { format: Format::Raw, virtual_size: Bytes::gib(1) };
        assert_eq!(least(file.path(), sparse), Bytes(0));
    }
}
