//! Every effect on the machine, behind one trait.
//!
//! [`Host`] answers what exists and makes one step true. Behaviour belongs in `policy` and `plan`; what is below here
//! only carries it out. `live` joins the real rooms (configfs, LVM, netlink, udev, disk); `sim` is a small model of them
//! for tests and fault injection.

pub mod cmd;
pub mod configfs;
pub mod disk;
pub mod dnsmasq;
pub mod file;
pub mod keys;
pub mod kmsg;
pub mod lio;
pub mod live;
pub mod lvm;
pub mod netlink;
pub mod privileges;
pub mod service;
pub mod sim;
pub mod ssh;
pub mod udev;

pub use crate::observed::{
    AuthState, Counters, DiskCounters, Donor, ForeignLun, ForeignVolume, LoginFailures, MapState,
    ObservedAcl, ObservedBackstore, ObservedExport, ObservedForeign, ObservedTarget, RefusalCause, Session,
    SessionKind, Space, TargetSummary, Volumes,
};

use std::{collections::BTreeMap, fs::File, path::PathBuf};

use crate::{
    error::{Error, Kind, Result},
    model::{Chap, Credentials, Difference, Export, ImageId, Iqn, LvName, PortName, VolumeId},
    observed::ObservedChassis,
    plan::{Changed, Step},
};

/// What the agent needs from the machine.
pub trait Host: Send + Sync {
    /// Returns all volumes of ours and the pool's usage: one LVM report, whatever their number.
    ///
    /// # Errors
    /// The LVM command's failure; a failed report is never an empty one.
    fn volumes(&self) -> Result<Volumes>;

    /// Returns what LIO holds for one blade's disk. Costs the same with 1 or 2,000 blades.
    ///
    /// # Errors
    /// [`Kind::Missing`] where configfs or LIO's modules are not there.
    fn export(&self, target: &Iqn, volume: VolumeId) -> Result<ObservedExport>;

    /// Returns the initiator's session with the target: one file read, asked every second of every served blade.
    ///
    /// # Errors
    /// As [`Host::export`]; a target that is not there has no session.
    fn session(&self, target: &Iqn, initiator: &Iqn) -> Result<Option<Session>>;

    /// Returns the chassis: the bridge, these ports, the content of these files.
    ///
    /// # Errors
    /// The netlink dump's failure; a refused dump is never an empty chassis.
    fn chassis(&self, bridge: &PortName, ports: &[PortName], files: &[PathBuf]) -> Result<ObservedChassis>;

    /// Returns all targets of this machine, ours and foreign.
    ///
    /// # Errors
    /// As [`Host::export`].
    fn targets(&self) -> Result<Vec<TargetSummary>>;

    /// Returns what there is to know of a foreign target before it is taken over. A machine without foreign targets knows of
    /// none.
    ///
    /// # Errors
    /// [`Kind::Missing`] where there is no such target,
    /// [`Kind::Exists`] where it is ours.
    fn foreign(&self, target: &Iqn) -> Result<ObservedForeign> {
        Err(Error::new(Kind::Missing, format!("look at target '{target}': there is no such target")))
    }

    /// Returns what the blade that owns this volume logs in with: derived, stored nowhere.
    fn credentials(&self, volume: VolumeId, chap: Chap) -> Credentials;

    /// Makes one step true.
    ///
    /// # Errors
    /// The step's failure; what it had changed until then stays and is found by the next observation.
    fn run(&self, step: &Step) -> Result<Changed>;

    /// Returns the attributes and credentials of one blade's export that are not as we made them, by name: for people,
    /// once an observation said that something differs. A machine that cannot name them names none.
    ///
    /// # Errors
    /// As [`Host::export`].
    fn differences(&self, _export: &Export) -> Result<Vec<Difference>> {
        Ok(vec![])
    }

    /// Returns what was counted for one blade's disk and target. Some ten files; read only when somebody looks.
    ///
    /// # Errors
    /// As [`Host::export`]; a target that is not there has counted nothing.
    fn counters(&self, target: &Iqn, volume: VolumeId) -> Result<Counters>;

    /// Returns what was counted of refused logins to the target, and who the last was; `None` where the count is still
    /// `known`: one file read then.
    ///
    /// # Errors
    /// As [`Host::export`]; a target that is not there has refused nobody.
    fn login_failures(&self, target: &Iqn, known: u64) -> Result<Option<LoginFailures>>;

    /// Returns the disks that are not the machine's own. A machine that has none by nature says so.
    ///
    /// # Errors
    /// The failure of a tool; a failed look is never an empty list.
    fn donors(&self) -> Result<Vec<Donor>> {
        Ok(vec![])
    }

    /// Returns how much of the pool each volume takes. Counts the whole pool; only when somebody looks. A machine that
    /// cannot count says nothing.
    ///
    /// # Errors
    /// What keeps the pool from being counted.
    fn space(&self) -> Result<BTreeMap<LvName, Space>> {
        Ok(BTreeMap::new())
    }

    /// Opens a whole image to be read. Its volume is there until [`Host::close_image`].
    ///
    /// # Errors
    /// [`Kind::Missing`] where it does not exist, or has no content on this machine; else what keeps it from being read.
    fn open_image(&self, image: &ImageId) -> Result<File> {
        Err(Error::new(Kind::Missing, format!("read image '{image}': this machine has no content of it")))
    }

    /// Lets an image's volume go to sleep again, unless somebody else reads it.
    fn close_image(&self, _image: &ImageId) {}
}
