//! What an initramfs of the image holds: its own tool lists it, because that one knows how it was packed.
//!
//! The tool is the image's and so is what it does; it runs in the workshop alone, with the image's tree as its root.

use std::{path::Path, time::Duration};

use super::{
    system::initramfs_of,
    tree::{text, within},
};
use crate::{
    error::Result,
    host::cmd::{Cmd, Tool},
    image::facts::{Facts, Initramfs, Kernel, Maker},
};

/// Longest time for a list: an emulated guest unpacks some ten MiB a second at worst.
const LISTING: Duration = Duration::from_secs(600);
/// More of a list is not read.
const LONGEST: usize = 4 << 20;

/// Adds what the newest kernel's initramfs holds; the root of this process is the image's.
pub(super) fn look(facts: &mut Facts) {
    let (root, maker) = (Path::new("/"), facts.iscsi.maker);
    let Some(kernel) = facts.kernels.last_mut() else { return };
    let Some(path) = initramfs_of(root, &kernel.version) else { return };
    let found = match list(&path, maker) {
        Ok(listing) => of_listing(&listing, &built_in(root, kernel)),
        Err(error) => Initramfs { unread: Some(error.chain()), ..Initramfs::default() },
    };
    kernel.initramfs = Some(Initramfs { path: within(root, &path), ..found });
}

fn list(path: &Path, maker: Option<Maker>) -> Result<String> {
    let tool = if maker == Some(Maker::Dracut) { Tool::Lsinitrd } else { Tool::Lsinitramfs };
    let mut listing = vec![];
    Cmd::new(tool, LISTING).arg(path).run_streaming(|piece| {
        let room = LONGEST.saturating_sub(listing.len());
        listing.extend_from_slice(&piece[..piece.len().min(room)]);
    })?;
    Ok(String::from_utf8_lossy(&listing).into_owned())
}

/// Returns the list of what the kernel has built in.
fn built_in(root: &Path, kernel: &Kernel) -> String {
    text(&root.join(format!("usr/lib/modules/{}/modules.builtin", kernel.version)))
}

/// Returns what a list of file names says.
fn of_listing(listing: &str, built_in: &str) -> Initramfs {
    let is = |line: &str, name: &str| {
        let file = line.rsplit('/').next().unwrap_or_default().replace('-', "_");
        file == name || file.strip_prefix(name).is_some_and(|rest| rest.starts_with(".ko"))
    };
    let has = |name: &str| listing.lines().any(|line| is(line.trim_end(), name));
    let module = |name: &str| has(name) || built_in.lines().any(|line| is(line, name));
    Initramfs {
        initiator: has("iscsistart"),
        tcp: module("iscsi_tcp"),
        ibft: module("iscsi_ibft"),
        ..Initramfs::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_packed_or_not_and_built_in() {
        let listing = "usr/sbin/iscsistart\nusr/lib/modules/6/kernel/drivers/scsi/iscsi_tcp.ko.xz\n";
        let found = of_listing(listing, "kernel/drivers/firmware/iscsi_ibft.ko\n");
        assert!(found.initiator && found.tcp && found.ibft, "{found:?}");
        // As lsinitrd prints it.
        let long = "-rwxr-xr-x 1 root root 90 Jan 1 1970 usr/lib/modules/5/iscsi_ibft.ko.zst\n";
        assert!(of_listing(long, "").ibft);
    }

    #[test]
    fn other_names_that_hold_the_word_do_not_count() {
        let listing = "usr/lib/modules/6/be2iscsi.ko\netc/iscsistart.conf\nusr/lib/libiscsi_tcp.ko\n";
        assert_eq!(of_listing(listing, ""), Initramfs::default());
    }
}
