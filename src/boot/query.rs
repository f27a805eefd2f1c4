//! A blade's question as it stands in a URL: raw words in, checked types out.
//!
//! Identities are checked and refused where they are wrong. What the machine says of itself is only shown to people, so
//! a strange serial number is cleaned and shortened instead: it must not keep a blade from booting.

use std::net::Ipv4Addr;

use super::wire::{Ask, BootRequest, Choice};
use crate::{
    error::{Error, Result},
    model::{Bytes, DonorWord, Firmware, Hardware, Mac},
};

/// Longest free text that is kept of what a machine says of itself.
const MAX_CLAIM: usize = 64;
/// Longest token of a menu.
const MAX_TOKEN: usize = 64;
/// Longest error number, as iPXE writes it.
const MAX_ERRNO: usize = 16;
/// Longest error of a donor that is shown.
const MAX_ERROR: usize = 600;

/// The words of any question. Words that we do not know are left alone: another version's script may send them.
#[derive(Debug, Default)]
pub(super) struct Words {
    mac: Option<String>,
    uuid: Option<String>,
    serial: Option<String>,
    manufacturer: Option<String>,
    product: Option<String>,
    platform: Option<String>,
    version: Option<String>,
    /// A menu's token.
    token: Option<String>,
    choice: Option<String>,
    errno: Option<String>,
    /// What a donor says.
    word: Option<String>,
    done: Option<String>,
    total: Option<String>,
    error: Option<String>,
}

impl Words {
    /// Returns the words of a URL's query.
    ///
    /// iPXE before 2020 leaves `&` and `+` as they are in what it encodes, so this is not a form's encoding: `+` is a
    /// plus sign, and of a word that comes twice the first counts. Our scripts put identities first, hence no serial
    /// number can pose as one.
    pub(super) fn parse(query: &str) -> Self {
        let mut words = Self::default();
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            if let Some(place) = words.place(name) {
                place.get_or_insert_with(|| decoded(value));
            }
        }
        words
    }

    fn place(&mut self, name: &str) -> Option<&mut Option<String>> {
        match name {
            "mac" => Some(&mut self.mac),
            "uuid" => Some(&mut self.uuid),
            "serial" => Some(&mut self.serial),
            "manufacturer" => Some(&mut self.manufacturer),
            "product" => Some(&mut self.product),
            "platform" => Some(&mut self.platform),
            "version" => Some(&mut self.version),
            "t" => Some(&mut self.token),
            "c" => Some(&mut self.choice),
            "e" => Some(&mut self.errno),
            "w" => Some(&mut self.word),
            "done" => Some(&mut self.done),
            "total" => Some(&mut self.total),
            "error" => Some(&mut self.error),
            _ => None,
        }
    }

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
        let token = checked("token", self.token.as_deref(), MAX_TOKEN, |c| {
            c.is_ascii_alphanumeric() || b"-_".contains(&c)
        })?;
        let choice = choice(self.choice.as_deref().unwrap_or_default())?;
        self.with(peer, Ask::Choose { token, choice })
    }

    /// Returns the report of a failed boot.
    pub(super) fn failed(self, peer: Ipv4Addr) -> Result<BootRequest> {
        let errno = checked("error number", self.errno.as_deref(), MAX_ERRNO, |c| {
            c.is_ascii_alphanumeric() || c == b'-'
        })?;
        self.with(peer, Ask::BootFailed { errno })
    }

    /// Returns what a donor says of its capture.
    pub(super) fn report(self, peer: Ipv4Addr) -> Result<BootRequest> {
        let bytes = |text: &Option<String>| {
            let number = text.as_deref().unwrap_or_default().parse().map(Bytes);
            number.map_err(|_| Error::invalid("a report without its bytes"))
        };
        let word = match self.word.as_deref() {
            Some("copying") => DonorWord::Copying { done: bytes(&self.done)?, total: bytes(&self.total)? },
            Some("verifying") => {
                DonorWord::Verifying { done: bytes(&self.done)?, total: bytes(&self.total)? }
            }
            Some("done") => DonorWord::Done { size: bytes(&self.total)? },
            Some("failed") => DonorWord::Failed { error: shown(self.error.as_deref(), MAX_ERROR) },
            _ => return Err(Error::invalid("a report without a word that we know")),
        };
        self.with(peer, Ask::Report(word))
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
        "capture" => Ok(Choice::Capture),
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

/// Returns `text` with its `%XX` decoded; what is no such thing stays, what is no UTF-8 becomes a question mark.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|pair| first == b'%' && pair.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|pair| std::str::from_utf8(pair).ok());
        match digits.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => (bytes.push(byte), rest = &after[2..]),
            None => (bytes.push(first), rest = after),
        };
    }
    String::from_utf8_lossy(&bytes).replace('\u{fffd}', "?")
}

/// Returns the printable beginning of what a machine says of itself, or `None` where it says nothing.
fn claim(text: Option<String>) -> Option<String> {
    Some(shown(text.as_deref(), MAX_CLAIM)).filter(|text| !text.is_empty())
}

fn shown(text: Option<&str>, most: usize) -> String {
    text.unwrap_or_default().trim().chars().filter(|c| !c.is_control()).take(most).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::boot::script::choice_word;

    const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);

    #[test]
    fn a_strange_serial_number_is_shortened_and_keeps_no_blade_from_booting() {
        let query = format!(
            "mac=52-54-00-12-34-56&serial=%20a%0ab%1b[0m{}&product=%20%20&platform=efi",
            "x".repeat(500)
        );
        let request = Words::parse(&query).start(PEER).unwrap();
        assert_eq!(request.mac, Some("52:54:00:12:34:56".parse().unwrap()));
        assert_eq!(request.hardware.serial, Some(format!("ab[0m{}", "x".repeat(59))));
        assert_eq!((request.hardware.product, request.hardware.firmware), (None, Some(Firmware::Uefi)));
    }

    #[test]
    fn a_manufacturer_with_an_ampersand_can_pose_as_nothing() {
        let query = "mac=52-54-00-12-34-56&manufacturer=A&mac=02-00-00-00-00-01&B%26C&product=1+1%zz%+f%ff%";
        let request = Words::parse(query).start(PEER).unwrap();
        assert_eq!(request.mac, Some("52:54:00:12:34:56".parse().unwrap()));
        assert_eq!(request.hardware.manufacturer.as_deref(), Some("A"));
        assert_eq!(request.hardware.product.as_deref(), Some("1+1%zz%+f?%"));
    }

    #[test]
    fn a_blade_that_says_nothing_is_asked_about_all_the_same() {
        let nothing = BootRequest { peer: PEER, mac: None, hardware: Hardware::default(), ask: Ask::Start };
        for query in ["", "&&=", "mac=&uuid=", "other=1"] {
            assert_eq!(Words::parse(query).start(PEER).unwrap(), nothing);
        }
    }

    #[test]
    fn a_wrong_identity_is_refused() {
        assert!(Words::parse("t=abc-123&c=install.debian13").choose(PEER).is_ok());
        let long = format!("t={}&c=wait", "x".repeat(65));
        for query in
            ["t=&c=wait", "t=a%20b&c=wait", &long, "t=abc&c=format", "t=abc&c=install.../x", "c=wait", ""]
        {
            assert!(Words::parse(query).choose(PEER).is_err(), "{query}");
        }
        assert!(Words::parse("mac=zz").menu(PEER).is_err());
        assert!(Words::parse("e=1%202").failed(PEER).is_err());
    }

    #[test]
    fn a_donors_report_is_read_and_a_damaged_one_refused() {
        let read = |query: &str| Words::parse(query).report(PEER).map(|request| request.ask);
        let copying = DonorWord::Copying { done: Bytes(5), total: Bytes(10) };
        assert_eq!(read("w=copying&done=5&total=10&mac=52-54-00-12-34-56").unwrap(), Ask::Report(copying));
        assert_eq!(read("w=done&total=10").unwrap(), Ask::Report(DonorWord::Done { size: Bytes(10) }));
        let failed = DonorWord::Failed { error: "no disk: b".into() };
        assert_eq!(read("w=failed&error=no%20disk%3A%20%1bb").unwrap(), Ask::Report(failed));
        for bad in ["", "w=dance", "w=copying&done=5", "w=copying&done=-1&total=2", "w=done", "w=told"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_choice_reads_back_as_what_was_written() {
        let image = "debian13.2-web".parse().unwrap();
        for written in [Choice::Install(image), Choice::Disk, Choice::Wait, Choice::Firmware, Choice::Capture]
        {
            assert_eq!(choice(&choice_word(&written)).unwrap(), written);
        }
    }

    proptest! {
        #[test]
        fn no_words_break_the_reader(query in any::<String>(), serial in any::<String>()) {
            let words = Words::parse(&format!("{query}&serial={serial}&t={query}&c={query}"));
            if let Ok(request) = words.start(PEER) {
                prop_assert_eq!(request.ask, Ask::Start);
                prop_assert!(request.hardware.serial.unwrap_or_default().chars().count() <= MAX_CLAIM);
            }
        }
    }
}
