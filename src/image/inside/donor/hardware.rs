//! The donor's hardware: its drivers, the network that it started from, the target, its own disks.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::super::tree::{list, name, text};
use crate::{
    error::{Context, Error, Kind, Result},
    host::cmd::{Cmd, Tool},
    image::extents::Extent,
    model::Bytes,
};

/// What sysfs counts in.
const SECTOR: u64 = 512;
/// The firmware's table of what iPXE was told: NIC, address, target, CHAP.
const IBFT: &str = "/sys/firmware/ibft";
/// Longest time for all drivers of a bus, emulated.
const LOADING: Duration = Duration::from_secs(120);
/// How long a NIC or a disk may take to appear.
const APPEARING: Duration = Duration::from_secs(60);
/// How often it is looked.
const AGAIN: Duration = Duration::from_millis(200);
/// How long what is behind a bus takes to show.
const SETTLING: Duration = Duration::from_secs(1);
/// Longest time for the login.
const LOGIN: Duration = Duration::from_secs(120);
/// So deep do devices stand below each other.
const DEEPEST: usize = 16;
/// Block devices that are no disks of the machine's own.
const NO_DISKS: [&str; 8] = ["loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd"];
/// In the superblock of ext2, ext3 and ext4, which is at 1024: magic number, and a bit of the incompatible features, "needs
/// recovery" (kernel: Documentation/filesystems/ext4/super.rst).
const EXT_MAGIC: (u64, [u8; 2]) = (1024 + 0x38, [0x53, 0xef]);
const EXT_INCOMPAT: (u64, u8) = (1024 + 0x60, 0x04);

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    sys: PathBuf,
    /// Its size.
    pub(super) size: Bytes,
    /// Its logical sector, in bytes.
    pub(super) sector: u64,
}

impl Block {
    fn at(sys: PathBuf) -> Self {
        let number = |file: &str| text(&sys.join(file)).trim().parse::<u64>().unwrap_or_default();
        let (size, sector) = (Bytes(number("size") * SECTOR), number("queue/logical_block_size"));
        Self { sys, size, sector }
    }

    /// Returns its kernel name.
    pub(super) fn name(&self) -> String {
        name(&self.sys)
    }

    /// Returns its device.
    pub(super) fn device(&self) -> PathBuf {
        Path::new("/dev").join(self.name())
    }

    /// Returns its partitions: device and place.
    pub(super) fn partitions(&self) -> Vec<(PathBuf, Extent)> {
        let found = list(&self.sys).into_iter().filter(|path| path.join("partition").is_file());
        let place = |path: PathBuf| {
            let number =
                |file: &str| text(&path.join(file)).trim().parse::<u64>().unwrap_or_default() * SECTOR;
            let (start, size) = (number("start"), number("size"));
            (Path::new("/dev").join(name(&path)), Extent { start, end: start + size })
        };
        found.map(place).collect()
    }

    /// Returns whether it is what somebody calls so: kernel name, serial number, WWN.
    fn is_called(&self, wanted: &str) -> bool {
        let files = ["serial", "device/serial", "device/wwid", "wwid"];
        self.name() == wanted || files.iter().any(|file| text(&self.sys.join(file)).trim() == wanted)
    }

    /// Returns whether it is a disk of the machine's own that nobody takes out. One of several paths to a disk is none: the
    /// kernel hides each path to an NVMe disk (`nvme0c0n1`) behind the disk itself (`nvme0n1`).
    fn is_own(&self) -> bool {
        let (kind, says_yes) = (self.name(), |file: &str| text(&self.sys.join(file)).trim() == "1");
        self.size.0 > 0
            && !is_remote(&self.sys)
            && !NO_DISKS.iter().any(|other| kind.starts_with(other))
            && !says_yes("removable")
            && !says_yes("hidden")
    }

    /// Returns it for people.
    fn shown(&self) -> String {
        let model = text(&self.sys.join("device/model"));
        format!("{} ({}, {})", self.name(), self.size.human(), model.trim())
    }
}

/// Where iscsistart keeps what it learns, and its lock.
const INITIATOR: [&str; 2] = ["/var/lib/iscsi", "/run/lock/iscsi"];

/// Loads the drivers of everything that the kernel has found, buses first: what is behind one shows when its driver is there.
pub(super) fn prepare() -> Result<()> {
    for folder in INITIATOR {
        fs::create_dir_all(folder).attempt(|| format!("make '{folder}'"))?;
    }
    let mut known = BTreeSet::new();
    for _ in 0..3 {
        let mut found = BTreeSet::new();
        aliases(Path::new("/sys/devices"), DEEPEST, &mut found);
        let new: Vec<String> = found.difference(&known).cloned().collect();
        if new.is_empty() {
            break;
        }
        // A device without a driver is nothing that we need, or is found out by whoever needs it.
        let _ = Cmd::new(Tool::Modprobe, LOADING).args(["-a", "-q", "-b", "--"]).args(&new).run();
        known.extend(new);
        super::pause(SETTLING);
    }
    let _ = Cmd::new(Tool::Modprobe, LOADING).args(["-a", "-q", "iscsi_ibft", "iscsi_tcp", "sd_mod"]).run();
    if Path::new(IBFT).join("target0").is_dir() {
        return Ok(());
    }
    Err(Error::new(Kind::Missing, "the firmware has left no table of its target (iBFT): was it iPXE?"))
}

/// Gathers the names by which devices ask for drivers.
fn aliases(folder: &Path, deep: usize, found: &mut BTreeSet<String>) {
    let alias = text(&folder.join("modalias"));
    if !alias.trim().is_empty() {
        found.insert(alias.trim().to_owned());
    }
    if deep == 0 {
        return;
    }
    let folders = list(folder).into_iter().filter(|path| !path.is_symlink() && path.is_dir());
    folders.for_each(|path| aliases(&path, deep - 1, found));
}

/// Returns the address of the NIC that the firmware has started from, once it is there.
pub(super) fn boot_nic() -> Result<String> {
    let mac = text(&Path::new(IBFT).join("ethernet0/mac")).trim().to_ascii_lowercase();
    let there =
        || list(Path::new("/sys/class/net")).iter().any(|nic| text(&nic.join("address")).trim() == mac);
    appear(&format!("the network interface {mac} (is there a driver for it?)"), || {
        there().then_some(mac.clone())
    })
}

/// Brings the network up and logs in, both as the firmware's table says; returns the target's disk.
pub(super) fn log_in() -> Result<Block> {
    Cmd::new(Tool::Iscsistart, LOGIN).arg("-N").run().map_err(|e| e.while_doing("bring the network up"))?;
    Cmd::new(Tool::Iscsistart, LOGIN).arg("-b").run().map_err(|e| e.while_doing("log in to the target"))?;
    appear("the target's disk", || {
        blocks().into_iter().find(|block| is_remote(&block.sys) && block.size.0 > 0)
    })
}

/// Returns the machine's own disks.
pub(super) fn disks(target: &Block) -> Vec<Block> {
    blocks().into_iter().filter(|block| block != target && block.is_own()).collect()
}

/// Returns the one that is meant.
///
/// # Errors
/// [`Kind::Missing`] where there is none, [`Kind::Invalid`] where there are several and nobody said which.
pub(super) fn choose(disks: &[Block], wanted: Option<&str>) -> Result<Block> {
    let all = disks.iter().map(Block::shown).collect::<Vec<_>>().join(", ");
    match (disks, wanted) {
        ([], _) => Err(Error::new(Kind::Missing, "this machine has no disk of its own, or no driver for it")),
        (_, Some(wanted)) => disks.iter().find(|disk| disk.is_called(wanted)).cloned().ok_or_else(|| {
            Error::new(Kind::Missing, format!("this machine has no disk '{wanted}': it has {all}"))
        }),
        ([one], None) => Ok(one.clone()),
        _ => Err(Error::invalid(format!("this machine has several disks, say which with --disk: {all}"))),
    }
}

/// Returns whether an ext file system has something in its journal that is not where it belongs.
pub(super) fn needs_recovery(device: &Path) -> Result<bool> {
    let (mut magic, mut features) = ([0; 2], [0; 1]);
    read_at(device, EXT_MAGIC.0, &mut magic)?;
    read_at(device, EXT_INCOMPAT.0, &mut features)?;
    Ok(magic != EXT_MAGIC.1 || features[0] & EXT_INCOMPAT.1 != 0)
}

fn read_at(device: &Path, at: u64, bytes: &mut [u8]) -> Result<()> {
    let read = File::open(device).and_then(|file| file.read_exact_at(bytes, at));
    read.attempt(|| format!("read '{}'", device.display()))
}

fn blocks() -> Vec<Block> {
    list(Path::new("/sys/block")).into_iter().map(Block::at).collect()
}

/// Returns whether the disk hangs on an iSCSI session: its place in sysfs says so.
fn is_remote(sys: &Path) -> bool {
    fs::canonicalize(sys).is_ok_and(|place| place.to_string_lossy().contains("/session"))
}

/// Waits until it is there.
fn appear<T>(what: &str, look: impl Fn() -> Option<T>) -> Result<T> {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if begin.elapsed() > APPEARING {
            let seconds = APPEARING.as_secs();
            return Err(Error::new(Kind::Timeout, format!("{what} has not appeared within {seconds} s")));
        }
        super::pause(AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(folder: &Path, name: &str, serial: &str) -> Block {
        let sys = folder.join(name);
        for (file, content) in [
            ("size", "4096"),
            ("queue/logical_block_size", "512"),
            ("serial", serial),
            ("device/model", "DISK 1 "),
        ] {
            let path = sys.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            crate::host::file::save(&path, content.as_bytes(), 0o600).unwrap();
        }
        Block::at(sys)
    }

    #[test]
    fn the_only_disk_is_meant_and_of_several_one_has_to_be_named() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (block(dir.path(), "sda", "S1\n"), block(dir.path(), "sdb", "S2"));
        assert_eq!(choose(std::slice::from_ref(&first), None).unwrap(), first);
        let both = [first.clone(), second.clone()];
        let error = choose(&both, None).unwrap_err().to_string();
        assert!(error.contains("sda (2.0 MiB, DISK 1), sdb") && error.contains("--disk"), "{error}");
        assert_eq!(choose(&both, Some("S2")).unwrap(), second);
        assert_eq!(choose(&both, Some("sda")).unwrap(), first);
        assert_eq!(choose(&both, Some("S")).unwrap_err().kind(), Kind::Missing);
        assert_eq!(choose(&[], None).unwrap_err().kind(), Kind::Missing);
    }

    #[test]
    fn what_is_hidden_or_removable_is_no_disk_of_the_machines_own() {
        let dir = tempfile::tempdir().unwrap();
        let mark = |block: &Block, file: &str, says: &[u8]| {
            crate::host::file::save(&block.sys.join(file), says, 0o600).unwrap();
        };
        let [disk, path, stick, cd] =
            ["nvme0n1", "nvme0c0n1", "sdb", "sr0"].map(|name| block(dir.path(), name, "S1"));
        mark(&disk, "hidden", b"0\n");
        mark(&path, "hidden", b"1\n");
        mark(&stick, "removable", b"1\n");
        assert_eq!([&disk, &path, &stick, &cd].map(Block::is_own), [true, false, false, false]);
    }

    #[test]
    fn a_journal_that_was_not_replayed_is_seen() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(8192).unwrap();
        assert!(needs_recovery(file.path()).unwrap(), "what is no ext is not trusted either");
        file.as_file().write_all_at(&EXT_MAGIC.1, EXT_MAGIC.0).unwrap();
        file.as_file().write_all_at(&[0x42], EXT_INCOMPAT.0).unwrap();
        assert!(!needs_recovery(file.path()).unwrap());
        file.as_file().write_all_at(&[0x46], EXT_INCOMPAT.0).unwrap();
        assert!(needs_recovery(file.path()).unwrap());
    }

    #[test]
    fn devices_are_asked_for_their_drivers_through_all_buses() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("pci/usb")).unwrap();
        crate::host::file::save(&dir.path().join("pci/modalias"), b"pci:v1\n", 0o600).unwrap();
        crate::host::file::save(&dir.path().join("pci/usb/modalias"), b"usb:v2\n", 0o600).unwrap();
        let mut found = BTreeSet::new();
        aliases(dir.path(), DEEPEST, &mut found);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["pci:v1", "usb:v2"]);
    }
}
