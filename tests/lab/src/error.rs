//! What can go wrong in the lab, said as "what was attempted: why it failed".
//! One type, because nobody decides on a lab error: a test prints it and fails.
//! The chain is printed by `Display` at once, so that `unwrap()` in a test shows all of it.

use std::fmt;

/// A failed attempt of the lab, with the text of its cause.
pub struct Error {
    attempt: String,
    cause: String,
}

/// A result of the lab.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Returns the error of an attempt and its cause.
    pub fn new(attempt: impl Into<String>, cause: impl fmt::Display) -> Self {
        Error { attempt: attempt.into(), cause: cause.to_string() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.attempt, self.cause)
    }
}

/// Same text as `Display`: a test's `unwrap` shows this one.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

/// Adds "what was attempted" to any error.
pub(crate) trait Attempt<T> {
    /// Returns the value, or an [`Error`] that names the attempt.
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> Attempt<T> for std::result::Result<T, E> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|cause| Error::new(what(), cause))
    }
}
