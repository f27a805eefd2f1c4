//! What LIO should hold of one blade's disk against what it holds: what is put right at once, and what has to wait.
//!
//! Almost everything changes under a running blade without its noticing: attributes, credentials, a dead mapping, what a
//! hand added. Two things do not: another disk behind the target needs the target made anew, which ends the session; and a
//! portal that is taken away is one that the blade comes back to after a broken connection. Both wait until the blade is
//! off, or until the operator says so. A live TPG is never toggled for anything else.

use crate::{
    model::{Backstore, Chap, Export, NopIn, Stray},
    observed::{AuthState, MapState, ObservedAcl, ObservedBackstore, ObservedExport, SessionKind},
    plan::{Plan, Step},
};

/// Returns the LIO steps that are not true yet; `in_use` says that no session may be ended for them.
pub(super) fn change(export: &Export, found: &ObservedExport, in_use: bool) -> Plan {
    let mut plan = Plan { steps: intruders(export, found), held: vec![] };
    let (rest, last) = if is_another_disk(export, found) {
        (vec![], rebuild(export, found))
    } else {
        (in_place(export, found), stale_portals(export, found))
    };
    plan.steps.extend(rest);
    if in_use { &mut plan.held } else { &mut plan.steps }.extend(last);
    plan
}

/// Returns the steps that serve it where LIO holds nothing of it yet.
pub fn serve(export: &Export) -> Vec<Step> {
    change(export, &ObservedExport::default(), false).steps
}

/// Returns whether the target leads, or would lead, to something else than the blade's disk.
fn is_another_disk(Export { backstore, .. }: &Export, found: &ObservedExport) -> bool {
    let lun = found.target.as_ref().and_then(|target| target.lun.as_ref());
    lun.is_some_and(|lun| *lun != (backstore.name(), backstore.hba()))
        || found.backstore.as_ref().is_some_and(|found| is_wrong(found, backstore))
}

/// Returns whether the backstore holds another device, or says another serial: neither can be changed in place.
fn is_wrong(found: &ObservedBackstore, backstore: &Backstore) -> bool {
    found.enabled && (found.device != backstore.device || found.serial != backstore.serial())
}

/// Returns the steps that make target and backstore anew.
fn rebuild(export: &Export, found: &ObservedExport) -> Vec<Step> {
    let Export { backstore, target, .. } = export;
    let mut steps = vec![];
    if let Some(old) = &found.target {
        if old.enabled {
            steps.push(Step::Disable { target: target.clone() });
        }
        steps.push(Step::RemoveTarget { target: target.clone() });
    }
    let kept = found.backstore.clone().filter(|found| !is_wrong(found, backstore));
    if found.backstore.is_some() && kept.is_none() {
        steps.push(Step::RemoveBackstore { volume: backstore.volume });
    }
    steps.extend(in_place(export, &ObservedExport { backstore: kept, target: None, ..found.clone() }));
    steps
}

/// Returns the steps that change nothing for a blade that is logged in: everything before the portal, the portal before
/// `enable`.
fn in_place(export: &Export, found: &ObservedExport) -> Vec<Step> {
    let Export { backstore, target, initiator, .. } = export;
    let old = found.target.as_ref();
    let mut steps = vec![];
    if !found.backstore.as_ref().is_some_and(|found| found.enabled && found.profile) {
        steps.push(Step::Backstore { backstore: backstore.clone() });
    }
    if !old.is_some_and(|target| target.profile) {
        steps.push(Step::Target { target: target.clone() });
    }
    if old.is_none_or(|target| target.lun.is_none()) {
        steps.push(Step::Lun { target: target.clone(), backstore: backstore.clone() });
    }
    let acl = old.and_then(|target| target.acls.get(initiator.as_str()));
    steps.extend(acl_steps(export, acl));
    let reached = |portal| old.is_some_and(|target| target.portals.contains(portal));
    let portals = export.portals.iter().filter(|portal| !reached(portal));
    steps.extend(portals.map(|portal| Step::Portal { target: target.clone(), portal: *portal }));
    if !old.is_some_and(|target| target.enabled) {
        steps.push(Step::Enable { target: target.clone() });
    }
    steps
}

/// Returns the steps that take away whom a hand let in, and what it added: it was never the blade's.
fn intruders(Export { target, initiator, .. }: &Export, found: &ObservedExport) -> Vec<Step> {
    let Some(old) = &found.target else { return vec![] };
    let others = old.acls.keys().filter(|name| *name != initiator.as_str()).cloned();
    let mut steps: Vec<Step> =
        others.map(|initiator| Step::RemoveAcl { target: target.clone(), initiator }).collect();
    // With its ACL, a mapped LUN of another initiator is gone already.
    let left = old.strays.iter().filter(|stray| match stray {
        Stray::MappedLun(name, _) => name == initiator.as_str(),
        _ => true,
    });
    steps.extend(left.map(|stray| Step::RemoveStray { target: target.clone(), stray: stray.clone() }));
    steps
}

/// Returns the steps that take portals away at which the target is not to be reached any more.
fn stale_portals(Export { target, portals, .. }: &Export, found: &ObservedExport) -> Vec<Step> {
    let Some(old) = &found.target else { return vec![] };
    let stale = old.portals.iter().filter(|portal| !portals.contains(portal));
    stale
        .map(|portal| Step::RemoveStray { target: target.clone(), stray: Stray::Portal(portal.to_string()) })
        .collect()
}

fn acl_steps(export: &Export, found: Option<&ObservedAcl>) -> Vec<Step> {
    let Export { backstore, target, initiator, chap, .. } = export;
    let wanted = match chap {
        Chap::OneWay => AuthState::OneWay,
        Chap::Mutual => AuthState::Mutual,
    };
    let nopin = pings_for(found);
    let mut steps = vec![];
    if !found.is_some_and(|acl| acl.auth == wanted && acl.nopin_timeout == nopin.seconds()) {
        let (target, initiator) = (target.clone(), initiator.clone());
        steps.push(Step::Acl { target, initiator, volume: backstore.volume, chap: *chap, nopin });
    }
    if !found.is_some_and(|acl| acl.map == MapState::Mapped) {
        steps.push(Step::MapLun { target: target.clone(), initiator: initiator.clone() });
    }
    steps
}

/// Returns whether LIO is to ping: an operating system answers, iPXE never does. Who is logged in is read with the ACL
/// itself, so that an agent that has just started does not switch a running blade's pings off and on.
fn pings_for(found: Option<&ObservedAcl>) -> NopIn {
    let session = found.and_then(|acl| acl.session.as_ref());
    match session.map(|session| session.kind) {
        Some(SessionKind::Os) => NopIn::On,
        Some(SessionKind::Ipxe) | None => NopIn::Off,
    }
}
