//! A blade that was changed by hand becomes an image, sealed, and another blade's disk is made from it: what was changed is
//! there, and what makes the first blade itself is not.

use std::time::Instant;

use sheath_lab::{Blade, phase::done, secs, until};

use super::{
    SHUTDOWN_BOUND, Story,
    identity::{differ, identity},
};

/// The image that the blade becomes, sealed: what another blade is offered.
const SEALED: &str = "web@2";

/// An administrator's work on a blade: something is changed, the blade is shut down.
pub(super) fn is_changed_by_hand(story: &mut Story) {
    let refused = story.stage.appliance.run("sheath image promote 1 web").unwrap();
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
    let promoted = until("the blade to be known as off", secs(120), || {
        Some(story.as_written("sheath image promote 1 web")).filter(|output| output.code == 0)
    });
    let told = promoted.unwrap().stdout;
    assert!(told.contains("'web@1'") && told.contains("which is off"), "{told}");
    let shown = story.run("sheath image show web");
    assert!(shown.contains("made from 'debian13@1', while it was off"), "{shown}");
}

pub(super) fn is_sealed(story: &mut Story) {
    let sealed = story.as_written("sheath image seal web").ok().unwrap();
    assert!(sealed.contains(SEALED), "{sealed}");
    for change in ["/etc/machine-id emptied", "SSH host keys removed", "cloud-init's memory"] {
        assert!(sealed.contains(change), "{change}: {sealed}");
    }
    // Ends with status 1 where anything is to be mended.
    let checkup = story.as_written("sheath image check web").ok().unwrap();
    assert!(checkup.contains("BIOS") && checkup.contains("UEFI"), "{checkup}");
    // Its proof would be another whole Debian's in a guest of a guest; the blade that is made from it is one.
    story.as_written("sheath image publish web --unproved").ok().unwrap();
}

/// The other blade's disk came from this blade's own: whatever could be the same would be.
pub(super) fn makes_another_blade(story: &mut Story, blade: &mut Blade) {
    assert_eq!(story.stage.blade(4).unwrap()["image"], SEALED);
    let second = identity(blade);
    assert_eq!(second["mark"], story.first["mark"], "what was changed by hand is not in the image");
    assert!(second["mark"].len() > 10, "{second:?}");
    differ(&second, &story.first);
}
