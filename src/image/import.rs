//! The import of one image, from its source to a finished volume, or to nothing at all.

use std::{
    fs::File,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

mod near;

use near::Near;

use super::{
    Source,
    checksum::{Algorithm, Check, Checksum},
    fetch::{self, Fetch},
    folder::Folder,
    header::{Format, LARGEST, Screened, bootable_size},
    internal,
    limits::{Guard, LOOK, Silence, look, with_more, written},
    progress::Progress,
    pull::Pull,
    remote::Remote,
    sandbox::{DEVICE, SOURCE, Sandbox, Seen, stop_leftovers},
    source::Url,
    ssh::There,
    watch::{Cancel, Watch},
};
use crate::{
    error::{Context, Error, Kind, Result},
    host::{
        disk::{
            donor,
            gpt::{self, Partitioning, SEED_ROOM},
        },
        lvm::Lvm,
        ssh::Keys,
    },
    model::{Bytes, ImageId, Imported, PoolUsage, Tag},
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
    /// Runs the import; returns what the source was when the image is whole, or when nothing is left of it.
    ///
    /// `progress` hears of fetching, checking and writing, at most some times a second; the end is the returned value.
    ///
    /// # Errors
    /// [`Kind::Exists`] where this image is finished, [`Kind::Full`] where the pool or the folder is,
    /// [`Kind::Invalid`] for an image that is refused, [`Kind::Busy`] for a donor's disk that is in use,
    /// [`Kind::Timeout`] for a source that says nothing, [`Kind::Denied`] when it was cancelled; else what failed.
    pub fn run(&self, lvm: &Lvm, cancel: &Cancel, progress: &mut dyn FnMut(ImportProgress)) -> Result<Whole> {
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
struct Job<'a> {
    import: &'a Import,
    lvm: &'a Lvm,
    folder: &'a Folder,
    watch: Watch<'a>,
    seen: Seen,
    /// What was seen on another machine.
    there: Option<There>,
}

impl Job<'_> {
    fn run(&mut self) -> Result<Whole> {
        let Import { source, checks, .. } = self.import;
        // Nothing that takes long is begun for a pool without room.
        let near = matches!(source, Source::File(_) | Source::Device(_)) && checks.is_empty();
        let early = if near { None } else { Some((Instant::now(), self.admit(Bytes(0))?)) };
        let expected = self.expected()?;
        let _held = self.obtain()?;
        self.verify(&expected)?;
        let (found, size, tags) = match self.seen {
            Seen::File(_) | Seen::Device(_) => match self.near()? {
                Near::Copied(device, found, size) => {
                    self.unless_it_fails(|job| job.finish(&device)).map(|tags| (found, size, tags))
                }
                Near::Other(found, pool) => self.write(found, pool),
            },
            Seen::Export(_) | Seen::Remote(..) | Seen::Lun(_) => {
                let found = self.probe()?;
                // What was seen a moment ago is still so: each look takes tenths of a second.
                let seen = early.filter(|(looked, _)| looked.elapsed() < LOOK);
                let pool = seen.map_or_else(|| self.admit(Bytes(0)), |(_, pool)| Ok(pool))?;
                self.write(found, pool)
            }
        }?;
        Ok(Whole { found: self.imported(found, size, &expected), tags })
    }

    /// Makes a volume and writes the image to it; returns what it is, its size, and its volume's tags.
    fn write(&mut self, found: Screened, pool: PoolUsage) -> Result<(Screened, Bytes, Vec<Tag>)> {
        admit(&with_more(pool, least(&self.seen, found)), self.import.watermark)?;
        self.watch.writing(0, Bytes(0))?;
        // What is packed shows its size at its end; a thin volume takes only what is written to it.
        let size = match found {
            Screened::Disk { virtual_size, .. } => virtual_size,
            Screened::Packed { .. } => LARGEST,
        };
        let device = self.lvm.create_image(&self.import.image, room_for(size))?;
        let (unpacked, tags) = self.unless_it_fails(|job| job.fill(&device, found, pool))?;
        Ok((found, unpacked.unwrap_or(size), tags))
    }

    /// Does what needs the volume that is ours, which goes if that fails.
    fn unless_it_fails<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        work(self).inspect_err(|error| {
            // Should this fail too, the tag says that it is half-made, and the next import of the name removes it.
            if !self.watch.leaves(error) {
                let _ = self.lvm.remove_image(&self.import.image);
            }
        })
    }

    fn finish(&self, device: &Path) -> Result<Vec<Tag>> {
        finish(self.lvm, &self.watch, device, (&self.import.image, self.import.publish))
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

    /// Returns the checksums that the file has to have.
    fn expected(&mut self) -> Result<Vec<Checksum>> {
        let mut expected = vec![];
        for check in &self.import.checks {
            expected.push(match check {
                Check::Is(checksum) => checksum.clone(),
                Check::InList(list) => {
                    let attempt = || format!("find the checksum in '{list}'");
                    self.listed(list).map_err(|e| e.while_doing(attempt()))?
                }
            });
        }
        Ok(expected)
    }

    /// Looks the source's name up in a list.
    fn listed(&mut self, list: &Source) -> Result<Checksum> {
        let name = self.import.source.file_name();
        let name = name.ok_or_else(|| Error::invalid("the source has no name that a list could have"))?;
        match list {
            Source::Url(url) => curl(self.import, self.folder, url).list()?,
            Source::File(path) => link(path, &self.folder.list())?,
            Source::Device(_) | Source::Export(_) | Source::Donor(_) | Source::Remote(_) | Source::Lun(_) => {
                return Err(Error::invalid("a list is a file or a URL"));
            }
        }
        let args = [internal::PROBE, internal::LISTED, name, SOURCE];
        let said = self.ask(&args, &Seen::File(self.folder.list())).map_err(|e| missing(list, e))?;
        let _ = std::fs::remove_file(self.folder.list());
        said.trim().parse()
    }

    /// Makes the source something that a sandbox can see. A donor's disk is held: nobody mounts it meanwhile.
    fn obtain(&mut self) -> Result<Option<File>> {
        match &self.import.source {
            Source::Url(url) => {
                let curl = curl(self.import, self.folder, url);
                fetch::fetch(&curl, self.folder, &mut self.watch).map(|()| None)
            }
            Source::File(path) => link(path, &self.folder.source()).map(|()| None),
            Source::Device(path) => {
                let (node, held) = donor::claim(path)?;
                self.seen = Seen::Device(node);
                Ok(Some(held))
            }
            Source::Export(export) => {
                self.seen = Seen::Export(export.clone());
                Ok(None)
            }
            Source::Donor(donor) => Err(Error::invalid(format!("'{donor}' is captured, not read"))),
            Source::Remote(remote) => self.obtain_remote(remote).map(|()| None),
            Source::Lun(lun) => {
                self.seen = Seen::Lun(lun.clone());
                Ok(None)
            }
        }
    }

    /// Looks what another machine has, and fetches it where it cannot go straight to its volume: what is to be compared
    /// with a checksum before, and what is no raw disk.
    fn obtain_remote(&mut self, remote: &Remote) -> Result<()> {
        let root = self.folder.root();
        let pull = pull(self.import, &root, remote);
        let there = pull.look(&self.watch)?;
        if there.raw && self.import.checks.is_empty() {
            self.seen = Seen::Remote(self.import.keys.clone(), remote.to_string());
        } else {
            fetch::fetch(&(&pull, &there), self.folder, &mut self.watch)?;
        }
        self.there = Some(there);
        Ok(())
    }

    /// Refuses when the pool is above its watermark, or would be with so much more in it.
    fn admit(&self, more: Bytes) -> Result<PoolUsage> {
        look(self.lvm, self.import.watermark, more)
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

    /// Refuses a file that has another checksum than it should.
    fn verify(&mut self, expected: &[Checksum]) -> Result<()> {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let mut wanted = expected.iter().filter(|checksum| checksum.algorithm() == algorithm).peekable();
            if wanted.peek().is_none() {
                continue;
            }
            let found = self.sum(algorithm)?;
            if let Some(wrong) = wanted.find(|checksum| **checksum != found) {
                let text = format!("its {algorithm} checksum is {found}, and not {wrong} as it should be");
                return Err(Error::invalid(text));
            }
        }
        Ok(())
    }

    fn sum(&mut self, algorithm: Algorithm) -> Result<Checksum> {
        let (name, algorithm) = (self.seen.name(), algorithm.to_string());
        let sandbox = self.sandbox(&[internal::PROBE, internal::SUM, &algorithm, &name], &self.seen);
        let total = Bytes(self.folder.source().metadata().map_or(0, |file| file.len()));
        let (mut said, watch) = (String::new(), &mut self.watch);
        let ended = sandbox.run(vec![], |piece| {
            said.push_str(&String::from_utf8_lossy(piece));
            let lines = said.rfind('\n').map(|end| said[..end].to_owned());
            let done = lines.as_deref().and_then(|lines| lines.rsplit('\n').next()?.parse().ok());
            watch.checking(done.unwrap_or_default(), total)
        });
        ended.map_err(|e| missing(&self.import.source, e))?;
        said.lines().last().unwrap_or_default().parse()
    }

    /// Asks what the image is.
    fn probe(&self) -> Result<Screened> {
        if let (Seen::Remote(..), Some(there)) = (&self.seen, &self.there) {
            let virtual_size = bootable_size(there.what.size)?;
            return Ok(Screened::Disk { format: Format::Raw, virtual_size });
        }
        let said = self.ask(&[internal::PROBE, &self.seen.name()], &self.seen);
        near::answer(said.map_err(|e| missing(&self.import.source, e))?.as_bytes())
    }

    /// Writes the image to its volume and finishes it; returns the size of what was packed, and the volume's tags.
    fn fill(&mut self, device: &Path, found: Screened, pool: PoolUsage) -> Result<(Option<Bytes>, Vec<Tag>)> {
        let unpacked = self.convert(device, found, pool)?;
        if let Some(size) = unpacked {
            self.lvm.cut_image(&self.import.image, room_for(size))?;
        }
        self.finish(device).map(|tags| (unpacked, tags))
    }

    /// Writes the image to the device, watching the pool; returns the size of what was packed.
    fn convert(&mut self, device: &Path, found: Screened, pool: PoolUsage) -> Result<Option<Bytes>> {
        let mut writing = Writing::new(self.lvm, device, pool, self.import.watermark)?;
        let (word, packed) = match found {
            Screened::Disk { format, .. } => (format.to_string(), false),
            Screened::Packed { packing, .. } => (packing.to_string(), true),
        };
        let (name, order) = (self.seen.name(), self.order());
        let args = match &self.seen {
            Seen::Remote(..) => vec![internal::CONVERT, internal::REMOTE, DEVICE],
            _ => vec![internal::CONVERT, &word, &name, DEVICE],
        };
        let sandbox = self.sandbox(&args, &self.seen).with_device(&writing.node);
        let watch = &mut self.watch;
        // A file cannot stall, and a disk's own errors end the wait for it.
        let far = matches!(self.seen, Seen::Export(_) | Seen::Remote(..) | Seen::Lun(_));
        let mut silence = far.then(|| Silence::new(self.import.stall));
        let mut heard = 0_u64;
        sandbox.run(order, |piece| {
            heard += piece.len() as u64;
            let written = writing.hear(piece, watch)?;
            silence.as_mut().map_or(Ok(()), |silence| silence.hear((heard, written.0)))
        })?;
        packed.then(|| internal::unpacked_size(writing.figures.rest())).transpose()
    }

    /// Returns what a hidden subcommand is told on its standard input: nothing of it is for arguments.
    fn order(&self) -> Vec<u8> {
        let root = self.folder.root();
        match (&self.import.source, &self.seen, &self.there) {
            (Source::Remote(remote), Seen::Remote(..), Some(there)) => {
                pull(self.import, &root, remote).writing(there)
            }
            (_, Seen::Lun(lun), _) => lun.secret(),
            _ => vec![],
        }
    }
}

/// A volume that is being written to: how far, and whether the pool has room for more.
struct Writing<'a> {
    lvm: &'a Lvm,
    node: PathBuf,
    figures: Progress,
    permyriad: u16,
    guard: Guard,
}

impl<'a> Writing<'a> {
    fn new(lvm: &'a Lvm, device: &Path, pool: PoolUsage, watermark: u8) -> Result<Self> {
        let node = device.canonicalize().attempt(|| format!("find device '{}'", device.display()))?;
        let guard = Guard::new(pool, watermark);
        Ok(Self { lvm, node, figures: Progress::default(), permyriad: 0, guard })
    }

    /// Takes in what whoever writes says, and returns how much is written.
    fn hear(&mut self, piece: &[u8], watch: &mut Watch<'_>) -> Result<Bytes> {
        self.permyriad = self.figures.feed(piece).unwrap_or(self.permyriad);
        let written = written(&self.node)?;
        self.guard.admit(self.lvm, written)?;
        watch.writing(self.permyriad, written)?;
        Ok(written)
    }
}

/// Returns the size of the volume that a disk of this size has: with room for a seed.
pub(super) fn room_for(disk: Bytes) -> Bytes {
    Bytes(disk.0 + SEED_ROOM.0)
}

fn curl<'a>(import: &'a Import, folder: &'a Folder, url: &'a Url) -> Fetch<'a> {
    Fetch { image: &import.image.name, url, folder, stall: import.stall }
}

fn pull<'a>(import: &'a Import, root: &'a Path, remote: &'a Remote) -> Pull<'a> {
    Pull { image: &import.image.name, remote, keys: &import.keys, root, stall: import.stall }
}

/// Makes an image that is written whole, unless it is none, or was cancelled; returns its volume's tags.
pub(super) fn finish(
    lvm: &Lvm,
    watch: &Watch<'_>,
    device: &Path,
    (image, publish): (&ImageId, bool),
) -> Result<Vec<Tag>> {
    let mbr = gpt::check(device)? == Partitioning::Mbr;
    if mbr && publish {
        return Err(Error::invalid(
            "it has an MBR, and no disk can be made of it before it is sealed: leave publishing out, then 'sheath image \
             seal'",
        ));
    }
    watch.check()?;
    let published = publish.then_some(Tag::Published);
    let tags: Vec<Tag> = published.into_iter().chain(mbr.then_some(Tag::Mbr)).collect();
    lvm.complete_image(image, &tags)?;
    // The last step takes tenths of a second: who cancelled meanwhile was told that nothing stays.
    watch.check().map(|()| tags)
}

/// Makes `name` in our folder a link to a file.
///
/// Inside, and for systemd, the file has a name of ours, whatever its own has in it. It need not be visible from here: the
/// agent's own unit may hide home folders.
fn link(path: &Path, name: &Path) -> Result<()> {
    symlink(path, name).attempt(|| format!("link '{}'", path.display()))
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

/// Returns how much of the pool the image takes at least: what its file takes, unless it is mostly air; nothing where the
/// file is hidden from us, and of a disk, which may be empty.
fn least(seen: &Seen, found: Screened) -> Bytes {
    let blocks = match seen {
        Seen::File(path) => path.metadata().map_or(0, |file| file.blocks()),
        Seen::Device(_) | Seen::Export(_) | Seen::Remote(..) | Seen::Lun(_) => 0,
    };
    let most = match found {
        Screened::Disk { virtual_size, .. } => virtual_size,
        // Some packed files are larger than what is in them, by little.
        Screened::Packed { size, .. } => Bytes(size.0 / 2),
    };
    Bytes(blocks.saturating_mul(512)).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::header::Format;

    fn pool() -> PoolUsage {
        PoolUsage { size: Bytes::gib(10), data_percent: 50.0, metadata_percent: 1.0 }
    }

    #[test]
    fn what_an_image_takes_counts_before_it_is_written() {
        assert!(admit(&with_more(pool(), Bytes::gib(3)), 90).is_ok());
        assert_eq!(admit(&with_more(pool(), Bytes::gib(4)), 90).unwrap_err().kind(), Kind::Full);
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 30).unwrap();
        let sparse = Screened::Disk { format: Format::Raw, virtual_size: Bytes::gib(1) };
        assert_eq!(least(&Seen::File(file.path().into()), sparse), Bytes(0));
        assert_eq!(least(&Seen::Device("/dev/null".into()), sparse), Bytes(0));
    }
}
