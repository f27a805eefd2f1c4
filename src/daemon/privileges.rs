//! Privileges: the few that the agent needs are kept, all others are given away before a second thread starts.

use std::collections::HashSet;

use caps::{CapSet, Capability};

use crate::error::{Error, Kind, Result};

/// What is kept; `systemd/sheathd.service` names the same, each with the kernel's code that asks for it.
const KEPT: [Capability; 5] = [
    // device-mapper's ioctls, LIO's configfs checks
    Capability::CAP_SYS_ADMIN,
    // rtnetlink, SO_RCVBUFFORCE
    Capability::CAP_NET_ADMIN,
    // LVM raises its priority while devices are suspended
    Capability::CAP_SYS_NICE,
    // an image is imported from wherever the administrator has it
    Capability::CAP_DAC_READ_SEARCH,
    // the kernel log, where kernel.dmesg_restrict is set: why LIO refuses
    Capability::CAP_SYSLOG,
];

/// Gives all capabilities away but those that are needed. LVM, as our child, gets no more than we keep.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn keep_what_is_needed() -> Result<()> {
    let failed = |e| Error::new(Kind::Failed, "give capabilities away").because(e);
    let kept: HashSet<Capability> = KEPT.into();
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(failed)? {
        let bounding = caps::read(None, CapSet::Bounding).map_err(failed)?;
        for capability in bounding.difference(&kept) {
            caps::drop(None, CapSet::Bounding, *capability).map_err(failed)?;
        }
    }
    caps::clear(None, CapSet::Ambient).map_err(failed)?;
    caps::clear(None, CapSet::Inheritable).map_err(failed)?;
    let permitted = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let left = permitted.intersection(&kept).copied().collect();
    // Effective first: it may never hold what permitted does not.
    caps::set(None, CapSet::Effective, &left).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &left).map_err(failed)
}
