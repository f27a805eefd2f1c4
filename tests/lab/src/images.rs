//! What the lab makes once and keeps: the appliance's disk, its booted state, the golden image. Each is an artifact of the
//! cache, keyed by its recipe and by what else goes into it. The recipes themselves are shell, in `recipes/`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::appliance::{Appliance, machine, root_disk};
use crate::cache::Cache;
use crate::error::{Attempt, Result};
use crate::machine::{blank, qemu_version};
use crate::payload::Payload;
use crate::phase;
use crate::release::Release;
use crate::run::Lab;
use crate::tool::Tool;
use crate::wait::secs;

const APPLIANCE: &str = include_str!("../recipes/appliance.sh");
const APPLIANCE_DISK: &str = include_str!("../recipes/appliance-disk.sh");
const DEBIAN: &str = include_str!("../recipes/debian.sh");
const DEBIAN_DISK: &str = include_str!("../recipes/debian-disk.sh");
const GOLDEN: &str = include_str!("../recipes/golden.sh");
const DONOR: &str = include_str!("../recipes/donor.sh");
/// What is done to the guest before it is saved, in words: a change there is a change here.
const SAVED_STATE: &str = "started up, all cables out, synced";
/// Room for a Debian; a blade's own disk is larger, and its root partition grows.
const DISK_SIZE: &str = "2G";

/// Returns the folder with a release's appliance: `root.qcow2`, `vmlinuz` and `initrd.img`.
///
/// # Errors
/// When a tool is missing or the Debian archive cannot be reached.
pub fn appliance(cache: &Cache, release: Release) -> Result<PathBuf> {
    let codename = release.codename();
    cache.artifact(&release.kind("appliance"), &[APPLIANCE, APPLIANCE_DISK, codename], |dir| {
        let tar = dir.join("root.tar");
        phase::timed("appliance: packages", || {
            recipe(&[], dir, ("appliance.sh", APPLIANCE), &[Path::new(codename), &tar])
        })?;
        // Files keep their owners: as root, or as root of a user namespace that has the caller's subordinate ids.
        let ids: &[&str] = match nix::unistd::geteuid().is_root() {
            true => &[],
            false => &["unshare", "--user", "--map-root-user", "--map-auto", "--"],
        };
        phase::timed("appliance: disk", || {
            recipe(ids, dir, ("appliance-disk.sh", APPLIANCE_DISK), &[&tar, dir])
        })
    })
}

/// Returns the folder with the booted appliance: `root.qcow2` and the `memory` that belongs to it.
///
/// # Errors
/// When the appliance does not boot.
pub fn booted(lab: &Lab) -> Result<PathBuf> {
    let image = appliance(lab.cache(), lab.release())?;
    let made_from =
        [machine(lab)?.identity(), qemu_version()?, lab.accel().identity(), SAVED_STATE.to_owned()];
    let made_from: Vec<&str> = made_from.iter().map(String::as_str).collect();
    // The image's folder is named by its key, and the machine's identity has that name.
    debug_assert!(made_from[0].contains(&*image.to_string_lossy()));
    let kind = lab.release().kind(if lab.emulates_guests() { "booted-for-guests" } else { "booted" });
    lab.cache().artifact(&kind, &made_from, |dir| {
        let run = lab.another("boot")?;
        let mut guest = phase::timed("appliance: first boot", || Appliance::cold(&run))?;
        guest.ok("sync")?;
        guest.save(&dir.join("memory"))?;
        guest.quit()?;
        let disk = dir.join("root.qcow2");
        // The run's folder may be on another file system.
        fs::copy(root_disk(&run), &disk).map(|_| ()).attempt(|| format!("keep '{}'", disk.display()))
    })
}

/// Returns the golden image: a Debian 13 as a qcow2 file, which boots from an iSCSI root by BIOS and UEFI.
///
/// # Errors
/// When the Debian archive cannot be reached, or laying the image out in the appliance fails.
pub fn golden(lab: &Lab) -> Result<PathBuf> {
    debian(lab, ("golden", GOLDEN), Release::Trixie)
}

/// Returns the disk of a server that was installed by itself and has run: a Debian 12 as a qcow2 file, which boots from that disk
/// and knows nothing of iSCSI.
///
/// # Errors
/// As [`golden`].
pub fn donor(lab: &Lab) -> Result<PathBuf> {
    debian(lab, ("donor", DONOR), Release::Bookworm)
}

/// Makes a Debian's disk of a recipe for `debian.sh`.
fn debian(lab: &Lab, (kind, text): (&str, &str), release: Release) -> Result<PathBuf> {
    let made_from = [DEBIAN, text, DEBIAN_DISK, DISK_SIZE, release.codename()];
    let made = lab.cache().artifact(kind, &made_from, |dir| {
        let (own, tar) = (dir.join(format!("{kind}.sh")), dir.join("files.tar"));
        save(&own, text)?;
        let args = [own.as_path(), Path::new(release.codename()), &tar];
        phase::timed(&format!("{kind}: packages"), || recipe(&[], dir, ("debian.sh", DEBIAN), &args))?;
        phase::timed(&format!("{kind}: disk"), || lay_out(lab, dir, kind, &tar))?;
        fs::remove_file(&tar).attempt(|| format!("remove '{}'", tar.display()))
    })?;
    Ok(made.join(format!("{kind}.qcow2")))
}

/// Lets an appliance guest do what needs root and mounts.
fn lay_out(lab: &Lab, dir: &Path, kind: &str, tar: &Path) -> Result<()> {
    let run = Lab::with(kind, lab.cache().clone(), lab.accel())?;
    let script = dir.join("debian-disk.sh");
    save(&script, DEBIAN_DISK)?;
    let payload = Payload::new().file("files.tar", tar).file("debian-disk.sh", &script);
    let mut guest = Appliance::booted(&run, &payload)?;
    let image = dir.join(format!("{kind}.qcow2"));
    blank(&image, DISK_SIZE)?;
    guest.add_disk("made", &image, "qcow2", false)?;
    let command =
        format!("sh -x /payload/debian-disk.sh /payload/files.tar /dev/disk/by-id/virtio-made {kind}");
    guest.run_within(&command, secs(600))?.ok()?;
    guest.quit()
}

/// Runs a recipe, its output going to a log beside what it makes.
fn recipe(prefix: &[&str], dir: &Path, (name, text): (&str, &str), args: &[&Path]) -> Result<()> {
    let script = dir.join(name);
    save(&script, text)?;
    let mut words = prefix.iter().chain(&["sh"]);
    let tool =
        Tool::new(words.next().expect("there is at least the shell")).args(words).arg(&script).args(args);
    tool.run_logged(&dir.join(format!("{name}.log")))
}

#[allow(clippy::disallowed_methods, reason = "a file in a folder that is thrown away when the making fails")]
fn save(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).attempt(|| format!("write '{}'", path.display()))
}
