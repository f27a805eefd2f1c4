//! ACLs: the initiator that may log in, its CHAP credentials, its timeouts, and its mapped LUN.
//!
//! Credentials are put right in place; nothing here ends a session that may stay. An ACL that has to go while its
//! initiator is logged in is locked and its session closed first, and only then is its LUN unmapped. Which credentials
//! they are comes from `keys`.

use super::{
    LUN, Lio, any, auth,
    info::Info,
    target::{Faults, remove_acl_node},
};
use crate::{
    error::Result,
    host::{MapState, ObservedAcl, configfs::Node},
    model::{Chap, Iqn, NopIn, VolumeId},
    plan::Changed,
};

/// The name of our link from a mapped LUN to the TPG's LUN. Any name would do for the kernel.
const MAP_LINK: &str = "lun";
const NOPIN: &str = "attrib/nopin_timeout";

/// Who may log in to a target, and how.
#[derive(Debug, Clone, Copy)]
pub struct Acl<'a> {
    /// The initiator's name.
    pub initiator: &'a Iqn,
    /// The disk that the credentials are derived for.
    pub volume: VolumeId,
    /// CHAP, one-way or mutual.
    pub chap: Chap,
    /// Whether LIO pings the initiator.
    pub nopin: NopIn,
}

impl Lio {
    /// Makes the target admit this initiator, with these credentials and timeouts. A session that is there stays.
    ///
    /// # Errors
    /// [`Kind::Missing`](crate::error::Kind::Missing) where the target is not there,
    /// [`Kind::Denied`](crate::error::Kind::Denied) without `CAP_SYS_ADMIN`.
    pub fn acl(&self, target: &Iqn, acl: &Acl<'_>) -> Result<Changed> {
        let node = self.acl_node(target, acl.initiator)?;
        self.attempt(
            || format!("admit '{}' to '{target}'", acl.initiator),
            || {
                let (credentials, nopin) =
                    (self.keys.credentials(acl.volume, acl.chap), acl.nopin.seconds().to_string());
                if node.make()? == Changed::AlreadyTrue {
                    return Ok(any([auth::set(&node, &credentials)?, node.set(NOPIN, &nopin)?]));
                }
                auth::set_new(&node, &credentials)?;
                node.write(NOPIN, &nopin)?;
                Ok(Changed::Changed)
            },
        )
    }

    /// Makes the initiator's LUN 0 the target's LUN 0, writable. A dead mapping is made anew.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) where the target's LUN has no backstore,
    /// [`Kind::Missing`](crate::error::Kind::Missing) where there is no ACL.
    pub fn map_lun(&self, target: &Iqn, initiator: &Iqn) -> Result<Changed> {
        let tpg = self.tpg(target)?;
        let mapped = self.acl_node(target, initiator)?.at(LUN);
        self.attempt(
            || format!("map LUN 0 of '{target}' to '{initiator}'"),
            || {
                let lun = tpg.at("lun").at(LUN);
                if mapped.make()? == Changed::AlreadyTrue {
                    match mapping(&mapped, &lun)? {
                        Mapping::Live { writable: true } => return Ok(Changed::AlreadyTrue),
                        Mapping::Live { writable: false } => {
                            return mapped.write("write_protect", "0").map(|()| Changed::Changed);
                        }
                        Mapping::Dead => {
                            unmap(&mapped)?;
                            mapped.make()?;
                        }
                        Mapping::None => {}
                    }
                }
                // Writable by the TPG's `prod_mode_write_protect`, which a new mapping takes.
                mapped.link(MAP_LINK, &lun)
            },
        )
    }

    /// Makes the ACL gone, its mapped LUNs with it. A session of its initiator is closed first, and cannot come back.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) where the name is not one; all that could not be removed, in one text.
    pub fn remove_acl(&self, target: &Iqn, initiator: &str) -> Result<Changed> {
        let acl = self.tpg(target)?.at("acls").child(initiator)?;
        if !acl.exists() {
            return Ok(Changed::AlreadyTrue);
        }
        let what = || format!("remove '{initiator}' from '{target}'");
        end_session(&acl).map_err(|e| e.while_doing(what()))?;
        let mut faults = Faults::default();
        remove_acl_node(&acl, &mut faults);
        faults.end(what)
    }

    pub(super) fn acl_node(&self, target: &Iqn, initiator: &Iqn) -> Result<Node> {
        Ok(self.tpg(target)?.at("acls").at(initiator.as_str()))
    }

    /// Returns an ACL of the target as it is, its credentials compared with this volume's.
    pub(super) fn observe_acl(&self, acl: &Node, tpg: &Node, volume: VolumeId) -> Result<ObservedAcl> {
        Ok(ObservedAcl {
            auth: auth::state(acl, &self.keys.credentials(volume, Chap::Mutual))?,
            map: match mapping(&acl.at(LUN), &tpg.at("lun").at(LUN))? {
                Mapping::None => MapState::Missing,
                Mapping::Live { writable: true } => MapState::Mapped,
                Mapping::Live { writable: false } | Mapping::Dead => MapState::Broken,
            },
            nopin_timeout: acl.read(NOPIN)?.parse().unwrap_or(u32::MAX),
            session: Info::parse(&acl.read("info")?).and_then(Info::session),
        })
    }
}

/// What a mapped LUN's folder is.
enum Mapping {
    /// Not there, or without a link.
    None,
    /// It leads to the LUN, which is there.
    Live { writable: bool },
    /// It leads elsewhere, or its LUN was taken away under it: the link stays then, dead for ever.
    Dead,
}

/// Returns what the folder is. A dead link looks like a live one; only `write_protect` tells, by reading empty.
fn mapping(mapped: &Node, lun: &Node) -> Result<Mapping> {
    let links = mapped.links()?;
    let Some((_, to)) = links.first() else { return Ok(Mapping::None) };
    let protect = mapped.read_if_there("write_protect")?.unwrap_or_default();
    Ok(match protect.as_str() {
        "0" | "1" if to == lun => Mapping::Live { writable: protect == "0" },
        _ => Mapping::Dead,
    })
}

fn unmap(mapped: &Node) -> Result<()> {
    for (name, _) in mapped.links()? {
        mapped.unlink(&name)?;
    }
    mapped.remove().map(drop)
}

/// Closes the initiator's session, if there is one, so that it does not log in again: unmapping a LUN under a session
/// shows the initiator another disk instead of an error.
fn end_session(acl: &Node) -> Result<()> {
    if Info::parse(&acl.read("info")?).is_none() {
        return Ok(());
    }
    auth::clear(acl)?;
    // Another depth closes the ACL's sessions, and returns when they are closed; the same value does nothing.
    let depth = acl.read("cmdsn_depth")?;
    acl.write("cmdsn_depth", if depth == "64" { "63" } else { "64" })
}

#[cfg(test)]
mod tests {
    use super::{super::fake::Fake, *};
    use crate::{error::Kind, host::AuthState};

    fn seen(fake: &Fake, acl: &Node) -> ObservedAcl {
        let tpg = fake.lio.tpg(&Fake::target()).unwrap();
        fake.lio.observe_acl(acl, &tpg, Fake::backstore().volume).unwrap()
    }

    #[test]
    fn the_ping_timeout_follows_what_the_blade_is_doing() {
        let fake = Fake::new();
        let (node, initiator) = (fake.make_acl(), Fake::initiator());
        for (nopin, seconds) in [(NopIn::Off, 0), (NopIn::On, 15)] {
            let acl = Acl { nopin, ..Fake::acl(&initiator) };
            fake.lio.acl(&Fake::target(), &acl).unwrap();
            assert_eq!(seen(&fake, &node).nopin_timeout, seconds);
        }
    }

    #[test]
    fn a_mapping_whose_write_protect_reads_empty_is_broken() {
        let fake = Fake::new();
        let acl = fake.make_acl();
        let tpg = fake.lio.tpg(&Fake::target()).unwrap();
        assert_eq!(seen(&fake, &acl).map, MapState::Missing);
        for (lun, protect, state) in [
            ("lun_0", "0", MapState::Mapped),
            ("lun_0", "1", MapState::Broken),
            ("lun_0", "", MapState::Broken),
            ("lun_1", "0", MapState::Broken),
        ] {
            let mapped = fake.make_mapping(&acl, &tpg.at("lun").at(lun));
            fake.raw(&mapped, "write_protect", protect.as_bytes());
            assert_eq!(seen(&fake, &acl).map, state, "{lun} {protect:?}");
            mapped.unlink("lun").unwrap();
        }
    }

    #[test]
    fn a_read_only_mapping_is_made_writable_in_place() {
        let fake = Fake::new();
        let acl = fake.make_acl();
        let tpg = fake.lio.tpg(&Fake::target()).unwrap();
        let mapped = fake.make_mapping(&acl, &tpg.at("lun/lun_0"));
        fake.raw(&mapped, "write_protect", b"1\n");
        let map = || fake.lio.map_lun(&Fake::target(), &Fake::initiator()).unwrap();
        assert_eq!((map(), map()), (Changed::Changed, Changed::AlreadyTrue));
        assert_eq!(seen(&fake, &acl).map, MapState::Mapped);
    }

    #[test]
    fn a_session_is_locked_out_and_closed_before_its_lun_goes() {
        let fake = Fake::new();
        let (acl, initiator) = (fake.make_acl(), Fake::initiator());
        fake.lio.acl(&Fake::target(), &Fake::acl(&initiator)).unwrap();
        end_session(&acl).unwrap();
        assert_eq!(seen(&fake, &acl).auth, AuthState::OneWay, "no session, nothing to do");
        fake.raw(&acl, "info", super::super::info::samples::OPEN_ISCSI.as_bytes());
        end_session(&acl).unwrap();
        assert_eq!(seen(&fake, &acl).auth, AuthState::Unset);
        assert_eq!(acl.read("cmdsn_depth").unwrap(), "63");
    }

    #[test]
    fn an_initiators_name_cannot_lead_out_of_the_acls() {
        let fake = Fake::new();
        fake.make_tpg();
        for bad in ["..", "../np", "a/b", ""] {
            let error = fake.lio.remove_acl(&Fake::target(), bad).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{bad:?}");
        }
    }
}
