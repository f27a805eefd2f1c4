//! How long a lane may be silent: each thing that it does has a bound, counted from its beginning.
//!
//! A call into configfs or to a disk whose device hangs cannot be interrupted and has no timeout of its own; all that can
//! be done is to stop waiting for it. Whatever has a bound of its own (a tool, a netlink question) is given longer than
//! that, so that its own error is what is reported. Pure: who watches is `lanes`.

use std::time::Duration;

use crate::{host::lvm, plan::Step};

/// What a job is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doing {
    /// Looks at what LIO or the chassis has, or answers a question.
    Look,
    /// Asks LVM for all volumes.
    Report,
    /// Makes a step true.
    Step(Step),
}

/// How long each thing may take: [`deadline`], but for tests.
pub type Deadlines = fn(&Doing) -> Duration;

/// A look at a blade takes milliseconds, one at a thousand some seconds; netlink gives up after 5 s by itself. An
/// operator who waits for it is told before the command line's own minute is over.
const LOOK: Duration = Duration::from_secs(30);

/// A change in LIO takes an RCU grace period, some 20 ms, and up to 15 s where it waits for a login that does not go on.
const LIO: Duration = Duration::from_secs(20);

/// A pool that is full holds writes back for 60 s and fails them then: an error that is worth waiting for.
const DISK: Duration = Duration::from_secs(90);

/// systemd has 20 s to note a restart down, netlink 5 s for each answer; files are synced to a disk that may be busy.
const SERVICE: Duration = Duration::from_secs(60);

/// The longest step is a report and two changes. Whoever waits for LVM's queue behind several commands that all run into
/// their own bounds is told of too early; it goes on all the same.
const LVM: Duration =
    lvm::REPORT.saturating_add(lvm::CHANGE.saturating_mul(2)).saturating_add(Duration::from_secs(60));

/// Returns how long this may take before nobody waits for it any more.
pub fn deadline(doing: &Doing) -> Duration {
    match doing {
        Doing::Look => LOOK,
        Doing::Report => LVM,
        Doing::Step(step) => of_step(step),
    }
}

fn of_step(step: &Step) -> Duration {
    match step {
        Step::Bridge { .. } | Step::Port { .. } | Step::ServiceFile { .. } => SERVICE,
        Step::Clone { .. }
        | Step::Activate { .. }
        | Step::Grow { .. }
        | Step::TakeOver { .. }
        | Step::Tag { .. }
        | Step::RemoveVolume { .. }
        | Step::CreateImage { .. }
        | Step::FinishImage { .. }
        | Step::RemoveImage { .. }
        | Step::Promote { .. }
        | Step::TagImage { .. } => LVM,
        Step::Partition { .. } | Step::Seed { .. } => DISK,
        Step::Announce { .. }
        | Step::Backstore { .. }
        | Step::Target { .. }
        | Step::Lun { .. }
        | Step::Acl { .. }
        | Step::MapLun { .. }
        | Step::Portal { .. }
        | Step::RemoveStray { .. }
        | Step::Enable { .. }
        | Step::Disable { .. }
        | Step::DropSession { .. }
        | Step::RemoveForeign { .. }
        | Step::RemoveAcl { .. }
        | Step::RemoveTarget { .. }
        | Step::RemoveBackstore { .. } => LIO,
    }
}

impl std::fmt::Display for Doing {
    /// Says what was attempted, for an error.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Look => f.write_str("look at what the kernel has"),
            Self::Report => f.write_str("ask LVM for all volumes"),
            Self::Step(step) => write!(f, "wait until {step}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::VolumeId;

    #[test]
    fn a_tools_own_timeout_comes_first() {
        let step = deadline(&Doing::Step(Step::RemoveVolume { volume: VolumeId(1) }));
        assert!(step > lvm::CHANGE * 2 + lvm::REPORT);
        assert!(deadline(&Doing::Report) > lvm::REPORT);
    }
}
