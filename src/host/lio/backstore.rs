//! Backstores: a block device as LIO holds it, in an HBA folder of its own.
//!
//! Device and serial are written before `enable`, which nothing but removal undoes; the profile comes after it. A
//! backstore that carries our name and another device is made anew unless it is exported.

use super::{Lio, any, listed, profile};
use crate::{
    error::{Error, Kind, Result},
    host::{ObservedBackstore, configfs::Node},
    model::{Backstore, VolumeId},
    plan::Changed,
};

/// What the kernel prints before the serial.
const SERIAL_LABEL: &str = "T10 VPD Unit Serial Number:";
const SERIAL: &str = "wwn/vpd_unit_serial";
/// LIO cuts a longer device path off (`SE_UDEV_PATH_LEN`).
const MAX_DEVICE_PATH: usize = 511;

impl Lio {
    /// Makes the backstore exist, enabled, with our profile.
    ///
    /// # Errors
    /// [`Kind::Exists`] where a foreign device is in its HBA folder, [`Kind::Missing`] where the block device is not
    /// there, [`Kind::Busy`] where somebody holds it, or where our backstore is exported with another device.
    pub fn backstore(&self, backstore: &Backstore) -> Result<Changed> {
        let (hba, device) = self.backstore_nodes(backstore.volume)?;
        self.attempt(
            || format!("create backstore '{}'", backstore.name()),
            || {
                let path = device_path(backstore)?;
                if hba.make()? == Changed::AlreadyTrue {
                    nobody_else_in(&hba, &device)?;
                }
                if device.make()? == Changed::AlreadyTrue && !renew_if_wrong(&device, backstore, path)? {
                    return complete(&device, backstore, path);
                }
                enable(&device, backstore, path)?;
                profile::apply_to_new_backstore(&device, &self.claims)?;
                self.fresh.made_backstore(backstore.volume);
                Ok(Changed::Changed)
            },
        )
    }

    /// Makes the backstore of this volume gone, and its HBA folder where nothing else is in it.
    ///
    /// # Errors
    /// [`Kind::Busy`] where a LUN still leads to it; the text names the LUN.
    pub fn remove_backstore(&self, volume: VolumeId) -> Result<Changed> {
        let (hba, device) = self.backstore_nodes(volume)?;
        remove_device(&hba, &device)
    }

    /// Returns the backstore of this volume, if it is there.
    pub(super) fn observe_backstore(&self, volume: VolumeId) -> Result<Option<ObservedBackstore>> {
        let (_, device) = self.backstore_nodes(volume)?;
        if !device.exists() {
            return Ok(None);
        }
        let enabled = device.is_set("enable")?;
        Ok(Some(ObservedBackstore {
            enabled,
            device: device.read("udev_path")?.into(),
            serial: serial(&device)?,
            profile: enabled && profile::backstore_holds(&device)?,
        }))
    }
}

/// Returns the LUNs that lead to this backstore, as `FABRIC/TARGET/TPG/LUN`. One file, whatever the number of targets.
pub(super) fn exports(device: &Node) -> Result<Vec<String>> {
    let members = device.read_if_there("alua/default_tg_pt_gp/members")?.unwrap_or_default();
    Ok(listed(&members).collect())
}

/// Removes a backstore, and its HBA folder where nothing else is in it.
pub(super) fn remove_device(hba: &Node, device: &Node) -> Result<Changed> {
    let remove = || {
        let removed = device.remove().map_err(|e| match exports(device).unwrap_or_default().as_slice() {
            [] => e,
            held => e.while_doing(format!("still exported as {}", held.join(", "))),
        })?;
        let empty = hba.exists() && hba.folders()?.is_empty();
        Ok(any([removed, if empty { hba.remove()? } else { Changed::AlreadyTrue }]))
    };
    remove().map_err(|e: Error| e.while_doing(format!("remove backstore '{}'", device.name())))
}

/// Returns the device's path as the `control` file can carry it.
fn device_path(backstore: &Backstore) -> Result<&str> {
    let plain = |path: &&str| {
        path.starts_with('/')
            && path.len() <= MAX_DEVICE_PATH
            && !path.chars().any(|c| c == ',' || c.is_control())
    };
    backstore.device.to_str().filter(plain).ok_or_else(|| {
        let allowed = "an absolute path without comma or control character, at most 511 bytes";
        Error::invalid(format!("device '{}' is not {allowed}", backstore.device.display()))
    })
}

/// Refuses an HBA folder that holds anything but this device: it is not ours.
fn nobody_else_in(hba: &Node, device: &Node) -> Result<()> {
    match hba.folders()?.into_iter().find(|name| name != device.name()) {
        None => Ok(()),
        Some(foreign) => {
            Err(Error::new(Kind::Exists, format!("'{hba}' holds a device that is not ours: '{foreign}'")))
        }
    }
}

/// Makes a backstore that is enabled with another device or serial anew, not enabled yet, and returns whether it had to:
/// neither can be changed in place for certain.
fn renew_if_wrong(device: &Node, backstore: &Backstore, path: &str) -> Result<bool> {
    let right = !device.is_set("enable")?
        || (device.read("udev_path")? == path && serial(device)? == backstore.serial());
    if right {
        return Ok(false);
    }
    device.remove().map_err(|e| e.while_doing("it holds another device or serial, and is in use"))?;
    device.make()?;
    Ok(true)
}

/// Gives a backstore that was there what it lacks.
fn complete(device: &Node, backstore: &Backstore, path: &str) -> Result<Changed> {
    let enabled =
        if device.is_set("enable")? { Changed::AlreadyTrue } else { enable(device, backstore, path)? };
    Ok(any([enabled, profile::apply_backstore(device)?]))
}

fn enable(device: &Node, backstore: &Backstore, path: &str) -> Result<Changed> {
    device.write("control", &format!("udev_path={path},readonly=0"))?;
    device.write("udev_path", path)?;
    device.write(SERIAL, &backstore.serial())?;
    device.write("enable", "1").map_err(|e| {
        let why = match e.kind() {
            Kind::Missing => "is not there",
            Kind::Busy => "is held by somebody else",
            _ => "was refused by LIO",
        };
        e.while_doing(format!("block device '{path}' {why}"))
    })?;
    Ok(Changed::Changed)
}

fn serial(device: &Node) -> Result<String> {
    let text = device.read(SERIAL)?;
    Ok(text.strip_prefix(SERIAL_LABEL).unwrap_or(&text).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::{super::fake::Fake, *};

    #[test]
    fn device_and_serial_are_written_before_enable_and_a_second_run_changes_nothing() {
        let fake = Fake::new();
        let device = fake.make_backstore();
        let backstore = Fake::backstore();
        assert_eq!(fake.lio.backstore(&backstore).unwrap(), Changed::Changed);
        assert_eq!(device.read("control").unwrap(), "udev_path=/dev/vg/disk,readonly=0");
        let seen = fake.lio.observe_backstore(backstore.volume).unwrap().unwrap();
        let right = ObservedBackstore {
            enabled: true,
            device: backstore.device.clone(),
            serial: backstore.serial(),
            profile: true,
        };
        assert_eq!(seen, right);
        assert_eq!(fake.lio.backstore(&backstore).unwrap(), Changed::AlreadyTrue);
    }

    #[test]
    fn a_backstore_that_a_crash_left_half_made_is_observed_as_such() {
        let fake = Fake::new();
        fake.make_backstore();
        let seen = fake.lio.observe_backstore(Fake::backstore().volume).unwrap().unwrap();
        assert!(!seen.enabled && !seen.profile);
    }

    #[test]
    fn a_foreign_device_in_our_hba_is_refused_and_left_alone() {
        let fake = Fake::new();
        let backstore = Fake::backstore();
        let (hba, _) = fake.lio.backstore_nodes(backstore.volume).unwrap();
        std::fs::create_dir_all(hba.at("somebody").path()).unwrap();
        assert_eq!(fake.lio.backstore(&backstore).unwrap_err().kind(), Kind::Exists);
        assert_eq!(fake.lio.remove_backstore(backstore.volume).unwrap(), Changed::AlreadyTrue);
        assert!(hba.at("somebody").exists());
    }

    #[test]
    fn a_path_that_would_be_a_second_option_is_refused() {
        let fake = Fake::new();
        for bad in ["relative", "/dev/a,readonly=1", "/dev/a\nb"] {
            let backstore = Backstore { device: bad.into(), ..Fake::backstore() };
            assert_eq!(fake.lio.backstore(&backstore).unwrap_err().kind(), Kind::Invalid, "{bad}");
        }
    }

    #[test]
    fn the_serials_label_is_not_part_of_it() {
        let fake = Fake::new();
        let device = fake.make_backstore();
        device.write(SERIAL, "T10 VPD Unit Serial Number: abc").unwrap();
        assert_eq!(serial(&device).unwrap(), "abc");
        device.write(SERIAL, "T10 VPD Unit Serial Number:").unwrap();
        assert_eq!(serial(&device).unwrap(), "");
    }

    #[test]
    fn exports_are_read_from_the_backstore_itself() {
        let fake = Fake::new();
        let device = fake.make_backstore();
        assert!(exports(&device).unwrap().is_empty());
        fake.raw(
            &device,
            "alua/default_tg_pt_gp/members",
            b"iSCSI/iqn.x:b/tpgt_1/lun_0\n\0iSCSI/iqn.x:c/tpgt_1/lun_3\n\0",
        );
        assert_eq!(exports(&device).unwrap(), ["iSCSI/iqn.x:b/tpgt_1/lun_0", "iSCSI/iqn.x:c/tpgt_1/lun_3"]);
    }
}
