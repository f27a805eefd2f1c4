//! An image's content on its way to an operator: both directions beside each other. Pure.
//!
//! ```text
//!   place (8 bytes) · length (4 bytes) · data       big-endian; what is all zeros is not sent
//!   size  (8 bytes) · 0                             the end: a stream without it was cut off
//! ```
//!
//! The agent hands the bytes on and writes no file: whoever asks writes it, with the rights that he has himself.

use crate::error::{Error, Kind, Result};

/// Longest piece, and what places are a multiple of.
pub const PIECE: usize = 1 << 20;
const HEAD: usize = 12;

/// Returns a piece as it is sent.
pub fn piece(at: u64, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).expect("a piece is a megabyte at most");
    [&at.to_be_bytes()[..], &len.to_be_bytes(), data].concat()
}

/// Returns the end of a disk of this size.
pub fn end(size: u64) -> Vec<u8> {
    piece(size, &[])
}

/// What comes out of a stream.
#[derive(Debug, Default)]
pub struct Pieces {
    buffer: Vec<u8>,
    /// Where the last piece ended.
    at: u64,
    size: Option<u64>,
}

impl Pieces {
    /// Takes in some bytes, cut anywhere, and hands over each piece that is whole by now.
    ///
    /// # Errors
    /// [`Kind::Failed`] for what is no such stream; else what `each` says.
    pub fn take(&mut self, bytes: &[u8], each: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        let mut used = 0;
        while let Some((at, len)) = head(&self.buffer[used..]) {
            if len > PIECE || at < self.at || self.size.is_some() {
                return Err(broken("a piece is out of its place"));
            }
            let data = used + HEAD..used + HEAD + len;
            if self.buffer.len() < data.end {
                break;
            }
            if len == 0 {
                self.size = Some(at);
            } else {
                each(at, &self.buffer[data.clone()])?;
            }
            (self.at, used) = (at + len as u64, data.end);
        }
        self.buffer.drain(..used);
        Ok(())
    }

    /// Returns the disk's size, once the stream has ended.
    ///
    /// # Errors
    /// [`Kind::Failed`] where it was cut off.
    pub fn finish(self) -> Result<u64> {
        match self.size {
            Some(size) if self.buffer.is_empty() => Ok(size),
            _ => Err(broken("it was cut off: see 'journalctl -u sheathd'")),
        }
    }
}

fn broken(why: &str) -> Error {
    Error::new(Kind::Failed, format!("read the image's content: {why}"))
}

fn head(bytes: &[u8]) -> Option<(u64, usize)> {
    let at = u64::from_be_bytes(bytes.get(..8)?.try_into().expect("eight bytes"));
    let len = u32::from_be_bytes(bytes.get(8..HEAD)?.try_into().expect("four bytes"));
    Some((at, usize::try_from(len).expect("four bytes fit")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a stream holds: its pieces, and the disk's size.
    type Content = (Vec<(u64, Vec<u8>)>, u64);

    fn read(stream: &[u8], cut: usize) -> Result<Content> {
        let (mut pieces, mut all) = (Pieces::default(), vec![]);
        for part in stream.chunks(cut) {
            pieces.take(part, &mut |at, data| {
                all.push((at, data.to_vec()));
                Ok(())
            })?;
        }
        pieces.finish().map(|size| (all, size))
    }

    #[test]
    fn pieces_are_whole_however_the_stream_is_cut() {
        let stream = [piece(0, b"boot"), piece(1 << 20, &[7; 100]), end(1 << 30)].concat();
        for cut in 1..stream.len() {
            let (all, size) = read(&stream, cut).unwrap();
            assert_eq!((all, size), (vec![(0, b"boot".to_vec()), (1 << 20, vec![7; 100])], 1 << 30));
        }
    }

    #[test]
    fn a_stream_without_its_end_is_an_error_and_never_a_short_disk() {
        let stream = [piece(0, b"boot"), end(512)].concat();
        for len in 0..stream.len() {
            assert!(read(&stream[..len], 7).is_err(), "{len}");
        }
        let backwards = [piece(512, b"x"), piece(0, b"y"), end(1024)].concat();
        assert!(read(&backwards, 5).is_err());
        assert!(read(&[end(512), end(512)].concat(), 100).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 1_usize..50) {
            let _ = read(&bytes, cut);
        }
    }
}
