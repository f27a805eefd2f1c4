//! The image's disk as the workshop sees it: which partitions, which of them is root, and how they are mounted.
//!
//! The kernel that reads these file systems is the workshop's, in a guest that is thrown away: whatever they do to it, the
//! appliance's own kernel never sees them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::mount::{MntFlags, MsFlags, mount, umount, umount2};

use super::{
    boot::ESP,
    tree::{is_there, list, name, text, value},
};
use crate::{
    error::{Context, Error, Kind, Result},
    host::{
        cmd::{Cmd, Tool},
        disk::gpt,
    },
    image::facts::Partition,
};

/// What QEMU was told to call the image's disk.
pub(in crate::image) const SERIAL: &str = "image";
/// Where the image's root is mounted.
const ROOT: &str = "/mnt";
/// Where its EFI system partition is, whatever its own table says.
const ESP_AT: &str = "/esp";
/// File systems that a root may be on.
const ROOTS: [&str; 5] = ["ext4", "ext3", "ext2", "xfs", "btrfs"];
/// What may be mounted below the root, innermost first.
const BELOW: [&str; 9] = ["boot/efi", "efi", "boot", "var/tmp", "tmp", "run", "proc", "sys", "dev"];
/// Longest time for one look at a partition.
const LOOK: Duration = Duration::from_secs(120);

/// The image's disk.
#[derive(Debug)]
pub(super) struct Disk {
    device: PathBuf,
    partitions: Vec<Found>,
}

/// A partition with what it can be called in a file system table.
#[derive(Debug, Clone)]
struct Found {
    fact: Partition,
    device: PathBuf,
    names: Vec<String>,
}

/// What is mounted of it.
#[derive(Debug)]
pub(super) struct Mounted {
    /// The number of root's partition, and where it is; `None` where no partition holds a system.
    pub(super) root: Option<(u32, PathBuf)>,
    /// Where the EFI system partition is mounted.
    pub(super) esp: Option<PathBuf>,
}

impl Disk {
    /// Finds the disk.
    ///
    /// # Errors
    /// [`Kind::Missing`] where QEMU gave none of this name.
    pub(super) fn find() -> Result<Self> {
        let named = |block: &PathBuf| text(&block.join("serial")).trim() == SERIAL;
        let block = list(Path::new("/sys/block")).into_iter().find(named);
        let block = block.ok_or_else(|| Error::new(Kind::Missing, "find the image's disk: there is none"))?;
        let device = Path::new("/dev").join(name(&block));
        // A table that cannot be read has nothing of ours.
        let ours = gpt::own_partitions(&device).unwrap_or_default();
        let mut partitions: Vec<(u64, Found)> = list(&block)
            .into_iter()
            .filter(|path| path.join("partition").is_file())
            .map(|path| (number(&path, "start"), found(&path, &ours)))
            .collect();
        partitions.sort_by_key(|(start, _)| *start);
        Ok(Self { device, partitions: partitions.into_iter().map(|(_, found)| found).collect() })
    }

    /// Returns the disk's own device.
    pub(super) fn device(&self) -> &Path {
        &self.device
    }

    /// Returns the partitions with their devices, in the order in which they lie on the disk.
    pub(super) fn partitions(&self) -> Vec<(Partition, PathBuf)> {
        self.partitions.iter().map(|found| (found.fact.clone(), found.device.clone())).collect()
    }

    /// Mounts root, what its table puts below `/boot`, and the EFI system partition.
    ///
    /// # Errors
    /// A mount that the kernel refuses although the file system is known.
    pub(super) fn mount(&self, writable: bool) -> Result<Mounted> {
        let root = self.mount_root(writable)?;
        if let Some((_, root)) = &root {
            self.mount_boot(root, writable)?;
        }
        let mut esp = None;
        if let Some(found) =
            self.partitions.iter().find(|found| found.fact.kind == ESP && found.fact.fs == "vfat")
        {
            let at = PathBuf::from(ESP_AT);
            mount_at(found, &at, writable)?;
            esp = Some(at);
        }
        Ok(Mounted { root, esp })
    }

    /// Mounts the first partition that holds a system.
    fn mount_root(&self, writable: bool) -> Result<Option<(u32, PathBuf)>> {
        let at = PathBuf::from(ROOT);
        for found in self.partitions.iter().filter(|found| ROOTS.contains(&found.fact.fs.as_str())) {
            mount_at(found, &at, writable)?;
            if ["etc/os-release", "usr/lib/os-release", "etc/fstab"]
                .iter()
                .any(|path| is_there(&at.join(path)))
            {
                return Ok(Some((found.fact.number, at)));
            }
            umount(&at).attempt(|| format!("unmount '{}'", found.device.display()))?;
        }
        Ok(None)
    }

    /// Mounts what the image's table has at `/boot` and at `/boot/efi`.
    fn mount_boot(&self, root: &Path, writable: bool) -> Result<()> {
        let table = text(&root.join("etc/fstab"));
        for place in ["/boot", "/boot/efi", "/efi"] {
            let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            let line = lines.find(|words| words.get(1) == Some(&place));
            let Some(what) = line.and_then(|words| words.first().map(|word| word.replace('"', ""))) else {
                continue;
            };
            if let Some(found) = self.partitions.iter().find(|found| found.names.contains(&what)) {
                mount_at(found, &root.join(&place[1..]), writable)?;
            }
        }
        Ok(())
    }
}

impl Mounted {
    /// Unmounts everything that belongs to the image, so that it is whole on its disk.
    ///
    /// # Errors
    /// A file system that can neither be unmounted nor be made read-only: somebody still writes to it.
    pub(super) fn release(&self) -> Result<()> {
        let root = self.root.as_ref().map(|(_, root)| root);
        for place in root.into_iter().flat_map(|root| BELOW.iter().map(move |place| root.join(place))) {
            let _ = umount2(&place, MntFlags::MNT_DETACH);
        }
        for at in [self.esp.as_ref(), root].into_iter().flatten() {
            let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            umount(at)
                .or_else(|_| mount(None::<&str>, at, None::<&str>, read_only, None::<&str>))
                .attempt(|| format!("unmount '{}'", at.display()))?;
        }
        Ok(())
    }
}

/// Returns the number in a file of sysfs.
fn number(block: &Path, file: &str) -> u64 {
    text(&block.join(file)).trim().parse().unwrap_or_default()
}

/// Asks blkid what is on a partition. One that says nothing is a partition without a file system.
fn found(block: &Path, ours: &BTreeSet<u32>) -> Found {
    let device = Path::new("/dev").join(name(block));
    let said = Cmd::new(Tool::Blkid, LOOK).args(["--probe", "--output", "export"]).arg(&device).run();
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let get = |key| value(&said, key).unwrap_or_default();
    let names = [
        ("UUID", "UUID"),
        ("LABEL", "LABEL"),
        ("PARTUUID", "PART_ENTRY_UUID"),
        ("PARTLABEL", "PART_ENTRY_NAME"),
    ];
    let names = names.iter().map(|(word, key)| (word, get(key))).filter(|(_, value)| !value.is_empty());
    let names = names.map(|(word, value)| format!("{word}={value}")).collect();
    let nth = u32::try_from(number(block, "partition")).unwrap_or_default();
    let fact = Partition {
        number: nth,
        kind: get("PART_ENTRY_TYPE").to_ascii_lowercase(),
        fs: get("TYPE"),
        label: get("LABEL"),
        size: number(block, "size") * 512,
        ours: ours.contains(&nth),
    };
    Found { fact, device, names }
}

/// Mounts a partition; its file system's module is loaded first.
fn mount_at(found: &Found, at: &Path, writable: bool) -> Result<()> {
    let fs = found.fact.fs.as_str();
    super::load(&[fs]);
    let attempt = || format!("mount partition {} ({fs})", found.fact.number);
    fs::create_dir_all(at).attempt(attempt)?;
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    flags.set(MsFlags::MS_RDONLY, !writable);
    mount(Some(&found.device), at, Some(fs), flags, None::<&str>).attempt(attempt)
}
