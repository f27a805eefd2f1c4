//! What udev is told of our devices: whose disk a volume is, which slot an interface is.
//!
//! udev rules read `/run/sheath/udev/<device>`; so a file is written there and the kernel is asked to tell of the device
//! once more. From then on, `udevadm info` shows the properties, `/dev/sheath/slot-N` leads to the volume, and an
//! administrator's own rules can act on both. The rules themselves are in `udev-rules/`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use super::{file, lvm::dm_name};
use crate::{
    error::{Context, Error, Kind, Result},
    model::{LvName, PortName, Slot, VgName, VolumeId},
    plan::Changed,
};

/// Where udev's rules read the properties. The rules name it too; a test compares.
const PROPERTIES: &str = "run/sheath/udev";

/// udev's database: a file for each device, a line `E:KEY=value` for each property.
const DATABASE: &str = "run/udev/data";

/// What the properties' names begin with.
const OURS: &str = "SHEATH_";

/// The way to udev on one machine.
#[derive(Debug, Clone)]
pub struct Udev {
    root: PathBuf,
    vg: VgName,
}

impl Udev {
    /// Returns the way to udev below `root` (`/`, or a test's folder), for volumes in this volume group.
    pub fn new(root: impl Into<PathBuf>, vg: VgName) -> Self {
        Self { root: root.into(), vg }
    }

    /// Makes udev know these properties of the volume, and no other ones of ours; none takes them away.
    ///
    /// A volume without a device is written down for the day when it gets one. udevd works on its own time: it knows a
    /// moment later.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for a property that cannot stand in udev's file, else the failing system call.
    pub fn announce(&self, volume: VolumeId, properties: &BTreeMap<String, String>) -> Result<Changed> {
        let lv = volume.lv_name();
        let text = render(properties).map_err(|e| e.while_doing(format!("announce volume '{volume}'")))?;
        let changed = self.write(lv.as_str(), &text)?;
        self.tell_of(volume, &text)?;
        Ok(changed)
    }

    /// Returns what udev was told of the volume: nothing where it was told nothing.
    ///
    /// # Errors
    /// The failing system call.
    pub fn announced(&self, volume: VolumeId) -> Result<BTreeMap<String, String>> {
        let path = self.root.join(PROPERTIES).join(volume.lv_name().as_str());
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.lines().filter_map(|line| line.split_once('=')).map(owned).collect()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(e) => Err(Error::io(format!("read '{}'", path.display()), e)),
        }
    }

    /// Makes udev know which slot this interface is, or that it is none.
    ///
    /// # Errors
    /// The failing system call.
    pub fn announce_port(&self, port: &PortName, slot: Option<Slot>) -> Result<Changed> {
        let properties = slot.map(|slot| ("SHEATH_SLOT".to_owned(), slot.to_string())).into_iter().collect();
        let text = render(&properties)?;
        let changed = self.write(&format!("net-{port}"), &text)?;
        let device = self.root.join("sys/class/net").join(port.as_str());
        if device.exists() {
            let key = format!("n{}", read_line(&device.join("ifindex"))?);
            self.tell_unless_known(&device, &key, &text)?;
        }
        Ok(changed)
    }

    /// Tells udev again what was written of volumes and what it does not know; returns of how many.
    ///
    /// For the agent's start: it may have been stopped between writing and telling, and what is written counts as
    /// announced. All are tried; the first failure is returned.
    ///
    /// # Errors
    /// The failing system call.
    pub fn catch_up(&self) -> Result<usize> {
        let folder = self.root.join(PROPERTIES);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(e) => return Err(Error::io(format!("list '{}'", folder.display()), e)),
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let (mut told, mut failed) = (0, None);
        for volume in names.filter_map(|name| VolumeId::from_lv_name(&name)) {
            match self.announced(volume).and_then(|properties| self.tell_of(volume, &render(&properties)?)) {
                Ok(Changed::Changed) => told += 1,
                Ok(Changed::AlreadyTrue) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(told), Err)
    }

    /// Tells udev of a volume that has a device.
    fn tell_of(&self, volume: VolumeId, text: &str) -> Result<Changed> {
        match self.device(&volume.lv_name())? {
            Some(device) => {
                let key = format!("b{}", read_line(&device.join("dev"))?);
                self.tell_unless_known(&device, &key, text)
            }
            None => Ok(Changed::AlreadyTrue),
        }
    }

    /// Saves the file for one device; an empty one is none.
    fn write(&self, name: &str, text: &str) -> Result<Changed> {
        let folder = self.root.join(PROPERTIES);
        let path = folder.join(name);
        let what = || format!("write '{}'", path.display());
        if text.is_empty() {
            return match fs::remove_file(&path) {
                Ok(()) => Ok(Changed::Changed),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Changed::AlreadyTrue),
                Err(e) => Err(Error::io(what(), e)),
            };
        }
        if fs::read(&path).is_ok_and(|old| old == text.as_bytes()) {
            return Ok(Changed::AlreadyTrue);
        }
        // Only root writes here: what stands in a file becomes a property of a device, and a link.
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&folder).attempt(what)?;
        file::save(&path, text.as_bytes(), 0o644)?;
        Ok(Changed::Changed)
    }

    /// Returns the volume's device in sysfs, or `None` where device-mapper does not have it.
    fn device(&self, lv: &LvName) -> Result<Option<PathBuf>> {
        let name = dm_name(&self.vg, lv);
        let link = self.root.join("dev/mapper").join(&name);
        let target = match fs::read_link(&link) {
            Ok(target) => target,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(format!("read link '{}'", link.display()), e)),
        };
        let Some(kernel) = target.file_name() else { return Ok(None) };
        let device = self.root.join("sys/block").join(kernel);
        // The link is udev's, and udev may be late: the kernel says whose device this is.
        let holds = fs::read_to_string(device.join("dm/name"));
        Ok(holds.is_ok_and(|text| text.trim_end() == name).then_some(device))
    }

    /// Asks the kernel to tell of the device once more, unless udev's database has the same properties of ours already.
    ///
    /// The file alone does not say what udev knows: the agent may have been stopped between writing and asking.
    fn tell_unless_known(&self, device: &Path, key: &str, text: &str) -> Result<Changed> {
        let known = fs::read_to_string(self.root.join(DATABASE).join(key)).unwrap_or_default();
        let ours: BTreeSet<_> = known
            .lines()
            .filter_map(|line| line.strip_prefix("E:"))
            .filter(|line| line.starts_with(OURS))
            .collect();
        if ours == text.lines().collect() {
            return Ok(Changed::AlreadyTrue);
        }
        let path = device.join("uevent");
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| file.write_all(b"change"))
            .attempt(|| format!("ask for an event by '{}'", path.display()))?;
        Ok(Changed::Changed)
    }
}

fn owned((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

/// Returns an attribute of sysfs.
fn read_line(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).attempt(|| format!("read '{}'", path.display()))?;
    Ok(text.trim_end().to_owned())
}

/// Returns the properties as udev's `IMPORT{file}` reads them.
fn render(properties: &BTreeMap<String, String>) -> Result<String> {
    properties.iter().map(|(key, value)| render_one(key, value)).collect()
}

fn render_one(key: &str, value: &str) -> Result<String> {
    let name = key.strip_prefix(OURS).unwrap_or_default();
    let good_key = !name.is_empty() && name.bytes().all(|c| c.is_ascii_uppercase() || c == b'_');
    // Values become parts of links and of an administrator's rules: no quote, no slash, no space, no newline.
    let good_value =
        !value.is_empty() && value.bytes().all(|c| c.is_ascii_alphanumeric() || b"._:+@-".contains(&c));
    if good_key && good_value {
        return Ok(format!("{key}={value}\n"));
    }
    let pair = format!("{key}={value}");
    Err(Error::new(Kind::Invalid, format!("'{}' is not a property for udev", pair.escape_debug())))
}

#[cfg(test)]
mod tests;
