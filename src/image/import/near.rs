//! A raw disk on this machine: a child of the agent's own looks at it and copies it, with nothing but the two open files that it
//! is handed (`hand`, `host::privileges`). It starts while LVM makes the volume, because either takes as long as many an
//! image's copying; a unit of systemd would take several times that. What is no raw disk is left to the sandbox.

use std::{
    fs::File,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, ScopedJoinHandle},
};

use super::{
    Import, Job,
    fill::{Writing, least, room_for},
};
use crate::{
    error::{Error, Kind, Result},
    host::{
        cmd::{Cmd, Tool},
        lvm::Lvm,
    },
    image::{
        Source, blocks, hand,
        header::{Format, Look, Packing, Screened, bootable_size},
        internal,
        limits::{look, with_more},
        sandbox::{CONVERTING, Seen, TICK, refusal},
        watch::Watch,
    },
    model::{Bytes, PoolUsage},
    plan::admit,
};

/// Longest answer to what an image is.
const ANSWER: usize = 4096;

/// What was copied.
pub(super) struct Copied {
    /// The volume that it is on.
    pub(super) device: PathBuf,
    /// What the source was.
    pub(super) found: Screened,
    /// How large the disk is.
    pub(super) size: Bytes,
}

impl Job<'_, '_> {
    /// Copies a raw disk of this machine to a new volume; returns nothing where the source is something else, or nothing that
    /// could be opened: there is no volume then.
    ///
    /// # Errors
    /// As [`Import::run`]; there is no volume then, unless the agent is ending.
    pub(super) fn near(&mut self) -> Result<Option<Copied>> {
        let (import, lvm, seen) = (self.import, self.lvm, &self.seen);
        let Some((source, size)) = raw_disk(&import.source, seen) else { return Ok(None) };
        let (giving, taking) = hand::pair()?;
        hand::give(&giving, &source)?;
        thread::scope(|scope| {
            let making = Some(scope.spawn(move || make(lvm, import, size)));
            let (giving, said) = (Some(giving), vec![]);
            let mut copy =
                Copy { lvm, import, seen, giving, making, made: None, said, found: None, writing: None };
            let ended = run(taking, |piece| copy.hear(piece, &mut self.watch)).and_then(|()| copy.end());
            ended.inspect_err(|error| {
                if !self.watch.leaves(error) {
                    copy.undo();
                }
            })
        })
    }
}

/// Opens what may be a raw disk, and returns how large it is then. Nothing where it cannot be opened here, where no disk has its
/// size, and where its name says that it is something else.
fn raw_disk(source: &Source, seen: &Seen) -> Option<(File, Bytes)> {
    let name = source.file_name().unwrap_or_default();
    let end = Path::new(name).extension().and_then(|end| end.to_str()).unwrap_or_default();
    if end.parse::<Packing>().is_ok() || end.parse::<Format>().is_ok_and(|format| format != Format::Raw) {
        return None;
    }
    let (Seen::File(path) | Seen::Device(path)) = seen else { return None };
    let look = Look::open(path).ok()?;
    let size = bootable_size(look.len()).ok()?;
    Some((look.into_file(), size))
}

/// Runs the child that copies, to its end.
fn run(socket: File, mut on_output: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let cmd = Cmd::new(Tool::Sheath, CONVERTING).arg(internal::COPY).stdin_from(Arc::new(socket)).tick(TICK);
    let ended = cmd.run_to_end(&mut on_output)?;
    match ended.status {
        Some(0) => Ok(()),
        Some(status) => {
            let failed =
                || Error::new(Kind::Failed, format!("copy it: exit status {status}: {}", ended.stderr));
            Err(refusal(status, &ended.stderr).unwrap_or_else(failed))
        }
        None => Err(Error::new(Kind::Failed, "copy it: the process was killed")),
    }
}

/// What LVM has made while the child started.
struct Made {
    pool: PoolUsage,
    /// The volume, until it is somebody else's business.
    device: Option<PathBuf>,
    /// How large a disk it is for.
    size: Bytes,
}

/// Looks at the pool, and makes a volume for a disk of this size meanwhile.
fn make(lvm: &Lvm, import: &Import, size: Bytes) -> Result<Made> {
    thread::scope(|scope| {
        let pool = scope.spawn(|| look(lvm, import.watermark));
        let device = lvm.create_image_node(&import.image, room_for(size));
        let pool = pool.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // A full pool is the better reason, whatever LVM says of a volume in it.
        let pool = pool.inspect_err(|_| {
            if device.is_ok() {
                let _ = lvm.remove_image(&import.image);
            }
        })?;
        Ok(Made { pool, device: Some(device?), size })
    })
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
    /// Hears the child: first what the image is, then how far its copying is.
    fn hear(&mut self, piece: &[u8], watch: &mut Watch<'_>) -> Result<()> {
        if let Some(writing) = &mut self.writing {
            return writing.hear(piece, watch).map(drop);
        }
        self.said.extend_from_slice(piece);
        // Gone when it has answered: who waits for a volume in vain goes, too.
        if let Some(giving) = self.giving.take_if(|_| self.said.contains(&b'\n')) {
            let found = internal::screened(&self.said)?;
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
        if made.size != size {
            return Err(Error::invalid("it has changed while it was looked at"));
        }
        admit(&with_more(made.pool, least), import.watermark)?;
        watch.writing(0, Bytes(0))?;
        let device = made.device.as_ref().ok_or_else(no_volume)?;
        let writing = Writing::new(lvm, device, made.pool, import.watermark);
        hand::give(giving, &blocks::open(device)?)?;
        self.writing = Some(writing);
        Ok(())
    }

    /// Returns what came of it when the child has ended well.
    fn end(&mut self) -> Result<Option<Copied>> {
        let silent = || Error::new(Kind::Failed, "read what the image is: nothing was said");
        let found = self.found.ok_or_else(silent)?;
        let (copied, lvm, image) = (self.writing.is_some(), self.lvm, &self.import.image);
        let device = self.made()?.device.take().ok_or_else(no_volume)?;
        match found {
            Screened::Disk { virtual_size: size, .. } if copied => Ok(Some(Copied { device, found, size })),
            _ => lvm.remove_image(image).map(|_| None),
        }
    }

    /// Takes the volume away, if there is one: what was made by somebody else stays.
    fn undo(&mut self) {
        let (lvm, image) = (self.lvm, &self.import.image);
        if self.made().is_ok_and(|made| made.device.is_some()) {
            // Should this fail too, the tag says that it is half-made, and the next import of the name removes it.
            let _ = lvm.remove_image(image);
        }
    }

    /// Waits for what LVM makes.
    fn made(&mut self) -> Result<&mut Made> {
        if let Some(making) = self.making.take() {
            self.made = Some(making.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        self.made.as_mut().ok_or_else(no_volume)
    }
}

fn no_volume() -> Error {
    Error::new(Kind::Failed, "make the image's volume: that has failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_made_ahead_only_where_the_source_may_be_a_raw_disk() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let size = |source: &str, seen: &Path| {
            raw_disk(&source.parse().unwrap(), &Seen::File(seen.to_owned())).map(|(_, size)| size)
        };
        for raw in ["/srv/web.raw", "/srv/web", "/srv/web.img", "https://host/web.raw"] {
            assert_eq!(size(raw, file.path()), Some(Bytes::mib(1)), "{raw}");
        }
        for other in ["/srv/web.qcow2", "/srv/web.raw.xz", "https://host/web.vmdk"] {
            assert_eq!(size(other, file.path()), None, "{other}");
        }
        for hidden in ["/nowhere", "/dev/null", "/tmp"] {
            assert_eq!(size("/srv/web.raw", Path::new(hidden)), None, "{hidden}");
        }
        file.as_file().set_len(1000).unwrap();
        assert_eq!(size("/srv/web.raw", file.path()), None, "no disk has this size");
    }
}
