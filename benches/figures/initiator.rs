//! An operating system's initiator in the same guest: Open-iSCSI over the loopback, one name per target.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
    thread,
    time::{Duration, Instant},
};

use crate::fixture::run;

/// Longest wait for a session's disk, emulated on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A session; logged out when dropped.
pub(crate) struct Session {
    iface: String,
    target: String,
}

/// Who logs in to what, with which credentials.
pub(crate) struct Whom<'a> {
    pub(crate) initiator: &'a str,
    pub(crate) target: &'a str,
    pub(crate) portal: &'a str,
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
}

impl Session {
    /// Logs in; `tag` tells the initiator apart from others in Open-iSCSI's records.
    pub(crate) fn new(tag: &str, whom: &Whom<'_>) -> Self {
        static DAEMON: Once = Once::new();
        DAEMON.call_once(start_daemon);
        let iface = format!("bench-{tag}");
        let interface = |args: &[&str]| run("iscsiadm", &[&["-m", "iface", "-I", &iface], args].concat());
        let _ = Command::new("iscsiadm").args(["-m", "iface", "-I", &iface, "-o", "new"]).output();
        interface(&["-o", "update", "-n", "iface.initiatorname", "-v", whom.initiator]);
        interface(&["-o", "update", "-n", "iface.transport_name", "-v", "tcp"]);
        let node = |args: &[&str]| {
            let which = ["-m", "node", "-T", whom.target, "-p", whom.portal, "-I", &iface];
            run("iscsiadm", &[&which, args].concat())
        };
        let which = ["-m", "node", "-T", whom.target, "-p", whom.portal, "-I", &iface, "-o", "delete"];
        let _ = Command::new("iscsiadm").args(which).output();
        node(&["-o", "new"]);
        for (key, value) in [("authmethod", "CHAP"), ("username", whom.user), ("password", whom.password)] {
            node(&["-o", "update", "-n", &format!("node.session.auth.{key}"), "-v", value]);
        }
        node(&["--login"]);
        Self { iface, target: whom.target.to_owned() }
    }

    /// Returns the session's disk, such as `/dev/sda`, once it is there.
    pub(crate) fn disk(&self) -> PathBuf {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(disk) = self.disk_now().filter(|disk| disk.exists()) {
                run("udevadm", &["settle"]);
                return disk;
            }
            assert!(Instant::now() < deadline, "no disk of {}", self.target);
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn disk_now(&self) -> Option<PathBuf> {
        let session = entries(Path::new("/sys/class/iscsi_session")).into_iter().find(|session| {
            fs::read_to_string(session.join("targetname")).is_ok_and(|name| name.trim() == self.target)
        })?;
        let targets = entries(&session.join("device")).into_iter();
        let targets =
            targets.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("target"));
        let mut disks =
            targets.flat_map(|target| entries(&target)).flat_map(|unit| entries(&unit.join("block")));
        Some(Path::new("/dev").join(disks.next()?.file_name()?))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let logout = ["-m", "node", "-T", &self.target, "-I", &self.iface, "--logout"];
        let _ = Command::new("iscsiadm").args(logout).output();
    }
}

fn start_daemon() {
    for folder in ["/run/lock/iscsi", "/run/iscsi", "/etc/iscsi"] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write("/etc/iscsi/initiatorname.iscsi", "InitiatorName=iqn.2026-11.org.example:none\n").unwrap();
    run("modprobe", &["-a", "iscsi_tcp", "sd_mod"]);
    run("iscsid", &[]);
}

fn entries(path: &Path) -> Vec<PathBuf> {
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}
