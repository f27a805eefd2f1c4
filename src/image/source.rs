//! Where an image comes from: a checked path or URL.

use std::{fmt, path::PathBuf, str::FromStr};

use crate::error::{Error, Result};

/// Longest path or URL that is taken: PATH_MAX of Linux.
const LONGEST: usize = 4096;

/// Where an image comes from. Parsed once, at the edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file of this machine, by its absolute path.
    File(PathBuf),
    /// An http or https URL.
    Url(Url),
}

/// An http or https URL without anything in it that a configuration line could end with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// Returns the URL as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Source {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let shown = || text.chars().take(200).collect::<String>().escape_debug().to_string();
        if text.len() > LONGEST || text.chars().any(char::is_control) {
            return Err(Error::invalid(format!("'{}' is too long or has control characters in it", shown())));
        }
        if text.starts_with('/') {
            return Ok(Self::File(text.into()));
        }
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '<' | '>' | '`' | '{' | '}');
        if host.is_empty() || !text.chars().all(plain) {
            return Err(Error::invalid(format!(
                "'{}' is neither an absolute path nor an http or https URL",
                shown()
            )));
        }
        Ok(Self::Url(Url(text.to_owned())))
    }
}

impl fmt::Display for Source {
    /// Writes the source for people; a URL without what may be a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Url(Url(url)) => {
                let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
                let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                let host = rest[..end].rsplit('@').next().unwrap_or_default();
                let path = rest[end..].split(['?', '#']).next().unwrap_or_default();
                write!(f, "{scheme}://{host}{path}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_urls_are_told_apart() {
        assert_eq!("/srv/a b.qcow2".parse::<Source>().unwrap(), Source::File("/srv/a b.qcow2".into()));
        for good in ["http://h/x.img", "https://u:p@[::1]:8443/a?b=%20&c=$d", "https://host"] {
            assert!(matches!(good.parse::<Source>().unwrap(), Source::Url(url) if url.as_str() == good));
        }
    }

    #[test]
    fn nothing_else_is_a_source() {
        let long = format!("http://h/{}", "x".repeat(5000));
        for bad in [
            "",
            "x.img",
            "./x",
            "ftp://h/x",
            "file:///etc/shadow",
            "http://",
            "http:///x",
            "https://h/\"\nurl = \"file:///etc/shadow",
            "https://h/a b",
            "https://h/ä",
            "https://h/{a,b}",
            "-o/etc/passwd",
            "/a\nb",
            &long,
        ] {
            assert!(bad.parse::<Source>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_not_shown() {
        let source: Source = "https://me:secret@host/path/x.img?token=secret".parse().unwrap();
        assert_eq!(source.to_string(), "https://host/path/x.img");
    }
}
