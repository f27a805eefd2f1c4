//! Facts about blades: who they are, whose disk is whose, what was granted.
//!
//! ```text
//!            seen                 choice, policy, operator          disk ready
//!  (nobody) ─────► known, no disk ────────────────────────► granted ──────────► has a disk
//!                        ▲                                     │  the grant is consumed │
//!                        │            disk released            └── failed: kept, tried  │
//!                        └──────────────────────────────────────────────────────────────┘
//! ```
//!
//! The right to install is a [`Grant`]: one-shot, bound to one blade and one volume, consumed by the volume's being
//! ready. No grant, no installation: a reboot or a lost state file cannot reinstall anybody. Phases are computed from
//! these facts ([`Blade::phase`]) and never stored. Saving is `saved`'s; what the kernel sees is `presence`'s.

mod blades;
mod presence;
mod saved;

use std::{collections::BTreeMap, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

pub use blades::Blades;
pub use presence::{Presence, Stranger};
pub use saved::Saved;

use crate::{
    error::Kind,
    model::{BladeId, ForeignExport, Hardware, ImageId, Role, Slot, Volume, VolumeId, VolumeState},
    observed::{Session, SessionKind, Volumes},
    status::{BladePhase, Millis, Moment},
};

/// Who gave a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GrantedBy {
    /// Somebody at the blade's console, or its menu's time-out.
    Console,
    /// The policy of its slot.
    Policy,
    /// The operator.
    Operator,
}

/// The one-shot right to install.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The image.
    pub image: ImageId,
    /// The volume that the disk will be: fresh, or a spare's.
    pub volume: VolumeId,
    /// Who gave it.
    pub by: GrantedBy,
    /// When.
    pub at: Millis,
    /// The foreign target whose volume the disk will be, where it is not made from the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<ForeignExport>,
}

/// A disk that is a blade's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The volume.
    pub volume: VolumeId,
    /// The image that it came from.
    pub image: ImageId,
    /// The slot that the disk belongs to: its blade is served there and nowhere else.
    pub slot: Slot,
}

/// A menu on a blade's console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The token that a choice must bring back.
    pub token: String,
}

/// What a blade decided to do instead of installing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// It waits for the administrator.
    Waiting,
    /// It was left to its firmware.
    Ignored,
}

/// What failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What sort of failure it is.
    pub kind: Kind,
    /// The step, and why.
    pub text: String,
}

/// Everything known about one blade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blade {
    /// The slot that it was last seen in.
    pub slot: Slot,
    /// Whether its port has a carrier and its address was learnt there since.
    pub present: bool,
    /// Its address on the chassis network.
    pub ip: Option<Ipv4Addr>,
    /// Its disk.
    pub disk: Option<Disk>,
    /// The right to install.
    pub grant: Option<Grant>,
    /// Volumes that were its disk, to be taken away: the operator's consent.
    pub releases: Vec<VolumeId>,
    /// The operator's consent to end its session for what is held back; until the next plan.
    pub interrupt: bool,
    /// What waits until nobody is logged in, in words.
    pub held: Vec<String>,
    /// Whether the machine is to restart when its disk is ready.
    pub restart_due: bool,
    /// The menu on its console.
    pub prompt: Option<Prompt>,
    /// What it does meanwhile.
    pub idle: Option<Idle>,
    /// Who is logged in to its target.
    pub session: Option<Session>,
    /// Whether its target is there and complete, as far as the last plan knows.
    pub ready: bool,
    /// The step that failed and why.
    pub problem: Option<Fault>,
    /// Moments of the current boot.
    pub times: BTreeMap<Moment, Millis>,
    /// What it says of itself.
    pub hardware: Hardware,
}

/// What a sighting tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sighting {
    /// Never seen before.
    New,
    /// Seen again after it was gone.
    Back,
    /// In another slot than before.
    Moved {
        /// The slot that it was in.
        from: Slot,
    },
    /// Nothing new.
    Same,
}

/// All blades.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Roster {
    /// By id.
    pub blades: Blades,
}

impl Fault {
    /// Returns whether it may pass without anybody's doing something about the blade: what is missing may come, what is in use
    /// may become free.
    fn may_pass(&self) -> bool {
        matches!(self.kind, Kind::Missing | Kind::Busy | Kind::Full | Kind::Timeout)
    }
}

impl Blade {
    /// Returns a blade about which nothing is known but its slot.
    pub fn new(slot: Slot) -> Self {
        Self {
            slot,
            present: false,
            ip: None,
            disk: None,
            grant: None,
            releases: vec![],
            interrupt: false,
            held: vec![],
            restart_due: false,
            prompt: None,
            idle: None,
            session: None,
            ready: false,
            problem: None,
            times: BTreeMap::new(),
            hardware: Hardware::default(),
        }
    }

    /// Returns whether the blade is where its disk does not belong: refused until the operator moves the disk.
    pub fn is_misplaced(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.slot != self.slot)
    }

    /// Returns whether its operating system has logged in since it was last seen to start, and its cable is in.
    pub fn is_running(&self) -> bool {
        self.present && self.times.contains_key(&Moment::OsLogin)
    }

    /// Returns where the blade is on its way.
    pub fn phase(&self) -> BladePhase {
        match (&self.session, self.present) {
            _ if self.present && self.is_misplaced() => BladePhase::Refused,
            (Some(_), _) if self.problem.is_some() => BladePhase::Degraded,
            (Some(session), _) if session.kind == SessionKind::Os => BladePhase::Running,
            (Some(_), _) => BladePhase::Booting,
            _ if self.problem.as_ref().is_some_and(Fault::may_pass) => BladePhase::Pending,
            _ if self.problem.is_some() => BladePhase::Failed,
            _ if self.grant.is_some() => BladePhase::Installing,
            (None, false) => BladePhase::Absent,
            _ if self.disk.is_some() => BladePhase::Ready,
            _ if self.prompt.is_some() => BladePhase::Prompted,
            _ => match self.idle {
                Some(Idle::Waiting) => BladePhase::Waiting,
                Some(Idle::Ignored) => BladePhase::Ignored,
                None => BladePhase::Seen,
            },
        }
    }

    /// Notes a moment of the boot, once.
    pub fn note(&mut self, moment: Moment, now: Millis) {
        self.times.entry(moment).or_insert(now);
    }

    /// Begins a new boot: the moments of the last one are forgotten.
    pub fn begin_boot(&mut self, now: Millis) {
        self.times = BTreeMap::from([(Moment::Seen, now)]);
        (self.prompt, self.idle) = (None, None);
    }
}

impl Roster {
    /// Notes that frames of the blade came in by the slot's port.
    pub fn seen(&mut self, id: BladeId, slot: Slot, now: Millis) -> Sighting {
        let known = self.blades.contains_key(&id);
        if self.blades.get(&id).is_some_and(|blade| blade.present && blade.slot == slot) {
            return Sighting::Same;
        }
        let blade = self.blades.get_or_new(id, slot);
        let (was_present, was_in) = (blade.present, blade.slot);
        (blade.present, blade.slot) = (true, slot);
        if !was_present {
            blade.begin_boot(now);
        }
        match (known, was_present) {
            (false, _) => Sighting::New,
            _ if was_in != slot => Sighting::Moved { from: was_in },
            (true, false) => Sighting::Back,
            (true, true) => Sighting::Same,
        }
    }

    /// Notes that the slot's port has lost its carrier, and returns the blades that went with it.
    pub fn unplugged(&mut self, slot: Slot) -> Vec<BladeId> {
        let mut gone = vec![];
        self.blades.change_where(|id, blade| {
            let went = blade.present && blade.slot == slot;
            if went {
                blade.present = false;
                (blade.prompt, blade.idle, blade.ip) = (None, None, None);
                gone.push(id);
            }
            went
        });
        gone
    }

    /// Learns from the volumes' tags whose disk is whose. A grant whose volume is ready is consumed.
    ///
    /// The tags win over the saved roster: they are with the data. Returns the blades whose grant was consumed.
    pub fn learn(&mut self, volumes: &Volumes) -> Vec<BladeId> {
        self.blades.change_where(|_, blade| {
            let before = blade.releases.len();
            blade.releases.retain(|volume| volumes.volumes.contains_key(&volume.lv_name()));
            blade.releases.len() != before
        });
        volumes.volumes.values().filter_map(|volume| self.learn_one(volume, volumes)).collect()
    }

    /// Learns from one volume's tags whose disk it is, and returns whose grant it consumed.
    pub fn learn_one(&mut self, volume: &Volume, volumes: &Volumes) -> Option<BladeId> {
        let Role::Disk { id, image, blade: owner, slot } = &volume.role else { return None };
        let disk = Disk { volume: *id, image: image.clone(), slot: *slot };
        let known = self.blades.get(owner);
        // Should two volumes claim one blade, the one that it boots from stays its disk.
        let serves = |disk: &Disk| disk.volume != *id && volumes.volumes.contains_key(&disk.volume.lv_name());
        let settled = known.is_some_and(|blade| {
            let has = blade.disk.as_ref() == Some(&disk) && blade.grant.is_none();
            has || blade.releases.contains(id) || blade.disk.as_ref().is_some_and(serves)
        });
        if settled || volume.state != VolumeState::Ready {
            return None;
        }
        let blade = self.blades.get_or_new(*owner, *slot);
        blade.disk = Some(disk);
        blade.grant.take_if(|grant| grant.volume == *id).map(|_| *owner)
    }

    /// Forgets the consent to take a volume away that is gone.
    pub fn released(&mut self, id: BladeId, volumes: &Volumes) {
        let is_there = |volume: &VolumeId| volumes.volumes.contains_key(&volume.lv_name());
        if self.blades.get(&id).is_some_and(|blade| !blade.releases.iter().all(is_there)) {
            let blade = self.blades.get_mut(&id).expect("it was there a line above");
            blade.releases.retain(is_there);
        }
    }

    /// Returns the blade that is in the slot, else the one whose disk belongs there.
    pub fn in_slot(&self, slot: Slot) -> Option<(BladeId, &Blade)> {
        let there =
            |blade: &Blade| (blade.present && blade.slot == slot, blade.disk.is_some(), blade.slot == slot);
        self.blades
            .iter()
            .filter(|(_, blade)| {
                blade.slot == slot || blade.disk.as_ref().is_some_and(|disk| disk.slot == slot)
            })
            .max_by_key(|(_, blade)| there(blade))
            .map(|(id, blade)| (*id, blade))
    }

    /// Returns the volumes that grants have taken already.
    pub fn granted(&self) -> impl Iterator<Item = VolumeId> + '_ {
        self.blades.values().filter_map(|blade| blade.grant.as_ref()).map(|grant| grant.volume)
    }
}

#[cfg(test)]
mod tests;
