//! Privileges, given away: sheath-bootd needs none, whoever started it.
//!
//! The unit takes them away as well; this holds where it is started by hand. User and group are the unit's to set.

use caps::{CapSet, Capability};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::error::{Error, Kind, Result};

/// Gives all capabilities away, for ever. Must run before a second thread starts: each has its own.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn drop_all() -> Result<()> {
    let failed = |e| Error::new(Kind::Failed, "give capabilities away").because(e);
    // The bounding set is what a set-user-ID program could get back. Changing it needs CAP_SETPCAP; without that
    // there is nothing to get back that no-new-privileges of the unit does not refuse.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(failed)? {
        caps::clear(None, CapSet::Bounding).map_err(failed)?;
    }
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).map_err(failed)?;
    }
    Ok(())
}

/// Raises the limit of open files to what the system allows: each waiting blade holds two.
pub(super) fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(e) = raised {
        log::warn!("the limit of open files stays as it is: {e}");
    }
}
