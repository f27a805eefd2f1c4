//! The appliance guest as tests use it: restored, told what to do, its cables and NICs moved.
//! Needs the lab's packages (`deps.sh lab`) and, the first time, some minutes to fill the cache.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use serde_json::json;
use sheath_lab::{Accel, Appliance, Lab, Payload, port_mac, secs, until};

/// The carrier of a slot's port, as its kernel sees it.
fn carrier(appliance: &mut Appliance, slot: u8) -> String {
    let read = format!("ip link set slot{slot} up; sleep 0.3; cat /sys/class/net/slot{slot}/carrier");
    appliance.ok(&read).unwrap().trim().to_owned()
}

#[test]
fn vm_a_restored_appliance_does_what_a_test_needs() {
    let lab = Lab::new("appliance").unwrap();
    let payload = Payload::new().file("cargo.toml", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    let mut appliance = Appliance::booted(&lab, &payload).unwrap();

    assert!(appliance.ok("cat /payload/cargo.toml").unwrap().contains("sheath-lab"), "the payload is there");
    let failed = appliance.run("echo out; echo err >&2; exit 7").unwrap();
    assert_eq!((failed.code, &*failed.stdout, &*failed.stderr), (7, "out\n", "err\n"));
    let year: i32 = appliance.ok("date +%s").unwrap().trim().parse().unwrap();
    let host = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!((i64::from(year) - i64::try_from(host).unwrap()).abs() < 30, "the clock is the host's");
    assert_eq!(appliance.ok("systemctl --failed --no-legend | wc -l").unwrap().trim(), "0");

    cables_and_nics(&mut appliance);
    appliance.push("/run/big", &[b'x'; 200_000]).unwrap();
    assert_eq!(appliance.ok("stat -c %s /run/big").unwrap().trim(), "200000");
}

#[test]
fn vm_an_appliance_that_its_emulator_loses_is_told_as_lost() {
    let lab = Lab::new("lost").unwrap().with_guests();
    if lab.accel() != Accel::Tcg {
        return;
    }
    let mut appliance = Appliance::booted(&lab, &Payload::new()).unwrap();
    assert_eq!(appliance.ok("nproc").unwrap().trim(), "1");
    assert_eq!(appliance.lost(), None);
    // Not as a guest does it: its kernel says nothing of that.
    appliance.qmp().execute("system_reset", json!({})).unwrap();
    let lost = until("the firmware's greeting", secs(60), || appliance.lost()).unwrap();
    assert!(lost.contains("began anew"), "{lost}");
    appliance.qmp().execute("quit", json!({})).unwrap();
    until("QEMU's end", secs(60), || appliance.lost().filter(|lost| lost.contains("has ended"))).unwrap();
}

fn cables_and_nics(appliance: &mut Appliance) {
    assert_eq!(carrier(appliance, 2), "0", "a slot is empty until its cable is in");
    appliance.plug(2).unwrap();
    assert_eq!(carrier(appliance, 2), "1");
    appliance.unplug(2).unwrap();
    assert_eq!(carrier(appliance, 2), "0");

    appliance.add_nic(5).unwrap();
    let address = || appliance.run("cat /sys/class/net/slot5/address").ok().filter(|output| output.code == 0);
    let seen = until("slot5", secs(30), address).unwrap();
    assert_eq!(seen.stdout.trim(), port_mac(5));
    appliance.remove_nic(5).unwrap();
    let gone = || appliance.run("test -e /sys/class/net/slot5").ok().filter(|output| output.code != 0);
    until("slot5's end", secs(30), gone).unwrap();
}
