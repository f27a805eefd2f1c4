//! The first `sheath.toml` of an appliance: the sample with its comments, filled in.
//!
//! Pure: `sheath setup` shows and saves the text. The sample is the file that the package ships.

use std::{fmt::Write as _, net::Ipv4Addr};

use crate::model::{PortName, VgName};

/// The sample configuration, every key commented, as the package ships it.
pub const SAMPLE: &str = include_str!("../../config/sheath.toml");

/// What a first configuration needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initial {
    /// `[chassis] address`.
    pub address: (Ipv4Addr, u8),
    /// `[chassis.slots]`, numbered from 1 in this order.
    pub slots: Vec<PortName>,
    /// `[pool] vg`.
    pub vg: VgName,
}

/// Returns the sample with these values in place of its own.
pub fn render_initial(initial: &Initial) -> String {
    let mut text = String::new();
    let (mut table, mut slots_written) = ("", false);
    for line in SAMPLE.lines() {
        if line.starts_with('[') {
            table = line;
        }
        match (table, line.split(' ').next().unwrap_or_default()) {
            ("[chassis]", "address") => {
                line_of(&mut text, &format!("address = \"{}/{}\"", initial.address.0, initial.address.1));
            }
            ("[chassis.slots]", word) if is_number(word) => {
                if !std::mem::replace(&mut slots_written, true) {
                    let numbered = initial.slots.iter().zip(1..);
                    numbered.for_each(|(port, n)| line_of(&mut text, &format!("{n} = \"{port}\"")));
                }
            }
            ("[pool]", "#vg") if initial.vg.as_str() != "sheath" => {
                line_of(&mut text, &format!("vg = \"{}\"", initial.vg));
            }
            ("[dhcp]", "#range") => line_of(&mut text, &range_of(initial.address)),
            ("[target]", "#portal") => {
                line_of(&mut text, &format!("#portal = \"{}:3260\"", initial.address.0));
            }
            _ => line_of(&mut text, line),
        }
    }
    text
}

/// The examples follow the address, so that taking a `#` away gives something that works.
fn range_of(address: (Ipv4Addr, u8)) -> String {
    let (from, to) = super::network::Network::of(address).free_half();
    format!("#range = \"{from}-{to}\"")
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|c| c.is_ascii_digit())
}

fn line_of(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn initial(address: &str, slots: &[&str], vg: &str) -> Initial {
        Initial {
            address: crate::config::network::parse_address(address).unwrap(),
            slots: slots.iter().map(|slot| slot.parse().unwrap()).collect(),
            vg: vg.parse().unwrap(),
        }
    }

    #[test]
    fn the_sample_is_what_setup_would_write_for_the_samples_own_values() {
        assert_eq!(render_initial(&initial("10.77.0.1/24", &["ens4", "ens5"], "sheath")), SAMPLE);
    }

    #[test]
    fn a_first_file_parses_as_what_was_asked_for() {
        let asked = initial("192.168.9.254/25", &["eth1", "eth2", "eth3"], "blades");
        let config = crate::config::parse("sheath.toml", &render_initial(&asked)).unwrap();
        assert_eq!(config.chassis.address, asked.address);
        assert_eq!(config.chassis.slots.values().cloned().collect::<Vec<_>>(), asked.slots);
        assert_eq!(config.pool.vg, asked.vg);
    }

    #[test]
    fn every_example_of_a_first_file_works_when_its_hash_is_taken_away() {
        let text = render_initial(&initial("192.168.9.254/25", &["eth1"], "sheath"));
        let uncommented: String = text
            .lines()
            .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
            .fold(String::new(), |text, line| text + line + "\n");
        crate::config::parse("sheath.toml", &uncommented).unwrap();
    }
}
