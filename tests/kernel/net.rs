//! The chassis network, its watch, and udev's rules, on a stock kernel with a udevd of its own.
//!
//! Bridges and cables have names of their own for each test; the volume group is on a loop device.

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path, time::Duration};

use sheath::{
    error::Kind,
    host::{netlink, udev::Udev},
    model::{ImageId, Mac, PortName, VolumeId},
    observed::ObservedPort,
    plan::Changed,
    watch::{self, WatchEvent},
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::guest;

/// A blade is seen within this time of its first frame.
const SEEN: Duration = Duration::from_secs(1);

/// udevd, on a slow machine.
const SETTLED: Duration = Duration::from_secs(20);

const ADDRESS: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 99, 0, 1), 24);

/// Runs a line of shell, a hand from outside, and returns what it said.
fn sh(line: &str) -> String {
    let output = std::process::Command::new("/bin/bash").args(["-ec", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn name(text: &str) -> PortName {
    text.parse().unwrap()
}

/// Lays a cable from `port` to a new blade, a network namespace of the same name as the port.
fn plug(port: &str, mac: Mac) {
    sh(&format!(
        "ip netns add {port}; ip link add {port} type veth peer name eth0 netns {port} address {mac}"
    ));
}

/// Lets the blade send its first frames.
fn wake(port: &str, host: u8) {
    sh(&format!("ip -n {port} addr add 10.99.0.{host}/24 dev eth0; ip -n {port} link set eth0 up"));
    sh(&format!("ip netns exec {port} bash -c 'echo > /dev/udp/10.99.0.1/9'"));
}

fn run(body: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(body);
}

async fn until(
    told: &mut UnboundedReceiver<WatchEvent>,
    time: Duration,
    wanted: impl Fn(&WatchEvent) -> bool,
) {
    let search = async { while !wanted(&told.recv().await.expect("the watch runs")) {} };
    tokio::time::timeout(time, search).await.expect("told in time");
}

#[test]
#[ignore = "needs root and bridges in a guest: the lab runs it there"]
fn vm_ports_of_the_bridge_are_isolated_from_each_other() {
    let _alone = guest::alone();
    let bridge = name("shbr1");
    assert_eq!(netlink::port(&name("sh1a"), &bridge, true).unwrap_err().kind(), Kind::Missing);
    assert_eq!(netlink::bridge(&bridge, ADDRESS).unwrap(), Changed::Changed);
    assert_eq!(netlink::bridge(&bridge, ADDRESS).unwrap(), Changed::AlreadyTrue);
    let ports = [name("sh1a"), name("sh1b")];
    for (host, port) in (2..).zip(&ports) {
        plug(port.as_str(), Mac::from_bytes(&[2, 0, 0, 0, 1, host]).unwrap());
        assert_eq!(netlink::port(port, &bridge, true).unwrap(), Changed::Changed);
        assert_eq!(netlink::port(port, &bridge, true).unwrap(), Changed::AlreadyTrue);
        wake(port.as_str(), host);
    }
    let seen = netlink::observe_chassis(&bridge, &ports).unwrap();
    let expected = ObservedPort { up: true, carrier: true, master: Some(bridge.clone()), isolated: true };
    assert!(seen.bridge_up && seen.addresses.contains(&ADDRESS), "{seen:?}");
    assert!(seen.ports.len() == 2 && seen.ports.values().all(|port| *port == expected), "{seen:?}");
    // What the kernel makes of it: one blade's question for the other's address stays without an answer.
    let asks =
        "ip netns exec sh1a bash -c 'echo > /dev/udp/10.99.0.3/9'; sleep 1; ip -n sh1a neigh show 10.99.0.3";
    assert!(!sh(asks).contains("02:00:00:00:01:03"));
    for port in &ports {
        netlink::port(port, &bridge, false).unwrap();
    }
    sh("ip -n sh1a neigh flush all");
    assert!(sh(asks).contains("02:00:00:00:01:03"), "not isolated, they see each other");
    sh("ip link del shbr1; ip netns del sh1a; ip netns del sh1b");
}

#[test]
#[ignore = "needs root and bridges in a guest: the lab runs it there"]
fn vm_a_blade_is_seen_within_a_second_of_its_first_frame() {
    let _alone = guest::alone();
    let (bridge, port, mac) = (name("shbr2"), name("sh2a"), Mac::from_bytes(&[2, 0, 0, 0, 2, 2]).unwrap());
    netlink::bridge(&bridge, ADDRESS).unwrap();
    plug("sh2a", mac);
    netlink::port(&port, &bridge, true).unwrap();
    run(async {
        let (events, mut told) = unbounded_channel();
        let _watch = tokio::spawn(watch::netlink::run(bridge, events));
        until(&mut told, SETTLED, |event| matches!(event, WatchEvent::Resync(_))).await;
        wake("sh2a", 2);
        let seen = WatchEvent::Fdb { mac, port: port.clone(), present: true };
        until(&mut told, SEEN, |event| *event == seen).await;
        let answered = WatchEvent::Neigh { ip: Ipv4Addr::new(10, 99, 0, 2), mac };
        until(&mut told, SEEN, |event| *event == answered).await;
        sh("ip -n sh2a link set eth0 down");
        let drawn =
            |e: &WatchEvent| matches!(e, WatchEvent::Link { name, link } if *name == port && !link.carrier);
        until(&mut told, SEEN, drawn).await;
    });
    sh("ip link del shbr2; ip netns del sh2a");
}

#[test]
#[ignore = "needs root and bridges in a guest: the lab runs it there"]
fn vm_a_flood_that_overruns_the_socket_ends_in_the_whole_truth() {
    let _alone = guest::alone();
    const FLOOD: usize = 20_000;
    let bridge = name("shbr3");
    netlink::bridge(&bridge, (Ipv4Addr::new(10, 98, 0, 1), 24)).unwrap();
    plug("sh3a", Mac::from_bytes(&[2, 0, 0, 0, 3, 2]).unwrap());
    netlink::port(&name("sh3a"), &bridge, true).unwrap();
    let entry = |i| format!("fdb add 02:03:00:00:{:02x}:{:02x} dev sh3a master dynamic\n", i >> 8, i & 255);
    std::fs::write("/run/sheath-flood", (0..FLOOD).map(entry).collect::<String>()).unwrap();
    run(async {
        let (events, mut told) = unbounded_channel();
        let _watch = tokio::spawn(watch::netlink::run(bridge, events));
        until(&mut told, SETTLED, |event| matches!(event, WatchEvent::Resync(_))).await;
        // The shell holds up this thread: nobody reads the socket meanwhile.
        sh("ip -n sh3a link set eth0 up; bridge -batch /run/sheath-flood");
        let whole = |e: &WatchEvent| matches!(e, WatchEvent::Resync(network) if network.fdb.len() >= FLOOD);
        until(&mut told, SETTLED, whole).await;
    });
    sh("ip link del shbr3; ip netns del sh3a; rm /run/sheath-flood");
}

/// Has this guest's udevd use the rules that we ship.
fn install_rules() {
    assert!(Path::new("/run/udev/control").exists(), "udevd runs in the guest");
    std::fs::create_dir_all("/run/udev/rules.d").unwrap();
    for (file, text) in [
        ("57-sheath-volumes.rules", include_str!("../../udev-rules/57-sheath-volumes.rules")),
        ("71-sheath-ports.rules", include_str!("../../udev-rules/71-sheath-ports.rules")),
        ("98-sheath-volumes.rules", include_str!("../../udev-rules/98-sheath-volumes.rules")),
    ] {
        std::fs::write(Path::new("/run/udev/rules.d").join(file), text).unwrap();
    }
    sh("udevadm control --reload; udevadm settle");
}

fn property(device: &str, key: &str) -> String {
    let all = sh(&format!("udevadm settle; udevadm info --query=property --name={device}"));
    let line = all.lines().find_map(|line| line.strip_prefix(&format!("{key}=")));
    line.unwrap_or_default().to_owned()
}

#[test]
#[ignore = "needs root, udevd and LVM in a guest: the lab runs it there"]
fn vm_udev_knows_whose_disk_a_volume_is_and_leaves_it_alone() {
    let _alone = guest::alone();
    install_rules();
    let (volume, image) = (VolumeId(0xb1ade), "debian13@3".parse::<ImageId>().unwrap());
    let (ours, golden) =
        (format!("/dev/shvg/{}", volume.lv_name()), format!("/dev/shvg/{}", image.lv_name()));
    sh("truncate -s 300M /run/shvg.img; vgcreate -q shvg $(losetup --find --show /run/shvg.img)");
    run(async {
        let (events, mut told) = unbounded_channel();
        let _watch = tokio::spawn(watch::udev::run(events));
        tokio::time::sleep(SEEN).await;
        for lv in [volume.lv_name().as_str(), image.lv_name().as_str(), "foreign"] {
            sh(&format!("lvcreate -q -y -L 32M -n {lv} shvg"));
        }
        let there = |event: &WatchEvent| matches!(event, WatchEvent::Volume { lv, present: true } if *lv == volume.lv_name());
        sh(&format!("lvchange -an {ours}; lvchange -ay {ours}"));
        until(&mut told, SETTLED, there).await;
    });
    // A blade's disk holds what the blade wants: here, the same as somebody else's.
    sh(&format!(
        "mkswap -q -U 11111111-2222-3333-4444-555555555555 {ours}
         mkswap -q -U 66666666-7777-8888-9999-000000000000 /dev/shvg/foreign
         for d in $(readlink -f {ours} /dev/shvg/foreign); do udevadm trigger --settle --action=change $d; done"
    ));
    assert_eq!(property("/dev/shvg/foreign", "ID_FS_TYPE"), "swap", "udev probes what is not ours");
    assert!(Path::new("/dev/disk/by-uuid/66666666-7777-8888-9999-000000000000").exists());
    assert_eq!(property(&ours, "ID_FS_TYPE"), "");
    assert!(!Path::new("/dev/disk/by-uuid/11111111-2222-3333-4444-555555555555").exists());
    assert_eq!(property(&ours, "UDISKS_IGNORE"), "1");
    // Device-mapper's own word is back, also after a coldplug.
    for action in ["change", "add"] {
        sh(&format!("udevadm trigger --settle --action={action} $(readlink -f {ours})"));
        assert_ne!(property(&ours, "DM_UDEV_DISABLE_OTHER_RULES_FLAG"), "1", "{action}");
        assert_ne!(property(&ours, "DM_UDEV_DISABLE_DISK_RULES_FLAG"), "1", "{action}");
        assert_ne!(property(&ours, "SYSTEMD_READY"), "0", "{action}");
    }
    announcements(volume, &ours);
    assert_eq!(property(&golden, "SHEATH_IMAGE"), "debian13");
    assert_eq!(property(&golden, "SHEATH_IMAGE_VERSION"), "3");
    assert_eq!(sh("readlink -f /dev/sheath/image-debian13+3"), sh(&format!("readlink -f {golden}")));
    sh("lvrename -q shvg/sheath-img-debian13+3 shvg/sheath-img-debian13");
    assert_eq!(property("/dev/shvg/sheath-img-debian13", "SHEATH_IMAGE"), "debian13");
    assert_eq!(property("/dev/shvg/sheath-img-debian13", "SHEATH_IMAGE_VERSION"), "1");
    assert!(Path::new("/dev/sheath/image-debian13").exists());
    sh(
        "vgremove -q -y shvg; losetup -d $(losetup -n -O NAME -j /run/shvg.img); rm /run/shvg.img; udevadm settle",
    );
    assert!(!Path::new("/dev/sheath/image-debian13").exists());
}

fn announcements(volume: VolumeId, device: &str) {
    let udev = Udev::new("/", "shvg".parse().unwrap());
    let link = Path::new("/dev/sheath/slot-3");
    let pairs = [("SHEATH_BLADE", "b-0200000002b1"), ("SHEATH_IMAGE", "debian13"), ("SHEATH_SLOT", "3")];
    let wanted: BTreeMap<_, _> = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    assert_eq!(udev.announce(volume, &wanted).unwrap(), Changed::Changed);
    for (key, value) in pairs {
        assert_eq!(property(device, key), value);
    }
    assert_eq!(link.canonicalize().unwrap(), Path::new(device).canonicalize().unwrap());
    // udev knows: nothing is asked of it again.
    let before = sh("cat /sys/kernel/uevent_seqnum");
    assert_eq!(udev.announce(volume, &wanted).unwrap(), Changed::AlreadyTrue);
    assert_eq!(sh("cat /sys/kernel/uevent_seqnum"), before);
    assert_eq!(udev.announce(volume, &BTreeMap::new()).unwrap(), Changed::Changed);
    assert_eq!(property(device, "SHEATH_SLOT"), "");
    assert!(!link.exists());
}

#[test]
#[ignore = "needs root and udevd in a guest: the lab runs it there"]
fn vm_a_slot_that_is_plugged_in_is_known_by_its_slot() {
    let _alone = guest::alone();
    install_rules();
    let udev = Udev::new("/", "shvg".parse().unwrap());
    assert_eq!(udev.announce_port(&name("sh4b"), Some("4".parse().unwrap())).unwrap(), Changed::Changed);
    run(async {
        let (events, mut told) = unbounded_channel();
        let _watch = tokio::spawn(watch::udev::run(events));
        tokio::time::sleep(SEEN).await;
        sh("ip link add sh4a type veth peer name sh4c");
        let added = WatchEvent::PortAdded { name: name("sh4a") };
        until(&mut told, SETTLED, |event| *event == added).await;
        sh("udevadm settle; ip link set sh4a name sh4b");
        let renamed = WatchEvent::PortAdded { name: name("sh4b") };
        until(&mut told, SETTLED, |event| *event == renamed).await;
        let properties = sh("udevadm settle; udevadm info --query=property --path=/sys/class/net/sh4b");
        assert!(properties.lines().any(|line| line == "SHEATH_SLOT=4"), "{properties}");
        sh("ip link del sh4b");
        let gone = WatchEvent::PortRemoved { name: name("sh4b") };
        until(&mut told, SETTLED, |event| *event == gone).await;
    });
    udev.announce_port(&name("sh4b"), None).unwrap();
}

/// A disk of memory, which is plugged in and taken out by configfs.
const DONOR: &str = "/sys/kernel/config/nullb/shdonor";

#[test]
#[ignore = "needs root, udevd and null_blk in a guest: the lab runs it there"]
fn vm_a_disk_that_is_plugged_in_is_told_and_listed_as_a_donors() {
    let _alone = guest::alone();
    run(async {
        let (events, mut told) = unbounded_channel();
        let _watch = tokio::spawn(watch::udev::run(events));
        tokio::time::sleep(SEEN).await;
        sh(&format!(
            "mkdir {DONOR}; echo 64 > {DONOR}/size; echo 1 > {DONOR}/memory_backed; echo 1 > {DONOR}/power"
        ));
        // Its folder names it.
        let disk = "shdonor".to_owned();
        let came = WatchEvent::Disk { name: disk.clone(), present: true };
        until(&mut told, SETTLED, |event| *event == came).await;
        let donors = sheath::host::disk::donor::list(&[].into()).unwrap();
        let listed = donors.iter().find(|donor| donor.device == Path::new("/dev").join(&disk));
        assert_eq!(listed.map(|donor| donor.size), Some(sheath::model::Bytes::mib(64)), "{donors:?}");
        sh(&format!("echo 0 > {DONOR}/power; rmdir {DONOR}"));
        let gone = WatchEvent::Disk { name: disk, present: false };
        until(&mut told, SETTLED, |event| *event == gone).await;
    });
}
