//! Acting: carries plans out, in parallel lanes, and reports.
//!
//! A job brings a wish and what the last LVM report says of its volumes; the lane observes what LIO has for that one
//! blade, asks `plan` for the steps, runs them in order and reports. What fails is undone as far as nothing half-made stays
//! behind; trying again is the next event's. Lanes overlap the grace periods that LIO waits for; LVM's own lock is the
//! host's business.
//!
//! Each look and each step has a deadline. A job that is over it is reported as overdue while it still runs, its thread is
//! left behind and replaced, and nothing more of it is begun; when it ends after all, that is a second, late report.
//!
//! ```text
//! carry      one job: look, plan, steps, undoing
//! deadline   how long each of these may take, and why
//! lanes      the threads, the queue, and who watches the deadlines
//! ```

mod carry;
mod deadline;
mod lanes;
mod look;

use std::time::Duration;

pub use carry::{blade_plan, carry_out, chassis_steps};
pub use deadline::{Deadlines, Doing, deadline};
pub use lanes::{LEFT_BEHIND, Lanes};
pub use look::HandEdits;

use crate::{
    error::Error,
    host::Host,
    model::{BladeId, Difference, ImageId, Iqn, VolumeId},
    observed::{Donor, ObservedForeign, Volumes},
    plan::{Changed, Step},
    policy::{BladeWish, MakeWish, chassis::ChassisWish},
};

/// What a job is about. At most one job of a subject runs at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Bridge, ports, services' files.
    Chassis,
    /// The LVM report.
    Volumes,
    /// A blade's disk and target.
    Blade(BladeId),
    /// A clone made ahead.
    Spare(ImageId),
    /// A golden image.
    Image(ImageId),
    /// A half-made volume that nothing wants.
    Leftover(VolumeId),
    /// A question; changes nothing.
    Question,
    /// Other machines' disks.
    Donors,
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Chassis => f.write_str("chassis"),
            Self::Volumes => f.write_str("volumes"),
            Self::Blade(blade) => write!(f, "blade {blade}"),
            Self::Spare(image) => write!(f, "spare of '{image}'"),
            Self::Image(image) => write!(f, "image '{image}'"),
            Self::Leftover(volume) => write!(f, "left-over '{volume}'"),
            Self::Question => f.write_str("question"),
            Self::Donors => f.write_str("donors' disks"),
        }
    }
}

/// A question to the host; it sees to its answer itself.
pub type Question = Box<dyn FnOnce(&dyn Host) + Send>;

/// What is to be done.
pub enum Work {
    /// Ask LVM for all volumes.
    Report,
    /// Make the chassis as wished.
    Chassis(ChassisWish),
    /// Make one blade's disk and target as wished.
    Blade {
        /// The wish.
        wish: Box<BladeWish>,
        /// What the last LVM report says of the volumes that the wish is about.
        volumes: Volumes,
    },
    /// Make a spare.
    Spare {
        /// The new clone.
        volume: VolumeId,
        /// How.
        make: Box<MakeWish>,
        /// What the last LVM report says of the image.
        volumes: Volumes,
    },
    /// Run these steps: the operator's, or a left-over's removal.
    Steps(Vec<Step>),
    /// Ask the host something, off the main thread.
    Ask(Question),
    /// Look at a foreign target that somebody wants to take over.
    Survey(Iqn),
    /// Look whether one blade's export is still as it was made, and tell what is not.
    Look {
        /// The wish, which was carried out before.
        wish: Box<BladeWish>,
        /// The last LVM report.
        volumes: Volumes,
        /// What is done about hand edits.
        edits: HandEdits,
    },
    /// Look which disks of other machines are plugged in.
    Donors,
}

/// A job for a lane.
pub struct Job {
    /// What it is about.
    pub subject: Subject,
    /// Why, for the journal.
    pub cause: String,
    /// What is to be done.
    pub work: Work,
}

/// What became of a job.
#[derive(Debug)]
pub struct Report {
    /// What it was about.
    pub subject: Subject,
    /// Why it was done.
    pub cause: String,
    /// The steps that ran, in order, those of an undoing included.
    pub steps: Vec<(Step, Changed)>,
    /// The LVM report, where that was the job.
    pub volumes: Option<Volumes>,
    /// The wish that was carried out, where the job had one.
    pub wish: Option<Box<BladeWish>>,
    /// The steps that wait until the blade is off.
    pub held: Vec<Step>,
    /// The failure that ended it, or what it has not come back from.
    pub failure: Option<Failure>,
    /// How long it took, or has taken so far.
    pub elapsed: Duration,
    /// What somebody else had changed, where the job was a look.
    pub drift: Vec<Difference>,
    /// The foreign target, where the job was to look at one.
    pub foreign: Option<ObservedForeign>,
    /// The disks of other machines, where the job was to look for them.
    pub donors: Option<Vec<Donor>>,
    /// Whether it has ended, and in time.
    pub ending: Ending,
}

/// Whether a job has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ending {
    /// In time.
    #[default]
    InTime,
    /// Not at all: it is over its deadline, and a [`Late`](Self::Late) report follows if it ever ends. The failure says
    /// what it has not come back from; steps that it has run are told by the late report.
    Overdue,
    /// After it was told of as overdue. What had not begun by then was not done.
    Late,
}

/// Where a job failed.
#[derive(Debug)]
pub struct Failure {
    /// The step, where one had begun.
    pub step: Option<Box<Step>>,
    /// Why.
    pub error: Error,
}

impl Report {
    /// Returns the report of a job that has done nothing yet.
    fn blank(subject: Subject, cause: String) -> Self {
        Self {
            subject,
            cause,
            steps: vec![],
            volumes: None,
            wish: None,
            held: vec![],
            drift: vec![],
            foreign: None,
            donors: None,
            failure: None,
            elapsed: Duration::ZERO,
            ending: Ending::default(),
        }
    }

    /// Returns how many steps changed something.
    pub fn changed(&self) -> usize {
        self.steps.iter().filter(|(_, changed)| *changed == Changed::Changed).count()
    }
}

impl std::fmt::Display for Failure {
    /// Names the failing step and the cause, for a console and for `sheath status`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.step {
            Some(step) => write!(f, "{}: {}", step.console_word(), self.error.chain()),
            None => f.write_str(&self.error.chain()),
        }
    }
}

#[cfg(test)]
mod tests;
