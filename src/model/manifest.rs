//! What is known of an image beyond its volume: where it came from, what is in it, what was tried with it.
//!
//! Words for people, and nothing that a disk depends on: an image whose manifest is lost is as good as before. Every
//! field that came later is optional, so that what an older agent has saved is read for ever.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{BladeId, Bytes, Firmware, ImageId, Slot, VolumeId};
use crate::error::{Error, Result};

/// The saved form's version: a newer one is not half understood.
const FORM: u32 = 1;

/// The manifest of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    form: u32,
    /// Whose it is.
    pub image: ImageId,
    /// When the image was made, in milliseconds since the Unix epoch.
    pub made: u64,
    /// Where it came from.
    pub origin: Origin,
    /// The system in it, as that names itself: `Debian GNU/Linux 13 (trixie)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The version of the kernel that it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// The firmware that it can be started by, as far as that was looked at.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub firmware: BTreeSet<Firmware>,
    /// What was done to it and tried with it, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    /// When the operator published it without a proof, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unproved: Option<u64>,
}

/// Where an image came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
pub enum Origin {
    /// A file, a URL, or whatever else was imported.
    Import(Imported),
    /// A blade's disk, as it was at that moment.
    Blade(Parent),
    /// Nobody knows any more: its manifest was lost, or it is older than manifests.
    Unknown,
}

/// What was imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// The source for people: never with a password in it.
    pub source: String,
    /// The source's format: `raw`, `qcow2`, …; `raw.xz` for a raw disk that was packed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// How large the disk in it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Bytes>,
    /// The SHA-256 of the source's bytes as they were read, in hex: what a publisher's checksum file has. Not of the
    /// volume's content, which any two programs lay out differently.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// What makes it doubtful whether all of it is of one moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caution: Option<String>,
}

/// The blade whose disk became an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The blade.
    pub blade: BladeId,
    /// The slot that its disk belongs to.
    pub slot: Slot,
    /// Its disk, which may be gone by now.
    pub disk: VolumeId,
    /// The image that the disk came from.
    pub image: ImageId,
    /// What the blade did meanwhile.
    pub consistency: Consistency,
}

/// What a disk was taken out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// Nobody was logged in: the disk is as its blade has left it.
    Clean,
    /// The blade was running: the disk is as after a power cut, and what its file systems do then is theirs.
    Crash,
    /// The blade was running, and its file systems stood still meanwhile: what its programs had written is there.
    Frozen,
}

/// Something that was done to an image or tried with it, and how it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What: a stable word for scripts, such as `sealed`, `checked` or `proved`.
    pub what: String,
    /// Whether it went well.
    pub passed: bool,
    /// When, in milliseconds since the Unix epoch.
    pub at: u64,
    /// For people: what was found or changed, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
}

impl Manifest {
    /// Returns the manifest of an image that has just been made.
    pub fn new(image: ImageId, made: u64, origin: Origin) -> Self {
        Self {
            form: FORM,
            image,
            made,
            origin,
            system: None,
            kernel: None,
            firmware: BTreeSet::new(),
            checks: vec![],
            unproved: None,
        }
    }

    /// Reads a manifest's file.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) where it is not a whole one of a form that we know.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let found: Self =
            serde_json::from_slice(bytes).map_err(|e| Error::invalid("read the manifest").because(e))?;
        match found.form {
            FORM => Ok(found),
            other => Err(Error::invalid(format!("read the manifest: form {other} is not known"))),
        }
    }

    /// Returns the file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("a manifest is plain data with text keys")
    }

    /// Returns whether this was done or tried, and went well the last time.
    pub fn has_passed(&self, what: &str) -> bool {
        self.checks.iter().rev().find(|check| check.what == what).is_some_and(|check| check.passed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn manifest() -> Manifest {
        let origin = Origin::Blade(Parent {
            blade: "b-525400000001".parse().unwrap(),
            slot: "3".parse().unwrap(),
            disk: VolumeId(7),
            image: "web@2".parse().unwrap(),
            consistency: Consistency::Crash,
        });
        let check = |passed| Check { what: "proved".into(), passed, at: 9, lines: vec!["login:".into()] };
        Manifest {
            system: Some("Debian \"13\"\n".into()),
            firmware: [Firmware::Uefi].into(),
            checks: vec![check(false), check(true)],
            unproved: Some(7),
            ..Manifest::new("web@3".parse().unwrap(), 5, origin)
        }
    }

    #[test]
    fn a_manifest_reads_back_and_the_last_word_on_a_check_counts() {
        let manifest = manifest();
        assert_eq!(Manifest::parse(&manifest.to_bytes()).unwrap(), manifest);
        assert!(manifest.has_passed("proved") && !manifest.has_passed("sealed"));
        let mut failed = manifest.clone();
        failed.checks.reverse();
        assert!(!failed.has_passed("proved"));
    }

    #[test]
    fn the_least_that_was_ever_saved_is_read_for_ever() {
        // Recorded: form 1 with nothing in it that may be left out.
        let least =
            br#"{"form":1,"image":"web","made":5,"origin":{"from":"import","source":"/srv/web.raw"}}"#;
        let found = Manifest::parse(least).unwrap();
        assert_eq!(found.image.to_string(), "web@1");
        assert!(matches!(found.origin, Origin::Import(Imported { sha256: None, .. })));
        let newer = String::from_utf8(least.to_vec()).unwrap().replace("\"form\":1", "\"form\":2");
        assert!(Manifest::parse(newer.as_bytes()).unwrap_err().to_string().contains("form 2"));
    }

    proptest! {
        #[test]
        fn a_damaged_manifest_is_refused_or_read_and_never_a_panic(
            at in 0_usize..400, byte in any::<u8>(), end in 0_usize..400,
        ) {
            let mut bytes = manifest().to_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes.truncate(end.max(1));
            if let Ok(found) = Manifest::parse(&bytes) {
                prop_assert_eq!(Manifest::parse(&found.to_bytes()).unwrap(), found);
            }
        }
    }
}
