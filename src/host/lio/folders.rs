//! The folders of an export that hold what we set: what inotify watches to notice a hand edit.
//!
//! Names only, nothing is looked at. configfs tells inotify of what processes do (a write to an attribute, a folder or
//! a link made or removed), a folder that goes tells of itself, and nothing is told of what the kernel changes, such as
//! sessions and counters (seen on Linux 6.1 and 6.12). Statistics, ALUA and what else we leave at the kernel's default
//! are not watched.

use std::path::PathBuf;

use super::{LUN, TPG};
use crate::model::{Iqn, VolumeId};

/// The folders' words, in the order of [`folders`]: what a touched file is called when it is told.
pub const FOLDERS: [&str; 14] = [
    // The backstore goes, or its `enable` and `udev_path` are written.
    "backstore",
    "backstore/attrib",
    // The TPG goes, or another one comes.
    "target",
    // `enable`.
    "tpgt_1",
    "tpgt_1/attrib",
    "tpgt_1/param",
    "tpgt_1/lun",
    "tpgt_1/lun/lun_0",
    "tpgt_1/np",
    "tpgt_1/acls",
    // Its mapped LUN, and `cmdsn_depth`.
    "acl",
    "acl/auth",
    "acl/attrib",
    "acl/lun_0",
];

/// Returns the folders of one export, below LIO's root.
///
/// A watch on each costs the kernel about 100 bytes (the folders' inodes are there anyway) and counts towards
/// `fs.inotify.max_user_watches`, which the kernel sets by the machine's memory: 22,592 with 3 GiB.
pub fn folders(target: &Iqn, initiator: &Iqn, volume: VolumeId) -> [PathBuf; FOLDERS.len()] {
    let backstore =
        PathBuf::from("core").join(format!("iblock_{}", volume.hba())).join(volume.lv_name().as_str());
    let target = PathBuf::from("iscsi").join(target.as_str());
    let tpg = target.join(TPG);
    let acl = tpg.join("acls").join(initiator.as_str());
    FOLDERS.map(|word| match word.split_once('/') {
        None if word == "backstore" => backstore.clone(),
        None if word == "target" => target.clone(),
        None if word == "acl" => acl.clone(),
        Some(("backstore", below)) => backstore.join(below),
        Some(("acl", LUN)) => acl.join(LUN),
        Some(("acl", below)) => acl.join(below),
        Some((_, below)) => tpg.join(below),
        None => tpg.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::{super::fake::Fake, *};

    #[test]
    fn every_folder_is_one_that_the_verbs_write_to() {
        let fake = Fake::new();
        fake.make_everything();
        fake.run_all();
        let all = folders(&Fake::target(), &Fake::initiator(), Fake::backstore().volume);
        for (folder, word) in all.iter().zip(FOLDERS) {
            assert!(fake.lio.root.at(folder).exists(), "{word}: {}", folder.display());
        }
        let once: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(once.len(), all.len());
    }
}
