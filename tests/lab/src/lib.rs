//! The lab: guests for the tests, driven from Rust, with no hardware, no KVM and no root.
//!
//! ```text
//!   this process ── QMP, guest agent, console ──► Appliance   Debian, systemd, LIO, LVM; slot1 … slot8
//!        │                                            ║ ║      a cable is a unix socket between two QEMUs
//!        └────────── QMP, console ─────────────► Blade Blade   no disk; BIOS or UEFI; starts from the network
//! ```
//!
//! A test's shape:
//!
//! ```no_run
//! use sheath_lab::{Appliance, Blade, Firmware, Lab, Payload, Spec, secs};
//! # fn main() -> sheath_lab::Result<()> {
//! let lab = Lab::new("chassis")?;
//! let golden = sheath_lab::images::golden(&lab)?;
//! let payload = Payload::new().file("golden.qcow2", golden).file("sheath.deb", "target/sheath.deb");
//! let mut appliance = Appliance::booted(&lab, &payload)?;
//! appliance.ok("apt-get install -y /payload/sheath.deb")?;
//! appliance.plug(1)?;
//! let mut blade = Blade::power_on(&lab, Spec::new(1, Firmware::Bios))?;
//! blade.log_in(secs(300))?;
//! # Ok(()) }
//! ```
//!
//! Words: a **run** is one use of the lab, with a folder of its own ([`Lab`]); an **artifact** is something made once and
//! kept in the [`Cache`]; the **payload** is the disk with the files that a test hands to its appliance; a **cable** joins
//! a slot's port to a blade.
//!
//! The lab does not link the product: it stands where a person with a chassis stands.

mod accel;
pub mod again;
mod agent;
mod ansi;
mod appliance;
pub mod bench;
mod blade;
mod cache;
mod console;
pub mod demo;
mod error;
pub mod images;
mod machine;
mod payload;
pub mod phase;
mod qmp;
mod release;
mod run;
pub mod selftest;
pub mod stage;
pub mod terminal;
mod tool;
mod wait;
mod wire;

pub use accel::Accel;
pub use agent::Output;
pub use appliance::{Appliance, MAX_SLOT, POOL_DISK, SLOTS, port_mac};
pub use blade::{Blade, Firmware, Spec, blade_mac};
pub use cache::Cache;
pub use console::Console;
pub use error::{Error, Result};
pub use payload::Payload;
pub use qmp::Qmp;
pub use release::Release;
pub use run::Lab;
pub use stage::Stage;
pub use wait::{secs, until};
