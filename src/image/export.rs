//! An image's content out of its volume: read piece by piece, nothing looked at but whether it is all zeros.
//!
//! Whoever made the image may have made every byte of it. Here they are only handed on; the volume is read-only, and goes
//! to sleep again when the last reader is done.

use std::{fs::File, os::unix::fs::FileExt};

use crate::{
    error::{Context, Error, Kind, Result},
    host::Host,
    model::ImageId,
};

/// An image that can be read, until this is dropped.
pub struct Opened<'a> {
    host: &'a dyn Host,
    image: ImageId,
    file: Option<File>,
}

impl<'a> Opened<'a> {
    /// Opens the image.
    ///
    /// # Errors
    /// [`Kind::Missing`] where it does not exist; else what keeps its volume from being read.
    pub fn new(host: &'a dyn Host, image: &ImageId) -> Result<Self> {
        let file = host.open_image(image)?;
        Ok(Self { host, image: image.clone(), file: Some(file) })
    }

    /// Reads all of it and hands over what is not zero, in pieces of this size or less; returns the size.
    ///
    /// # Errors
    /// The failing system call, or [`Kind::Denied`] where `each` wants no more.
    pub fn read(&self, piece: usize, each: &mut dyn FnMut(u64, &[u8]) -> bool) -> Result<u64> {
        let file = self.file.as_ref().expect("it is open until it is dropped");
        let attempt = || format!("read image '{}'", self.image);
        let (mut buffer, mut at) = (vec![0; piece], 0);
        loop {
            let len = fill(file, &mut buffer, at).attempt(attempt)?;
            if len == 0 {
                return Ok(at);
            }
            if buffer[..len].iter().any(|byte| *byte != 0) && !each(at, &buffer[..len]) {
                return Err(Error::new(Kind::Denied, format!("{}: nobody wants it any more", attempt())));
            }
            at += len as u64;
        }
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        drop(self.file.take());
        self.host.close_image(&self.image);
    }
}

/// Reads until the buffer is full or the volume at its end.
fn fill(file: &File, buffer: &mut [u8], at: u64) -> std::io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read_at(&mut buffer[len..], at + len as u64)? {
            0 => break,
            more => len += more,
        }
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::sim::{Machine, Sim};

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a disk of a test")]
    fn what_is_zero_is_left_out_and_the_end_is_exact() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut disk = vec![0_u8; 10_000];
        (disk[5_000], disk[9_999]) = (1, 2);
        std::fs::write(file.path(), &disk).unwrap();
        let host = Sim::new("sheath".parse().unwrap(), Machine::default());
        let image = "web@2".parse().unwrap();
        let open = || Opened { host: &host, image, file: Some(file.reopen().unwrap()) };
        let opened = open();
        let mut read = vec![0; disk.len()];
        let mut places = vec![];
        let size = opened.read(1024, &mut |at, data| {
            places.push(at);
            let at = usize::try_from(at).unwrap();
            read[at..at + data.len()].copy_from_slice(data);
            true
        });
        assert_eq!((size.unwrap(), read, places), (10_000, disk, vec![4096, 9216]));
        let stopped = opened.read(1024, &mut |_, _| false).unwrap_err();
        assert_eq!(stopped.kind(), Kind::Denied);
    }
}
