//! Reading and writing pieces of a device: only what is needed, and only what differs.

use std::{
    fs::File,
    io::{Cursor, Read, Result, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
};

/// How much is compared and written at a time: a chunk of the thin pool, so that a piece that is zero on both sides
/// takes no space in the pool.
const PIECE: usize = 64 * 1024;

/// Returns the size of a block device or a file. Seeking to the end tells both, without an ioctl.
pub(super) fn size_of(mut file: &File) -> Result<u64> {
    file.seek(SeekFrom::End(0))
}

/// Returns `len` bytes from `offset` on.
pub(super) fn read_at(file: &File, offset: u64, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// Writes those pieces of `bytes` that differ from what is there, and syncs when there were any.
///
/// Returns whether anything was written.
pub(super) fn write_difference(file: &File, offset: u64, bytes: &[u8]) -> Result<bool> {
    let mut written = false;
    let mut at = offset;
    for piece in bytes.chunks(PIECE) {
        if read_at(file, at, piece.len())? != piece {
            file.write_all_at(piece, at)?;
            written = true;
        }
        at += piece.len() as u64;
    }
    if written {
        file.sync_all()?;
    }
    Ok(written)
}

/// A piece of a disk in memory that is addressed as if it were the whole disk.
pub(super) struct Window {
    base: u64,
    bytes: Cursor<Vec<u8>>,
}

impl Window {
    /// Returns the window on `bytes`, the first of which is the disk's byte `base`.
    pub(super) fn new(base: u64, bytes: Vec<u8>) -> Self {
        Self { base, bytes: Cursor::new(bytes) }
    }

    /// Returns the bytes.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes.into_inner()
    }
}

impl Read for Window {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        self.bytes.read(into)
    }
}

impl Write for Window {
    fn write(&mut self, from: &[u8]) -> Result<usize> {
        // A cursor on a vector would grow it: nothing may be written past the window's end.
        let room =
            self.bytes.get_ref().len().saturating_sub(usize::try_from(self.bytes.position()).unwrap_or(0));
        self.bytes.write(&from[..from.len().min(room)])
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let inside = match to {
            SeekFrom::Start(at) => SeekFrom::Start(
                at.checked_sub(self.base)
                    .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidInput))?,
            ),
            relative => relative,
        };
        Ok(self.bytes.seek(inside)? + self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_written() {
        use std::os::unix::fs::MetadataExt;
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 << 20).unwrap();
        let mut bytes = vec![0; 4 << 20];
        bytes[100] = 7;
        assert!(write_difference(&file, 1 << 20, &bytes).unwrap());
        assert!(!write_difference(&file, 1 << 20, &bytes).unwrap());
        assert_eq!(read_at(&file, (1 << 20) + 100, 1).unwrap(), [7]);
        assert!(file.metadata().unwrap().blocks() * 512 <= 2 * PIECE as u64, "zeros stay holes");
        assert_eq!(size_of(&file).unwrap(), 8 << 20);
    }
}
