//! The one error type of the library: what was attempted, on what, and why it failed.
//!
//! `Display` prints its own level only; the cause stays in [`source`](std::error::Error::source), and the edge that
//! reports (journal, console, command line) prints the whole chain once with [`Error::chain`]. It holds no policy:
//! whoever must decide looks at [`Kind`].

use std::fmt;

/// What sort of failure this is, for the code that has to decide what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Bad input: trying again with the same words cannot help.
    Invalid,
    /// The thing does not exist (yet): a device, a volume, a module.
    Missing,
    /// The thing exists already, and it is not ours or not what was asked for.
    Exists,
    /// In use by somebody; may be free later.
    Busy,
    /// Refused by policy, by ownership or by the kernel's permissions.
    Denied,
    /// Too full: no room for what was asked.
    Full,
    /// Did not come back within its time.
    Timeout,
    /// A tool or the kernel failed in a way that none of the others says.
    Failed,
}

/// Where an error came from: one more level of the chain.
type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What was attempted, and the cause if a lower level gave one.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    what: String,
    source: Option<Cause>,
}

/// A cause with a note below it.
#[derive(Debug)]
struct Noted {
    cause: Cause,
    note: Cause,
}

impl fmt::Display for Noted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl std::error::Error for Noted {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.note)
    }
}

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Returns an error of this kind; `what` says what was attempted and on what, lower case, no full stop.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), source: None }
    }

    /// Returns an [`Kind::Invalid`] error.
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, what)
    }

    /// Returns this error with `cause` below it.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Cause>) -> Self {
        self.source = Some(cause.into());
        self
    }

    /// Returns the error for a failed system call, its kind taken from the errno.
    pub fn io(what: impl Into<String>, cause: std::io::Error) -> Self {
        Self::new(Kind::of_io(&cause), what).because(cause)
    }

    /// Returns a level above `self`: the same kind, a wider attempt.
    #[must_use]
    pub fn while_doing(self, what: impl Into<String>) -> Self {
        Self::new(self.kind, what).because(self)
    }

    /// Returns this error with a note below its lowest level: what somebody else said of the same failure.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        let note = note.into();
        self.source = Some(match self.source.take() {
            None => note.into(),
            Some(cause) => match cause.downcast::<Self>() {
                Ok(lower) => Box::new(lower.with_note(note)),
                Err(cause) => Box::new(Noted { cause, note: note.into() }),
            },
        });
        self
    }

    /// Returns whether the lowest level is the kernel's refusal of a system call.
    pub fn is_of_the_kernel(&self) -> bool {
        let mut lowest: &(dyn std::error::Error + 'static) = self;
        while let Some(cause) = lowest.source() {
            lowest = cause;
        }
        lowest.downcast_ref::<std::io::Error>().is_some_and(|e| e.raw_os_error().is_some())
    }

    /// Returns the kind, for the code that decides.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the whole chain, outermost first, joined by `: `.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}

impl Kind {
    /// Returns the kind that an errno stands for.
    pub fn of_io(error: &std::io::Error) -> Self {
        use std::io::ErrorKind as E;
        match error.kind() {
            E::NotFound => Self::Missing,
            E::AlreadyExists => Self::Exists,
            E::PermissionDenied | E::ReadOnlyFilesystem => Self::Denied,
            E::ResourceBusy => Self::Busy,
            E::StorageFull | E::QuotaExceeded => Self::Full,
            E::TimedOut => Self::Timeout,
            E::InvalidInput | E::InvalidData => Self::Invalid,
            _ => Self::Failed,
        }
    }

    /// Returns the exit code that `sheath` ends with for an error of this kind.
    ///
    /// 2 is left to clap (bad words on the command line), 1 to everything that is not told apart.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Invalid => 3,
            Self::Missing => 4,
            Self::Exists => 5,
            Self::Busy => 6,
            Self::Denied => 7,
            Self::Full => 8,
            Self::Timeout => 9,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|cause| cause as &(dyn std::error::Error + 'static))
    }
}

/// Attaches "what was attempted" to a failing system call.
pub trait Context<T> {
    /// Returns the value, or an [`Error`] that says what was attempted.
    ///
    /// # Errors
    /// The same failure, one level up; its [`Kind`] comes from the errno.
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for std::io::Result<T> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::io(what(), e))
    }
}

impl<T> Context<T> for nix::Result<T> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::io(what(), std::io::Error::from(e)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_prints_its_own_level_and_chain_prints_all() {
        let low = Error::io("open '/x'", std::io::Error::from_raw_os_error(2));
        let high = low.while_doing("read the key");
        assert_eq!(high.to_string(), "read the key");
        assert_eq!(high.chain(), "read the key: open '/x': No such file or directory (os error 2)");
        assert_eq!(high.kind(), Kind::Missing);
    }

    #[test]
    fn a_note_is_told_last_and_changes_nothing_else() {
        let refused = || Error::io("create '/x'", std::io::Error::from_raw_os_error(22));
        let noted = refused().while_doing("reach the target").with_note("kernel: malformed ip");
        assert_eq!(
            noted.chain(),
            "reach the target: create '/x': Invalid argument (os error 22): kernel: malformed ip"
        );
        assert_eq!(noted.kind(), Kind::Invalid);
        assert_eq!(Error::invalid("no").with_note("a").with_note("b").chain(), "no: a: b");
        assert!(refused().is_of_the_kernel() && refused().while_doing("x").is_of_the_kernel());
        assert!(!Error::invalid("no").is_of_the_kernel());
        let ours = std::io::Error::new(std::io::ErrorKind::InvalidInput, "an empty value");
        assert!(!Error::io("write", ours).is_of_the_kernel(), "no system call was made");
    }

    #[test]
    fn every_kind_has_its_own_exit_code() {
        use Kind::{Busy, Denied, Exists, Failed, Full, Invalid, Missing, Timeout};
        let all = [Invalid, Missing, Exists, Busy, Denied, Full, Timeout, Failed];
        let codes: std::collections::BTreeSet<u8> = all.iter().map(|k| k.exit_code()).collect();
        assert_eq!(codes.len(), all.len());
    }
}
