//! dnsmasq's configuration: DHCP and TFTP for the blades, in a unit of its own.
//!
//! dnsmasq gives addresses and the first loader, nothing else: no names, no router. Which blade gets which disk is told
//! by the script that iPXE fetches. [`render`] is pure; saving the text and restarting the unit is `service`'s.

use std::{net::Ipv4Addr, path::PathBuf};

use crate::{
    config::Config,
    error::{Error, Result},
};

/// Concurrent TFTP transfers: a whole chassis that is switched on. dnsmasq's own bound is 50.
const TRANSFERS: u32 = 256;

/// Client architectures (RFC 4578, option 93) that run x86-64 UEFI loaders. Both numbers are met in the field.
const UEFI_X64: [u16; 2] = [7, 9];

/// Those that run neither that nor a BIOS loader: 32-bit UEFI, ARM, and UEFI's own HTTP boot. They get no file.
const UNSUPPORTED: [u16; 9] = [6, 10, 11, 15, 16, 17, 18, 19, 20];

/// Where dnsmasq finds and leaves things. Each is one plain word: nothing in it can begin another line or value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    leases: PathBuf,
    tftp: PathBuf,
    script: String,
}

impl Places {
    /// Returns the places: the lease file, the folder with iPXE's loaders, and the URL of the script for iPXE.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) for a path or URL that dnsmasq could read as more than one.
    pub fn new(leases: impl Into<PathBuf>, tftp: impl Into<PathBuf>, script: &str) -> Result<Self> {
        let (leases, tftp) = (leases.into(), tftp.into());
        for path in [&leases, &tftp] {
            let text = path.to_string_lossy();
            if !path.is_absolute() || !is_word(&text, b"/._+-") {
                return Err(Error::invalid(format!("'{}' is not a path for dnsmasq", text.escape_debug())));
            }
        }
        if !script.starts_with("http://") || !is_word(script, b"/._:-") {
            return Err(Error::invalid(format!("'{}' is not a URL for dnsmasq", script.escape_debug())));
        }
        Ok(Self { leases, tftp, script: script.to_owned() })
    }
}

fn is_word(text: &str, more: &[u8]) -> bool {
    text.bytes().all(|c| c.is_ascii_alphanumeric() || more.contains(&c))
}

/// Returns dnsmasq's configuration: we own DHCP on the chassis network.
pub fn render(config: &Config, places: &Places) -> String {
    let mut text =
        String::from("# Written by sheathd from /etc/sheath/sheath.toml: changes here are lost.\n");
    for part in [network(config), leases(config, places), boot(places)] {
        text.push('\n');
        part.iter().for_each(|line| {
            text.push_str(line);
            text.push('\n');
        });
    }
    text
}

/// Only the chassis bridge is served, whenever it appears, and DNS never.
fn network(config: &Config) -> Vec<String> {
    vec![
        "port=0".to_owned(),
        "no-resolv".to_owned(),
        "no-hosts".to_owned(),
        format!("interface={}", config.chassis.bridge),
        "except-interface=lo".to_owned(),
        "bind-dynamic".to_owned(),
        // The unit's user cannot write one, and systemd needs none.
        "pid-file=".to_owned(),
    ]
}

fn leases(config: &Config, places: &Places) -> Vec<String> {
    let (first, last) = config.dhcp.range;
    let netmask = netmask(config.chassis.address.1);
    vec![
        format!("dhcp-range={first},{last},{netmask},{}", config.dhcp.lease),
        format!("dhcp-lease-max={}", u32::from(last).saturating_sub(u32::from(first)).saturating_add(1)),
        format!("dhcp-leasefile={}", places.leases.display()),
        "dhcp-authoritative".to_owned(),
        "dhcp-sequential-ip".to_owned(),
        // The ROM, iPXE and the operating system of one blade call themselves differently; its MAC is one.
        "dhcp-ignore-clid".to_owned(),
        // The echo request before an offer costs each new blade 3 s, and on this network nobody else gives addresses.
        "no-ping".to_owned(),
        // No router, no DNS.
        "dhcp-option=3".to_owned(),
        "dhcp-option=6".to_owned(),
    ]
}

fn boot(places: &Places) -> Vec<String> {
    let matches = |tag: &str, numbers: &[u16]| -> Vec<String> {
        numbers.iter().map(|number| format!("dhcp-match=set:{tag},option:client-arch,{number}")).collect()
    };
    let mut lines = vec![
        "enable-tftp".to_owned(),
        format!("tftp-root={}", places.tftp.display()),
        format!("tftp-max={TRANSFERS}"),
        // iPXE is known by its own option, or by its user class where a ROM leaves the option out.
        "dhcp-match=set:ipxe,175".to_owned(),
        "dhcp-userclass=set:ipxe,iPXE".to_owned(),
    ];
    lines.extend(matches("uefi", &UEFI_X64));
    lines.extend(matches("unsupported", &UNSUPPORTED));
    lines.extend([
        // An old ROM that does not say what it is, is a BIOS.
        "dhcp-boot=tag:!ipxe,tag:!uefi,tag:!unsupported,undionly.kpxe".to_owned(),
        "dhcp-boot=tag:!ipxe,tag:uefi,snponly.efi".to_owned(),
        format!("dhcp-boot=tag:ipxe,{}", places.script),
        // no-pxedhcp: iPXE need not wait 2 s for another boot server's word.
        "dhcp-option=tag:ipxe,encap:175,176,1b".to_owned(),
    ]);
    lines
}

fn netmask(prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0))
}

#[cfg(test)]
mod tests;
