//! Disks of other machines that are plugged in here, to be made an image of: which there are, and how one is held so that
//! nobody else uses it meanwhile. They are only ever read, and only in a sandbox; nothing here reads their content.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::sys::stat::{major, minor};
use serde::Deserialize;

use super::{SECTOR, inspect::LOOK};
use crate::{
    error::{Context, Error, Kind, Result},
    host::cmd::{Cmd, Tool},
    model::Bytes,
    observed::Donor,
};

/// Where a running system has itself.
const SYSTEM: [&str; 7] = ["/", "/boot", "/boot/efi", "/usr", "/var", "/var/lib", "[SWAP]"];

/// What `lsblk --json` says of a device and of what stands on it.
#[derive(Debug, Deserialize)]
struct Device {
    path: PathBuf,
    #[serde(rename = "type")]
    kind: String,
    size: u64,
    model: Option<String>,
    serial: Option<String>,
    fstype: Option<String>,
    label: Option<String>,
    #[serde(default)]
    mountpoints: Vec<Option<String>>,
    #[serde(rename = "log-sec")]
    sector: u64,
    #[serde(default)]
    children: Vec<Device>,
}

#[derive(Debug, Deserialize)]
struct Devices {
    blockdevices: Vec<Device>,
}

/// Holds a disk for ourselves, without reading it: nobody can mount it, or make it a part of something, as long as the file
/// is open. Returns its node, too.
///
/// # Errors
/// [`Kind::Missing`] where it is not there, [`Kind::Invalid`] for anything but a block device with sectors of 512 bytes,
/// [`Kind::Busy`] where somebody uses it, naming who as far as that is known.
pub fn claim(device: &Path) -> Result<(PathBuf, File)> {
    let shown = device.display();
    let node = device.canonicalize().attempt(|| format!("find device '{shown}'"))?;
    let found = node.metadata().attempt(|| format!("look at '{shown}'"))?;
    if !found.file_type().is_block_device() || !node.starts_with("/dev") {
        return Err(Error::invalid(format!("'{shown}' is not a block device")));
    }
    let sector = sector_of(Path::new("/sys"), found.rdev());
    if sector.is_some_and(|sector| sector != SECTOR) {
        return Err(Error::invalid(format!(
            "'{shown}' has sectors of {} bytes; a blade's disk has {SECTOR}: copy it to such a disk first",
            sector.unwrap_or_default()
        )));
    }
    let held = File::options().read(true).custom_flags(nix::libc::O_EXCL).open(&node);
    match held {
        Ok(file) => Ok((node, file)),
        Err(e) if e.kind() == ErrorKind::ResourceBusy => {
            let users = list_one(&node).map(|device| users(&device)).unwrap_or_default();
            let users = if users.is_empty() { "the kernel".to_owned() } else { users.join("; ") };
            let text = format!("'{shown}' is in use: {users}: unmount or deactivate it first");
            Err(Error::new(Kind::Busy, text))
        }
        Err(e) => Err(Error::io(format!("open '{shown}'"), e)),
    }
}

/// Returns the size of a disk's logical sectors: a partition's are its disk's.
fn sector_of(sysfs: &Path, device: u64) -> Option<u64> {
    let folder = sysfs.join(format!("dev/block/{}:{}", major(device), minor(device)));
    let own = folder.join("queue/logical_block_size");
    let text =
        fs::read_to_string(&own).or_else(|_| fs::read_to_string(folder.join("../queue/logical_block_size")));
    text.ok()?.trim().parse().ok()
}

/// Returns the disks that are not the appliance's own: neither of its system nor of its pool.
///
/// # Errors
/// lsblk's failure; a failed look is never an empty list.
pub fn list(pool: &BTreeSet<PathBuf>) -> Result<Vec<Donor>> {
    let found = lsblk(&[])?;
    Ok(donors(&found.blockdevices, pool))
}

fn donors(all: &[Device], pool: &BTreeSet<PathBuf>) -> Vec<Donor> {
    let own = |device: &Device| {
        any(device, &|part| {
            pool.contains(&part.path)
                || part.mountpoints.iter().flatten().any(|at| SYSTEM.contains(&at.as_str()))
        })
    };
    let disks = all.iter().filter(|device| device.kind == "disk" && device.size > 0 && !own(device));
    disks.filter(|device| !is_memory(&device.path)).map(donor).collect()
}

/// Returns whether it is memory that plays a disk: nobody has plugged that in.
fn is_memory(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let of = |kind| name.strip_prefix(kind).is_some_and(|number| number.parse::<u32>().is_ok());
    of("zram") || of("ram")
}

fn donor(device: &Device) -> Donor {
    let text =
        |text: &Option<String>| text.as_deref().map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned);
    let mut content = vec![];
    let parts = std::iter::once(device).chain(device.children.iter());
    for part in parts.filter(|part| part.kind == "part" || part.fstype.is_some()) {
        let name = part.path.file_name().unwrap_or_default().to_string_lossy();
        let kind = part.fstype.as_deref().unwrap_or("unknown");
        let label = text(&part.label).map_or(String::new(), |label| format!(" '{}'", label.escape_debug()));
        content.push(format!("{name}: {kind}{label}, {}", Bytes(part.size).human()));
    }
    Donor {
        device: device.path.clone(),
        size: Bytes(device.size),
        model: text(&device.model),
        serial: text(&device.serial),
        content,
        users: users(device),
        sector: Bytes(device.sector),
    }
}

/// Returns who uses the device, in words.
fn users(device: &Device) -> Vec<String> {
    let mut found = vec![];
    visit(device, &mut |part| {
        let shown = part.path.display();
        found.extend(part.mountpoints.iter().flatten().map(|at| match at.as_str() {
            "[SWAP]" => format!("'{shown}' is used for swapping"),
            at => format!("'{shown}' is mounted at '{at}'"),
        }));
        if !matches!(part.kind.as_str(), "disk" | "part" | "loop") {
            found.push(format!("'{shown}' ({}) stands on it", part.kind));
        }
    });
    found
}

fn visit(device: &Device, each: &mut dyn FnMut(&Device)) {
    each(device);
    device.children.iter().for_each(|child| visit(child, each));
}

fn any(device: &Device, is: &dyn Fn(&Device) -> bool) -> bool {
    is(device) || device.children.iter().any(|child| any(child, is))
}

fn list_one(node: &Path) -> Result<Device> {
    let found = lsblk(&[node])?.blockdevices.into_iter().next();
    found.ok_or_else(|| Error::new(Kind::Missing, format!("'{}' is not a block device", node.display())))
}

fn lsblk(of: &[&Path]) -> Result<Devices> {
    // Without NAME among the columns it gives a list in which nothing stands on anything.
    let columns = "NAME,PATH,TYPE,SIZE,MODEL,SERIAL,FSTYPE,LABEL,MOUNTPOINTS,LOG-SEC";
    let cmd = Cmd::new(Tool::Lsblk, LOOK).args(["--json", "--bytes", "--output", columns, "--"]).args(of);
    serde_json::from_slice(&cmd.run()?.stdout)
        .map_err(|e| Error::new(Kind::Failed, "read lsblk's report of the disks").because(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded with lsblk of util-linux 2.38, shortened: the system's disk, the pool's, a donor's, one that is in use.
    const DISKS: &str = r#"{"blockdevices": [
        {"path":"/dev/sda","type":"disk","size":64424509440,"model":"SYSTEM","serial":"1","fstype":null,"label":null,
         "mountpoints":[null],"log-sec":512,"children":[
          {"path":"/dev/sda1","type":"part","size":1073741824,"model":null,"serial":null,"fstype":"ext4","label":"root",
           "mountpoints":["/"],"log-sec":512}]},
        {"path":"/dev/sdb","type":"disk","size":64424509440,"model":"POOL","serial":"2","fstype":"LVM2_member",
         "label":null,"mountpoints":[null],"log-sec":512},
        {"path":"/dev/sdc","type":"disk","size":8589934592,"model":"Donor SSD ","serial":"D-1","fstype":null,
         "label":null,"mountpoints":[null],"log-sec":512,"children":[
          {"path":"/dev/sdc1","type":"part","size":536870912,"model":null,"serial":null,"fstype":"vfat","label":"ESP",
           "mountpoints":[null],"log-sec":512}]},
        {"path":"/dev/sdd","type":"disk","size":8589934592,"model":null,"serial":null,"fstype":null,"label":null,
         "mountpoints":[null],"log-sec":4096,"children":[
          {"path":"/dev/sdd1","type":"part","size":8588886016,"model":null,"serial":null,"fstype":"LVM2_member",
           "label":null,"mountpoints":[null],"log-sec":4096,"children":[
            {"path":"/dev/mapper/vg-home","type":"lvm","size":1048576,"model":null,"serial":null,"fstype":"ext4",
             "label":null,"mountpoints":["/srv"],"log-sec":4096}]}]},
        {"path":"/dev/zram0","type":"disk","size":1048576,"model":null,"serial":null,"fstype":null,"label":null,
         "mountpoints":["[SWAP]"],"log-sec":4096},
        {"path":"/dev/loop0","type":"loop","size":1048576,"model":null,"serial":null,"fstype":null,"label":null,
         "mountpoints":[null],"log-sec":512}]}"#;

    #[test]
    fn the_appliances_own_disks_are_no_donors() {
        let all: Devices = serde_json::from_str(DISKS).unwrap();
        let found = donors(&all.blockdevices, &BTreeSet::from(["/dev/sdb".into()]));
        let names: Vec<_> = found.iter().map(|donor| donor.device.to_str().unwrap()).collect();
        assert_eq!(names, ["/dev/sdc", "/dev/sdd"]);
        assert_eq!(found[0].model.as_deref(), Some("Donor SSD"));
        assert_eq!(found[0].content, ["sdc1: vfat 'ESP', 512.0 MiB"]);
        assert!(found[0].users.is_empty());
        assert_eq!(
            found[1].users,
            ["'/dev/mapper/vg-home' is mounted at '/srv'", "'/dev/mapper/vg-home' (lvm) stands on it"]
        );
    }

    #[test]
    fn what_is_no_device_cannot_be_held() {
        assert_eq!(claim(Path::new("/dev/no-such-disk")).unwrap_err().kind(), Kind::Missing);
        assert_eq!(claim(Path::new("/dev/null")).unwrap_err().kind(), Kind::Invalid);
        assert_eq!(claim(Path::new("/dev/../etc/passwd")).unwrap_err().kind(), Kind::Invalid);
    }

    #[test]
    fn a_partition_has_the_sectors_of_its_disk() {
        let sysfs = tempfile::tempdir().unwrap();
        let disk = sysfs.path().join("devices/sdd");
        fs::create_dir_all(disk.join("queue")).unwrap();
        fs::create_dir_all(disk.join("sdd1")).unwrap();
        fs::create_dir_all(sysfs.path().join("dev/block")).unwrap();
        #[allow(clippy::disallowed_methods, reason = "a test's own folder")]
        fs::write(disk.join("queue/logical_block_size"), "4096\n").unwrap();
        for (number, folder) in [("8:48", "devices/sdd"), ("8:49", "devices/sdd/sdd1")] {
            std::os::unix::fs::symlink(
                sysfs.path().join(folder),
                sysfs.path().join("dev/block").join(number),
            )
            .unwrap();
        }
        let device = |minor| nix::sys::stat::makedev(8, minor);
        assert_eq!(sector_of(sysfs.path(), device(48)), Some(4096));
        assert_eq!(sector_of(sysfs.path(), device(49)), Some(4096));
        assert_eq!(sector_of(sysfs.path(), device(50)), None);
    }
}
