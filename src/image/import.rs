//! The import of one image, from its source to a finished volume, or to nothing at all.

mod fill;
mod near;
mod obtain;

pub(super) use fill::{Done, finish, room_for};

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use near::Copied;

use super::{
    Source,
    checksum::{Algorithm, Check, Checksum},
    folder::Folder,
    header::{Format, Screened, bootable_size},
    internal,
    limits::LOOK,
    sandbox::{Sandbox, Seen, stop_leftovers},
    ssh::There,
    watch::{Cancel, Watch},
};
use crate::{
    error::{Error, Kind, Result},
    host::{
        lvm::{Lvm, Restless},
        ssh::Keys,
    },
    model::{Bytes, ImageId, Imported, PoolUsage, Tag, VolumeState},
    plan::admit,
    status::ImportProgress,
};

/// What to import.
#[derive(Debug, Clone)]
pub struct Import {
    /// The new image.
    pub image: ImageId,
    /// Where it comes from.
    pub source: Source,
    /// What the file at the source has to be like.
    pub checks: Vec<Check>,
    /// Whether it may be chosen as soon as it is whole.
    pub publish: bool,
    /// A folder that only root can enter, on a file system with room for a fetched image, which systemd sees under the
    /// same name: not one that the agent's unit has privately.
    pub folder: PathBuf,
    /// No import above this fill of the pool, in percent.
    pub watermark: u8,
    /// How long the source may say nothing: [`STALL`](super::STALL), but for tests.
    pub stall: Duration,
    /// The key that other machines let in, and the machines that are known.
    pub keys: Keys,
}

impl Import {
    /// Runs the import, to the moment in which the image is whole, or nothing is left of it. Its volume is put to rest when the
    /// second of what is returned goes.
    ///
    /// `progress` hears of fetching, checking and writing, at most some times a second; the end is the returned value.
    ///
    /// # Errors
    /// [`Kind::Exists`] where this image is finished, [`Kind::Full`] where the pool or the folder is,
    /// [`Kind::Invalid`] for an image that is refused, [`Kind::Busy`] for a donor's disk that is in use,
    /// [`Kind::Timeout`] for a source that says nothing, [`Kind::Denied`] when it was cancelled; else what failed.
    pub fn run<'l>(
        &self,
        lvm: &'l Lvm,
        cancel: &Cancel,
        progress: &mut dyn FnMut(ImportProgress),
    ) -> Result<(Whole, Restless<'l>)> {
        let attempt = || format!("import image '{}' from '{}'", self.image, self.source);
        stop_leftovers(&self.image.name);
        let folder = Folder::make(&self.folder, &self.image.name).map_err(|e| e.while_doing(attempt()))?;
        let watch = Watch::new(cancel, progress);
        let seen = Seen::File(folder.source());
        let mut job = Job { import: self, lvm, folder: &folder, watch, seen, there: None };
        let ended = job.run();
        if ended.as_ref().is_err_and(|error| cancel.leaves(error)) {
            std::mem::forget(folder);
        }
        ended.map_err(|e| e.while_doing(attempt()))
    }
}

/// An image that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// What its source was.
    pub found: Imported,
    /// The tags that its volume has.
    pub tags: Vec<Tag>,
}

impl Whole {
    /// Returns the size of its volume: the disk's, with room for a seed.
    pub fn volume_size(&self) -> Option<Bytes> {
        self.found.size.map(room_for)
    }
}

/// One run of an import.
struct Job<'a, 'l> {
    import: &'a Import,
    lvm: &'l Lvm,
    folder: &'a Folder,
    watch: Watch<'a>,
    seen: Seen,
    /// What was seen on another machine.
    there: Option<There>,
}

impl<'l> Job<'_, 'l> {
    fn run(&mut self) -> Result<(Whole, Restless<'l>)> {
        let Import { source, checks, .. } = self.import;
        // Nothing that takes long is begun for a pool without room.
        let here = matches!(source, Source::File(_) | Source::Device(_)) && checks.is_empty();
        let early = if here { None } else { Some((Instant::now(), self.admit()?)) };
        let expected = self.expected()?;
        let _held = self.obtain()?;
        self.verify(&expected)?;
        let (found, size, (tags, restless)) = match self.near()? {
            Some(Copied { device, found, size }) => {
                self.unless_it_fails(|job| job.finish(&device)).map(|done| (found, size, done))
            }
            None => {
                let found = self.probe()?;
                // What was seen a moment ago is still so: each look takes tenths of a second.
                let seen = early.filter(|(looked, _)| looked.elapsed() < LOOK);
                let pool = seen.map_or_else(|| self.admit(), |(_, pool)| Ok(pool))?;
                self.write(found, pool)
            }
        }?;
        Ok((Whole { found: self.imported(found, size, &expected), tags }, restless))
    }

    /// Returns what the source was. It is read once: its checksum is known where it was compared with one.
    fn imported(&self, found: Screened, size: Bytes, compared: &[Checksum]) -> Imported {
        let format = match found {
            Screened::Disk { format, .. } => format.to_string(),
            Screened::Packed { packing, .. } => format!("raw.{packing}"),
        };
        let sha256 = compared.iter().find(|checksum| checksum.algorithm() == Algorithm::Sha256);
        Imported {
            source: self.import.source.to_string(),
            format: Some(format),
            size: Some(size),
            sha256: sha256.map(ToString::to_string),
            caution: self.there.as_ref().and_then(There::caution),
        }
    }

    /// Returns the pool's fill; refuses when it is above its watermark, and where the image is finished: an agent that was killed
    /// before it could tell that would have the next one fetch it again.
    fn admit(&self) -> Result<PoolUsage> {
        let Import { image, watermark, .. } = self.import;
        let volumes = self.lvm.volumes()?;
        if volumes.volumes.get(&image.lv_name()).is_some_and(|volume| volume.state == VolumeState::Ready) {
            return Err(Error::new(Kind::Exists, format!("image '{image}' exists")));
        }
        admit(&volumes.pool, *watermark).map(|()| volumes.pool)
    }

    /// Returns the sandbox for a hidden subcommand.
    fn sandbox(&self, args: &[&str], seen: &Seen) -> Sandbox {
        Sandbox::own(&self.import.image.name, &self.folder.root(), args, seen)
    }

    /// Runs a hidden subcommand and returns what it says.
    fn ask(&self, args: &[&str], seen: &Seen) -> Result<String> {
        let mut said = vec![];
        self.sandbox(args, seen).run(self.order(), |piece| {
            said.extend_from_slice(piece);
            self.watch.check()
        })?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// Asks what the image is.
    fn probe(&self) -> Result<Screened> {
        if let (Seen::Remote(..), Some(there)) = (&self.seen, &self.there) {
            let virtual_size = bootable_size(there.what.size)?;
            return Ok(Screened::Disk { format: Format::Raw, virtual_size });
        }
        let said = self.ask(&[internal::PROBE, &self.seen.name()], &self.seen);
        internal::screened(said.map_err(|e| missing(&self.import.source, e))?.as_bytes())
    }
}

/// Returns the error with the source's own name, where what failed is that it is not there.
fn missing(source: &Source, error: Error) -> Error {
    match error.kind() {
        Kind::Missing if error.to_string().contains("its files are not there") => {
            Error::new(Kind::Missing, format!("there is no '{source}'")).because(error)
        }
        _ => error,
    }
}
