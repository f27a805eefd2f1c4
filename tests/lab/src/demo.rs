//! The demo: a diskless machine gets an operating system that it did not have a minute before. With `INTERACTIVE=1`, the
//! person answers the prompt at the blade's console.

use std::time::Duration;

use serde_json::Value;

use crate::blade::{Blade, Firmware, Spec};
use crate::error::Result;
use crate::phase::{say, timed};
use crate::stage::{BOOT_BOUND, MENU_BOUND, Stage, choose_image};
use crate::terminal;
use crate::wait::secs;

/// The moments of a boot, in order, as `sheath blades --json` names them.
const MOMENTS: [&str; 7] = ["seen", "dhcp", "script", "choice", "target-ready", "ipxe-login", "os-login"];

/// Runs it.
///
/// # Errors
/// What did not work; the run's logs then stay and are named.
pub fn run() -> Result<()> {
    let interactive = std::env::var("INTERACTIVE").is_ok_and(|value| !value.is_empty() && value != "0");
    let mut stage = Stage::ready("demo")?;
    terminal::announce(stage.lab.cache(), stage.appliance.shell())?;
    say("the appliance is ready; 'make demo-shell' in another terminal opens a shell on it");
    let mut blade = insert(&mut stage)?;
    if interactive {
        hand_over(&mut blade)?;
    } else {
        timed("blade: firmware, PXE, prompt, answered", || choose_image(&mut blade))?;
        timed("blade: installed, told to restart", || blade.console().expect("restarting", MENU_BOUND))?;
        timed("blade: restarted, login prompt on its own disk", || blade.log_in(BOOT_BOUND))?;
        show_inside(&mut blade)?;
    }
    stage
        .await_phase(1, "running", secs(60))
        .or_else(|error| if interactive { Ok(()) } else { Err(error) })?;
    show_times(&stage.blade(1)?);
    say(&format!("\n{}", stage.appliance.ok("sheath blades")?));
    blade.power_off();
    Ok(())
}

/// Slides a diskless machine into slot 1.
fn insert(stage: &mut Stage) -> Result<Blade> {
    say("a machine without a disk is inserted in slot 1 and powered on");
    stage.appliance.plug(1)?;
    Blade::power_on(&stage.lab, Spec::new(1, Firmware::Bios))
}

/// Gives the blade's console to the person until they leave it.
fn hand_over(blade: &mut Blade) -> Result<()> {
    say("the blade's console is yours now: answer its prompt; Ctrl-] ends the demo");
    let keyboard = blade.console().keyboard()?;
    blade.console().echo(true);
    let raw = terminal::Raw::enter()?;
    terminal::type_on(&keyboard)?;
    drop(raw);
    blade.console().echo(false);
    Ok(())
}

fn show_inside(blade: &mut Blade) -> Result<()> {
    let inside = blade.shell("hostname; findmnt -no SOURCE,FSTYPE,SIZE /; ls /sys/block", secs(60))?;
    say(&format!("inside the blade: {}", inside.split_whitespace().collect::<Vec<_>>().join(" ")));
    Ok(())
}

fn show_times(blade: &Value) {
    let at = |moment: &str| blade["times"][moment].as_u64().map(Duration::from_millis);
    let Some(begin) = at("seen") else { return };
    for moment in MOMENTS {
        match at(moment) {
            Some(at) => say(&format!("{moment:>14}: {:7.1} s", (at.saturating_sub(begin)).as_secs_f64())),
            None => say(&format!("{moment:>14}:       –")),
        }
    }
}
