//! The table of all keys of `sheath.toml`: what each expects, its default, what it is for.
//!
//! It is the one list that the reader, the faults' words, the manual page and the tests share. A key that is not here
//! does not exist.

/// One key of `sheath.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The table that it stands in, such as `chassis` or `image.NAME`; empty for the top of the file.
    ///
    /// The keys of `policy` stand in `policy.slot.N` and `policy.blade.MAC` too.
    pub table: &'static str,
    /// Its name; `*` where any name of the expected form may stand.
    pub name: &'static str,
    /// What may be written: the words of a fault after `expected`.
    pub expected: &'static str,
    /// What counts when it is not written, as TOML; empty where it must be written, or where nothing counts then.
    pub default: &'static str,
    /// What it is for.
    pub about: &'static str,
}

const fn key(
    place: (&'static str, &'static str),
    expected: &'static str,
    default: &'static str,
    about: &'static str,
) -> Key {
    Key { table: place.0, name: place.1, expected, default, about }
}

const TABLE: &str = "a table";
const SWITCH: &str = "true or false";
const PART: &str = "a size of at least 1MiB, such as \"20GiB\", or \"none\"";
const DISK: &str = "a size of at least 1MiB, such as \"20GiB\", or \"image\"";
const ROOT: &str = "\"fill\", \"keep\" or a size of at least 1MiB, such as \"20GiB\"";
const LVM: &str = "an LVM name (1 to 60 of letters, digits, _ . + -, not starting with a hyphen)";
const PORT: &str = "an interface name (1 to 15 of letters, digits, . _ -, starting with a letter or digit)";

/// All keys, in the order in which the manual page lists them.
pub const KEYS: &[Key] = &[
    key(("", "chassis"), TABLE, "", "the chassis: bridge, address, slots"),
    key(("", "pool"), TABLE, "", "where volumes are made"),
    key(("", "dhcp"), TABLE, "", "addresses for the blades"),
    key(("", "target"), TABLE, "", "how targets are named and reached"),
    key(("", "policy"), TABLE, "", "what blades may do"),
    key(("", "image"), TABLE, "", "what disks made from an image are like"),
    key(("chassis", "bridge"), PORT, "\"sheath0\"", "the bridge that the slots' ports belong to"),
    key(
        ("chassis", "address"),
        "an IPv4 address and its prefix length (8 to 30), such as \"10.77.0.1/24\"",
        "",
        "the appliance's address on the bridge; blades find DHCP, HTTP and their targets there",
    ),
    key(
        ("chassis", "manage"),
        SWITCH,
        "true",
        "whether sheathd makes the bridge and puts the ports in it, or the host's own network tool does",
    ),
    key(
        ("chassis", "isolate"),
        SWITCH,
        "true",
        "whether slots are kept from talking to each other on the bridge",
    ),
    key(
        ("chassis", "slots"),
        "a table of slots, such as { 1 = \"eth1\" }",
        "",
        "the interface that each slot's cable is plugged into",
    ),
    key(("chassis.slots", "*"), PORT, "", "the slot's interface; the key is the slot's number (1 to 999)"),
    key(("pool", "vg"), LVM, "\"sheath\"", "the volume group"),
    key(("pool", "thinpool"), LVM, "\"pool\"", "the thin pool in it"),
    key(
        ("pool", "watermark"),
        "a percentage (1 to 100)",
        "90",
        "no new disk is made while the pool's data or metadata is fuller than this, in percent",
    ),
    key(
        ("dhcp", "range"),
        "two IPv4 addresses, first and last, such as \"10.77.0.100-10.77.0.200\"",
        "",
        "the addresses given to blades; left out, the half of the chassis network that the appliance is not in",
    ),
    key(
        ("dhcp", "lease"),
        "a time of 2m to 365d, such as \"12h\"",
        "\"12h\"",
        "how long a blade may keep its address without asking again",
    ),
    key(
        ("target", "iqn_prefix"),
        "an iSCSI name of at most 200 bytes, such as \"iqn.2026-11.org.example\"",
        "\"iqn.2026-11.internal.sheath\"",
        "all targets and initiators of ours are named below it; it is the mark that says which are ours",
    ),
    key(
        ("target", "chap"),
        "\"one-way\" or \"mutual\"",
        "\"one-way\"",
        "whether only the blade proves itself to its target, or the target to the blade too",
    ),
    key(
        ("target", "portal"),
        "an IPv4 address and a port, such as \"10.77.0.1:3260\"",
        "",
        "where blades reach their targets, the first of the ports; left out, the chassis address, port 3260",
    ),
    key(
        ("target", "ports"),
        "a number of ports (1 to 64)",
        "8",
        "how many ports, from the portal's on, the slots are spread over: a connection that says nothing holds up the \
         logins at its own port alone",
    ),
    key(
        ("target", "drift"),
        "\"repair\" or \"report\"",
        "\"repair\"",
        "what happens when somebody else changes a target of ours: it is put right at once, or only reported until \
         'sheath reload'",
    ),
    key(
        ("policy", "policy"),
        "\"prompt\", \"wait\", \"ignore\" or { auto = \"IMAGE\" }",
        "\"prompt\"",
        "what happens to a blade that has no disk: ask at its console, wait for the administrator, leave it to its \
         firmware, or install an image unasked",
    ),
    key(
        ("policy", "restart"),
        "\"reboot\" or \"direct\"",
        "\"reboot\"",
        "what happens when a blade's disk is ready: the machine restarts, or iPXE boots the disk at once",
    ),
    key(
        ("policy", "menu_timeout"),
        "a number of seconds (0 to 86400)",
        "30",
        "how long the menu waits for a choice; 0 for ever",
    ),
    key(
        ("policy", "menu_default"),
        "\"wait\", \"firmware\" or { install = \"IMAGE\" }",
        "\"wait\"",
        "what a menu that nobody answers chooses",
    ),
    key(
        ("policy", "menu_capture"),
        "an image's name",
        "",
        "the prompt offers to make the machine's own disk the next version of this image; left out, it does not",
    ),
    key(
        ("policy", "key_timeout"),
        "a number of seconds (0 to 600)",
        "2",
        "how long a key opens the menu of a blade that has a disk; 0 for never",
    ),
    key(
        ("policy", "disk_size"),
        DISK,
        "",
        "as in [image.NAME], for one slot or blade there stronger than the image's own, in [policy] weaker; it counts \
         when a disk is made, and no disk that exists changes",
    ),
    key(("policy", "root"), ROOT, "", "the same"),
    key(("policy", "swap"), PART, "", "the same"),
    key(("policy", "data"), PART, "", "the same"),
    key(("policy", "reserve"), PART, "", "the same"),
    key(("policy", "slot"), TABLE, "", "the same keys for one slot: [policy.slot.3]"),
    key(("policy", "blade"), TABLE, "", "the same keys for one blade: [policy.blade.\"52:54:00:12:34:56\"]"),
    key(("policy.slot", "*"), TABLE, "", "the key is the number of a slot of [chassis.slots]"),
    key(("policy.blade", "*"), TABLE, "", "the key is the MAC address that the blade boots from"),
    key(
        (NARROW, "hostname"),
        "a host name (1 to 63 of a-z 0-9 -, starting and ending with a letter or digit)",
        "",
        "the blade's host name, in [policy.slot.N] and [policy.blade.\"MAC\"] only; left out, the blade's id",
    ),
    key(("image", "*"), TABLE, "", "the key is the image's name"),
    key(
        ("image.NAME", "disk_size"),
        DISK,
        "\"image\"",
        "the size of a disk made from it; \"image\" for the image's own with what is added to it",
    ),
    key(
        ("image.NAME", "root"),
        ROOT,
        "\"fill\"",
        "what becomes of the root partition: it grows over what the others leave, stays as the image has it, or grows to \
         this size (with a disk_size); what is left stays free behind it",
    ),
    key(("image.NAME", "swap"), PART, "\"none\"", "adds a swap partition of this size"),
    key(("image.NAME", "data"), PART, "\"none\"", "adds a data partition of this size"),
    key(("image.NAME", "reserve"), PART, "\"none\"", "leaves so much unpartitioned at the disk's end"),
    key(("image.NAME", "spares"), "a number (0 to 1000)", "0", "how many clones are made ahead"),
    key(
        ("image.NAME", "ssh_keys"),
        "a list of SSH public keys, each one line such as \"ssh-ed25519 AAAA… name\"",
        "[]",
        "SSH public keys for the blade's users",
    ),
    key(
        ("image.NAME", "user_data"),
        "text",
        "",
        "extra cloud-config keys, as YAML; '{{ hostname }}', '{{ slot }}', '{{ blade }}', '{{ mac }}', '{{ image }}' and \
         '{{ version }}' stand for the blade's own; for secrets, remember that this file may be read by others",
    ),
];

/// The tables that narrow `[policy]`: per slot and per blade.
pub(super) const NARROW: &str = "policy.*.*";

/// Returns the keys that may stand in a table.
pub(super) fn known(table: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| {
        let inherited = table == NARROW && key.table == "policy" && key.expected != TABLE;
        key.table == table || inherited
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_listed_twice() {
        let places: std::collections::BTreeSet<_> = KEYS.iter().map(|k| (k.table, k.name)).collect();
        assert_eq!(places.len(), KEYS.len());
    }

    #[test]
    fn a_narrower_policy_knows_the_keys_of_the_wider_one() {
        let names: Vec<_> = known(NARROW).map(|k| k.name).collect();
        assert_eq!(
            names,
            [
                "policy",
                "restart",
                "menu_timeout",
                "menu_default",
                "menu_capture",
                "key_timeout",
                "disk_size",
                "root",
                "swap",
                "data",
                "reserve",
                "hostname"
            ]
        );
    }
}
