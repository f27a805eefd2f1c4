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

/// Returns the right to change this kernel, for one test at a time.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    let in_guest = env::var_os("SHEATH_GUEST").is_some_and(|value| value == "1");
    assert!(in_guest, "this test changes the kernel: run it in a guest of the lab, with SHEATH_GUEST=1");
    // A failed test leaves its own objects behind; the others have theirs.
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
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
