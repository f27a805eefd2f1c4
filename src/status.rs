//! What the agent shows of itself: plain data for the control socket, the command line and the tests.
//!
//! Pure: views are made from facts in `daemon`, printed in `cli`. Times are milliseconds since the Unix epoch.

use std::{collections::BTreeMap, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::{
    model::{
        BladeId, Bytes, Checkup, Firmware, Hardware, ImageId, ImageName, Mac, Manifest, PoolUsage, PortName,
        Proof, Sealing, Slot, VolumeId,
    },
    observed::{Counters, Donor, Refusal, Session, Space, TargetSummary},
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

/// One image, as `sheath images` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageView {
    /// Which version of which family.
    pub image: ImageId,
    /// Whether it is what its family's name stands for.
    pub default: bool,
    /// Whether the operator has made it so.
    pub pinned: bool,
    /// Whether it may be chosen.
    pub published: bool,
    /// Whether it is still being imported.
    pub importing: bool,
    /// Whether its disk has an MBR: it is neither proved nor published before it is sealed.
    #[serde(default)]
    pub mbr: bool,
    /// Its size.
    pub size: Bytes,
    /// How much of the pool it takes; `None` where that was not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<Space>,
    /// How many blades' disks came from it.
    pub disks: usize,
    /// How many clones are ready ahead.
    pub spares: usize,
    /// How far its import is, while it is imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<ImportProgress>,
}

/// Everything about one image, as `sheath image show` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageDetail {
    /// The image itself.
    #[serde(flatten)]
    pub view: ImageView,
    /// Where it came from and what was done with it; `None` where nobody knows any more.
    pub manifest: Option<Manifest>,
    /// Whose disks came from it, by slot.
    pub clones: Vec<CloneView>,
    /// Why it is not known how much of the pool it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space_unknown: Option<String>,
}

/// A blade's disk, as seen from the image that it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneView {
    /// Whose disk it is.
    pub blade: BladeId,
    /// The slot that it belongs to.
    pub slot: Slot,
    /// The disk.
    pub volume: VolumeId,
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

/// How far an import is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum ImportProgress {
    /// Fetching from a URL.
    Fetching {
        /// Bytes so far.
        done: Bytes,
        /// Bytes in all, where the server says.
        total: Option<Bytes>,
        /// How fast.
        #[serde(flatten)]
        pace: Pace,
    },
    /// Writing to the image's volume. At its end the agent asks LVM: it is done when it is listed.
    Writing {
        /// In hundredths of a percent.
        permyriad: u16,
        /// How fast: what really goes to the volume, zeros left out.
        #[serde(flatten)]
        pace: Pace,
    },
    /// Done.
    Done,
    /// Failed: what and why.
    Failed {
        /// The error's chain.
        error: String,
        /// Its kind.
        kind: crate::error::Kind,
    },
    /// All is ready for a donor that starts over the network.
    Awaiting {
        /// Where it is.
        slot: Slot,
    },
    /// Comparing the source with its checksum, or a donor's copy with its disk.
    Checking {
        /// In hundredths of a percent.
        permyriad: u16,
        /// How fast.
        #[serde(flatten)]
        pace: Pace,
    },
}

impl ImportProgress {
    /// Returns what is told of an import that has just been accepted.
    pub fn begin() -> Self {
        Self::Writing { permyriad: 0, pace: Pace::default() }
    }

    /// Returns whether it goes on.
    pub fn is_running(&self) -> bool {
        match self {
            Self::Fetching { .. } | Self::Awaiting { .. } | Self::Checking { .. } | Self::Writing { .. } => {
                true
            }
            Self::Done | Self::Failed { .. } => false,
        }
    }
}

/// How fast something goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Bytes a second, over the last seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Bytes>,
    /// Seconds that are left at this pace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
}

/// Everything that `sheath targets` shows.
pub type Targets = Vec<TargetSummary>;

/// Everything that `sheath donors` shows.
pub type Donors = Vec<Donor>;

/// One session with a target of this machine: a line of `sheath sessions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    /// The blade's slot; `None` where the target is no blade's.
    pub slot: Option<Slot>,
    /// The blade.
    pub blade: Option<BladeId>,
    /// The blade's disk.
    pub volume: Option<VolumeId>,
    /// The target's name, as text: a foreign one may be anything.
    pub target: String,
    /// Whether the target carries our mark.
    pub ours: bool,
    /// Who is logged in: of several sessions of one initiator LIO shows the latest.
    #[serde(flatten)]
    pub session: Session,
    /// When the agent first saw it: at the login, give or take a second, or at the agent's own start.
    pub since: Option<Millis>,
    /// How many more sessions the target has: one while a blade goes from iPXE to its operating system.
    pub older: u32,
    /// What was counted for the blade's disk and target.
    pub counters: Option<Counters>,
}

/// `sheath sessions`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// All sessions: blades' first, by slot.
    pub sessions: Vec<SessionView>,
    /// Logins that were refused since the agent started: each blade's last, then strangers'.
    #[serde(default)]
    pub refused: Vec<RefusedLogin>,
}

/// A login that was refused, once or again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedLogin {
    /// The slot of the blade that it was, or whose target it was about; `None` for a stranger elsewhere.
    pub slot: Option<Slot>,
    /// The blade.
    pub blade: Option<BladeId>,
    /// Whose and why, as far as it is known.
    #[serde(flatten)]
    pub refusal: Refusal,
    /// When it was refused first.
    pub first: Millis,
    /// When it was refused last, to the minute.
    pub last: Millis,
    /// How often.
    pub count: u64,
}

/// What can be done with an image in the workshop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "kebab-case")]
pub enum Task {
    /// Look what is missing for it to boot over iSCSI.
    Check,
    /// Make a version of it that any blade can have.
    Seal {
        /// Only say what would be changed.
        #[serde(default)]
        dry_run: bool,
    },
    /// Boot a throw-away disk of it over the network, to its login prompt.
    Prove {
        /// What it is started by.
        firmware: Firmware,
    },
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Check => f.write_str("check"),
            Self::Seal { dry_run: false } => f.write_str("seal"),
            Self::Seal { dry_run: true } => f.write_str("preview of a seal"),
            Self::Prove { firmware } => write!(f, "proof by {firmware}"),
        }
    }
}

/// How far the work on an image is, or how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkView {
    /// What is done.
    pub task: Task,
    /// When it began.
    pub begun: Millis,
    /// Its phases so far; the last one is not over while it runs.
    pub phases: Vec<Phase>,
    /// How far it is.
    pub progress: WorkProgress,
}

/// One phase of a work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// For people: `starting the workshop`.
    pub name: String,
    /// How long it took, or has taken so far.
    pub millis: u64,
}

/// What stood on the serial console of the last proof of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofLog {
    /// The image.
    pub image: ImageId,
    /// What it was started by.
    pub firmware: Firmware,
    /// When the proof ended.
    pub at: Millis,
    /// The console's text as the guest wrote it, terminal commands and all, at most a megabyte of it.
    pub text: String,
}

/// How far a work is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum WorkProgress {
    /// It goes on.
    Running,
    /// It is done.
    Done {
        /// What came of it.
        result: Box<WorkResult>,
    },
    /// It failed; the image is as it was.
    Failed {
        /// The error's chain.
        error: String,
        /// Its kind.
        kind: crate::error::Kind,
    },
}

/// What came of a work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkResult {
    /// Of [`Task::Check`].
    Checkup(Checkup),
    /// Of [`Task::Seal`].
    Sealing(Sealing),
    /// Of [`Task::Prove`].
    Proof(Proof),
}
