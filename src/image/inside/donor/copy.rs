//! The copy itself: parts of a disk to the same places of another, and a look whether they arrived.
//!
//! What is zero is not written where the other disk is zero already: a thin volume stays thin. Each piece's hash is kept,
//! 32 bytes for 4 MiB, so that the source need not be read twice.

use std::{fs::File, os::unix::fs::FileExt};

use sha2::{Digest, Sha256};

use crate::{
    error::{Context, Error, Kind, Result},
    image::{
        blocks::{BLOCK, is_zero},
        extents::Extent,
    },
    model::Bytes,
};

/// What is read and hashed at once.
const PIECE: u64 = 4 << 20;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Written.
    Copying,
    /// Read back.
    Verifying,
}

/// A piece's hash.
type Sum = [u8; 32];

/// Copies the parts; `tell` hears how much is done, and may end it. Returns the pieces' hashes, in order.
pub(super) fn copy(
    (from, to): (&File, &File),
    extents: &[Extent],
    tell: &mut dyn FnMut(Bytes) -> Result<()>,
) -> Result<Vec<Sum>> {
    let (mut sums, mut done, mut there) = (vec![], 0, vec![0; BLOCK]);
    let mut buffer = vec![0; piece_len(PIECE)];
    for piece in pieces(extents) {
        let bytes = &mut buffer[..piece_len(piece.end - piece.start)];
        from.read_exact_at(bytes, piece.start)
            .attempt(|| format!("read the disk at byte {}", piece.start))?;
        sums.push(Sha256::digest(&bytes).into());
        for (block, at) in bytes.chunks(BLOCK).zip((piece.start..).step_by(BLOCK)) {
            if !is_zero(block) || !is_zero_at(to, at, &mut there[..block.len()])? {
                to.write_all_at(block, at).attempt(|| format!("write the copy at byte {at}"))?;
            }
        }
        done += piece.end - piece.start;
        tell(Bytes(done))?;
    }
    Ok(sums)
}

/// Reads the parts back and compares.
///
/// # Errors
/// [`Kind::Failed`] with the place that differs.
pub(super) fn verify(
    copied: &File,
    extents: &[Extent],
    sums: &[Sum],
    tell: &mut dyn FnMut(Bytes) -> Result<()>,
) -> Result<()> {
    let (mut done, mut buffer) = (0, vec![0; piece_len(PIECE)]);
    for (piece, sum) in pieces(extents).zip(sums) {
        let bytes = &mut buffer[..piece_len(piece.end - piece.start)];
        copied
            .read_exact_at(bytes, piece.start)
            .attempt(|| format!("read the copy back at byte {}", piece.start))?;
        if Sum::from(Sha256::digest(&bytes)) != *sum {
            let text = format!(
                "the copy differs from the disk within {} bytes from byte {}",
                bytes.len(),
                piece.start
            );
            return Err(Error::new(Kind::Failed, text));
        }
        done += piece.end - piece.start;
        tell(Bytes(done))?;
    }
    Ok(())
}

/// Cuts the parts into pieces.
fn pieces(extents: &[Extent]) -> impl Iterator<Item = Extent> + '_ {
    extents.iter().flat_map(|extent| {
        let starts = (extent.start..extent.end).step_by(piece_len(PIECE));
        starts.map(|start| Extent { start, end: extent.end.min(start + PIECE) })
    })
}

fn piece_len(len: u64) -> usize {
    usize::try_from(len.min(PIECE)).expect("4 MiB at most")
}

/// Returns whether the copy is zero there already: a donor that starts again finds what it wrote before.
fn is_zero_at(to: &File, at: u64, there: &mut [u8]) -> Result<bool> {
    to.read_exact_at(there, at).attempt(|| format!("read the copy at byte {at}"))?;
    Ok(is_zero(there))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn disk(len: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        file
    }

    fn parts() -> [Extent; 2] {
        [Extent { start: 0, end: (9 << 20) + 512 }, Extent { start: 12 << 20, end: 13 << 20 }]
    }

    #[test]
    fn what_is_in_use_arrives_and_nothing_else_and_zeros_take_no_room() {
        let (from, to) = (disk(16 << 20), disk(16 << 20));
        for at in [0, 5 << 20, (9 << 20) + 500, 11 << 20, 12 << 20] {
            from.write_all_at(b"x", at).unwrap();
        }
        let mut heard = vec![];
        let sums = copy((&from, &to), &parts(), &mut |done| {
            heard.push(done.0);
            Ok(())
        })
        .unwrap();
        verify(&to, &parts(), &sums, &mut |_| Ok(())).unwrap();
        assert_eq!(heard.last(), Some(&((10 << 20) + 512)));
        let byte = |at| {
            let mut byte = [9];
            to.read_exact_at(&mut byte, at).unwrap();
            byte[0]
        };
        assert_eq!([0, 5 << 20, (9 << 20) + 500, 11 << 20, 12 << 20].map(byte), [b'x', b'x', b'x', 0, b'x']);
        assert!(to.metadata().unwrap().blocks() * 512 < 1 << 20, "{:?}", to.metadata());
    }

    #[test]
    fn a_second_copy_wipes_what_the_first_wrote_where_the_disk_is_zero() {
        let (from, to) = (disk(16 << 20), disk(16 << 20));
        to.write_all_at(b"old", 3 << 20).unwrap();
        let sums = copy((&from, &to), &parts(), &mut |_| Ok(())).unwrap();
        verify(&to, &parts(), &sums, &mut |_| Ok(())).unwrap();
    }

    #[test]
    fn a_copy_that_differs_is_found_with_its_place() {
        let (from, to) = (disk(16 << 20), disk(16 << 20));
        let sums = copy((&from, &to), &parts(), &mut |_| Ok(())).unwrap();
        to.write_all_at(b"x", (12 << 20) + 77).unwrap();
        let error = verify(&to, &parts(), &sums, &mut |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains(&format!("from byte {}", 12 << 20)), "{error}");
    }

    #[test]
    fn whoever_listens_can_end_it() {
        let (from, to) = (disk(16 << 20), disk(16 << 20));
        let stop = |_| Err(Error::new(Kind::Denied, "cancelled"));
        assert_eq!(copy((&from, &to), &parts(), &mut { stop }).unwrap_err().kind(), Kind::Denied);
    }
}
