//! Unpacks a raw image onto its volume: one pass, nothing stored twice, and no size believed that was not seen.
//!
//! How large the disk is shows at the stream's end; what a trailer says of it is the sender's word, and gzip's is only
//! right below 4 GiB. So the volume is made as large as any image may be, which a thin volume has for nothing, zeros are
//! not written, and afterwards the import cuts the volume to what has come. A sparse file in our folder would need the
//! room of the unpacked image a second time, on a file system that is not meant for it; a first pass for the size alone
//! would take the time twice.
//!
//! Runs inside the sandbox: the program that unpacks is Debian's, its output is a stranger's.

use std::{fs::File, io::Seek, path::Path, sync::Arc};

use super::{
    blocks::{self, ALIGN, Buffer},
    header::{self, LARGEST, Packing, START, Screened, bootable_size, only_raw, screen},
    limits::STREAM,
    progress::Teller,
};
use crate::{
    error::{Error, Kind, Result},
    host::cmd::{Cmd, Tool},
    model::Bytes,
};

/// What is written at once.
const BUFFER: usize = 1 << 20;
/// Largest memory that a packed image may ask for: windows of up to 512 MiB, inside the sandbox's limit.
const XZ_MEMORY: &str = "--memlimit-decompress=512MiB";
const ZSTD_MEMORY: &str = "--memory=512MiB";

/// Unpacks the source onto the device, telling how far it is as qemu-img does, and returns the disk's size.
///
/// # Errors
/// [`Kind::Invalid`] for a stream that is damaged, cut short, too large, or holds anything but a raw disk; else the
/// failing system call.
pub(super) fn unpack(packing: Packing, source: &Path, device: &Path) -> Result<Bytes> {
    let size = match screen(source)? {
        Screened::Packed { packing: found, size } if found == packing => size,
        _ => return Err(Error::invalid(format!("the image has turned from {packing} to something else"))),
    };
    let input = Arc::new(header::open(source)?);
    let mut writer = Writer::open(device, Start::Raw)?;
    let mut teller = Teller::new(size);
    let ended = command(packing).stdin_from(Arc::clone(&input)).run_while(|piece| {
        writer.take(piece)?;
        teller.at(|| (&*input).stream_position().unwrap_or_default())
    });
    ended.map_err(|e| damaged(packing, e))?;
    let unpacked = writer.finish()?;
    teller.end().map(|()| unpacked)
}

/// Returns the program, which reads the source as its standard input.
fn command(packing: Packing) -> Cmd {
    let cmd = Cmd::new(packing.tool(), STREAM);
    match packing.tool() {
        Tool::Xz => cmd.args(["--decompress", "--stdout", "--format=xz", XZ_MEMORY]),
        Tool::Zstd => cmd.args(["-d", "-c", "-q", ZSTD_MEMORY]),
        _ => cmd.args(["-d", "-c"]),
    }
}

/// Returns the error of a program that unpacks, as what it says of the image.
fn damaged(packing: Packing, error: Error) -> Error {
    match error.kind() {
        Kind::Failed => Error::invalid(format!("unpack it ({packing}): damaged or cut short")).because(error),
        _ => error,
    }
}

/// What a stream may begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// What looks like a raw disk: anything else would have been packed twice, or have changed.
    Raw,
    /// Anything: somebody else's disk has somebody else's first bytes.
    Any,
}

/// Writes a stream to a device that reads as zeros, past the page cache: a large image would push everything else out.
pub(super) struct Writer {
    device: File,
    start: Start,
    buffer: Buffer,
    filled: usize,
    at: u64,
}

impl Writer {
    pub(super) fn open(device: &Path, start: Start) -> Result<Self> {
        blocks::open(device).map(|file| Self::on(file, start))
    }

    fn on(device: File, start: Start) -> Self {
        Self { device, start, buffer: Buffer::new(BUFFER), filled: 0, at: 0 }
    }

    /// Returns how much has been taken in.
    pub(super) fn position(&self) -> u64 {
        self.at + self.filled as u64
    }

    pub(super) fn take(&mut self, mut piece: &[u8]) -> Result<()> {
        while !piece.is_empty() {
            let n = piece.len().min(BUFFER - self.filled);
            self.buffer.bytes()[self.filled..self.filled + n].copy_from_slice(&piece[..n]);
            self.filled += n;
            piece = &piece[n..];
            if self.filled == BUFFER {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Writes what is gathered, but for blocks of zeros.
    fn flush(&mut self) -> Result<()> {
        let gathered = &self.buffer.bytes()[..self.filled];
        if self.at == 0 && self.start == Start::Raw {
            only_raw(&gathered[..gathered.len().min(START)])?;
        }
        if self.at + self.filled as u64 > LARGEST.0 {
            return Err(Error::invalid(format!("its disk is larger than {}", LARGEST.human())));
        }
        blocks::write(&self.device, gathered, self.at)?;
        self.at += self.filled as u64;
        self.filled = 0;
        Ok(())
    }

    /// Writes the rest, makes sure that all is on the disk, and returns how much there was.
    pub(super) fn finish(mut self) -> Result<Bytes> {
        // Before the last write: the device takes whole sectors only, which may be large ones.
        let size = bootable_size(self.at + self.filled as u64)?;
        let padded = self.filled.next_multiple_of(ALIGN);
        self.buffer.bytes()[self.filled..padded].fill(0);
        self.filled = padded;
        self.flush()?;
        blocks::sync(&self.device)?;
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        time::Duration,
    };

    use proptest::prelude::*;

    use super::*;

    fn written(pieces: &[&[u8]]) -> (Result<Bytes>, Vec<u8>) {
        let mut file = tempfile::tempfile().unwrap();
        let mut writer = Writer::on(file.try_clone().unwrap(), Start::Raw);
        let ended = pieces.iter().try_for_each(|piece| writer.take(piece)).and_then(|()| writer.finish());
        let mut bytes = vec![];
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        (ended, bytes)
    }

    #[test]
    fn zeros_are_not_written_and_count() {
        use std::os::unix::fs::MetadataExt;
        let file = tempfile::tempfile().unwrap();
        let mut writer = Writer::on(file.try_clone().unwrap(), Start::Raw);
        (0..64).for_each(|_| writer.take(&[0; 1 << 20]).unwrap());
        writer.take(&[7; 512]).unwrap();
        assert_eq!(writer.finish().unwrap(), Bytes((64 << 20) + 512));
        assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20);
    }

    #[test]
    fn what_is_not_a_whole_raw_disk_is_refused() {
        for (pieces, why) in [
            (&[b"x".as_slice()][..], "512-byte sectors"),
            (&[], "empty"),
            (&[b"QFI\xfb", &[0; 508]], "a qcow2 disk is packed in it"),
        ] {
            let error = written(pieces).0.unwrap_err();
            assert!(error.kind() == Kind::Invalid && error.to_string().contains(why), "{error}");
        }
    }

    #[test]
    fn a_disk_that_grows_beyond_every_size_is_refused() {
        let mut writer = Writer::on(tempfile::tempfile().unwrap(), Start::Raw);
        writer.at = LARGEST.0;
        assert!(writer.take(&[0; BUFFER]).unwrap_err().to_string().contains("larger than 8.0 TiB"));
    }

    #[test]
    fn each_program_unpacks_what_its_twin_has_packed_and_refuses_a_half() {
        let mut disk = vec![0; 3 << 20];
        disk[1 << 20..2 << 20].fill(0x5a);
        for packing in [Packing::Gz, Packing::Xz, Packing::Zst, Packing::Bz2] {
            if !Path::new(packing.tool().path()).exists() {
                let package = packing.tool().package();
                let _ = writeln!(std::io::stdout(), "skipped: {packing} (Debian package {package})");
                continue;
            }
            let pack = Cmd::new(packing.tool(), Duration::from_secs(60)).arg("-c").stdin(disk.clone());
            let packed = pack.run().unwrap().stdout;
            assert_eq!(through(packing, &packed), Ok(disk.clone()), "{packing}");
            let error = through(packing, &packed[..packed.len() / 2]).unwrap_err();
            assert!(error.contains("damaged or cut short"), "{error}");
        }
    }

    /// Runs the program over these bytes, as [`unpack`] does.
    fn through(packing: Packing, packed: &[u8]) -> std::result::Result<Vec<u8>, String> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(packed).unwrap();
        file.rewind().unwrap();
        let mut out = vec![];
        let ended = command(packing).stdin_from(Arc::new(file)).run_while(|piece| {
            out.extend_from_slice(piece);
            Ok(())
        });
        ended.map(|_| out).map_err(|e| damaged(packing, e).chain())
    }

    proptest! {
        #[test]
        fn a_stream_is_written_as_it_comes_however_it_is_cut(
            blocks in prop::collection::vec((any::<bool>(), 1_usize..5), 1..12),
            cut in 1_usize..200_000,
        ) {
            let disk: Vec<u8> = blocks
                .iter()
                .flat_map(|(zero, n)| vec![if *zero { 0 } else { 0x5a }; n * 33 * 512])
                .collect();
            let pieces: Vec<&[u8]> = disk.chunks(cut).collect();
            let (ended, mut found) = written(&pieces);
            prop_assert_eq!(ended.unwrap(), Bytes(disk.len() as u64));
            // What was left out at the end is not in the file.
            found.resize(disk.len(), 0);
            prop_assert!(found == disk);
        }
    }
}
