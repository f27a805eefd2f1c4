//! What sheath-bootd asks sheathd, and what sheathd answers: one JSON object each way over a unix socket.
//!
//! The request carries claims. sheathd believes none of them: it finds the blade by the port that the peer's frames
//! come in by, and only compares.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::model::{
    Bytes, Credentials, DonorWord, Firmware, Hardware, ImageId, ImageName, ImageRef, Iqn, Mac, Portal,
    Secret, Slot,
};

/// One question of a blade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootRequest {
    /// The HTTP peer's address: the only thing that sheath-bootd itself knows.
    pub peer: Ipv4Addr,
    /// The address that the blade says it boots from.
    pub mac: Option<Mac>,
    /// What the blade says of itself.
    pub hardware: Hardware,
    /// What it wants.
    pub ask: Ask,
}

/// What a blade wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// What shall I do?
    Start,
    /// Somebody pressed the key at the blade's console: show the menu although it has a disk.
    Menu,
    /// Somebody (or the time-out) chose from the menu.
    Choose {
        /// The menu's one-time token.
        token: String,
        /// The choice.
        choice: Choice,
    },
    /// The boot from the blade's disk failed.
    BootFailed {
        /// iPXE's error number, as text.
        errno: String,
    },
    /// Its disk is being captured: how far it is.
    Report(DonorWord),
}

impl Ask {
    /// Returns the question's name, for a log.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Start => "what to do",
            Self::Menu => "for the menu",
            Self::Choose { .. } => "for its choice",
            Self::BootFailed { .. } => "after a failed boot",
            Self::Report(_) => "whether to go on with its capture",
        }
    }
}

/// A line of the menu.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// Install this image.
    Install(ImageRef),
    /// Boot the disk that the blade has.
    Disk,
    /// Wait for the administrator.
    Wait,
    /// Go on with the firmware's boot order.
    Firmware,
    /// Make the machine's own disk an image.
    Capture,
}

/// What a blade is told; `boot::script` turns it into iPXE's language.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// Ask the person at the console.
    Menu(Menu),
    /// Nothing to do yet: say so, sleep, ask again.
    Wait {
        /// For the console.
        message: String,
        /// How long to sleep.
        seconds: u32,
    },
    /// Work is under way: show it and ask again at once (this answer came late already).
    Progress {
        /// For the console.
        message: String,
    },
    /// Log in to the disk and boot it.
    Boot(BootDisk),
    /// Start the small Linux that copies the machine's own disk.
    Capture(Capture),
    /// A report was heard: go on.
    Heard,
    /// Restart the machine; it boots from its disk then.
    Restart {
        /// For the console.
        message: String,
    },
    /// Leave it to the firmware's boot order.
    Firmware {
        /// For the console.
        message: String,
    },
    /// Refused. Says no more than the blade must know.
    Refused {
        /// For the console.
        message: String,
    },
    /// Something failed on the appliance: say what, sleep, ask again.
    Failed {
        /// The step that failed and its cause, for the console.
        message: String,
        /// How long to sleep.
        seconds: u32,
    },
}

impl Answer {
    /// Returns the answer's name, for a log: never what it holds.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Menu(_) => "to show the menu",
            Self::Wait { .. } => "to wait",
            Self::Progress { .. } => "that work is under way",
            Self::Boot(_) => "to boot its disk",
            Self::Capture(_) => "to start what copies its disk",
            Self::Heard => "to go on",
            Self::Restart { .. } => "to restart",
            Self::Firmware { .. } => "to go on with its firmware",
            Self::Refused { .. } => "that it is refused",
            Self::Failed { .. } => "that something failed",
        }
    }
}

/// A menu.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Menu {
    /// The blade's slot.
    pub slot: Slot,
    /// One-time token that a choice must bring back.
    pub token: String,
    /// The images that can be installed, each family's default version, with their sizes.
    pub images: Vec<(ImageId, Bytes)>,
    /// Whether the blade has a disk: adds "boot it", and installing would need the administrator.
    pub has_disk: bool,
    /// The image that the machine's own disk may become.
    #[serde(default)]
    pub capture: Option<ImageName>,
    /// What happens when nobody chooses.
    pub default: Choice,
    /// After how many seconds; 0 waits for ever.
    pub timeout: u32,
}

/// All that a blade needs to boot from its disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootDisk {
    /// The blade's slot, for the console.
    pub slot: Slot,
    /// The image that it runs, for the console.
    pub image: ImageId,
    /// The name that it logs in with.
    pub initiator: Iqn,
    /// The target.
    pub target: Iqn,
    /// Where the target is, at most two (the iBFT holds no more).
    pub portals: Vec<Portal>,
    /// CHAP.
    #[serde(with = "exposed")]
    pub credentials: Credentials,
    /// BIOS or UEFI; UEFI is told the loader's file name.
    pub firmware: Option<Firmware>,
    /// For how many seconds a key opens the menu; 0 for never.
    pub key_seconds: u32,
}

/// All that a donor needs to copy its disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capture {
    /// Where the copy goes.
    pub to: BootDisk,
    /// Which of the machine's disks; `None` where it has one alone.
    pub disk: Option<String>,
}

/// Credentials on the wire: the one place where secrets are serialised, over a socket that only sheath-bootd reads.
mod exposed {
    use super::{Credentials, Deserialize, Secret, Serialize};

    #[derive(Serialize, Deserialize)]
    struct Exposed {
        user: String,
        password: String,
        mutual: Option<(String, String)>,
    }

    pub(super) fn serialize<S: serde::Serializer>(from: &Credentials, to: S) -> Result<S::Ok, S::Error> {
        Exposed {
            user: from.user.clone(),
            password: from.password.expose().to_owned(),
            mutual: from.mutual.as_ref().map(|(user, secret)| (user.clone(), secret.expose().to_owned())),
        }
        .serialize(to)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Credentials, D::Error> {
        let Exposed { user, password, mutual } = Exposed::deserialize(from)?;
        let mutual = mutual.map(|(user, text)| (user, Secret::new(text)));
        Ok(Credentials { user, password: Secret::new(password), mutual })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_answer_crosses_the_wire_with_its_secrets_and_shows_none() {
        let mutual = Some(("t".to_owned(), Secret::new("second-secret".into())));
        let credentials =
            Credentials { user: "b".into(), password: Secret::new("first-secret".into()), mutual };
        let disk = BootDisk {
            slot: "3".parse().unwrap(),
            image: "debian13".parse().unwrap(),
            initiator: "iqn.2026-11.org.example:i".parse().unwrap(),
            target: "iqn.2026-11.org.example:t".parse().unwrap(),
            portals: vec![Portal("10.0.0.1:3260".parse().unwrap())],
            credentials,
            firmware: Some(Firmware::Uefi),
            key_seconds: 2,
        };
        let answer = Answer::Boot(disk);
        let text = serde_json::to_string(&answer).unwrap();
        assert!(text.contains("first-secret") && text.contains("second-secret"));
        assert_eq!(serde_json::from_str::<Answer>(&text).unwrap(), answer);
        assert!(!format!("{answer:?} {}", answer.word()).contains("-secret"));
    }

    #[test]
    fn a_menu_crosses_the_wire() {
        let image: ImageId = "debian13@2".parse().unwrap();
        let menu = Menu {
            slot: "3".parse().unwrap(),
            token: "t".into(),
            images: vec![(image.clone(), Bytes::gib(2))],
            has_disk: true,
            capture: None,
            default: Choice::Install(image.into()),
            timeout: 0,
        };
        let answer = Answer::Menu(menu);
        let text = serde_json::to_string(&answer).unwrap();
        assert_eq!(serde_json::from_str::<Answer>(&text).unwrap(), answer);
    }
}
