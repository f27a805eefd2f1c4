//! LVM: one report for everything, and steps that make one thing true.
//!
//! ```text
//! report   what exists: rows decoded from LVM's JSON
//! clones   a blade's disk: clone, activate, tag, take over, remove
//! images   golden images: create, promote, finish, publish, remove
//! pool     the pool itself: physical volume, group, thin pool, and whether it has room
//! space    how much of the pool each volume takes, and shares with none
//! usage    how full the pool is, by the kernel's word
//! transaction  what a killed command leaves in the pool
//! ```
//!
//! All commands of a volume group go through one queue: LVM locks the group anyway, and a step of several commands is
//! whole for its neighbours. Only volumes with our names are ever touched. LVM alone knows the truth: nothing is cached.
//!
//! Volumes of ours carry LVM's "skip activation" flag, so that nothing but us activates them: a boot's `vgchange -aay`
//! of a thousand clones takes minutes, and nobody needs them before their blades come.

mod clones;
mod images;
mod pool;
mod report;
mod space;
mod transaction;
mod usage;

pub use images::Restless;

use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    error::{Error, Kind, Result},
    host::{
        ForeignVolume, Volumes,
        cmd::{Cmd, Tool},
    },
    model::{LvName, VgName},
};

/// Longest time for a report, which only reads: it may have to wait for a change that somebody else makes.
pub(crate) const REPORT: Duration = Duration::from_secs(60);

/// Longest time for a change.
///
/// Changes take tenths of a second, but the first activation after a start runs `thin_check` over the pool's metadata,
/// which takes minutes on a large one, and a command that is killed too early may leave the pool suspended.
pub(crate) const CHANGE: Duration = Duration::from_secs(300);

/// Bytes of device-mapper's sectors.
const SECTOR: u64 = 512;

/// LVM's configuration for our commands alone.
///
/// No archive: it keeps two copies of the whole group for each change. No scan of volumes: a blade's disk may carry a
/// physical volume of the blade's own. No monitoring: dmeventd would be started inside our unit and die with it, and
/// the pool's fill is watched by the agent. Named in full because the machine's lvm.conf may say anything.
///
/// `report_command_log`: since 2.03.2x a report in JSON holds the errors too, and standard error is left empty.
const CONFIG: &str = "backup { backup=0 archive=0 } devices { scan_lvs=0 } activation { monitoring=0 } log { report_command_log=0 }";

/// One volume group and the thin pool in it.
#[derive(Debug)]
pub struct Lvm {
    vg: VgName,
    thinpool: LvName,
    queue: Mutex<()>,
    /// Whether nothing can be left of a command that was killed: looked at before our first change, and after a kill.
    settled: AtomicBool,
    /// Held while the pool's blocks are counted.
    counting: Mutex<()>,
}

/// The right to run commands: one holder at a time.
struct Turn<'a> {
    lvm: &'a Lvm,
    _guard: MutexGuard<'a, ()>,
}

impl Lvm {
    /// Returns the door to this volume group and its pool. Nothing is looked at yet.
    pub fn new(vg: VgName, thinpool: LvName) -> Self {
        Self {
            vg,
            thinpool,
            queue: Mutex::default(),
            settled: AtomicBool::new(false),
            counting: Mutex::default(),
        }
    }

    /// Returns the path of a volume's device.
    pub fn device(&self, lv: &LvName) -> PathBuf {
        Path::new("/dev").join(self.vg.as_str()).join(lv.as_str())
    }

    /// Returns all volumes of ours and the pool's fill, by one command whatever their number.
    ///
    /// # Errors
    /// [`Kind::Missing`] where the volume group or the pool does not exist; else the command's failure. A failed report
    /// is never an empty one.
    pub fn volumes(&self) -> Result<Volumes> {
        self.turn().volumes()
    }

    /// Returns the logical volume of the group that is the block device of this number, ours or not.
    ///
    /// # Errors
    /// As [`Lvm::volumes`].
    pub fn volume_at(&self, number: (u32, u32)) -> Result<Option<ForeignVolume>> {
        let vg = self.vg.as_str();
        let json = self
            .turn()
            .run("lvs", report::args(report::DEVICE).into_iter().chain([vg]))
            .map_err(|e| missing_group(vg, e))?;
        let rows: Vec<report::DeviceRow> = report::rows(&json)?;
        rows.iter().find(|row| row.is(number)).map(|row| row.foreign(&self.thinpool)).transpose()
    }

    /// Waits for our turn. A holder that panicked has left nothing half-done that LVM does not know of.
    fn turn(&self) -> Turn<'_> {
        Turn { lvm: self, _guard: self.queue.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Returns a volume's name as LVM takes it.
    fn path(&self, lv: &LvName) -> String {
        format!("{}/{lv}", self.vg)
    }
}

impl Turn<'_> {
    /// Runs one LVM command and returns its standard output, once what a killed one has left is put right.
    fn run<'a>(&self, verb: &str, args: impl IntoIterator<Item = &'a str>) -> Result<Vec<u8>> {
        let args: Vec<&str> = args.into_iter().collect();
        let changes_volumes = verb.starts_with("lv") && verb != "lvs";
        if changes_volumes && !self.lvm.settled.load(Ordering::Relaxed) {
            self.settle()?;
            self.lvm.settled.store(true, Ordering::Relaxed);
        }
        let done = match self.command(verb, &args) {
            Err(error) if transaction::is_half_told(&error) => {
                self.end_transaction().map_err(|e| e.because(error))?;
                self.command(verb, &args)
            }
            done => done,
        };
        if done.as_ref().is_err_and(transaction::was_killed) {
            self.lvm.settled.store(false, Ordering::Relaxed);
        }
        done.map_err(|error| self.lvm.explain_transaction(error))
    }

    /// Runs one LVM command as it is.
    fn command(&self, verb: &str, args: &[&str]) -> Result<Vec<u8>> {
        let limit = if matches!(verb, "lvs" | "vgs" | "pvs") { REPORT } else { CHANGE };
        let cmd = Cmd::new(Tool::Lvm, limit)
            .env("LVM_SUPPRESS_FD_WARNINGS", "1")
            .args([verb, "--yes", "--config", CONFIG])
            .args(args);
        Ok(cmd.run()?.stdout)
    }

    /// Returns everything of ours.
    fn volumes(&self) -> Result<Volumes> {
        self.rows()?.volumes(&self.lvm.vg, &self.lvm.thinpool)
    }

    /// Returns all rows of the volume group.
    fn rows(&self) -> Result<report::Rows> {
        let vg = self.lvm.vg.as_str();
        let json = self
            .run("lvs", report::args(report::VOLUME).into_iter().chain([vg]))
            .map_err(|e| missing_group(vg, e))?;
        report::Rows::parse(&json)
    }
}

/// Returns device-mapper's name of a logical volume: each hyphen is doubled, so that a single one separates.
pub(super) fn dm_name(vg: &VgName, lv: &LvName) -> String {
    format!("{}-{}", vg.as_str().replace('-', "--"), lv.as_str().replace('-', "--"))
}

/// Returns the error with the kind that a missing volume group has.
///
/// LVM's exit status is 5 for everything, so that its words are all there is to tell a missing group from a broken one.
fn missing_group(vg: &str, error: Error) -> Error {
    if error.to_string().contains(&format!("Volume group \"{vg}\" not found")) {
        return Error::new(Kind::Missing, format!("there is no volume group '{vg}'")).because(error);
    }
    error
}
