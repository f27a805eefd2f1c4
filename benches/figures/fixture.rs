//! N blades that have their disks: null_blk devices under the names of LVM's, the volumes as a report would tell them,
//! and a configuration. Everything follows from the blade's number.

use std::{
    collections::BTreeMap, fmt::Write as _, fs, net::Ipv4Addr, os::unix::fs::symlink, path::Path,
    process::Command,
};

use sheath::{
    config::{self, Config},
    host::keys::MasterKey,
    model::{BladeId, Bytes, ImageId, Role, Slot, Volume, VolumeId, VolumeState},
    observed::Volumes,
    policy::{self, BladeWish, DiskWish},
    roster::{Blade, Disk},
};

/// The folder of the stand-ins for a volume group's devices.
const GROUP: &str = "/dev/bench";
/// Slots of a chassis: the most that the model allows. The blades above it share the last one.
const SLOTS: usize = 999;

/// The blades and the machine that serves them.
pub(crate) struct Fixture {
    pub(crate) config: Config,
    pub(crate) volumes: Volumes,
    pub(crate) blades: usize,
}

impl Fixture {
    /// Returns the fixture of this many blades. Looks at nothing: its system calls would be counted.
    pub(crate) fn new(blades: usize) -> Self {
        let mut volumes = Volumes::default();
        volumes.pool.size = Bytes::gib(1000);
        for n in 0..blades {
            let volume = volume_of(n);
            volumes.volumes.insert(volume.lv.clone(), volume);
        }
        let config =
            config::parse("bench.toml", &configuration()).unwrap_or_else(|faults| panic!("{faults:?}"));
        Self { config, volumes, blades }
    }

    /// Returns what should exist for the nth blade.
    pub(crate) fn wish(&self, n: usize) -> BladeWish {
        let mut blade = Blade::new(slot(n));
        blade.disk = Some(Disk { volume: volume_id(n), image: image(), slot: slot(n) });
        policy::wish(&self.config, blade_id(n), &blade).unwrap()
    }

    /// Returns the disks that should be served, in the blades' order.
    pub(crate) fn disks(&self) -> Vec<DiskWish> {
        (0..self.blades).map(|n| self.wish(n).disk.expect("each blade has a disk")).collect()
    }

    /// Returns what udev was told of each volume: it is not measured, so all of it is true already.
    pub(crate) fn announced(&self) -> BTreeMap<VolumeId, BTreeMap<String, String>> {
        self.disks().into_iter().map(|disk| (disk.export.backstore.volume, disk.properties)).collect()
    }
}

/// Makes the guest ready: LIO's modules, its own address, and `devices` devices that can discard, as thin volumes can,
/// under the names of volumes.
pub(crate) fn prepare(devices: usize) {
    for folder in ["/etc/target/pr", "/etc/target/alua"] {
        fs::create_dir_all(folder).unwrap();
    }
    run("modprobe", &["-a", "target_core_mod", "target_core_iblock", "iscsi_target_mod"]);
    let number = format!("nr_devices={devices}");
    // queue_mode 0: no queue and no thread per device; discard needs memory, which is taken page by page when written.
    run("modprobe", &["null_blk", &number, "queue_mode=0", "gb=1", "bs=512", "memory_backed=1", "discard=1"]);
    run("udevadm", &["settle"]);
    fs::create_dir_all(GROUP).unwrap();
    for n in 0..devices {
        let _ = fs::remove_file(volume_of(n).device);
        symlink(format!("/dev/nullb{n}"), volume_of(n).device).unwrap();
    }
    let address = format!("{}/16", appliance());
    let _ = Command::new("ip").args(["address", "add", &address, "dev", "lo"]).output();
    run("ip", &["link", "set", "lo", "up"]);
}

/// Runs a tool that must succeed, and returns what it says.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {}: {words}", args.join(" "), output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Returns the appliance's address.
fn appliance() -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 1)
}

/// Returns the nth blade's address.
pub(crate) fn address(n: usize) -> Ipv4Addr {
    let [high, low] = number(n + 256).to_be_bytes();
    Ipv4Addr::new(10, 77, high, low)
}

/// Returns the nth blade.
pub(crate) fn blade_id(n: usize) -> BladeId {
    let [high, low] = number(n).to_be_bytes();
    BladeId(format!("52:54:00:00:{high:02x}:{low:02x}").parse().unwrap())
}

/// Returns the nth blade's slot.
pub(crate) fn slot(n: usize) -> Slot {
    (n + 1).min(SLOTS).to_string().parse().unwrap()
}

/// Returns the nth blade's volume: an id whose digits look as random as real ones.
pub(crate) fn volume_id(n: usize) -> VolumeId {
    let odd = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835_u128;
    VolumeId((u128::from(number(n)) + 1).wrapping_mul(odd))
}

fn number(n: usize) -> u16 {
    u16::try_from(n).expect("a bench has some thousand blades at most")
}

fn image() -> ImageId {
    "debian13".parse().unwrap()
}

fn volume_of(n: usize) -> Volume {
    let id = volume_id(n);
    Volume {
        lv: id.lv_name(),
        role: Role::Disk { id, image: image(), blade: blade_id(n), slot: slot(n) },
        state: VolumeState::Ready,
        size: Bytes::gib(1),
        device: Path::new(GROUP).join(id.lv_name().as_str()),
        active: true,
        writable: true,
        used_percent: Some(1.0),
    }
}

/// Returns the credentials' key; any will do.
pub(crate) fn keys() -> MasterKey {
    MasterKey::from_bytes([7; 32])
}

fn configuration() -> String {
    let mut text = format!("[chassis]\naddress = \"{}/16\"\nmanage = false\n[chassis.slots]\n", appliance());
    (1..=SLOTS).for_each(|n| writeln!(text, "{n} = \"port{n}\"").unwrap());
    text + "[pool]\nvg = \"bench\"\n"
}
