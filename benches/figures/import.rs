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
/// Often enough to see what an import needs at its most, and no load beside it.
const EVERY: Duration = Duration::from_millis(200);

/// `image.import.*`: medians over the rounds.
pub(crate) fn beside_qemu(rounds: usize) {
    make();
    let [mut ours, mut copying, mut alone, mut by_hand, mut pool] = [(); 5].map(|()| vec![]);
    let mut memory = Memory::default();
    for round in 0..rounds {
        let (took, bytes, seen) = import();
        let (converted, whole) = hand();
        let inside = seen.copying.as_secs_f64();
        say(&format!(
            "round {round}: import {took:.1} s, {inside:.1} s of it copying; qemu-img {converted:.1} s, with LVM {whole:.1} s"
        ));
        copying.push(inside);
        ours.push(took);
        alone.push(converted);
        by_hand.push(whole);
        pool.push(bytes);
        memory = memory.max(seen.most);
    }
    fs::remove_file(FILE).unwrap();
    let note =
        format!("{rounds} rounds in turn, 2 GiB raw with 400 MiB of data, none of it in the page cache");
    let ours = median(ours);
    tell("image.import.vs_qemu_img", ours, "s", Some(median(alone.clone())), &note);
    let process = format!("{note}; seen every {} ms", EVERY.as_millis());
    tell("image.import.copying", median(copying), "s", Some(median(alone)), &process);
    tell("image.import.vs_by_hand", ours, "s", Some(median(by_hand)), &note);
    #[allow(clippy::cast_precision_loss, reason = "some hundred MiB")]
    tell("image.import.pool_bytes", median(pool), "bytes", Some(DATA as f64), &note);
    let parts = format!("sheathd at most {:.1}", memory.agent);
    tell("image.import.rss_mib", memory.ours, "MiB", None, &format!("{note}; {parts}"));
}

/// Resident memory in MiB at its most: the agent's, and that of all of ours together.
#[derive(Debug, Clone, Copy, Default)]
struct Memory {
    agent: f64,
    ours: f64,
}

impl Memory {
    /// Looks once, with the process that copies, if there is one.
    fn now(agent: &str, copier: Option<&str>) -> Self {
        let agent = resident(agent);
        Self { agent, ours: agent + copier.map_or(0.0, resident) }
    }

    fn max(self, other: Self) -> Self {
        Self { agent: self.agent.max(other.agent), ours: self.ours.max(other.ours) }
    }
}

/// What was seen of an import while it went on.
#[derive(Debug, Default)]
struct Seen {
    most: Memory,
    copying: Duration,
}

impl Seen {
    /// Looks until it is stopped.
    fn until(stopped: &AtomicBool, agent: &str) -> Self {
        let (mut seen, mut begun) = (Self::default(), None);
        while !stopped.load(Ordering::Relaxed) {
            let copier = copier(agent);
            seen.most = seen.most.max(Memory::now(agent, copier.as_deref()));
            if copier.is_some() {
                seen.copying = begun.get_or_insert_with(Instant::now).elapsed();
            }
            thread::sleep(EVERY);
        }
        seen
    }
}

/// Returns the agent's child that copies: what LVM does beside it is not ours.
fn copier(agent: &str) -> Option<String> {
    let threads = fs::read_dir(format!("/proc/{agent}/task")).ok()?;
    // One that has ended meanwhile has none.
    let children = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
    let children: String = children.collect();
    let is_ours = |pid: &&str| fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name == b"sheath\n");
    children.split_whitespace().find(is_ours).map(str::to_owned)
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

/// Has the agent import it; returns the seconds, the bytes of the pool, and what was seen meanwhile.
fn import() -> (f64, f64, Seen) {
    forget();
    let (before, stop) = (used(), Arc::new(AtomicBool::new(false)));
    let agent = run("systemctl", &["show", "-P", "MainPID", "sheathd"]).trim().to_owned();
    let stopped = Arc::clone(&stop);
    let watcher = thread::spawn(move || Seen::until(&stopped, &agent));
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
    forget();
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

/// Has the kernel forget the disk's content. The programs stay where they are: an appliance runs them all the time.
fn forget() {
    run("dd", &[&format!("if={FILE}"), "iflag=nocache", "count=0", "status=none"]);
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

/// Returns a process's resident memory in MiB; one that is gone has none.
fn resident(pid: &str) -> f64 {
    let status = fs::read_to_string(Path::new("/proc").join(pid).join("status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().strip_suffix(" kB").unwrap().parse::<f64>().unwrap() / 1024.0
}
