//! The appliance guest: a Debian with systemd, one NIC per chassis slot, an empty disk for the pool, and a guest agent.
//! It starts from a saved state of itself, booted and idle (`images` makes that once), so a test has it in seconds.
//! It has nothing of the product in it: the test hands in a payload and installs it.
//!
//! Slots 1 to 4 have a NIC (`slot1` … `slot4` in the guest) whose cable is out; [`Appliance::plug`] puts it in.
//! Slots 5 to 8 have none until [`Appliance::add_nic`].

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::accel::Accel;
use crate::agent::{Agent, Output};
use crate::console::Console;
use crate::error::{Error, Result};
use crate::images;
use crate::machine::{Guest, Machine, Size, blank, overlay};
use crate::payload::Payload;
use crate::phase::timed;
use crate::qmp::Qmp;
use crate::run::Lab;
use crate::wait::secs;

/// Slots whose NIC is there from the start.
pub const SLOTS: u8 = 4;
/// The highest slot number; those above [`SLOTS`] get their NIC by hot-plug.
pub const MAX_SLOT: u8 = 8;
/// Where the guest sees the pool's disk.
pub const POOL_DISK: &str = "/dev/vdb";

const SIZE: Size = Size { cpus: 2, mib: 2048 };
/// Emulated, an appliance of two processors that has guests of its own is lost in one of some thirty of them: its kernel falls
/// into a triple fault, and the machine begins anew. With one processor none of two hundred did that.
const SIZE_WITH_GUESTS: Size = Size { cpus: 1, ..SIZE };
const POOL_SIZE: &str = "20G";
/// From restored to an answering agent takes a second or two; more only where several guests share a core.
const RESTORED_BOUND: Duration = secs(60);
/// How long a command may take where the caller names no bound: an emulated `apt-get install` needs about a minute.
const COMMAND_BOUND: Duration = secs(300);
/// A booting appliance answers after 15 s emulated on an idle machine.
const BOOTED_BOUND: Duration = secs(300);
/// A guest that never runs, for as long as the appliance does.
///
/// KVM rewrites its own code when the first guest comes and when an interrupt controller is switched on that was the last one
/// off. An emulated processor may run what was there a moment before: a breakpoint that is not known any more, which is
/// the end of the kernel ("Oops: int3" in `kvm_arch_vcpu_ioctl_run`). With one guest whose controller stays off there is
/// nothing to rewrite.
const HOLD_KVM: &str = "! command -v qemu-system-x86_64 > /dev/null || ! modprobe -q kvm-amd || systemd-run --quiet --unit=lab-kvm-held \
    qemu-system-x86_64 -accel kvm -cpu host -m 16 -S -nodefaults -no-user-config -display none";
/// What a kernel says when it stops, or soon will.
const KERNEL_STOPS: [&str; 3] = ["Oops: ", "BUG: ", "Kernel panic"];
/// What stands on the console when the machine begins: its firmware's greeting.
const FIRMWARE_BEGINS: &str = "SeaBIOS (version";
/// What a kernel says last when somebody has asked for that.
const KERNEL_RESTARTS: &str = "reboot: ";
/// What a kernel says, every two minutes, of a task that waits for its disk.
const TASK_WAITS: &str = "blocked for more than ";
/// A task that waits for so many seconds is not late: the emulator has lost the word of its disk.
const DISK_SECONDS: u64 = 240;
/// The lines of QEMU's register dump that tell a processor's number, whether it is halted, where and in which mode it is, and what
/// its interrupt controller is at.
const TELLING: [&str; 7] = ["CPU#", "RIP=", "CS ", "CR0=", "EFER=", "ISR", "IRR"];

/// A running appliance guest.
#[derive(Debug)]
pub struct Appliance {
    agent: Agent,
    guest: Guest,
    shell: PathBuf,
    dir: PathBuf,
    /// Whether it is the emulator's fault where it is lost: a processor of the host's that does so is no chance.
    is_emulated: bool,
}

impl Appliance {
    /// Starts an appliance from its saved, booted state, with `payload` mounted at `/payload`.
    ///
    /// # Errors
    /// When the images cannot be made, or the guest does not come to life.
    pub fn booted(lab: &Lab, payload: &Payload) -> Result<Self> {
        let saved = images::booted(lab)?;
        overlay(&saved.join("root.qcow2"), &root_disk(lab))?;
        let mut machine = machine(lab)?;
        machine.args(["-incoming", "defer"]);
        let mut guest = machine.start()?;
        timed("appliance: memory restored", || guest.qmp.restore(&saved.join("memory")))?;
        let mut appliance =
            timed("appliance: agent answers", || Self::answering(lab, &machine, guest, RESTORED_BOUND))?;
        timed("appliance: clock set", || appliance.set_clock())?;
        timed("appliance: payload mounted", || appliance.mount(lab, payload))?;
        if lab.emulates_guests() {
            appliance.ok(HOLD_KVM)?;
        }
        Ok(appliance)
    }

    /// Boots an appliance from its kernel, and waits until its start-up is over. For the saved state, and for tests of
    /// a start of the machine.
    pub(crate) fn cold(lab: &Lab) -> Result<Self> {
        let image = images::appliance(lab.cache(), lab.release())?;
        overlay(&image.join("root.qcow2"), &root_disk(lab))?;
        let machine = machine(lab)?;
        let mut guest = machine.start()?;
        // QEMU's NICs begin with their cable in; the saved state then has them out.
        for slot in 1..=SLOTS {
            guest.qmp.set_link(&nic(slot), false)?;
        }
        let mut appliance = Self::answering(lab, &machine, guest, BOOTED_BOUND)?;
        // "degraded" ends it too; a failed unit is then a finding of the test that cares.
        appliance.run("systemctl is-system-running --wait")?;
        Ok(appliance)
    }

    /// Waits until its guest agent answers.
    fn answering(lab: &Lab, machine: &Machine, guest: Guest, bound: Duration) -> Result<Self> {
        let (agent, shell) = (Agent::connect(&machine.path("agent"), bound)?, machine.path("shell"));
        let (dir, is_emulated) = (lab.dir().to_owned(), lab.accel() == Accel::Tcg);
        Ok(Appliance { agent, guest, shell, dir, is_emulated })
    }

    /// Runs a shell command as root; a failing command is an [`Output`], not an error.
    ///
    /// # Errors
    /// When the guest is lost, or the command takes more than five minutes.
    pub fn run(&mut self, command: &str) -> Result<Output> {
        self.run_within(command, COMMAND_BOUND)
    }

    /// Runs a shell command as root, for at most `bound`.
    ///
    /// # Errors
    /// As [`Appliance::run`]. A guest that is lost is told as soon as it is.
    pub fn run_within(&mut self, command: &str, bound: Duration) -> Result<Output> {
        let Self { agent, guest, is_emulated, .. } = self;
        let goes_on = || match lost(guest, *is_emulated) {
            Some(lost) => Err(Error::new(format!("run '{command}' in the appliance"), lost)),
            None => Ok(()),
        };
        agent.run(command, bound, goes_on).map_err(|error| self.explained(error))
    }

    /// Runs a shell command as root that must succeed, and returns its output.
    ///
    /// # Errors
    /// When it does not, with its words.
    pub fn ok(&mut self, command: &str) -> Result<String> {
        let cause = match self.run(command)? {
            output if output.code == 0 => return Ok(output.stdout),
            output => format!("{output:?}"),
        };
        Err(Error::new(format!("run '{command}' in the appliance"), cause))
    }

    /// Adds what became of the guest: an agent that is silent has no words.
    fn explained(&mut self, error: Error) -> Error {
        let console = self.guest.console.text();
        let stopped = kernel_stopped(&console).map(|line| format!("the guest's kernel has stopped: {line}"));
        let why = self.lost().or(stopped);
        let why = why.unwrap_or_else(|| "have something done in the appliance".to_owned());
        Error::new(why, format!("{error}\n{}", self.plight()))
    }

    /// Returns what became of it, where its emulator has lost it: QEMU has ended by itself, the machine began anew and nobody in
    /// it had asked for that, or its disk does not answer any more.
    pub fn lost(&mut self) -> Option<String> {
        lost(&mut self.guest, self.is_emulated)
    }

    /// Writes a small file in the guest; big ones travel on a payload disk.
    ///
    /// # Errors
    /// When the guest cannot write there.
    pub fn push(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.agent.push(path, content)
    }

    /// Puts the cable of a slot in: the guest sees the carrier come up.
    ///
    /// # Errors
    /// When the slot has no NIC.
    pub fn plug(&mut self, slot: u8) -> Result<()> {
        self.guest.qmp.set_link(&nic(slot), true)
    }

    /// Pulls the cable of a slot out.
    ///
    /// # Errors
    /// When the slot has no NIC.
    pub fn unplug(&mut self, slot: u8) -> Result<()> {
        self.guest.qmp.set_link(&nic(slot), false)
    }

    /// Hot-plugs the NIC of a slot above [`SLOTS`], its cable in.
    ///
    /// # Errors
    /// When the slot has its NIC already, or its number is too high.
    pub fn add_nic(&mut self, slot: u8) -> Result<()> {
        if !(SLOTS + 1..=MAX_SLOT).contains(&slot) {
            return Err(Error::new(format!("hot-plug a NIC for slot {slot}"), "no such empty slot"));
        }
        let path = cable(&self.dir, slot);
        let address = json!({"type": "unix", "path": path});
        let netdev = json!({"type": "stream", "id": format!("cable{slot}"), "server": true, "addr": address});
        self.guest.qmp.execute("netdev_add", netdev)?;
        let device = json!({
            "driver": "virtio-net-pci", "id": nic(slot), "netdev": format!("cable{slot}"), "mac": port_mac(slot), "romfile": "",
        });
        self.guest.qmp.execute("device_add", device).map(|_| ())
    }

    /// Takes the NIC of a slot out of the running guest.
    ///
    /// # Errors
    /// When the slot has none.
    pub fn remove_nic(&mut self, slot: u8) -> Result<()> {
        self.guest.qmp.execute("device_del", json!({"id": nic(slot)})).map(|_| ())
    }

    /// Hot-plugs a disk image; the guest finds it as `/dev/disk/by-id/virtio-<id>`.
    ///
    /// # Errors
    /// When QEMU cannot open it, or the guest does not see it.
    pub fn add_disk(&mut self, id: &str, image: &Path, format: &str, read_only: bool) -> Result<()> {
        self.guest.qmp.add_disk(id, image, format, read_only)?;
        let node = format!("/dev/disk/by-id/virtio-{id}");
        // Two looks a second: the first one usually finds it.
        self.ok(&format!("for i in $(seq 60); do [ -e {node} ] && exit; sleep 0.2; done; exit 1")).map(|_| ())
    }

    /// Returns its first serial console (its kernel's, with a root shell on it).
    pub fn console(&mut self) -> &mut Console {
        &mut self.guest.console
    }

    /// Returns what can be told of an appliance that does not answer: where its processors are, which interrupts they are at and
    /// have yet to take, and its console's end.
    fn plight(&mut self) -> String {
        let mut ask = |question: &str| {
            let said = self.guest.qmp.execute("human-monitor-command", json!({"command-line": question}));
            said.map_or_else(|error| error.to_string(), |text| text.as_str().unwrap_or_default().to_owned())
        };
        let processors = ["info registers -a", "info lapic"].map(&mut ask).join("\n");
        let lines = processors.lines().filter(|line| TELLING.iter().any(|name| line.starts_with(name)));
        let lines: Vec<_> = lines.collect();
        format!("{}\nits console ends with:\n{}", lines.join("\n"), self.guest.console.tail())
    }

    /// Returns the socket of a second root shell, for a person (`lab shell`).
    pub fn shell(&self) -> &Path {
        &self.shell
    }

    /// Returns QEMU's control socket.
    pub fn qmp(&mut self) -> &mut Qmp {
        &mut self.guest.qmp
    }

    /// Saves the running guest's memory and leaves it stopped; its disk then belongs to that memory.
    pub(crate) fn save(&mut self, memory: &Path) -> Result<()> {
        self.guest.qmp.save(memory)
    }

    /// Ends the guest in order: what it has synced is in its disks' files.
    pub(crate) fn quit(mut self) -> Result<()> {
        self.guest.quit()
    }

    /// A restored guest believes in the time at which it was saved.
    fn set_clock(&mut self) -> Result<()> {
        let now =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("the host's clock is past 1970");
        self.ok(&format!("date -u -s @{}.{:03} > /dev/null", now.as_secs(), now.subsec_millis())).map(|_| ())
    }

    fn mount(&mut self, lab: &Lab, payload: &Payload) -> Result<()> {
        let image = lab.path("payload.img");
        payload.write(&image, &lab.path("payload"))?;
        self.add_disk("payload", &image, "raw", true)?;
        self.ok("mount -o ro /dev/disk/by-id/virtio-payload /payload").map(|_| ())
    }
}

fn lost(guest: &mut Guest, is_emulated: bool) -> Option<String> {
    if !is_emulated {
        return None;
    }
    if !guest.runs() {
        let words = guest.words();
        let last = words.lines().last().unwrap_or("and has said nothing");
        return Some(format!("the emulator has ended: {last}"));
    }
    let console = guest.console.text();
    if begins_anew(&console) {
        return Some("the emulated machine began anew".to_owned());
    }
    disk_is_silent(&console).map(|line| format!("the emulated disk does not answer: {line}"))
}

/// Returns what a kernel has said of its own end, if it has.
fn kernel_stopped(console: &str) -> Option<&str> {
    console.lines().find(|line| KERNEL_STOPS.iter().any(|word| line.contains(word))).map(str::trim)
}

/// Returns whether a machine that was restored from its saved state has begun anew and not been told to.
fn begins_anew(console: &str) -> bool {
    console.matches(FIRMWARE_BEGINS).count() > console.matches(KERNEL_RESTARTS).count()
}

/// Returns what a kernel has said of a task that waits for its disk for ever, if one does.
fn disk_is_silent(console: &str) -> Option<&str> {
    let waits = |line: &&str| {
        let seconds = line.split_once(TASK_WAITS).and_then(|(_, rest)| rest.split_once(' '));
        seconds.is_some_and(|(seconds, _)| seconds.parse().is_ok_and(|seconds: u64| seconds > DISK_SECONDS))
    };
    console.lines().find(waits).map(str::trim)
}

/// Returns the MAC of a slot's port: the appliance's side of the cable.
pub fn port_mac(slot: u8) -> String {
    format!("52:54:00:5a:00:{slot:02x}")
}

/// Returns the socket that is a slot's cable; the blade connects to it.
pub(crate) fn cable(dir: &Path, slot: u8) -> PathBuf {
    dir.join(format!("slot{slot}.sock"))
}

fn nic(slot: u8) -> String {
    format!("slot{slot}")
}

/// Where a run keeps the appliance's own disk.
pub(crate) fn root_disk(lab: &Lab) -> PathBuf {
    lab.path("appliance-root.qcow2")
}

/// Returns the machine that a saved state fits: the same for every run but for the run's folder.
pub(crate) fn machine(lab: &Lab) -> Result<Machine> {
    let image = images::appliance(lab.cache(), lab.release())?;
    let pool = lab.path("appliance-pool.qcow2");
    blank(&pool, POOL_SIZE)?;
    let size = if lab.emulates_guests() { SIZE_WITH_GUESTS } else { SIZE };
    let mut machine = Machine::new(lab, "appliance", size);
    machine.args(["-kernel", &image.join("vmlinuz").to_string_lossy()]);
    machine.args(["-initrd", &image.join("initrd.img").to_string_lossy()]);
    machine.args(["-append", "root=/dev/vda rw console=ttyS0 quiet mitigations=off"]);
    // Fresh random numbers after a restore, although the saved state is the same each time.
    machine.args(["-device", "vmgenid,guid=auto", "-device", "virtio-serial-pci"]);
    machine
        .socket("agent", "agent")
        .args(["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]);
    machine.socket("shell", "shell").args(["-device", "virtconsole,chardev=shell"]);
    disk(&mut machine, "root", &root_disk(lab));
    disk(&mut machine, "pool", &pool);
    for slot in 1..=SLOTS {
        let (nic, mac, path) = (nic(slot), port_mac(slot), cable(lab.dir(), slot));
        let netdev = format!("stream,id=cable{slot},server=on,addr.type=unix,addr.path={}", path.display());
        let device = format!("virtio-net-pci,id={nic},netdev=cable{slot},mac={mac},romfile=,addr=0x1{slot}");
        machine.args(["-netdev", &netdev, "-device", &device]);
    }
    Ok(machine)
}

fn disk(machine: &mut Machine, id: &str, image: &Path) {
    let file = format!("file.driver=file,file.filename={}", image.display());
    // The host's page cache may hold what the guest has synced: a run's disks end with the run.
    let caching = "cache.no-flush=on,discard=unmap,detect-zeroes=unmap";
    machine.args(["-blockdev", &format!("driver=qcow2,node-name={id}-node,{file},{caching}")]);
    machine.args(["-device", &format!("virtio-blk-pci,id={id},drive={id}-node,serial={id}")]);
}

#[cfg(test)]
mod tests {
    use super::{begins_anew, disk_is_silent, kernel_stopped};

    #[test]
    fn what_a_kernel_says_of_its_own_end_is_found_on_its_console() {
        let said = "appliance login: root\r\n[ 9.1] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI\r\n[ 9.1] CPU: 1 PID: 7\r\n";
        assert_eq!(kernel_stopped(said), Some("[ 9.1] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI"));
        assert_eq!(kernel_stopped("[ 9.1] kvm: Unhandled WRMSR\n"), None);
    }

    #[test]
    fn a_disk_is_silent_where_a_task_waits_for_it_for_minutes() {
        let waits =
            |seconds| format!("[  9.0] INFO: task dd:99 blocked for more than {seconds} seconds.\r\n");
        assert_eq!(disk_is_silent(&waits(120)), None, "late");
        assert_eq!(disk_is_silent(&[waits(120), waits(241)].concat()), Some(waits(241).trim()));
    }

    #[test]
    fn a_machine_begins_anew_where_its_firmware_greets_and_nobody_has_restarted_it() {
        let greeting = "SeaBIOS (version 1.16.3-debian)\n";
        assert!(!begins_anew("appliance login: root\n"));
        assert!(begins_anew(&format!("kvm: something\n{greeting}")));
        assert!(!begins_anew(&format!("[  9.0] reboot: Restarting system\n{greeting}")));
        assert!(begins_anew(&format!("[  9.0] reboot: Restarting system\n{greeting}{greeting}")));
    }
}
