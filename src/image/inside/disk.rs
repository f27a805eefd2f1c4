//! The image's disk as the workshop sees it: which partitions, which of them is root, and how they are mounted.
//!
//! The kernel that reads these file systems is the workshop's, in a guest that is thrown away: whatever they do to it, the
//! appliance's own kernel never sees them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::symlink,
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
/// What blkid calls an extended partition: nothing but the frame of others.
const EXTENDED: [&str; 3] = ["0x5", "0xf", "0x85"];
/// What the first disk of a machine is called by its place, but for the partition's number.
const FIRST_DISKS: [&str; 5] = ["/dev/sda", "/dev/vda", "/dev/hda", "/dev/xvda", "/dev/nvme0n1p"];
/// Where udev, which is not here, has links by UUID.
const BY_UUID: &str = "/dev/disk/by-uuid";
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
            .filter(|(_, found)| !EXTENDED.contains(&found.fact.kind.as_str()))
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

    /// Has the kernel read the partition table anew, and looks again.
    ///
    /// # Errors
    /// Something of the disk that is still mounted.
    pub(super) fn reread(self) -> Result<Self> {
        Cmd::new(Tool::Blockdev, LOOK).arg("--rereadpt").arg(&self.device).run()?;
        Self::find()
    }

    /// Returns what the partitions were called by place, by an MBR's signature, and how they are called for ever; nothing
    /// where the partition is one of those that are left out.
    pub(super) fn renames(&self, dropped: &[u32]) -> BTreeMap<String, Option<String>> {
        let mut all = BTreeMap::new();
        for found in &self.partitions {
            let is_gone = dropped.contains(&found.fact.number);
            let uuid = found.names.iter().find(|name| name.starts_with("UUID=")).filter(|_| !is_gone);
            let places = FIRST_DISKS.iter().map(|disk| format!("{disk}{}", found.fact.number));
            let names = found.names.iter().filter(|name| is_gone || name.starts_with("PARTUUID=")).cloned();
            if is_gone || uuid.is_some() {
                all.extend(places.chain(names).map(|name| (name, uuid.cloned())));
            }
        }
        all
    }

    /// Makes udev's links by UUID: GRUB's tools name root by UUID only where they find it there.
    ///
    /// # Errors
    /// The failing system call.
    pub(super) fn link_uuids(&self) -> Result<()> {
        let folder = Path::new(BY_UUID);
        fs::create_dir_all(folder).attempt(|| format!("make '{BY_UUID}'"))?;
        for found in &self.partitions {
            let uuid = found.names.iter().find_map(|name| name.strip_prefix("UUID="));
            // What strangers have written into a file system is no path.
            if let Some(uuid) = uuid.filter(|uuid| uuid.chars().all(|c| c.is_ascii_hexdigit() || c == '-')) {
                let made = symlink(&found.device, folder.join(uuid));
                made.attempt(|| format!("make '{BY_UUID}/{uuid}'"))?;
            }
        }
        Ok(())
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
