//! What runs inside the workshop: a small Linux of which this program is the first process.
//!
//! ```text
//! kernel ─► this program ─► modules ─► role (kernel's command line) ─► answer (second serial port) ─► restart
//!                                        │                                                        (QEMU ends)
//!                                        └ check: find the disk, mount it read-only, gather facts
//! ```
//!
//! It runs in a guest that is thrown away, on a clone that nobody else has. `workshop` makes that guest; `answer` has the
//! words between the two.

mod boot;
pub(super) mod disk;
mod identity;
mod initramfs;
mod system;
mod tree;

use std::{
    fs::{self, File},
    io::Write,
    os::fd::AsFd,
    path::Path,
    time::Duration,
};

use nix::{
    mount::{MsFlags, mount},
    sys::reboot::{RebootMode, reboot},
    unistd::{chdir, chroot, fchdir},
};

use self::disk::Disk;
use super::{
    answer::{Line, Role},
    facts::Facts,
};
use crate::{
    error::{Context, Result},
    host::cmd::{Cmd, Tool},
};

/// The hidden subcommand that is the workshop's first process.
pub const WORKSHOP: &str = "internal-workshop";
/// Where the answer goes: the guest's second serial port.
const PORT: &str = "/dev/ttyS1";
/// What the disk needs before anything can be found on it.
const DRIVERS: [&str; 3] = ["virtio_pci", "virtio_blk", "nls_ascii"];
/// Longest time for a module, emulated.
const LOADING: Duration = Duration::from_secs(60);

/// Does what the kernel's command line says, and restarts the machine. Only ever the first process of a guest.
///
/// # Errors
/// Where this is no workshop: nothing has been done then.
pub fn run() -> Result<()> {
    if std::process::id() != 1 {
        return Err(crate::error::Error::invalid("this command is for the workshop's guest"));
    }
    prepare()?;
    let mut port = File::options().write(true).open(PORT).attempt(|| format!("open '{PORT}'"))?;
    let last = match work(&mut port) {
        Ok(()) => Line::Done,
        Err(error) => Line::Failed { error: error.chain() },
    };
    // Whoever reads has a deadline; there is nobody else to tell.
    let _ = port.write_all(&last.to_bytes()).and_then(|()| port.flush());
    let _ = nix::sys::termios::tcdrain(&port);
    nix::unistd::sync();
    reboot(RebootMode::RB_AUTOBOOT).map(|never| match never {}).attempt(|| "restart the guest".into())
}

/// Mounts what every program takes for granted, and loads the disk's drivers.
fn prepare() -> Result<()> {
    let none = None::<&str>;
    for (fs, at) in
        [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run"), ("tmpfs", "/tmp")]
    {
        let attempt = || format!("mount '{at}'");
        fs::create_dir_all(at).attempt(attempt)?;
        mount(Some(fs), at, Some(fs), MsFlags::empty(), none).attempt(attempt)?;
    }
    load(&DRIVERS);
    Ok(())
}

/// Loads kernel modules. One that is built in or not there is found out by whoever needs it.
fn load(modules: &[&str]) {
    for module in modules {
        let _ = Cmd::new(Tool::Modprobe, LOADING).args(["-q", module]).run();
    }
}

/// Does the role's work, telling its phases.
fn work(port: &mut File) -> Result<()> {
    let cmdline = fs::read_to_string("/proc/cmdline").attempt(|| "read '/proc/cmdline'".into())?;
    match Role::of_cmdline(&cmdline)? {
        Role::Check => {
            tell(port, &phase("mounting"))?;
            let disk = Disk::find()?;
            let mounted = disk.mount(false)?;
            tell(port, &phase("looking"))?;
            let facts = gather(&disk, &mounted)?;
            tell(port, &Line::Facts(Box::new(facts)))
        }
    }
}

fn phase(name: &str) -> Line {
    Line::Phase { name: name.into() }
}

fn tell(port: &mut File, line: &Line) -> Result<()> {
    port.write_all(&line.to_bytes()).attempt(|| format!("write to '{PORT}'"))
}

/// Returns everything that is to be known of the mounted disk.
fn gather(disk: &Disk, mounted: &disk::Mounted) -> Result<Facts> {
    let partitions = disk.partitions();
    let mut facts = Facts {
        boot: boot::facts(disk.device(), &partitions, mounted.esp.as_deref()),
        partitions: partitions.into_iter().map(|(partition, _)| partition).collect(),
        ..Facts::default()
    };
    if let Some((number, root)) = &mounted.root {
        facts.root = Some(*number);
        let inside = Inside::enter(root)?;
        look(Path::new("/"), &mut facts);
        initramfs::look(&mut facts);
        inside.leave()?;
    }
    Ok(facts)
}

/// Adds what the tree shows.
fn look(root: &Path, facts: &mut Facts) {
    facts.boot.cmdline = boot::cmdline(root);
    system::facts(root, facts);
    facts.identity = identity::facts(root);
}

/// This process with the image's tree as its root: links lead where they would lead there, and programs are the image's.
struct Inside {
    outside: File,
}

impl Inside {
    /// Goes in. Places for temporary files are made: the image itself may be read-only.
    fn enter(root: &Path) -> Result<Self> {
        for place in ["tmp", "var/tmp", "run"] {
            let at = root.join(place);
            if at.is_dir() && !at.is_symlink() {
                mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), None::<&str>)
                    .attempt(|| format!("mount '{}'", at.display()))?;
            }
        }
        for place in ["proc", "sys", "dev"] {
            let (from, at) = (Path::new("/").join(place), root.join(place));
            if at.is_dir() && !at.is_symlink() {
                mount(Some(&from), &at, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                    .attempt(|| format!("mount '{}'", at.display()))?;
            }
        }
        let outside = File::open("/").attempt(|| "open '/'".into())?;
        chroot(root).and_then(|()| chdir("/")).attempt(|| "enter the image".into())?;
        Ok(Self { outside })
    }

    /// Comes out again.
    fn leave(self) -> Result<()> {
        fchdir(self.outside.as_fd()).and_then(|()| chroot(".")).attempt(|| "leave the image".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_but_a_guests_first_process_becomes_the_workshop() {
        assert_eq!(run().unwrap_err().kind(), crate::error::Kind::Invalid);
    }
}
