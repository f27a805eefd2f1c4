//! The tools that we run: where each is, and which Debian package has it. How they are run is for `cmd`.

use std::{ffi::OsStr, path::Path};

use crate::error::{Error, Kind, Result};

/// A tool that we run. The table holds its path, and the Debian package that carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// LVM.
    Lvm,
    /// systemd's control.
    Systemctl,
    /// Starts a sandboxed child as a transient unit.
    SystemdRun,
    /// Detaches and lists loop devices.
    Losetup,
    /// Probes a disk for anything on it.
    Blkid,
    /// Lists what is on a disk.
    Lsblk,
    /// Finds every signature on a disk. Only ever told to look.
    Wipefs,
    /// Fetches an image from a URL, in a sandboxed child.
    Curl,
    /// Converts an image, in a sandboxed child.
    QemuImg,
    /// Asks udev to look again, and waits for it.
    Udevadm,
    /// Runs throw-away guests, in a sandboxed child.
    Qemu,
    /// Makes the workshop's initramfs.
    Mkinitramfs,
    /// Loads the workshop's own drivers: run there alone.
    Modprobe,
    /// Lists an initramfs of initramfs-tools: the image's own, run in the workshop alone.
    Lsinitramfs,
    /// Lists an initramfs of dracut: the image's own, run in the workshop alone.
    Lsinitrd,
    /// Unpacks an image, in a sandboxed child.
    Gzip,
    /// Unpacks an image, in a sandboxed child.
    Xz,
    /// Unpacks an image, in a sandboxed child.
    Zstd,
    /// Unpacks an image, in a sandboxed child.
    Bzip2,
    /// Sends a message to the thin pool.
    Dmsetup,
    /// Counts the thin pool's blocks.
    ThinLs,
    /// Makes an initramfs of initramfs-tools anew: the image's own, run in the workshop alone.
    UpdateInitramfs,
    /// Makes an initramfs of dracut anew: the image's own, run in the workshop alone.
    Dracut,
    /// Logs in to the target that the firmware's table names: run by a donor alone.
    Iscsistart,
    /// Tells which blocks of ext2, ext3 and ext4 are in use: run by a donor alone.
    Partclone,
    /// Makes a disk read-only, forgets what is cached of one, reads its partitions anew: run by a donor and in the workshop.
    Blockdev,
    /// Installs GRUB: the image's own, run in the workshop alone.
    GrubInstall,
    /// Makes GRUB's configuration: the image's own, run in the workshop alone.
    GrubMkconfig,
    /// Installs GRUB, as RHEL calls it: the image's own, run in the workshop alone.
    Grub2Install,
    /// Makes GRUB's configuration, as RHEL calls it: the image's own, run in the workshop alone.
    Grub2Mkconfig,
    /// Reads from another machine, in a sandboxed child.
    Ssh,
    /// Makes the appliance's own SSH key pair.
    SshKeygen,
    /// Our own program, for its hidden subcommands.
    Sheath,
}

/// Tool, path, Debian package.
const TOOLS: [(Tool, &str, &str); 33] = [
    (Tool::Lvm, "/usr/sbin/lvm", "lvm2"),
    (Tool::Systemctl, "/usr/bin/systemctl", "systemd"),
    (Tool::SystemdRun, "/usr/bin/systemd-run", "systemd"),
    (Tool::Losetup, "/usr/sbin/losetup", "mount"),
    (Tool::Blkid, "/usr/sbin/blkid", "util-linux"),
    (Tool::Lsblk, "/usr/bin/lsblk", "util-linux"),
    (Tool::Wipefs, "/usr/sbin/wipefs", "util-linux"),
    (Tool::Curl, "/usr/bin/curl", "curl"),
    (Tool::QemuImg, "/usr/bin/qemu-img", "qemu-utils"),
    (Tool::Udevadm, "/usr/bin/udevadm", "udev"),
    (Tool::Qemu, "/usr/bin/qemu-system-x86_64", "qemu-system-x86"),
    (Tool::Mkinitramfs, "/usr/sbin/mkinitramfs", "initramfs-tools"),
    (Tool::Modprobe, "/usr/sbin/modprobe", "kmod"),
    (Tool::Lsinitramfs, "/usr/bin/lsinitramfs", "initramfs-tools"),
    (Tool::Lsinitrd, "/usr/bin/lsinitrd", "dracut"),
    (Tool::Gzip, "/usr/bin/gzip", "gzip"),
    (Tool::Xz, "/usr/bin/xz", "xz-utils"),
    (Tool::Zstd, "/usr/bin/zstd", "zstd"),
    (Tool::Bzip2, "/usr/bin/bzip2", "bzip2"),
    (Tool::Dmsetup, "/usr/sbin/dmsetup", "dmsetup"),
    (Tool::ThinLs, "/usr/sbin/thin_ls", "thin-provisioning-tools"),
    (Tool::UpdateInitramfs, "/usr/sbin/update-initramfs", "initramfs-tools"),
    (Tool::Dracut, "/usr/bin/dracut", "dracut"),
    (Tool::Iscsistart, "/usr/sbin/iscsistart", "open-iscsi"),
    (Tool::Partclone, "/usr/sbin/partclone.extfs", "partclone"),
    (Tool::Blockdev, "/usr/sbin/blockdev", "util-linux"),
    (Tool::GrubInstall, "/usr/sbin/grub-install", "grub2-common"),
    (Tool::GrubMkconfig, "/usr/sbin/grub-mkconfig", "grub2-common"),
    (Tool::Grub2Install, "/usr/sbin/grub2-install", "grub2-tools"),
    (Tool::Grub2Mkconfig, "/usr/sbin/grub2-mkconfig", "grub2-tools"),
    (Tool::Ssh, "/usr/bin/ssh", "openssh-client"),
    (Tool::SshKeygen, "/usr/bin/ssh-keygen", "openssh-client"),
    (Tool::Sheath, "/usr/bin/sheath", "sheath"),
];

impl Tool {
    /// Returns the tool's absolute path.
    pub fn path(self) -> &'static str {
        self.row().1
    }

    /// Returns the Debian package that carries the tool, for error messages.
    pub fn package(self) -> &'static str {
        self.row().2
    }

    /// Makes sure that the tool is installed.
    ///
    /// # Errors
    /// [`Kind::Missing`] with the package to install.
    pub fn check(self) -> Result<()> {
        if Path::new(self.path()).exists() {
            return Ok(());
        }
        let (path, package) = (self.path(), self.package());
        Err(Error::new(Kind::Missing, format!("there is no '{path}': apt install {package}")))
    }

    fn row(self) -> &'static (Tool, &'static str, &'static str) {
        TOOLS.iter().find(|row| row.0 == self).expect("a test walks the table")
    }
}

/// Returns the Debian package that carries a program of the table; nothing for any other.
pub(super) fn package_of(program: &OsStr) -> &'static str {
    TOOLS.iter().find(|row| OsStr::new(row.1) == program).map_or("", |row| row.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_is_in_the_table_once() {
        let tools: std::collections::BTreeSet<_> = TOOLS.iter().map(|row| row.0).collect();
        assert_eq!(tools.len(), TOOLS.len());
        assert!(TOOLS.iter().all(|(tool, path, _)| tool.path() == *path && path.starts_with("/usr/")));
    }

    #[test]
    fn a_program_that_is_in_the_table_is_told_with_its_package() {
        assert_eq!(package_of("/usr/bin/qemu-img".as_ref()), "qemu-utils");
        assert_eq!(package_of("/bin/sh".as_ref()), "");
    }
}
