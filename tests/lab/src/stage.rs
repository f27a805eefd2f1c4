//! The stage of the chassis tests, the demo and the benchmark: the package installed on a booted appliance as a person
//! would, set up, with a golden image published. Uses the product only by its command line.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::appliance::{Appliance, POOL_DISK, SLOTS};
use crate::blade::Blade;
use crate::error::{Attempt, Error, Result};
use crate::images;
use crate::payload::Payload;
use crate::phase::timed;
use crate::run::Lab;
use crate::wait::{secs, until};

/// The image's name on every stage.
pub const IMAGE: &str = "debian13";
/// The appliance's address on the chassis.
pub const ADDRESS: &str = "10.77.0.1/24";
/// Firmware, PXE and iPXE until the menu has taken 15 to 40 s emulated; two other guests may share the cores.
pub const MENU_BOUND: Duration = secs(240);
/// Power-on to login has taken 110 s emulated; a neighbour on the same two cores may double and double that.
pub const BOOT_BOUND: Duration = secs(600);
/// An import writes some hundred MiB through two emulations.
const IMPORT_BOUND: Duration = secs(600);

/// A stage.
#[derive(Debug)]
pub struct Stage {
    /// The appliance: powered off before its run ends.
    pub appliance: Appliance,
    /// The run.
    pub lab: Lab,
}

impl Stage {
    /// Installs the package that `SHEATH_DEB` names, sets the appliance up and imports the golden image.
    ///
    /// # Errors
    /// What did not work, with the product's own words.
    pub fn ready(name: &str) -> Result<Self> {
        Self::ready_with(Lab::new(name)?, Payload::new())
    }

    /// The same with the given run, and with more files on the payload.
    ///
    /// # Errors
    /// As [`Stage::ready`].
    pub fn ready_with(lab: Lab, more: Payload) -> Result<Self> {
        let mut stage = Self::with_golden(lab, more)?;
        timed("appliance: package installed", || stage.install())?;
        timed("appliance: set up", || stage.set_up(""))?;
        timed("appliance: image imported", || stage.import())?;
        Ok(stage)
    }

    /// Starts the appliance of the given run with the package, the golden image and a copy of the donor's disk at hand, and
    /// nothing done with them.
    ///
    /// # Errors
    /// Where there is no package, or the guest does not come to life.
    pub fn bare(lab: Lab) -> Result<Self> {
        let payload = Payload::new().file("donor.qcow2", images::donor(&lab)?);
        Self::with_golden(lab, payload)
    }

    fn with_golden(lab: Lab, payload: Payload) -> Result<Self> {
        let payload = payload.file("sheath.deb", package()?).file("golden.qcow2", images::golden(&lab)?);
        Self::with(lab, &payload)
    }

    /// Starts the appliance of the given run with the package at hand, and no image.
    ///
    /// # Errors
    /// As [`Stage::bare`].
    pub fn empty(lab: Lab) -> Result<Self> {
        let payload = Payload::new().file("sheath.deb", package()?);
        Self::with(lab, &payload)
    }

    fn with(lab: Lab, payload: &Payload) -> Result<Self> {
        let appliance = timed("appliance: restored", || Appliance::booted(&lab, payload))?;
        Ok(Self { appliance, lab })
    }

    /// Installs the package with apt, as a person would.
    ///
    /// # Errors
    /// apt's words.
    pub fn install(&mut self) -> Result<()> {
        self.appliance.ok("DEBIAN_FRONTEND=noninteractive apt-get install -y /payload/sheath.deb").map(|_| ())
    }

    /// Runs `sheath setup`; `more` is for further words of the command line.
    ///
    /// # Errors
    /// The command's words.
    pub fn set_up(&mut self, more: &str) -> Result<()> {
        let slots: Vec<String> = (1..=SLOTS).map(|n| format!("slot{n}")).collect();
        let slots = slots.join(",");
        let words =
            format!("sheath setup --disk {POOL_DISK} --slots {slots} --address {ADDRESS} --yes {more}");
        self.appliance.run_within(&words, secs(240))?.ok().map(|_| ())
    }

    /// Imports the golden image and publishes it, unproved: the proof has a test of its own.
    ///
    /// # Errors
    /// The command's words.
    pub fn import(&mut self) -> Result<()> {
        let words = format!("sheath image import {IMAGE} /payload/golden.qcow2 --publish --unproved");
        self.appliance.run_within(&words, IMPORT_BOUND)?.ok().map(|_| ())
    }

    /// Runs `sheath WORDS --json` and returns what it says.
    ///
    /// # Errors
    /// The command's words, or JSON that is none.
    pub fn sheath(&mut self, words: &str) -> Result<Value> {
        let text = self.appliance.ok(&format!("sheath {words} --json"))?;
        serde_json::from_str(&text).attempt(|| format!("read what 'sheath {words} --json' says"))
    }

    /// Returns the blade in this slot, as `sheath blades` shows it.
    ///
    /// # Errors
    /// Where there is none.
    pub fn blade(&mut self, slot: u8) -> Result<Value> {
        let (blades, slot_text) = (self.sheath("blades")?, slot.to_string());
        let found = blades.as_array().into_iter().flatten().find(|blade| blade["slot"] == slot_text.as_str());
        found.cloned().ok_or_else(|| Error::new(format!("find the blade in slot {slot}"), blades.to_string()))
    }

    /// Waits until the blade in this slot is in this phase.
    ///
    /// # Errors
    /// When it is not, within `bound`: what it is instead.
    pub fn await_phase(&mut self, slot: u8, phase: &str, bound: Duration) -> Result<()> {
        let mut last = Value::Null;
        let waited = until(&format!("phase '{phase}' in slot {slot}"), bound, || {
            last = self.blade(slot).ok()?;
            (last["phase"] == phase).then_some(())
        });
        waited.map_err(|error| Error::new(error.to_string(), last.to_string()))
    }
}

/// Returns the package that `SHEATH_DEB` names.
fn package() -> Result<PathBuf> {
    let deb = std::env::var_os("SHEATH_DEB").map(PathBuf::from).filter(|path| path.exists());
    deb.ok_or_else(|| Error::new("find the package", "run it through make, or set SHEATH_DEB"))
}

/// Chooses the image from the menu on the blade's console: it stands right above "wait", which is preselected.
///
/// # Errors
/// When no menu comes.
pub fn choose_image(blade: &mut Blade) -> Result<Duration> {
    let at = blade.console().expect("Wait for the administrator", MENU_BOUND)?;
    blade.console().expect("Go on with the firmware", secs(20))?;
    blade.console().send("\x1b[A\r")?;
    Ok(at)
}
