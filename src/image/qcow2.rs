//! Writes a qcow2 file of version 3 as its data come in, front to back, in one pass: no file beside it, no other program.
//!
//! ```text
//!   header | data clusters … | second-level tables | first-level table | refcount blocks | refcount table
//! ```
//!
//! The header is written last, so that a file that was cut off is no qcow2 at all. The layout is qemu's
//! `docs/interop/qcow2.txt`; there are no snapshots and no features that a program would have to know.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
};

const BITS: u32 = 16;
/// Bytes of a cluster; what [`Writer::cluster`] takes.
pub const CLUSTER: usize = 1 << BITS;
const CLUSTER_BYTES: u64 = CLUSTER as u64;
/// Entries of a table that fills a cluster.
const ENTRIES: u64 = CLUSTER_BYTES / 8;
/// Reference counts of 16 bits that fill a cluster.
const COUNTS: u64 = CLUSTER_BYTES / 2;
/// A cluster that only one thing refers to: it may be written in place.
const COPIED: u64 = 1 << 63;
const HEADER: usize = 104;

/// A file in the making.
pub struct Writer {
    file: File,
    /// The next free cluster; the header has the first.
    next: u64,
    /// Second-level tables that have entries, by their place in the first-level table.
    tables: BTreeMap<u64, Vec<u64>>,
}

impl Writer {
    /// Returns a writer to an empty file.
    pub fn new(file: File) -> Self {
        Self { file, next: 1, tables: BTreeMap::new() }
    }

    /// Writes one cluster of the disk: `at` is a multiple of [`CLUSTER`], and only the disk's last one may be shorter.
    ///
    /// # Errors
    /// The failing system call.
    pub fn cluster(&mut self, at: u64, data: &[u8]) -> io::Result<()> {
        let (number, place) = (at / CLUSTER_BYTES, self.append(data)?);
        let table = self.tables.entry(number / ENTRIES).or_insert_with(|| vec![0; CLUSTER / 8]);
        table[usize::try_from(number % ENTRIES).expect("a table has 8192 entries")] = place | COPIED;
        Ok(())
    }

    /// Ends the file of a disk of this size.
    ///
    /// # Errors
    /// The failing system call.
    pub fn finish(mut self, size: u64) -> io::Result<File> {
        let mut first =
            vec![0; usize::try_from(size.div_ceil(CLUSTER_BYTES).div_ceil(ENTRIES)).expect("fits")];
        for (number, table) in std::mem::take(&mut self.tables) {
            first[usize::try_from(number).expect("a disk's table fits")] =
                self.append(&bytes(&table))? | COPIED;
        }
        let first_at = self.append(&bytes(&first))?;
        let (refcounts_at, refcount_clusters) = self.refcounts()?;
        let header = header(size, (first_at, first.len()), (refcounts_at, refcount_clusters));
        self.file.write_all_at(&header, 0)?;
        self.file.flush()?;
        Ok(self.file)
    }

    /// Writes the reference counts of all clusters, their own included; returns where their table is, and its clusters.
    fn refcounts(&mut self) -> io::Result<(u64, u64)> {
        let (mut blocks, mut table) = (0, 0);
        // The blocks count themselves and the table, too.
        loop {
            let needed = (self.next + blocks + table).div_ceil(COUNTS);
            let table_needed = needed.div_ceil(ENTRIES);
            if (needed, table_needed) == (blocks, table) {
                break;
            }
            (blocks, table) = (needed, table_needed);
        }
        let used = self.next + blocks + table;
        let mut places = vec![];
        for block in 0..blocks {
            let here = used.saturating_sub(block * COUNTS).min(COUNTS);
            let counts = [0_u8, 1].repeat(usize::try_from(here).expect("a block has 32768"));
            places.push(self.append(&counts)?);
        }
        let at = self.append(&bytes(&places))?;
        self.file.set_len(used * CLUSTER_BYTES)?;
        Ok((at, table))
    }

    /// Writes bytes at the end, from a cluster's beginning, and returns where.
    fn append(&mut self, data: &[u8]) -> io::Result<u64> {
        let at = self.next * CLUSTER_BYTES;
        self.file.write_all_at(data, at)?;
        self.next += (data.len() as u64).div_ceil(CLUSTER_BYTES);
        Ok(at)
    }
}

fn bytes(entries: &[u64]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.to_be_bytes()).collect()
}

fn header(size: u64, first: (u64, usize), refcounts: (u64, u64)) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER);
    let number = |value: u64| u32::try_from(value).expect("a table's length fits").to_be_bytes();
    header.extend(*b"QFI\xfb");
    header.extend(3_u32.to_be_bytes());
    // No backing file.
    header.extend([0; 12]);
    header.extend(BITS.to_be_bytes());
    header.extend(size.to_be_bytes());
    // Not encrypted.
    header.extend([0; 4]);
    header.extend(number(first.1 as u64));
    header.extend(first.0.to_be_bytes());
    header.extend(refcounts.0.to_be_bytes());
    header.extend(number(refcounts.1));
    // No snapshots, no features.
    header.extend([0; 4 + 8 + 24]);
    // Reference counts of 2 to the 4th bits, and the header's length.
    header.extend(4_u32.to_be_bytes());
    header.extend(number(HEADER as u64));
    header
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{image::header::Screened, model::Bytes};

    /// Runs qemu-img, the judge, or returns `None` where it is not installed.
    #[allow(clippy::disallowed_methods, reason = "a judge of the result, not a part of the program")]
    fn judge(args: &[&str], paths: &[&Path]) -> Option<(bool, String)> {
        let output = std::process::Command::new("qemu-img").args(args).args(paths).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
    }

    #[test]
    fn qemu_reads_what_was_written_and_finds_nothing_wrong() {
        // Ends in the middle of a cluster, spans several second-level tables, and is mostly air.
        let size: u64 = (3 << 30) + 512;
        let places = [0, 1, 7, 8191, 8192, 20_000, size / CLUSTER_BYTES];
        let raw = tempfile::NamedTempFile::new().unwrap();
        raw.as_file().set_len(size).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = Writer::new(file.reopen().unwrap());
        for (n, place) in (1_u8..).zip(places) {
            let at = place * CLUSTER_BYTES;
            let data = vec![n; usize::try_from((size - at).min(CLUSTER_BYTES)).unwrap()];
            raw.as_file().write_all_at(&data, at).unwrap();
            writer.cluster(at, &data).unwrap();
        }
        writer.finish(size).unwrap();
        let found = crate::image::header::screen(file.path()).unwrap();
        assert!(matches!(found, Screened::Disk { virtual_size: Bytes(found), .. } if found == size));
        assert!(file.as_file().metadata().unwrap().len() < 2 << 20, "nothing but the data and some tables");
        let Some((good, text)) = judge(&["check", "-f", "qcow2"], &[file.path()]) else {
            return println!("skipped: qemu-img is not installed");
        };
        assert!(good && text.contains("No errors were found"), "{text}");
        let (good, text) =
            judge(&["compare", "-f", "raw", "-F", "qcow2"], &[raw.path(), file.path()]).unwrap();
        assert!(good, "{text}");
    }

    #[test]
    fn a_file_that_was_cut_off_is_no_disk() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = Writer::new(file.reopen().unwrap());
        writer.cluster(0, &[1; CLUSTER]).unwrap();
        drop(writer);
        assert!(crate::image::header::screen(file.path()).is_err());
    }
}
