//! Blocks of a disk on their way: memory that may go past the page cache, and what of it is worth writing.

use std::{
    fs::File,
    ops::Range,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use nix::libc::O_DIRECT;

use crate::error::{Context, Result};

/// What is left out where it is all zeros: the pool's chunk, or the least that qemu-img looks at would only make more
/// writes of the same chunks.
pub(super) const BLOCK: usize = 64 << 10;
/// What `O_DIRECT` wants memory, places and lengths to be multiples of: a page.
pub(super) const ALIGN: usize = 4096;

static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// Memory for `O_DIRECT`.
pub(super) struct Buffer {
    memory: Vec<u8>,
    from: usize,
}

impl Buffer {
    /// Returns zeros of this length, a multiple of [`ALIGN`].
    pub(super) fn new(len: usize) -> Self {
        let memory = vec![0; len + ALIGN];
        let from = memory.as_ptr().align_offset(ALIGN).min(ALIGN);
        Self { memory, from }
    }

    /// Returns all of it.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        let end = self.from + self.memory.len() - ALIGN;
        &mut self.memory[self.from..end]
    }
}

/// Opens a volume to be written to past the page cache: a large image would push everything else out.
pub(super) fn open(volume: &Path) -> Result<File> {
    let file = File::options().write(true).custom_flags(O_DIRECT).open(volume);
    file.attempt(|| format!("open '{}'", volume.display()))
}

/// Writes a piece to its place on a volume that reads as zeros, but for its blocks of zeros.
pub(super) fn write(volume: &File, piece: &[u8], at: u64) -> Result<()> {
    for run in runs(piece) {
        let at = at + run.start as u64;
        volume.write_all_at(&piece[run], at).attempt(|| format!("write to the volume at {at}"))?;
    }
    Ok(())
}

/// Makes sure that all that was written is on the disk.
pub(super) fn sync(volume: &File) -> Result<()> {
    volume.sync_all().attempt(|| "write the volume out".into())
}

/// Returns whether a block, or less, is all zeros.
pub(super) fn is_zero(block: &[u8]) -> bool {
    block == &ZEROS[..block.len()]
}

/// Returns the parts of a piece that are to be written: its blocks that are not all zeros, neighbours as one.
fn runs(piece: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = vec![];
    for (block, at) in piece.chunks(BLOCK).zip((0..).step_by(BLOCK)) {
        if is_zero(block) {
            continue;
        }
        match runs.last_mut() {
            Some(last) if last.end == at => last.end += block.len(),
            _ => runs.push(at..at + block.len()),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_zeros_are_left_out_and_neighbours_go_together() {
        let mut piece = vec![0; 5 * BLOCK + 512];
        assert_eq!(runs(&piece), []);
        for at in [BLOCK, 3 * BLOCK - 1, 4 * BLOCK, 5 * BLOCK + 511] {
            piece[at] = 1;
        }
        assert_eq!(runs(&piece), [BLOCK..3 * BLOCK, 4 * BLOCK..5 * BLOCK + 512]);
        assert_eq!(runs(&[]), []);
    }

    #[test]
    fn a_buffer_begins_where_a_page_does() {
        let mut buffer = Buffer::new(8192);
        let bytes = buffer.bytes();
        assert_eq!((bytes.len(), bytes.as_ptr().align_offset(ALIGN)), (8192, 0));
    }
}
