//! Checksums of images, as publishers give them: a number by itself, or a list (`SHA256SUMS`) with the image's name in it.
//!
//! The list is a stranger's file: it is read inside the sandbox, and so is the image that it is compared with.

use std::{fmt, fmt::Write as _, fs::File, io::Read, path::Path, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Sha256, Sha512};

use super::{Source, header};
use crate::error::{Context, Error, Kind, Result};

/// Longest list: those of large mirrors have some thousand lines.
const LONGEST_LIST: u64 = 4 << 20;
/// What is read at once.
const PIECE: usize = 1 << 20;

/// How a checksum is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// A checksum: its algorithm shows in its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum(String);

impl Checksum {
    /// Returns how it was made.
    pub fn algorithm(&self) -> Algorithm {
        if self.0.len() == 64 { Algorithm::Sha256 } else { Algorithm::Sha512 }
    }
}

impl FromStr for Checksum {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !hex || !matches!(text.len(), 64 | 128) {
            let text: String = text.chars().take(200).collect();
            return Err(Error::invalid(format!(
                "'{}' is not a SHA-256 or SHA-512 checksum (64 or 128 hex digits)",
                text.escape_debug()
            )));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        })
    }
}

impl FromStr for Algorithm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            other => Err(Error::invalid(format!("'{}' is not a checksum's algorithm", other.escape_debug()))),
        }
    }
}

/// What an image has to be like, before anything is made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// It has this checksum.
    Is(Checksum),
    /// It has the checksum that stands beside its name in this list: a file or a URL.
    InList(Source),
}

/// Returns the checksum that the list has for the name.
///
/// # Errors
/// [`Kind::Missing`] where the name is not in it, [`Kind::Invalid`] where it is there twice with different checksums.
pub(super) fn find(list: &str, name: &str) -> Result<Checksum> {
    let mut found: Option<Checksum> = None;
    for (checksum, of) in list.lines().filter_map(entry) {
        if of != name {
            continue;
        }
        match &found {
            // A publisher may give both kinds.
            Some(known) if known.algorithm() == checksum.algorithm() && *known != checksum => {
                return Err(Error::invalid(format!("the list has two checksums for '{name}'")));
            }
            Some(_) => {}
            None => found = Some(checksum),
        }
    }
    found.ok_or_else(|| Error::new(Kind::Missing, format!("the list has no checksum for '{name}'")))
}

/// Reads a line of coreutils' (`HEX  NAME`, `HEX *NAME`) or of BSD's kind (`SHA256 (NAME) = HEX`).
fn entry(line: &str) -> Option<(Checksum, &str)> {
    let line = line.trim_end();
    if let Some((hex, name)) = line.split_once([' ', '\t'])
        && let Ok(checksum) = hex.parse()
    {
        let name = name.trim_start_matches([' ', '\t']);
        let name = name.strip_prefix('*').unwrap_or(name);
        return Some((checksum, name.strip_prefix("./").unwrap_or(name)));
    }
    let (name, hex) = line.split_once(" (")?.1.rsplit_once(") = ")?;
    Some((hex.parse().ok()?, name))
}

/// Returns the checksum that the list in this file has for the name.
///
/// # Errors
/// As [`find`]; [`Kind::Invalid`] for a file that is too long for a list.
pub(super) fn find_in_file(path: &Path, name: &str) -> Result<Checksum> {
    let (file, mut text) = (header::open(path)?, vec![]);
    let read = file.take(LONGEST_LIST + 1).read_to_end(&mut text);
    if read.attempt(|| "read the list of checksums".into())? as u64 > LONGEST_LIST {
        return Err(Error::invalid("the list of checksums is longer than any list"));
    }
    find(&String::from_utf8_lossy(&text), name)
}

/// Returns the checksum of a file, telling how many bytes it has taken in.
///
/// # Errors
/// The failing system call.
pub(super) fn sum(
    path: &Path,
    algorithm: Algorithm,
    tell: impl FnMut(u64) -> Result<()>,
) -> Result<Checksum> {
    let file = header::open(path)?;
    match algorithm {
        Algorithm::Sha256 => digest::<Sha256>(file, tell),
        Algorithm::Sha512 => digest::<Sha512>(file, tell),
    }
}

fn digest<D: sha2::Digest>(mut file: File, mut tell: impl FnMut(u64) -> Result<()>) -> Result<Checksum> {
    let (mut digest, mut done, mut buffer) = (D::new(), 0, vec![0; PIECE]);
    loop {
        let n = file.read(&mut buffer).attempt(|| "read the image".into())?;
        if n == 0 {
            break;
        }
        digest.update(&buffer[..n]);
        done += n as u64;
        tell(done)?;
    }
    let mut hex = String::new();
    digest.finalize().iter().for_each(|byte| write!(hex, "{byte:02x}").expect("a string takes it"));
    Ok(Checksum(hex))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    const ONE: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_checksum_is_known_by_its_length() {
        assert_eq!(ONE.parse::<Checksum>().unwrap().algorithm(), Algorithm::Sha256);
        let long = ONE.repeat(2).to_uppercase();
        let checksum: Checksum = long.parse().unwrap();
        assert_eq!((checksum.algorithm(), checksum.to_string()), (Algorithm::Sha512, ONE.repeat(2)));
        for bad in ["", "x", &ONE[1..], &ONE.replace('e', "g"), &ONE.replace('e', "\u{e4}")] {
            assert_eq!(bad.parse::<Checksum>().unwrap_err().kind(), Kind::Invalid, "{bad}");
        }
    }

    #[test]
    fn both_kinds_of_lists_are_read() {
        let other = ONE.replace("e3", "00");
        for list in [
            format!("-----BEGIN PGP SIGNED MESSAGE-----\n\n{other}  other.raw\n{ONE}  disk.raw\n"),
            format!("{ONE} *disk.raw\r\n"),
            format!("{ONE}  ./disk.raw"),
            format!("# comment\nSHA256 (disk.raw) = {ONE}\nSHA256 (disk.raw.xz) = {other}\n"),
            format!("{ONE}\tdisk.raw\n{}  disk.raw\n", ONE.repeat(2)),
        ] {
            assert_eq!(find(&list, "disk.raw").unwrap().to_string(), ONE, "{list}");
        }
    }

    #[test]
    fn a_name_that_is_not_there_or_there_twice_is_an_error() {
        let list = format!("{ONE}  xdisk.raw\n{ONE}  disk.raw.xz\n{ONE}\n");
        assert_eq!(find(&list, "disk.raw").unwrap_err().kind(), Kind::Missing);
        let twice = format!("{ONE}  disk.raw\n{}  disk.raw\n", ONE.replace("e3", "00"));
        assert_eq!(find(&twice, "disk.raw").unwrap_err().kind(), Kind::Invalid);
    }

    #[test]
    fn a_file_has_the_checksum_that_others_compute() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let (path, mut heard) = (file.path().to_owned(), 0);
        let sum_of = |algorithm, heard: &mut u64| {
            sum(&path, algorithm, |done| {
                *heard = done;
                Ok(())
            })
        };
        assert_eq!(sum_of(Algorithm::Sha256, &mut heard).unwrap().to_string(), ONE);
        file.write_all(b"abc").unwrap();
        let abc = sum_of(Algorithm::Sha512, &mut heard).unwrap().to_string();
        assert!(abc.starts_with("ddaf35a193617abacc417349ae20413112e6fa4e89a97ea2"), "{abc}");
        assert_eq!(heard, 3);
    }

    #[test]
    fn an_endless_list_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(LONGEST_LIST + 1).unwrap();
        assert_eq!(find_in_file(file.path(), "x").unwrap_err().kind(), Kind::Invalid);
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer(list in ".{0,400}", name in ".{0,20}") {
            if let Ok(found) = find(&list, &name) {
                prop_assert!(list.to_lowercase().contains(&found.to_string()));
            }
        }
    }
}
