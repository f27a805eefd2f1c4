//! What LIO holds, read back: one blade's export, one session, or every target of the machine.
//!
//! An export is read through the paths that we set, some thirty files, however many targets there are. The list of all
//! targets walks them. Objects may go while we look; what is gone is not an error. Comparing is left to `plan`.

use std::{collections::BTreeSet, path::PathBuf, sync::atomic::Ordering};

use super::{
    BACKSTORE_PREFIX, LUN, Lio, TPG,
    info::Info,
    listed, profile,
    target::{lun_device, tpgs},
};
use crate::{
    error::Result,
    host::{
        ObservedExport, ObservedTarget, Session, TargetSummary,
        configfs::{Node, none_if_missing},
    },
    model::{Iqn, Stray, VolumeId},
};

/// A folder beside the targets that is not one.
const NOT_A_TARGET: &str = "discovery_auth";

impl Lio {
    /// Returns what LIO holds for one blade's disk. Costs the same with 1 or 2,000 blades. What udev was told is not LIO's
    /// and left empty.
    ///
    /// # Errors
    /// [`Kind::Missing`](crate::error::Kind::Missing) where LIO is not there, or where an object goes at that moment;
    /// [`Kind::Denied`](crate::error::Kind::Denied) where the target is not ours.
    pub fn export(&self, target: &Iqn, volume: VolumeId) -> Result<ObservedExport> {
        let node = self.target_node(target)?;
        self.fresh.forget(target, volume);
        self.attempt(
            || format!("look at target '{target}'"),
            || {
                let backstore = self.observe_backstore(volume)?;
                let target = if node.exists() { Some(self.observe_target(&node, volume)?) } else { None };
                if backstore.is_none() && target.is_none() && !self.was_there.load(Ordering::Relaxed) {
                    self.loaded()?;
                }
                Ok(ObservedExport { backstore, target, ..ObservedExport::default() })
            },
        )
    }

    /// Returns all iSCSI targets of this machine, ours and foreign, by name.
    ///
    /// # Errors
    /// [`Kind::Missing`](crate::error::Kind::Missing) where LIO is not there.
    pub fn targets(&self) -> Result<Vec<TargetSummary>> {
        let fabric = self.loaded()?.at("iscsi");
        let mut targets = vec![];
        for name in fabric.folders()?.iter().filter(|name| *name != NOT_A_TARGET) {
            let summary = none_if_missing(self.summary(&fabric.at(name)));
            targets.extend(summary.map_err(|e| e.while_doing(format!("look at target '{name}'")))?);
        }
        Ok(targets)
    }

    /// Returns the initiator's session with the target, if it is logged in. Reads one file.
    ///
    /// # Errors
    /// [`Kind::Missing`](crate::error::Kind::Missing) where LIO is not there; a target or an ACL that is not there has
    /// no session.
    pub fn session(&self, target: &Iqn, initiator: &Iqn) -> Result<Option<Session>> {
        let info = self.tpg(target)?.at("acls").at(initiator.as_str()).read_if_there("info")?;
        if info.is_none() {
            self.loaded()?;
        }
        Ok(info.as_deref().and_then(Info::parse).and_then(Info::session))
    }

    fn observe_target(&self, target: &Node, volume: VolumeId) -> Result<ObservedTarget> {
        let tpg = target.at(TPG);
        let acls = tpg.at("acls");
        let mut observed = ObservedTarget {
            enabled: tpg.is_set("enable")?,
            profile: profile::tpg_holds(&tpg)?,
            lun: lun_device(&tpg.at("lun").at(LUN))?
                .map(|device| (device.name().to_owned(), hba_of(&device))),
            acls: std::collections::BTreeMap::new(),
            portals: BTreeSet::new(),
            strays: strays(target, &tpg)?,
        };
        for name in tpg.at("np").folders()? {
            match portal(&name) {
                Some(portal) => drop(observed.portals.insert(portal)),
                None => drop(observed.strays.insert(Stray::Portal(name))),
            }
        }
        for name in acls.folders()? {
            let node = acls.at(&name);
            let mapped = besides(&node, LUN, "lun_")?;
            observed.strays.extend(mapped.map(|lun| Stray::MappedLun(name.clone(), lun)));
            observed.acls.insert(name, self.observe_acl(&node, &tpg, volume)?);
        }
        Ok(observed)
    }

    fn summary(&self, target: &Node) -> Result<TargetSummary> {
        let name = target.name().to_owned();
        let ours = name.parse().is_ok_and(|iqn: Iqn| iqn.is_below(&self.prefix));
        let mut summary = TargetSummary {
            target: name,
            ours,
            enabled: false,
            devices: vec![],
            initiators: vec![],
            portals: vec![],
            sessions: vec![],
        };
        for tpg in tpgs(target)? {
            add_tpg(&mut summary, &tpg)?;
        }
        Ok(summary)
    }
}

/// Returns the TPGs and LUNs that are not ours.
fn strays(target: &Node, tpg: &Node) -> Result<BTreeSet<Stray>> {
    let luns = besides(&tpg.at("lun"), LUN, "lun_")?.map(Stray::Lun);
    Ok(besides(target, TPG, "tpgt_")?.map(Stray::Tpg).chain(luns).collect())
}

/// Returns the objects of a kind in a folder besides the one that is ours.
fn besides<'a>(folder: &Node, ours: &'a str, kind: &'a str) -> Result<impl Iterator<Item = String> + 'a> {
    Ok(folder.folders()?.into_iter().filter(move |name| name.starts_with(kind) && name != ours))
}

/// Adds what one TPG holds.
fn add_tpg(summary: &mut TargetSummary, tpg: &Node) -> Result<()> {
    summary.enabled |= tpg.is_set("enable")?;
    summary.portals.extend(tpg.at("np").folders()?);
    let luns = tpg.at("lun");
    for lun in luns.folders()? {
        if let Some(device) = lun_device(&luns.at(lun))? {
            summary.devices.push(device_of(&device)?);
        }
    }
    let acls = tpg.at("acls");
    for name in acls.folders()? {
        let info = acls.at(&name).read_if_there("info")?.unwrap_or_default();
        summary.sessions.extend(Info::parse(&info).and_then(Info::session));
        summary.initiators.push(name);
    }
    summary.initiators.extend(guests(tpg)?);
    Ok(())
}

/// Returns the initiators that a foreign target lets in without an ACL; LIO says no more of them than their names.
pub(super) fn guests(tpg: &Node) -> Result<Vec<String>> {
    Ok(listed(&tpg.read_if_there("dynamic_sessions")?.unwrap_or_default()).collect())
}

/// Returns the device of a backstore; one that names none, such as a RAM disk, by its folder's name.
fn device_of(backstore: &Node) -> Result<PathBuf> {
    let path = backstore.read_if_there("udev_path")?.unwrap_or_default();
    Ok(if path.is_empty() { backstore.name().into() } else { path.into() })
}

/// Returns the HBA's number. A foreign one that is not of our kind (`fileio_0`) can be no number of ours.
fn hba_of(backstore: &Node) -> u32 {
    let hba = backstore.parent();
    let number = hba.name().strip_prefix("iblock_").and_then(|number| number.parse().ok());
    debug_assert!(number.is_some() || !backstore.name().starts_with(BACKSTORE_PREFIX));
    number.unwrap_or(u32::MAX)
}

/// Returns the portal of this name; ours are all IPv4.
fn portal(name: &str) -> Option<crate::model::Portal> {
    name.parse().ok().map(crate::model::Portal)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{fake::Fake, info::samples},
        *,
    };
    use crate::{
        host::{AuthState, MapState, ObservedAcl},
        plan::Changed,
    };

    #[test]
    fn nothing_there_is_an_empty_export() {
        let fake = Fake::new();
        let seen = fake.lio.export(&Fake::target(), Fake::backstore().volume).unwrap();
        assert_eq!(seen, ObservedExport::default());
        assert!(fake.lio.targets().unwrap().is_empty());
    }

    #[test]
    fn a_target_that_a_crash_left_without_its_tpg_is_observed() {
        let fake = Fake::new();
        std::fs::create_dir_all(fake.lio.target_node(&Fake::target()).unwrap().path()).unwrap();
        let seen = fake.lio.export(&Fake::target(), Fake::backstore().volume).unwrap().target.unwrap();
        assert!(!seen.enabled && !seen.profile && seen.lun.is_none() && seen.acls.is_empty());
    }

    #[test]
    fn what_the_verbs_made_is_what_is_observed() {
        let fake = Fake::new();
        let initiator = Fake::initiator();
        let acl = fake.make_everything();
        fake.run_all();
        fake.raw(&acl, "info", samples::OPEN_ISCSI.as_bytes());
        let seen = fake.lio.export(&Fake::target(), Fake::backstore().volume).unwrap().target.unwrap();
        let session = fake.lio.session(&Fake::target(), &initiator).unwrap();
        assert_eq!(session.as_ref().unwrap().id, 1);
        let right = ObservedTarget {
            enabled: true,
            profile: true,
            lun: Some((Fake::backstore().name(), Fake::backstore().hba())),
            acls: [(
                initiator.to_string(),
                ObservedAcl { auth: AuthState::OneWay, map: MapState::Mapped, nopin_timeout: 15, session },
            )]
            .into(),
            portals: [Fake::portal()].into(),
            strays: [Stray::Lun("lun_1".into())].into(),
        };
        assert_eq!(seen, right);
        assert!(fake.run_all().iter().all(|changed| *changed == Changed::AlreadyTrue));
    }

    #[test]
    fn foreign_targets_are_listed_as_such() {
        let fake = Fake::new();
        let acl = fake.make_everything();
        fake.run_all();
        fake.raw(&acl, "info", samples::OPEN_ISCSI.as_bytes());
        fake.make_foreign("iqn.2003-01.org.linux-iscsi:Upper_Case x");
        let targets = fake.lio.targets().unwrap();
        let [foreign, ours] = targets.as_slice() else { panic!("{targets:?}") };
        assert!(ours.ours && ours.enabled && !foreign.ours);
        assert_eq!(ours.devices, [PathBuf::from("/dev/vg/disk")]);
        assert_eq!(ours.portals, ["10.0.0.1:3260"]);
        assert_eq!(ours.sessions.len(), 1);
        assert_eq!(foreign.initiators, ["iqn.guest:1", "iqn.guest:2"], "dynamic ones");
    }

    #[test]
    fn the_folder_for_discovery_is_not_a_target() {
        let fake = Fake::new();
        std::fs::create_dir_all(fake.lio.root.at("iscsi/discovery_auth").path()).unwrap();
        assert!(fake.lio.targets().unwrap().is_empty());
    }

    #[test]
    fn who_is_not_admitted_has_no_session() {
        let fake = Fake::new();
        assert_eq!(fake.lio.session(&Fake::target(), &Fake::initiator()).unwrap(), None);
    }
}
