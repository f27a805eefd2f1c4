//! Bad input, against every type that is made of text: whatever its form, it stops at the constructor.

use std::{fmt::Display, path::Path, str::FromStr};

use proptest::prelude::*;

use super::*;
use crate::error::{Error, Kind};

/// A type made of text: its name, and its constructor seen through what it shows.
type Door = (&'static str, fn(&str) -> Result<String, Error>);

const DOORS: [Door; 16] = [
    ("ImageName", shown::<ImageName>),
    ("PortName", shown::<PortName>),
    ("VgName", shown::<VgName>),
    ("LvName", shown::<LvName>),
    ("Hostname", shown::<Hostname>),
    ("Iqn", shown::<Iqn>),
    ("Mac", shown::<Mac>),
    ("BladeId", shown::<BladeId>),
    ("Slot", shown::<Slot>),
    ("VolumeId", shown::<VolumeId>),
    ("DiskGuid", shown::<DiskGuid>),
    ("Bytes", shown::<Bytes>),
    ("Tag", shown::<Tag>),
    ("Version", shown::<Version>),
    ("ImageId", shown::<ImageId>),
    ("ImageRef", shown::<ImageRef>),
];

/// Text that each type takes: what is done to it below is the only thing wrong with it.
const GOOD: [&str; 16] = [
    "debian13",
    "slot1",
    "sheath",
    "pool",
    "b-525400123456",
    "iqn.2026-11.org.example:b-525400123456",
    "52:54:00:12:34:56",
    "b-525400123456",
    "3",
    "0123456789abcdef0123456789abcdef",
    "01234567-89ab-4def-8123-456789abcdef",
    "20 GiB",
    "sheath.slot=3",
    "12",
    "debian13@3",
    "debian13@3",
];

fn shown<T: FromStr<Err = Error> + Display>(text: &str) -> Result<String, Error> {
    text.parse::<T>().map(|value| value.to_string())
}

/// Returns whether the text is one harmless component of a path, and one word of a line.
fn is_harmless(text: &str) -> bool {
    let one_component = Path::new("/root").join(text).parent() == Some(Path::new("/root"));
    one_component && text != ".." && text.bytes().all(|c| c.is_ascii_graphic() && c != b'/' && c != b'%')
}

#[test]
fn good_text_with_one_bad_character_is_refused_on_one_line() {
    for ((name, parse), good) in DOORS.iter().zip(GOOD) {
        assert!(parse(good).is_ok(), "{name} takes '{good}'");
        for bad in ['\n', '\r', '\0', '/', '%', '\\', '$', '"', '\u{1b}', 'ä', '\u{202e}'] {
            for at in [0, good.len() / 2, good.len()] {
                let mut text = good.to_owned();
                text.insert(at, bad);
                let error = parse(&text).expect_err(&format!("{name} takes {text:?}"));
                assert_eq!(error.kind(), Kind::Invalid, "{name} {text:?}");
                let words = error.chain();
                assert!(!words.contains(char::is_control), "{name}: the error of {text:?} is {words:?}");
            }
        }
    }
}

#[test]
fn names_of_224_bytes_are_refused() {
    let longest = format!("iqn.2026-11.org.example:{}", "x".repeat(223 - 24));
    assert!(longest.parse::<Iqn>().is_ok(), "223 bytes are what the standard allows");
    for (name, parse) in DOORS {
        for long in [format!("{longest}x"), "x".repeat(224), "1".repeat(224)] {
            assert_eq!(long.len(), 224);
            assert!(parse(&long).is_err(), "{name} takes 224 bytes");
        }
    }
    let prefix: Iqn = longest.parse().unwrap();
    assert_eq!(prefix.join("b-525400123456").unwrap_err().kind(), Kind::Invalid, "no room for a suffix");
}

#[test]
fn upper_case_is_refused_where_the_kernel_or_dns_would_tell_it_apart() {
    for refused in ["Debian13", "DEBIAN13"] {
        assert!(refused.parse::<ImageName>().is_err() && refused.parse::<Hostname>().is_err());
    }
    for refused in ["IQN.2026-11.org.example:b", "iqn.2026-11.org.Example:b", "iqn.2026-11.org.example:B"] {
        assert!(refused.parse::<Iqn>().is_err(), "{refused}");
    }
    assert!("0123456789ABCDEF0123456789ABCDEF".parse::<VolumeId>().is_err());
    // Firmware and people write them either way: one form comes out.
    let mac: Mac = "52:54:00:AB:CD:EF".parse().unwrap();
    assert_eq!(mac.to_string(), "52:54:00:ab:cd:ef");
}

proptest! {
    #[test]
    fn what_gets_in_is_harmless_and_reads_back_as_itself(text in "\\PC{0,40}|[a-z0-9.:/%\\n -]{0,230}") {
        for (name, parse) in DOORS {
            let Ok(shown) = parse(&text) else { continue };
            prop_assert!(is_harmless(&shown), "{} made of {:?} shows {:?}", name, text, shown);
            prop_assert_eq!(parse(&shown).unwrap(), shown);
        }
    }
}
