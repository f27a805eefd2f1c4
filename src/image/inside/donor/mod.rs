//! What runs inside a donor: it copies one of the machine's own disks to the target that its firmware was told of.
//!
//! ```text
//! drivers ─► network and login (iscsistart, by the firmware's table) ─► which disk ─► what is in use ─► copy ─► verify ─► off
//!                                                      each step, and why it ended, to the appliance (report)
//! ```
//!
//! The machine's disks are only read: each is made read-only before anything looks at it.

mod copy;
mod hardware;
mod report;

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::reboot::{RebootMode, reboot};

use self::{
    copy::{Stage, copy, verify},
    hardware::Block,
    report::Report,
};
use super::tree::value;
use crate::{
    error::{Context, Error, Kind, Result},
    host::{
        cmd::{Cmd, Tool},
        disk::gpt,
    },
    image::extents::{Extent, Part, parse, to_copy, total},
    model::Bytes,
};

/// Words of the kernel's command line: the appliance, and which disk.
const APPLIANCE: &str = "sheath.appliance=";
const DISK: &str = "sheath.disk=";
/// Where partclone puts its map and its log.
const MAP: &str = "/tmp/map";
const LOG: &str = "/tmp/partclone.log";
/// Longest time to look through a file system.
const MAPPING: Duration = Duration::from_secs(1800);
/// Longest time for a look at a partition.
const LOOK: Duration = Duration::from_secs(60);
/// What is kept of swap space: its header, which has its UUID.
const SWAP_HEADER: Extent = Extent { start: 0, end: 64 << 10 };
/// How long an end is shown before the machine is switched off.
const SHOWN: Duration = Duration::from_secs(10);

/// Copies the disk, says how it went, and switches the machine off.
pub(super) fn run(cmdline: &str) -> Result<()> {
    let ended = hardware::prepare().and_then(|()| capture(cmdline));
    match &ended {
        Ok(()) => report::show("the disk is copied and verified; this machine can be switched off"),
        Err(error) => report::show(&format!("the capture failed: {}", error.chain())),
    }
    pause(SHOWN);
    nix::unistd::sync();
    reboot(RebootMode::RB_POWER_OFF).map(|never| match never {}).attempt(|| "switch the machine off".into())
}

/// Waits. Without udev nobody tells of a device; it is looked again.
#[allow(clippy::disallowed_methods, reason = "each caller's bound is a constant with its reason")]
fn pause(long: Duration) {
    std::thread::sleep(long);
}

fn capture(cmdline: &str) -> Result<()> {
    let word = |key| cmdline.split_whitespace().find_map(|word| word.strip_prefix(key));
    let appliance = word(APPLIANCE)
        .ok_or_else(|| Error::new(Kind::Missing, format!("the kernel's command line has no {APPLIANCE}")))?;
    let report = Report::new(appliance, &hardware::boot_nic()?);
    let copied = hardware::log_in().and_then(|target| copy_disk(&target, word(DISK), &report));
    match &copied {
        Ok(size) => report.done(*size),
        Err(error) => report.failed(&error.chain()),
    }
    copied.map(drop)
}

/// Copies and verifies; returns the disk's size.
fn copy_disk(target: &Block, wanted: Option<&str>, report: &Report) -> Result<Bytes> {
    let disk = hardware::choose(&hardware::disks(target), wanted)?;
    fits(&disk, target)?;
    Cmd::new(Tool::Blockdev, LOOK).arg("--setro").arg(disk.device()).run()?;
    report::show(&format!("copying '{}', {}", disk.name(), disk.size.human()));
    let extents = to_copy(disk.size, &parts(&disk)?);
    let all = total(&extents);
    let open = |path: PathBuf, writable: bool| {
        File::options()
            .read(true)
            .write(writable)
            .open(&path)
            .attempt(|| format!("open '{}'", path.display()))
    };
    let (from, to) = (open(disk.device(), false)?, open(target.device(), true)?);
    let sums = copy((&from, &to), &extents, &mut |done| report.tell(Stage::Copying, done, all))?;
    to.sync_all().attempt(|| "write the copy's end".into())?;
    // What is read back is to come from the appliance, not from what this kernel remembers.
    Cmd::new(Tool::Blockdev, LOOK).arg("--flushbufs").arg(target.device()).run()?;
    verify(&to, &extents, &sums, &mut |done| report.tell(Stage::Verifying, done, all))?;
    Ok(disk.size)
}

/// Refuses a disk that makes no image.
fn fits(disk: &Block, target: &Block) -> Result<()> {
    let name = disk.name();
    if disk.sector != 512 {
        let text = format!("disk '{name}' has sectors of {} bytes: only 512 can be served", disk.sector);
        return Err(Error::invalid(text));
    }
    if disk.size > target.size {
        let (size, most) = (disk.size.human(), target.size.human());
        return Err(Error::invalid(format!("disk '{name}' has {size}: at most {most} are possible")));
    }
    // Of an MBR, the sealer makes what a blade can boot from.
    gpt::check(&disk.device()).map(drop)
}

/// Returns the disk's partitions, with what is in use of each.
fn parts(disk: &Block) -> Result<Vec<Part>> {
    let found = disk.partitions().into_iter();
    found.map(|(device, at)| Ok(Part { used: used(&device, at)?, at })).collect()
}

/// Returns what is in use of a partition; `None` where nobody can tell: all of it is read then.
fn used(device: &Path, at: Extent) -> Result<Option<Vec<Extent>>> {
    let said = Cmd::new(Tool::Blkid, LOOK).args(["--probe", "--output", "export"]).arg(device).run();
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    match value(&said, "TYPE").unwrap_or_default().as_str() {
        "swap" => Ok(Some(vec![Extent { end: SWAP_HEADER.end.min(at.end - at.start), ..SWAP_HEADER }])),
        "swsuspend" => {
            let text =
                format!("'{}' holds a machine that sleeps: wake it and shut it down", device.display());
            Err(Error::invalid(text))
        }
        // What a journal holds back is in no map.
        "ext2" | "ext3" | "ext4" if !hardware::needs_recovery(device)? => Ok(map(device)),
        _ => Ok(None),
    }
}

/// Has partclone make the map of a file system. One that it does not like is copied as a whole.
fn map(device: &Path) -> Option<Vec<Extent>> {
    let run = Cmd::new(Tool::Partclone, MAPPING).args(["-D", "-L", LOG, "-o", MAP, "-s"]).arg(device).run();
    let read = run.and_then(|_| {
        let map = std::fs::read_to_string(MAP).attempt(|| format!("read '{MAP}'"))?;
        parse(&map)
    });
    let _ = std::fs::remove_file(MAP);
    read.inspect_err(|error| report::show(&format!("all of '{}' is copied: {error}", device.display()))).ok()
}
