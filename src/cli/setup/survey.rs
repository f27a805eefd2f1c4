//! What set-up finds on the machine: plain facts, and how those about the network are read from sysfs and procfs.
//!
//! Looking changes nothing. What the facts mean for the wish is `plan`'s.

use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use super::plan::Ports;
use crate::{
    error::{Context, Result},
    model::{Bytes, PortName},
};

/// What the machine has of an appliance already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Survey {
    /// What is on the disk, or on the pool file's loop device.
    pub(super) disk: DiskFacts,
    /// The disks of a volume group of the wished name.
    pub(super) vg_disks: Option<Vec<PathBuf>>,
    /// Whether that group has a thin pool of the wished name.
    pub(super) thinpool: bool,
    /// The size of the pool's file, where there is one.
    pub(super) pool_file: Option<Bytes>,
    /// Whether it is a loop device, and will be after the next boot.
    pub(super) pool_loop: bool,
    /// The wished slots' ports, as far as they exist.
    pub(super) ports: Ports,
    /// All network interfaces, for whoever mistyped one.
    pub(super) interfaces: BTreeSet<String>,
    /// All IPv4 addresses of the machine: interface, address, prefix length.
    pub(super) networks: Vec<(String, Ipv4Addr, u8)>,
    /// The configuration's text.
    pub(super) config: Option<String>,
    /// Whether there is a master key.
    pub(super) master_key: bool,
    /// Whether the services are enabled and active.
    pub(super) services: bool,
    /// Whether the agent answers.
    pub(super) answers: bool,
}

/// What is on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DiskFacts {
    /// Nothing.
    Blank,
    /// A physical volume, of a group or of none yet.
    Volume {
        /// The group.
        vg: Option<String>,
    },
    /// Something else, in words.
    Holds(Vec<String>),
}

/// Who uses a network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PortFacts {
    /// Its addresses; link-local ones are everybody's and do not count.
    pub(super) addresses: Vec<String>,
    /// Whether packets to the outside world leave by it.
    pub(super) default_route: bool,
    /// Interfaces that stand on it: a bridge, a bond, a VLAN.
    pub(super) uppers: Vec<String>,
}

/// An address of an interface.
pub(super) type Address = (String, IpAddr, u8);

/// Returns the facts about those of the wished ports that exist.
pub(super) fn ports(wished: &[PortName], sys: &Path, proc: &Path, addresses: &[Address]) -> Result<Ports> {
    let routes = default_routes(proc)?;
    let mut ports = Ports::new();
    for port in wished {
        let folder = sys.join("class/net").join(port.as_str());
        if !folder.exists() {
            continue;
        }
        let own = addresses.iter().filter(|(name, ip, _)| name == port.as_str() && !is_link_local(*ip));
        let facts = PortFacts {
            addresses: own.map(|(_, ip, prefix)| format!("{ip}/{prefix}")).collect(),
            default_route: routes.contains(port.as_str()),
            uppers: names(&folder)?
                .iter()
                .filter_map(|n| n.strip_prefix("upper_"))
                .map(str::to_owned)
                .collect(),
        };
        ports.insert(port.clone(), facts);
    }
    Ok(ports)
}

/// Returns all interfaces of the machine but the loopback.
pub(super) fn interfaces(sys: &Path) -> Result<BTreeSet<String>> {
    let mut all = names(&sys.join("class/net"))?;
    all.retain(|name| name != "lo" && name != "bonding_masters");
    Ok(all)
}

/// Returns the loop device that a file is attached to.
pub(super) fn loop_of(file: &Path, sys: &Path) -> Result<Option<PathBuf>> {
    for name in names(&sys.join("block"))?.iter().filter(|name| name.starts_with("loop")) {
        let backing = fs::read_to_string(sys.join("block").join(name).join("loop/backing_file"));
        if backing.is_ok_and(|backing| Path::new(backing.trim_end_matches('\n')) == file) {
            return Ok(Some(Path::new("/dev").join(name)));
        }
    }
    Ok(None)
}

/// Returns the file's text, or `None` where there is no such file.
pub(super) fn text_of(file: &Path) -> Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).attempt(|| format!("read '{}'", file.display())),
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Returns the interfaces that have a default route of IPv4 or IPv6.
fn default_routes(proc: &Path) -> Result<BTreeSet<String>> {
    let four = text_of(&proc.join("net/route"))?.unwrap_or_default();
    // Iface Destination Gateway Flags RefCnt Use Metric Mask …
    let four = four.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let default = words.get(1) == Some(&"00000000") && words.get(7) == Some(&"00000000");
        words.first().filter(|_| default).map(|name| (*name).to_owned())
    });
    let six = text_of(&proc.join("net/ipv6_route"))?.unwrap_or_default();
    // destination, its prefix length, …, interface
    let six = six.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let default = words.first()?.bytes().all(|c| c == b'0') && words.get(1) == Some(&"00");
        words.last().filter(|_| default).map(|name| (*name).to_owned())
    });
    Ok(four.chain(six).collect())
}

fn names(folder: &Path) -> Result<BTreeSet<String>> {
    let what = || format!("list '{}'", folder.display());
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
        other => other.attempt(what)?,
    };
    let names: std::io::Result<BTreeSet<String>> =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect();
    names.attempt(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in ["sys/class/net/eth0", "sys/class/net/eth1", "sys/class/net/lo", "proc/net"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::create_dir_all(root.path().join("sys/class/net/eth1/upper_eth1.7")).unwrap();
        fs::create_dir_all(root.path().join("sys/block/loop3/loop")).unwrap();
        let save = |path: &str, text: &str| {
            crate::host::file::save(&root.path().join(path), text.as_bytes(), 0o644).unwrap();
        };
        save("sys/block/loop3/loop/backing_file", "/var/lib/sheath-pool/pool.img\n");
        save(
            "proc/net/route",
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
             eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
             eth1\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n",
        );
        root
    }

    #[test]
    fn ports_in_use_are_recognised_and_missing_ones_are_absent() {
        let root = machine();
        let wished: Vec<PortName> = ["eth0", "eth1", "eth9"].iter().map(|n| n.parse().unwrap()).collect();
        let addresses = [
            ("eth0".into(), "192.168.1.5".parse().unwrap(), 24),
            ("eth0".into(), "fe80::1".parse().unwrap(), 64),
            ("eth1".into(), "2001:db8::1".parse().unwrap(), 64),
        ];
        let found = ports(&wished, &root.path().join("sys"), &root.path().join("proc"), &addresses).unwrap();
        let eth0 =
            PortFacts { addresses: vec!["192.168.1.5/24".into()], default_route: true, uppers: vec![] };
        let eth1 = PortFacts {
            addresses: vec!["2001:db8::1/64".into()],
            default_route: false,
            uppers: vec!["eth1.7".into()],
        };
        assert_eq!(found, Ports::from([(wished[0].clone(), eth0), (wished[1].clone(), eth1)]));
        assert_eq!(
            interfaces(&root.path().join("sys")).unwrap().into_iter().collect::<Vec<_>>(),
            ["eth0", "eth1"]
        );
    }

    #[test]
    fn the_loop_device_of_a_file_is_found_by_the_file() {
        let sys = machine();
        let sys = sys.path().join("sys");
        assert_eq!(
            loop_of(Path::new(super::super::plan::POOL_FILE), &sys).unwrap(),
            Some("/dev/loop3".into())
        );
        assert_eq!(loop_of(Path::new("/other"), &sys).unwrap(), None);
    }
}
