//! The lease file's grammar, and real folders.

use std::fs;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;

/// Longer than any quiet time, short enough for a test.
const SOON: Duration = Duration::from_secs(3);

fn mac(text: &str) -> Mac {
    text.parse().unwrap()
}

#[allow(clippy::disallowed_methods, reason = "the test plays an editor")]
fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

fn runtime(body: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(body);
}

async fn next(told: &mut UnboundedReceiver<WatchEvent>) -> WatchEvent {
    tokio::time::timeout(SOON, told.recv()).await.expect("told in time").expect("the watch runs")
}

/// Lets the watch begin: it has nothing to tell then.
async fn begun() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[test]
fn leases_are_read_and_bad_lines_are_not() {
    let text = "1764000000 52:54:00:00:00:01 10.99.0.10 blade1 01:52:54:00:00:00:01\n\
        0 52:54:00:00:00:02 10.99.0.11 * *\n\
        \n\
        # a comment\n\
        1764000000 06-52:54:00:00:00:03 10.99.0.12 token-ring *\n\
        1764000000 01:00:5e:00:00:01 10.99.0.13 multicast *\n\
        soon 52:54:00:00:00:04 10.99.0.14 * *\n\
        1764000000 52:54:00:00:00:05 10.99.0.999 * *\n\
        1764000000 52:54:00:00:00:06 10.99.0.16\n\
        duid 00:01:00:01:2c:3e\n\
        1764000000 1234 fd00::10 six 00:01:00:01\n\
        1764000000 52:54:00:00:00:07 10.99.0.17 * *";
    let expected = BTreeMap::from([
        (mac("52:54:00:00:00:01"), Ipv4Addr::new(10, 99, 0, 10)),
        (mac("52:54:00:00:00:02"), Ipv4Addr::new(10, 99, 0, 11)),
    ]);
    assert_eq!(parse_leases(text), expected, "the last line is cut off");
    assert_eq!(parse_leases(&format!("{text}\n")).len(), 3);
}

#[test]
fn the_lease_that_ends_later_counts() {
    let text = "20 52:54:00:00:00:01 10.0.0.2 * *\n10 52:54:00:00:00:01 10.0.0.1 * *\n";
    assert_eq!(parse_leases(text)[&mac("52:54:00:00:00:01")], Ipv4Addr::new(10, 0, 0, 2));
    let for_ever = format!("{text}0 52:54:00:00:00:01 10.0.0.3 * *\n");
    assert_eq!(parse_leases(&for_ever)[&mac("52:54:00:00:00:01")], Ipv4Addr::new(10, 0, 0, 3));
}

#[test]
fn scratch_files_are_not_meant() {
    for name in
        [".sheath.toml.tmp", "sheath.toml~", "sheath.toml.dpkg-new", ".sheath.toml.swp", "4913", "#a#"]
    {
        assert!(is_scratch(OsStr::new(name)), "{name}");
    }
    assert!(!is_scratch(OsStr::new("sheath.toml")));
}

#[test]
fn a_change_is_told_once_however_the_editor_saves() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sheath.toml");
    write(&path, "a = 1");
    runtime(async {
        let (events, mut told) = unbounded_channel();
        let watch = tokio::spawn(config(dir.path().to_owned(), events));
        begun().await;
        // In place, and by a temp file that is renamed over it: one change.
        write(&path, "a = 2");
        write(&dir.path().join(".new.tmp"), "a = 3");
        fs::rename(dir.path().join(".new.tmp"), &path).unwrap();
        assert_eq!(next(&mut told).await, WatchEvent::ConfigChanged);
        write(&dir.path().join("sheath.toml~"), "scratch");
        assert!(tokio::time::timeout(2 * QUIET, told.recv()).await.is_err());
        fs::remove_file(&path).unwrap();
        assert_eq!(next(&mut told).await, WatchEvent::ConfigChanged);
        drop(told);
        tokio::time::timeout(SOON, watch).await.unwrap().unwrap();
    });
}

#[test]
fn a_folder_that_is_gone_is_trouble() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("sheath");
    fs::create_dir(&folder).unwrap();
    runtime(async {
        let (events, mut told) = unbounded_channel();
        let _watch = tokio::spawn(config(folder.clone(), events));
        begun().await;
        fs::remove_dir(&folder).unwrap();
        assert!(matches!(next(&mut told).await, WatchEvent::Trouble { source: Source::Config, .. }));
    });
}

#[test]
fn leases_are_told_at_the_start_and_when_they_change_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("leases");
    runtime(async {
        let (events, mut told) = unbounded_channel();
        let _watch = tokio::spawn(leases(path.clone(), events));
        assert_eq!(next(&mut told).await, WatchEvent::Leases(BTreeMap::new()));
        // As dnsmasq does it: the file stays open and is written anew from its beginning.
        let mut file = fs::File::create(&path).unwrap();
        std::io::Write::write_all(&mut file, b"9 52:54:00:00:00:01 10.0.0.1 * *\n").unwrap();
        let expected = BTreeMap::from([(mac("52:54:00:00:00:01"), Ipv4Addr::new(10, 0, 0, 1))]);
        assert_eq!(next(&mut told).await, WatchEvent::Leases(expected));
        drop(file);
    });
}
