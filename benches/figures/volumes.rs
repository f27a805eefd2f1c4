//! A thousand blades' disks in a real pool, at once: LVM needs half a second for each, so its metadata are written as a
//! text and restored. The thin devices are made by messages to the pool, and activated by one command of device-mapper
//! under the names that LVM gives them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use sheath::model::{Tag, VolumeId};

use crate::{
    fixture::{blade_id, run, slot, volume_id},
    row::{say, tell},
};

const SAVED: &str = "/run/bench-vg.txt";
/// A blade's disk: 256 extents of LVM's 4 MiB.
const EXTENTS: u64 = 256;
/// The first device number of ours in the pool: far above any that LVM has given.
const FIRST_DEVICE: usize = 100_000;
/// A start of a thousand targets, emulated on a busy machine.
const PATIENCE: Duration = Duration::from_secs(900);

/// Makes the volumes, active, each somebody's.
pub(crate) fn make(number: usize) {
    run("vgcfgbackup", &["-f", SAVED, "sheath"]);
    let text = fs::read_to_string(SAVED).unwrap();
    let begin = Instant::now();
    for n in 0..number {
        run("dmsetup", &["message", "sheath-pool-tpool", "0", &format!("create_thin {}", FIRST_DEVICE + n)]);
    }
    say(&format!("{number} thin devices: {:.1?}", begin.elapsed()));
    fs::write(SAVED, with_volumes(&text, number)).unwrap();
    run("vgcfgrestore", &["--force", "--yes", "-f", SAVED, "sheath"]);
    say(&format!("and LVM's metadata: {:.1?}", begin.elapsed()));
    activate(&text, number);
    say(&format!("and active: {:.1?}", begin.elapsed()));
}

/// Tells how long the agent needs, after its start, until all targets are enabled, and what memory it takes then.
pub(crate) fn served(number: usize) {
    let begin = Instant::now();
    run("systemctl", &["start", "--no-block", "sheathd"]);
    while enabled() < number {
        assert!(begin.elapsed() < PATIENCE, "{} of {number} targets after {PATIENCE:?}", enabled());
        thread::sleep(Duration::from_millis(500));
    }
    #[allow(clippy::cast_precision_loss, reason = "a thousand")]
    tell(
        &format!("lio.start.{number}"),
        begin.elapsed().as_secs_f64(),
        "s",
        None,
        "the installed agent, LVM's report and udev in it",
    );
    // What a start needs and then gives back is not what the agent takes.
    thread::sleep(Duration::from_secs(20));
    let memory = memory();
    let mib = |key: &str| memory[key] / 1024.0;
    tell(
        &format!("lio.rss_mib.{number}"),
        mib("VmRSS"),
        "MiB",
        None,
        &format!("at most {:.1} MiB since its start", mib("VmHWM")),
    );
    let begin = Instant::now();
    run("lvs", &["--reportformat", "json", "-o", "lv_name,lv_tags,lv_size,data_percent", "sheath"]);
    say(&format!("one LVM report: {:.1?}", begin.elapsed()));
}

/// Returns how many targets are enabled; looks inside only when as many are there.
fn enabled() -> usize {
    let Ok(entries) = fs::read_dir("/sys/kernel/config/target/iscsi") else { return 0 };
    let switches = entries.map(|entry| entry.unwrap().path().join("tpgt_1/enable"));
    switches.filter(|switch| fs::read_to_string(switch).is_ok_and(|text| text.trim() == "1")).count()
}

fn memory() -> BTreeMap<String, f64> {
    let pid = run("systemctl", &["show", "-P", "MainPID", "sheathd"]);
    let text = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("status")).unwrap();
    let line = |line: &str| {
        let (key, value) = line.split_once(':')?;
        Some((key.to_owned(), value.trim().strip_suffix(" kB")?.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// Returns the group's metadata with the volumes in it.
fn with_volumes(text: &str, number: usize) -> String {
    let begin =
        text.find("logical_volumes {\n").expect("the group has volumes") + "logical_volumes {\n".len();
    let transaction = field(&text[begin..], "transaction_id = ").expect("the pool has a transaction");
    let mut all = text[..begin].to_owned();
    for n in 0..number {
        let id = volume_id(n);
        let tags = [Tag::Blade(blade_id(n)), Tag::Image("debian13".parse().unwrap()), Tag::Slot(slot(n))];
        let tags: Vec<String> = tags.iter().map(|tag| format!("\"{tag}\"")).collect();
        write!(
            all,
            "{} {{\nid = \"{}\"\nstatus = [\"READ\", \"WRITE\", \"VISIBLE\"]\nflags = [\"ACTIVATION_SKIP\"]\ntags = [{}]\n\
             segment_count = 1\nsegment1 {{\nstart_extent = 0\nextent_count = {EXTENTS}\ntype = \"thin\"\n\
             thin_pool = \"pool\"\ntransaction_id = {transaction}\ndevice_id = {}\n}}\n}}\n",
            id.lv_name(), uuid(id), tags.join(", "), FIRST_DEVICE + n
        )
        .unwrap();
    }
    all + &text[begin..]
}

/// Has device-mapper make the volumes' devices, as LVM would name them.
fn activate(text: &str, number: usize) {
    let group = field(text, "id = \"").expect("the group has an id").replace('-', "");
    let extent: u64 = field(text, "extent_size = ").expect("the group has extents").parse().unwrap();
    let columns =
        ["info", "-c", "--noheadings", "--separator", ":", "-o", "major,minor", "sheath-pool-tpool"];
    let pool = run("dmsetup", &columns);
    let table = |n: usize| {
        let id = volume_id(n);
        let name = format!("sheath-{}", id.lv_name().as_str().replace('-', "--"));
        let uuid = format!("LVM-{group}{}", uuid(id).replace('-', ""));
        format!("{name},{uuid},,rw,0 {} thin {} {}", EXTENTS * extent, pool.trim(), FIRST_DEVICE + n)
    };
    for first in (0..number).step_by(100) {
        let devices: Vec<String> = (first..number.min(first + 100)).map(table).collect();
        let mut dmsetup =
            Command::new("dmsetup").args(["create", "--concise"]).stdin(Stdio::piped()).spawn().unwrap();
        dmsetup.stdin.take().expect("it is piped").write_all(devices.join(";").as_bytes()).unwrap();
        assert!(dmsetup.wait().unwrap().success(), "dmsetup create, from volume {first} on");
    }
    run("udevadm", &["settle", "--timeout=300"]);
}

/// Returns what follows the key, up to the line's end or a quotation mark.
fn field(text: &str, key: &str) -> Option<String> {
    let (_, rest) = text.split_once(key)?;
    Some(rest.split(['\n', '\t', '"', '#']).next()?.trim().to_owned())
}

/// Returns an id of LVM's kind: 32 letters and digits in its seven groups.
fn uuid(id: VolumeId) -> String {
    let hex = id.to_string();
    [0..6, 6..10, 10..14, 14..18, 18..22, 22..26, 26..32].map(|part| &hex[part]).join("-")
}
