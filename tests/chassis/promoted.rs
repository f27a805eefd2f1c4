//! A blade that was changed by hand becomes an image, sealed, and another blade's disk is made from it: what was changed is
//! there, and what makes the first blade itself is not.

use std::collections::BTreeMap;
use std::time::Instant;

use sheath_lab::{Blade, phase::done, secs, until};

use super::{SHUTDOWN_BOUND, Story};

/// The image that the blade becomes.
pub(super) const PROMOTED: &str = "web";
/// The same, sealed: what a blade is offered.
pub(super) const SEALED: &str = "web@2";

/// What makes a blade itself: one `word=value` in a line. Of the partitions' GUIDs, a clone renews those of our making; the
/// image's own stay, as its file systems' do.
const WHO_AM_I: &str = "echo machine-id=$(cat /etc/machine-id); echo name=$(hostname); \
    echo initiator=$(sed s/.*=// /etc/iscsi/initiatorname.iscsi); \
    for key in /etc/ssh/ssh_host_*_key.pub; do echo ${key##*/}=$(cut -d' ' -f2 $key); done; \
    sfdisk --dump /dev/sda | sed -n 's/^label-id: /disk=/p; s/.*uuid=\\(.*\\), name=.CIDATA.*/seed=\\1/p'; \
    echo mark=$(cat /etc/changed-by-hand)";
/// The words of it that no two blades share.
const OWN: [&str; 6] = ["disk", "initiator", "machine-id", "name", "seed", "ssh_host_ed25519_key.pub"];

/// A guest in the guest takes a minute or so, emulated twice. One that hangs is given up after three, and started once more.
const WORKSHOP_BOUND: std::time::Duration = secs(900);

/// Returns who the blade is. cloud-init gives it its keys some time after the prompt under emulation.
pub(super) fn identity(blade: &mut Blade) -> BTreeMap<String, String> {
    let told = blade.shell(&format!("cloud-init status --wait > /dev/null 2>&1; {WHO_AM_I}"), secs(300));
    let told = told.unwrap();
    let words = told.lines().filter_map(|line| line.trim().split_once('='));
    let all: BTreeMap<_, _> = words.map(|(word, value)| (word.to_owned(), value.to_owned())).collect();
    for word in OWN {
        assert!(all.get(word).is_some_and(|value| value.len() > 5), "no {word}: {told}");
    }
    all
}

/// An administrator's work on a blade: something is changed, the blade is shut down.
pub(super) fn is_changed_by_hand(story: &mut Story) {
    let refused = story.stage.appliance.run(&format!("sheath image promote 1 {PROMOTED}")).unwrap();
    assert!(refused.code != 0 && refused.stderr.contains("--running"), "a running blade: {refused:?}");
    story.bios().shell("date +%s.%N > /etc/changed-by-hand", secs(60)).unwrap();
    story.first = identity(story.bios());
    let begin = Instant::now();
    let mut blade = story.bios.take().expect("the BIOS blade is on");
    blade.console().send("systemctl poweroff\r").unwrap();
    until("the blade's end", SHUTDOWN_BOUND, || (!blade.is_on()).then_some(())).unwrap();
    done("   from 'systemctl poweroff' to power off", begin.elapsed());
    story.stage.appliance.unplug(1).unwrap();
}

/// The session of a machine that is off ends when the target notices.
pub(super) fn is_promoted(story: &mut Story) {
    let promote = format!("sheath image promote 1 {PROMOTED}");
    let begin = Instant::now();
    let told = until("the blade to be known as off", secs(120), || {
        story.stage.appliance.run(&promote).ok().filter(|output| output.code == 0)
    });
    done("   promoted, the wait for the session's end included", begin.elapsed());
    let told = told.unwrap().stdout;
    assert!(told.contains("'web@1'") && told.contains("which is off"), "{told}");
    let shown = story.run(&format!("sheath image show {PROMOTED}"));
    assert!(shown.contains("made from 'debian13@1', while it was off"), "{shown}");
}

pub(super) fn is_sealed(story: &mut Story) {
    let sealing = story.work(&format!("seal {PROMOTED}"));
    assert_eq!(sealing["image"], SEALED, "{sealing}");
    let changes: Vec<_> =
        sealing["changes"].as_array().expect("a list").iter().map(|change| change["about"].clone()).collect();
    for about in ["machine-id", "ssh-host-keys", "cloud-state"] {
        assert!(changes.iter().any(|change| change == about), "{about} was left: {changes:?}");
    }
    // Ends with status 1 where anything is to be mended.
    let checkup = story.work(&format!("check {SEALED}"));
    assert!(checkup["bios"] == true && checkup["uefi"] == true, "{checkup}");
    // Its proof is another test's; the blade that is made from it is one.
    story.run(&format!("sheath image publish {SEALED} --unproved"));
}

/// The other blade's disk came from this blade's own: whatever could be the same would be.
pub(super) fn makes_another_blade(story: &mut Story, blade: &mut Blade) {
    assert_eq!(story.stage.blade(2).unwrap()["image"], SEALED);
    let second = identity(blade);
    assert_eq!(second["mark"], story.first["mark"], "what was changed by hand is not in the image");
    assert!(second["mark"].len() > 10, "{second:?}");
    for word in OWN {
        assert_ne!(second[word], story.first[word], "both blades have the same {word}");
    }
}

impl Story {
    /// Has the agent work on an image, and returns what came of it.
    fn work(&mut self, words: &str) -> serde_json::Value {
        let begin = Instant::now();
        let command = format!("sheath image {words} --json");
        let told = self.stage.appliance.agent().run_within(&command, WORKSHOP_BOUND).unwrap();
        done(&format!("   sheath image {words}"), begin.elapsed());
        serde_json::from_str(&told.ok().unwrap()).unwrap()
    }
}
