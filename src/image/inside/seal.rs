//! Carries out what the sealer has planned, in the mounted image: dull, one function per act.
//!
//! The root of this process is the image's by then. What runs of the image's own programs (its initramfs maker) runs in
//! this guest alone.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    boot::ESP_LOADER,
    identity::{Sort, leftovers},
    system::{FIRST_BOOT, STAMP, UNITS},
    tree::text,
};
use crate::{
    error::{Context, Result},
    host::{
        cmd::{Cmd, Tool},
        file,
    },
    image::{
        facts::Maker,
        seal::{Act, Leftover},
    },
};

/// Longest time for an initramfs, emulated twice.
const MAKING: Duration = Duration::from_secs(3 * 3600);
/// Where our scripts go.
const SCRIPTS: &str = "usr/lib/sheath-seal";

const INITIATOR_NAME: &str = "sheath-initiator-name.service";
const PATIENCE: &str = "sheath-root-patience.service";
const BOOT_NIC: &str = "sheath-boot-nic.service";

/// What makes dracut's initramfs log in by what the firmware left, on whatever NIC a blade has.
const DRACUT: &str = "# Written by sheath.\nhostonly=\"no\"\nadd_dracutmodules+=\" iscsi network \"\n\
                      kernel_cmdline+=\" rd.iscsi.firmware=1 rd.iscsi.ibft=1 rd.neednet=1 \"\n";

/// Makes one change; `esp` is where the EFI system partition is mounted, as seen from the image's root or outside of it.
///
/// # Errors
/// The failing system call or program; the image is not used then.
pub(super) fn apply(root: &Path, act: &Act) -> Result<()> {
    match act {
        Act::EmptyMachineId => file::save(&root.join("etc/machine-id"), b"", 0o444),
        Act::Remove(sort) => remove(root, *sort),
        Act::InitiatorName => {
            unit(root, INITIATOR_NAME, include_str!("sealer/initiator-name.service"), "sysinit.target")
        }
        Act::Patience => unit(root, PATIENCE, include_str!("sealer/patience.service"), "multi-user.target"),
        Act::KeepBootNic => {
            script(root, "boot-nic", include_str!("sealer/boot-nic"))?;
            unit(root, BOOT_NIC, include_str!("sealer/boot-nic.service"), "sysinit.target")
        }
        Act::FirstBoot => {
            script(root, "first-boot", include_str!("sealer/first-boot"))?;
            unit(root, FIRST_BOOT, include_str!("sealer/first-boot.service"), "multi-user.target")
        }
        Act::IscsiLogin(Maker::InitramfsTools) => {
            save(&root.join("etc/iscsi/iscsi.initramfs"), "ISCSI_AUTO=true\n", 0o600)
        }
        Act::IscsiLogin(Maker::Dracut) => save(&root.join("etc/dracut.conf.d/90-sheath.conf"), DRACUT, 0o644),
        Act::Initramfs(maker) => initramfs(*maker),
        Act::Stamp => save(&root.join(STAMP), concat!(env!("CARGO_PKG_VERSION"), "\n"), 0o644),
        // The EFI system partition and the partition table lie outside of the image's root.
        Act::RemovableLoader { .. } | Act::Gpt { .. } | Act::Names | Act::Grub => Ok(()),
    }
}

/// Copies a loader of the EFI system partition to where firmware and iPXE look.
///
/// # Errors
/// The failing copy.
pub(super) fn copy_loader(esp: &Path, from: &str) -> Result<()> {
    let (from, to) = (esp.join(from), esp.join(ESP_LOADER));
    let attempt = || format!("copy '{}'", from.display());
    fs::create_dir_all(to.parent().expect("a path with a folder")).attempt(attempt)?;
    let bytes = fs::read(&from).attempt(attempt)?;
    file::save(&to, &bytes, 0o755)
}

/// Has the file system table call partitions as they are called from now on, and takes out what is not there any more.
///
/// # Errors
/// The failing system call.
pub(super) fn rename(root: &Path, names: &BTreeMap<String, Option<String>>) -> Result<()> {
    let path = root.join("etc/fstab");
    let before = text(&path);
    let after = renamed(&before, names);
    if after != before {
        save(&path, &after, 0o644)?;
    }
    // It names the swap that the donor has slept on.
    let resume = root.join("etc/initramfs-tools/conf.d/resume");
    if names.values().any(Option::is_none) && resume.is_file() {
        fs::remove_file(&resume).attempt(|| format!("remove '{}'", resume.display()))?;
    }
    Ok(())
}

/// Returns the table with other names.
fn renamed(table: &str, names: &BTreeMap<String, Option<String>>) -> String {
    let mut all = String::new();
    for line in table.lines() {
        let word = line.split_whitespace().next().unwrap_or_default();
        all += &match names.get(&word.replace('"', "")) {
            Some(Some(name)) => line.replacen(word, name, 1),
            Some(None) => format!("# Left out with its partition by sheath: {line}"),
            None => line.to_owned(),
        };
        all.push('\n');
    }
    all
}

/// Has the image's own GRUB install itself for BIOS on this disk. The root of this process is the image's.
///
/// # Errors
/// GRUB's own; the image is not used then.
pub(super) fn grub(root: &Path, disk: &Path) -> Result<()> {
    // Which disk was which in the donor.
    let _ = fs::remove_file(root.join("boot/grub/device.map"));
    let is_debians = root.join(&Tool::GrubInstall.path()[1..]).is_file();
    let (install, configure, config) = match is_debians {
        true => (Tool::GrubInstall, Tool::GrubMkconfig, "/boot/grub/grub.cfg"),
        false => (Tool::Grub2Install, Tool::Grub2Mkconfig, "/boot/grub2/grub.cfg"),
    };
    Cmd::new(install, MAKING).arg("--target=i386-pc").arg(disk).run()?;
    Cmd::new(configure, MAKING).args(["-o", config]).run().map(drop)
}

fn remove(root: &Path, sort: Leftover) -> Result<()> {
    let wanted = match sort {
        Leftover::DbusMachineId => Sort::DbusMachineId,
        Leftover::SshKeys => Sort::SshKey,
        Leftover::Leases => Sort::Lease,
        Leftover::Seeds => Sort::Seed,
        Leftover::CloudState => Sort::CloudState,
        Leftover::NetNames => Sort::NetName,
    };
    for (_, path) in leftovers(root).into_iter().filter(|(found, _)| *found == wanted) {
        let is_folder = path.is_dir() && !path.is_symlink();
        let gone = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        gone.attempt(|| format!("remove '{}'", path.display()))?;
    }
    Ok(())
}

fn save(path: &Path, content: &str, mode: u32) -> Result<()> {
    let folder = path.parent().expect("a path with a folder");
    fs::create_dir_all(folder).attempt(|| format!("make '{}'", folder.display()))?;
    file::save(path, content.as_bytes(), mode)
}

fn script(root: &Path, name: &str, content: &str) -> Result<()> {
    save(&root.join(SCRIPTS).join(name), content, 0o755)
}

/// Writes a unit and has its target want it.
fn unit(root: &Path, name: &str, content: &str, target: &str) -> Result<()> {
    let units = root.join(UNITS);
    save(&units.join(name), content, 0o644)?;
    let wants: PathBuf = units.join(format!("{target}.wants"));
    fs::create_dir_all(&wants).attempt(|| format!("make '{}'", wants.display()))?;
    match symlink(format!("../{name}"), wants.join(name)) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(crate::error::Error::io(format!("enable '{name}'"), e))
        }
        _ => Ok(()),
    }
}

/// Has the image's own maker make all initramfs anew. The root of this process is the image's.
fn initramfs(maker: Maker) -> Result<()> {
    let cmd = match maker {
        Maker::InitramfsTools => Cmd::new(Tool::UpdateInitramfs, MAKING).args(["-u", "-k", "all"]),
        Maker::Dracut => Cmd::new(Tool::Dracut, MAKING).args(["--force", "--regenerate-all"]),
    };
    cmd.run().map(drop)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{identity, look, tree::tests::plant},
        *,
    };
    use crate::image::{facts::Facts, seal};

    /// Returns the facts of a tree, with what only a real disk has added.
    fn facts(root: &Path) -> Facts {
        let mut facts = Facts { root: Some(1), ..Facts::default() };
        look(root, &mut facts);
        facts
    }

    #[test]
    fn what_was_sealed_is_found_sealed_and_a_second_time_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        plant(
            root,
            &[
                ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
                ("etc/ssh/ssh_host_rsa_key", "secret"),
                ("etc/ssh/sshd_config", "x"),
                ("var/lib/cloud/instances/i-1/x", "x"),
                ("etc/iscsi/initiatorname.iscsi", "InitiatorName=iqn.2026-11.org:own\n"),
                ("etc/systemd/system/multi-user.target.wants/systemd-networkd.service", ""),
                ("usr/sbin/mkinitramfs", ""),
                ("usr/sbin/iscsid", ""),
            ],
        );
        let acts = seal::plan(&facts(root)).unwrap();
        assert_eq!(acts.len(), 10, "{acts:?}");
        for act in acts.iter().filter(|act| !matches!(act, Act::Initramfs(_))) {
            apply(root, act).unwrap();
        }
        let after = facts(root);
        assert_eq!(seal::plan(&after).unwrap(), []);
        assert_eq!(identity::leftovers(root), []);
        assert!(root.join("etc/ssh/sshd_config").exists() && root.join("etc/machine-id").exists());
        assert_eq!(after.sealed.as_deref(), Some(env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn dracut_is_told_by_a_file_of_its_own_which_the_check_knows() {
        let dir = tempfile::tempdir().unwrap();
        plant(dir.path(), &[("usr/bin/dracut", ""), ("usr/sbin/iscsid", "")]);
        assert!(!facts(dir.path()).iscsi.automatic);
        apply(dir.path(), &Act::IscsiLogin(Maker::Dracut)).unwrap();
        assert!(facts(dir.path()).iscsi.automatic);
    }

    #[test]
    fn the_loader_is_copied_to_where_it_is_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        plant(dir.path(), &[("EFI/debian/grubx64.efi", "grub")]);
        copy_loader(dir.path(), "EFI/debian/grubx64.efi").unwrap();
        assert_eq!(fs::read(super::super::boot::removable(dir.path()).unwrap()).unwrap(), b"grub");
    }

    #[test]
    fn the_table_names_partitions_for_ever_and_forgets_those_that_are_gone() {
        let table = "# a comment\n/dev/sda1  /  ext4 errors=remount-ro 0 1\nPARTUUID=\"0a0b0c0d-01\" /boot ext4 x 0 2\n\
                     UUID=s none swap sw 0 0\n/dev/sdb1 /srv ext4 defaults 0 2";
        let name = |old: &str, new: Option<&str>| (old.to_owned(), new.map(str::to_owned));
        let names = BTreeMap::from([
            name("/dev/sda1", Some("UUID=r")),
            name("PARTUUID=0a0b0c0d-01", Some("UUID=r")),
            name("UUID=s", None),
        ]);
        insta::assert_snapshot!(renamed(table, &names), @r"
        # a comment
        UUID=r  /  ext4 errors=remount-ro 0 1
        UUID=r /boot ext4 x 0 2
        # Left out with its partition by sheath: UUID=s none swap sw 0 0
        /dev/sdb1 /srv ext4 defaults 0 2
        ");
        let dir = tempfile::tempdir().unwrap();
        plant(dir.path(), &[("etc/fstab", table), ("etc/initramfs-tools/conf.d/resume", "RESUME=UUID=s\n")]);
        rename(dir.path(), &names).unwrap();
        assert!(text(&dir.path().join("etc/fstab")).starts_with("# a comment\nUUID=r"));
        assert!(!dir.path().join("etc/initramfs-tools/conf.d/resume").exists());
    }

    #[test]
    fn every_script_of_ours_is_one() {
        for text in [include_str!("sealer/boot-nic"), include_str!("sealer/first-boot")] {
            let dir = tempfile::tempdir().unwrap();
            plant(dir.path(), &[("script", text)]);
            let path = dir.path().join("script");
            #[allow(clippy::disallowed_methods, reason = "a test asks the shell")]
            let status = std::process::Command::new("sh").arg("-n").arg(path).status().unwrap();
            assert!(status.success());
        }
    }
}
