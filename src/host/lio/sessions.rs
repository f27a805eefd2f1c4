//! Closing a session without changing anything else.
//!
//! LIO has no attribute for it. Another `cmdsn_depth` of the ACL closes the ACL's sessions, and the write returns when
//! they are closed; then the old depth is put back. That ends less than the other two ways: a disabled TPG, a removed
//! ACL. The initiator sees a lost connection, logs in again, and goes on with the I/O that it had under way.

use super::{Lio, info::Info};
use crate::{
    error::{Error, Result},
    host::configfs::Node,
    model::Iqn,
    plan::Changed,
};

impl Lio {
    /// Makes this session be gone, and any other that the initiator has with the target. A later session stays.
    ///
    /// # Errors
    /// The failing system call. On a target whose disk hangs this does not return before the disk does.
    pub fn drop_session(&self, target: &Iqn, initiator: &Iqn, session: u32) -> Result<Changed> {
        let acl = self.tpg(target)?.at("acls").at(initiator.as_str());
        let shown = acl.read_if_there("info")?;
        if shown.as_deref().and_then(Info::parse).is_none_or(|info| info.id() != session) {
            return Ok(Changed::AlreadyTrue);
        }
        close(&acl).map(|()| Changed::Changed).map_err(|e: Error| {
            e.while_doing(format!("close session {session} of '{initiator}' with '{target}'"))
        })
    }
}

fn close(acl: &Node) -> Result<()> {
    let depth = acl.read("cmdsn_depth")?;
    acl.write("cmdsn_depth", other(&depth))?;
    acl.write("cmdsn_depth", &depth)
}

/// Returns a depth that is not this one: the kernel takes the same one as nothing to do.
fn other(depth: &str) -> &'static str {
    if depth == "64" { "63" } else { "64" }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{fake::Fake, info::samples},
        *,
    };

    #[test]
    fn only_the_session_that_was_meant_is_closed() {
        let fake = Fake::new();
        let (acl, initiator) = (fake.make_acl(), Fake::initiator());
        let drop = |session| fake.lio.drop_session(&Fake::target(), &initiator, session).unwrap();
        assert_eq!(drop(1), Changed::AlreadyTrue, "nobody is logged in");
        fake.raw(&acl, "info", samples::OPEN_ISCSI.as_bytes());
        assert_eq!(drop(2), Changed::AlreadyTrue, "that one was closed, this is a later one");
        assert_eq!(drop(1), Changed::Changed);
        assert_eq!(acl.read("cmdsn_depth").unwrap(), "64", "put back");
    }

    #[test]
    fn an_initiator_that_is_not_admitted_has_no_session_to_close() {
        let fake = Fake::new();
        let changed = fake.lio.drop_session(&Fake::target(), &Fake::initiator(), 1).unwrap();
        assert_eq!(changed, Changed::AlreadyTrue);
        let foreign = "iqn.1999-01.com.foreign:disk".parse().unwrap();
        assert!(fake.lio.drop_session(&foreign, &Fake::initiator(), 1).is_err());
    }

    #[test]
    fn every_depth_has_another() {
        for depth in ["1", "63", "64", "512"] {
            assert_ne!(other(depth), depth);
        }
    }
}
