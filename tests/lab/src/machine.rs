//! One QEMU process: its command line, put together part by part, and its life. What is plugged into it, and why, is the
//! affair of `appliance` and `blade`.
//! It dies with this process, whatever happens: by `Drop`, or by the kernel's death signal when there is no time for that.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use crate::console::Console;
use crate::error::Result;
use crate::qmp::Qmp;
use crate::run::Lab;
use crate::tool::Tool;
use crate::wait::{secs, until};

/// QEMU ends as fast as it can write its caches.
const QUIT_BOUND: Duration = secs(60);

/// A QEMU command line under construction.
#[derive(Debug)]
pub(crate) struct Machine {
    name: String,
    dir: PathBuf,
    args: Vec<String>,
}

/// A running QEMU with its control socket and its first serial console.
#[derive(Debug)]
pub(crate) struct Guest {
    child: Child,
    log: PathBuf,
    /// The control socket.
    pub(crate) qmp: Qmp,
    /// The first serial port.
    pub(crate) console: Console,
}

/// How big a guest is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Virtual CPUs.
    pub(crate) cpus: u32,
    /// Memory.
    pub(crate) mib: u32,
}

impl Machine {
    /// Returns a PC with a serial console, a control socket and nothing else.
    ///
    /// `pc` and not `q35`: it starts faster, and every PCI slot takes a hot-plugged device.
    pub(crate) fn new(lab: &Lab, name: &str, size: Size) -> Self {
        let mut machine = Machine { name: name.to_owned(), dir: lab.dir().to_owned(), args: Vec::new() };
        machine.args(lab.accel().args());
        machine.args([
            "-machine",
            "pc,graphics=off",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-vga",
            "none",
        ]);
        machine.args(["-smp", &size.cpus.to_string(), "-m", &format!("{}M", size.mib)]);
        machine.socket("monitor", "qmp");
        machine.args(["-mon", "chardev=monitor,mode=control"]);
        machine.socket("serial", "serial");
        machine.args(["-serial", "chardev:serial", "-device", "virtio-rng-pci"]);
        machine
    }

    /// Adds arguments.
    pub(crate) fn args<A: Into<String>>(&mut self, args: impl IntoIterator<Item = A>) -> &mut Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds a character device behind a socket of the run folder, `<guest>-<suffix>.sock`.
    pub(crate) fn socket(&mut self, id: &str, suffix: &str) -> &mut Self {
        let path = self.path(suffix);
        self.args(["-chardev", &format!("socket,id={id},path={},server=on,wait=off", path.display())])
    }

    /// Returns the path of one of the guest's sockets.
    pub(crate) fn path(&self, suffix: &str) -> PathBuf {
        self.dir.join(format!("{}-{suffix}.sock", self.name))
    }

    /// Returns the command line as text in which nothing depends on the run: what a saved guest depends on.
    pub(crate) fn identity(&self) -> String {
        self.args.join(" ").replace(&*self.dir.to_string_lossy(), "RUN")
    }

    /// Powers it on.
    ///
    /// # Errors
    /// When QEMU ends at once; the error has its words.
    pub(crate) fn start(&self) -> Result<Guest> {
        let log = self.dir.join(format!("{}.qemu.log", self.name));
        let started = Instant::now();
        let qemu = Tool::new(QEMU).args(["-name", &self.name]).args(&self.args);
        let mut child = qemu.spawn_bound(&log)?;
        let opened = self.open(started);
        match opened {
            Ok((qmp, console)) => Ok(Guest { child, log, qmp, console }),
            Err(error) => {
                end(&mut child);
                let words = words(&log);
                Err(crate::Error::new(format!("start guest '{}'", self.name), format!("{error}\n{words}")))
            }
        }
    }

    fn open(&self, started: Instant) -> Result<(Qmp, Console)> {
        let console =
            Console::connect(&self.path("serial"), &self.dir.join(format!("{}.log", self.name)), started)?;
        Ok((Qmp::connect(&self.path("qmp"))?, console))
    }
}

impl Guest {
    /// Returns whether QEMU still runs.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Returns what QEMU itself has said.
    pub(crate) fn words(&self) -> String {
        words(&self.log)
    }

    /// Lets QEMU write out its disks' metadata and end.
    pub(crate) fn quit(&mut self) -> Result<()> {
        self.qmp.execute("quit", serde_json::json!({}))?;
        until("the end of a guest", QUIT_BOUND, || self.child.try_wait().ok().flatten()).map(|_| ())
    }

    /// Cuts the power.
    pub(crate) fn power_off(&mut self) {
        end(&mut self.child);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// The emulator.
pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// Returns QEMU's version: a saved guest can be taken up by the same one only.
pub(crate) fn qemu_version() -> Result<String> {
    let text = Tool::new(QEMU).arg("--version").run()?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Makes a disk image that records what differs from `base`.
pub(crate) fn overlay(base: &Path, image: &Path) -> Result<()> {
    let create = Tool::new("qemu-img").args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"]);
    create.arg(base).arg(image).run().map(|_| ())
}

/// Makes an empty disk image.
pub(crate) fn blank(image: &Path, size: &str) -> Result<()> {
    Tool::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(image).arg(size).run().map(|_| ())
}

fn words(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

fn end(child: &mut Child) {
    // Both fail only when it has ended already.
    let _ = child.kill();
    let _ = child.wait();
}
