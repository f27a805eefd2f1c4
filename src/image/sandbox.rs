//! Transient units of systemd for programs that touch what strangers made.
//!
//! All of them run as a user that exists only meanwhile (`DynamicUser`), not as root without capabilities: root would
//! still own most of `/proc/sys` and could signal every other process of root's. Nobody's files are his, he has no
//! privileges to gain, no devices, no other process in sight, bounded memory, tasks and time.
//!
//! What he sees is an empty folder with the system's programs bound into it, and what his task needs. That is
//! `RootDirectory=`, because `TemporaryFileSystem=/` does nothing in a unit with `DynamicUser`: the `ProtectSystem=strict`
//! in it is an entry for `/` too, and systemd keeps one of the two (seen with 252).
//!
//! Units are named after the image, so that a second import finds and stops what an agent that was killed has left.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{internal, iscsi::Lun, nbd::Export, ssh as remote};
use crate::{
    error::{Error, Kind, Result},
    host::{
        cmd::{Cmd, Tool},
        ssh::Keys,
    },
    model::{ImageId, ImageName},
};

/// Where the source is seen inside.
pub(super) const SOURCE: &str = "/source";
/// Where the device is seen inside.
pub(super) const DEVICE: &str = "/dev/image";
/// Where a donor's disk is seen inside.
pub(super) const DONOR: &str = "/dev/donor";
/// The stages, as units' names have them.
const FETCH: &str = "fetch";
const PROBE: &str = "probe";
const CONVERT: &str = "convert";
const LIST: &str = "list";
const SUM: &str = "sum";
const STAGES: [&str; 5] = [FETCH, PROBE, CONVERT, LIST, SUM];
/// Longest time for a look at an image: a large one's tables, on a busy machine.
const PROBING: Duration = Duration::from_secs(660);
/// Longest time for a conversion: some TiB onto slow disks.
pub(super) const CONVERTING: Duration = Duration::from_secs(24 * 3600);
/// systemd's exit status for a unit whose mounts cannot be made (systemd.exec(5), `EXIT_NAMESPACE`).
const NAMESPACE: i32 = 226;
/// Where systemd keeps what it was told of a transient unit, for as long as it knows the unit.
const TRANSIENT: &str = "/run/systemd/transient";
/// Time for systemd to set a unit up and to take it down, beyond what the program has.
const AROUND: Duration = Duration::from_secs(60);
/// Time for a unit to stop: systemd kills after 90 s by itself.
const STOP: Duration = Duration::from_secs(120);
/// How often whoever waits for a sandbox is asked whether to go on, when the program says nothing.
pub(super) const TICK: Duration = Duration::from_millis(500);

/// What every sandbox has.
const COMMON: [&str; 28] = [
    "DynamicUser=yes",
    "NoNewPrivileges=yes",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "PrivateIPC=yes",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectControlGroups=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "ProtectProc=invisible",
    "ProcSubset=pid",
    "MountAPIVFS=yes",
    "BindReadOnlyPaths=/usr -/bin -/lib -/lib64 -/etc/ld.so.cache",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallErrorNumber=EPERM",
    "KeyringMode=private",
    "LimitCORE=0",
    "TasksMax=128",
    // Nobody reads any more: the agent is gone, and the work is in vain.
    "IgnoreSIGPIPE=no",
];

/// What lets a sandbox have the network, its names and its certificates.
const NETWORK: [&str; 3] = [
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    "BindReadOnlyPaths=-/etc/resolv.conf -/etc/hosts -/etc/nsswitch.conf -/run/systemd/resolve",
    "BindReadOnlyPaths=-/etc/ssl -/etc/ca-certificates",
];
/// What keeps it away.
const NO_NETWORK: [&str; 2] = ["PrivateNetwork=yes", "RestrictAddressFamilies=AF_UNIX"];
/// A folder of its own for what ssh wants to find there: who it is.
const OWN_ETC: &str = "TemporaryFileSystem=/etc:mode=0777";
/// For who needs none of root's rights.
const NO_CAPABILITY: &str = "CapabilityBoundingSet=";
/// udev gives block devices to this group; the only ones in sight are those that were let in.
const DISKS: &str = "SupplementaryGroups=disk";

/// One sandboxed program, not yet started.
pub(super) struct Sandbox {
    unit: String,
    properties: Vec<String>,
    command: Vec<String>,
    limit: Duration,
    /// Whether the program is our own: its exit status says what kind of failure it was.
    own: bool,
}

impl Sandbox {
    /// Returns curl with the network and no files: what it fetches comes out of its standard output, and where from it
    /// reads from its standard input.
    pub(super) fn curl(image: &ImageName, root: &Path, limit: Duration) -> Self {
        let command = [Tool::Curl.path(), "--disable", "--config", "-"];
        let mut sandbox = Self::new(image, FETCH, &command, limit);
        sandbox.properties.push(format!("RootDirectory={}", root.display()));
        sandbox.add(NETWORK);
        sandbox.add(["MemoryMax=256M", NO_CAPABILITY]);
        sandbox
    }

    /// Returns our own program's hidden subcommand, which sees the source, and nothing else of this machine.
    pub(super) fn own(image: &ImageName, root: &Path, args: &[&str], source: &Seen) -> Self {
        let (stage, limit) = stage(args);
        let command: Vec<&str> = [Tool::Sheath.path()].iter().chain(args).copied().collect();
        let mut sandbox = Self::new(image, stage, &command, limit);
        sandbox.own = true;
        sandbox.properties.push(format!("RootDirectory={}", root.display()));
        sandbox.add(["MemoryMax=1G"]);
        match source {
            Seen::File(path) => {
                sandbox.add(NO_NETWORK);
                sandbox.properties.push(format!("BindReadOnlyPaths={}:{SOURCE}", path.display()));
                sandbox.properties.extend(reader(path).map(str::to_owned));
            }
            Seen::Device(path) => {
                sandbox.add(NO_NETWORK);
                sandbox.add([NO_CAPABILITY, DISKS]);
                sandbox.properties.push(format!("BindReadOnlyPaths={}:{DONOR}", path.display()));
                sandbox.properties.push(format!("DeviceAllow={} r", path.display()));
            }
            Seen::Export(_) | Seen::Lun(_) => {
                sandbox.add(NETWORK);
                sandbox.add([NO_CAPABILITY]);
            }
            Seen::Remote(keys, _) => {
                sandbox.add(NETWORK);
                sandbox.add([NO_CAPABILITY, OWN_ETC]);
                sandbox.properties.push(format!("BindReadOnlyPaths=-{}", remote::SYSTEM_KNOWN_HOSTS));
                sandbox.properties.extend(credentials(keys));
            }
        }
        sandbox
    }

    /// Returns a virtual machine's program: it sees what the caller shows it.
    pub(super) fn machine(
        image: &ImageId,
        what: &str,
        root: &Path,
        args: &[String],
        limit: Duration,
    ) -> Self {
        let command: Vec<&str> =
            std::iter::once(Tool::Qemu.path()).chain(args.iter().map(String::as_str)).collect();
        let mut sandbox = Self::new(&image.name, what, &command, limit);
        // systemd has a meaning of its own for '@'.
        sandbox.unit = format!("sheath-image-{}_{}-{what}.service", image.name, image.version);
        sandbox.properties.push(format!("RootDirectory={}", root.display()));
        sandbox.add(["CapabilityBoundingSet="]);
        sandbox
    }

    /// Sets how long it may take.
    pub(super) fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Adds properties.
    pub(super) fn with(mut self, properties: &[&str]) -> Self {
        self.properties.extend(properties.iter().map(|property| (*property).to_owned()));
        self
    }

    /// Shows the program a file or folder under another name, to read.
    pub(super) fn seeing(self, from: &Path, to: &str) -> Self {
        self.with(&[&format!("BindReadOnlyPaths={}:{to}", from.display())])
    }

    /// Shows the program a file or folder under another name, to write.
    pub(super) fn writing(self, from: &Path, to: &str) -> Self {
        self.with(&[&format!("BindPaths={}:{to}", from.display())])
    }

    /// Lets the program write to this one block device.
    pub(super) fn with_device(mut self, device: &Path) -> Self {
        self.properties.push(format!("BindPaths={}:{DEVICE}", device.display()));
        self.properties.push(format!("DeviceAllow={} rw", device.display()));
        if !self.properties.iter().any(|property| property == DISKS) {
            self.properties.push(DISKS.into());
        }
        self
    }

    /// Runs the program in its unit until its end, and hands its output over as it comes; an empty piece now and then
    /// when nothing comes. An error of who takes it ends the unit.
    ///
    /// # Errors
    /// The taker's own; [`Kind::Invalid`] where our own program has refused the image, [`Kind::Missing`] where what should
    /// be bound into the root is not there; else the program's failure.
    pub(super) fn run(&self, input: Vec<u8>, on_output: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.follow(self.cmd().stdin(input), on_output)
    }

    /// Runs the program as [`Sandbox::run`] does, on a standard input that lasts.
    ///
    /// # Errors
    /// As [`Sandbox::run`].
    pub(super) fn run_on(&self, input: File, on_output: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.follow(self.cmd().stdin_from(Arc::new(input)), on_output)
    }

    fn cmd(&self) -> Cmd {
        Cmd::new(Tool::SystemdRun, self.limit + AROUND).args(self.args()).tick(TICK)
    }

    fn follow(&self, cmd: Cmd, mut on_output: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut refused = false;
        let ended = cmd.run_while(|piece| on_output(piece).inspect_err(|_| refused = true));
        ended.map(drop).map_err(|error| {
            if refused || error.kind() == Kind::Timeout {
                self.stop();
            }
            if refused { error } else { self.explain(&error) }
        })
    }

    /// Returns the error in words for people: without the sixty arguments of the command.
    ///
    /// What happened inside is only in the exit status and in what the program wrote.
    fn explain(&self, error: &Error) -> Error {
        let (unit, text) = (&self.unit, error.to_string());
        let Some((_, end)) = text.split_once("': exit status: ") else {
            return Error::new(error.kind(), format!("unit '{unit}' did not start or did not end"));
        };
        let (status, words) = end.split_once(": ").unwrap_or((end, ""));
        let code = status.parse().ok();
        let refused = code.filter(|_| self.own).and_then(|code| refusal(code, words));
        refused.unwrap_or_else(|| match code {
            Some(NAMESPACE) => Error::new(Kind::Missing, format!("unit '{unit}': its files are not there")),
            _ => Error::new(Kind::Failed, format!("unit '{unit}': exit status {status}: {}", plain(words))),
        })
    }

    /// Stops the unit, if it is there.
    pub(super) fn stop(&self) {
        // A unit that is not there is an error for systemctl, and for nobody else.
        let _ = Cmd::new(Tool::Systemctl, STOP).args(["--quiet", "stop", &self.unit]).run();
    }

    fn new(image: &ImageName, stage: &str, command: &[&str], limit: Duration) -> Self {
        let properties = COMMON.iter().map(|property| (*property).to_owned()).collect();
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        let unit = format!("sheath-import-{image}-{stage}.service");
        Self { unit, properties, command, limit, own: false }
    }

    fn add<const N: usize>(&mut self, properties: [&str; N]) {
        self.properties.extend(properties.map(str::to_owned));
    }

    fn args(&self) -> Vec<String> {
        let fixed = ["--quiet", "--wait", "--pipe", "--collect", "--service-type=exec"].map(str::to_owned);
        let named =
            [format!("--unit={}", self.unit), format!("--description=Sheath image work ({})", self.unit)];
        let limit = format!("--property=RuntimeMaxSec={}", self.limit.as_secs());
        let properties = self.properties.iter().map(|property| format!("--property={property}"));
        let end = ["--".to_owned()];
        fixed
            .into_iter()
            .chain(named)
            .chain([limit])
            .chain(properties)
            .chain(end)
            .chain(self.command.iter().cloned())
            .collect()
    }
}

/// What a sandboxed program of ours sees of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// A file, by a path of ours, without anything in it that systemd would take apart; it may be a link.
    File(PathBuf),
    /// A donor's disk, by its node.
    Device(PathBuf),
    /// Somebody's export, over the network.
    Export(Export),
    /// Another machine's file or disk, by our keys; the name is for people, the order has its own.
    Remote(Keys, String),
    /// A LUN, over the network; the secret goes another way.
    Lun(Lun),
}

impl Seen {
    /// Returns the source's name inside.
    pub(super) fn name(&self) -> String {
        match self {
            Self::File(_) => SOURCE.into(),
            Self::Device(_) => DONOR.into(),
            Self::Export(export) => export.to_string(),
            Self::Remote(_, name) => name.clone(),
            Self::Lun(lun) => lun.to_string(),
        }
    }
}

/// Returns the exit status that the error of a sandboxed program tells; our own program's have become kinds.
pub(super) fn exit_status(error: &Error) -> Option<u8> {
    error.to_string().split_once("exit status ")?.1.split_once(':')?.0.parse().ok()
}

/// Returns the stage that these words are, and how long it may take.
fn stage(args: &[&str]) -> (&'static str, Duration) {
    match args {
        [internal::CONVERT, ..] => (CONVERT, CONVERTING),
        [_, internal::REMOTE, ..] => (FETCH, CONVERTING),
        [_, internal::SUM, ..] => (SUM, CONVERTING),
        [_, internal::LISTED, ..] => (LIST, PROBING),
        _ => (PROBE, PROBING),
    }
}

/// Returns the error of our own program that has refused something, by its exit status and what it said.
pub(super) fn refusal(status: i32, said: &str) -> Option<Error> {
    use Kind::{Busy, Denied, Exists, Full, Invalid, Missing, Timeout};
    let kinds = [Invalid, Missing, Exists, Busy, Denied, Full, Timeout];
    let kind = kinds.into_iter().find(|kind| i32::from(kind.exit_code()) == status)?;
    Some(Error::new(kind, plain(said)))
}

/// Returns what our own program said without its name, and without that of the source inside.
fn plain(said: &str) -> &str {
    let reason = |seen: &str| Some(said.split_once(&format!("accept image '{seen}': "))?.1);
    let said = [SOURCE, DONOR].into_iter().find_map(reason).unwrap_or(said);
    said.strip_prefix("sheath: error: ").unwrap_or(said).trim_end()
}

/// Returns what the sandbox needs to read the source: nothing where everybody may.
///
/// Else the one capability that reads, which would also open files by handle, behind the back of the mounts: that system
/// call is taken away with it.
fn reader(source: &Path) -> impl Iterator<Item = &'static str> {
    use std::os::unix::fs::PermissionsExt;
    let open = source.metadata().is_ok_and(|found| found.permissions().mode() & 0o004 != 0);
    let words: &[&str] = if open {
        &[NO_CAPABILITY]
    } else {
        &[
            "CapabilityBoundingSet=CAP_DAC_READ_SEARCH",
            "AmbientCapabilities=CAP_DAC_READ_SEARCH",
            "SystemCallFilter=~open_by_handle_at",
        ]
    };
    words.iter().copied()
}

/// Returns what hands our key and the hosts that we know to a sandbox: systemd reads them, for its user alone.
fn credentials(keys: &Keys) -> impl Iterator<Item = String> {
    let (key, hosts) = (keys.private(), keys.known_hosts());
    // One that is not there would keep the unit from starting; ssh says itself that it knows nobody.
    let hosts = hosts.exists().then(|| format!("LoadCredential={}:{}", remote::KNOWN_HOSTS, hosts.display()));
    std::iter::once(format!("LoadCredential={}:{}", remote::KEY, key.display())).chain(hosts)
}

/// Stops what an agent that was killed in the middle of this image's import has left running.
pub(super) fn stop_leftovers(image: &ImageName) {
    stop_left(STAGES.map(|stage| Sandbox::new(image, stage, &[], Duration::ZERO).unit));
}

/// Stops those of these units that are there, and returns when they have ended.
pub(super) fn stop_left(units: impl IntoIterator<Item = String>) {
    // Asking systemd takes as long as starting a small program.
    let units: Vec<_> = units.into_iter().filter(|unit| Path::new(TRANSIENT).join(unit).exists()).collect();
    if units.is_empty() {
        return;
    }
    // Units that are gone meanwhile are an error for systemctl, and for nobody else.
    let _ = Cmd::new(Tool::Systemctl, STOP).args(["--quiet", "stop"]).args(units).run();
}

#[cfg(test)]
mod tests;
