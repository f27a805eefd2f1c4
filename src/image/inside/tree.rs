//! Looks at a tree of files that strangers made: bounded reads, sorted lists, nothing followed that is not a file.
//!
//! Everything takes the tree's root. In the workshop the process has changed its root to the image's, so that links in it
//! lead where they would lead there; tests hand in a folder.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

/// More of a text file is not read: nobody's configuration is longer.
const LONGEST: u64 = 256 << 10;
/// More names of a folder are not taken.
const MOST: usize = 4096;

/// Returns a text file's content; empty where it is not there, or is no file.
pub(super) fn text(path: &Path) -> String {
    let mut bytes = vec![];
    // A pipe in its place would hold us up for ever.
    if path.metadata().is_ok_and(|found| found.is_file()) {
        let _ = File::open(path).and_then(|file| file.take(LONGEST).read_to_end(&mut bytes));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns the paths in a folder, sorted; none where it is not there.
pub(super) fn list(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).take(MOST).collect();
    found.sort();
    found
}

/// Returns a path's last part.
pub(super) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Returns the files of a folder whose name begins and ends so, sorted.
pub(super) fn matching(folder: &Path, begin: &str, end: &str) -> Vec<PathBuf> {
    let fits = |path: &PathBuf| {
        let name = name(path);
        name.starts_with(begin) && name.ends_with(end) && name.len() >= begin.len() + end.len()
    };
    list(folder).into_iter().filter(fits).filter(|path| path.is_file()).collect()
}

/// Returns a path below `root` as the image itself has it.
pub(super) fn within(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned()
}

/// Returns the value of a `KEY=value` line, without quotes.
pub(super) fn value(text: &str, key: &str) -> Option<String> {
    let lines = text.lines().filter_map(|line| line.trim().split_once('='));
    let mut found = lines.filter(|(name, _)| name.trim() == key).map(|(_, value)| value);
    found.next_back().map(|value| value.trim().trim_matches(['"', '\'']).to_owned())
}

/// Returns whether anything is there, a link that leads nowhere included.
pub(super) fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Makes the files of a tree: path and content.
    pub(in crate::image::inside) fn plant(root: &Path, files: &[(&str, &str)]) {
        for (path, content) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            #[allow(clippy::disallowed_methods, reason = "a file of a test's own tree")]
            fs::write(path, content).unwrap();
        }
    }

    #[test]
    fn values_are_read_as_a_shell_would() {
        let text = "# ID=no\nID=debian\n NAME = \"A B\"\nID=last\n";
        assert_eq!(value(text, "ID").as_deref(), Some("last"));
        assert_eq!(value(text, "NAME").as_deref(), Some("A B"));
        assert_eq!(value(text, "X"), None);
    }

    #[test]
    fn what_is_no_file_reads_as_empty_and_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(text(&dir.path().join("pipe")), "");
        assert_eq!(text(&dir.path().join("nothing")), "");
        assert!(matching(dir.path(), "p", "").is_empty());
    }
}
