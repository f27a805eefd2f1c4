//! From what the source is to a whole volume: made, written, watched, finished, or gone again.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{Job, obtain::pull};
use crate::{
    error::{Error, Result},
    host::{
        disk::gpt::{self, Partitioning, SEED_ROOM},
        lvm::{Lvm, Restless},
    },
    image::{
        Source,
        header::{LARGEST, Screened},
        internal,
        limits::{Guard, Silence, with_more, written},
        progress::Progress,
        sandbox::{DEVICE, Seen},
        watch::Watch,
    },
    model::{Bytes, ImageId, PoolUsage, Tag},
    plan::admit,
};

/// The tags of a volume whose image is whole, and its rest that is to come.
pub(in crate::image) type Done<'a> = (Vec<Tag>, Restless<'a>);

impl<'l> Job<'_, 'l> {
    /// Makes a volume and writes the image to it; returns what it is, its size, and its volume's tags.
    pub(super) fn write(&mut self, found: Screened, pool: PoolUsage) -> Result<(Screened, Bytes, Done<'l>)> {
        admit(&with_more(pool, least(&self.seen, found)), self.import.watermark)?;
        self.watch.writing(0, Bytes(0))?;
        // What is packed shows its size at its end; a thin volume takes only what is written to it.
        let size = match found {
            Screened::Disk { virtual_size, .. } => virtual_size,
            Screened::Packed { .. } => LARGEST,
        };
        let device = self.lvm.create_image_node(&self.import.image, room_for(size))?;
        let (unpacked, done) = self.unless_it_fails(|job| job.fill(&device, found, pool))?;
        Ok((found, unpacked.unwrap_or(size), done))
    }

    /// Does what needs the volume that is ours, which goes if that fails.
    pub(super) fn unless_it_fails<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        work(self).inspect_err(|error| {
            // Should this fail too, the tag says that it is half-made, and the next import of the name removes it.
            if !self.watch.leaves(error) {
                let _ = self.lvm.remove_image(&self.import.image);
            }
        })
    }

    pub(super) fn finish(&self, device: &Path) -> Result<Done<'l>> {
        finish(self.lvm, &self.watch, device, (&self.import.image, self.import.publish))
    }

    /// Writes the image to its volume and finishes it; returns the size of what was packed.
    fn fill(&mut self, device: &Path, found: Screened, pool: PoolUsage) -> Result<(Option<Bytes>, Done<'l>)> {
        let unpacked = self.convert(device, found, pool)?;
        if let Some(size) = unpacked {
            self.lvm.cut_image(&self.import.image, room_for(size))?;
        }
        self.finish(device).map(|done| (unpacked, done))
    }

    /// Writes the image to the device, watching the pool; returns the size of what was packed.
    fn convert(&mut self, device: &Path, found: Screened, pool: PoolUsage) -> Result<Option<Bytes>> {
        let mut writing = Writing::new(self.lvm, device, pool, self.import.watermark);
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
    pub(super) fn order(&self) -> Vec<u8> {
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
pub(super) struct Writing<'a> {
    lvm: &'a Lvm,
    node: PathBuf,
    figures: Progress,
    permyriad: u16,
    guard: Guard,
}

impl<'a> Writing<'a> {
    /// `node` is the kernel's own: its counters are found by its name.
    pub(super) fn new(lvm: &'a Lvm, node: &Path, pool: PoolUsage, watermark: u8) -> Self {
        let guard = Guard::new(pool, watermark);
        Self { lvm, node: node.to_owned(), figures: Progress::default(), permyriad: 0, guard }
    }

    /// Takes in what whoever writes says, and returns how much is written.
    pub(super) fn hear(&mut self, piece: &[u8], watch: &mut Watch<'_>) -> Result<Bytes> {
        self.permyriad = self.figures.feed(piece).unwrap_or(self.permyriad);
        let written = written(&self.node)?;
        self.guard.admit(self.lvm, written)?;
        watch.writing(self.permyriad, written)?;
        Ok(written)
    }
}

/// Returns the size of the volume that a disk of this size has: with room for a seed.
pub(in crate::image) fn room_for(disk: Bytes) -> Bytes {
    Bytes(disk.0 + SEED_ROOM.0)
}

/// Makes an image that is written whole, unless it is none, or was cancelled.
pub(in crate::image) fn finish<'a>(
    lvm: &'a Lvm,
    watch: &Watch<'_>,
    device: &Path,
    (image, publish): (&ImageId, bool),
) -> Result<Done<'a>> {
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
    let restless = lvm.complete_image(image, &tags)?;
    // The last step takes tenths of a second: who cancelled meanwhile was told that nothing stays.
    watch.check().map(|()| (tags, restless))
}

/// Returns how much of the pool the image takes at least: what its file takes, unless it is mostly air; nothing where the
/// file is hidden from us, and of a disk, which may be empty.
pub(super) fn least(seen: &Seen, found: Screened) -> Bytes {
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

    #[test]
    fn air_in_a_file_and_a_disk_that_may_be_empty_take_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 30).unwrap();
        let sparse = Screened::Disk { format: Format::Raw, virtual_size: Bytes::gib(1) };
        assert_eq!(least(&Seen::File(file.path().into()), sparse), Bytes(0));
        assert_eq!(least(&Seen::Device("/dev/null".into()), sparse), Bytes(0));
    }
}
