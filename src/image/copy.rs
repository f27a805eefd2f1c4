//! Copies a raw disk onto a volume that reads as zeros: what is in it, and nothing else.
//!
//! Runs in a process that has nothing but the two, open. qemu-img copies every format and does it well; but of a raw disk
//! there is nothing to be understood, and a few pieces on their way at once, past the page cache on both sides, arrive
//! sooner.

use std::{
    fs::File,
    io::{Seek, SeekFrom},
    os::unix::fs::FileExt,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::{Whence, lseek},
};

use super::{
    blocks::{self, ALIGN, BLOCK, Buffer},
    progress::Teller,
};
use crate::{
    error::{Context, Error, Result},
    model::Bytes,
};

/// How many pieces are on their way at once: enough that each of the two disks always has one to work at.
const PIECES: usize = 4;
/// How large a piece is at most.
const PIECE: usize = 1 << 20;

/// Copies the first `size` bytes of a file or a disk onto the device, tells how far it is as qemu-img does, and makes sure that
/// all is on the device.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid) for a source that has become shorter; else the failing system call.
pub(super) fn copy(file: File, size: Bytes, device: &File) -> Result<()> {
    // Not every file system can do without the page cache.
    let _ = fcntl(&file, FcntlArg::F_SETFL(OFlag::O_DIRECT));
    let next = Mutex::new(Next { at: 0, data: 0 });
    let (disk, mut teller) = (Disk { file, size: size.0, next }, Teller::new(size));
    thread::scope(|scope| {
        let others: Vec<_> = (1..PIECES).map(|_| scope.spawn(|| disk.carry_to(device, |_| Ok(())))).collect();
        // Only here, on the caller's thread: it may hold standard output.
        let own = disk.carry_to(device, |at| teller.at(|| at));
        let others =
            others.into_iter().map(|one| one.join().unwrap_or_else(|e| std::panic::resume_unwind(e)));
        others.fold(own, Result::and)
    })?;
    // What is not there any more looks like a hole.
    let end = (&disk.file).seek(SeekFrom::End(0)).attempt(|| "look for the source's end".into())?;
    if end < size.0 {
        return Err(shorter());
    }
    blocks::sync(device)?;
    teller.end()
}

fn shorter() -> Error {
    Error::invalid("it has become shorter while it was read")
}

/// What is copied, and how far it is.
struct Disk {
    file: File,
    size: u64,
    next: Mutex<Next>,
}

/// What comes next.
struct Next {
    at: u64,
    /// Up to where there are no holes.
    data: u64,
}

impl Disk {
    /// Carries pieces over until there are no more, and tells where each begins. Whoever fails leaves none for the others.
    fn carry_to(&self, device: &File, mut tell: impl FnMut(u64) -> Result<()>) -> Result<()> {
        let mut buffer = Buffer::new(PIECE);
        let mut carry = || {
            while let Some((at, len)) = self.next()? {
                tell(at)?;
                self.carry(at, &mut buffer.bytes()[..len], device)?;
            }
            Ok(())
        };
        carry().inspect_err(|_| self.lock().at = self.size)
    }

    /// Returns where the next piece with data is, and how long; `None` at the end.
    fn next(&self) -> Result<Option<(u64, usize)>> {
        let mut next = self.lock();
        if next.at >= next.data {
            (next.at, next.data) = self.data(next.at)?;
        }
        if next.at >= self.size {
            return Ok(None);
        }
        let (at, len) = (next.at, (next.data - next.at).min(PIECE as u64));
        next.at += len;
        Ok(Some((at, usize::try_from(len).expect("no longer than a piece"))))
    }

    /// Returns from where to where the next data are, in whole blocks: no block of the volume is written twice.
    fn data(&self, from: u64) -> Result<(u64, u64)> {
        let end = (self.size, self.size);
        if from >= self.size {
            return Ok(end);
        }
        let seek = |at: u64, whence| {
            let at = i64::try_from(at).map_err(|_| Errno::EOVERFLOW)?;
            lseek(&self.file, at, whence).map(|found| u64::try_from(found).unwrap_or_default())
        };
        let (data, hole) = match seek(from, Whence::SeekData) {
            Ok(data) => (data, seek(data, Whence::SeekHole)),
            Err(Errno::ENXIO) => return Ok(end),
            // What knows of no holes has data everywhere.
            Err(Errno::EINVAL) => (from, Ok(self.size)),
            Err(e) => (from, Err(e)),
        };
        let hole = hole.map_err(std::io::Error::from).attempt(|| "look for the source's data".into())?;
        let block = BLOCK as u64;
        Ok((from.max(data / block * block), hole.min(self.size).next_multiple_of(block)))
    }

    /// Carries one piece over, but for its blocks of zeros.
    fn carry(&self, at: u64, piece: &mut [u8], device: &File) -> Result<()> {
        let wanted = usize::try_from(self.size - at).unwrap_or(usize::MAX).min(piece.len());
        self.read(at, piece, wanted)?;
        // The device takes whole sectors; the volume has room behind the disk's end, and zeros there.
        let padded = wanted.next_multiple_of(ALIGN);
        piece[wanted..padded].fill(0);
        blocks::write(device, &piece[..padded], at)
    }

    /// Fills the piece as far as it is wanted. Reads are as long as the piece: one past the page cache takes whole pages, and
    /// ends at a file's end by itself.
    fn read(&self, at: u64, piece: &mut [u8], wanted: usize) -> Result<()> {
        let mut read = 0;
        while read < wanted {
            let attempt = || format!("read the source at {}", at + read as u64);
            match self.file.read_at(&mut piece[read..], at + read as u64).attempt(attempt)? {
                0 => return Err(shorter()),
                more => read += more,
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Next> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::fs::MetadataExt, path::Path};

    use proptest::prelude::*;

    use super::*;

    /// Copies these bytes from one file to another that is empty; returns what is there then, and its blocks.
    fn copied(disk: &[u8]) -> (Vec<u8>, u64) {
        let mut source = tempfile::NamedTempFile::new().unwrap();
        source.write_all(disk).unwrap();
        through(source.path(), disk.len())
    }

    fn through(source: &Path, len: usize) -> (Vec<u8>, u64) {
        let device = tempfile::NamedTempFile::new().unwrap();
        let open = File::options().write(true).open(device.path()).unwrap();
        copy(File::open(source).unwrap(), Bytes(len as u64), &open).unwrap();
        let mut found = std::fs::read(device.path()).unwrap();
        assert!(found.len() <= len.next_multiple_of(ALIGN), "nothing is written far behind the end");
        found.resize(len, 0);
        (found, device.as_file().metadata().unwrap().blocks() * 512)
    }

    #[test]
    fn holes_and_zeros_take_no_room() {
        let source = tempfile::NamedTempFile::new().unwrap();
        source.as_file().set_len(64 << 20).unwrap();
        source.as_file().write_all_at(&[7; 8192], (33 << 20) + 4096).unwrap();
        source.as_file().write_all_at(&[0; 1 << 20], 5 << 20).unwrap();
        let (found, room) = through(source.path(), 64 << 20);
        assert!(found == std::fs::read(source.path()).unwrap());
        assert!(room <= 1 << 20, "{room}");
    }

    #[test]
    fn a_source_that_has_become_shorter_is_refused() {
        let source = tempfile::NamedTempFile::new().unwrap();
        source.as_file().write_all_at(&[7; 1 << 20], 0).unwrap();
        let error = copy(source.into_file(), Bytes(2 << 20), &tempfile::tempfile().unwrap());
        assert_eq!(error.unwrap_err().kind(), crate::error::Kind::Invalid);
    }

    #[test]
    fn a_caller_that_holds_standard_output_does_not_wait_for_itself() {
        let _held = std::io::stdout().lock();
        assert_eq!(copied(&[7; 9 << 20]).0.len(), 9 << 20);
    }

    #[test]
    fn a_device_that_takes_nothing_ends_it_with_its_reason() {
        let mut source = tempfile::NamedTempFile::new().unwrap();
        source.write_all(&[7; 8 << 20]).unwrap();
        let full = File::options().write(true).open("/dev/full").unwrap();
        let error = copy(source.into_file(), Bytes(8 << 20), &full).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Full);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_disk_arrives_as_it_is(parts in prop::collection::vec((any::<bool>(), 1_usize..4000), 1..12)) {
            let disk: Vec<u8> =
                parts.iter().flat_map(|(zero, sectors)| vec![if *zero { 0 } else { 0x5a }; sectors * 512]).collect();
            prop_assert!(copied(&disk).0 == disk);
        }
    }
}
