//! What runs inside the workshop: a small Linux of which this program is the first process.
//!
//! ```text
//! kernel ─► this program ─► modules ─► role (kernel's command line) ─► answer (second serial port) ─► restart
//!                                        │                                                        (QEMU ends)
//!                                        ├ check: find the disk, mount it read-only, gather facts
//!                                        └ seal: mount it, gather facts, plan, change, gather facts
//! ```
//!
//! It runs in a guest that is thrown away, on a clone that nobody else has. `workshop` makes that guest; `answer` has the
//! words between the two. One role is another machine's: `donor` runs on the machine whose disk is captured.

mod boot;
pub(super) mod disk;
mod donor;
mod identity;
mod initramfs;
mod seal;
mod system;
mod tree;

use std::{
    collections::BTreeMap,
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
    answer::{GRUB_PHASE, LONG_PHASE, Line, Role},
    facts::{Facts, Kernel},
    seal::{Act, plan},
};
use crate::{
    error::{Context, Error, Result},
    host::{
        cmd::{Cmd, Tool},
        disk::convert,
    },
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
        return Err(Error::invalid("this command is for the workshop's guest"));
    }
    prepare()?;
    let cmdline = fs::read_to_string("/proc/cmdline").attempt(|| "read '/proc/cmdline'".into())?;
    let role = Role::of_cmdline(&cmdline)?;
    if role == Role::Capture {
        return donor::run(&cmdline);
    }
    load(&DRIVERS);
    let mut port = File::options().write(true).open(PORT).attempt(|| format!("open '{PORT}'"))?;
    let last = match work(role, &mut port) {
        Ok(()) => Line::Done,
        Err(error) => Line::Failed { error: error.chain() },
    };
    // Whoever reads has a deadline; there is nobody else to tell.
    let _ = port.write_all(&last.to_bytes()).and_then(|()| port.flush());
    let _ = nix::sys::termios::tcdrain(&port);
    nix::unistd::sync();
    reboot(RebootMode::RB_AUTOBOOT).map(|never| match never {}).attempt(|| "restart the guest".into())
}

/// Mounts what every program takes for granted.
fn prepare() -> Result<()> {
    let none = None::<&str>;
    for (fs, at) in
        [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run"), ("tmpfs", "/tmp")]
    {
        let attempt = || format!("mount '{at}'");
        fs::create_dir_all(at).attempt(attempt)?;
        mount(Some(fs), at, Some(fs), MsFlags::empty(), none).attempt(attempt)?;
    }
    Ok(())
}

/// Loads kernel modules. One that is built in or not there is found out by whoever needs it.
fn load(modules: &[&str]) {
    for module in modules {
        let _ = Cmd::new(Tool::Modprobe, LOADING).args(["-q", module]).run();
    }
}

/// Does the role's work, telling its phases.
fn work(role: Role, port: &mut File) -> Result<()> {
    match role {
        Role::Check => check(port),
        Role::Seal { dry_run } => seal(port, dry_run),
        Role::Capture => Err(Error::invalid("a guest has no disk to capture")),
    }
}

fn check(port: &mut File) -> Result<()> {
    tell(port, &phase("mounting"))?;
    let disk = Disk::find()?;
    let mounted = disk.mount(false)?;
    tell(port, &phase("looking"))?;
    prepare_inside(&mounted, false)?;
    let facts = gather(&disk, &mounted, None)?;
    tell(port, &Line::Facts(Box::new(facts)))
}

fn seal(port: &mut File, dry_run: bool) -> Result<()> {
    tell(port, &phase("mounting"))?;
    let mut disk = Disk::find()?;
    let mut mounted = disk.mount(!dry_run)?;
    tell(port, &phase("looking"))?;
    prepare_inside(&mounted, !dry_run)?;
    let before = gather(&disk, &mounted, None)?;
    let acts = plan(&before)?;
    tell(port, &Line::Changes { changes: acts.iter().map(Act::shown).collect() })?;
    if dry_run || acts.is_empty() {
        return tell(port, &Line::Facts(Box::new(before)));
    }
    let mut renames = BTreeMap::new();
    if let Some(Act::Gpt { dropped }) = acts.first() {
        tell(port, &phase("partitioning"))?;
        renames = disk.renames(dropped);
        mounted.release()?;
        convert::convert(disk.device())?;
        disk = disk.reread()?;
        disk.link_uuids()?;
        mounted = disk.mount(true)?;
        prepare_inside(&mounted, true)?;
    }
    change(port, (&disk, &mounted, &renames), &acts)?;
    // GRUB writes its core through the whole disk's cache; it is read through its partition's.
    nix::unistd::sync();
    tell(port, &phase("looking again"))?;
    let remade = acts.iter().any(|act| matches!(act, Act::Initramfs(_)));
    // Listing an initramfs takes long where the processor is emulated: one that was not made anew is as it was.
    let kernels = (!remade).then_some(before.kernels);
    let after = gather(&disk, &mounted, kernels)?;
    mounted.release()?;
    tell(port, &Line::Facts(Box::new(after)))
}

/// Makes the changes, in their order.
fn change(
    port: &mut File,
    (disk, mounted, renames): (&Disk, &disk::Mounted, &BTreeMap<String, Option<String>>),
    acts: &[Act],
) -> Result<()> {
    tell(port, &phase("sealing"))?;
    for act in acts {
        match (act, &mounted.esp, &mounted.root) {
            (Act::RemovableLoader { from }, Some(esp), _) => seal::copy_loader(esp, from)?,
            (_, _, Some((_, root))) => {
                if matches!(act, Act::Initramfs(_)) {
                    tell(port, &phase(LONG_PHASE))?;
                }
                if matches!(act, Act::Grub) {
                    tell(port, &phase(GRUB_PHASE))?;
                }
                let inside = Inside::enter(root)?;
                let done = match act {
                    Act::Names => seal::rename(Path::new("/"), renames),
                    Act::Grub => seal::grub(Path::new("/"), disk.device()),
                    _ => seal::apply(Path::new("/"), act),
                };
                inside.leave()?;
                done.map_err(|e| e.while_doing(act.to_string()))?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn phase(name: &str) -> Line {
    Line::Phase { name: name.into() }
}

fn tell(port: &mut File, line: &Line) -> Result<()> {
    port.write_all(&line.to_bytes()).attempt(|| format!("write to '{PORT}'"))
}

/// Returns everything that is to be known of the mounted disk.
///
/// `kernels` are those of an earlier look, where they are known to be the same.
fn gather(disk: &Disk, mounted: &disk::Mounted, kernels: Option<Vec<Kernel>>) -> Result<Facts> {
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
        match kernels {
            Some(kernels) => facts.kernels = kernels,
            None => initramfs::look(&mut facts),
        }
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

/// Gives the image's tree what programs in it take for granted. A tree that may be written to keeps its own large places
/// for temporary files: memory is scarce here.
fn prepare_inside(mounted: &disk::Mounted, writable: bool) -> Result<()> {
    let Some((_, root)) = &mounted.root else { return Ok(()) };
    let none = None::<&str>;
    let places = ["tmp", "run", "var/tmp"];
    for place in &places[..if writable { 2 } else { 3 }] {
        let at = root.join(place);
        if at.is_dir() && !at.is_symlink() {
            mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), none)
                .attempt(|| format!("mount '{}'", at.display()))?;
        }
    }
    for place in ["proc", "sys", "dev"] {
        let (from, at) = (Path::new("/").join(place), root.join(place));
        if at.is_dir() && !at.is_symlink() {
            mount(Some(&from), &at, none, MsFlags::MS_BIND, none)
                .attempt(|| format!("mount '{}'", at.display()))?;
        }
    }
    Ok(())
}

/// This process with the image's tree as its root: links lead where they would lead there, and programs are the image's.
struct Inside {
    outside: File,
}

impl Inside {
    /// Goes in.
    fn enter(root: &Path) -> Result<Self> {
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
