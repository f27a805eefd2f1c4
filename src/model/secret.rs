//! Secrets: shown to nobody by accident.

use std::fmt;

use zeroize::Zeroizing;

/// A secret text, such as a CHAP password. `Debug` prints `***`; it has no `Display` and no serde.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Returns the secret holding this text.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Returns the text itself. Each caller is a place where a secret leaves: an iPXE script, an `auth/` file.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What one blade logs in with: derived from the appliance's master key, stored nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The blade's user name.
    pub user: String,
    /// The blade's password.
    pub password: Secret,
    /// User name and password of the target, for mutual CHAP.
    pub mutual: Option<(String, Secret)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let secret = Secret::new("hunter2".into());
        let all =
            Credentials { user: "b".into(), password: secret.clone(), mutual: Some(("t".into(), secret)) };
        assert!(!format!("{all:?}").contains("hunter2"));
    }
}
