//! Folding, and a temp folder in configfs' place: inotify is the same. What configfs tells is tested on a kernel.

use std::fs;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::sample;

/// Longer than the settling, short enough for a test.
const SOON: Duration = Duration::from_secs(3);

fn exported(n: u128) -> Exported {
    let name = |kind: &str| format!("iqn.2026-11.org.example:{kind}-{n}").parse().unwrap();
    Exported { target: name("b"), initiator: name("i"), volume: VolumeId(n << 100) }
}

/// Makes the folders of an export, and a file in each.
fn lay_out(root: &Path, exported: &Exported) -> Vec<PathBuf> {
    let all = folders(&exported.target, &exported.initiator, exported.volume).map(|folder| root.join(folder));
    for folder in &all {
        fs::create_dir_all(folder).unwrap();
        write(&folder.join("file"), "0");
    }
    all.to_vec()
}

#[allow(clippy::disallowed_methods, reason = "the test plays targetcli")]
fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

fn runtime(body: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(body);
}

async fn next(told: &mut UnboundedReceiver<WatchEvent>) -> WatchEvent {
    tokio::time::timeout(SOON, told.recv()).await.expect("told in time").expect("the watch runs")
}

/// Touches a folder until the watch on it is set, and lets that settle: nothing else tells that orders are carried out.
async fn armed(folders: &[PathBuf], told: &mut UnboundedReceiver<WatchEvent>) {
    let set = async {
        loop {
            write(&folders[13].join("probe"), "1");
            if tokio::time::timeout(2 * SETTLE, told.recv()).await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, set).await.expect("watched in time");
    quiet(told).await;
}

/// Takes what is told until nothing more is.
async fn quiet(told: &mut UnboundedReceiver<WatchEvent>) {
    while tokio::time::timeout(3 * SETTLE, told.recv()).await.is_ok() {}
}

#[test]
fn a_write_in_any_folder_is_told_for_its_own_blade_and_reading_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (lay_out(dir.path(), &exported(1)), lay_out(dir.path(), &exported(2)));
    runtime(async {
        let (events, mut told) = unbounded_channel();
        let orders = Orders::default();
        tokio::spawn(run(dir.path().to_owned(), orders.clone(), events));
        orders.watch(sample::blade_id(1), exported(1));
        orders.watch(sample::blade_id(2), exported(2));
        armed(&first, &mut told).await;
        armed(&second, &mut told).await;
        for (folder, word) in first.iter().zip(FOLDERS) {
            fs::read(folder.join("file")).unwrap();
            write(&folder.join("file"), "1");
            let paths = vec![format!("{word}/file")];
            assert_eq!(next(&mut told).await, WatchEvent::Touched { blade: sample::blade_id(1), paths });
        }
        write(&second[4].join("file"), "1");
        let paths = vec!["tpgt_1/attrib/file".to_owned()];
        assert_eq!(next(&mut told).await, WatchEvent::Touched { blade: sample::blade_id(2), paths });
    });
}

#[test]
fn a_command_that_makes_several_edits_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let folders = lay_out(dir.path(), &exported(1));
    runtime(async {
        let (events, mut told) = unbounded_channel();
        let orders = Orders::default();
        tokio::spawn(run(dir.path().to_owned(), orders.clone(), events));
        orders.watch(sample::blade_id(1), exported(1));
        armed(&folders, &mut told).await;
        fs::create_dir(folders[8].join("10.0.0.1:3261")).unwrap();
        write(&folders[4].join("file"), "1");
        fs::remove_file(folders[13].join("file")).unwrap();
        let WatchEvent::Touched { paths, .. } = next(&mut told).await else { panic!("not touched") };
        assert_eq!(paths, ["acl/lun_0/file", "tpgt_1/attrib/file", "tpgt_1/np/10.0.0.1:3261"]);
        assert!(tokio::time::timeout(2 * SETTLE, told.recv()).await.is_err());
    });
}

#[test]
fn what_is_taken_away_and_made_again_is_watched_after_the_next_order() {
    let dir = tempfile::tempdir().unwrap();
    let folders = lay_out(dir.path(), &exported(1));
    runtime(async {
        let (events, mut told) = unbounded_channel();
        let orders = Orders::default();
        tokio::spawn(run(dir.path().to_owned(), orders.clone(), events));
        orders.watch(sample::blade_id(1), exported(1));
        armed(&folders, &mut told).await;
        fs::remove_dir_all(dir.path().join("iscsi")).unwrap();
        assert!(matches!(next(&mut told).await, WatchEvent::Touched { .. }));
        quiet(&mut told).await;
        lay_out(dir.path(), &exported(1));
        orders.watch(sample::blade_id(1), exported(1));
        armed(&folders, &mut told).await;
        write(&folders[5].join("file"), "2");
        let paths = vec!["tpgt_1/param/file".to_owned()];
        assert_eq!(next(&mut told).await, WatchEvent::Touched { blade: sample::blade_id(1), paths });
    });
}

#[test]
fn a_forgotten_blade_is_not_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let folders = lay_out(dir.path(), &exported(1));
    runtime(async {
        let (events, mut told) = unbounded_channel();
        let orders = Orders::default();
        tokio::spawn(run(dir.path().to_owned(), orders.clone(), events));
        orders.watch(sample::blade_id(1), exported(1));
        armed(&folders, &mut told).await;
        orders.forget(sample::blade_id(1));
        let forgotten = async {
            loop {
                write(&folders[5].join("file"), "2");
                if tokio::time::timeout(3 * SETTLE, told.recv()).await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(SOON, forgotten).await.expect("forgotten in time");
    });
}

#[test]
fn exports_that_are_not_there_are_no_trouble_and_hold_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    runtime(async {
        let (events, mut told) = unbounded_channel();
        let orders = Orders::default();
        tokio::spawn(run(dir.path().to_owned(), orders.clone(), events));
        (0..40).for_each(|n| orders.watch(sample::blade_id(n), exported(n.into())));
        orders.watch(sample::blade_id(200), exported(200));
        let last = lay_out(dir.path(), &exported(200));
        armed(&last, &mut told).await;
    });
}

#[test]
fn the_first_touch_sets_the_time_and_many_touches_are_few_names() {
    let (mut fold, now) = (Fold::default(), Instant::now());
    (0..20).for_each(|n| fold.touch(sample::blade_id(1), format!("{n:02}"), now + SETTLE * (n + 1)));
    fold.touch(sample::blade_id(2), "x".into(), now + SETTLE * 2);
    assert_eq!(fold.ripe(now).count(), 0);
    assert_eq!(fold.next(), Some(now + SETTLE));
    let ripe: Vec<_> = fold.ripe(now + SETTLE).collect();
    assert_eq!((ripe.len(), ripe[0].0, ripe[0].1.len()), (1, sample::blade_id(1), NAMED));
    assert_eq!(fold.ripe(now + SETTLE * 2).count(), 1);
    assert_eq!(fold.next(), None);
}

#[test]
fn each_of_many_blades_is_watched() {
    let dir = tempfile::tempdir().unwrap();
    let all: Vec<_> = (0..100).map(|n| lay_out(dir.path(), &exported(n))).collect();
    runtime(async {
        let (events, mut told) = unbounded_channel();
        let orders = Orders::default();
        tokio::spawn(run(dir.path().to_owned(), orders.clone(), events));
        (0..100).for_each(|n| orders.watch(sample::blade_id(n), exported(n.into())));
        armed(&all[99], &mut told).await;
        for (folders, n) in all.iter().zip(0..) {
            write(&folders[4].join("file"), "1");
            let paths = vec!["tpgt_1/attrib/file".to_owned()];
            assert_eq!(next(&mut told).await, WatchEvent::Touched { blade: sample::blade_id(n), paths });
        }
    });
}
