//! Sessions as they are shown, and logins that were refused.

use serde::{Deserialize, Serialize};

use super::Millis;
use crate::{
    model::{BladeId, Slot, VolumeId},
    observed::{Counters, Refusal, Session},
};

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
