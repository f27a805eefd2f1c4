//! The keys that say what a fresh disk is like, and whether they fit each other: in every table, and in every table over
//! those that it narrows.

use std::ops::Range;

use toml::de::DeValue;

use super::parsed;
use crate::{
    config::{
        DiskKeys, Given,
        raw::{Reader, Section},
    },
    model::{Bytes, DiskProfile, Root},
};

/// Partitions are aligned to it; a smaller one would be nothing.
const SMALLEST: Bytes = Bytes::mib(1);

/// The keys, in the order in which a fault names the first one that is written.
const KEYS: [&str; 5] = ["disk_size", "root", "data", "swap", "reserve"];

/// The keys of one table, with where they are written.
#[derive(Debug)]
pub(super) struct DiskTable {
    pub(super) keys: DiskKeys,
    /// The table's name, and of the first key that is written its name and place; `None` where none is.
    first: Option<(String, Range<usize>)>,
    /// The same of `root`.
    root: Option<(String, Range<usize>)>,
}

impl DiskTable {
    /// Reads the keys of a table.
    pub(super) fn read(reader: &mut Reader<'_>, section: &Section<'_, '_>) -> Self {
        let mut given =
            |key, nothing| section.value(reader, key, |v| given(v, nothing)).map(toml::Spanned::into_inner);
        let (disk_size, swap) = (given("disk_size", "image"), given("swap", "none"));
        let (data, reserve) = (given("data", "none"), given("reserve", "none"));
        let root = section.value(reader, "root", root).map(toml::Spanned::into_inner);
        let place = |key: &str| {
            let written = section.entries().into_iter().find(|(name, _)| name.get_ref() == key);
            written.map(|(_, value)| (section.path_of(key), value.span()))
        };
        Self {
            keys: DiskKeys { disk_size, root, swap, data, reserve },
            first: KEYS.iter().find_map(|key| place(key)),
            root: place("root"),
        }
    }

    /// Keeps a fault where this table over the wider ones asks for what fits on no disk, and returns whether it does.
    pub(super) fn check_over(&self, reader: &mut Reader<'_>, wider: DiskKeys, of: &str) -> bool {
        let Some((first, at)) = &self.first else { return true };
        let profile = self.keys.over(wider).profile();
        let Some((expected, found)) = conflict(&profile, of) else { return true };
        let (key, at) = match (&self.root, profile.size) {
            (Some((root, at)), None) => (root, at),
            _ => (first, at),
        };
        reader.fault(at.clone(), key, &expected, &found);
        false
    }
}

/// Returns what was expected and what was found, where the sizes contradict each other.
fn conflict(profile: &DiskProfile, of: &str) -> Option<(String, String)> {
    let root = match profile.root {
        Root::Size(size) => size,
        Root::Fill | Root::Keep => Bytes(0),
    };
    let needed = Bytes(profile.added().0.saturating_add(root.0));
    match (profile.size, profile.root) {
        (None, Root::Size(size)) => {
            Some(("a disk_size beside a size for root".into(), format!("root = \"{size}\"{of} without one")))
        }
        (Some(size), _) if size <= needed => {
            let expected = format!("a disk_size above {needed} ({}){of}", profile.named());
            Some((expected, size.to_string()))
        }
        _ => None,
    }
}

fn given(value: &DeValue<'_>, nothing: &str) -> Option<Given> {
    match value.as_str()? {
        word if word == nothing => Some(Given::Nothing),
        _ => size(value).map(Given::Size),
    }
}

fn root(value: &DeValue<'_>) -> Option<Root> {
    match parsed::<Root>(value)? {
        Root::Size(_) => size(value).map(Root::Size),
        word => Some(word),
    }
}

fn size(value: &DeValue<'_>) -> Option<Bytes> {
    parsed::<Bytes>(value).filter(|size| *size >= SMALLEST)
}
