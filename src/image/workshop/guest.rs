//! A throw-away guest: QEMU as a transient unit without privileges, on a clone that nobody else has.
//!
//! Whatever an image does to the guest's kernel, it is then in a process of a passing user without network, devices (but
//! that one clone), files and privileges; QEMU's own seccomp filter is on besides. The guest's console goes to a file, its
//! second serial port to us.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use super::{
    Workshop,
    place::Place,
    qemu::{equip, has_kvm, machine},
};
use crate::{
    error::{Context, Error, Kind, Result},
    image::{
        Cancel,
        answer::{GRUB_PHASE, LONG_PHASE, Line, Lines, Role},
        inside::{WORKSHOP, disk::SERIAL},
        sandbox::{DEVICE, Sandbox},
    },
    model::ImageId,
};

/// Where the guest's parts are seen inside of the sandbox.
const KERNEL: &str = "/workshop/vmlinuz";
const INITRD: &str = "/workshop/initrd";
const CONSOLE: &str = "/workshop/console";
/// The guest's memory: kernel, initramfs and room for the image's own tools; more where they make an initramfs.
const MEMORY_MIB: u32 = 512;
const MEMORY_TO_SEAL_MIB: u32 = 1024;
/// Longest silence of a guest: its start, and each phase, take 20 s where the appliance is itself emulated and has nothing
/// else to do.
const SILENCE: Duration = Duration::from_secs(180);
/// Longest silence in the one phase that takes longer.
const LONG_SILENCE: Duration = Duration::from_secs(1200);
/// Longest time for a guest, emulated.
const LIMIT: Duration = Duration::from_secs(3600);
/// The console log is cut off there, and the guest with it: one that prints so much is not at work.
const LARGEST_LOG: &str = "LimitFSIZE=8M";
/// How much of the console's end an error shows.
const SHOWN: usize = 600;

/// One guest, not yet started.
#[derive(Debug)]
pub(in crate::image) struct Guest<'a> {
    /// The image that it is about: units are named after it.
    pub(in crate::image) image: &'a ImageId,
    /// What it is for.
    pub(in crate::image) role: Role,
    /// Kernel and initramfs.
    pub(in crate::image) workshop: &'a Workshop,
    /// The clone's device.
    pub(in crate::image) device: &'a Path,
    /// A folder that only root can enter.
    pub(in crate::image) folder: &'a Path,
    /// How it is told to stop.
    pub(in crate::image) cancel: &'a Cancel,
}

/// How a guest ended.
#[derive(Debug)]
pub(in crate::image) enum Ended {
    /// With its last word.
    Answered,
    /// Without one: [`Kind::Timeout`] where it fell silent, [`Kind::Failed`] with the console's end where it was lost.
    Silent(Error),
}

impl Guest<'_> {
    /// Runs the guest to its end and hands its answer over, line by line.
    ///
    /// # Errors
    /// What the guest says of itself; [`Kind::Denied`] when it was cancelled.
    pub(in crate::image) fn run(&self, on_line: &mut dyn FnMut(Line)) -> Result<Ended> {
        let mut silence = Silence::begin();
        let place = Place::make(self.folder, self.image)?;
        let node = self.device.canonicalize().attempt(|| format!("find '{}'", self.device.display()))?;
        let sandbox = self.sandbox(&place, &node);
        sandbox.stop();
        let (mut lines, mut last, mut broken) = (Lines::default(), None, false);
        let ended = sandbox.run(vec![], |piece| {
            self.cancel.check().and_then(|()| silence.check(piece)).inspect_err(|_| broken = true)?;
            for line in lines.feed(piece).inspect_err(|_| broken = true)? {
                silence.hear(&line);
                match line {
                    Line::Done | Line::Failed { .. } => last = Some(line),
                    line => on_line(line),
                }
            }
            Ok(())
        });
        match (last, ended) {
            (_, Err(error)) if broken && error.kind() == Kind::Timeout => Ok(Ended::Silent(error)),
            (_, Err(error)) if broken => Err(error),
            (Some(Line::Failed { error }), _) => Err(Error::new(Kind::Failed, error)),
            (Some(_), _) => Ok(Ended::Answered),
            (None, ended) => Ok(Ended::Silent(lost(&place, ended.err()))),
        }
    }

    fn sandbox(&self, place: &Place, node: &Path) -> Sandbox {
        let kvm = has_kvm();
        let args = self.args(kvm);
        let sandbox = Sandbox::machine(self.image, self.role.name(), &place.root(), &args, LIMIT)
            .with_device(node)
            .with(&["PrivateNetwork=yes", "RestrictAddressFamilies=AF_UNIX", LARGEST_LOG])
            .seeing(&self.workshop.kernel(), KERNEL)
            .seeing(&self.workshop.initrd(), INITRD)
            .writing(&place.console(), CONSOLE);
        equip(sandbox, kvm, self.memory())
    }

    /// Returns its memory, in MiB.
    fn memory(&self) -> u32 {
        match self.role {
            Role::Check | Role::Seal { dry_run: true } | Role::Capture => MEMORY_MIB,
            Role::Seal { dry_run: false } => MEMORY_TO_SEAL_MIB,
        }
    }

    /// Returns QEMU's arguments.
    fn args(&self, kvm: bool) -> Vec<String> {
        let cmdline = format!(
            "console=ttyS0 quiet panic=-1 mitigations=off nokaslr random.trust_cpu=on {} rdinit=/usr/bin/sheath -- {WORKSHOP}",
            self.role.word()
        );
        let disk = format!(
            "driver=host_device,node-name=image,filename={DEVICE},cache.direct=on,aio=threads,discard=unmap"
        );
        let mut args = machine(kvm, self.memory());
        let mut pair = |key: &str, value: String| args.extend([key.to_owned(), value]);
        pair("-kernel", KERNEL.into());
        pair("-initrd", INITRD.into());
        pair("-append", cmdline);
        pair("-blockdev", disk);
        pair("-device", format!("virtio-blk-pci,drive=image,serial={SERIAL}"));
        // The first port is the console, the second the answer.
        pair("-serial", format!("file:{CONSOLE}"));
        pair("-serial", "stdio".into());
        args
    }
}

/// How long a guest has said nothing, and how long it may.
struct Silence {
    since: Instant,
    most: Duration,
}

impl Silence {
    fn begin() -> Self {
        Self { since: Instant::now(), most: SILENCE }
    }

    /// Takes in what the guest says: some phases are longer than others.
    fn hear(&mut self, line: &Line) {
        let is_long =
            matches!(line, Line::Phase { name } if [LONG_PHASE, GRUB_PHASE].contains(&name.as_str()));
        self.most = if is_long { LONG_SILENCE } else { SILENCE };
    }

    /// Takes in that something came, or nothing.
    ///
    /// # Errors
    /// [`Kind::Timeout`] when nothing has come for too long.
    fn check(&mut self, piece: &[u8]) -> Result<()> {
        if !piece.is_empty() {
            self.since = Instant::now();
        }
        if self.since.elapsed() < self.most {
            return Ok(());
        }
        let text = format!("the guest has said nothing for {} s", self.most.as_secs());
        Err(Error::new(Kind::Timeout, text))
    }
}

/// Returns the error of a guest that ended without a word: QEMU's own, or what stands on its console.
fn lost(place: &Place, ended: Option<Error>) -> Error {
    let console = place.last_words(SHOWN);
    let error = Error::new(
        Kind::Failed,
        format!("the guest ended without an answer; its console ends with: {console}"),
    );
    match ended {
        Some(why) => error.because(why),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn args(kvm: bool) -> Vec<String> {
        let (image, workshop) = ("debian13".parse().unwrap(), Workshop::at("/w".into()));
        let (device, folder) = (PathBuf::from("/dev/dm-7"), PathBuf::from("/f"));
        let cancel = &Cancel::default();
        Guest {
            image: &image,
            role: Role::Check,
            workshop: &workshop,
            device: &device,
            folder: &folder,
            cancel,
        }
        .args(kvm)
    }

    #[test]
    fn a_guest_that_says_nothing_is_given_up_and_in_its_long_phase_later() {
        let long_ago = |most: Duration| Instant::now().checked_sub(most + Duration::from_secs(1)).unwrap();
        let phase = |name: &str| Line::Phase { name: name.into() };
        let mut silence = Silence { since: long_ago(SILENCE), ..Silence::begin() };
        assert_eq!(silence.check(b"").unwrap_err().kind(), Kind::Timeout);
        silence.check(b"{").unwrap();
        silence.hear(&phase(LONG_PHASE));
        silence.since = long_ago(SILENCE);
        silence.check(b"").unwrap();
        silence.hear(&phase("looking again"));
        assert!(silence.check(b"").is_err());
    }

    #[test]
    fn the_guest_has_one_disk_two_serial_ports_and_no_network() {
        let args = args(false);
        assert_eq!(args.iter().filter(|arg| *arg == "-serial").count(), 2);
        assert_eq!(args.iter().filter(|arg| *arg == "-blockdev").count(), 1);
        assert!(args.contains(&"-nodefaults".to_owned()));
        assert!(!args.iter().any(|arg| arg.contains("net")), "{args:?}");
    }

    #[test]
    fn the_role_stands_on_the_kernels_command_line_before_the_programs_own_words() {
        let args = args(false);
        let cmdline = args.iter().find(|arg| arg.contains("rdinit=")).unwrap();
        let (kernel, program) = cmdline.split_once(" -- ").unwrap();
        assert_eq!(Role::of_cmdline(kernel).unwrap(), Role::Check);
        assert_eq!(program, WORKSHOP);
    }
}
