//! What the agent shows of itself: plain data for the control socket, the command line and the tests.
//!
//! Pure: views are made from facts in `daemon`, printed in `cli`. Times are milliseconds since the Unix epoch.

mod image;
mod session;
mod work;

use std::{collections::BTreeMap, net::Ipv4Addr};

pub use image::{CloneView, ImageDetail, ImageView, ImportProgress, Pace};
use serde::{Deserialize, Serialize};
pub use session::{RefusedLogin, SessionView, Sessions};
pub use work::{Phase, ProofLog, Task, WorkProgress, WorkResult, WorkView};

use crate::{
    model::{BladeId, Bytes, Hardware, ImageId, ImageName, Mac, PoolUsage, PortName, Slot, VolumeId},
    observed::{Counters, Donor, Session, TargetSummary},
    plan::Step,
};

/// Milliseconds since the Unix epoch.
pub type Millis = u64;

/// Where a blade is on its way: computed from facts, never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BladePhase {
    /// Known, not there: its port has no carrier.
    Absent,
    /// Its frames are seen; it has asked for nothing.
    Seen,
    /// Its menu is on the console.
    Prompted,
    /// Waits for the administrator.
    Waiting,
    /// Its disk is being made.
    Installing,
    /// Its disk and target are ready; nobody has logged in.
    Ready,
    /// iPXE is logged in.
    Booting,
    /// Its operating system is logged in.
    Running,
    /// Refused: it is not where its disk belongs.
    Refused,
    /// It has no session, and what it needs is not there, is in use, is full or does not answer: tried again until it is.
    Pending,
    /// It has a session, and something of its target could not be made as it should be.
    Degraded,
    /// A step failed for another reason; tried again too.
    Failed,
    /// Left to its firmware.
    Ignored,
}

/// A moment of a boot, in the order in which they happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Moment {
    /// First frame on the slot's port.
    Seen,
    /// DHCP lease given.
    Dhcp,
    /// First script fetched.
    Script,
    /// Image chosen.
    Choice,
    /// Target enabled.
    TargetReady,
    /// iPXE logged in.
    IpxeLogin,
    /// The operating system logged in.
    OsLogin,
}

/// One blade, as `sheath blades` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BladeView {
    /// The slot that it is in, or bound to while it is absent.
    pub slot: Slot,
    /// Its id.
    pub blade: BladeId,
    /// The address that it boots from.
    pub mac: Mac,
    /// Where it is on its way.
    pub phase: BladePhase,
    /// The image that its disk came from.
    pub image: Option<ImageId>,
    /// Its disk.
    pub volume: Option<VolumeId>,
    /// Its disk's size.
    pub size: Option<Bytes>,
    /// Share of its disk that is mapped in the pool, in percent.
    pub used_percent: Option<f32>,
    /// Its address on the chassis network.
    pub ip: Option<Ipv4Addr>,
    /// Its host name.
    pub hostname: String,
    /// Its target's name.
    pub target: Option<String>,
    /// Who is logged in to its target.
    pub session: Option<Session>,
    /// What is wrong, for people: the step and the cause.
    pub problem: Option<String>,
    /// What waits until it is off, or for `sheath blade apply`: it would end its session.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<String>,
    /// When each moment of the current boot was.
    pub times: BTreeMap<Moment, Millis>,
    /// What it says of itself.
    pub hardware: Hardware,
    /// What somebody else changed in its export and was left so (`[target] drift = "report"`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<String>,
    /// What was counted for its disk and target, read at the moment of the question; `None` where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<Counters>,
    /// The last login of its, or to its target, that was refused since the agent started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedLogin>,
}

/// One slot of the chassis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotView {
    /// Its number.
    pub slot: Slot,
    /// Its port.
    pub port: PortName,
    /// Whether the port exists and has a carrier; `None` where it does not exist.
    pub carrier: Option<bool>,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What it is about: `pool`, `slot 3`, `configuration`.
    pub about: String,
    /// What is wrong, and what to do.
    pub text: String,
    /// Since when.
    pub since: Millis,
}

/// `sheath status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// When it started.
    pub started: Millis,
    /// When the configuration in force was loaded.
    pub config_loaded: Millis,
    /// The faults of a newer configuration that was refused; empty when the file in place is in force.
    pub config_faults: Vec<String>,
    /// The slots.
    pub slots: Vec<SlotView>,
    /// How many blades are in each phase.
    pub blades: BTreeMap<BladePhase, usize>,
    /// How full the pool is; `None` when LVM could not be asked.
    pub pool: Option<PoolUsage>,
    /// What is not as it should be.
    pub problems: Vec<Problem>,
}

/// One line of `sheath events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// Counts up from the agent's start.
    pub seq: u64,
    /// When.
    pub at: Millis,
    /// What sort of event: a stable word for scripts, such as `seen`, `installed`, `security`, `import`.
    pub kind: String,
    /// The slot that it is about.
    pub slot: Option<Slot>,
    /// The blade that it is about.
    pub blade: Option<BladeId>,
    /// The image that it is about.
    pub image: Option<ImageName>,
    /// For people.
    pub text: String,
}

/// What would be done for one subject: a line of `sheath plan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanView {
    /// `chassis`, a blade, an image's spares.
    pub subject: String,
    /// The steps that are not true yet, in order.
    pub steps: Vec<Step>,
    /// The steps that would end a session: they wait until the blade is off, or for `sheath blade apply`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Step>,
    /// What keeps the plan from being made: a missing volume, a full pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Everything that `sheath targets` shows.
pub type Targets = Vec<TargetSummary>;

/// Everything that `sheath donors` shows.
pub type Donors = Vec<Donor>;
