//! A target that somebody made by hand becomes a blade's disk: the data stay, and a kill between any two steps is made good.

use std::{fs, mem, path::Path};

use sheath::{
    error::Kind,
    host::Host,
    model::{Credentials, ForeignExport, Iqn, Portal},
    observed::ObservedForeign,
    plan::{self, Changed, Step},
};

use crate::{
    blade::{Blade, MIB, ROOT, said},
    crash::kill_before_every_step,
    guest::{Disk, alone},
    hand::HandMade,
    initiator::{Initiator, Login},
    lvm::{VG, pool, sh},
    plans::Subjects,
};

/// The number of the blade of these tests, which its portal follows from.
const NUMBER: u8 = 2;
/// The name that the machine has logged in with until now.
const OLD: &str = "iqn.1993-08.org.debian:01:old";
const WORDS: &str = "what the machine has always had on its disk";

pub(crate) fn subjects() -> Subjects {
    Subjects::new(VG, &"adopted".parse().unwrap(), NUMBER)
}

/// Makes a thin volume of the pool with some data on it, and a target by hand that serves it.
fn theirs(name: &str, port: u16) -> HandMade {
    pool();
    let device = format!("/dev/{VG}/{name}");
    sh(&format!("lvcreate -y -V 16m --thinpool pool -n {name} {VG} && udevadm settle"));
    sh(&format!("echo '{WORDS}' | dd of={device} bs=512 seek=8 conv=sync,fsync status=none"));
    HandMade::new(name, Path::new(&device), port, &[OLD], &credentials())
}

/// Where the test below says what is given, for the processes that it kills.
const GIVEN: &str = "/run/adopt.json";

/// Returns what was given to us.
pub(crate) fn given() -> ForeignExport {
    serde_json::from_slice(&fs::read(GIVEN).unwrap()).unwrap()
}

fn found(subjects: &Subjects, hand: &HandMade) -> ForeignExport {
    said(plan::adopt(&look(subjects, hand)))
}

fn look(subjects: &Subjects, hand: &HandMade) -> ObservedForeign {
    said(subjects.host.foreign(&name(hand)))
}

fn log_in_to_ours(subjects: &Subjects) -> Login {
    let export = subjects.served().disk.unwrap().export;
    let with = subjects.host.credentials(export.backstore.volume, export.chap);
    let initiator = Initiator::new("adopted", export.initiator.as_str());
    initiator.login(&export.target, export.portals[0], &with).unwrap()
}

fn log_in_to_theirs(hand: &HandMade) -> Login {
    let portal = Portal(hand.portal().parse().unwrap());
    Initiator::new("theirs", OLD).login(&name(hand), portal, &credentials()).unwrap()
}

fn credentials() -> Credentials {
    Blade::on(60, Path::new("/dev/null")).credentials()
}

fn name(hand: &HandMade) -> Iqn {
    hand.target().parse().unwrap()
}

#[test]
#[ignore = "needs root, LIO and LVM in a guest: the lab runs it there"]
fn vm_a_hand_made_target_is_taken_over_with_its_data_and_killed_anywhere_it_goes_on() {
    let _alone = alone();
    let (other, disk) = (theirs("stays", 3462), Disk::new("foreign-adopt", 16 * MIB));
    let elsewhere = HandMade::new("elsewhere", disk.path(), 3463, &[OLD], &credentials());
    let untouched = (other.dump(), elsewhere.dump());
    let (subjects, hand) = (subjects(), theirs("disk7", 3461));
    fs::write(GIVEN, serde_json::to_vec(&found(&subjects, &hand)).unwrap()).unwrap();
    // From here on it is not this test's to remove.
    mem::forget(hand);

    let done = kill_before_every_step(&subjects, "adopt");
    assert_eq!(done[..2], ["remove-foreign", "take-over"], "{done:?}");
    assert_eq!(subjects.steps(&subjects.served()), [], "converged: nothing is left to do");
    assert_eq!((other.dump(), elsewhere.dump()), untouched);
    assert!(!fs::exists(format!("{ROOT}/core/iblock_3461")).unwrap());
    assert_eq!(sh(&format!("lvs --noheadings -o lv_name {VG} | grep -cw disk7")).trim(), "0");

    let login = log_in_to_ours(&subjects);
    let read = sh(&format!("dd if=/dev/{} bs=512 skip=8 count=1 status=none | tr -d '\\0'", login.disk()));
    assert_eq!(read.trim(), WORDS);
    drop(login);
    let gone = subjects.carry_out(subjects.released(), |_| ());
    assert!(gone.failure.is_none(), "{}", gone.failure.unwrap());
    drop(other);
    sh(&format!("lvremove -y {VG}/stays"));
}

#[test]
#[ignore = "needs root, LIO and LVM in a guest: the lab runs it there"]
fn vm_what_is_no_blades_disk_is_refused_and_stays_as_it_is() {
    let _alone = alone();
    let (subjects, disk) = (subjects(), Disk::new("no-volume", 16 * MIB));
    let on_a_disk = HandMade::new("disk", disk.path(), 3464, &[OLD], &credentials());
    let refused = plan::adopt(&look(&subjects, &on_a_disk)).unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid, "{}", refused.chain());
    assert!(refused.chain().contains("sheath image import"), "{}", refused.chain());

    let hand = theirs("busy", 3465);
    let from = found(&subjects, &hand);
    let before = hand.dump();
    let login = log_in_to_theirs(&hand);
    let refused = plan::adopt(&look(&subjects, &hand)).unwrap_err();
    assert_eq!(refused.kind(), Kind::Busy, "{}", refused.chain());
    // Somebody logs in between the look and the step.
    let step = Step::RemoveForeign { from: from.clone() };
    assert_eq!(subjects.host.run(&step).unwrap_err().kind(), Kind::Busy);
    drop(login);
    let another = ForeignExport { device: "/dev/another".into(), ..from.clone() };
    assert_eq!(subjects.host.run(&Step::RemoveForeign { from: another }).unwrap_err().kind(), Kind::Exists);
    assert_eq!(hand.dump(), before);
    // From here on it is not this test's to remove.
    mem::forget(hand);
    assert_eq!(said(subjects.host.run(&step)), Changed::Changed);
    assert_eq!(said(subjects.host.run(&step)), Changed::AlreadyTrue);
    sh(&format!("lvremove -y {VG}/busy"));
}
