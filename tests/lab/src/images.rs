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
const GOLDEN: &str = include_str!("../recipes/golden.sh");
const GOLDEN_DISK: &str = include_str!("../recipes/golden-disk.sh");
/// What is done to the guest before it is saved, in words: a change there is a change here.
const SAVED_STATE: &str = "started up, all cables out, synced";
/// Room for a Debian; a blade's own disk is larger, and its root partition grows.
const GOLDEN_SIZE: &str = "2G";

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
    lab.cache().artifact(&lab.release().kind("booted"), &made_from, |dir| {
        let run = Lab::with("boot", lab.cache().clone(), lab.accel())?.on(lab.release());
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
    let made = lab.cache().artifact("golden", &[GOLDEN, GOLDEN_DISK, GOLDEN_SIZE], |dir| {
        let tar = dir.join("golden.tar");
        phase::timed("golden: packages", || recipe(&[], dir, ("golden.sh", GOLDEN), &[&tar]))?;
        phase::timed("golden: disk", || lay_out(lab, dir, &tar))?;
        fs::remove_file(&tar).attempt(|| format!("remove '{}'", tar.display()))
    })?;
    Ok(made.join("golden.qcow2"))
}

/// Lets an appliance guest do what needs root and mounts.
fn lay_out(lab: &Lab, dir: &Path, tar: &Path) -> Result<()> {
    let run = Lab::with("golden", lab.cache().clone(), lab.accel())?;
    let script = dir.join("golden-disk.sh");
    save(&script, GOLDEN_DISK)?;
    let payload = Payload::new().file("golden.tar", tar).file("golden-disk.sh", &script);
    let mut guest = Appliance::booted(&run, &payload)?;
    let image = dir.join("golden.qcow2");
    blank(&image, GOLDEN_SIZE)?;
    guest.add_disk("golden", &image, "qcow2", false)?;
    let command = "sh -x /payload/golden-disk.sh /payload/golden.tar /dev/disk/by-id/virtio-golden";
    guest.agent().run_within(command, secs(600))?.ok()?;
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
