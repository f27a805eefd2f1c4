//! Differences: what somebody else changed in an export of ours, object by object, for people.
//!
//! Found and wanted are LIO's own texts. A secret is never one of them: `differences` in `host` and `plan` say "ours"
//! and "not ours".

use std::fmt;

use serde::{Deserialize, Serialize};

/// The part of an export that differs. One kind of step mends each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The backstore: device, serial, attributes.
    Backstore,
    /// The target and its TPG: attributes, parameters.
    Target,
    /// LUN 0.
    Lun,
    /// The initiator's ACL: credentials, timeouts.
    Acl,
    /// The mapped LUN 0.
    MappedLun,
    /// Another initiator's ACL.
    Stranger,
    /// A LUN, a mapped LUN or a TPG besides ours.
    Stray,
    /// The portals.
    Portal,
    /// The switch.
    Enable,
}

/// One thing that is not as we made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The part that it is in.
    pub part: Part,
    /// The object, as a path in configfs below the target or the backstore, such as `tpgt_1/attrib/authentication`.
    pub object: String,
    /// What it is now; `None` where it is gone.
    pub found: Option<String>,
    /// What it was made; `None` where it was not there.
    pub wanted: Option<String>,
}

impl Difference {
    /// Returns a value that is another one now.
    pub fn changed(part: Part, object: impl Into<String>, wanted: &str, found: &str) -> Self {
        let (found, wanted) = (Some(found.to_owned()), Some(wanted.to_owned()));
        Self { part, object: object.into(), found, wanted }
    }

    /// Returns something of ours that is gone.
    pub fn removed(part: Part, object: impl Into<String>) -> Self {
        Self { part, object: object.into(), found: None, wanted: Some("there".to_owned()) }
    }

    /// Returns something that is not ours.
    pub fn added(part: Part, object: impl Into<String>) -> Self {
        Self { part, object: object.into(), found: Some("there".to_owned()), wanted: None }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.wanted, &self.found) {
            (Some(wanted), Some(found)) => {
                write!(f, "{}: from '{wanted}' to '{}'", self.object, found.escape_debug())
            }
            (_, None) => write!(f, "{}: removed", self.object),
            (None, _) => write!(f, "{}: added", self.object),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_reads_as_what_changed_from_and_to() {
        let changed = Difference::changed(Part::Target, "tpgt_1/attrib/authentication", "1", "0\n");
        assert_eq!(changed.to_string(), r"tpgt_1/attrib/authentication: from '1' to '0\n'");
        let removed = Difference::removed(Part::Portal, "tpgt_1/np/10.0.0.1:3260");
        assert_eq!(removed.to_string(), "tpgt_1/np/10.0.0.1:3260: removed");
        assert_eq!(Difference::added(Part::Acl, "tpgt_1/acls/x").to_string(), "tpgt_1/acls/x: added");
    }
}
