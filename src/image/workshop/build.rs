//! Makes the workshop: the appliance's own kernel, and an initramfs with this program in it. There are two: one for guests
//! of ours, which have one disk of one kind, and one for donors, which are any machines and fetch it over the network.
//!
//! Nothing is downloaded: mkinitramfs puts together what the appliance has installed, by a configuration of ours that is
//! part of this program, so that it can be neither missing nor of another version. It runs as a transient unit that may
//! write to one folder; what it runs are the appliance's own hooks, which run as root at each kernel upgrade anyway.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Mutex, PoisonError, mpsc},
    time::Duration,
};

use sha2::{Digest, Sha256};

use crate::{
    error::{Context, Error, Kind, Result},
    host::{
        cmd::{Cmd, Tool},
        file,
    },
    image::sandbox::stop_left,
};

/// The hidden subcommand that fills a folder: `internal-build-workshop FOLDER FLAVOUR`.
pub const BUILD: &str = "internal-build-workshop";
/// How often somebody who waits for it is asked whether to go on.
const TURN: Duration = Duration::from_millis(250);
/// Longest time for the making, emulated on a busy machine.
const MAKING: Duration = Duration::from_secs(900);
/// Time for systemd to set the unit up and to take it down.
const AROUND: Duration = Duration::from_secs(60);
/// The unit.
const UNIT: &str = "sheath-workshop.service";

/// mkinitramfs's configuration folder: name, content, mode.
const CONFIGURATION: [(&str, &str, u32); 3] = [
    ("initramfs.conf", include_str!("initramfs/initramfs.conf"), 0o644),
    ("modules", include_str!("initramfs/modules"), 0o644),
    ("hooks/sheath", include_str!("initramfs/hook"), 0o755),
];
/// Folders of it that have to be there.
const FOLDERS: [&str; 3] = ["hooks", "scripts", "conf.d"];

/// What the making may do: read everything, write to the one folder.
const PROPERTIES: [&str; 15] = [
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "PrivateNetwork=yes",
    "ProtectKernelTunables=yes",
    "ProtectKernelLogs=yes",
    "ProtectControlGroups=yes",
    "NoNewPrivileges=yes",
    "RestrictAddressFamilies=AF_UNIX",
    // Reading other users' files, giving files to root, and ldconfig's look into the tree that is being made.
    "CapabilityBoundingSet=CAP_DAC_OVERRIDE CAP_CHOWN CAP_FOWNER CAP_FSETID CAP_SYS_CHROOT",
    "UMask=0022",
    "MemoryMax=1G",
    "TasksMax=256",
    "Nice=5",
];

/// Whom a workshop is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// Guests of ours.
    Guest,
    /// Donors that start over the network: drivers for any machine, an initiator, what tells used blocks from others. Who
    /// serves it to them can read it.
    Donor,
}

impl Flavour {
    /// Returns its name, which its folder has too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Guest => "workshop",
            Self::Donor => "donor",
        }
    }

    /// Returns how its folders are to be seen by others.
    fn mode(self) -> u32 {
        match self {
            Self::Guest => 0o700,
            Self::Donor => 0o755,
        }
    }
}

impl FromStr for Flavour {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = [Self::Guest, Self::Donor].into_iter().find(|flavour| flavour.name() == text);
        known.ok_or_else(|| Error::invalid(format!("there is no workshop '{}'", text.escape_debug())))
    }
}

/// The workshop, made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workshop {
    folder: PathBuf,
}

impl Workshop {
    /// Returns the workshop for the running kernel and this program, if it has been made.
    pub fn find(parent: &Path, flavour: Flavour) -> Option<Self> {
        let folder = parent.join(flavour.name()).join(key().ok()?);
        let whole = Self { folder };
        (whole.kernel().is_file() && whole.initrd().is_file()).then_some(whole)
    }

    /// Returns the workshop, making it where it has not been made. Older ones go.
    ///
    /// # Errors
    /// [`Kind::Missing`] with the package where a tool is not installed; else what failed.
    pub fn make(parent: &Path, flavour: Flavour) -> Result<Self> {
        static ONE: Mutex<()> = Mutex::new(());
        let _turn = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = Self::find(parent, flavour) {
            return Ok(made);
        }
        build_in(&parent.join(flavour.name()), flavour).map_err(|e| e.while_doing("make the workshop"))?;
        let none = || Error::new(Kind::Failed, "make the workshop: it is not whole");
        Self::find(parent, flavour).ok_or_else(none)
    }

    /// As [`Workshop::make`], for as long as who waits for it wants to: `wait` waits so long, or says that it does not. The
    /// making itself goes on, because the workshop is for every image.
    ///
    /// # Errors
    /// As [`Workshop::make`]; the error of `wait`.
    pub fn make_while(
        parent: &Path,
        flavour: Flavour,
        wait: impl Fn(Duration) -> Result<()>,
    ) -> Result<Self> {
        let (parent, (tell, told)) = (parent.to_owned(), mpsc::channel());
        std::thread::spawn(move || drop(tell.send(Self::make(&parent, flavour))));
        loop {
            wait(TURN)?;
            match told.try_recv() {
                Ok(made) => return made,
                Err(mpsc::TryRecvError::Empty) => {}
                Err(mpsc::TryRecvError::Disconnected) => {
                    return Err(Error::new(Kind::Failed, "make the workshop: it broke off"));
                }
            }
        }
    }

    /// Returns the workshop in this folder, whole or not.
    #[cfg(test)]
    pub(super) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Returns where its kernel is.
    pub fn kernel(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// Returns where its initramfs is.
    pub fn initrd(&self) -> PathBuf {
        self.folder.join("initrd")
    }
}

/// Makes it under another name, and gives it its own when it is whole.
fn build_in(workshops: &Path, flavour: Flavour) -> Result<()> {
    Tool::Mkinitramfs.check()?;
    // An agent that was killed leaves it at work, in the very folder, and systemd starts no second one of its name.
    stop_left([UNIT.to_owned()]);
    let (whole, partial) = (workshops.join(key()?), workshops.join("partial"));
    let attempt = || format!("make '{}'", partial.display());
    // One kernel and one program at a time: the others are of no use any more.
    match fs::remove_dir_all(workshops) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(attempt(), e)),
        _ => {}
    }
    fs::create_dir_all(&partial).attempt(attempt)?;
    // Whatever our umask.
    for folder in [workshops, &partial] {
        fs::set_permissions(folder, Permissions::from_mode(flavour.mode())).attempt(attempt)?;
    }
    let mut cmd = Cmd::new(Tool::SystemdRun, MAKING + AROUND)
        .args(["--quiet", "--wait", "--pipe", "--collect", "--service-type=exec"])
        .args([format!("--unit={UNIT}"), format!("--property=RuntimeMaxSec={}", MAKING.as_secs())])
        .arg("--description=Sheath makes its workshop")
        .arg(format!("--property=ReadWritePaths={}", partial.display()));
    cmd = cmd.args(PROPERTIES.map(|property| format!("--property={property}")));
    cmd.args(["--", Tool::Sheath.path(), BUILD])
        .arg(&partial)
        .arg(flavour.name())
        .run()
        .map_err(|error| explain(&error))?;
    fs::rename(&partial, &whole).attempt(|| format!("name '{}'", whole.display()))
}

/// Returns the error in words for people: what the program said, without the command.
fn explain(error: &Error) -> Error {
    let text = error.to_string();
    let words = text.split_once("': exit status: ").map_or(text.as_str(), |(_, words)| words);
    Error::new(error.kind(), format!("unit '{UNIT}': {words}"))
}

/// Returns what a workshop's folder is called: kernel, version, and a hash of all that goes into it from us.
fn key() -> Result<String> {
    let release = release()?;
    let mut hash = Sha256::new();
    for (name, content, _) in CONFIGURATION {
        hash.update(name);
        hash.update(content);
    }
    if let Ok(program) = fs::metadata(Tool::Sheath.path()) {
        hash.update(program.size().to_le_bytes());
        hash.update(program.mtime().to_le_bytes());
    }
    let digits: String = hash.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{release}_{}_{digits}", env!("CARGO_PKG_VERSION")))
}

/// Returns the running kernel's release.
fn release() -> Result<String> {
    let uname = nix::sys::utsname::uname().attempt(|| "ask the kernel for its release".into())?;
    Ok(uname.release().to_string_lossy().into_owned())
}

/// Fills the folder: what the hidden subcommand does.
///
/// # Errors
/// mkinitramfs's failure, or that of a copy.
pub fn fill(folder: &Path, flavour: Flavour) -> Result<()> {
    let (release, configuration) = (release()?, folder.join("configuration"));
    for name in FOLDERS {
        let path = configuration.join(name);
        fs::create_dir_all(&path).attempt(|| format!("make '{}'", path.display()))?;
    }
    for (name, content, mode) in CONFIGURATION {
        file::save(&configuration.join(name), content.as_bytes(), mode)?;
    }
    let cmd = Cmd::new(Tool::Mkinitramfs, MAKING).env("SHEATH_FLAVOUR", flavour.name());
    let cmd = cmd.arg("-d").arg(&configuration);
    cmd.arg("-o").arg(folder.join("initrd")).arg(&release).run()?;
    let kernel = PathBuf::from(format!("/boot/vmlinuz-{release}"));
    let bytes = fs::read(&kernel).attempt(|| format!("read '{}'", kernel.display()))?;
    // Whoever runs the guest is nobody: he can read these two and nothing else of the folder above.
    file::save(&folder.join("vmlinuz"), &bytes, 0o644)?;
    fs::remove_dir_all(&configuration).attempt(|| format!("remove '{}'", configuration.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_made_workshop_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("workshop").join(key().unwrap());
        fs::create_dir_all(&folder).unwrap();
        assert_eq!(Workshop::find(dir.path(), Flavour::Guest), None);
        for name in ["vmlinuz", "initrd"] {
            file::save(&folder.join(name), b"x", 0o644).unwrap();
        }
        assert_eq!(Workshop::find(dir.path(), Flavour::Donor), None);
        assert_eq!(Workshop::find(dir.path(), Flavour::Guest), Some(Workshop { folder }));
    }

    #[test]
    fn the_key_names_kernel_and_version() {
        let key = key().unwrap();
        assert!(key.starts_with(&format!("{}_{}_", release().unwrap(), env!("CARGO_PKG_VERSION"))), "{key}");
    }

    #[test]
    fn the_configuration_has_the_drivers_of_the_guests_disk_and_of_every_root() {
        let modules: Vec<&str> = CONFIGURATION[1].1.lines().collect();
        assert!(["virtio_blk", "ext4", "xfs", "btrfs", "vfat"].iter().all(|name| modules.contains(name)));
        assert!(CONFIGURATION[2].1.contains(Tool::Sheath.path()));
    }
}
