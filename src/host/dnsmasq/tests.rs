//! dnsmasq's configuration as text, and dnsmasq's own opinion of it.

use std::{fs, path::Path};

use super::*;
use crate::error::Kind;

fn config() -> Config {
    let mut config = crate::sample::config();
    config.chassis.address.1 = 22;
    config.dhcp.range = (Ipv4Addr::new(10, 77, 1, 0), Ipv4Addr::new(10, 77, 2, 255));
    config.dhcp.lease = 3600;
    config
}

fn places(root: &Path) -> Places {
    Places::new(root.join("leases"), root.join("tftp"), "http://10.77.0.1:8078/v1/start.ipxe").unwrap()
}

#[test]
fn the_configuration_is_what_was_meant() {
    let expected = "\
# Written by sheathd from /etc/sheath/sheath.toml: changes here are lost.

port=0
no-resolv
no-hosts
interface=sheath0
except-interface=lo
bind-dynamic
pid-file=

dhcp-range=10.77.1.0,10.77.2.255,255.255.252.0,3600
dhcp-lease-max=512
dhcp-leasefile=/x/leases
dhcp-authoritative
dhcp-sequential-ip
dhcp-ignore-clid
no-ping
dhcp-option=3
dhcp-option=6

enable-tftp
tftp-root=/x/tftp
tftp-max=256
dhcp-match=set:ipxe,175
dhcp-userclass=set:ipxe,iPXE
dhcp-match=set:uefi,option:client-arch,7
dhcp-match=set:uefi,option:client-arch,9
dhcp-match=set:unsupported,option:client-arch,6
dhcp-match=set:unsupported,option:client-arch,10
dhcp-match=set:unsupported,option:client-arch,11
dhcp-match=set:unsupported,option:client-arch,15
dhcp-match=set:unsupported,option:client-arch,16
dhcp-match=set:unsupported,option:client-arch,17
dhcp-match=set:unsupported,option:client-arch,18
dhcp-match=set:unsupported,option:client-arch,19
dhcp-match=set:unsupported,option:client-arch,20
dhcp-boot=tag:!ipxe,tag:!uefi,tag:!unsupported,undionly.kpxe
dhcp-boot=tag:!ipxe,tag:uefi,snponly.efi
dhcp-boot=tag:ipxe,http://10.77.0.1:8078/v1/start.ipxe
dhcp-option=tag:ipxe,encap:175,176,1b
";
    assert_eq!(render(&config(), &places(Path::new("/x"))), expected);
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the test asks dnsmasq itself")]
fn dnsmasq_understands_its_configuration() {
    let dnsmasq = Path::new("/usr/sbin/dnsmasq");
    if !dnsmasq.exists() {
        eprintln!("skipped: dnsmasq-base is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dnsmasq.conf");
    fs::write(&path, render(&config(), &places(dir.path()))).unwrap();
    let output = std::process::Command::new(dnsmasq).arg("--test").arg("-C").arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_word_cannot_begin_another_line() {
    for bad in ["/a\nb", "/a b", "/a,b", "a/b", "/a#b", "/a\"b"] {
        let error = Places::new(bad, "/tftp", "http://10.0.0.1/x").unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{bad}");
        assert!(Places::new("/leases", bad, "http://10.0.0.1/x").is_err(), "{bad}");
    }
    for bad in ["http://a\nb", "http://a,b", "file:///etc/passwd", "http://a b", "http://${x}"] {
        assert!(Places::new("/leases", "/tftp", bad).is_err(), "{bad}");
    }
}

#[test]
fn netmasks_follow_from_prefixes() {
    for (prefix, mask) in [(0, "0.0.0.0"), (8, "255.0.0.0"), (22, "255.255.252.0"), (32, "255.255.255.255")] {
        assert_eq!(netmask(prefix).to_string(), mask);
    }
}
