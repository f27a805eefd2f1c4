//! Data through our LUN beside a hand-made one: two like devices in memory, one exported by the engine, one with targetcli
//! and its defaults, both with CHAP, an initiator logged in to each. Patterns and sides take turns; a ratio is the median
//! of neighbouring turns' ratios, because an emulated machine's pace changes within seconds; and half of the turns are done after
//! both have logged in again in the other order, because who comes first gets the better place somewhere.

use std::path::Path;

use serde_json::Value;
use sheath::model::Chap;

use crate::{
    clear,
    fixture::{Fixture, keys, run},
    initiator::{Session, Whom},
    restore,
    row::{median, say, tell},
};

/// fio's name for the pattern, block size, requests under way, and what counts.
const PATTERNS: [(&str, &str, u8, &str); 3] =
    [("randread", "4k", 32, "iops"), ("randwrite", "4k", 32, "iops"), ("read", "1m", 4, "bw")];
/// The part of a device that is used; written once before, so that no side reads what is not there.
const SIZE: &str = "192m";
/// One turn of one side. Short: the pace of an emulated machine changes within seconds.
const TURN: &str = "500ms";
/// Who works where, so that both sides do it alike and nothing wanders: LIO's threads on one processor (each connection would
/// have one of its own by its number), fio and the initiator's on the other.
const PLACES: [(&str, &str); 2] = [
    ("/sys/kernel/config/target/iscsi/cpus_allowed_list", "1"),
    ("/sys/devices/virtual/workqueue/cpumask", "1"),
];

const TARGET: &str = "iqn.2003-01.org.example:hand";
const INITIATOR: &str = "iqn.2003-01.org.example:initiator";
const PASSWORD: &str = "secretsecret1234";

/// `lio.fio.vs_handmade` and its patterns.
pub(crate) fn vs_handmade(turns: usize) {
    let hand_device = "/dev/nullb1";
    restore::engine(1);
    by_hand(hand_device);
    [Path::new("/dev/nullb0"), Path::new(hand_device)].into_iter().for_each(fill);
    let export = Fixture::new(1).disks().remove(0).export;
    let credentials = keys().credentials(export.backstore.volume, Chap::OneWay);
    let portal = export.portals[0].to_string();
    let ours = Whom {
        initiator: export.initiator.as_str(),
        target: export.target.as_str(),
        portal: &portal,
        user: &credentials.user,
        password: credentials.password.expose(),
    };
    let hand = Whom {
        initiator: INITIATOR,
        target: TARGET,
        portal: "10.77.0.1:3300",
        user: "hand",
        password: PASSWORD,
    };
    PLACES.iter().for_each(|(file, processors)| std::fs::write(file, processors).unwrap());
    let mut pairs = PATTERNS.map(|_| vec![]);
    for first in [0, 1] {
        let sessions = logged_in([&ours, &hand], first);
        for device in sessions.iter().map(Session::disk) {
            say(&format!("{}: {}", device.display(), settings(&device)));
        }
        let disks = [sessions[0].disk(), sessions[1].disk()];
        for (pattern, pairs) in PATTERNS.into_iter().zip(&mut pairs) {
            pairs.extend(fio([&disks[0], &disks[1]], pattern, turns / 2));
        }
    }
    tell_all(&pairs, turns);
    clear::all();
}

/// Logs in to both, one of them first, and returns the sessions in the order of `whom`.
fn logged_in(whom: [&Whom<'_>; 2], first: usize) -> [Session; 2] {
    let names = ["ours", "hand"];
    let one = Session::new(names[first], whom[first]);
    let other = Session::new(names[1 - first], whom[1 - first]);
    if first == 0 { [one, other] } else { [other, one] }
}

/// Tells each pattern's figures, and the one that differs most.
fn tell_all(pairs: &[Vec<[f64; 2]>; 3], turns: usize) {
    let (mut worst, mut of) = (1.0_f64, "");
    for (pattern, pairs) in PATTERNS.iter().zip(pairs) {
        let ratio = median(pairs.iter().map(|[ours, hand]| ours / hand).collect());
        let hand = median(pairs.iter().map(|pair| pair[1]).collect());
        say(&format!("{}: {pairs:.0?}", pattern.0));
        let unit = if pattern.3 == "bw" { "KiB/s" } else { "IOPS" };
        let note = format!("median ratio of {turns} pairs of turns of {TURN}");
        tell(&format!("lio.fio.vs_handmade.{}", pattern.0), hand * ratio, unit, Some(hand), &note);
        if (ratio - 1.0).abs() >= (worst - 1.0).abs() {
            (worst, of) = (ratio, pattern.0);
        }
    }
    tell("lio.fio.vs_handmade", worst, "ratio", Some(1.0), of);
}

/// Returns what the initiator made of the disk: differences here are differences of the LUNs.
fn settings(disk: &Path) -> String {
    let queue = Path::new("/sys/block").join(disk.file_name().expect("it is a device")).join("queue");
    let read = |file: &str| std::fs::read_to_string(queue.join(file)).unwrap_or_default().trim().to_owned();
    let files =
        ["scheduler", "write_cache", "max_sectors_kb", "nr_requests", "optimal_io_size", "rotational"];
    files.map(|file| format!("{file} {}", read(file))).join(", ")
}

/// What an administrator types.
fn by_hand(device: &str) {
    run("systemctl", &["start", "dbus"]);
    let tpg = format!("/iscsi/{TARGET}/tpg1");
    let acl = format!("{tpg}/acls/{INITIATOR}");
    let targetcli = |words: &[&str]| drop(run("targetcli", words));
    targetcli(&["/backstores/block", "create", "hand", device]);
    targetcli(&["set", "global", "auto_add_default_portal=false"]);
    targetcli(&["/iscsi", "create", TARGET]);
    targetcli(&[&tpg, "set", "attribute", "authentication=1"]);
    targetcli(&[&format!("{tpg}/luns"), "create", "/backstores/block/hand"]);
    targetcli(&[&format!("{tpg}/acls"), "create", INITIATOR]);
    targetcli(&[&acl, "set", "auth", "userid=hand", &format!("password={PASSWORD}")]);
    targetcli(&[&format!("{tpg}/portals"), "create", "10.77.0.1", "3300"]);
}

fn fill(device: &Path) {
    let of = format!("of={}", device.display());
    run(
        "dd",
        &["if=/dev/urandom", &of, "bs=1M", &format!("count={}", SIZE.trim_end_matches('m')), "conv=fsync"],
    );
}

/// Runs one pattern on both disks, in turns by one fio, and returns pairs of neighbouring turns' figures.
fn fio(
    disks: [&Path; 2],
    (pattern, block, depth, counts): (&str, &str, u8, &str),
    turns: usize,
) -> Vec<[f64; 2]> {
    let mut args: Vec<String> = ["--direct=1", "--ioengine=libaio", "--time_based", "--output-format=json"]
        .into_iter()
        .map(str::to_owned)
        .collect();
    args.extend([format!("--size={SIZE}"), format!("--runtime={TURN}"), format!("--rw={pattern}")]);
    args.extend([format!("--bs={block}"), format!("--iodepth={depth}"), "--cpus_allowed=0".to_owned()]);
    for turn in 0..turns * 2 {
        let disk = disks[side(turn)].display();
        args.extend([format!("--name=turn{turn}"), "--stonewall".to_owned(), format!("--filename={disk}")]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let json: Value = serde_json::from_str(&run("fio", &args)).expect("fio writes JSON");
    let direction = if pattern.ends_with("write") { "write" } else { "read" };
    let figure =
        |turn: usize| json["jobs"][turn][direction][counts].as_f64().expect("fio tells what was asked for");
    let pair = |n: usize| {
        let (first, second) = (figure(2 * n), figure(2 * n + 1));
        if side(2 * n) == 0 { [first, second] } else { [second, first] }
    };
    (0..turns).map(pair).collect()
}

/// Returns whose turn it is: ours, theirs, theirs, ours.
fn side(turn: usize) -> usize {
    usize::from(matches!(turn % 4, 1 | 2))
}
