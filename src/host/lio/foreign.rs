//! The one thing that is done to a target that is not ours: it is looked at, and removed when the operator gives it to us.
//!
//! What is removed is what was looked at then: a target that leads elsewhere by now, or that somebody is logged in to,
//! stays. The device behind it is not touched.

use super::{
    Lio,
    backstore::{exports, remove_device},
    info::Info,
    observe::guests,
    target::{Faults, lun_device, remove_tpg, tpgs},
};
use crate::{
    error::{Error, Kind, Result},
    host::{ForeignLun, ObservedForeign, configfs::Node},
    model::{ForeignExport, Iqn},
    plan::Changed,
};

impl Lio {
    /// Returns what there is to know of a foreign target before it is taken over; which logical volumes its devices are is
    /// LVM's to say.
    ///
    /// # Errors
    /// [`Kind::Missing`] where there is no such target, [`Kind::Exists`] where it is ours.
    pub fn foreign(&self, target: &Iqn) -> Result<ObservedForeign> {
        let node = self.foreign_node(target)?;
        self.attempt(
            || format!("look at target '{target}'"),
            || {
                if !node.exists() {
                    return Err(Error::new(Kind::Missing, "there is no such target, see 'sheath targets'"));
                }
                let mut found =
                    ObservedForeign { target: target.clone(), tpgs: vec![], luns: vec![], logged_in: vec![] };
                for tpg in tpgs(&node)? {
                    found.luns.extend(luns(&tpg)?);
                    found.logged_in.extend(logged_in(&tpg)?);
                    found.tpgs.push(tpg.name().to_owned());
                }
                Ok(found)
            },
        )
    }

    /// Makes the foreign target and its backstore gone, as far as they are what they were when they were looked at.
    ///
    /// # Errors
    /// [`Kind::Busy`] where somebody is logged in, [`Kind::Exists`] where target or backstore are others by now; nothing
    /// was removed then. Else all that could not be removed.
    pub fn remove_foreign(&self, from: &ForeignExport) -> Result<Changed> {
        let node = self.foreign_node(&from.target)?;
        let what = || format!("remove foreign target '{}'", from.target);
        let hba = self.root.at("core").at(format!("iblock_{}", from.hba));
        let device = hba.child(&from.backstore)?;
        self.attempt(what, || {
            if device.exists() && device.read("udev_path")? != from.device.to_string_lossy() {
                return Err(Error::new(Kind::Exists, format!("'{device}' holds another device by now")));
            }
            let tpgs = if node.exists() { tpgs(&node)? } else { vec![] };
            tpgs.iter().try_for_each(|tpg| still_the_same(tpg, &device))?;
            let mut faults = Faults::default();
            for tpg in &tpgs {
                faults.add(tpg.set("enable", "0"));
                remove_tpg(tpg, &mut faults);
            }
            faults.add(node.remove());
            faults.add(remove_device(&hba, &device));
            faults.end(what)
        })
    }

    fn foreign_node(&self, target: &Iqn) -> Result<Node> {
        if target.is_below(&self.prefix) {
            return Err(Error::new(Kind::Exists, format!("target '{target}' is ours already")));
        }
        Ok(self.loaded()?.at("iscsi").at(target.as_str()))
    }
}

/// Refuses a TPG that somebody uses, or that leads to another disk than the one that was looked at.
fn still_the_same(tpg: &Node, device: &Node) -> Result<()> {
    if let Some(initiator) = logged_in(tpg)?.first() {
        return Err(Error::new(
            Kind::Busy,
            format!("'{initiator}' is logged in: shut that machine down first"),
        ));
    }
    for lun in luns(tpg)? {
        if (lun.hba.as_str(), lun.backstore.as_str()) != (device.parent().name(), device.name()) {
            let text = format!("it leads to '{}/{}' too by now", lun.hba, lun.backstore);
            return Err(Error::new(Kind::Exists, text));
        }
    }
    Ok(())
}

fn luns(tpg: &Node) -> Result<Vec<ForeignLun>> {
    let folder = tpg.at("lun");
    let mut luns = vec![];
    for name in folder.folders()? {
        let Some(device) = lun_device(&folder.at(name))? else { continue };
        luns.push(ForeignLun {
            hba: device.parent().name().to_owned(),
            backstore: device.name().to_owned(),
            device: device.read_if_there("udev_path")?.unwrap_or_default().into(),
            number: device.read_if_there("info")?.as_deref().and_then(number),
            exports: exports(&device)?,
            volume: None,
        });
    }
    Ok(luns)
}

/// Returns who is logged in, or about to be: by an ACL, or without one.
fn logged_in(tpg: &Node) -> Result<Vec<String>> {
    let acls = tpg.at("acls");
    let mut names = vec![];
    for name in acls.folders()? {
        if acls.at(&name).read_if_there("info")?.as_deref().and_then(Info::parse).is_some() {
            names.push(name);
        }
    }
    names.extend(guests(tpg)?);
    Ok(names)
}

/// Returns the device's number from a backstore's `info`, where iblock writes `Major: 254 Minor: 7`.
fn number(info: &str) -> Option<(u32, u32)> {
    let after = |label| {
        let (_, rest) = info.split_once(label)?;
        rest.split_whitespace().next()?.parse().ok()
    };
    Some((after("Major:")?, after("Minor:")?))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{fake::Fake, info::samples},
        *,
    };

    /// As Linux 6.1 writes it.
    const INFO: &str = "Status: ACTIVATED  Max Queue Depth: 128  SectorSize: 512  HwMaxSectors: 2560\n        \
        iBlock device: dm-7  UDEV PATH: /dev/vg/disk7  readonly: 0\n        Major: 254 Minor: 7  CLAIMED: IBLOCK\n";

    fn foreign() -> Iqn {
        "iqn.2003-01.org.other:x".parse().unwrap()
    }

    #[test]
    fn the_device_that_a_backstore_really_holds_is_read_from_its_info() {
        assert_eq!(number(INFO), Some((254, 7)));
        assert_eq!(number("Status: DEACTIVATED  Max Queue Depth: 0"), None);
        assert_eq!(number("Major: x Minor: 7"), None);
    }

    #[test]
    fn a_target_of_ours_is_not_foreign_and_one_that_is_not_there_is_missing() {
        let fake = Fake::new();
        assert_eq!(fake.lio.foreign(&Fake::target()).unwrap_err().kind(), Kind::Exists);
        assert_eq!(fake.lio.foreign(&foreign()).unwrap_err().kind(), Kind::Missing);
    }

    #[test]
    fn guests_and_admitted_initiators_are_both_logged_in() {
        let fake = Fake::new();
        fake.make_foreign(foreign().as_str());
        let acl = fake.lio.root.at("iscsi").at(foreign().as_str()).at("tpgt_7/acls/iqn.x:i");
        std::fs::create_dir_all(acl.path()).unwrap();
        fake.raw(&acl, "info", samples::OPEN_ISCSI.as_bytes());
        let found = fake.lio.foreign(&foreign()).unwrap();
        assert_eq!(found.logged_in, ["iqn.x:i", "iqn.guest:1", "iqn.guest:2"]);
        assert_eq!(found.tpgs, ["tpgt_7"]);
    }

    #[test]
    fn what_is_not_what_was_given_to_us_stays() {
        let fake = Fake::new();
        let device = fake.lio.root.at("core/iblock_3/disk7");
        std::fs::create_dir_all(device.path()).unwrap();
        fake.raw(&device, "udev_path", b"/dev/vg/another\n");
        let from = ForeignExport {
            target: foreign(),
            hba: 3,
            backstore: "disk7".into(),
            device: "/dev/vg/disk7".into(),
            lv: "disk7".parse().unwrap(),
            size: crate::model::Bytes::gib(1),
        };
        assert_eq!(fake.lio.remove_foreign(&from).unwrap_err().kind(), Kind::Exists);
        fake.raw(&device, "udev_path", b"/dev/vg/disk7\n");
        fake.make_foreign(foreign().as_str());
        let error = fake.lio.remove_foreign(&from).unwrap_err();
        assert_eq!(error.kind(), Kind::Busy, "{}", error.chain());
        assert!(device.exists());
        let ours = ForeignExport { target: Fake::target(), ..from };
        assert_eq!(fake.lio.remove_foreign(&ours).unwrap_err().kind(), Kind::Exists);
    }
}
