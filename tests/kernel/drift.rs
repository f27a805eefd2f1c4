//! Hand edits of our exports on a real kernel: inotify on configfs, the agent's own line and lanes, targetcli.
//!
//! What stands in for the rest of the machine is in `drift_line`: LVM's report, the chassis, udev.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{
    blade::{PREFIX, ROOT, said},
    drift_line::{Line, Rig},
    guest::{alone, run, wait_for},
};

/// From the hand edit to its repair, emulated on two cores.
const REPAIRED_WITHIN: Duration = Duration::from_millis(500);

/// Longest wait for one, on a machine that others use too.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who is not to be let in.
const STRANGER: &str = "iqn.1993-08.org.debian:01:stranger";

/// A hand edit by system calls: what is told of it, and how it is done given the TPG, the ACL and the backstore.
type Edit = (&'static str, fn(&Rig));

/// Edits that a logged-in initiator must survive, repair included.
const LIVE: [Edit; 10] = [
    ("tpgt_1/attrib/demo_mode_discovery: from '0' to '1'", |rig| {
        rig.write("tpgt_1/attrib/demo_mode_discovery", "1");
    }),
    ("tpgt_1/attrib/authentication: from '1' to '0'", |rig| rig.write("tpgt_1/attrib/authentication", "0")),
    ("tpgt_1/attrib/generate_node_acls: from '0' to '1'", |rig| {
        rig.write("tpgt_1/attrib/generate_node_acls", "1");
    }),
    ("tpgt_1/param/AuthMethod: from 'CHAP' to 'CHAP,None'", |rig| {
        rig.write("tpgt_1/param/AuthMethod", "CHAP,None");
    }),
    ("/auth/password: from 'ours' to 'not ours'", |rig| rig.write_acl("auth/password", "hunter2hunter2")),
    ("/attrib/authentication: from '-1' to '0'", |rig| rig.write_acl("attrib/authentication", "0")),
    ("/attrib/nopin_timeout: from '0 or 15' to '7'", |rig| rig.write_acl("attrib/nopin_timeout", "7")),
    ("backstore/attrib/emulate_tpu: from '1' to '0'", |rig| {
        fs::write(rig.backstore().join("attrib/emulate_tpu"), "0").unwrap();
    }),
    ("tpgt_1/acls/iqn.1993-08.org.debian:01:stranger: added", |rig| {
        fs::create_dir(rig.target().join("tpgt_1/acls").join(STRANGER)).unwrap();
    }),
    ("tpgt_1/np/10.77.0.1:3260: removed", |rig| {
        fs::remove_dir(rig.target().join("tpgt_1/np/10.77.0.1:3260")).unwrap();
    }),
];

/// Edits that take something away from whoever is logged in; the repair brings it back.
const CUTTING: [Edit; 6] = [
    ("/lun_0: from 'writable' to 'broken'", |rig| rig.write_acl("lun_0/write_protect", "1")),
    ("/lun_0: removed", |rig| rig.unmap()),
    ("tpgt_1/enable: from '1' to '0'", |rig| rig.write("tpgt_1/enable", "0")),
    ("tpgt_1/lun/lun_0: removed", |rig| {
        rig.unmap();
        fs::remove_file(rig.target().join("tpgt_1/lun/lun_0/dev")).unwrap();
    }),
    ("initiator:b-525400000001: removed", |rig| {
        rig.unmap();
        fs::remove_dir(rig.acl()).unwrap();
    }),
    ("removed", |rig| {
        rig.write("tpgt_1/enable", "0");
        said(rig.lio.remove_target(&rig.wish.target));
        said(rig.lio.remove_backstore(rig.wish.backstore.volume));
    }),
];

/// Does the edit, waits for its repair, and returns how long that took.
#[allow(clippy::print_stdout, reason = "the figure is what somebody who runs this wants to see")]
fn repaired(line: &Line, rig: &Rig, (told, edit): Edit) -> Duration {
    let events = line.drift_events();
    let begin = Instant::now();
    let hands = line.hands_off();
    edit(rig);
    drop(hands);
    let edited = begin.elapsed();
    while !rig.is_right() {
        assert!(begin.elapsed() < PATIENCE, "{told}: not within {PATIENCE:?}, after:\n{}", line.recent());
        thread::sleep(Duration::from_millis(5));
    }
    let seen = begin.elapsed() - edited;
    // The kernel is right a moment before the line hears of it.
    let text = wait_for(told, || line.drift_since(events, rig).filter(|text| text.contains(told)));
    println!("{:>4} ms  {text}", seen.as_millis());
    line.quiet();
    seen
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_drift_by_hand_is_told_for_its_own_blade_and_put_right_in_place() {
    let _alone = alone();
    let rigs = Rig::several(2);
    let line = Line::start(&rigs, "repair");
    let login = rigs[0].login();
    line.look(&rigs[0]);
    line.quiet();
    let session = rigs[0].session_id();
    assert!(session.is_some());
    let mut times: Vec<_> = LIVE.iter().map(|edit| repaired(&line, &rigs[0], *edit)).collect();
    assert_eq!(rigs[0].session_id(), session, "the session was cut");
    drop(login);
    line.look(&rigs[0]);
    line.quiet();
    times.extend(CUTTING.iter().map(|edit| repaired(&line, &rigs[0], *edit)));
    assert!(line.drift_since(0, &rigs[1]).is_none(), "the other blade was not touched");
    times.sort_unstable();
    println!(
        "hand edit -> repaired: median {:?}, worst {:?}",
        times[times.len() / 2],
        times[times.len() - 1]
    );
    line.stop();
    rigs.iter().for_each(Rig::remove);
    assert!(times[times.len() / 2] <= REPAIRED_WITHIN, "{times:?}");
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_drift_by_targetcli_is_put_right_and_what_is_not_ours_stays_byte_for_byte() {
    let _alone = alone();
    run("systemctl", &["start", "dbus"]).unwrap();
    let rigs = Rig::several(2);
    let line = Line::start(&rigs, "repair");
    let foreign = Foreign::make();
    let (before, rig) = (foreign.dump(), &rigs[0]);
    let (target, initiator) = (&rig.wish.target, &rig.wish.initiator);
    let tpg = format!("/iscsi/{target}/tpg1");
    let commands = [
        (format!("{tpg} set attribute authentication=0"), "authentication: from '1' to '0'"),
        (format!("{tpg} set parameter AuthMethod=None"), "AuthMethod: from 'CHAP' to 'None'"),
        (format!("{tpg}/acls/{initiator} set auth userid=me password=mine0mine0mi"), "auth/userid: from 'b-"),
        (format!("{tpg}/acls create {STRANGER}"), "stranger: added"),
        (format!("{tpg}/portals delete 10.77.0.1 3260"), "tpgt_1/np/10.77.0.1:3260: removed"),
        (format!("{tpg} disable"), "tpgt_1/enable: from '1' to '0'"),
        (format!("{tpg}/acls delete {initiator}"), "initiator:b-525400000001: removed"),
        (format!("/iscsi delete {target}"), "removed"),
    ];
    for (command, told) in &commands {
        let events = line.drift_events();
        // It may fail half-way because what it takes apart is put together meanwhile.
        let outcome = run("targetcli", &command.split(' ').collect::<Vec<_>>());
        let text = wait_for(command, || line.drift_since(events, rig).filter(|text| text.contains(told)));
        wait_for(command, || rig.is_right().then_some(()));
        println!(
            "targetcli {command}: {text}{}",
            outcome.map_or_else(|e| format!(" ({e})"), |_| String::new())
        );
        line.quiet();
    }
    for edit in LIVE.iter().chain(&CUTTING) {
        repaired(&line, rig, *edit);
    }
    assert!(line.drift_since(0, &rigs[1]).is_none(), "the other blade was not touched");
    let after = foreign.dump();
    assert!(before == after, "what is not ours has changed:\n{before}\n---\n{after}");
    line.stop();
    foreign.remove();
    rigs.iter().for_each(Rig::remove);
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_drift_of_our_own_doing_leads_to_no_circles() {
    let _alone = alone();
    let rigs = Rig::several(3);
    let line = Line::start(&rigs, "repair");
    // A whole export made anew: some thirty touches of our own.
    let hands = line.hands_off();
    said(rigs[1].lio.disable(&rigs[1].wish.target));
    said(rigs[1].lio.remove_target(&rigs[1].wish.target));
    drop(hands);
    wait_for("the target", || rigs[1].is_right().then_some(()));
    line.quiet();
    let (looks, events) = (line.looks(), line.drift_events());
    thread::sleep(Duration::from_secs(3));
    assert_eq!((line.looks(), line.drift_events()), (looks, events), "somebody looks and looks");
    println!("{looks} looks at 3 exports, {events} of them told drift");
    line.stop();
    rigs.iter().for_each(Rig::remove);
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_drift_is_only_reported_where_policy_says_so() {
    let _alone = alone();
    let rigs = Rig::several(1);
    let line = Line::start(&rigs, "report");
    rigs[0].write("tpgt_1/attrib/demo_mode_discovery", "1");
    let text = wait_for("the report", || line.drift_since(0, &rigs[0]));
    assert!(text.contains("left so: tpgt_1/attrib/demo_mode_discovery: from '0' to '1'"), "{text}");
    line.quiet();
    assert!(!rigs[0].is_right());
    line.reload();
    wait_for("the repair", || rigs[0].is_right().then_some(()));
    line.stop();
    rigs[0].remove();
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_drift_is_put_right_as_fast_with_many_blades_as_with_one() {
    let _alone = alone();
    let median = |number: usize| {
        let rigs = Rig::several_on_nothing(number);
        let line = Line::start(&rigs, "repair");
        let mut times: Vec<_> = (0..9).map(|n| repaired(&line, &rigs[number / 2], LIVE[n % 2])).collect();
        times.sort_unstable();
        line.stop();
        rigs.iter().for_each(Rig::remove);
        times[4]
    };
    let (one, many) = (median(1), median(100));
    println!("hand edit -> repaired: {one:?} with 1 blade, {many:?} with 100");
    // The settling is the same 50 ms in both: it hides nothing that grows by a blade's share.
    assert!(many <= one * 2 && many <= REPAIRED_WITHIN, "{one:?} with 1 blade, {many:?} with 100");
}

/// A target that targetcli made for somebody else.
struct Foreign {
    target: String,
}

impl Foreign {
    fn make() -> Self {
        let target = "iqn.2003-01.org.linux-iscsi:theirs".to_owned();
        let image = "/run/theirs.img";
        fs::File::create(image).unwrap().set_len(16 << 20).unwrap();
        for command in [
            format!("/backstores/fileio create theirs {image}"),
            format!("/iscsi create {target}"),
            format!("/iscsi/{target}/tpg1/luns create /backstores/fileio/theirs"),
            format!("/iscsi/{target}/tpg1/acls create {STRANGER}"),
            format!("/iscsi/{target}/tpg1/acls/{STRANGER} set auth userid=u password=pppppppppppp"),
        ] {
            run("targetcli", &command.split(' ').collect::<Vec<_>>()).unwrap();
        }
        assert!(!target.starts_with(PREFIX));
        Self { target }
    }

    /// Returns every folder, link and file below their target and their backstore, with its content. Counters are left
    /// out, and so is what is asked only to be refused.
    fn dump(&self) -> String {
        let mut all = String::new();
        dump(&Path::new(ROOT).join("iscsi").join(&self.target), &mut all);
        let cores = fs::read_dir(Path::new(ROOT).join("core")).unwrap().flatten();
        cores.filter(|hba| hba.path().join("theirs").exists()).for_each(|hba| dump(&hba.path(), &mut all));
        assert!(all.lines().count() > 100, "{all}");
        all
    }

    fn remove(&self) {
        run("targetcli", &["/iscsi", "delete", &self.target]).unwrap();
        run("targetcli", &["/backstores/fileio", "delete", "theirs"]).unwrap();
    }
}

fn dump(folder: &Path, all: &mut String) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let content = match fs::read_link(&path) {
            Ok(to) => to.display().to_string(),
            Err(_) if kind.is_dir() => String::new(),
            Err(_) => fs::read(&path).map_or_else(|e| e.to_string(), |b| b.escape_ascii().to_string()),
        };
        all.push_str(&format!("{}: {content}\n", path.display()));
        let counts = path.ends_with("statistics") || path.ends_with("fabric_statistics");
        if kind.is_dir() && !counts {
            dump(&path, all);
        }
    }
}
