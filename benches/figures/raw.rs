//! The bare minimum: the objects and the values that the engine sets, by one thread that only calls `mkdir`, `open`,
//! `write`, `close` and `symlink`. It looks at nothing, so it can only begin with an empty configfs and knows nothing of
//! a failure but its number.
//!
//! It writes each value of the profile, also where this kernel's default is the same: the defaults are the kernel's to
//! change, and a target that admits everybody is what is at stake. [`ACT`]s are in the one order that is safe.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::symlink,
    path::Path,
};

use sheath::{host::keys::MasterKey, model::Chap, policy::DiskWish};

const ROOT: &str = "/sys/kernel/config/target";

/// One system call, or the three of a write.
pub(crate) enum Act {
    Make(String),
    Write(String, String),
    Link { from: String, to: String },
}

/// Returns all that one target takes. Mirrors `host::lio`; `syscalls` compares the two.
pub(crate) fn acts(disk: &DiskWish, keys: &MasterKey) -> Vec<Act> {
    let export = &disk.export;
    let hba = format!("{ROOT}/core/iblock_{}", export.backstore.hba());
    let device = format!("{hba}/{}", export.backstore.name());
    let target = format!("{ROOT}/iscsi/{}", export.target);
    let tpg = format!("{target}/tpgt_1");
    let acl = format!("{tpg}/acls/{}", export.initiator);
    let lun = format!("{tpg}/lun/lun_0");
    let path = export.backstore.device.display();
    let credentials = keys.credentials(export.backstore.volume, Chap::OneWay);

    let make = |path: &str| Act::Make(path.to_owned());
    let write =
        |folder: &str, file: &str, value: &str| Act::Write(format!("{folder}/{file}"), value.to_owned());
    let mut acts = vec![
        make(&hba),
        make(&device),
        write(&device, "control", &format!("udev_path={path},readonly=0")),
        write(&device, "udev_path", &path.to_string()),
        write(&device, "wwn/vpd_unit_serial", &export.backstore.serial()),
        write(&device, "enable", "1"),
        write(&device, "attrib/emulate_tpu", "1"),
        make(&target),
        make(&tpg),
        write(&tpg, "attrib/generate_node_acls", "0"),
        write(&tpg, "attrib/cache_dynamic_acls", "0"),
        write(&tpg, "attrib/authentication", "1"),
        write(&tpg, "attrib/demo_mode_write_protect", "1"),
        write(&tpg, "attrib/prod_mode_write_protect", "0"),
        write(&tpg, "attrib/demo_mode_discovery", "0"),
        write(&tpg, "param/AuthMethod", "CHAP"),
        make(&lun),
        Act::Link { from: device, to: format!("{lun}/dev") },
        make(&acl),
        write(&acl, "auth/userid", &credentials.user),
        write(&acl, "auth/password", credentials.password.expose()),
        write(&acl, "attrib/nopin_timeout", "0"),
        make(&format!("{acl}/lun_0")),
        // Writable by the TPG's `prod_mode_write_protect`.
        Act::Link { from: lun, to: format!("{acl}/lun_0/lun") },
    ];
    acts.extend(export.portals.iter().map(|portal| make(&format!("{tpg}/np/{portal}"))));
    acts.push(write(&tpg, "enable", "1"));
    acts
}

impl Act {
    /// Does it.
    pub(crate) fn run(&self) {
        let done = match self {
            Self::Make(path) => fs::create_dir(path),
            Self::Link { from, to } => symlink(from, to),
            Self::Write(path, value) => OpenOptions::new()
                .write(true)
                .open(path)
                .and_then(|mut file| file.write_all(value.as_bytes())),
        };
        done.unwrap_or_else(|e| panic!("{}: {e}", self.path().display()));
    }

    /// Returns how many system calls it is.
    pub(crate) fn calls(&self) -> usize {
        match self {
            Self::Make(_) | Self::Link { .. } => 1,
            Self::Write(..) => 3,
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Make(path) | Self::Write(path, _) | Self::Link { to: path, .. } => Path::new(path),
        }
    }
}
