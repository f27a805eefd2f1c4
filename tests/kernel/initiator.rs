//! A blade's operating system, as the target sees it: Open-iSCSI on this kernel, under a name of our choice.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Once,
};

use sheath::model::{Credentials, Iqn, Portal};

use crate::guest::{run, wait_for};

/// An initiator of this name.
pub(crate) struct Initiator {
    iface: String,
}

/// A session; logged out when dropped.
pub(crate) struct Login {
    target: String,
    iface: String,
}

impl Initiator {
    /// Returns the initiator; `tag` tells it apart from the others in Open-iSCSI's records.
    pub(crate) fn new(tag: &str, name: &str) -> Self {
        static DAEMON: Once = Once::new();
        DAEMON.call_once(|| {
            for folder in ["/run/lock/iscsi", "/run/iscsi", "/etc/iscsi"] {
                fs::create_dir_all(folder).unwrap();
            }
            fs::write("/etc/iscsi/initiatorname.iscsi", "InitiatorName=iqn.2026-11.org.example:none\n")
                .unwrap();
            // A run before this one, in the same guest, has left its own.
            run("sh", &["-c", "pidof iscsid || iscsid"]).unwrap();
        });
        let initiator = Self { iface: format!("sheath-{tag}") };
        initiator.iface(&["-o", "new"]);
        initiator.iface(&["-o", "update", "-n", "iface.initiatorname", "-v", name]);
        initiator.iface(&["-o", "update", "-n", "iface.transport_name", "-v", "tcp"]);
        initiator
    }

    fn iface(&self, args: &[&str]) {
        run("iscsiadm", &[&["-m", "iface", "-I", &self.iface], args].concat()).unwrap();
    }

    /// Logs in; `Err` holds what Open-iSCSI says of a refusal.
    pub(crate) fn login(&self, target: &Iqn, portal: Portal, with: &Credentials) -> Result<Login, String> {
        let portal = portal.to_string();
        let node = |args: &[&str]| {
            let whom = ["-m", "node", "-T", target.as_str(), "-p", &portal, "-I", &self.iface];
            run("iscsiadm", &[&whom, args].concat())
        };
        let set = |key: &str, value: &str| node(&["-o", "update", "-n", key, "-v", value]).unwrap();
        let _ = node(&["-o", "delete"]);
        node(&["-o", "new"]).unwrap();
        set("node.session.auth.authmethod", "CHAP");
        set("node.session.auth.username", &with.user);
        set("node.session.auth.password", with.password.expose());
        if let Some((user, password)) = &with.mutual {
            set("node.session.auth.username_in", user);
            set("node.session.auth.password_in", password.expose());
        }
        set("node.session.initial_login_retry_max", "1");
        node(&["--login"])?;
        Ok(Login { target: target.to_string(), iface: self.iface.clone() })
    }
}

impl Login {
    /// Returns the disk that the session brought, such as `sda`, once all of it is there: its folder comes first, its
    /// files, its node and its place in `/sys/block` some time after it, and it opens last.
    pub(crate) fn disk(&self) -> String {
        wait_for("a disk of the session", || {
            let name = self.block_folder()?.file_name()?.to_str()?.to_owned();
            let opens = fs::File::open(Path::new("/dev").join(&name)).is_ok();
            let whole = opens && sysfs_path(&name, "size").exists();
            whole.then_some(name)
        })
    }

    /// Returns one of the disk's files in sysfs.
    pub(crate) fn sysfs(&self, file: &str) -> String {
        let path = sysfs_path(&self.disk(), file);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
    }

    fn block_folder(&self) -> Option<PathBuf> {
        let entries = |path: &Path| -> Vec<PathBuf> {
            fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
        };
        let session = entries(Path::new("/sys/class/iscsi_session")).into_iter().find(|session| {
            fs::read_to_string(session.join("targetname")).is_ok_and(|name| name.trim() == self.target)
        })?;
        entries(&session.join("device"))
            .into_iter()
            .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("target"))
            .flat_map(|target| entries(&target))
            .flat_map(|unit| entries(&unit.join("block")))
            .next()
    }
}

fn sysfs_path(disk: &str, file: &str) -> PathBuf {
    Path::new("/sys/block").join(disk).join(file)
}

impl Drop for Login {
    fn drop(&mut self) {
        let _ = run("iscsiadm", &["-m", "node", "-T", &self.target, "-I", &self.iface, "--logout"]);
    }
}
