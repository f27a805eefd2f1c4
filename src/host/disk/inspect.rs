//! What a disk holds, so that set-up can refuse it by name. Looks only; never decides that something may go.

use std::{
    collections::BTreeSet,
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use super::SECTOR;
use crate::{
    error::{Error, Kind, Result},
    host::cmd::{Cmd, Tool},
    model::Bytes,
};

/// Longest time for a look at a disk. A healthy one answers in milliseconds; a failing one retries for half a minute.
pub(super) const LOOK: Duration = Duration::from_secs(60);

/// What `lsblk --json` says of a device and of what stands on it.
#[derive(Debug, Deserialize)]
struct Device {
    path: PathBuf,
    #[serde(rename = "type")]
    kind: String,
    fstype: Option<String>,
    label: Option<String>,
    size: u64,
    #[serde(default)]
    mountpoints: Vec<Option<String>>,
    #[serde(rename = "log-sec")]
    sector: u64,
    #[serde(default)]
    ro: bool,
    #[serde(default)]
    children: Vec<Device>,
}

#[derive(Debug, Deserialize)]
struct Devices {
    blockdevices: Vec<Device>,
}

/// What `wipefs --json --no-act` finds.
#[derive(Debug, Deserialize)]
struct Signature {
    #[serde(rename = "type")]
    kind: String,
    offset: String,
    label: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Signatures {
    signatures: Vec<Signature>,
}

/// Returns everything that speaks against making a pool on this disk, in words: partitions, file systems, LVM, RAID,
/// mounts, users. Empty for a blank disk.
///
/// # Errors
/// [`Kind::Missing`] where there is no such device; a look that fails is never an empty one.
pub fn inspect_disk(device: &Path) -> Result<Vec<String>> {
    let shown = device.display();
    if !device.exists() {
        return Err(Error::new(Kind::Missing, format!("there is no device '{shown}'")));
    }
    let mut found: BTreeSet<String> = holders(&list(device)?).into_iter().collect();
    found.extend(signatures(&probe(device)?));
    if found.is_empty() && is_held(device) {
        found.insert(format!("'{shown}' is in use by the kernel"));
    }
    Ok(found.into_iter().collect())
}

/// Asks lsblk for the device and all that stands on it.
fn list(device: &Path) -> Result<Device> {
    let output = Cmd::new(Tool::Lsblk, LOOK)
        // Without NAME among the columns it gives a list in which nothing stands on anything.
        .args([
            "--json",
            "--bytes",
            "--output",
            "NAME,PATH,TYPE,FSTYPE,LABEL,SIZE,MOUNTPOINTS,LOG-SEC,RO",
            "--",
        ])
        .arg(device)
        .run()?;
    let devices: Devices = serde_json::from_slice(&output.stdout).map_err(|e| {
        Error::new(Kind::Failed, format!("read lsblk's report of '{}'", device.display())).because(e)
    })?;
    let first = devices.blockdevices.into_iter().next();
    first.ok_or_else(|| Error::new(Kind::Missing, format!("'{}' is not a block device", device.display())))
}

/// Asks wipefs for every signature on the device itself: it reads the disk, where lsblk may repeat what udev once saw.
fn probe(device: &Path) -> Result<Vec<Signature>> {
    let output = Cmd::new(Tool::Wipefs, LOOK).args(["--json", "--no-act", "--"]).arg(device).run()?;
    // It prints nothing at all for a blank disk.
    if output.stdout.iter().all(u8::is_ascii_whitespace) {
        return Ok(vec![]);
    }
    let found: Signatures = serde_json::from_slice(&output.stdout).map_err(|e| {
        Error::new(Kind::Failed, format!("read wipefs' report of '{}'", device.display())).because(e)
    })?;
    Ok(found.signatures)
}

/// Returns what lsblk's tree says, in words.
fn holders(device: &Device) -> Vec<String> {
    let mut found = vec![];
    let shown = device.path.display();
    if device.sector != SECTOR {
        found.push(format!("'{shown}' has {}-byte sectors; only 512 are supported", device.sector));
    }
    if device.ro {
        found.push(format!("'{shown}' is read-only"));
    }
    walk(device, &mut found);
    found
}

fn walk(device: &Device, found: &mut Vec<String>) {
    let shown = device.path.display();
    found.extend(device.mountpoints.iter().flatten().map(|at| format!("'{shown}' is mounted at '{at}'")));
    for child in &device.children {
        let size = Bytes(child.size).human();
        let content = match (&child.fstype, &child.label) {
            (Some(fstype), Some(label)) => format!(" with {fstype} '{}'", label.escape_debug()),
            (Some(fstype), None) => format!(" with {fstype}"),
            _ => String::new(),
        };
        found.push(format!("'{shown}' carries {} '{}' of {size}{content}", child.kind, child.path.display()));
        walk(child, found);
    }
}

/// Returns the signatures in words, each kind once.
fn signatures(found: &[Signature]) -> BTreeSet<String> {
    let words = |signature: &Signature| {
        let label = signature.label.as_deref().filter(|label| !label.is_empty());
        let label = label.map_or(String::new(), |label| format!(" '{}'", label.escape_debug()));
        match signature.kind.as_str() {
            "LVM2_member" => "an LVM physical volume".to_owned(),
            "gpt" | "dos" | "PMBR" => format!("a partition table ({})", signature.kind),
            other => format!("a signature of {other}{label} at {}", signature.offset),
        }
    };
    found.iter().map(words).collect()
}

/// Returns whether somebody holds the device for himself: a mount, swap, a RAID, device-mapper.
fn is_held(device: &Path) -> bool {
    let exclusive = OpenOptions::new().read(true).custom_flags(nix::libc::O_EXCL).open(device);
    exclusive.is_err_and(|e| e.kind() == std::io::ErrorKind::ResourceBusy)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded with lsblk of util-linux 2.38: a disk with two partitions, one of them mounted, one a physical volume.
    const USED: &str = r#"{"blockdevices": [{"path":"/dev/sda", "type":"disk", "fstype":null, "label":null,
        "size":64424509440, "mountpoints":[null], "log-sec":512, "ro":false, "children": [
        {"path":"/dev/sda1", "type":"part", "fstype":"ext4", "label":"root", "size":1073741824,
         "mountpoints":["/"], "log-sec":512, "ro":false},
        {"path":"/dev/sda2", "type":"part", "fstype":"LVM2_member", "label":null, "size":1073741824,
         "mountpoints":[null], "log-sec":512, "ro":false, "children": [
         {"path":"/dev/mapper/vg-home", "type":"lvm", "fstype":null, "label":null, "size":1048576,
          "mountpoints":[null], "log-sec":512, "ro":false}]}]}]}"#;

    #[test]
    fn a_disk_in_use_is_described_in_words() {
        let tree: Devices = serde_json::from_str(USED).unwrap();
        assert_eq!(
            holders(&tree.blockdevices[0]),
            [
                "'/dev/sda' carries part '/dev/sda1' of 1.0 GiB with ext4 'root'",
                "'/dev/sda1' is mounted at '/'",
                "'/dev/sda' carries part '/dev/sda2' of 1.0 GiB with LVM2_member",
                "'/dev/sda2' carries lvm '/dev/mapper/vg-home' of 1.0 MiB",
            ]
        );
    }

    #[test]
    fn signatures_are_named_once_each() {
        let json = r#"{"signatures": [
            {"device":"vda", "offset":"0x1fe", "type":"PMBR", "uuid":null, "label":null},
            {"device":"vda", "offset":"0x218", "type":"LVM2_member", "uuid":"x", "label":null},
            {"device":"vda", "offset":"0x438", "type":"ext4", "uuid":"x", "label":"old"}]}"#;
        let found: Signatures = serde_json::from_str(json).unwrap();
        let words: Vec<_> = signatures(&found.signatures).into_iter().collect();
        assert_eq!(
            words,
            ["a partition table (PMBR)", "a signature of ext4 'old' at 0x438", "an LVM physical volume"]
        );
    }

    #[test]
    fn a_device_that_is_not_there_is_missing_and_not_blank() {
        let error = inspect_disk(Path::new("/dev/no-such-disk")).unwrap_err();
        assert_eq!(error.kind(), Kind::Missing);
    }

    #[test]
    fn a_disk_with_large_sectors_or_without_writes_is_spoken_against() {
        let json = r#"{"path":"/dev/sdb", "type":"disk", "fstype":null, "label":null, "size":1, "log-sec":4096,
            "ro":true}"#;
        let found = holders(&serde_json::from_str(json).unwrap());
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
