//! Targets: the folder, its one TPG, LUN 0, portals, and the switch.
//!
//! A target is complete before it is enabled, and disabled before anything is taken from it: an initiator whose LUN is
//! unmapped under it sees LIO's tiny virtual LUN 0 instead of an error. A live TPG is never toggled here.

use super::{LUN, Lio, TPG, any, backstore::exports, profile};
use crate::{
    error::{Error, Kind, Result},
    host::configfs::Node,
    model::{Backstore, Iqn, Portal, Stray},
    plan::Changed,
};

/// The name of our link from a LUN to its backstore. Any name would do for the kernel.
const LUN_LINK: &str = "dev";

impl Lio {
    /// Makes the target and its TPG exist with our profile, not necessarily enabled.
    ///
    /// # Errors
    /// [`Kind::Denied`] where the name is not below our prefix, [`Kind::Missing`] where LIO is not there.
    pub fn target(&self, target: &Iqn) -> Result<Changed> {
        let node = self.target_node(target)?;
        self.attempt(
            || format!("create target '{target}'"),
            || {
                let made = self.make_target(&node)?;
                let tpg = node.at(TPG);
                if tpg.make()? == Changed::AlreadyTrue {
                    return Ok(any([made, profile::apply_tpg(&tpg)?]));
                }
                profile::apply_to_new_tpg(&tpg)?;
                self.fresh.made_target(target);
                Ok(Changed::Changed)
            },
        )
    }

    /// Makes the target's folder, and the fabric's where this is the machine's first target.
    fn make_target(&self, node: &Node) -> Result<Changed> {
        match node.make() {
            Err(e) if e.kind() == Kind::Missing => {
                self.fabric()?;
                node.make()
            }
            made => made,
        }
    }

    /// Makes LUN 0 of the target this backstore.
    ///
    /// # Errors
    /// [`Kind::Exists`] where the backstore is exported by another LUN already (LIO would allow it), [`Kind::Busy`]
    /// where LUN 0 is another disk and the target is enabled.
    pub fn lun(&self, target: &Iqn, backstore: &Backstore) -> Result<Changed> {
        let tpg = self.tpg(target)?;
        let (_, device) = self.backstore_nodes(backstore.volume)?;
        self.attempt(
            || format!("make '{}' LUN 0 of '{target}'", backstore.name()),
            || {
                let lun = tpg.at("lun").at(LUN);
                if !self.fresh.take_backstore(backstore.volume) {
                    exported_only_by(&device, target)?;
                }
                if lun.make()? == Changed::AlreadyTrue {
                    let cleared = unlink_others(&tpg, &lun, &device)?;
                    return Ok(any([cleared, link_once(&lun, &device)?]));
                }
                lun.link(LUN_LINK, &device)
            },
        )
    }

    /// Makes the target reachable at this portal.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where the kernel refuses the address; it gives the same answer for every reason.
    pub fn portal(&self, target: &Iqn, portal: Portal) -> Result<Changed> {
        let node = self.tpg(target)?.at("np").at(portal.to_string());
        let what = || format!("make '{target}' reachable at {portal}");
        if portal.0.port() == 0 {
            return Err(Error::invalid(what()).because("port 0 is no port (LIO would take it)"));
        }
        node.make().map_err(|e| match e.kind() {
            Kind::Invalid => e
                .while_doing("the address is used by another program, or by a portal of 0.0.0.0")
                .while_doing(what()),
            _ => e.while_doing(what()),
        })
    }

    /// Makes the stray object gone from the target, with all below it.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where the name is not one, or is of what we put there; all that could not be removed.
    pub fn remove_stray(&self, target: &Iqn, stray: &Stray) -> Result<Changed> {
        let (node, tpg) = (self.target_node(target)?, self.tpg(target)?);
        let what = || format!("remove {stray} from '{target}'");
        let found = match stray {
            Stray::MappedLun(initiator, lun) => tpg.at("acls").child(initiator)?.child(lun)?,
            Stray::Lun(lun) => tpg.at("lun").child(lun)?,
            Stray::Portal(portal) => tpg.at("np").child(portal)?,
            Stray::Tpg(tag) => node.child(tag)?,
        };
        if matches!(found.name(), TPG | LUN) {
            return Err(Error::invalid(what()).because("it is the one that we made"));
        }
        if !found.exists() {
            return Ok(Changed::AlreadyTrue);
        }
        let mut faults = Faults::default();
        match stray {
            Stray::MappedLun(..) | Stray::Lun(_) => remove_linked(&found, &mut faults),
            Stray::Portal(_) => faults.add(found.remove()),
            Stray::Tpg(_) => {
                faults.add(found.set("enable", "0"));
                remove_tpg(&found, &mut faults);
            }
        }
        faults.end(what)
    }

    /// Makes the TPG enabled: its portals answer.
    ///
    /// # Errors
    /// [`Kind::Denied`] where its attributes are not our profile: a target that anybody may use is never enabled.
    pub fn enable(&self, target: &Iqn) -> Result<Changed> {
        let tpg = self.tpg(target)?;
        self.attempt(
            || format!("enable '{target}'"),
            || {
                if self.fresh.take_target(target) {
                    return tpg.write("enable", "1").map(|()| Changed::Changed);
                }
                if !profile::tpg_holds(&tpg)? {
                    return Err(Error::new(Kind::Denied, "its attributes are not our profile"));
                }
                tpg.set("enable", "1")
            },
        )
    }

    /// Makes the TPG disabled; its sessions are gone when this returns. A target that is not there is disabled.
    ///
    /// # Errors
    /// The failing system call. With a backend that hangs this does not return until it comes back.
    pub fn disable(&self, target: &Iqn) -> Result<Changed> {
        let tpg = self.tpg(target)?;
        if !tpg.is_set("enable")? {
            return Ok(Changed::AlreadyTrue);
        }
        let disabled = tpg.write("enable", "0").map(|()| Changed::Changed);
        disabled.map_err(|e| e.while_doing(format!("disable '{target}'")))
    }

    /// Makes the target gone with all below it, whoever put it there.
    ///
    /// # Errors
    /// [`Kind::Busy`] where it is enabled; all that could not be removed, in one text.
    pub fn remove_target(&self, target: &Iqn) -> Result<Changed> {
        let node = self.target_node(target)?;
        let what = || format!("remove target '{target}'");
        if !node.exists() {
            return Ok(Changed::AlreadyTrue);
        }
        let tpgs = tpgs(&node).map_err(|e| e.while_doing(what()))?;
        for tpg in &tpgs {
            if tpg.is_set("enable")? {
                return Err(Error::new(Kind::Busy, what()).because("it is enabled: its sessions go first"));
            }
        }
        let mut faults = Faults::default();
        tpgs.iter().for_each(|tpg| remove_tpg(tpg, &mut faults));
        faults.add(node.remove());
        faults.end(what)
    }
}

/// Returns the TPGs of a target, ours or not.
pub(super) fn tpgs(target: &Node) -> Result<Vec<Node>> {
    Ok(target
        .folders()?
        .iter()
        .filter(|name| name.starts_with("tpgt_"))
        .map(|name| target.at(name))
        .collect())
}

/// Returns the backstore that a LUN leads to, if it has one.
pub(super) fn lun_device(lun: &Node) -> Result<Option<Node>> {
    Ok(lun.links()?.into_iter().next().map(|(_, device)| device))
}

/// Refuses a backstore that another LUN leads to: two initiators on one disk destroy it.
fn exported_only_by(device: &Node, target: &Iqn) -> Result<()> {
    let own = format!("iSCSI/{target}/{TPG}/{LUN}");
    match exports(device)?.into_iter().find(|lun| *lun != own) {
        None => Ok(()),
        Some(lun) => Err(Error::new(Kind::Exists, format!("it is exported already, as '{lun}'"))),
    }
}

/// Takes LUN 0's link to any other backstore away, which needs the target disabled.
fn unlink_others(tpg: &Node, lun: &Node, device: &Node) -> Result<Changed> {
    let mut changed = false;
    for (name, other) in lun.links()? {
        if other == *device {
            continue;
        }
        if tpg.is_set("enable")? {
            let what =
                format!("LUN 0 is '{}', and the target is enabled: its sessions go first", other.name());
            return Err(Error::new(Kind::Busy, what));
        }
        changed |= lun.unlink(&name)? == Changed::Changed;
    }
    Ok(Changed::from_bool(changed))
}

/// Links the LUN to the device, unless a link of whatever name does so already.
fn link_once(lun: &Node, device: &Node) -> Result<Changed> {
    if lun_device(lun)?.as_ref() == Some(device) {
        return Ok(Changed::AlreadyTrue);
    }
    lun.link(LUN_LINK, device)
}

/// Removes a disabled TPG in the one order that LIO allows: what links before what is linked to.
pub(super) fn remove_tpg(tpg: &Node, faults: &mut Faults) {
    for acl in below(&tpg.at("acls"), faults) {
        remove_acl_node(&acl, faults);
    }
    for lun in below(&tpg.at("lun"), faults) {
        remove_linked(&lun, faults);
    }
    for portal in below(&tpg.at("np"), faults) {
        faults.add(portal.remove());
    }
    faults.add(tpg.remove());
}

/// Removes an ACL with its mapped LUNs.
pub(super) fn remove_acl_node(acl: &Node, faults: &mut Faults) {
    // The other folders in it are the kernel's own, and go with it.
    for mapped in below(acl, faults).iter().filter(|node| node.name().starts_with("lun_")) {
        remove_linked(mapped, faults);
    }
    faults.add(acl.remove());
}

/// Removes a folder and the links in it.
fn remove_linked(node: &Node, faults: &mut Faults) {
    match node.links() {
        Ok(links) => links.iter().for_each(|(name, _)| faults.add(node.unlink(name))),
        Err(e) => faults.add(Err(e)),
    }
    faults.add(node.remove());
}

fn below(node: &Node, faults: &mut Faults) -> Vec<Node> {
    let names = node.folders().unwrap_or_else(|e| {
        faults.add(Err(e));
        vec![]
    });
    names.iter().map(|name| node.at(name)).collect()
}

/// What went wrong in a removal that goes on regardless.
#[derive(Default)]
pub(super) struct Faults {
    changed: bool,
    errors: Vec<Error>,
}

impl Faults {
    pub(super) fn add(&mut self, result: Result<Changed>) {
        match result {
            Ok(changed) => self.changed |= changed == Changed::Changed,
            Err(e) => self.errors.push(e),
        }
    }

    /// Returns the first error's kind with all their texts, or whether anything was removed.
    pub(super) fn end(self, what: impl Fn() -> String) -> Result<Changed> {
        let Some(first) = self.errors.first() else { return Ok(Changed::from_bool(self.changed)) };
        let all: Vec<_> = self.errors.iter().map(Error::chain).collect();
        Err(Error::new(first.kind(), what()).because(all.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fake::Fake, *};

    #[test]
    fn a_target_gets_our_profile_and_is_then_left_alone() {
        let fake = Fake::new();
        let tpg = fake.make_tpg();
        assert_eq!(fake.lio.target(&Fake::target()).unwrap(), Changed::Changed);
        assert!(profile::tpg_holds(&tpg).unwrap());
        assert_eq!(fake.lio.target(&Fake::target()).unwrap(), Changed::AlreadyTrue);
        assert!(!tpg.is_set("enable").unwrap());
    }

    #[test]
    fn a_target_that_anybody_may_use_is_never_enabled() {
        let fake = Fake::new();
        let tpg = fake.make_tpg();
        assert_eq!(fake.lio.enable(&Fake::target()).unwrap_err().kind(), Kind::Denied);
        fake.lio.target(&Fake::target()).unwrap();
        assert_eq!(fake.lio.enable(&Fake::target()).unwrap(), Changed::Changed);
        assert_eq!(fake.lio.enable(&Fake::target()).unwrap(), Changed::AlreadyTrue);
        tpg.write("attrib/generate_node_acls", "1").unwrap();
        assert_eq!(fake.lio.enable(&Fake::target()).unwrap_err().kind(), Kind::Denied);
    }

    #[test]
    fn disabling_what_is_not_there_is_already_true() {
        let fake = Fake::new();
        assert_eq!(fake.lio.disable(&Fake::target()).unwrap(), Changed::AlreadyTrue);
        assert_eq!(fake.lio.remove_target(&Fake::target()).unwrap(), Changed::AlreadyTrue);
        assert_eq!(fake.lio.remove_acl(&Fake::target(), "iqn.x").unwrap(), Changed::AlreadyTrue);
        assert_eq!(fake.lio.remove_backstore(Fake::backstore().volume).unwrap(), Changed::AlreadyTrue);
    }

    #[test]
    fn a_lun_is_linked_once_whatever_the_links_name() {
        let fake = Fake::new();
        let (tpg, device) = (fake.make_tpg(), fake.make_backstore());
        assert_eq!(fake.lio.lun(&Fake::target(), &Fake::backstore()).unwrap(), Changed::Changed);
        assert_eq!(fake.lio.lun(&Fake::target(), &Fake::backstore()).unwrap(), Changed::AlreadyTrue);
        let lun = tpg.at("lun/lun_0");
        lun.unlink("dev").unwrap();
        lun.link("f00d", &device).unwrap();
        assert_eq!(fake.lio.lun(&Fake::target(), &Fake::backstore()).unwrap(), Changed::AlreadyTrue);
    }

    #[test]
    fn another_disk_is_never_swapped_under_an_enabled_target() {
        let fake = Fake::new();
        let tpg = fake.make_tpg();
        fake.make_backstore();
        let other = fake.lio.root.at("core/other");
        std::fs::create_dir_all(other.path()).unwrap();
        let lun = tpg.at("lun/lun_0");
        lun.make().unwrap();
        lun.link("dev", &other).unwrap();
        tpg.write("enable", "1").unwrap();
        assert_eq!(fake.lio.lun(&Fake::target(), &Fake::backstore()).unwrap_err().kind(), Kind::Busy);
        tpg.write("enable", "0").unwrap();
        assert_eq!(fake.lio.lun(&Fake::target(), &Fake::backstore()).unwrap(), Changed::Changed);
        assert!(lun_device(&lun).unwrap().unwrap().name().starts_with("sheath-"));
    }

    #[test]
    fn one_disk_is_never_exported_twice() {
        let fake = Fake::new();
        fake.make_tpg();
        let device = fake.make_backstore();
        fake.raw(
            &device,
            "alua/default_tg_pt_gp/members",
            b"iSCSI/iqn.2026-11.org.example:other/tpgt_1/lun_0\n\0",
        );
        let error = fake.lio.lun(&Fake::target(), &Fake::backstore()).unwrap_err();
        assert_eq!(error.kind(), Kind::Exists);
        assert!(error.chain().contains("org.example:other"), "{}", error.chain());
    }

    #[test]
    fn an_enabled_target_is_not_removed() {
        let fake = Fake::new();
        fake.make_tpg().write("enable", "1").unwrap();
        assert_eq!(fake.lio.remove_target(&Fake::target()).unwrap_err().kind(), Kind::Busy);
    }

    #[test]
    fn a_removal_reports_everything_that_stayed() {
        let fake = Fake::new();
        // Attribute files keep a temp folder from going, as a busy object would.
        let tpg = fake.make_tpg();
        fake.make_acl();
        let error = fake.lio.remove_target(&Fake::target()).unwrap_err();
        assert_eq!(error.kind(), Kind::Busy);
        assert!(error.chain().contains("acls/") && error.chain().contains("tpgt_1"), "{}", error.chain());
        assert!(tpg.exists());
    }

    #[test]
    fn port_0_is_no_portal() {
        let fake = Fake::new();
        fake.make_tpg();
        let none = Portal("10.0.0.1:0".parse().unwrap());
        assert_eq!(fake.lio.portal(&Fake::target(), none).unwrap_err().kind(), Kind::Invalid);
        assert_eq!(fake.lio.portal(&Fake::target(), Fake::portal()).unwrap(), Changed::Changed);
        assert_eq!(fake.lio.portal(&Fake::target(), Fake::portal()).unwrap(), Changed::AlreadyTrue);
    }
}
