//! How headers are read: so many bytes at a place, into memory that is there already, or a sentence that the file is cut
//! short.

use std::{
    fs::File,
    io::{ErrorKind, Seek, SeekFrom},
    os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt},
    path::Path,
};

use nix::libc::O_NONBLOCK;

use crate::error::{Context, Error, Result};

/// A file or a block device that is looked at.
pub(in crate::image) struct Look {
    file: File,
    len: u64,
    device: bool,
}

impl Look {
    /// Opens it.
    pub(in crate::image) fn open(path: &Path) -> Result<Self> {
        // Or the opening might wait for ever, for somebody at a pipe's other end.
        let file = File::options().read(true).custom_flags(O_NONBLOCK).open(path);
        Self::of(file.attempt(|| format!("open '{}'", path.display()))?, path)
    }

    /// Takes what is open; `path` is what errors call it.
    pub(in crate::image) fn of(mut file: File, path: &Path) -> Result<Self> {
        let shown = path.display();
        let found = file.metadata().attempt(|| format!("look at '{shown}'"))?;
        let device = found.file_type().is_block_device();
        if !found.is_file() && !device {
            return Err(Error::invalid(format!("'{shown}' is not a file and not a block device")));
        }
        // A device has its size only for those who ask for its end.
        let end = file.seek(SeekFrom::End(0)).and_then(|end| file.rewind().map(|()| end));
        let len = end.attempt(|| format!("find the end of '{shown}'"))?;
        Ok(Self { file, len, device })
    }

    pub(in crate::image) fn into_file(self) -> File {
        self.file
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn is_device(&self) -> bool {
        self.device
    }

    pub(in crate::image) fn len(&self) -> u64 {
        self.len
    }

    /// Reads as much of the beginning as there is, and returns how much.
    pub(super) fn start(&self, buffer: &mut [u8]) -> Result<usize> {
        let len = usize::try_from(self.len).unwrap_or(usize::MAX).min(buffer.len());
        self.fill(&mut buffer[..len], 0, "beginning")?;
        Ok(len)
    }

    /// Returns the bytes at a place; `what` is what they are a part of.
    pub(super) fn at<const N: usize>(&self, at: u64, what: &str) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, at, what)?;
        Ok(bytes)
    }

    /// Reads the bytes at a place.
    pub(super) fn fill(&self, buffer: &mut [u8], at: u64, what: &str) -> Result<()> {
        let end = at.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.len) {
            return Err(Error::invalid(format!("its {what} is cut short")));
        }
        self.file.read_exact_at(buffer, at).map_err(|e| match e.kind() {
            ErrorKind::UnexpectedEof => Error::invalid(format!("its {what} is cut short")),
            _ => Error::io(format!("read its {what}"), e),
        })
    }
}

/// Returns the bytes at a place that has been checked to be inside.
fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("as many bytes as asked for")
}

/// Returns a little-endian number.
pub(super) fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(part(bytes, at))
}

/// Returns a little-endian number.
pub(super) fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(part(bytes, at))
}

/// Returns a little-endian number.
pub(super) fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(part(bytes, at))
}

/// Returns a big-endian number.
pub(super) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(part(bytes, at))
}

/// Returns a big-endian number.
pub(super) fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(part(bytes, at))
}
