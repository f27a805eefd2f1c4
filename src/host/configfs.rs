//! configfs in six verbs: make a folder, link, write, read, list, remove.
//!
//! In configfs `mkdir` creates a kernel object, `rmdir` destroys it, a link binds two, and each `write(2)` is a command
//! of its own. So a value goes out in one call, without a newline (some of LIO's files keep it), and link sources are
//! absolute. What the objects mean is left to `lio`; the root is handed in, so that a temp folder can stand in for
//! `/sys/kernel/config`.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::symlink,
    path::{Component, Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::{
    error::{Context, Error, Kind, Result},
    model::Secret,
    plan::Changed,
};

/// What an attribute holds at most, whatever the machine's page size (`SIMPLE_ATTR_SIZE` in the kernel).
const ATTRIBUTE: usize = 4096;
/// The kernel hands a store one such buffer; the last byte is the terminating NUL.
const MAX_VALUE: usize = ATTRIBUTE - 1;

/// A folder of configfs: a kernel object, there or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node(PathBuf);

impl Node {
    /// Returns the folder at this path, which everything else is reached from.
    pub fn root(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the folder at a fixed path below, or of a name that its type has checked.
    #[must_use]
    pub fn at(&self, below: impl AsRef<Path>) -> Self {
        debug_assert!(below.as_ref().is_relative(), "an absolute path would leave the root");
        Self(self.0.join(below))
    }

    /// Returns the folder of this name, which came from outside.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where the name would lead somewhere else: empty, `.`, `..`, or with a slash or a control
    /// character in it.
    pub fn child(&self, name: &str) -> Result<Self> {
        let stray = matches!(name, "" | "." | "..") || name.chars().any(|c| c == '/' || c.is_control());
        if stray {
            return Err(Error::invalid(format!("'{}' is not the name of an object", name.escape_debug())));
        }
        Ok(Self(self.0.join(name)))
    }

    /// Returns whether the folder is there.
    pub fn exists(&self) -> bool {
        self.0.is_dir()
    }

    /// Returns whether the object has this attribute: how features are probed, never by the kernel's version.
    pub fn has(&self, attribute: &str) -> bool {
        self.0.join(attribute).is_file()
    }

    /// Creates the object.
    ///
    /// # Errors
    /// The failing `mkdir`, with the path.
    pub fn make(&self) -> Result<Changed> {
        match fs::create_dir(&self.0) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && self.exists() => Ok(Changed::AlreadyTrue),
            made => made.attempt(|| format!("create '{self}'")).map(|()| Changed::Changed),
        }
    }

    /// Destroys the object, which has nothing below it any more.
    ///
    /// # Errors
    /// [`Kind::Busy`] where something is below it or linked to it; the path.
    pub fn remove(&self) -> Result<Changed> {
        let what = || format!("remove '{self}'");
        match fs::remove_dir(&self.0) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Changed::AlreadyTrue),
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {
                Err(Error::new(Kind::Busy, what()).because(e))
            }
            removed => removed.attempt(what).map(|()| Changed::Changed),
        }
    }

    /// Returns the attribute's text without white space at its ends.
    ///
    /// # Errors
    /// [`Kind::Missing`] where there is no such object or attribute; the path.
    pub fn read(&self, attribute: &str) -> Result<String> {
        let path = self.0.join(attribute);
        let bytes = load(&path).attempt(|| format!("read '{}'", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned())
    }

    /// Returns the attribute's text without the one newline that the kernel adds: for values that keep their own, such as
    /// a CHAP password that was written with one.
    ///
    /// # Errors
    /// As [`Node::read`].
    pub fn read_line(&self, attribute: &str) -> Result<Zeroizing<String>> {
        let path = self.0.join(attribute);
        let bytes = load(&path).attempt(|| format!("read '{}'", path.display()))?;
        let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        // What is not UTF-8 is not ours; how it is misspelt does not matter.
        Ok(Zeroizing::new(String::from_utf8_lossy(line).into_owned()))
    }

    /// Returns the attribute's text, or `None` where there is no such object or attribute.
    ///
    /// # Errors
    /// Any other failure, with the path.
    pub fn read_if_there(&self, attribute: &str) -> Result<Option<String>> {
        none_if_missing(self.read(attribute))
    }

    /// Returns whether the attribute reads `1`; an attribute that is not there does not.
    ///
    /// # Errors
    /// Any other failure, with the path.
    pub fn is_set(&self, attribute: &str) -> Result<bool> {
        Ok(self.read_if_there(attribute)?.as_deref() == Some("1"))
    }

    /// Writes the attribute, whatever it was before.
    ///
    /// # Errors
    /// The failing system call with path and value; [`Kind::Invalid`] for a value that is empty, longer than a page or
    /// holds a control character.
    pub fn write(&self, attribute: &str, value: &str) -> Result<()> {
        let path = self.0.join(attribute);
        store(&path, value).attempt(|| format!("write '{}' to '{}'", value.escape_debug(), path.display()))
    }

    /// Writes an attribute whose value must not be seen in an error's text.
    ///
    /// # Errors
    /// As [`Node::write`], without the value.
    pub fn write_secret(&self, attribute: &str, value: &Secret) -> Result<()> {
        let path = self.0.join(attribute);
        store(&path, value.expose()).attempt(|| format!("write '{}'", path.display()))
    }

    /// Makes the attribute read `value`: reads first, writes where it differs.
    ///
    /// # Errors
    /// As [`Node::read`] and [`Node::write`].
    pub fn set(&self, attribute: &str, value: &str) -> Result<Changed> {
        if self.read(attribute)? == value {
            return Ok(Changed::AlreadyTrue);
        }
        self.write(attribute, value).map(|()| Changed::Changed)
    }

    /// Links `name` in this folder to the object `source`.
    ///
    /// # Errors
    /// [`Kind::Exists`] where the link is there and leads elsewhere; the failing system call with both paths.
    pub fn link(&self, name: &str, source: &Self) -> Result<Changed> {
        let path = self.0.join(name);
        let what = || format!("link '{}' to '{source}'", path.display());
        match symlink(&source.0, &path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let same = leads_to(&path).is_some_and(|to| to == source.0);
                if same { Ok(Changed::AlreadyTrue) } else { Err(Error::io(what(), e)) }
            }
            linked => linked.attempt(what).map(|()| Changed::Changed),
        }
    }

    /// Takes the link `name` away.
    ///
    /// # Errors
    /// The failing `unlink`, with the path.
    pub fn unlink(&self, name: &str) -> Result<Changed> {
        let path = self.0.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Changed::AlreadyTrue),
            gone => gone.attempt(|| format!("unlink '{}'", path.display())).map(|()| Changed::Changed),
        }
    }

    /// Returns the names of the folders in this one, sorted; none where it is not there.
    ///
    /// # Errors
    /// The failing system call, with the path.
    pub fn folders(&self) -> Result<Vec<String>> {
        self.names(|kind| kind.is_dir())
    }

    /// Returns the links in this folder, sorted by name, and the objects that they lead to.
    ///
    /// # Errors
    /// The failing system call, with the path.
    pub fn links(&self) -> Result<Vec<(String, Self)>> {
        let names = self.names(|kind| kind.is_symlink())?;
        Ok(names
            .into_iter()
            .filter_map(|name| {
                let to = leads_to(&self.0.join(&name))?;
                Some((name, Self(to)))
            })
            .collect())
    }

    fn names(&self, wanted: fn(&fs::FileType) -> bool) -> Result<Vec<String>> {
        let list = || -> io::Result<Vec<String>> {
            let mut names = vec![];
            for entry in fs::read_dir(&self.0)? {
                let entry = entry?;
                if wanted(&entry.file_type()?) {
                    names.push(entry.file_name().to_string_lossy().into_owned());
                }
            }
            names.sort_unstable();
            Ok(names)
        };
        let names = list().attempt(|| format!("list '{self}'"));
        Ok(none_if_missing(names)?.unwrap_or_default())
    }

    /// Returns the last part of the path: the object's own name.
    pub fn name(&self) -> &str {
        self.0.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// Returns the folder that this one is in.
    #[must_use]
    pub fn parent(&self) -> Self {
        Self(self.0.parent().unwrap_or(&self.0).to_owned())
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// Returns `None` for what is not there: an object may go while we look.
pub(crate) fn none_if_missing<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(e) if e.kind() == Kind::Missing => Ok(None),
        other => other.map(Some),
    }
}

/// Returns where a link leads. The kernel spells it relative, we made it absolute: both become the same path, by its words
/// alone, because nothing on the way to an object of configfs is a link.
fn leads_to(link: &Path) -> Option<PathBuf> {
    let to = fs::read_link(link).ok()?;
    let mut resolved = PathBuf::new();
    for part in link.parent()?.join(to).components() {
        match part {
            Component::ParentDir => drop(resolved.pop()),
            Component::CurDir => {}
            part => resolved.push(part),
        }
    }
    Some(resolved)
}

/// Returns what one `read(2)` gives: the whole attribute. A file of configfs is made whole when it is first read, so that
/// asking for its size before and for its end after would be two system calls for nothing.
fn load(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; ATTRIBUTE]);
    let read = File::open(path)?.read(&mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Hands the value to the kernel in one `write(2)`.
fn store(path: &Path, value: &str) -> io::Result<()> {
    let refused = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    if value.is_empty() {
        return refused("an empty value would never reach the kernel");
    }
    if value.len() > MAX_VALUE {
        return refused("the value is longer than a page");
    }
    if value.chars().any(char::is_control) {
        return refused("a control character is never part of a value");
    }
    let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
    let written = file.write(value.as_bytes())?;
    if written == value.len() {
        return Ok(());
    }
    // The rest would be a command of its own.
    Err(io::Error::new(
        io::ErrorKind::WriteZero,
        format!("the kernel took {written} bytes of {}", value.len()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> (tempfile::TempDir, Node) {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::root(dir.path());
        (dir, node)
    }

    #[test]
    fn a_folder_that_exists_is_already_true() {
        let (_dir, root) = root();
        assert_eq!(root.at("a").make().unwrap(), Changed::Changed);
        assert_eq!(root.at("a").make().unwrap(), Changed::AlreadyTrue);
        assert_eq!(root.at("a").remove().unwrap(), Changed::Changed);
        assert_eq!(root.at("a").remove().unwrap(), Changed::AlreadyTrue);
    }

    #[test]
    fn a_folder_in_use_is_busy_not_failed() {
        let (_dir, root) = root();
        fs::create_dir_all(root.at("a/b").path()).unwrap();
        assert_eq!(root.at("a").remove().unwrap_err().kind(), Kind::Busy);
    }

    #[test]
    fn errors_name_the_path() {
        let root = Node::root("/nowhere");
        assert_eq!(root.read("enable").unwrap_err().to_string(), "read '/nowhere/enable'");
        assert_eq!(root.write("enable", "1").unwrap_err().to_string(), "write '1' to '/nowhere/enable'");
        assert_eq!(root.at("x").make().unwrap_err().to_string(), "create '/nowhere/x'");
        assert_eq!(root.read_if_there("enable").unwrap(), None);
        assert!(root.folders().unwrap().is_empty());
    }

    #[test]
    fn a_value_never_carries_a_newline() {
        let (_dir, root) = root();
        fs::File::create(root.path().join("a")).unwrap();
        for bad in ["1\n", "a\nb", "", &"x".repeat(4096)] {
            assert_eq!(root.write("a", bad).unwrap_err().kind(), Kind::Invalid, "{bad:?}");
        }
        root.write("a", "long value").unwrap();
        root.write("a", "1").unwrap();
        assert_eq!(fs::read(root.path().join("a")).unwrap(), b"1");
    }

    #[test]
    fn a_secret_is_not_in_the_error() {
        let error =
            Node::root("/nowhere").write_secret("password", &Secret::new("hunter2".into())).unwrap_err();
        assert!(!error.chain().contains("hunter2"), "{}", error.chain());
    }

    #[test]
    fn set_writes_only_a_difference() {
        let (_dir, root) = root();
        #[allow(clippy::disallowed_methods, reason = "a test's own folder")]
        fs::write(root.path().join("a"), "1\n").unwrap();
        assert_eq!(root.set("a", "1").unwrap(), Changed::AlreadyTrue);
        assert_eq!(root.set("a", "0").unwrap(), Changed::Changed);
        assert!(!root.is_set("a").unwrap());
    }

    #[test]
    fn a_link_to_something_else_is_told_apart_from_our_own() {
        let (_dir, root) = root();
        root.at("a").make().unwrap();
        root.at("b").make().unwrap();
        assert_eq!(root.link("dev", &root.at("a")).unwrap(), Changed::Changed);
        assert_eq!(root.link("dev", &root.at("a")).unwrap(), Changed::AlreadyTrue);
        assert_eq!(root.link("dev", &root.at("b")).unwrap_err().kind(), Kind::Exists);
        let links = root.links().unwrap();
        assert_eq!((links[0].0.as_str(), links[0].1.name()), ("dev", "a"));
        assert_eq!(root.unlink("dev").unwrap(), Changed::Changed);
        assert_eq!(root.unlink("dev").unwrap(), Changed::AlreadyTrue);
    }

    #[test]
    fn a_name_from_outside_cannot_leave_its_folder() {
        let root = Node::root("/sys");
        for bad in ["", ".", "..", "a/b", "../x", "a\n", "a\0"] {
            assert!(root.child(bad).is_err(), "{bad:?}");
        }
        assert_eq!(root.child("iqn.2026-11.org:x").unwrap().name(), "iqn.2026-11.org:x");
    }
}
