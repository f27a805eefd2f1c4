//! A source on this machine: one sandbox looks at it and, where it is a raw disk, copies it. It starts while LVM makes
//! the volume, because either takes as long as many an image's copying.

use std::{
    fs::File,
    io::{Seek, SeekFrom},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread::{self, ScopedJoinHandle},
};

use super::{
    Import, Job,
    fill::{Writing, least, room_for},
    missing,
};
use crate::{
    error::{Error, Kind, Result},
    host::lvm::Lvm,
    image::{
        Source, blocks, hand,
        header::{Format, Packing, Screened, bootable_size},
        internal,
        limits::{look, with_more},
        sandbox::Seen,
        watch::Watch,
    },
    model::{Bytes, PoolUsage},
    plan::admit,
};

/// Longest answer to what an image is.
const ANSWER: usize = 4096;

/// What became of a source on this machine.
pub(super) enum Near {
    /// It is a raw disk, and on its volume.
    Copied(PathBuf, Screened, Bytes),
    /// It is something else, and there is no volume.
    Other(Screened, PoolUsage),
}

impl Job<'_> {
    /// Looks at the source, and copies a raw one to a new volume.
    ///
    /// # Errors
    /// As [`Import::run`]; there is no volume then, unless the agent is ending.
    pub(super) fn near(&mut self) -> Result<Near> {
        let (import, lvm, guess) = (self.import, self.lvm, raw_size(&self.import.source, &self.seen));
        let (giving, taking) = hand::pair()?;
        let sandbox = self.sandbox(&[internal::COPY, &self.seen.name()], &self.seen);
        thread::scope(|scope| {
            let making = scope.spawn(move || make(lvm, import, guess));
            let (making, giving) = (Some(making), Some(giving));
            let seen = &self.seen;
            let mut copy = Copy {
                lvm,
                import,
                seen,
                giving,
                making,
                made: None,
                said: vec![],
                found: None,
                writing: None,
            };
            let ended = sandbox.run_on(taking, |piece| copy.hear(piece, &mut self.watch));
            let ended = ended.map_err(|e| missing(&import.source, e)).and_then(|()| copy.end());
            ended.inspect_err(|error| {
                if !self.watch.leaves(error) {
                    copy.undo();
                }
            })
        })
    }
}

/// Returns how large a raw disk at the source is; nothing where that cannot be seen from here, or the source's name says that it
/// is no raw disk.
fn raw_size(source: &Source, seen: &Seen) -> Option<Bytes> {
    let name = source.file_name().unwrap_or_default();
    let end = Path::new(name).extension().and_then(|end| end.to_str()).unwrap_or_default();
    if end.parse::<Packing>().is_ok() || end.parse::<Format>().is_ok_and(|format| format != Format::Raw) {
        return None;
    }
    let len = match seen {
        Seen::File(path) => path.metadata().ok()?.len(),
        Seen::Device(node) => File::open(node).ok()?.seek(SeekFrom::End(0)).ok()?,
        Seen::Export(_) | Seen::Remote(..) | Seen::Lun(_) => return None,
    };
    bootable_size(len).ok()
}

/// What LVM has made while the sandbox started.
struct Made {
    pool: PoolUsage,
    /// The volume, and for a disk of which size.
    volume: Option<(PathBuf, Bytes)>,
}

/// Looks at the pool, and makes a volume for a disk of this size.
fn make(lvm: &Lvm, import: &Import, size: Option<Bytes>) -> Result<Made> {
    let pool = look(lvm, import.watermark)?;
    let volume = size.map(|size| Ok((lvm.create_image(&import.image, room_for(size))?, size)));
    Ok(Made { pool, volume: volume.transpose()? })
}

/// A look and a copying that goes on.
struct Copy<'scope, 'a> {
    lvm: &'a Lvm,
    import: &'a Import,
    seen: &'a Seen,
    /// Where the volume is handed over.
    giving: Option<UnixStream>,
    making: Option<ScopedJoinHandle<'scope, Result<Made>>>,
    made: Option<Made>,
    said: Vec<u8>,
    found: Option<Screened>,
    writing: Option<Writing<'a>>,
}

impl Copy<'_, '_> {
    /// Hears the sandbox: first what the image is, then how far its copying is.
    fn hear(&mut self, piece: &[u8], watch: &mut Watch<'_>) -> Result<()> {
        if let Some(writing) = &mut self.writing {
            return writing.hear(piece, watch).map(drop);
        }
        self.said.extend_from_slice(piece);
        // Gone when it has answered: who waits for a volume in vain goes, too.
        if let Some(giving) = self.giving.take_if(|_| self.said.contains(&b'\n')) {
            let found = answer(&self.said)?;
            self.found = Some(found);
            if let Screened::Disk { format: Format::Raw, virtual_size } = found {
                self.begin(&giving, (found, virtual_size), watch)?;
            }
        }
        if self.said.len() > ANSWER {
            return Err(Error::new(Kind::Failed, "read what the image is: too many words"));
        }
        watch.check()
    }

    /// Hands the volume over.
    fn begin(
        &mut self,
        giving: &UnixStream,
        (found, size): (Screened, Bytes),
        watch: &mut Watch<'_>,
    ) -> Result<()> {
        let (lvm, import, least) = (self.lvm, self.import, least(self.seen, found));
        let made = self.made()?;
        admit(&with_more(made.pool, least), import.watermark)?;
        watch.writing(0, Bytes(0))?;
        if made.volume.take_if(|(_, made)| *made != size).is_some() {
            lvm.remove_image(&import.image)?;
        }
        let device = match &made.volume {
            Some((device, _)) => device.clone(),
            None => lvm.create_image(&import.image, room_for(size))?,
        };
        made.volume = Some((device.clone(), size));
        let writing = Writing::new(lvm, &device, made.pool, import.watermark)?;
        hand::give(giving, &blocks::open(&device)?)?;
        self.writing = Some(writing);
        Ok(())
    }

    /// Returns what came of it when the sandbox has ended well.
    fn end(&mut self) -> Result<Near> {
        let silent = || Error::new(Kind::Failed, "read what the image is: nothing was said");
        let found = self.found.ok_or_else(silent)?;
        let (copied, lvm, image) = (self.writing.is_some(), self.lvm, &self.import.image);
        let made = self.made()?;
        match made.volume.take() {
            Some((device, size)) if copied => Ok(Near::Copied(device, found, size)),
            Some(_) => lvm.remove_image(image).map(|_| Near::Other(found, made.pool)),
            None => Ok(Near::Other(found, made.pool)),
        }
    }

    /// Takes the volume away, if there is one: what was made by somebody else stays.
    fn undo(&mut self) {
        let (lvm, image) = (self.lvm, &self.import.image);
        if self.made().is_ok_and(|made| made.volume.is_some()) {
            // Should this fail too, the tag says that it is half-made, and the next import of the name removes it.
            let _ = lvm.remove_image(image);
        }
    }

    /// Waits for what LVM makes.
    fn made(&mut self) -> Result<&mut Made> {
        if let Some(making) = self.making.take() {
            self.made = Some(making.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        self.made.as_mut().ok_or_else(|| Error::new(Kind::Failed, "make the image's volume: that has failed"))
    }
}

/// Reads what a sandbox says that an image is.
pub(super) fn answer(said: &[u8]) -> Result<Screened> {
    let line = said.split(|byte| *byte == b'\n').next().unwrap_or_default();
    serde_json::from_slice(line).map_err(|e| Error::new(Kind::Failed, "read what the image is").because(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_made_ahead_only_where_the_source_may_be_a_raw_disk() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let size =
            |source: &str, seen: &Path| raw_size(&source.parse().unwrap(), &Seen::File(seen.to_owned()));
        for raw in ["/srv/web.raw", "/srv/web", "/srv/web.img", "https://host/web.raw"] {
            assert_eq!(size(raw, file.path()), Some(Bytes::mib(1)), "{raw}");
        }
        for other in ["/srv/web.qcow2", "/srv/web.raw.xz", "https://host/web.vmdk"] {
            assert_eq!(size(other, file.path()), None, "{other}");
        }
        assert_eq!(size("/srv/web.raw", Path::new("/nowhere")), None, "it is hidden from the agent");
        file.as_file().set_len(1000).unwrap();
        assert_eq!(size("/srv/web.raw", file.path()), None, "no disk has this size");
    }

    #[test]
    fn what_a_sandbox_says_is_one_line_of_json_or_an_error() {
        let said = br#"{"disk":{"format":"raw","virtual_size":1048576}}"#;
        let found = Screened::Disk { format: Format::Raw, virtual_size: Bytes::mib(1) };
        assert_eq!(answer(&[said.as_slice(), b"\n    (1.00/100%)\r"].concat()).unwrap(), found);
        for bad in [&b""[..], b"\n", b"{\n", b"[]\n"] {
            assert_eq!(answer(bad).unwrap_err().kind(), Kind::Failed);
        }
    }
}
