//! Other machines' disks: told once when they come and when they go, and never where they are the appliance's own.

use super::*;
use crate::{model::Bytes, observed::Donor};

fn donor(name: &str) -> Donor {
    Donor {
        device: format!("/dev/{name}").into(),
        size: Bytes::gib(8),
        model: Some("Donor\u{1b}SSD".into()),
        serial: None,
        content: vec![],
        users: vec![],
        sector: Bytes(512),
    }
}

impl Bench {
    /// Lets udev tell of the disks, and some time pass.
    fn udev(&mut self, events: &[(&str, bool)], donors: &[&str]) {
        let donors = donors.iter().map(|name| donor(name)).collect();
        self.host.meddle(|machine| machine.donors = donors);
        for (name, present) in events {
            self.watch(WatchEvent::Disk { name: (*name).to_owned(), present: *present });
        }
        self.pass();
    }

    fn pass(&mut self) {
        for _ in 0..3 {
            *locked(&self.clock) += 1_000;
            self.core.handle(Event::Tick);
            self.settle();
        }
    }

    /// Returns what was told of disks.
    fn disks_told(&self) -> Vec<String> {
        let (recent, _) = self.core.journal.subscription().subscribe();
        recent.into_iter().filter(|event| event.kind == "donor").map(|event| event.text).collect()
    }
}

const CAME: &str = "disk '/dev/sdc' (8.0 GiB, Donor\\u{1b}SSD) came, which may be a donor's: sheath donors";
const GONE: &str = "disk '/dev/sdc' (8.0 GiB, Donor\\u{1b}SSD) is gone";

#[test]
fn a_disk_that_is_plugged_in_is_told_once_and_once_when_it_goes() {
    let mut bench = Bench::new(sample::config());
    bench.udev(&[], &["sdb"]);
    assert!(bench.disks_told().is_empty(), "it was there before");
    bench.udev(&[("sdc", true)], &["sdb", "sdc"]);
    assert_eq!(bench.disks_told(), [CAME]);
    // A coldplug tells of what is there; a look without an event tells nothing.
    bench.udev(&[("sdb", true), ("sdc", true)], &["sdb", "sdc"]);
    bench.pass();
    assert_eq!(bench.disks_told().len(), 1);
    bench.udev(&[("sdc", false)], &["sdb"]);
    assert_eq!(bench.disks_told(), [CAME, GONE]);
    // Out and in again before anybody has looked: another disk, maybe.
    bench.udev(&[("sdc", true)], &["sdb", "sdc"]);
    bench.udev(&[("sdc", false), ("sdc", true)], &["sdb", "sdc"]);
    assert_eq!(bench.disks_told()[2..], [CAME, GONE, CAME]);
}

#[test]
fn the_appliances_own_disks_are_never_told_nor_one_that_becomes_its_own() {
    let mut bench = Bench::new(sample::config());
    bench.udev(&[], &["sdc"]);
    // The pool's disk comes late: the host does not call it a donor's.
    bench.udev(&[("sdb", true)], &["sdc"]);
    // The pool grows onto a disk; udev tells of another one.
    bench.udev(&[("sdd", false)], &[]);
    assert!(bench.disks_told().is_empty(), "{:?}", bench.disks_told());
}

#[test]
fn what_went_while_events_were_lost_is_told_too() {
    let mut bench = Bench::new(sample::config());
    bench.udev(&[], &["sdc"]);
    bench.host.meddle(|machine| machine.donors.clear());
    bench.watch(WatchEvent::DevicesLost);
    bench.pass();
    assert_eq!(bench.disks_told(), [GONE]);
}
