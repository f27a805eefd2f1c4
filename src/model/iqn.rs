//! iSCSI qualified names: what RFC 7143 allows and LIO then matches byte for byte.

use std::{fmt, str::FromStr};

use super::names::serde_as_text;
use crate::error::Error;

/// An iSCSI name of the `iqn.` form, lower case, at most 223 bytes.
///
/// LIO lower-cases the initiator's name before it compares but not the folder that an ACL is made of, so an upper-case
/// ACL never matches: such a name cannot be made here.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Iqn(String);

/// RFC 7143 §4.2.7.1: the longest iSCSI name in bytes.
const MAX_BYTES: usize = 223;

impl Iqn {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns `self:suffix`.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) where the result is not an iSCSI name.
    pub fn join(&self, suffix: &str) -> Result<Self, Error> {
        format!("{self}:{suffix}").parse()
    }

    /// Returns whether `self` is `prefix` followed by `:` and something: the mark of our own targets.
    pub fn is_below(&self, prefix: &Self) -> bool {
        self.0.strip_prefix(&prefix.0).is_some_and(|rest| rest.len() > 1 && rest.starts_with(':'))
    }
}

/// Returns whether `text` is `YYYY-MM.` with a month that exists, followed by a naming authority.
fn dated_authority(text: &str) -> bool {
    let Some((date, rest)) = text.split_once('.') else { return false };
    let Some((year, month)) = date.split_once('-') else { return false };
    let digits = |s: &str, n| s.len() == n && s.bytes().all(|c| c.is_ascii_digit());
    let authority = rest.split(':').next().unwrap_or_default();
    digits(year, 4)
        && digits(month, 2)
        && matches!(month.parse(), Ok(1..=12))
        && !authority.is_empty()
        && authority
            .split('.')
            .all(|label| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-'))
}

impl FromStr for Iqn {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'-' | b':');
        let good = text.len() <= MAX_BYTES
            && text.bytes().all(allowed)
            && text.strip_prefix("iqn.").is_some_and(dated_authority)
            && !text.ends_with(':');
        if good {
            return Ok(Self(text.to_owned()));
        }
        let form = "an iSCSI name (iqn.YYYY-MM.reversed.domain:suffix, of a-z 0-9 . - :, at most 223 bytes)";
        Err(Error::invalid(format!("'{}' is not {form}", text.escape_debug())))
    }
}

impl fmt::Display for Iqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Iqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serde_as_text!(Iqn);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_rfc_allows_is_accepted() {
        for good in
            ["iqn.2026-11.org.example:b-525400123456", "iqn.1993-08.org.debian:01:abc", "iqn.2026-01.a"]
        {
            assert!(good.parse::<Iqn>().is_ok(), "{good}");
        }
    }

    #[test]
    fn what_lio_would_accept_and_never_match_is_refused() {
        let long = format!("iqn.2026-11.org.example:{}", "x".repeat(200));
        for bad in [
            "iqn.2026-13.org:x",
            "iqn.2026-11.Org:x",
            "iqn.2026-11.org:x_y",
            "iqn.2026-11.org:",
            "iqn.2026-11..org:x",
            "eui.1",
            "iqn.26-11.org",
            "iqn.2026-11.org:a/b",
            "iqn.2026-11.org:a\n",
            "iqn.2026-11.org:a%2f",
            &long,
        ] {
            assert!(bad.parse::<Iqn>().is_err(), "{bad}");
        }
    }

    #[test]
    fn below_means_a_real_suffix() {
        let prefix: Iqn = "iqn.2026-11.org.example".parse().unwrap();
        assert!(prefix.join("b-1").unwrap().is_below(&prefix));
        assert!(!prefix.is_below(&prefix));
        assert!(!"iqn.2026-11.org.example2:x".parse::<Iqn>().unwrap().is_below(&prefix));
    }
}
