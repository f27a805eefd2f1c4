//! Sample nouns for the unit tests of every room: one configuration, small numbered blades and slots.

use crate::{
    config::{
        BladePolicy, Chassis, Config, Dhcp, Drift, MenuDefault, Policy, PolicySettings, Pool, Restart,
        TargetSettings,
    },
    model::{BladeId, Bytes, Chap, ImageId, Portal, Role, Slot, Volume, VolumeState},
    observed::Volumes,
};

/// Returns the nth blade.
pub(crate) fn blade_id(n: u8) -> BladeId {
    BladeId(format!("52:54:00:00:00:{n:02x}").parse().unwrap())
}

/// Returns the nth slot.
pub(crate) fn slot(n: u16) -> Slot {
    n.to_string().parse().unwrap()
}

/// Returns the image that all samples are made of.
pub(crate) fn image() -> ImageId {
    "debian13".parse().unwrap()
}

/// Returns a configuration with four slots, `port1` to `port4`, that prompts.
pub(crate) fn config() -> Config {
    let policy = BladePolicy {
        policy: Policy::Prompt,
        restart: Restart::Reboot,
        menu_timeout: 30,
        menu_default: MenuDefault::Wait,
        menu_capture: None,
        key_timeout: 2,
        disk: Default::default(),
        hostname: None,
    };
    Config {
        chassis: Chassis {
            bridge: "sheath0".parse().unwrap(),
            address: ("10.77.0.1".parse().unwrap(), 24),
            manage: true,
            isolate: true,
            slots: (1..=4).map(|n| (slot(n), format!("port{n}").parse().unwrap())).collect(),
        },
        pool: Pool { vg: "sheath".parse().unwrap(), thinpool: "pool".parse().unwrap(), watermark: 90 },
        dhcp: Dhcp { range: ("10.77.0.100".parse().unwrap(), "10.77.0.200".parse().unwrap()), lease: 43200 },
        target: TargetSettings {
            iqn_prefix: "iqn.2026-11.org.example".parse().unwrap(),
            chap: Chap::OneWay,
            portal: Portal("10.77.0.1:3260".parse().unwrap()),
            ports: 2,
            drift: Drift::Repair,
        },
        policy: PolicySettings { default: policy, slots: Default::default(), blades: Default::default() },
        images: Default::default(),
    }
}

/// Returns a pool with the published image of 2 GiB and nothing else.
pub(crate) fn volumes() -> Volumes {
    let golden = Volume {
        lv: image().lv_name(),
        role: Role::Image { image: image(), published: true, pinned: false, mbr: false },
        state: VolumeState::Ready,
        size: Bytes::gib(2),
        device: "/dev/sheath/sheath-img-debian13".into(),
        active: true,
        writable: false,
        used_percent: Some(40.0),
    };
    let mut all = Volumes::default();
    all.pool.size = Bytes::gib(100);
    all.volumes.insert(golden.lv.clone(), golden);
    all
}
