//! Empties LIO between two rounds: every iSCSI target and every iblock backstore, whoever made them, in the one order
//! that LIO allows. Several threads, because each removal waits for the kernel's grace periods. Not measured.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

const ROOT: &str = "/sys/kernel/config/target";
/// More overlap better than the engine's four: nobody waits for one of them.
const THREADS: usize = 8;

/// Removes everything; returns how long that took.
pub(crate) fn all() -> Duration {
    let begin = Instant::now();
    let targets = folders(Path::new(&format!("{ROOT}/iscsi")), "iqn.");
    in_parallel(targets, remove_target);
    let hbas = folders(Path::new(&format!("{ROOT}/core")), "iblock_");
    in_parallel(hbas, |hba| {
        folders(hba, "").iter().filter(|path| path.join("udev_path").exists()).for_each(|path| rmdir(path));
        rmdir(hba);
    });
    begin.elapsed()
}

fn in_parallel(work: Vec<PathBuf>, each: impl Fn(&Path) + Sync) {
    let queue = Mutex::new(work.into_iter());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap().next();
                    let Some(path) = next else { return };
                    each(&path);
                }
            });
        }
    });
}

fn remove_target(target: &Path) {
    for tpg in folders(target, "tpgt_") {
        fs::write(tpg.join("enable"), "0").unwrap();
        for acl in folders(&tpg.join("acls"), "") {
            folders(&acl, "lun_").iter().for_each(|mapped| remove_linked(mapped));
            rmdir(&acl);
        }
        folders(&tpg.join("lun"), "lun_").iter().for_each(|lun| remove_linked(lun));
        folders(&tpg.join("np"), "").iter().for_each(|portal| rmdir(portal));
        rmdir(&tpg);
    }
    rmdir(target);
}

/// Removes a folder and the links in it.
fn remove_linked(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_symlink() {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    rmdir(folder);
}

fn rmdir(folder: &Path) {
    fs::remove_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
}

/// Returns the folders below this one whose names begin like that; none where it is not there.
fn folders(folder: &Path, begin: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    let entries = entries.map(Result::unwrap).filter(|entry| entry.file_type().unwrap().is_dir());
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(begin));
    named.map(|entry| entry.path()).collect()
}
