//! A blade's question as it stands in a URL: raw words in, checked types out.
//!
//! Identities are checked and refused where they are wrong. What the machine says of itself is only shown to people, so
//! a strange serial number is cleaned and shortened instead: it must not keep a blade from booting.

use std::net::Ipv4Addr;

use serde::Deserialize;

use super::wire::{Ask, BootRequest, Choice};
use crate::{
    error::{Error, Result},
    model::{Firmware, Hardware, Mac},
};

/// Longest free text that is kept of what a machine says of itself.
const MAX_CLAIM: usize = 64;
/// Longest token of a menu.
const MAX_TOKEN: usize = 64;
/// Longest error number, as iPXE writes it.
const MAX_ERRNO: usize = 16;

/// The words of any question. Words that we do not know are left alone: another version's script may send them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Words {
    mac: Option<String>,
    uuid: Option<String>,
    serial: Option<String>,
    manufacturer: Option<String>,
    product: Option<String>,
    platform: Option<String>,
    version: Option<String>,
    /// A menu's token.
    t: Option<String>,
    /// A choice.
    c: Option<String>,
    /// An error number.
    e: Option<String>,
}

impl Words {
    /// Returns the question "what shall I do?".
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) where the address is none; so for all of these.
    pub(super) fn start(self, peer: Ipv4Addr) -> Result<BootRequest> {
        self.with(peer, Ask::Start)
    }

    /// Returns the question for the menu.
    pub(super) fn menu(self, peer: Ipv4Addr) -> Result<BootRequest> {
        self.with(peer, Ask::Menu)
    }

    /// Returns a choice from the menu; its token and its choice must be there and look like ones of ours.
    pub(super) fn choose(self, peer: Ipv4Addr) -> Result<BootRequest> {
        let token = checked("token", self.t.as_deref(), MAX_TOKEN, |c| {
            c.is_ascii_alphanumeric() || b"-_".contains(&c)
        })?;
        let choice = choice(self.c.as_deref().unwrap_or_default())?;
        self.with(peer, Ask::Choose { token, choice })
    }

    /// Returns the report of a failed boot.
    pub(super) fn failed(self, peer: Ipv4Addr) -> Result<BootRequest> {
        let errno = checked("error number", self.e.as_deref(), MAX_ERRNO, |c| {
            c.is_ascii_alphanumeric() || c == b'-'
        })?;
        self.with(peer, Ask::BootFailed { errno })
    }

    fn with(self, peer: Ipv4Addr, ask: Ask) -> Result<BootRequest> {
        let mac = self.mac.filter(|text| !text.is_empty()).map(|text| text.parse::<Mac>()).transpose()?;
        let firmware = match self.platform.as_deref() {
            Some("pcbios") => Some(Firmware::Bios),
            Some("efi") => Some(Firmware::Uefi),
            _ => None,
        };
        let hardware = Hardware {
            uuid: claim(self.uuid),
            serial: claim(self.serial),
            manufacturer: claim(self.manufacturer),
            product: claim(self.product),
            firmware,
            ipxe: claim(self.version),
        };
        Ok(BootRequest { peer, mac, hardware, ask })
    }
}

/// Returns the choice that this word stands for, as [`super::script::choice_word`] wrote it.
fn choice(word: &str) -> Result<Choice> {
    match word {
        "disk" => Ok(Choice::Disk),
        "wait" => Ok(Choice::Wait),
        "firmware" => Ok(Choice::Firmware),
        _ => match word.strip_prefix("install.") {
            Some(image) => image.parse().map(Choice::Install),
            None => Err(Error::invalid(format!("'{}' is not a choice", word.escape_debug()))),
        },
    }
}

fn checked(what: &str, text: Option<&str>, longest: usize, allowed: fn(u8) -> bool) -> Result<String> {
    match text {
        Some(text) if (1..=longest).contains(&text.len()) && text.bytes().all(allowed) => Ok(text.to_owned()),
        _ => Err(Error::invalid(format!("there is no {what}, or it is not one of ours"))),
    }
}

/// Returns the printable beginning of what a machine says of itself, or `None` where it says nothing.
fn claim(text: Option<String>) -> Option<String> {
    let text = text?;
    let shown: String = text.trim().chars().filter(|c| !c.is_control()).take(MAX_CLAIM).collect();
    Some(shown).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::boot::script::choice_word;

    const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);

    #[test]
    fn a_strange_serial_number_is_shortened_and_keeps_no_blade_from_booting() {
        let words = Words {
            mac: Some("52-54-00-12-34-56".into()),
            serial: Some(format!(" a\nb\u{1b}[0m{}", "x".repeat(500))),
            product: Some("   ".into()),
            platform: Some("efi".into()),
            ..Words::default()
        };
        let request = words.start(PEER).unwrap();
        assert_eq!(request.mac, Some("52:54:00:12:34:56".parse().unwrap()));
        assert_eq!(request.hardware.serial, Some(format!("ab[0m{}", "x".repeat(59))));
        assert_eq!((request.hardware.product, request.hardware.firmware), (None, Some(Firmware::Uefi)));
    }

    #[test]
    fn a_blade_that_says_nothing_is_asked_about_all_the_same() {
        let request = Words { mac: Some(String::new()), ..Words::default() }.start(PEER).unwrap();
        assert_eq!(
            request,
            BootRequest { peer: PEER, mac: None, hardware: Hardware::default(), ask: Ask::Start }
        );
    }

    #[test]
    fn a_wrong_identity_is_refused() {
        let choose = |t: &str, c: &str| {
            Words { t: Some(t.into()), c: Some(c.into()), ..Words::default() }.choose(PEER)
        };
        assert!(choose("abc-123", "install.debian13").is_ok());
        for (token, choice) in [
            ("", "wait"),
            ("a b", "wait"),
            (&"x".repeat(65), "wait"),
            ("abc", "format"),
            ("abc", "install.../x"),
        ] {
            assert!(choose(token, choice).is_err(), "{token} {choice}");
        }
        assert!(Words { mac: Some("zz".into()), ..Words::default() }.menu(PEER).is_err());
        assert!(Words { e: Some("1 2".into()), ..Words::default() }.failed(PEER).is_err());
        assert!(Words::default().choose(PEER).is_err());
    }

    #[test]
    fn each_choice_reads_back_as_what_was_written() {
        let image = "debian13.2-web".parse().unwrap();
        for written in [Choice::Install(image), Choice::Disk, Choice::Wait, Choice::Firmware] {
            assert_eq!(choice(&choice_word(&written)).unwrap(), written);
        }
    }

    proptest! {
        #[test]
        fn no_words_break_the_reader(mac in any::<Option<String>>(), text in any::<String>()) {
            let words = Words {
                mac,
                uuid: Some(text.clone()),
                t: Some(text.clone()),
                c: Some(text.clone()),
                e: Some(text),
                ..Words::default()
            };
            if let Ok(request) = words.start(PEER) {
                prop_assert_eq!(request.ask, Ask::Start);
                prop_assert!(request.hardware.uuid.unwrap_or_default().chars().count() <= MAX_CLAIM);
            }
        }
    }
}
