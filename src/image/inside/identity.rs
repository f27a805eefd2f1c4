//! What would make two blades the same machine: where it lies in an image. The check lists it, the sealer removes it.

use std::path::{Path, PathBuf};

use super::tree::{is_there, list, matching, name, text, within};
use crate::image::facts::Identity;

/// What sort of left-over a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sort {
    /// The id that systemd, D-Bus and DHCP clients go by: it becomes empty.
    MachineId,
    /// D-Bus's own copy of it.
    DbusMachineId,
    /// An SSH host key, or its public half.
    SshKey,
    /// A DHCP client's lease.
    Lease,
    /// A saved random seed.
    Seed,
    /// What cloud-init remembers.
    CloudState,
    /// A rule that gives an interface its name by MAC address.
    NetName,
}

/// Folders of DHCP clients, with how their leases' names begin and end.
const LEASES: &[(&str, &str, &str)] = &[
    ("var/lib/dhcp", "", ".leases"),
    ("var/lib/dhclient", "", ".lease"),
    ("var/lib/dhclient", "", ".leases"),
    ("var/lib/NetworkManager", "", ".lease"),
    ("var/lib/dhcpcd", "", ".lease"),
    ("var/lib/dhcpcd5", "", ".lease"),
];
/// Saved random seeds.
const SEEDS: &[&str] =
    &["var/lib/systemd/random-seed", "var/lib/urandom/random-seed", "var/lib/misc/random-seed"];

/// Returns every left-over, in the order of its sort.
pub(super) fn leftovers(root: &Path) -> Vec<(Sort, PathBuf)> {
    let mut found = vec![];
    let mut add = |sort, paths: Vec<PathBuf>| found.extend(paths.into_iter().map(|path| (sort, path)));
    add(Sort::MachineId, id_files(root.join("etc/machine-id")));
    add(Sort::DbusMachineId, dbus(root));
    add(Sort::SshKey, matching(&root.join("etc/ssh"), "ssh_host_", ""));
    add(
        Sort::Lease,
        LEASES.iter().flat_map(|(folder, begin, end)| matching(&root.join(folder), begin, end)).collect(),
    );
    add(Sort::Seed, SEEDS.iter().map(|path| root.join(path)).filter(|path| path.is_file()).collect());
    add(Sort::CloudState, cloud_state(root));
    add(Sort::NetName, net_names(root));
    found
}

/// Returns the same as facts.
pub(super) fn facts(root: &Path) -> Identity {
    let all = leftovers(root);
    let of = |sort: Sort| {
        let paths = all.iter().filter(|(found, _)| *found == sort);
        paths.map(|(_, path)| within(root, path)).collect::<Vec<_>>()
    };
    Identity {
        machine_id: !of(Sort::MachineId).is_empty(),
        dbus_machine_id: !of(Sort::DbusMachineId).is_empty(),
        ssh_keys: of(Sort::SshKey),
        leases: of(Sort::Lease),
        seeds: of(Sort::Seed),
        cloud_state: !of(Sort::CloudState).is_empty(),
        net_names: of(Sort::NetName),
    }
}

/// Returns the file, if it holds an id. `uninitialized` is systemd's word for none.
fn id_files(path: PathBuf) -> Vec<PathBuf> {
    let content = text(&path);
    match content.trim() {
        "" | "uninitialized" => vec![],
        _ => vec![path],
    }
}

/// A link to `/etc/machine-id` is as it should be.
fn dbus(root: &Path) -> Vec<PathBuf> {
    let path = root.join("var/lib/dbus/machine-id");
    if path.is_symlink() { vec![] } else { id_files(path) }
}

fn cloud_state(root: &Path) -> Vec<PathBuf> {
    let cloud = root.join("var/lib/cloud");
    let mut found: Vec<PathBuf> =
        ["instance", "data"].iter().map(|name| cloud.join(name)).filter(|path| is_there(path)).collect();
    found.extend(list(&cloud.join("instances")));
    found.extend(list(&cloud.join("sem")));
    // An empty folder remembers nothing.
    found.retain(|path| path.is_symlink() || path.is_file() || !list(path).is_empty());
    found
}

fn net_names(root: &Path) -> Vec<PathBuf> {
    let rules = list(&root.join("etc/udev/rules.d"));
    let mut found: Vec<PathBuf> =
        rules.into_iter().filter(|path| name(path).contains("persistent-net")).collect();
    // The sealer's own know no address.
    let links = matching(&root.join("etc/systemd/network"), "", ".link");
    found.extend(links.into_iter().filter(|path| text(path).contains("MACAddress=")));
    // What cloud-init wrote for the instance that it was; it writes it anew.
    let netplan = matching(&root.join("etc/netplan"), "50-cloud-init", ".yaml");
    found.extend(netplan.into_iter().filter(|path| text(path).contains("macaddress")));
    found
}

#[cfg(test)]
mod tests {
    use super::{super::tree::tests::plant, *};

    #[test]
    fn each_left_over_is_found_where_it_lies() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        plant(
            root,
            &[
                ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
                ("var/lib/dbus/machine-id", "0123456789abcdef0123456789abcdef\n"),
                ("etc/ssh/ssh_host_ed25519_key", "secret"),
                ("etc/ssh/ssh_host_ed25519_key.pub", "public"),
                ("etc/ssh/sshd_config", "PermitRootLogin no"),
                ("var/lib/dhcp/dhclient.eth0.leases", "lease {}"),
                ("var/lib/NetworkManager/internal-x-eth0.lease", "ADDRESS=1"),
                ("var/lib/systemd/random-seed", "x"),
                ("var/lib/cloud/instances/i-1/obj.pkl", "x"),
                ("etc/udev/rules.d/70-persistent-net.rules", "x"),
                ("etc/systemd/network/10-lan.link", "[Match]\nMACAddress=52:54:00:00:00:01\n"),
                ("etc/systemd/network/99-default.link", "[Match]\nOriginalName=*\n"),
            ],
        );
        let facts = facts(root);
        assert!(facts.machine_id && facts.dbus_machine_id && facts.cloud_state);
        assert_eq!(facts.ssh_keys, ["etc/ssh/ssh_host_ed25519_key", "etc/ssh/ssh_host_ed25519_key.pub"]);
        assert_eq!(facts.leases.len(), 2, "{:?}", facts.leases);
        assert_eq!(facts.seeds, ["var/lib/systemd/random-seed"]);
        assert_eq!(
            facts.net_names,
            ["etc/udev/rules.d/70-persistent-net.rules", "etc/systemd/network/10-lan.link"]
        );
    }

    #[test]
    fn a_fresh_image_has_none() {
        let dir = tempfile::tempdir().unwrap();
        plant(dir.path(), &[("etc/machine-id", ""), ("etc/ssh/sshd_config", "x")]);
        std::fs::create_dir_all(dir.path().join("var/lib/cloud/instances")).unwrap();
        std::fs::create_dir_all(dir.path().join("var/lib/dbus")).unwrap();
        std::os::unix::fs::symlink("/etc/machine-id", dir.path().join("var/lib/dbus/machine-id")).unwrap();
        assert_eq!(leftovers(dir.path()), []);
        plant(dir.path(), &[("etc/machine-id", "uninitialized\n")]);
        assert_eq!(facts(dir.path()), Identity::default());
    }
}
