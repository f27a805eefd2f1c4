//! Which parts of a disk are worth copying: what a file system says it uses, and what lies outside of all partitions but
//! may matter. Pure.
//!
//! A map of used blocks is in ddrescue's language (GNU ddrescue manual, "Mapfile structure"), as partclone writes it: lines
//! of position, size, status; `+` is in use.

use crate::{
    error::{Error, Result},
    model::Bytes,
};

/// What may be in front of the first partition: boot code, the partition table.
const MOST_IN_FRONT: u64 = 64 << 20;
/// The backup of the partition table is within this at a disk's end.
const AT_THE_END: u64 = 1 << 20;

/// A part of a disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Extent {
    /// Its first byte.
    pub(super) start: u64,
    /// The byte behind its last.
    pub(super) end: u64,
}

/// A partition, and what of it is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// Where it lies on its disk.
    pub(super) at: Extent,
    /// What is in use, from its own begin; `None` where nobody can tell.
    pub(super) used: Option<Vec<Extent>>,
}

/// Returns what of a disk is to be copied: sorted, apart from each other, within the disk.
pub(super) fn to_copy(disk: Bytes, parts: &[Part]) -> Vec<Extent> {
    let first = parts.iter().map(|part| part.at.start).min().unwrap_or(disk.0);
    let mut all = vec![
        Extent { start: 0, end: first.min(MOST_IN_FRONT) },
        Extent { start: disk.0.saturating_sub(AT_THE_END), end: disk.0 },
    ];
    for Part { at, used } in parts {
        match used {
            None => all.push(*at),
            Some(used) => all.extend(used.iter().map(|part| Extent {
                start: at.start.saturating_add(part.start).min(at.end),
                end: at.start.saturating_add(part.end).min(at.end),
            })),
        }
    }
    merged(all, disk.0)
}

/// Returns how many bytes these are.
pub(super) fn total(extents: &[Extent]) -> Bytes {
    Bytes(extents.iter().map(|extent| extent.end - extent.start).sum())
}

/// Returns the parts in use of a map.
///
/// # Errors
/// What is no such map.
pub(super) fn parse(map: &str) -> Result<Vec<Extent>> {
    let wrong =
        |line: &str| Error::invalid(format!("a map of used blocks has the line '{}'", line.escape_debug()));
    let mut lines = map.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    // The first says where ddrescue is.
    lines.next().ok_or_else(|| Error::invalid("a map of used blocks is empty"))?;
    let mut used = vec![];
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [position, size, status] = words[..] else { return Err(wrong(line)) };
        let start = number(position).ok_or_else(|| wrong(line))?;
        let end = number(size).and_then(|size| start.checked_add(size)).ok_or_else(|| wrong(line))?;
        match status {
            "+" => used.push(Extent { start, end }),
            "?" => {}
            _ => return Err(wrong(line)),
        }
    }
    Ok(used)
}

fn number(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// Returns them sorted, those that meet as one, none beyond the disk.
fn merged(mut extents: Vec<Extent>, disk: u64) -> Vec<Extent> {
    extents.sort();
    let mut merged: Vec<Extent> = vec![];
    for extent in extents {
        let extent = Extent { end: extent.end.min(disk), ..extent };
        if extent.start >= extent.end {
            continue;
        }
        match merged.last_mut() {
            Some(last) if extent.start <= last.end => last.end = last.end.max(extent.end),
            _ => merged.push(extent),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use proptest::{
        collection::vec,
        option,
        prelude::{any, prop_assert, proptest},
    };

    use super::*;

    const MAP: &str = "# Domain logfile created by partclone\n# Offset: 0x0\n# current_pos  current_status\n\
        0x04100000     ?\n#      pos        size  status\n0x00000000  0x00677000  +\n0x00677000  0x00189400  ?\n\
        0x00800400  0x00040800  +\n";

    fn extent(start: u64, end: u64) -> Extent {
        Extent { start, end }
    }

    #[test]
    fn a_map_says_what_is_in_use() {
        assert_eq!(parse(MAP).unwrap(), [extent(0, 0x67_7000), extent(0x80_0400, 0x84_0c00)]);
    }

    #[test]
    fn a_damaged_map_is_an_error_and_never_an_empty_disk() {
        for bad in [
            "",
            "# only words\n",
            "0x0 ?\n0x0 0x10\n",
            "0x0 ?\n0x0 10 +\n",
            "0x0 ?\n0x1 0xffffffffffffffff +\n",
            "0x0 ?\n0x0 0x10 -\n",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_table_in_front_and_its_backup_are_copied_and_free_blocks_are_not() {
        let (mib, disk) = (1 << 20, Bytes(100 << 20));
        let used = Some(vec![extent(0, mib), extent(10 * mib, 11 * mib)]);
        let parts =
            [Part { at: extent(mib, 50 * mib), used }, Part { at: extent(60 * mib, 61 * mib), used: None }];
        let copied = to_copy(disk, &parts);
        assert_eq!(
            copied,
            [
                extent(0, 2 * mib),
                extent(11 * mib, 12 * mib),
                extent(60 * mib, 61 * mib),
                extent(99 * mib, 100 * mib)
            ]
        );
        assert_eq!(total(&copied), Bytes(5 * mib));
    }

    proptest! {
        #[test]
        fn what_is_copied_is_within_the_disk_sorted_and_has_all_that_is_used(
            disk in 1_u64..1 << 40,
            parts in vec((any::<u64>(), any::<u64>(), option::of(vec((any::<u64>(), any::<u64>()), 0..4))), 0..4),
        ) {
            let parts: Vec<Part> = parts.into_iter().map(|(a, b, used)| Part {
                at: extent((a % disk).min(b % disk), (a % disk).max(b % disk)),
                used: used.map(|used| used.into_iter().map(|(a, b)| extent(a.min(b), a.max(b))).collect()),
            }).collect();
            let copied = to_copy(Bytes(disk), &parts);
            prop_assert!(copied.iter().all(|extent| extent.start < extent.end && extent.end <= disk));
            prop_assert!(copied.windows(2).all(|pair| pair[0].end < pair[1].start));
            for part in parts.iter().filter(|part| part.used.is_none() && part.at.start < part.at.end) {
                prop_assert!(copied.iter().any(|extent| extent.start <= part.at.start && part.at.end <= extent.end));
            }
        }

        #[test]
        fn no_map_breaks_the_reader(text in any::<String>()) {
            let _ = parse(&text);
        }
    }
}
