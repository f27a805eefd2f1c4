//! The machine without LVM and udev: volumes are what the fixture says, what udev should know it knows, and everything
//! of LIO is the real one's.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use sheath::{
    error::Result,
    host::{Host, live::Live},
    model::{Chap, Credentials, Iqn, PortName, VolumeId},
    observed::{Counters, LoginFailures, ObservedChassis, ObservedExport, Session, TargetSummary, Volumes},
    plan::{Changed, Step},
};

use crate::fixture::{Fixture, keys};

/// The host.
pub(crate) struct LioAlone {
    live: Live,
    volumes: Volumes,
    announced: BTreeMap<VolumeId, BTreeMap<String, String>>,
    changed: AtomicUsize,
}

impl LioAlone {
    pub(crate) fn new(fixture: &Fixture) -> Self {
        Self {
            live: Live::new(&fixture.config, keys()),
            volumes: fixture.volumes.clone(),
            announced: fixture.announced(),
            changed: AtomicUsize::new(0),
        }
    }

    /// Returns how many steps have changed something.
    pub(crate) fn changed(&self) -> usize {
        self.changed.load(Ordering::Relaxed)
    }
}

impl Host for LioAlone {
    fn volumes(&self) -> Result<Volumes> {
        Ok(self.volumes.clone())
    }

    fn export(&self, target: &Iqn, volume: VolumeId) -> Result<ObservedExport> {
        let properties = self.announced.get(&volume).cloned().unwrap_or_default();
        Ok(ObservedExport { properties, ..self.live.export(target, volume)? })
    }

    fn session(&self, target: &Iqn, initiator: &Iqn) -> Result<Option<Session>> {
        self.live.session(target, initiator)
    }

    fn chassis(&self, _: &PortName, _: &[PortName], _: &[PathBuf]) -> Result<ObservedChassis> {
        Ok(ObservedChassis::default())
    }

    fn counters(&self, target: &Iqn, volume: VolumeId) -> Result<Counters> {
        self.live.counters(target, volume)
    }

    fn login_failures(&self, target: &Iqn, known: u64) -> Result<Option<LoginFailures>> {
        self.live.login_failures(target, known)
    }

    fn targets(&self) -> Result<Vec<TargetSummary>> {
        self.live.targets()
    }

    fn credentials(&self, volume: VolumeId, chap: Chap) -> Credentials {
        self.live.credentials(volume, chap)
    }

    fn run(&self, step: &Step) -> Result<Changed> {
        let changed = match step {
            Step::Bridge { .. } | Step::Port { .. } | Step::ServiceFile { .. } | Step::Announce { .. } => {
                Changed::AlreadyTrue
            }
            // A volume's step would run LVM: the fixture leaves none to do.
            Step::Clone { .. }
            | Step::Activate { .. }
            | Step::Partition { .. }
            | Step::Seed { .. }
            | Step::Tag { .. }
            | Step::RemoveVolume { .. } => panic!("{step}: the fixture's volumes are whole"),
            lio => self.live.run(lio)?,
        };
        if changed == Changed::Changed {
            self.changed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(changed)
    }
}
