//! A server that was installed by itself (a Debian 12 that has never heard of iSCSI, on an NVMe disk) is plugged into slot 4: its
//! disk becomes an image without being taken out, and two blades are made of that image, which are neither that server nor
//! each other.

use std::time::Instant;

use serde_json::Value;
use sheath_lab::{
    Blade, Firmware, Spec, images,
    phase::done,
    secs,
    stage::{BOOT_BOUND, MENU_BOUND},
    until,
};

use super::{
    Story,
    identity::{Identity, differ, identity},
};

/// The image that the server becomes.
const CAPTURED: &str = "db";
/// What leads it to every blade.
const OFFER: &str = "sheath image offer db --firmware bios";
/// The same, sealed.
const SEALED: &str = "db@2";
/// The donor's Linux is made of the appliance's own: some 500 modules, by an emulated processor that others use too.
const MAKING_BOUND: std::time::Duration = secs(900);
/// The blades that are made of it: by one firmware and by the other.
const TWINS: [(u8, Firmware); 2] = [(2, Firmware::Uefi), (3, Firmware::Bios)];

fn donor(story: &Story) -> Spec {
    let image = images::donor(&story.stage.lab).unwrap();
    Spec::new(4, Firmware::Bios).with_disk(&image)
}

fn is_at(story: &mut Story, state: &str) -> Option<()> {
    (story.image(&format!("{CAPTURED}@1"))?["progress"]["state"] == state).then_some(())
}

/// The README's second story: a running server. The command shows how far it is until the image is there; others work meanwhile.
pub(super) fn is_ordered(story: &mut Story) {
    story.as_written_beside("capture", "sheath image capture 4 db");
    until("the order", secs(60), || story.image("db@1")).unwrap();
    let refused = story.stage.appliance.run("sheath image capture 4 other --no-wait").unwrap();
    assert!(refused.stderr.contains("is captured for image 'db'"), "{}", refused.stderr);
}

pub(super) fn is_copied(story: &mut Story) {
    let begin = Instant::now();
    until("the donor's Linux to be made", MAKING_BOUND, || {
        // A question is work, too, for the one emulated machine that makes it.
        story.run("sleep 5");
        is_at(story, "awaiting")
    })
    .unwrap();
    done("   the donor's Linux is made", begin.elapsed());
    let spec = donor(story);
    story.donor = Some(Blade::power_on(&story.stage.lab, spec).unwrap());
    story.stage.appliance.plug(4).unwrap();
    donor_says(story, "becomes image db@1", MENU_BOUND);
    donor_says(story, "sheath: copying", BOOT_BOUND);
    // The agent goes, and comes again: the donor does not notice.
    story.run("systemctl kill --kill-whom=main --signal=KILL sheathd");
}

fn donor_says(story: &mut Story, words: &str, bound: std::time::Duration) {
    let donor = story.donor.as_mut().expect("the donor is on");
    let at = donor.console().expect(words, bound).unwrap();
    done(&format!("   '{words}'"), at);
}

pub(super) fn is_verified(story: &mut Story) {
    donor_says(story, "sheath: verifying", BOOT_BOUND);
    donor_says(story, "the disk is copied and verified", BOOT_BOUND);
    // The command that ordered it has outlived the agent, too.
    let (well, told) = story.ended("capture", secs(180));
    assert!(well && told.contains("image 'db' is imported, not published"), "{told}");
    assert_eq!(story.image(&format!("{CAPTURED}@1")).expect("it is listed")["published"], false);
    is_the_donors_disk(story);
    // It leaves time to read what it says.
    let mut donor = story.donor.take().expect("the donor is on");
    until("the donor to switch itself off", secs(120), || (!donor.is_on()).then_some(())).unwrap();
    story.stage.appliance.unplug(4).unwrap();
    leaves_nothing(story);
}

/// The target that the donor was lent is gone, and nothing of the import's is left.
fn leaves_nothing(story: &mut Story) {
    let left = "ls /sys/kernel/config/target/iscsi | grep ':b-02' || true; ls -d /var/lib/sheath/import-* 2> /dev/null || true";
    assert_eq!(story.run(left), "");
}

/// The same partitions with the same GUIDs, and a file system that is whole, as user space sees both: a copy of the donor's disk is at hand.
fn is_the_donors_disk(story: &mut Story) {
    let begin = Instant::now();
    let export = format!("sheath image export {CAPTURED} /var/tmp/captured.raw --force > /dev/null");
    story.stage.appliance.run_within(&export, secs(300)).unwrap().ok().unwrap();
    done("   exported", begin.elapsed());
    let dump =
        |file: &str| format!("sfdisk --dump {file} | grep -v '^device\\|^last-lba' | sed 's/^[^ ]*raw//'");
    let copy = story.run(&dump("/var/tmp/captured.raw"));
    // Its first MiB has the table.
    story.run(
        "qemu-img dd -f qcow2 -O raw if=/payload/donor.qcow2 of=/var/tmp/donor.raw bs=1M count=1 && \
        truncate -r /var/tmp/captured.raw /var/tmp/donor.raw",
    );
    assert_eq!(copy, story.run(&dump("/var/tmp/donor.raw")));
    let check = "start=$(sfdisk --json /var/tmp/captured.raw | jq '[.partitiontable.partitions[].start] | max') && \
        e2fsck -fn \"/var/tmp/captured.raw?offset=$((start * 512))\" > /dev/null && echo whole; rm -f /var/tmp/*.raw";
    assert_eq!(story.run(check).trim(), "whole");
}

/// From "that server there is right" to "every blade can have it" in one command, which takes its time: others go on meanwhile.
pub(super) fn begins_to_be_offered(story: &mut Story) {
    let refused = story.stage.appliance.run(&format!("sheath image publish {CAPTURED}@1")).unwrap();
    assert_eq!(refused.code, 7, "published without a proof: {refused:?}");
    story.as_written_beside("offer", OFFER);
}

pub(super) fn is_offered(story: &mut Story) {
    let Some(told) = story.proved("offer", OFFER, CAPTURED) else { return };
    assert!(told.contains("image 'db@2' is offered to blades") && told.contains("boots by BIOS"), "{told}");
    removes_the_donors_identity(story);
    let log = story.as_written("sheath image log db").ok().unwrap();
    assert!(log.contains("login:") && log.contains("Debian GNU/Linux 12"), "{log}");
    let offered = |image: &Value| image["published"] == true && image["default"] == true;
    until("the image to be offered", secs(30), || story.image(SEALED).filter(offered)).unwrap();
}

/// All that running has left on the donor's disk, and all that a blade needs and it had not: the manifest says so.
fn removes_the_donors_identity(story: &mut Story) {
    let shown = story.stage.sheath(&format!("image show {SEALED}")).unwrap()["manifest"].to_string();
    for change in [
        "/etc/machine-id emptied",
        "SSH host keys removed",
        "DHCP leases removed",
        "random seeds removed",
        "interface names by MAC address removed",
        "sheath-initiator-name.service",
        "sheath-root-patience.service",
        "sheath-boot-nic.service",
        "sheath-first-boot.service",
        "BOOTX64.EFI copied",
        "ISCSI_AUTO=true",
        "initramfs made anew",
    ] {
        assert!(shown.contains(change), "'{change}' was left: {shown}");
    }
}

/// Nobody is asked: policy gives these slots that image.
pub(super) fn makes_two_blades(story: &mut Story) {
    for (slot, _) in TWINS {
        let policy = format!("\\n[policy.slot.{slot}]\\npolicy = {{ auto = \"{CAPTURED}\" }}\\n");
        story.run(&format!("printf '{policy}' >> /etc/sheath/sheath.toml"));
    }
    story.run("sheath reload");
    for (slot, firmware) in TWINS {
        story.stage.appliance.plug(slot).unwrap();
        story.twins.push(Blade::power_on(&story.stage.lab, Spec::new(slot, firmware)).unwrap());
    }
    let begin = Instant::now();
    let mut identities: Vec<Identity> = vec![];
    for (twin, (slot, firmware)) in story.twins.iter_mut().zip(TWINS) {
        twin.console().expect("restarting from its own disk", MENU_BOUND).unwrap();
        twin.log_in(BOOT_BOUND).unwrap();
        done(&format!("   login prompt of slot {slot} by {firmware:?}"), begin.elapsed());
        assert!(twin.shell("cat /etc/debian_version", secs(60)).unwrap().starts_with("12"));
        identities.push(identity(twin));
    }
    for (slot, _) in TWINS {
        story.stage.await_phase(slot, "running", secs(60)).unwrap();
        assert_eq!(story.stage.blade(slot).unwrap()["image"], SEALED);
    }
    differ(&identities[0], &identities[1]);
    for twin in &identities {
        is_not_the_donor(twin);
        assert!(twin["name"].starts_with("b-"), "{twin:?}");
    }
}

/// What the recipe of the donor's disk has given it.
fn is_not_the_donor(twin: &Identity) {
    assert_ne!(twin["machine-id"], "d0d0d0d0d0d04d0d8d0dd0d0d0d0d0d0");
    assert_ne!(twin["name"], "donor");
    assert!(!twin["initiator"].contains("d0d0d0d0d0d0"), "{twin:?}");
}
