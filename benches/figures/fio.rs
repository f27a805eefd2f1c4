//! Data through our LUN beside a hand-made one: two like devices in memory, one exported by the engine, one with targetcli
//! and its defaults, both with CHAP, an initiator logged in to each. Patterns and sides take turns.

use std::path::Path;

use serde_json::Value;
use sheath::model::Chap;

use crate::{
    clear,
    fixture::{self, Fixture, keys, run},
    initiator::{Session, Whom},
    restore,
    row::{median, say, tell},
};

/// fio's name for the pattern, block size, and what counts.
const PATTERNS: [(&str, &str, &str); 3] =
    [("randread", "4k", "iops"), ("randwrite", "4k", "iops"), ("read", "1m", "bw")];
/// The part of a device that is used; written once before, so that no side reads what is not there.
const SIZE: &str = "192m";
const SECONDS: &str = "4";

const TARGET: &str = "iqn.2003-01.org.example:hand";
const INITIATOR: &str = "iqn.2003-01.org.example:initiator";
const PASSWORD: &str = "secretsecret1234";

/// `lio.fio.vs_handmade` and its patterns.
pub(crate) fn vs_handmade(rounds: usize) {
    let hand_device = "/dev/nullb1";
    restore::engine(1);
    by_hand(hand_device);
    let disk = Fixture::new(1).disks().remove(0);
    for device in [Path::new("/dev/nullb0"), Path::new(hand_device)] {
        fill(device);
    }
    let credentials = keys().credentials(disk.export.backstore.volume, Chap::OneWay);
    let ours = Session::new(
        "ours",
        &Whom {
            initiator: disk.export.initiator.as_str(),
            target: disk.export.target.as_str(),
            portal: &disk.export.portals[0].to_string(),
            user: &credentials.user,
            password: credentials.password.expose(),
        },
    );
    let hand = Session::new(
        "hand",
        &Whom {
            initiator: INITIATOR,
            target: TARGET,
            portal: "10.77.0.1:3300",
            user: "hand",
            password: PASSWORD,
        },
    );
    measure(&ours.disk(), &hand.disk(), rounds);
    drop((ours, hand));
    clear::all();
}

fn measure(ours: &Path, hand: &Path, rounds: usize) {
    let note = format!("{rounds} rounds of {SECONDS} s in turn");
    let (mut worst, mut of) = ((1.0_f64, 1.0_f64), "");
    for (pattern, block, counts) in PATTERNS {
        let (mut a, mut b) = (vec![], vec![]);
        for round in 0..rounds {
            // Who is first takes turns, too.
            let sides: [(&Path, &mut Vec<f64>); 2] = if round % 2 == 0 {
                [(ours, &mut a), (hand, &mut b)]
            } else {
                [(hand, &mut b), (ours, &mut a)]
            };
            sides.into_iter().for_each(|(disk, took)| took.push(fio(disk, pattern, block, counts)));
        }
        say(&format!("{pattern} {block} {counts}: ours {a:.0?}, by hand {b:.0?}"));
        let (a, b) = (median(a), median(b));
        let unit = if counts == "bw" { "KiB/s" } else { "IOPS" };
        tell(&format!("lio.fio.vs_handmade.{pattern}"), a, unit, Some(b), &note);
        if (a / b - 1.0).abs() >= (worst.0 / worst.1 - 1.0).abs() {
            (worst, of) = ((a, b), pattern);
        }
    }
    tell(
        "lio.fio.vs_handmade",
        worst.0,
        if of == "read" { "KiB/s" } else { "IOPS" },
        Some(worst.1),
        &format!("{of}; {note}"),
    );
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

/// Runs one pattern, and returns its figure.
fn fio(disk: &Path, pattern: &str, block: &str, counts: &str) -> f64 {
    let options = [
        format!("--filename={}", disk.display()),
        format!("--rw={pattern}"),
        format!("--bs={block}"),
        format!("--size={SIZE}"),
        format!("--runtime={SECONDS}"),
        format!("--iodepth={}", if block == "4k" { 32 } else { 4 }),
    ];
    let mut args =
        vec!["--name=bench", "--direct=1", "--ioengine=libaio", "--time_based", "--output-format=json"];
    args.extend(options.iter().map(String::as_str));
    let json: Value = serde_json::from_str(&fixture::run("fio", &args)).expect("fio writes JSON");
    let side = if pattern.ends_with("write") { "write" } else { "read" };
    json["jobs"][0][side][counts].as_f64().expect("fio tells what was asked for")
}
