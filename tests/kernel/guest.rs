//! The guest that a test runs in: one test at a time, disks to export, commands, waiting.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Longest wait for a device or a session to come or go, under emulation on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What takes everything away that tests make: sessions, all of LIO, volumes of ours, and groups of one test alone.
///
/// By hand, not by the product: it is the product's removal that a test may have found wanting.
const CLEAN: &str = r"
iscsiadm -m node --logout
cd /sys/kernel/config/target
for tpg in iscsi/iqn.*/tpgt_*; do
    echo 0 > $tpg/enable
    find $tpg/acls -mindepth 3 -maxdepth 3 -type l -exec unlink {} ';'
    rmdir $tpg/acls/*/lun_* $tpg/acls/*
    find $tpg/lun -mindepth 2 -maxdepth 2 -type l -exec unlink {} ';'
    rmdir $tpg/lun/* $tpg/np/* $tpg
done
rmdir iscsi/iqn.* core/*_*/*/ core/*_*
cd /
for lv in $(lvs --noheadings -o lv_full_name | grep /sheath-); do lvremove -ff -y $lv; done
for vg in $(vgs --noheadings -o vg_name | grep -vx ' *sheathtest *'); do vgremove -ff -y $vg; done
rm -f /dev/drift/*
";

/// Returns the right to change this kernel, for one test at a time, in a kernel that has nothing of a test that failed.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    let in_guest = env::var_os("SHEATH_GUEST").is_some_and(|value| value == "1");
    assert!(in_guest, "this test changes the kernel: run it in a guest of the lab, with SHEATH_GUEST=1");
    ONE.lock().unwrap_or_else(|failed| {
        ONE.clear_poison();
        // What is not there cannot be removed: only what is left in the end would tell, and the tests do.
        let _ = run("sh", &["-c", CLEAN]);
        PoisonError::into_inner(failed)
    })
}

/// Runs a command; `Err` holds what it said.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(format!(
        "{program} {}: {}: {text}{}",
        args.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// Waits until `answer` gives something; `what` is for the failure.
pub(crate) fn wait_for<T>(what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match answer() {
            Some(found) => return found,
            None if Instant::now() > deadline => panic!("{what}: not within {PATIENCE:?}"),
            None => thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// A block device to export: a file in memory behind a loop device, which can discard.
pub(crate) struct Disk {
    image: PathBuf,
    device: String,
}

impl Disk {
    pub(crate) fn new(name: &str, bytes: u64) -> Self {
        let image = Path::new("/run").join(format!("{name}.img"));
        fs::File::create(&image).unwrap().set_len(bytes).unwrap();
        let device = run("losetup", &["--find", "--show", image.to_str().unwrap()]).unwrap();
        Self { image, device: device.trim().to_owned() }
    }

    pub(crate) fn path(&self) -> &Path {
        Path::new(&self.device)
    }

    /// Returns what is on the disk itself.
    pub(crate) fn image(&self) -> &Path {
        &self.image
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run("losetup", &["--detach", &self.device]);
        let _ = fs::remove_file(&self.image);
    }
}
