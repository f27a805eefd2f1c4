//! Drift: what somebody else changed in an export that we had made, and which steps mend it. Pure.
//!
//! Only for a blade whose wish has been carried out before: then whatever LIO's part of the plan still wants is somebody
//! else's doing. What follows from a session (pings on or off) is our own wish and never drift.

use crate::{
    model::{Backstore, Chap, Difference, Export, NopIn, Part, Stray},
    observed::{AuthState, MapState, ObservedAcl, ObservedExport, ObservedTarget},
    plan::Step,
};

/// Returns what differs, in the order in which it would be mended. `named` are the attributes and credentials that
/// differ, as the host names them; a part that it does not name is told as a whole.
pub fn drift(export: &Export, found: &ObservedExport, named: &[Difference]) -> Vec<Difference> {
    let mut all = backstore(&export.backstore, found);
    match &found.target {
        Some(target) => all.extend(target_drift(export, target)),
        None => all.push(Difference::removed(Part::Target, "target")),
    }
    // The name of what differs is worth more than that something does.
    let vague = |difference: &Difference| difference.wanted.as_deref() == Some(OURS);
    all.retain(|difference| !vague(difference) || !named.iter().any(|name| name.part == difference.part));
    all.extend(named.iter().cloned());
    all.sort_by_key(|difference| difference.part);
    all
}

/// Returns the steps that may run although hand edits are to be left as they are: those that mend none of them.
pub fn leaving(mut steps: Vec<Step>, drift: &[Difference]) -> Vec<Step> {
    let gone = |part| drift.iter().any(|d| d.part == part && d.found.is_none());
    let differs = |part| drift.iter().any(|d| d.part == part);
    steps.retain(|step| match part_of(step) {
        None => true,
        Some(Part::Backstore) => !differs(Part::Backstore),
        // Nothing can be mended in a target that is not there, or that would have to go first.
        Some(_) if gone(Part::Target) || differs(Part::Lun) => false,
        Some(Part::MappedLun) if gone(Part::Acl) => false,
        Some(part) => !differs(part),
    });
    steps
}

/// What a table of attributes is that nobody named more exactly.
const OURS: &str = "ours";

fn vague(part: Part, object: &str) -> Difference {
    Difference::changed(part, object, OURS, "not ours")
}

fn backstore(wanted: &Backstore, found: &ObservedExport) -> Vec<Difference> {
    let Some(found) = &found.backstore else {
        return vec![Difference::removed(Part::Backstore, "backstore")];
    };
    let mut all = vec![];
    if !found.enabled {
        all.push(Difference::changed(Part::Backstore, "backstore/enable", "1", "0"));
    }
    if found.enabled && found.serial != wanted.serial() {
        let object = "backstore/wwn/vpd_unit_serial";
        all.push(Difference::changed(Part::Backstore, object, &wanted.serial(), &found.serial));
    }
    if found.enabled && found.device != wanted.device {
        let [ours, now] = [&wanted.device, &found.device].map(|device| device.display().to_string());
        all.push(Difference::changed(Part::Backstore, "backstore/udev_path", &ours, &now));
    }
    if found.enabled && !found.profile {
        all.push(vague(Part::Backstore, "backstore/attrib"));
    }
    all
}

fn target_drift(export: &Export, found: &ObservedTarget) -> Vec<Difference> {
    let mut all = vec![];
    if !found.profile {
        all.push(vague(Part::Target, "tpgt_1/attrib"));
    }
    all.extend(lun(&export.backstore, found));
    let ours = export.initiator.as_str();
    let acl = format!("tpgt_1/acls/{ours}");
    match found.acls.get(ours) {
        Some(found) => all.extend(acl_drift(export.chap, found, &acl)),
        None => all.push(Difference::removed(Part::Acl, acl)),
    }
    let strangers = found.acls.keys().filter(|name| *name != ours);
    all.extend(strangers.map(|name| Difference::added(Part::Stranger, format!("tpgt_1/acls/{name}"))));
    // A portal too many may be one of an older configuration; it is no drift.
    let added = found.strays.iter().filter(|stray| !matches!(stray, Stray::Portal(_)));
    all.extend(added.map(|stray| Difference::added(Part::Stray, stray.to_string())));
    let missing = export.portals.iter().filter(|portal| !found.portals.contains(portal));
    all.extend(missing.map(|portal| Difference::removed(Part::Portal, format!("tpgt_1/np/{portal}"))));
    if !found.enabled {
        all.push(Difference::changed(Part::Enable, "tpgt_1/enable", "1", "0"));
    }
    all
}

fn lun(wanted: &Backstore, found: &ObservedTarget) -> Option<Difference> {
    let object = "tpgt_1/lun/lun_0";
    match &found.lun {
        None => Some(Difference::removed(Part::Lun, object)),
        Some((name, hba)) if (name, *hba) != (&wanted.name(), wanted.hba()) => {
            Some(Difference::changed(Part::Lun, object, &wanted.name(), name))
        }
        Some(_) => None,
    }
}

fn acl_drift(chap: Chap, found: &ObservedAcl, acl: &str) -> Vec<Difference> {
    let mut all = vec![];
    let wanted = match chap {
        Chap::OneWay => AuthState::OneWay,
        Chap::Mutual => AuthState::Mutual,
    };
    if found.auth != wanted {
        all.push(vague(Part::Acl, &format!("{acl}/auth")));
    }
    let pings = [NopIn::Off, NopIn::On].map(NopIn::seconds);
    if !pings.contains(&found.nopin_timeout) {
        let wanted = pings.map(|seconds| seconds.to_string()).join(" or ");
        let object = format!("{acl}/attrib/nopin_timeout");
        all.push(Difference::changed(Part::Acl, object, &wanted, &found.nopin_timeout.to_string()));
    }
    let mapped = format!("{acl}/lun_0");
    match found.map {
        MapState::Mapped => {}
        MapState::Missing => all.push(Difference::removed(Part::MappedLun, mapped)),
        MapState::Broken => all.push(Difference::changed(Part::MappedLun, mapped, "writable", "broken")),
    }
    all
}

/// Returns the part that a step mends, or `None` where hand edits in LIO are not its business.
fn part_of(step: &Step) -> Option<Part> {
    match step {
        Step::Backstore { .. } | Step::RemoveBackstore { .. } => Some(Part::Backstore),
        Step::Target { .. } | Step::RemoveTarget { .. } => Some(Part::Target),
        Step::Lun { .. } => Some(Part::Lun),
        Step::Acl { .. } => Some(Part::Acl),
        Step::RemoveAcl { .. } => Some(Part::Stranger),
        Step::RemoveStray { stray: Stray::Portal(_), .. } => None,
        Step::RemoveStray { .. } => Some(Part::Stray),
        Step::MapLun { .. } => Some(Part::MappedLun),
        Step::Portal { .. } => Some(Part::Portal),
        Step::Enable { .. } | Step::Disable { .. } => Some(Part::Enable),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
