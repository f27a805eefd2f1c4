//! A server that has a disk of its own (the golden image, as somebody might have installed it) is plugged into slot 4: its disk
//! becomes an image without being taken out.

use std::time::Instant;

use serde_json::Value;
use sheath_lab::{
    Blade, Firmware, Spec, images,
    phase::done,
    secs,
    stage::{BOOT_BOUND, MENU_BOUND},
    until,
};

use super::Story;

/// The image that the server becomes.
const CAPTURED: &str = "captured";
/// The donor's Linux is made of the appliance's own: some 500 modules, by an emulated processor that others use too.
const MAKING_BOUND: std::time::Duration = secs(900);

fn donor(story: &Story) -> Spec {
    let image = images::golden(&story.stage.lab).unwrap();
    Spec::new(4, Firmware::Bios).with_disk(&image)
}

/// Returns what `sheath images` has of it.
fn listed(story: &mut Story) -> Option<Value> {
    let (images, name) = (story.stage.sheath("images").ok()?, format!("{CAPTURED}@1"));
    images.as_array()?.iter().find(|image| image["image"] == name.as_str()).cloned()
}

fn is_at(story: &mut Story, state: &str) -> Option<()> {
    (listed(story)?["progress"]["state"] == state).then_some(())
}

/// The donor's Linux is made meanwhile.
pub(super) fn is_ordered(story: &mut Story) {
    let disk = donor(story).disk_serial();
    let told = story.run(&format!("sheath image capture 4 {CAPTURED} --disk {disk} --no-wait"));
    assert!(told.contains("start it over the network"), "{told}");
    let refused = story.stage.appliance.run("sheath image capture 4 other --no-wait").unwrap();
    assert!(refused.stderr.contains("is captured for image 'captured'"), "{}", refused.stderr);
}

pub(super) fn captures(story: &mut Story) {
    let begin = Instant::now();
    until("the donor's Linux to be made", MAKING_BOUND, || is_at(story, "awaiting")).unwrap();
    done("   the donor's Linux is made", begin.elapsed());
    let spec = donor(story);
    let mut donor = Blade::power_on(&story.stage.lab, spec).unwrap();
    story.stage.appliance.plug(4).unwrap();
    let mut at = |words: &str, bound| {
        let at = donor.console().expect(words, bound).unwrap();
        done(&format!("   '{words}'"), at);
    };
    at("becomes image captured@1", MENU_BOUND);
    at("sheath: copying", BOOT_BOUND);
    // The agent goes, and comes again: the donor does not notice.
    story.run("systemctl kill --kill-whom=main --signal=KILL sheathd");
    at("sheath: verifying", BOOT_BOUND);
    at("the disk is copied and verified", BOOT_BOUND);
    let whole = until("the image", secs(180), || {
        listed(story).filter(|image| image["progress"].is_null() && image["importing"] == false)
    });
    let whole = whole.unwrap();
    assert_eq!(whole["published"], false, "{whole}");
    until("the donor to switch itself off", secs(120), || (!donor.is_on()).then_some(())).unwrap();
    story.stage.appliance.unplug(4).unwrap();
    leaves_nothing(story);
    is_the_donors_disk(story);
}

/// The target that the donor was lent is gone, and nothing of the import's is left.
fn leaves_nothing(story: &mut Story) {
    let left = "ls /sys/kernel/config/target/iscsi | grep ':b-02' || true; ls -d /var/lib/sheath/import-* 2> /dev/null || true";
    assert_eq!(story.run(left), "");
}

/// The same partitions with the same GUIDs, and a file system that is whole, as user space sees both: the golden image is what
/// was on the donor's disk.
fn is_the_donors_disk(story: &mut Story) {
    let export = format!("sheath image export {CAPTURED} /var/tmp/captured.raw --force > /dev/null");
    story.stage.appliance.agent().run_within(&export, secs(300)).unwrap().ok().unwrap();
    let dump =
        |file: &str| format!("sfdisk --dump {file} | grep -v '^device\\|^last-lba' | sed 's/^[^ ]*raw//'");
    let copy = story.run(&dump("/var/tmp/captured.raw"));
    story.run("qemu-img convert -O raw /payload/golden.qcow2 /var/tmp/donor.raw");
    assert_eq!(copy, story.run(&dump("/var/tmp/donor.raw")));
    let check = "start=$(sfdisk --json /var/tmp/captured.raw | jq '[.partitiontable.partitions[].start] | max') && \
        e2fsck -fn \"/var/tmp/captured.raw?offset=$((start * 512))\" > /dev/null && echo whole; rm -f /var/tmp/*.raw";
    assert_eq!(story.run(check).trim(), "whole");
}
