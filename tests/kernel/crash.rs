//! The agent killed between any two steps of a plan, on the real machine: a process of its own carries the plan out and
//! kills itself with SIGKILL right before a step; the next one starts from what it finds.

use std::{env, fs, os::unix::process::ExitStatusExt, process::Command};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sheath::{
    host::Host,
    model::{Bytes, ImageId},
    plan::{Changed, Step},
    policy::BladeWish,
};

use crate::{
    adopt,
    blade::{Blade, MIB, ROOT, said},
    guest::{Disk, alone},
    hand::HandMade,
    lvm::{VG, image_in, pool, sh},
    plans::{Subjects, word},
};

const IMAGE: &str = "crash";
/// Which wish the child carries out, and before which step it kills itself.
const ORDER: &str = "SHEATH_CRASH";

fn subjects() -> Subjects {
    Subjects::new(VG, &IMAGE.parse::<ImageId>().unwrap(), 1)
}

fn wish_of(subjects: &Subjects, work: &str) -> BladeWish {
    match work {
        "create" => subjects.granted(),
        "release" => subjects.released(),
        "adopt" => subjects.adopting(adopt::given()),
        other => panic!("no such work: {other}"),
    }
}

#[test]
#[ignore = "a process of the test below, which starts it and sees it killed"]
fn child_carries_out_a_plan_until_it_is_killed() {
    let Ok(order) = env::var(ORDER) else { return };
    let (work, victim) = order.split_once(':').unwrap();
    let subjects = if work == "adopt" { adopt::subjects() } else { subjects() };
    let report = subjects.carry_out(wish_of(&subjects, work), |step| {
        if word(step) == victim {
            kill(Pid::this(), Signal::SIGKILL).unwrap();
        }
    });
    assert!(report.failure.is_none(), "{}", report.failure.unwrap());
}

/// Runs the child; it has to be killed before the step `victim`, or to come to its end without one.
fn child(work: &str, victim: Option<&str>) {
    let order = format!("{work}:{}", victim.unwrap_or("none"));
    let name = "crash::child_carries_out_a_plan_until_it_is_killed";
    let output = Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", name])
        .env(ORDER, &order)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    match victim {
        Some(_) => assert_eq!(output.status.signal(), Some(9), "{order}: {said}"),
        None => assert!(output.status.success() && said.contains("1 passed"), "{order}: {said}"),
    }
}

/// Returns everything that could be left over or touched: LIO's objects, volumes, devices, what udev was told.
fn census() -> String {
    sh(&format!(
        "udevadm settle; cd {ROOT}
         find core iscsi -mindepth 1 -maxdepth 2 | sort; find iscsi -path '*/acls/*' -prune | sort
         lvs --noheadings --separator ' ' -o lv_name,lv_tags,lv_size {VG} | sort; dmsetup ls | sort
         find /run/sheath/udev /dev/sheath ! -type d 2> /dev/null | sort"
    ))
}

/// Kills the plan before each of its steps in turn, then lets it end.
///
/// After each kill the rest must be what the whole plan had from there; only what cannot be read back (partitions and
/// seed of a half-made volume) may be said again.
pub(crate) fn kill_before_every_step(subjects: &Subjects, work: &str) -> Vec<String> {
    let wish = wish_of(subjects, work);
    let rest = || subjects.steps(&wish).iter().map(word).collect::<Vec<_>>();
    let whole = rest();
    for (done, victim) in whole.iter().enumerate() {
        child(work, Some(victim));
        let repeated =
            |word: &&String| matches!(word.as_str(), "partition" | "seed") || undone_by_itself(word);
        let again: Vec<_> =
            rest().into_iter().filter(|word| !repeated(&word) || whole[done..].contains(word)).collect();
        assert_eq!(again, whole[done..], "{work} killed before '{victim}'");
        assert_no_half_made_target_is_enabled(subjects, &wish);
    }
    child(work, None);
    whole
}

/// Steps that look for themselves whether there is anything to do.
fn undone_by_itself(word: &str) -> bool {
    matches!(word, "remove-backstore" | "announce" | "remove-foreign")
}

fn assert_no_half_made_target_is_enabled(subjects: &Subjects, wish: &BladeWish) {
    let found = said(subjects.host.export(&wish.target, subjects.volume));
    let Some(target) = found.target.filter(|target| target.enabled) else { return };
    assert!(target.profile && target.lun.is_some() && target.acls.len() == 1, "{target:?}");
}

#[test]
#[ignore = "needs root, LIO and LVM in a guest: the lab runs it there"]
fn vm_killed_between_any_two_steps_a_plan_converges_and_leaks_nothing() {
    let _alone = alone();
    let image = image_in(pool(), IMAGE, Bytes::mib(16), 1);
    let (subjects, disk) = (subjects(), Disk::new("foreign-crash", 16 * MIB));
    let chap = Blade::on(40, disk.path()).credentials();
    let foreign = HandMade::new("theirs", disk.path(), 3441, &["iqn.1993-08.org.debian:01:abc"], &chap);
    sh(&format!("lvcreate -y -V 16m --thinpool pool -n foreign {VG}"));
    let (before, theirs) = (census(), foreign.dump());

    let made = kill_before_every_step(&subjects, "create");
    assert_eq!(made.len(), 12, "{made:?}");
    assert_eq!(subjects.steps(&subjects.served()), [], "converged: nothing is left to do");
    let after = census();
    let new: Vec<_> = after.lines().filter(|line| !before.contains(line.trim())).collect();
    let marks = [&*subjects.volume.to_string(), &hba(&subjects), "b-525400770001", "slot-1"];
    let ours = |line: &&str| marks.iter().any(|mark| line.contains(mark));
    assert!(new.iter().all(ours), "not of this disk: {new:#?}");

    let removed = kill_before_every_step(&subjects, "release");
    assert_eq!(removed.len(), 6, "{removed:?}");
    assert_eq!(census(), before);
    let again = subjects.carry_out(subjects.released(), |_| ());
    assert!(again.failure.is_none() && again.changed() == 0, "{:?}", again.steps);
    assert_eq!(foreign.dump(), theirs);
    sh(&format!("lvremove -y {VG}/foreign"));
    said(pool().remove_image(&image));
}

fn hba(subjects: &Subjects) -> String {
    format!("iblock_{}", subjects.volume.hba())
}

#[test]
#[ignore = "needs root and LIO in a guest: the lab runs it there"]
fn vm_a_removal_killed_between_two_system_calls_is_completed() {
    let _alone = alone();
    let blade = Blade::new(41);
    let wish = BladeWish {
        blade: "52:54:00:77:00:29".parse().unwrap(),
        target: blade.target.clone(),
        disk: None,
        releases: vec![blade.backstore.volume],
        running: false,
        interrupt: false,
    };
    let calls = removal(&blade);
    for killed in 0..=calls.len() {
        blade.make();
        for (call, path) in &calls[..killed] {
            call(path).unwrap_or_else(|e| panic!("{path}: {e}"));
        }
        let plan = sheath::plan::blade(&wish, &Default::default(), &blade.export()).unwrap();
        let _: Vec<_> = plan.steps.iter().map(|step| said(step_of(&blade, step))).collect();
        assert_eq!(blade.export(), Default::default(), "killed after {killed} calls");
        assert!(!fs::exists(format!("{ROOT}/core/iblock_{}", blade.backstore.hba())).unwrap(), "{killed}");
    }
}

type Call = fn(&str) -> std::io::Result<()>;

/// The system calls of a removal, in the order in which our verbs make them.
fn removal(blade: &Blade) -> Vec<(Call, String)> {
    let (unlink, rmdir): (Call, Call) = (|path| fs::remove_file(path), |path| fs::remove_dir(path));
    let acl = blade.tpg(&format!("acls/{}", blade.initiator));
    let hba = format!("{ROOT}/core/iblock_{}", blade.backstore.hba());
    vec![
        (|path| fs::write(path, "0"), blade.tpg("enable")),
        (unlink, format!("{acl}/lun_0/lun")),
        (rmdir, format!("{acl}/lun_0")),
        (rmdir, acl),
        (unlink, blade.tpg("lun/lun_0/dev")),
        (rmdir, blade.tpg("lun/lun_0")),
        (rmdir, blade.tpg(&format!("np/{}", blade.portal))),
        (rmdir, blade.tpg("")),
        (rmdir, format!("{ROOT}/iscsi/{}", blade.target)),
        (rmdir, format!("{hba}/{}", blade.backstore.name())),
        (rmdir, hba),
    ]
}

/// Runs a step of a removal; the volume is no LVM's here, and udev was told nothing of it.
fn step_of(blade: &Blade, step: &Step) -> sheath::error::Result<Changed> {
    match step {
        Step::Disable { target } => blade.lio.disable(target),
        Step::RemoveAcl { target, initiator } => blade.lio.remove_acl(target, initiator),
        Step::RemoveTarget { target } => blade.lio.remove_target(target),
        Step::RemoveBackstore { volume } => blade.lio.remove_backstore(*volume),
        Step::Announce { .. } => Ok(Changed::AlreadyTrue),
        other => panic!("no step of a removal: {other}"),
    }
}
