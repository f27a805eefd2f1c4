//! The real machine: joins LIO, LVM, netlink, udev, disks and services behind [`Host`].
//!
//! Nothing is decided here. Each step goes to the room that can make it true; each observation is put together from
//! the rooms that know a part of it.

use std::{collections::BTreeMap, fs, fs::File, io::ErrorKind, path::PathBuf, sync::Arc, time::Instant};

use super::{
    Host,
    disk::{cidata, donor, gpt, stat},
    keys::MasterKey,
    kmsg::Log,
    lio::{Acl, Hint, Lio},
    lvm::Lvm,
    netlink, service,
    udev::Udev,
};
use crate::{
    config::Config,
    error::{Error, Result},
    model::{Chap, Credentials, Difference, Export, ImageId, Iqn, LvName, PortName, VolumeId},
    observed::{
        Counters, Donor, LoginFailures, ObservedChassis, ObservedExport, ObservedForeign, Session, Space,
        TargetSummary, Volumes,
    },
    plan::{Changed, Step},
};

/// Where configfs shows LIO.
pub const LIO: &str = "/sys/kernel/config/target";

/// The real machine.
#[derive(Debug)]
pub struct Live {
    lio: Lio,
    lvm: Lvm,
    udev: Udev,
    keys: MasterKey,
    log: Option<Arc<Log>>,
}

impl Live {
    /// Returns the machine with the volume group, the pool and the names of this configuration. Nothing is looked at
    /// yet.
    pub fn new(config: &Config, keys: MasterKey) -> Self {
        Self {
            lio: Lio::new(PathBuf::from(LIO), config.target.iqn_prefix.clone(), keys.clone()),
            lvm: Lvm::new(config.pool.vg.clone(), config.pool.thinpool.clone()),
            udev: Udev::new("/", config.pool.vg.clone()),
            keys,
            log: None,
        }
    }

    /// Returns the machine with this kernel log: what the kernel says of a call that it refuses goes into the error.
    #[must_use]
    pub fn hearing(self, log: Arc<Log>) -> Self {
        Self { log: Some(log), ..self }
    }

    /// Returns LVM's door: imports write to a volume themselves.
    pub fn lvm(&self) -> &Lvm {
        &self.lvm
    }

    /// Makes sure that LIO is there and can be driven.
    ///
    /// # Errors
    /// What is missing or in the way, and what to do about it.
    pub fn check(&self) -> Result<()> {
        self.lio.check()
    }

    /// Tells udev which interface is which slot, and what a stop of the agent left untold of volumes: for the start.
    ///
    /// # Errors
    /// The first failing system call.
    pub fn tell_udev(&self, config: &Config) -> Result<()> {
        for (slot, port) in config.chassis.slots.iter() {
            self.udev.announce_port(port, Some(*slot))?;
        }
        self.udev.catch_up().map(drop)
    }

    fn device(&self, volume: VolumeId) -> PathBuf {
        self.lvm.device(&volume.lv_name())
    }

    fn run_volume_step(&self, step: &Step) -> Option<Result<Changed>> {
        let changed = match step {
            Step::Clone { volume, image, size, tags } => self.lvm.clone(*volume, image, *size, tags),
            Step::Activate { volume } => self.lvm.activate(*volume),
            Step::Partition { volume, layout } => gpt::apply_layout(&self.device(*volume), layout),
            Step::Seed { volume, seed } => cidata::write_seed(&self.device(*volume), seed),
            Step::Tag { volume, add, remove } => self.lvm.tag(*volume, add, remove),
            Step::RemoveVolume { volume } => self.lvm.remove(*volume),
            Step::CreateImage { image, size } => {
                self.lvm.create_image(image, *size).map(|_| Changed::Changed)
            }
            // Finishing only ever adds the tag; publishing gives and takes it.
            Step::FinishImage { image, published } => {
                self.lvm.finish_image(image, *published).and_then(|finished| {
                    let told = self.lvm.publish(image, *published)?;
                    Ok(Changed::from_bool([finished, told].contains(&Changed::Changed)))
                })
            }
            Step::RemoveImage { image } => self.lvm.remove_image(image),
            Step::Grow { volume, size } => self.lvm.enlarge(*volume, *size),
            Step::TakeOver { volume, lv, tags, .. } => self.lvm.take_over(lv, *volume, tags),
            Step::Announce { volume, properties } => self.udev.announce(*volume, properties),
            Step::Promote { image, volume } => self.lvm.promote(image, *volume),
            Step::TagImage { image, add, remove } => self.lvm.tag_image(image, add, remove),
            _ => return None,
        };
        Some(changed)
    }

    /// Adds to a refusal of the kernel's what it said of it: configfs has one number for most of them.
    fn explained(&self, begin: Instant, error: Error) -> Error {
        let Some(log) = self.log.as_ref().filter(|_| error.is_of_the_kernel()) else { return error };
        // Blades that are refused meanwhile have nothing to do with it.
        let lines: Vec<_> = log.since(begin).into_iter().filter(|line| Hint::of(line).is_none()).collect();
        if lines.is_empty() { error } else { error.with_note(format!("kernel: {}", lines.join("; "))) }
    }

    fn run_lio_step(&self, step: &Step) -> Option<Result<Changed>> {
        let begin = Instant::now();
        let changed = match step {
            Step::Backstore { backstore } => self.lio.backstore(backstore),
            Step::Target { target } => self.lio.target(target),
            Step::Lun { target, backstore } => self.lio.lun(target, backstore),
            Step::Acl { target, initiator, volume, chap, nopin } => {
                self.lio.acl(target, &Acl { initiator, volume: *volume, chap: *chap, nopin: *nopin })
            }
            Step::MapLun { target, initiator } => self.lio.map_lun(target, initiator),
            Step::Portal { target, portal } => self.lio.portal(target, *portal),
            Step::RemoveStray { target, stray } => self.lio.remove_stray(target, stray),
            Step::Enable { target } => self.lio.enable(target),
            Step::Disable { target } => self.lio.disable(target),
            Step::RemoveAcl { target, initiator } => self.lio.remove_acl(target, initiator),
            Step::RemoveTarget { target } => self.lio.remove_target(target),
            Step::RemoveBackstore { volume } => self.lio.remove_backstore(*volume),
            Step::RemoveForeign { from } => self.lio.remove_foreign(from),
            Step::DropSession { target, initiator, session } => {
                self.lio.drop_session(target, initiator, *session)
            }
            _ => return None,
        };
        Some(changed.map_err(|error| self.explained(begin, error)))
    }

    fn run_chassis_step(&self, step: &Step) -> Option<Result<Changed>> {
        let changed = match step {
            Step::Bridge { bridge, address } => netlink::bridge(bridge, *address),
            Step::Port { port, bridge, isolated } => netlink::port(port, bridge, *isolated),
            Step::ServiceFile { unit, path, content } => service::install(unit, path, content),
            _ => return None,
        };
        Some(changed)
    }
}

impl Host for Live {
    fn volumes(&self) -> Result<Volumes> {
        self.lvm.volumes()
    }

    fn export(&self, target: &Iqn, volume: VolumeId) -> Result<ObservedExport> {
        let properties = self.udev.announced(volume)?;
        Ok(ObservedExport { properties, ..self.lio.export(target, volume)? })
    }

    fn session(&self, target: &Iqn, initiator: &Iqn) -> Result<Option<Session>> {
        self.lio.session(target, initiator)
    }

    fn chassis(&self, bridge: &PortName, ports: &[PortName], files: &[PathBuf]) -> Result<ObservedChassis> {
        let mut chassis = netlink::observe_chassis(bridge, ports)?;
        for path in files {
            match fs::read_to_string(path) {
                Ok(text) => drop(chassis.files.insert(path.clone(), text)),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io(format!("read '{}'", path.display()), e)),
            }
        }
        Ok(chassis)
    }

    fn targets(&self) -> Result<Vec<TargetSummary>> {
        self.lio.targets()
    }

    fn foreign(&self, target: &Iqn) -> Result<ObservedForeign> {
        let mut found = self.lio.foreign(target)?;
        for lun in &mut found.luns {
            lun.volume = lun.number.map(|number| self.lvm.volume_at(number)).transpose()?.flatten();
        }
        Ok(found)
    }

    fn credentials(&self, volume: VolumeId, chap: Chap) -> Credentials {
        self.keys.credentials(volume, chap)
    }

    fn run(&self, step: &Step) -> Result<Changed> {
        self.run_volume_step(step)
            .or_else(|| self.run_lio_step(step))
            .or_else(|| self.run_chassis_step(step))
            .expect("every step belongs to one of the three")
    }

    fn differences(&self, export: &Export) -> Result<Vec<Difference>> {
        self.lio.differences(export)
    }

    fn counters(&self, target: &Iqn, volume: VolumeId) -> Result<Counters> {
        let disk = stat::read("/sys".as_ref(), &self.device(volume))?;
        Ok(Counters { disk, ..self.lio.counters(target)? })
    }

    fn login_failures(&self, target: &Iqn, known: u64) -> Result<Option<LoginFailures>> {
        self.lio.login_failures(target, known)
    }

    fn donors(&self) -> Result<Vec<Donor>> {
        let pool = self.lvm.disks()?;
        // lsblk has the kernel's names, LVM may have a link's.
        let same = |path: PathBuf| path.canonicalize().unwrap_or(path);
        donor::list(&pool.into_iter().map(same).collect())
    }

    fn space(&self) -> Result<BTreeMap<LvName, Space>> {
        self.lvm.space()
    }

    fn open_image(&self, image: &ImageId) -> Result<File> {
        self.lvm.open_image(image)
    }

    fn close_image(&self, image: &ImageId) {
        self.lvm.close_image(image);
    }
}
