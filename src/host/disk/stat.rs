//! What the block layer has counted for a device.
//!
//! LIO counts too, but in whole MiB, and reads and writes as one number of commands. The device below the backstore sees
//! every operation of the blade with its size, so its `stat` is exact. It begins anew when the volume is activated.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use nix::sys::stat::{major, minor};

use crate::{
    error::{Context, Error, Kind, Result},
    observed::DiskCounters,
};

/// The unit of sizes in `stat`, whatever the device's sectors are.
const UNIT: u64 = 512;

/// Returns what was counted for the device, or `None` where it is not there. `sysfs` is `/sys`.
///
/// # Errors
/// The failing system call, with the path.
pub fn read(sysfs: &Path, device: &Path) -> Result<Option<DiskCounters>> {
    let about = match fs::metadata(device) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        found => found.attempt(|| format!("look at '{}'", device.display()))?,
    };
    if !about.file_type().is_block_device() {
        return Err(Error::invalid(format!("'{}' is not a block device", device.display())));
    }
    let number = format!("dev/block/{}:{}/stat", major(about.rdev()), minor(about.rdev()));
    counted(&sysfs.join(number))
}

fn counted(stat: &Path) -> Result<Option<DiskCounters>> {
    let text = match fs::read_to_string(stat) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        found => found.attempt(|| format!("read '{}'", stat.display()))?,
    };
    let unreadable = || Error::new(Kind::Failed, format!("read '{}': not its usual numbers", stat.display()));
    parse(&text).map(Some).ok_or_else(unreadable)
}

/// Reads the numbers (kernel: Documentation/block/stat.rst): operations, merges, sectors and time of reads, of writes;
/// three about the queue; the same four of discards, which kernels before 4.18 do not have.
fn parse(text: &str) -> Option<DiskCounters> {
    let numbers: Vec<u64> = text.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let of = |first: usize| Some((*numbers.get(first)?, numbers.get(first + 2)?.saturating_mul(UNIT)));
    let ((reads, read_bytes), (writes, written_bytes)) = (of(0)?, of(4)?);
    let (discards, discarded_bytes) = of(11).unwrap_or_default();
    Some(DiskCounters { reads, read_bytes, writes, written_bytes, discards, discarded_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A dm device of Linux 6.12.
    const STAT: &str = "   12345      67   800000     1500     4321       11    90000      700        0     \
                        2200     2200       17        0   262144        5        0        0\n";

    #[test]
    fn operations_and_bytes_are_the_kernels() {
        let counted = parse(STAT).unwrap();
        assert_eq!((counted.reads, counted.read_bytes), (12345, 800_000 * 512));
        assert_eq!((counted.writes, counted.written_bytes), (4321, 90_000 * 512));
        assert_eq!((counted.discards, counted.discarded_bytes), (17, 262_144 * 512));
    }

    #[test]
    fn a_kernel_that_counts_no_discards_still_counts_the_rest() {
        let old = STAT.split_whitespace().take(11).collect::<Vec<_>>().join(" ");
        let counted = parse(&old).unwrap();
        assert_eq!((counted.writes, counted.discards), (4321, 0));
        for broken in ["", "1 2 3", "a b c d e f g h i j k"] {
            assert_eq!(parse(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn a_device_that_is_not_there_has_counted_nothing() {
        assert_eq!(read("/sys".as_ref(), "/nowhere/disk".as_ref()).unwrap(), None);
        assert_eq!(counted("/nowhere/stat".as_ref()).unwrap(), None);
        assert_eq!(read("/sys".as_ref(), "/dev/null".as_ref()).unwrap_err().kind(), Kind::Invalid);
    }
}
