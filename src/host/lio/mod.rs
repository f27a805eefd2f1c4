//! LIO through configfs: one backstore, target, TPG, LUN and ACL per blade's disk.
//!
//! [`Lio`] has one verb per step of a plan. Each says a result and does only what is missing, so that running it again after
//! a crash at any point goes on where it stopped. It makes first: what is made anew has the kernel's defaults and is
//! written without a look; only what was there already is read and compared. [`Lio::export`] reads back what the verbs set,
//! and [`Lio::targets`] lists everything, foreign targets too; those are touched by one verb alone, [`Lio::remove_foreign`]. In which order the steps run,
//! and whether they should at all, is decided in `plan` and `policy`.
//!
//! What the kernel punishes is kept in one place each: attributes go out after a backstore's `enable` (`profile`; the
//! other order oopses Linux 6.1), a secret never ends with a newline (`configfs`), and sessions go before LUNs (`acl`).
//!
//! ```no_run
//! use std::path::PathBuf;
//! use sheath::{
//!     host::keys::MasterKey,
//!     lio::{Acl, Lio},
//!     model::{Backstore, Chap, Iqn, NopIn, Portal, VolumeId},
//! };
//!
//! # fn main() -> sheath::error::Result<()> {
//! let prefix: Iqn = "iqn.2026-11.org.example".parse()?;
//! let (target, initiator) = (prefix.join("b-525400123456")?, prefix.join("i-525400123456")?);
//! let disk = Backstore { volume: VolumeId(7), device: PathBuf::from("/dev/vg/sheath-vol-7") };
//! let acl = Acl { initiator: &initiator, volume: disk.volume, chap: Chap::OneWay, nopin: NopIn::On };
//!
//! let keys = MasterKey::load("/etc/sheath/master.key".as_ref())?;
//! let lio = Lio::new(PathBuf::from("/sys/kernel/config/target"), prefix, keys);
//! lio.backstore(&disk)?;
//! lio.target(&target)?;
//! lio.lun(&target, &disk)?;
//! lio.acl(&target, &acl)?;
//! lio.map_lun(&target, &initiator)?;
//! lio.portal(&target, Portal("10.0.0.1:3260".parse().expect("an address")))?;
//! lio.enable(&target)?; // last: nobody ever sees a half-made target
//! println!("{:?}", lio.export(&target, disk.volume)?);
//! # Ok(())
//! # }
//! ```

mod acl;
mod auth;
mod backstore;
mod counters;
mod differences;
mod folders;
mod foreign;
mod fresh;
mod info;
mod observe;
mod profile;
mod refused;
mod sessions;
mod target;

#[cfg(test)]
mod fake;

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use nix::sys::{
    statfs::{FsType, statfs},
    statvfs::FsFlags,
};

pub use acl::Acl;
pub use folders::{FOLDERS, folders};
pub use refused::Hint;

use self::{fresh::Fresh, profile::Claims};
use super::{configfs::Node, keys::MasterKey};
use crate::{
    error::{Error, Kind, Result},
    model::{Iqn, VolumeId},
    plan::Changed,
};

/// The prefix of every backstore's name that is ours.
const BACKSTORE_PREFIX: &str = "sheath-";
/// The one TPG of a target of ours. Canonical decimal: LIO would take `tpgt_01` as another folder of the same tag.
const TPG: &str = "tpgt_1";
/// configfs, as statfs(2) names it (`CONFIGFS_MAGIC`).
const CONFIGFS: FsType = FsType(0x6265_6570);
/// The one LUN of a target of ours, and of an ACL.
const LUN: &str = "lun_0";

/// LIO, as we drive it.
#[derive(Debug)]
pub struct Lio {
    root: Node,
    prefix: Iqn,
    keys: MasterKey,
    fresh: Fresh,
    /// LIO was there once. A module that goes later is told by the verb that misses it.
    was_there: AtomicBool,
    claims: Claims,
}

impl Lio {
    /// Returns the LIO below `root` (`/sys/kernel/config/target`); targets below `prefix` are ours, credentials are
    /// derived from `keys`.
    pub fn new(root: PathBuf, prefix: Iqn, keys: MasterKey) -> Self {
        Self {
            root: Node::root(root),
            prefix,
            keys,
            fresh: Fresh::default(),
            was_there: AtomicBool::new(false),
            claims: Claims::default(),
        }
    }

    /// Makes sure that LIO and its iSCSI fabric are there: what the agent asks for at its start. A folder that is not
    /// configfs would take every verb and serve nobody.
    ///
    /// # Errors
    /// [`Kind::Missing`] where a module or a mount is missing, [`Kind::Denied`] where configfs is read-only; the text says
    /// what to do.
    pub fn check(&self) -> Result<()> {
        let root = self.loaded()?;
        let found = statfs(root.path()).map_err(|e| Error::io(format!("look at '{root}'"), e.into()))?;
        if found.filesystem_type() != CONFIGFS {
            let fix = "mount configfs on '/sys/kernel/config'";
            return Err(Error::new(
                Kind::Missing,
                format!("LIO is not there ('{root}' is not configfs): {fix}"),
            ));
        }
        if found.flags().contains(FsFlags::ST_RDONLY) {
            let fix = "run 'mount -o remount,rw /sys/kernel/config', and let no sandbox protect it \
                       (systemd's ProtectKernelTunables)";
            return Err(Error::new(
                Kind::Denied,
                format!("LIO cannot be driven ('{root}' is read-only): {fix}"),
            ));
        }
        self.fabric().map(drop)
    }

    /// Returns LIO's root folder, if LIO is there.
    fn loaded(&self) -> Result<&Node> {
        if self.root.exists() {
            self.was_there.store(true, Ordering::Relaxed);
            return Ok(&self.root);
        }
        let fix =
            "mount configfs on '/sys/kernel/config', then 'modprobe -a target_core_mod iscsi_target_mod'";
        Err(Error::new(Kind::Missing, format!("LIO is not there (no '{}'): {fix}", self.root)))
    }

    /// Returns the iSCSI fabric's folder after making it, which loads its module where it may.
    fn fabric(&self) -> Result<Node> {
        let fabric = self.loaded()?.at("iscsi");
        match fabric.make() {
            Ok(_) => Ok(fabric),
            // The kernel answers EINVAL or ENOENT for a module that it does not find.
            Err(e) if matches!(e.kind(), Kind::Invalid | Kind::Missing) => {
                let fix = "run 'modprobe iscsi_target_mod'";
                Err(Error::new(Kind::Missing, format!("LIO's iSCSI fabric is not there: {fix}")).because(e))
            }
            Err(e) => Err(e),
        }
    }

    /// Does `work`. Of a failure it says what was attempted, and that LIO is not there where that is why.
    fn attempt<T>(&self, what: impl Fn() -> String, work: impl FnOnce() -> Result<T>) -> Result<T> {
        work().map_err(|error| match self.loaded() {
            Err(absent) if error.kind() == Kind::Missing => absent.while_doing(what()),
            _ => error.while_doing(what()),
        })
    }

    /// Returns the folder of a target of ours, there or not.
    fn target_node(&self, target: &Iqn) -> Result<Node> {
        if target.is_below(&self.prefix) {
            return Ok(self.root.at("iscsi").at(target.as_str()));
        }
        Err(Error::new(
            Kind::Denied,
            format!("target '{target}' is not ours: it is not below '{}'", self.prefix),
        ))
    }

    /// Returns the TPG of a target of ours, there or not.
    fn tpg(&self, target: &Iqn) -> Result<Node> {
        Ok(self.target_node(target)?.at(TPG))
    }

    /// Returns the folders of a volume's HBA and backstore, there or not.
    fn backstore_nodes(&self, volume: VolumeId) -> Result<(Node, Node)> {
        let name = volume.lv_name();
        if !name.as_str().starts_with(BACKSTORE_PREFIX) {
            return Err(Error::new(Kind::Denied, format!("backstore '{name}' is not ours")));
        }
        let hba = self.root.at("core").at(format!("iblock_{}", volume.hba()));
        let device = hba.at(name.as_str());
        Ok((hba, device))
    }
}

/// Returns the lines of a file that is a list; the kernel ends each with a NUL too.
fn listed(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(['\n', '\0']).map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned)
}

/// Returns `Changed` where one of them is. An array's items are made in order, so it reads like the steps it holds.
fn any<const N: usize>(all: [Changed; N]) -> Changed {
    Changed::from_bool(all.contains(&Changed::Changed))
}

#[cfg(test)]
mod tests {
    use super::{fake::Fake, *};

    #[test]
    fn without_lio_every_answer_says_what_to_run() {
        let lio = Fake::lio_at("/nowhere/target");
        let (target, volume) = (Fake::target(), Fake::backstore().volume);
        let errors = [
            lio.check().unwrap_err(),
            lio.targets().unwrap_err(),
            lio.export(&target, volume).unwrap_err(),
            lio.target(&target).unwrap_err(),
            lio.backstore(&Fake::backstore()).unwrap_err(),
            lio.session(&target, &Fake::initiator()).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), Kind::Missing);
            assert!(
                error.chain().contains("modprobe -a target_core_mod iscsi_target_mod"),
                "{}",
                error.chain()
            );
        }
    }

    #[test]
    fn a_folder_that_is_not_configfs_is_not_taken_for_lio() {
        let fake = Fake::new();
        let before = std::fs::read_dir(fake.lio.root.path()).unwrap().count();
        let error = fake.lio.check().unwrap_err();
        assert_eq!(error.kind(), Kind::Missing);
        assert!(error.to_string().contains("is not configfs): mount configfs on"), "{error}");
        assert_eq!(
            std::fs::read_dir(fake.lio.root.path()).unwrap().count(),
            before,
            "nothing was made there"
        );
    }

    #[test]
    fn a_target_that_is_not_below_our_prefix_is_denied_to_every_verb() {
        let fake = Fake::new();
        let (lio, foreign, initiator) =
            (&fake.lio, "iqn.2003-01.org.other:x".parse().unwrap(), Fake::initiator());
        let errors = [
            lio.target(&foreign).map(drop),
            lio.lun(&foreign, &Fake::backstore()).map(drop),
            lio.acl(&foreign, &Fake::acl(&initiator)).map(drop),
            lio.map_lun(&foreign, &initiator).map(drop),
            lio.portal(&foreign, Fake::portal()).map(drop),
            lio.enable(&foreign).map(drop),
            lio.disable(&foreign).map(drop),
            lio.remove_acl(&foreign, initiator.as_str()).map(drop),
            lio.remove_target(&foreign).map(drop),
            lio.export(&foreign, Fake::backstore().volume).map(drop),
        ];
        for error in errors {
            assert_eq!(error.unwrap_err().kind(), Kind::Denied);
        }
    }

    #[test]
    fn every_volume_has_a_backstore_name_that_is_ours() {
        let fake = Fake::new();
        let (hba, device) = fake.lio.backstore_nodes(VolumeId(u128::MAX)).unwrap();
        assert_eq!(hba.name(), "iblock_2147483647");
        assert!(device.name().starts_with(BACKSTORE_PREFIX));
    }
}
