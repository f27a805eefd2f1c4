//! How guests run: with KVM where it works, else emulated (TCG). `/dev/kvm` may be there, start a firmware, and still hang
//! a stock kernel; so the answer comes from running one, once per boot of this machine.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::cache::Cache;
use crate::error::{Attempt, Result};
use crate::images;
use crate::phase;
use crate::release::Release;
use crate::tool::Tool;
use crate::wait::{secs, until};

/// A stock kernel reaches its "no root" panic within 2 s on KVM; a hung one never does.
const PROBE_BOUND: Duration = secs(15);

/// What runs a guest's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// The host's CPU.
    Kvm,
    /// Emulation: works everywhere, ten to twenty times slower.
    Tcg,
}

impl Accel {
    /// Returns KVM when a stock kernel was seen running on it, TCG otherwise. Asked once per boot of this machine.
    ///
    /// # Errors
    /// When the cache cannot be written.
    #[allow(clippy::disallowed_methods, reason = "a stamp that may be lost at any time")]
    pub fn probed(cache: &Cache) -> Result<Self> {
        if !openable("/dev/kvm") {
            return Ok(Accel::Tcg);
        }
        let kernel = images::appliance(cache, Release::default())?.join("vmlinuz");
        let stamp = cache.root().join("kvm-probe");
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let known = fs::read_to_string(&stamp).unwrap_or_default();
        let answer = match known.split_once(' ') {
            Some((at, answer)) if at == boot.trim() => answer == "kvm",
            _ => {
                let works = kernel_runs(&kernel, cache.root());
                phase::say(if works {
                    "KVM runs a stock kernel: used"
                } else {
                    "KVM does not run a stock kernel: emulating"
                });
                let line = format!("{} {}", boot.trim(), if works { "kvm" } else { "tcg" });
                fs::write(&stamp, line).attempt(|| format!("write '{}'", stamp.display()))?;
                works
            }
        };
        Ok(if answer { Accel::Kvm } else { Accel::Tcg })
    }

    /// Returns QEMU's arguments for it.
    pub(crate) fn args(self) -> [&'static str; 4] {
        match self {
            Accel::Kvm => ["-accel", "kvm", "-cpu", "host"],
            // The plainest CPU that Debian runs on: a better one makes libc choose vector instructions, and those are
            // slow when emulated (an appliance boots in 32 s instead of 61). It has SVM, so a guest in the guest runs on KVM. With
            // nested page tables, because with shadow ones no guest's guest comes up under QEMU 10.
            Accel::Tcg => ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "qemu64,npt=on"],
        }
    }

    /// Returns what a saved guest depends on besides QEMU's version.
    pub(crate) fn identity(self) -> String {
        match self {
            Accel::Tcg => "tcg".to_owned(),
            Accel::Kvm => {
                let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
                let telling = |line: &&str| line.starts_with("model name") || line.starts_with("flags");
                format!("kvm {}", info.lines().filter(telling).take(2).collect::<Vec<_>>().join(" "))
            }
        }
    }

    /// Returns `bound`, stretched where guests are slow.
    pub fn stretched(self, bound: Duration) -> Duration {
        match self {
            Accel::Kvm => bound,
            Accel::Tcg => bound * 4,
        }
    }
}

/// Boots the kernel with no root and waits for its panic: `-no-reboot` then ends QEMU by itself.
fn kernel_runs(kernel: &Path, dir: &Path) -> bool {
    let log = dir.join("kvm-probe.log");
    let qemu = Tool::new("qemu-system-x86_64")
        .args(Accel::Kvm.args())
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-m",
            "256M",
            "-serial",
            "stdio",
        ])
        .arg("-kernel")
        .arg(kernel)
        .args(["-append", "console=ttyS0 panic=-1"]);
    let Ok(mut child) = qemu.spawn_bound(&log) else { return false };
    let ended = until("the probe's kernel", PROBE_BOUND, || child.try_wait().ok().flatten());
    // Both fail only when it has ended already.
    let _ = child.kill();
    let _ = child.wait();
    ended.is_ok() && fs::read_to_string(&log).unwrap_or_default().contains("Kernel panic")
}

/// Returns whether this user may open the device at all.
fn openable(device: &str) -> bool {
    fs::OpenOptions::new().read(true).write(true).open(device).is_ok()
}
