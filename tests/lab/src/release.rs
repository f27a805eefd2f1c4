//! The Debian releases that an appliance can be made of: what differs between them, in one place.

/// A Debian release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Release {
    /// Debian 12: Linux 6.1, LVM 2.03.16, systemd 252.
    Bookworm,
    /// Debian 13: Linux 6.12, LVM 2.03.31, systemd 257. What an appliance is made of unless somebody asks for another.
    #[default]
    Trixie,
}

impl Release {
    /// Returns the archive's name for it.
    pub fn codename(self) -> &'static str {
        match self {
            Release::Bookworm => "bookworm",
            Release::Trixie => "trixie",
        }
    }

    /// Returns the series of its kernel, such as `6.12`.
    pub fn kernel(self) -> &'static str {
        match self {
            Release::Bookworm => "6.1",
            Release::Trixie => "6.12",
        }
    }

    /// Returns the kind of an artifact of this release, so that making one does not sweep the other's.
    pub(crate) fn kind(self, what: &str) -> String {
        match self {
            Release::Trixie => what.to_owned(),
            Release::Bookworm => format!("{what}-{}", self.codename()),
        }
    }
}
