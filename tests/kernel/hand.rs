//! A target that somebody made by hand, with the kernel's defaults: to compare ours with, and to find untouched.

use std::{fs, os::unix::fs::symlink, path::Path};

use sheath::model::Credentials;

use crate::{blade::ROOT, guest::run};

/// The target, removed when dropped.
pub(crate) struct HandMade {
    hba: String,
    name: String,
    portal: String,
    initiators: Vec<String>,
}

impl HandMade {
    /// Makes a target on the device, reached at `127.0.0.1:<port>`, with one ACL per initiator.
    pub(crate) fn new(name: &str, device: &Path, port: u16, initiators: &[&str], chap: &Credentials) -> Self {
        let made = Self {
            hba: format!("{ROOT}/core/iblock_{port}"),
            name: name.to_owned(),
            portal: format!("127.0.0.1:{port}"),
            initiators: initiators.iter().map(|name| (*name).to_owned()).collect(),
        };
        let (backstore, tpg) = (format!("{}/{name}", made.hba), made.tpg());
        fs::create_dir_all(&backstore).unwrap();
        set(&backstore, "control", &format!("udev_path={}", device.display()));
        set(&backstore, "udev_path", &device.display().to_string());
        set(&backstore, "wwn/vpd_unit_serial", &format!("{port:08x}-0000-4000-8000-000000000000"));
        set(&backstore, "enable", "1");
        fs::create_dir_all(format!("{tpg}/lun/lun_0")).unwrap();
        symlink(&backstore, format!("{tpg}/lun/lun_0/by-hand")).unwrap();
        made.initiators.iter().for_each(|initiator| made.admit(initiator, chap));
        fs::create_dir(format!("{tpg}/np/{}", made.portal)).unwrap();
        set(&tpg, "enable", "1");
        made
    }

    fn admit(&self, initiator: &str, chap: &Credentials) {
        let (tpg, acl) = (self.tpg(), format!("{}/acls/{initiator}", self.tpg()));
        fs::create_dir_all(format!("{acl}/lun_0")).unwrap();
        symlink(format!("{tpg}/lun/lun_0"), format!("{acl}/lun_0/by-hand")).unwrap();
        set(&acl, "auth/userid", &chap.user);
        set(&acl, "auth/password", chap.password.expose());
    }

    /// Returns the target's name.
    pub(crate) fn target(&self) -> String {
        format!("iqn.2003-01.org.linux-iscsi:{}", self.name)
    }

    /// Returns where it is reached.
    pub(crate) fn portal(&self) -> &str {
        &self.portal
    }

    /// Returns every byte of it that does not count something.
    pub(crate) fn dump(&self) -> String {
        let (target, backstore) = (format!("iscsi/{}", self.target()), format!("{}/{}", self.hba, self.name));
        let dump = format!(
            "cd {ROOT} && find {target} {backstore} | sort && find {target} {backstore} -type l -exec readlink {{}} + \
             && grep -rs . {target} {backstore} --exclude-dir=statistics --exclude-dir=fabric_statistics | sort"
        );
        run("sh", &["-c", &dump]).unwrap()
    }

    fn tpg(&self) -> String {
        format!("{ROOT}/iscsi/{}/tpgt_1", self.target())
    }
}

impl Drop for HandMade {
    fn drop(&mut self) {
        let tpg = self.tpg();
        set(&tpg, "enable", "0");
        for initiator in &self.initiators {
            let acl = format!("{tpg}/acls/{initiator}");
            fs::remove_file(format!("{acl}/lun_0/by-hand")).unwrap();
            [format!("{acl}/lun_0"), acl].iter().for_each(|folder| fs::remove_dir(folder).unwrap());
        }
        fs::remove_file(format!("{tpg}/lun/lun_0/by-hand")).unwrap();
        let folders = [
            format!("{tpg}/lun/lun_0"),
            format!("{tpg}/np/{}", self.portal),
            tpg,
            format!("{ROOT}/iscsi/{}", self.target()),
            format!("{}/{}", self.hba, self.name),
            self.hba.clone(),
        ];
        folders.iter().for_each(|folder| fs::remove_dir(folder).unwrap());
    }
}

fn set(node: &str, file: &str, value: &str) {
    fs::write(format!("{node}/{file}"), value).unwrap_or_else(|e| panic!("{node}/{file}: {e}"));
}
