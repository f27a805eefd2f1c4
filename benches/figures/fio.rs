//! Data through our LUN beside a hand-made one: two like devices in memory, one exported by the engine, one with targetcli
//! and its defaults, both with CHAP, an initiator logged in to each. Patterns and sides take turns.

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
/// LIO gives each connection's threads one processor of these, by the connection's number: with one, all are alike.
const PROCESSORS: (&str, &str) = ("/sys/kernel/config/target/iscsi/cpus_allowed_list", "1");

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
    std::fs::write(PROCESSORS.0, PROCESSORS.1).unwrap();
    let (ours, hand) = (Session::new("ours", &ours), Session::new("hand", &hand));
    for device in [ours.disk(), hand.disk()] {
        say(&format!("{}: {}", device.display(), settings(&device)));
    }
    let (mut worst, mut of) = ((1.0_f64, 1.0_f64), "");
    for pattern in PATTERNS {
        let [ours, hand] = fio([&ours.disk(), &hand.disk()], pattern, turns);
        say(&format!("{}: ours {ours:.0?}, by hand {hand:.0?}", pattern.0));
        let (ours, hand) = (median(ours), median(hand));
        let unit = if pattern.3 == "bw" { "KiB/s" } else { "IOPS" };
        let note = format!("{turns} turns of {TURN}");
        tell(&format!("lio.fio.vs_handmade.{}", pattern.0), ours, unit, Some(hand), &note);
        if (ours / hand - 1.0).abs() >= (worst.0 / worst.1 - 1.0).abs() {
            (worst, of) = ((ours, hand), pattern.0);
        }
    }
    tell("lio.fio.vs_handmade", worst.0 / worst.1, "ratio", Some(1.0), of);
    drop((ours, hand));
    clear::all();
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

/// Runs one pattern on both disks, in turns by one fio, and returns the turns' figures.
fn fio(
    disks: [&Path; 2],
    (pattern, block, depth, counts): (&str, &str, u8, &str),
    turns: usize,
) -> [Vec<f64>; 2] {
    let mut args: Vec<String> = ["--direct=1", "--ioengine=libaio", "--time_based", "--output-format=json"]
        .into_iter()
        .map(str::to_owned)
        .collect();
    args.extend([format!("--size={SIZE}"), format!("--runtime={TURN}"), format!("--rw={pattern}")]);
    args.extend([format!("--bs={block}"), format!("--iodepth={depth}")]);
    for turn in 0..turns * 2 {
        let disk = disks[side(turn)].display();
        args.extend([format!("--name=turn{turn}"), "--stonewall".to_owned(), format!("--filename={disk}")]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let json: Value = serde_json::from_str(&run("fio", &args)).expect("fio writes JSON");
    let direction = if pattern.ends_with("write") { "write" } else { "read" };
    let mut figures = [vec![], vec![]];
    for turn in 0..turns * 2 {
        let figure = &json["jobs"][turn][direction][counts];
        figures[side(turn)].push(figure.as_f64().expect("fio tells what was asked for"));
    }
    figures
}

/// Returns whose turn it is: ours, theirs, theirs, ours.
fn side(turn: usize) -> usize {
    usize::from(matches!(turn % 4, 1 | 2))
}
