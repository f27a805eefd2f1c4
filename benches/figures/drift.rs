//! A hand edit of a target that the installed agent serves, until the agent has taken it back.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::row::{median, ms, say, tell, tell_none};

const TARGETS: &str = "/sys/kernel/config/target/iscsi";
/// What is edited, below the TPG; `ACL` is the ACL's folder.
const EDITS: [(&str, &str); 3] = [
    ("attrib/demo_mode_discovery", "1"),
    ("attrib/generate_node_acls", "1"),
    ("ACL/attrib/nopin_timeout", "33"),
];
/// An agent that has not seen an edit by now does not watch.
const PATIENCE: Duration = Duration::from_secs(10);
/// Five repairs of one blade within ten seconds are a fight to the agent, which then rests.
const PAUSE: Duration = Duration::from_secs(3);
/// Far below what is measured, and no load.
const EVERY: Duration = Duration::from_millis(1);

/// `lio.drift_repair_ms`: the median over all edits and rounds.
pub(crate) fn repair(rounds: usize) {
    let tpg = only_folder(Path::new(TARGETS), "iqn.").join("tpgt_1");
    let acl = only_folder(&tpg.join("acls"), "iqn.");
    let mut took = vec![];
    for (file, value) in EDITS.iter().cycle().take(rounds * EDITS.len()) {
        let path = file.strip_prefix("ACL/").map_or_else(|| tpg.join(file), |file| acl.join(file));
        let Some(time) = one(&path, value) else {
            let why = format!("'{file}' was not taken back within {} s", PATIENCE.as_secs());
            tell_none("lio.drift_repair_ms", "ms", &why);
            return;
        };
        took.push(ms(time));
        thread::sleep(PAUSE);
    }
    say(&format!("repairs: {took:.0?} ms"));
    tell(
        "lio.drift_repair_ms",
        median(took),
        "ms",
        None,
        &format!("{rounds} rounds of {} edits", EDITS.len()),
    );
}

/// Edits the file, and returns how long it took until it was as before.
fn one(path: &Path, value: &str) -> Option<Duration> {
    let before = fs::read_to_string(path).unwrap();
    fs::write(path, value).unwrap();
    let begin = Instant::now();
    while fs::read_to_string(path).unwrap() != before {
        if begin.elapsed() > PATIENCE {
            fs::write(path, before.trim()).unwrap();
            return None;
        }
        thread::sleep(EVERY);
    }
    Some(begin.elapsed())
}

fn only_folder(folder: &Path, begin: &str) -> PathBuf {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let mut found = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(begin));
    found.next().unwrap_or_else(|| panic!("nothing in {}", folder.display())).path()
}
