//! A small model of LIO, LVM and the chassis with faults on request: for speed, never the only proof.
//!
//! It keeps the kernel's rules that order plans (no LUN without its backstore, no volume removed while it is served), so
//! that a plan in the wrong order fails here too. `sheathd --sim` and the tests of `plan`, `apply` and `daemon` run on
//! it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Condvar, Mutex, MutexGuard},
};

use crate::{
    error::{Error, Kind, Result},
    host::Host,
    model::{Chap, Credentials, Iqn, LvName, PortName, Secret, Stray, VgName, VolumeId, VolumeState},
    observed::{
        AuthState, Counters, DiskCounters, Donor, LoginFailures, MapState, ObservedAcl, ObservedBackstore,
        ObservedChassis, ObservedExport, ObservedForeign, ObservedTarget, Session, TargetSummary, Volumes,
    },
    plan::{Changed, Step},
};

/// What the simulated machine has.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Machine {
    /// Volumes and pool.
    pub volumes: Volumes,
    /// Targets, ours and foreign ones alike.
    pub targets: BTreeMap<Iqn, ObservedTarget>,
    /// Our backstores.
    pub backstores: BTreeMap<VolumeId, ObservedBackstore>,
    /// What udev was told.
    pub properties: BTreeMap<VolumeId, BTreeMap<String, String>>,
    /// The chassis.
    pub chassis: ObservedChassis,
    /// What volumes' devices have counted.
    pub counted: BTreeMap<VolumeId, DiskCounters>,
    /// Targets that can be looked at to be taken over.
    pub foreign: BTreeMap<Iqn, ObservedForeign>,
    /// What targets have refused.
    pub refused: BTreeMap<Iqn, LoginFailures>,
    /// Other machines' disks that are plugged in.
    pub donors: Vec<Donor>,
}

/// The simulated host.
#[derive(Debug)]
pub struct Sim {
    vg: VgName,
    state: Mutex<State>,
    resumed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    machine: Machine,
    steps: usize,
    fail_at: BTreeMap<usize, Kind>,
    report_fault: Option<Kind>,
    hung: BTreeSet<String>,
}

impl Sim {
    /// Returns a host with this machine.
    pub fn new(vg: VgName, machine: Machine) -> Self {
        Self { vg, state: Mutex::new(State { machine, ..State::default() }), resumed: Condvar::new() }
    }

    /// Makes the nth step from now (0 is the next) fail with this kind, having changed nothing.
    pub fn fail_step(&self, nth: usize, kind: Kind) {
        let mut state = self.state();
        let at = state.steps + nth;
        state.fail_at.insert(at, kind);
    }

    /// Makes each LVM report fail with this kind, until told otherwise.
    pub fn fail_reports(&self, kind: Option<Kind>) {
        self.state().report_fault = kind;
    }

    /// Makes each call about `object`, a name that stands in its step's text, hang until the object is resumed: as the
    /// kernel's do whose device is suspended.
    pub fn hang(&self, object: &str) {
        self.state().hung.insert(object.to_owned());
    }

    /// Lets the calls about this object go on.
    pub fn resume(&self, object: &str) {
        self.state().hung.remove(object);
        self.resumed.notify_all();
    }

    /// Returns the state, once no object that is named in `text` hangs.
    fn state_for(&self, text: &str) -> MutexGuard<'_, State> {
        let hangs = |state: &mut State| state.hung.iter().any(|object| text.contains(object));
        self.resumed.wait_while(self.state(), hangs).expect("no holder panics")
    }

    /// Returns the machine as it is.
    pub fn machine(&self) -> Machine {
        self.state().machine.clone()
    }

    /// Changes the machine behind the agent's back.
    pub fn meddle(&self, change: impl FnOnce(&mut Machine)) {
        change(&mut self.state().machine);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl Host for Sim {
    fn volumes(&self) -> Result<Volumes> {
        let state = self.state();
        match state.report_fault {
            Some(kind) => Err(Error::new(kind, "simulated fault of the LVM report")),
            None => Ok(state.machine.volumes.clone()),
        }
    }

    fn export(&self, target: &Iqn, volume: VolumeId) -> Result<ObservedExport> {
        let machine = &self.state().machine;
        Ok(ObservedExport {
            backstore: machine.backstores.get(&volume).cloned(),
            target: machine.targets.get(target).cloned(),
            properties: machine.properties.get(&volume).cloned().unwrap_or_default(),
        })
    }

    fn session(&self, target: &Iqn, initiator: &Iqn) -> Result<Option<Session>> {
        let machine = &self.state_for(target.as_str()).machine;
        Ok(machine.targets.get(target).and_then(|found| found.session_of(initiator).cloned()))
    }

    fn chassis(&self, _: &PortName, _: &[PortName], _: &[PathBuf]) -> Result<ObservedChassis> {
        Ok(self.state().machine.chassis.clone())
    }

    fn donors(&self) -> Result<Vec<Donor>> {
        Ok(self.state().machine.donors.clone())
    }

    fn targets(&self) -> Result<Vec<TargetSummary>> {
        let machine = &self.state().machine;
        let summary = |(name, found): (&Iqn, &ObservedTarget)| TargetSummary {
            target: name.to_string(),
            ours: found.lun.as_ref().is_some_and(|(lun, _)| VolumeId::from_lv_name(lun).is_some()),
            enabled: found.enabled,
            devices: vec![],
            initiators: found.acls.keys().cloned().collect(),
            portals: found.portals.iter().map(ToString::to_string).collect(),
            sessions: found.acls.values().filter_map(|acl| acl.session.clone()).collect(),
        };
        Ok(machine.targets.iter().map(summary).collect())
    }

    fn foreign(&self, target: &Iqn) -> Result<ObservedForeign> {
        let found = self.state_for(target.as_str()).machine.foreign.get(target).cloned();
        found.ok_or_else(|| missing(format!("target '{target}'")))
    }

    fn credentials(&self, volume: VolumeId, _: Chap) -> Credentials {
        Credentials { user: format!("b-{volume}"), password: Secret::new("simulated".into()), mutual: None }
    }

    fn run(&self, step: &Step) -> Result<Changed> {
        let mut state = self.state_for(&step.to_string());
        let nth = state.steps;
        state.steps += 1;
        if let Some(kind) = state.fail_at.remove(&nth) {
            return Err(Error::new(kind, format!("simulated fault at '{step}'")));
        }
        let before = state.machine.clone();
        let machine = &mut state.machine;
        machine.run_volume_step(step, &self.vg)?;
        machine.run_target_step(step)?;
        machine.run_chassis_step(step);
        Ok(Changed::from_bool(state.machine != before))
    }

    fn counters(&self, target: &Iqn, volume: VolumeId) -> Result<Counters> {
        let machine = &self.state().machine;
        let acls = machine.targets.get(target).into_iter().flat_map(|found| found.acls.values());
        let sessions = acls.filter(|acl| acl.session.is_some()).count();
        let sessions = u32::try_from(sessions).expect("a handful");
        Ok(Counters { sessions, disk: machine.counted.get(&volume).copied(), ..Counters::default() })
    }

    fn login_failures(&self, target: &Iqn, known: u64) -> Result<Option<LoginFailures>> {
        let failures = self.state().machine.refused.get(target).cloned();
        Ok(failures.filter(|failures| failures.refused != known))
    }
}

impl Machine {
    fn run_volume_step(&mut self, step: &Step, vg: &VgName) -> Result<()> {
        match step {
            Step::Clone { volume, image, .. } => {
                self.need_volume(image.lv_name().as_str())?;
                if !self.volumes.volumes.contains_key(&volume.lv_name()) {
                    self.volumes.after(step, vg);
                }
            }
            Step::Activate { volume } | Step::Partition { volume, .. } | Step::Seed { volume, .. } => {
                self.need_volume(volume.lv_name().as_str())?;
                self.volumes.after(step, vg);
            }
            Step::Tag { volume, .. } | Step::Grow { volume, .. } => {
                self.need_volume(volume.lv_name().as_str())?;
                self.volumes.after(step, vg);
            }
            Step::RemoveVolume { volume } if self.backstores.contains_key(volume) => {
                return Err(Error::new(Kind::Busy, format!("remove volume '{volume}': LIO holds it")));
            }
            Step::FinishImage { image, .. } | Step::TagImage { image, .. } => {
                self.need_volume(image.lv_name().as_str())?;
                self.volumes.after(step, vg);
            }
            Step::Promote { image, volume } => {
                self.need_volume(volume.lv_name().as_str())?;
                let found = self.volumes.volumes.get(&image.lv_name());
                if found.is_some_and(|found| found.state == VolumeState::Ready) {
                    return Err(Error::new(Kind::Exists, format!("image '{image}' exists")));
                }
                self.volumes.after(step, vg);
            }
            Step::RemoveVolume { .. } | Step::CreateImage { .. } | Step::RemoveImage { .. } => {
                self.volumes.after(step, vg);
            }
            Step::TakeOver { volume, lv, .. } if !self.volumes.volumes.contains_key(&volume.lv_name()) => {
                if self.foreign.values().any(|target| serves(target, lv)) {
                    return Err(Error::new(Kind::Busy, format!("rename volume '{lv}': LIO holds it")));
                }
                self.volumes.after(step, vg);
            }
            Step::Announce { volume, properties } if properties.is_empty() => {
                self.properties.remove(volume);
            }
            Step::Announce { volume, properties } => {
                self.properties.insert(*volume, properties.clone());
            }
            _ => {}
        }
        Ok(())
    }

    fn run_target_step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Backstore { backstore } => {
                self.need_volume(backstore.volume.lv_name().as_str())?;
                let (device, serial) = (backstore.device.clone(), backstore.serial());
                let made = ObservedBackstore { enabled: true, device, serial, profile: true };
                self.backstores.insert(backstore.volume, made);
            }
            Step::Target { target } => {
                self.targets.entry(target.clone()).or_insert_with(blank_target).profile = true;
            }
            Step::Lun { target, backstore } => {
                if !self.backstores.contains_key(&backstore.volume) {
                    return Err(missing(format!("backstore '{}'", backstore.name())));
                }
                self.target(target)?.lun = Some((backstore.name(), backstore.hba()));
            }
            Step::RemoveTarget { target } => {
                if self.targets.get(target).is_some_and(|found| found.enabled) {
                    return Err(Error::new(Kind::Busy, format!("remove target '{target}': it is enabled")));
                }
                self.targets.remove(target);
            }
            Step::RemoveForeign { from } => {
                self.foreign.remove(&from.target);
            }
            Step::RemoveBackstore { volume } => {
                let name = volume.lv_name().to_string();
                if self.targets.values().any(|found| found.lun.as_ref().is_some_and(|lun| lun.0 == name)) {
                    return Err(Error::new(
                        Kind::Busy,
                        format!("remove backstore '{name}': a LUN links to it"),
                    ));
                }
                self.backstores.remove(volume);
            }
            _ => self.run_tpg_step(step)?,
        }
        Ok(())
    }

    fn run_tpg_step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Acl { target, initiator, chap, nopin, .. } => {
                let auth = if *chap == Chap::Mutual { AuthState::Mutual } else { AuthState::OneWay };
                let acl = self.target(target)?.acls.entry(initiator.to_string()).or_insert_with(blank_acl);
                (acl.auth, acl.nopin_timeout) = (auth, nopin.seconds());
            }
            Step::MapLun { target, initiator } => {
                let found = self.target(target)?;
                let mapped = found.lun.is_some();
                let acl = found.acls.get_mut(initiator.as_str()).filter(|_| mapped);
                acl.ok_or_else(|| missing(format!("LUN or ACL of '{target}'")))?.map = MapState::Mapped;
            }
            Step::Portal { target, portal } => {
                self.target(target)?.portals.insert(*portal);
            }
            Step::RemoveStray { target, stray } => {
                let found = self.target(target)?;
                found.strays.remove(stray);
                found.portals.retain(|portal| *stray != Stray::Portal(portal.to_string()));
            }
            Step::Enable { target } => {
                let found = self.target(target)?;
                if found.acls.values().any(|acl| acl.map != MapState::Mapped) || found.portals.is_empty() {
                    return Err(Error::new(Kind::Failed, format!("enable '{target}': it is half-made")));
                }
                found.enabled = true;
            }
            Step::Disable { target } => {
                // A target that is not there is disabled.
                if let Some(found) = self.targets.get_mut(target) {
                    found.enabled = false;
                    found.acls.values_mut().for_each(|acl| acl.session = None);
                }
            }
            Step::RemoveAcl { target, initiator } => {
                self.target(target)?.acls.remove(initiator);
            }
            Step::DropSession { target, initiator, session } => {
                let acl = self.target(target)?.acls.get_mut(initiator.as_str());
                let acl = acl.ok_or_else(|| missing(format!("ACL of '{initiator}'")))?;
                acl.session.take_if(|found| found.id == *session);
            }
            _ => {}
        }
        Ok(())
    }

    fn run_chassis_step(&mut self, step: &Step) {
        match step {
            Step::Bridge { address, .. } => {
                self.chassis.bridge_up = true;
                self.chassis.addresses.insert(*address);
            }
            Step::Port { port, bridge, isolated } => {
                if let Some(found) = self.chassis.ports.get_mut(port) {
                    (found.up, found.master, found.isolated) = (true, Some(bridge.clone()), *isolated);
                }
            }
            Step::ServiceFile { path, content, .. } => {
                self.chassis.files.insert(path.clone(), content.clone());
            }
            _ => {}
        }
    }

    fn need_volume(&self, name: &str) -> Result<()> {
        let there = self.volumes.volumes.keys().any(|lv| lv.as_str() == name);
        if there { Ok(()) } else { Err(missing(format!("logical volume '{name}'"))) }
    }

    fn target(&mut self, target: &Iqn) -> Result<&mut ObservedTarget> {
        self.targets.get_mut(target).ok_or_else(|| missing(format!("target '{target}'")))
    }
}

fn serves(target: &ObservedForeign, lv: &LvName) -> bool {
    target.luns.iter().any(|lun| lun.volume.as_ref().is_some_and(|volume| volume.lv == *lv))
}

fn missing(what: String) -> Error {
    Error::new(Kind::Missing, format!("find {what}"))
}

fn blank_target() -> ObservedTarget {
    ObservedTarget {
        enabled: false,
        profile: true,
        lun: None,
        acls: BTreeMap::new(),
        portals: BTreeSet::new(),
        strays: BTreeSet::new(),
    }
}

fn blank_acl() -> ObservedAcl {
    ObservedAcl { auth: AuthState::Unset, map: MapState::Missing, nopin_timeout: 15, session: None }
}
