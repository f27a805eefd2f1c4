//! An import by the installed agent, beside qemu-img alone and beside what a person would type, writing the same file to
//! volumes of the same pool in turn.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    fixture::run,
    row::{median, say, tell},
};

const MIB: u64 = 1 << 20;
/// The disk, and how much of it is data: every fifth MiB or so.
const SIZE: u64 = 2048 * MIB;
const DATA: u64 = 400 * MIB;
const FILE: &str = "/var/tmp/bench-import.raw";
const GROUP: &str = "sheath";
/// Often enough to see what an import needs at its most.
const EVERY: Duration = Duration::from_millis(100);

/// `image.import.*`: medians over the rounds.
pub(crate) fn beside_qemu(rounds: usize) {
    make();
    let (mut ours, mut alone, mut by_hand, mut pool, mut memory) = (vec![], vec![], vec![], vec![], vec![]);
    for round in 0..rounds {
        let (took, bytes, resident) = import();
        let (converted, whole) = hand();
        say(&format!("round {round}: import {took:.1} s; qemu-img {converted:.1} s, with LVM {whole:.1} s"));
        ours.push(took);
        alone.push(converted);
        by_hand.push(whole);
        pool.push(bytes);
        memory.push(resident);
    }
    fs::remove_file(FILE).unwrap();
    let note = format!("{rounds} rounds in turn, 2 GiB raw with 400 MiB of data, caches dropped");
    let ours = median(ours);
    tell("image.import.vs_qemu_img", ours, "s", Some(median(alone)), &note);
    tell("image.import.vs_by_hand", ours, "s", Some(median(by_hand)), &note);
    #[allow(clippy::cast_precision_loss, reason = "some hundred MiB")]
    tell("image.import.pool_bytes", median(pool), "bytes", Some(DATA as f64), &note);
    tell("image.import.rss_mib", memory.into_iter().fold(0.0, f64::max), "MiB", None, &note);
}

/// Makes the disk: a table, and data that are not zeros.
fn make() {
    let _ = fs::remove_file(FILE);
    let file = File::create(FILE).unwrap();
    file.set_len(SIZE).unwrap();
    let table = format!("echo 'start=2048, type=linux' | sfdisk -q -X gpt {FILE}");
    run("sh", &["-c", &table]);
    let mut block = vec![0; usize::try_from(MIB).unwrap()];
    for n in 0..DATA / MIB {
        block.iter_mut().zip(n * 7..).for_each(|(byte, at)| *byte = u8::try_from(at % 251).unwrap() | 1);
        file.write_all_at(&block, (2 + n * 5) * MIB).unwrap();
    }
    file.sync_all().unwrap();
}

/// Has the agent import it; returns the seconds, the bytes of the pool, and the agent's largest memory in MiB.
fn import() -> (f64, f64, f64) {
    drop_caches();
    let (before, stop) = (used(), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let watcher = thread::spawn(move || {
        let mut most = 0.0_f64;
        while !stopped.load(Ordering::Relaxed) {
            most = most.max(resident());
            thread::sleep(EVERY);
        }
        most
    });
    let begin = Instant::now();
    run("sheath", &["image", "import", "bench", FILE]);
    let took = begin.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    let bytes = used() - before;
    run("sheath", &["image", "remove", "bench", "--yes"]);
    while Path::new("/dev/sheath/sheath-img-bench").exists() || lists_bench() {
        thread::sleep(EVERY);
    }
    (took, bytes, watcher.join().unwrap())
}

fn lists_bench() -> bool {
    run("lvs", &["--noheadings", "-o", "lv_name", GROUP]).contains("sheath-img-bench")
}

/// Does the same by hand; returns the seconds of qemu-img alone, and with LVM's commands around it.
fn hand() -> (f64, f64) {
    drop_caches();
    let begin = Instant::now();
    let make =
        ["--virtualsize", "2g", "--thinpool", "pool", "--name", "hand", "--wipesignatures", "n", GROUP];
    run("lvcreate", &[&["--quiet"], &make[..]].concat());
    let converting = Instant::now();
    let convert = ["convert", "-n", "-W", "--target-is-zero", "-t", "none", "-f", "raw", "-O", "raw"];
    run("qemu-img", &[&convert[..], &[FILE, "/dev/sheath/hand"]].concat());
    let converted = converting.elapsed().as_secs_f64();
    run("lvchange", &["--activate", "n", "sheath/hand"]);
    run("lvchange", &["--permission", "r", "sheath/hand"]);
    let whole = begin.elapsed().as_secs_f64();
    run("lvremove", &["--yes", "sheath/hand"]);
    (converted, whole)
}

fn drop_caches() {
    run("sync", &[]);
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

/// Returns the bytes of the pool that are in use: device-mapper counts chunks.
fn used() -> f64 {
    run("sync", &[]);
    let chunk =
        run("lvs", &["--noheadings", "--units", "b", "--nosuffix", "-o", "chunk_size", "sheath/pool"]);
    let status = run("dmsetup", &["status", "sheath-pool-tpool"]);
    let data = status.split_whitespace().nth(5).and_then(|data| data.split('/').next()).unwrap();
    data.parse::<f64>().unwrap() * chunk.trim().parse::<f64>().unwrap()
}

/// Returns the agent's own resident memory in MiB: what it starts is not the agent.
fn resident() -> f64 {
    let pid = run("systemctl", &["show", "-P", "MainPID", "sheathd"]);
    let status = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<f64>().unwrap() / 1024.0
}
