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
/// Where the units are that an import's sandboxes run in.
const UNITS: &str = "/sys/fs/cgroup/system.slice";
/// The unit that does what qemu-img alone does; its name is there for as long as it is.
const CONVERTING: &str = "sheath-import-bench-convert.service";
/// Often enough to see what an import needs at its most, and no load beside it.
const EVERY: Duration = Duration::from_millis(50);

/// `image.import.*`: medians over the rounds.
pub(crate) fn beside_qemu(rounds: usize) {
    make();
    let [mut ours, mut converting, mut alone, mut by_hand, mut pool] = [(); 5].map(|()| vec![]);
    let mut memory = Memory::default();
    for round in 0..rounds {
        let (took, bytes, seen) = import();
        let (converted, whole) = hand();
        let inside = seen.converting.as_secs_f64();
        say(&format!(
            "round {round}: import {took:.1} s, {inside:.1} s of it converting; qemu-img {converted:.1} s, with LVM {whole:.1} s"
        ));
        converting.push(inside);
        ours.push(took);
        alone.push(converted);
        by_hand.push(whole);
        pool.push(bytes);
        memory = memory.max(seen.most);
    }
    fs::remove_file(FILE).unwrap();
    let note = format!("{rounds} rounds in turn, 2 GiB raw with 400 MiB of data, caches dropped");
    let ours = median(ours);
    tell("image.import.vs_qemu_img", ours, "s", Some(median(alone.clone())), &note);
    let sandbox = format!("{note}; seen every {} ms", EVERY.as_millis());
    tell("image.import.converting", median(converting), "s", Some(median(alone)), &sandbox);
    tell("image.import.vs_by_hand", ours, "s", Some(median(by_hand)), &note);
    #[allow(clippy::cast_precision_loss, reason = "some hundred MiB")]
    tell("image.import.pool_bytes", median(pool), "bytes", Some(DATA as f64), &note);
    let parts =
        format!("sheathd at most {:.1}; qemu-img, not counted, at most {:.1}", memory.agent, memory.others);
    tell("image.import.rss_mib", memory.ours, "MiB", None, &format!("{note}; {parts}"));
}

/// Resident memory in MiB at its most: the agent's, that of all of ours together, that of what our sandboxes have become.
#[derive(Debug, Clone, Copy, Default)]
struct Memory {
    agent: f64,
    ours: f64,
    others: f64,
}

impl Memory {
    /// Looks once. What systemd or LVM do meanwhile is theirs.
    fn now(agent: &str) -> Self {
        let agent = resident(agent);
        let mut now = Self { agent, ours: agent, others: 0.0 };
        for pid in sandboxed() {
            // One that has ended meanwhile has none.
            match fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim() {
                "sheath" => now.ours += resident(&pid),
                _ => now.others += resident(&pid),
            }
        }
        now
    }

    fn max(self, other: Self) -> Self {
        Self {
            agent: self.agent.max(other.agent),
            ours: self.ours.max(other.ours),
            others: self.others.max(other.others),
        }
    }
}

/// What was seen of an import while it went on.
#[derive(Debug, Default)]
struct Seen {
    most: Memory,
    converting: Duration,
}

impl Seen {
    /// Looks until it is stopped.
    fn until(stopped: &AtomicBool, agent: &str) -> Self {
        let (mut seen, mut begun) = (Self::default(), None);
        while !stopped.load(Ordering::Relaxed) {
            seen.most = seen.most.max(Memory::now(agent));
            if Path::new(UNITS).join(CONVERTING).exists() {
                seen.converting = begun.get_or_insert_with(Instant::now).elapsed();
            }
            thread::sleep(EVERY);
        }
        seen
    }
}

/// Returns the processes of the import's sandboxes.
fn sandboxed() -> Vec<String> {
    let units = fs::read_dir(UNITS).unwrap().map(|unit| unit.unwrap());
    let of_import = units.filter(|unit| unit.file_name().to_string_lossy().starts_with("sheath-import-"));
    let lists =
        of_import.map(|unit| fs::read_to_string(unit.path().join("cgroup.procs")).unwrap_or_default());
    lists.flat_map(|list| list.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
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
    drop_caches();
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

/// Returns a process's resident memory in MiB; one that is gone has none.
fn resident(pid: &str) -> f64 {
    let status = fs::read_to_string(Path::new("/proc").join(pid).join("status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().strip_suffix(" kB").unwrap().parse::<f64>().unwrap() / 1024.0
}
