//! What makes a blade itself: no two of them share any of it, wherever their disks came from.

use std::collections::BTreeMap;

use sheath_lab::{Blade, secs};

/// Who a blade is: words and their values.
pub(super) type Identity = BTreeMap<String, String>;

/// Tells all of it: one `word=value` in a line. Of the partitions' GUIDs, a clone renews those of our making; the
/// image's own stay, as its file systems' do.
const WHO_AM_I: &str = "echo machine-id=$(cat /etc/machine-id); echo name=$(hostname); \
    echo initiator=$(sed s/.*=// /etc/iscsi/initiatorname.iscsi); \
    for key in /etc/ssh/ssh_host_*_key.pub; do echo ${key##*/}=$(cut -d' ' -f2 $key); done; \
    sfdisk --dump /dev/sda | sed -n 's/^label-id: /disk=/p; s/.*uuid=\\(.*\\), name=.CIDATA.*/seed=\\1/p'; \
    echo mark=$(cat /etc/changed-by-hand)";
/// The words of it that no two blades share.
const OWN: [&str; 6] = ["disk", "initiator", "machine-id", "name", "seed", "ssh_host_ed25519_key.pub"];

/// Returns who the blade is. cloud-init, or what sealing has put in its place, gives it its keys some time after the prompt
/// under emulation.
pub(super) fn identity(blade: &mut Blade) -> Identity {
    let settled = "{ cloud-init status --wait || systemctl is-system-running --wait; } > /dev/null 2>&1";
    let told = blade.shell(&format!("{settled}; {WHO_AM_I}"), secs(300));
    let told = told.unwrap();
    let words = told.lines().filter_map(|line| line.trim().split_once('='));
    let all: Identity = words.map(|(word, value)| (word.to_owned(), value.to_owned())).collect();
    for word in OWN {
        assert!(all.get(word).is_some_and(|value| value.len() > 5), "no {word}: {told}");
    }
    all
}

/// Holds that two blades have nothing in common of what is a blade's own.
pub(super) fn differ(one: &Identity, other: &Identity) {
    for word in OWN {
        assert_ne!(one[word], other[word], "both blades have the same {word}");
    }
}
