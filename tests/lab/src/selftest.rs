//! Proof that the lab works, without the product: the appliance is set up by a script, and a BIOS and a UEFI blade each
//! go from power-on to a login prompt on an iSCSI root. Says how long every part took.

use std::time::Duration;

use crate::appliance::Appliance;
use crate::blade::{Blade, Firmware, Spec};
use crate::error::{Error, Result};
use crate::images;
use crate::payload::Payload;
use crate::phase::{say, timed};
use crate::run::Lab;
use crate::wait::secs;

const SCRIPT: &str = include_str!("../recipes/selftest.sh");
/// Power-on to login has taken 110 s emulated; a neighbour on the same two cores may double and double that.
const BOOT_BOUND: Duration = secs(600);

/// Runs it.
///
/// # Errors
/// When any part does not work; the run's logs are then named by the caller's `SHEATH_LAB_KEEP`.
pub fn run() -> Result<()> {
    let lab = Lab::new("selftest")?;
    let payload = Payload::new().file("golden.qcow2", images::golden(&lab)?);
    let mut appliance =
        timed("appliance: restored to a working agent", || Appliance::booted(&lab, &payload))?;
    appliance.push("/run/selftest.sh", SCRIPT.as_bytes())?;
    timed("appliance: targets, DHCP, HTTP", || appliance.ok("sh -e /run/selftest.sh"))?;
    for (slot, firmware) in [(1, Firmware::Bios), (2, Firmware::Uefi)] {
        appliance.plug(slot)?;
        let blade = Blade::power_on(&lab, Spec::new(slot, firmware))?;
        boot(&mut appliance, blade)?;
        appliance.unplug(slot)?;
    }
    Ok(())
}

/// Sees one blade from its firmware to a shell.
fn boot(appliance: &mut Appliance, mut blade: Blade) -> Result<()> {
    let name = format!("{:?}", blade.spec().firmware);
    let mut last = Duration::ZERO;
    let mut tell = |what: &str, at: Duration| {
        say(&format!("{name}: {what}: at {:.1} s (+{:.1})", at.as_secs_f64(), (at - last).as_secs_f64()));
        last = at;
    };
    tell("iPXE script runs", blade.console().expect("SCRIPT-RUNS", BOOT_BOUND)?);
    tell("SAN disk registered", blade.console().expect("Booting from SAN", BOOT_BOUND)?);
    tell("GRUB loads the kernel", blade.console().expect("Loading Linux", BOOT_BOUND)?);
    tell("kernel starts", blade.console().expect("Loading initial ramdisk", BOOT_BOUND)?);
    tell("systemd starts", blade.console().expect("Welcome to", BOOT_BOUND)?);
    tell("login prompt", blade.log_in(BOOT_BOUND)?);
    let root = blade.shell("findmnt -no SOURCE,FSTYPE,SIZE /; hostname", secs(60))?;
    say(&format!("{name}: inside: {}", root.replace('\n', " ")));
    let name = blade.shell("cat /etc/iscsi/initiatorname.iscsi", secs(60))?;
    if !name.contains("org.example:init-") {
        return Err(Error::new("see the initiator name from the iBFT", name));
    }
    say(&appliance
        .ok("grep -h 'ISID\\|LOGGED' /sys/kernel/config/target/iscsi/iqn*/tpgt_1/acls/*/info | sort -u")?);
    blade.power_off();
    Ok(())
}
