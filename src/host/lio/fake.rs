//! A temp folder that looks like `/sys/kernel/config/target`, for this room's tests.
//!
//! A plain `mkdir` makes no attribute files, so an object is laid out here with the kernel's defaults before a verb finds
//! it. What only the kernel can do (dead mappings, refusals, sessions) is tested on the kernel, in `tests/kernel/lio.rs`.

use std::{fs, path::Path};

use super::{Acl, Lio, info::samples};
use crate::{
    host::{configfs::Node, keys::MasterKey},
    model::{Backstore, Chap, Iqn, NopIn, Portal, VolumeId},
    plan::Changed,
};

/// What a new TPG's files read on Linux 6.1.
const TPG_FILES: [(&str, &str); 9] = [
    ("enable", "0\n"),
    ("dynamic_sessions", ""),
    ("attrib/authentication", "1\n"),
    ("attrib/generate_node_acls", "0\n"),
    ("attrib/cache_dynamic_acls", "0\n"),
    ("attrib/demo_mode_write_protect", "1\n"),
    ("attrib/prod_mode_write_protect", "0\n"),
    ("attrib/demo_mode_discovery", "1\n"),
    ("param/AuthMethod", "CHAP,None\n"),
];

const BACKSTORE_FILES: [(&str, &str); 9] = [
    ("enable", "0\n"),
    ("control", ""),
    ("udev_path", ""),
    ("wwn/vpd_unit_serial", "T10 VPD Unit Serial Number: \n"),
    ("attrib/emulate_tpu", "0\n"),
    ("attrib/max_unmap_block_desc_count", "1\n"),
    ("attrib/optimal_sectors", "2048\n"),
    ("attrib/hw_max_sectors", "2560\n"),
    ("alua/default_tg_pt_gp/members", ""),
];

const ACL_FILES: [(&str, &str); 8] = [
    ("attrib/authentication", "-1\n"),
    ("attrib/nopin_timeout", "15\n"),
    ("auth/userid", "\n"),
    ("auth/password", "\n"),
    ("auth/userid_mutual", "\n"),
    ("auth/password_mutual", "\n"),
    ("cmdsn_depth", "64\n"),
    ("info", samples::NONE),
];

/// The folder, and the LIO in it.
pub(super) struct Fake {
    pub(super) lio: Lio,
    _dir: tempfile::TempDir,
}

impl Fake {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("core")).unwrap();
        Self { lio: Self::lio_at(dir.path().to_str().unwrap()), _dir: dir }
    }

    pub(super) fn lio_at(root: &str) -> Lio {
        Lio::new(root.into(), "iqn.2026-11.org.example".parse().unwrap(), MasterKey::from_bytes([7; 32]))
    }

    pub(super) fn target() -> Iqn {
        "iqn.2026-11.org.example:b-1".parse().unwrap()
    }

    pub(super) fn initiator() -> Iqn {
        "iqn.2026-11.org.example:i-1".parse().unwrap()
    }

    pub(super) fn portal() -> Portal {
        Portal("10.0.0.1:3260".parse().unwrap())
    }

    pub(super) fn backstore() -> Backstore {
        Backstore { volume: VolumeId(1 << 100 | 5), device: "/dev/vg/disk".into() }
    }

    pub(super) fn acl(initiator: &Iqn) -> Acl<'_> {
        Acl { initiator, volume: Self::backstore().volume, chap: Chap::OneWay, nopin: NopIn::On }
    }

    /// Lays out a new TPG of our target.
    pub(super) fn make_tpg(&self) -> Node {
        let tpg = self.lio.tpg(&Self::target()).unwrap();
        self.lay_out(&tpg, &TPG_FILES);
        ["lun/lun_1", "np", "acls"].iter().for_each(|below| make_all(&tpg.at(below)));
        tpg
    }

    /// Lays out a new backstore of our volume.
    pub(super) fn make_backstore(&self) -> Node {
        let (_, device) = self.lio.backstore_nodes(Self::backstore().volume).unwrap();
        self.lay_out(&device, &BACKSTORE_FILES);
        device
    }

    /// Lays out a new ACL of our initiator.
    pub(super) fn make_acl(&self) -> Node {
        let acl = self.lio.tpg(&Self::target()).unwrap().at("acls").at(Self::initiator().as_str());
        self.lay_out(&acl, &ACL_FILES);
        acl
    }

    /// Lays out a mapped LUN 0 that leads to `lun`.
    pub(super) fn make_mapping(&self, acl: &Node, lun: &Node) -> Node {
        let mapped = acl.at("lun_0");
        make_all(lun);
        self.lay_out(&mapped, &[("write_protect", "0\n")]);
        mapped.link("lun", lun).unwrap();
        mapped
    }

    /// Lays out all objects of our blade, and returns its ACL.
    pub(super) fn make_everything(&self) -> Node {
        self.make_backstore();
        self.make_tpg();
        let acl = self.make_acl();
        self.lay_out(&acl.at("lun_0"), &[("write_protect", "0\n")]);
        acl
    }

    /// Runs all verbs that make an export, in their order.
    pub(super) fn run_all(&self) -> [Changed; 7] {
        let (lio, target, initiator) = (&self.lio, Self::target(), Self::initiator());
        [
            lio.backstore(&Self::backstore()).unwrap(),
            lio.target(&target).unwrap(),
            lio.lun(&target, &Self::backstore()).unwrap(),
            lio.acl(&target, &Self::acl(&initiator)).unwrap(),
            lio.map_lun(&target, &initiator).unwrap(),
            lio.portal(&target, Self::portal()).unwrap(),
            lio.enable(&target).unwrap(),
        ]
    }

    /// Lays out a target that is not ours, in demo mode with two guests.
    pub(super) fn make_foreign(&self, name: &str) {
        let tpg = self.lio.root.at("iscsi").at(name).at("tpgt_7");
        self.lay_out(&tpg, &TPG_FILES);
        self.raw(&tpg, "dynamic_sessions", b"iqn.guest:1\n\0iqn.guest:2\n\0");
    }

    /// Writes what only the kernel could have put there.
    #[allow(clippy::disallowed_methods, reason = "a test's own folder")]
    pub(super) fn raw(&self, node: &Node, file: impl AsRef<Path>, bytes: &[u8]) {
        fs::write(node.path().join(file), bytes).unwrap();
    }

    fn lay_out(&self, node: &Node, files: &[(&str, &str)]) {
        for (file, text) in files {
            make_all(&Node::root(node.path().join(file).parent().unwrap()));
            self.raw(node, file, text.as_bytes());
        }
    }
}

fn make_all(node: &Node) {
    fs::create_dir_all(node.path()).unwrap();
}
