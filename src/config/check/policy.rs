//! `[policy]` and the narrower tables below it.
//!
//! Each key that a narrower table leaves out comes from `[policy]` itself: a blade's table does not inherit from its
//! slot's, because a blade may be moved, and what counts for it should be readable in one place.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Spanned, de::DeValue};

use super::{chassis::slot_number, disk::DiskTable, number, parsed};
use crate::{
    config::{
        BladePolicy, DiskKeys, MenuDefault, Policy, PolicySettings, Restart,
        keys::NARROW,
        raw::{Reader, Section},
    },
    model::{Hostname, ImageName, ImageRef, Mac, Slot},
};

/// What counts where not even `[policy]` says anything.
const BUILT_IN: BladePolicy = BladePolicy {
    policy: Policy::Prompt,
    restart: Restart::Reboot,
    menu_timeout: 30,
    menu_default: MenuDefault::Wait,
    menu_capture: None,
    key_timeout: 2,
    disk: DiskKeys { disk_size: None, root: None, swap: None, data: None, reserve: None },
    hostname: None,
};

/// What the tables of `[policy]` say of disks: images' tables come between `[policy]` and the narrower ones.
pub(super) struct PolicyDisks {
    default: DiskKeys,
    narrow: Vec<DiskTable>,
}

impl PolicyDisks {
    /// Keeps a fault for each table that contradicts the image's: the image's own first.
    pub(super) fn check_image(&mut self, reader: &mut Reader<'_>, image: &DiskTable, path: &str) {
        if !image.check_over(reader, self.default, "") {
            return;
        }
        let (wider, of) = (image.keys.over(self.default), format!(" with [{path}]"));
        // One fault of each is enough.
        self.narrow.retain(|table| table.check_over(reader, wider, &of));
    }

    /// The same for images that have no table.
    fn check_others(&mut self, reader: &mut Reader<'_>, default: &DiskTable) {
        if default.check_over(reader, DiskKeys::default(), "") {
            self.narrow.retain(|table| table.check_over(reader, self.default, ""));
        }
    }
}

pub(super) fn policy(
    reader: &mut Reader<'_>,
    top: &Section<'_, '_>,
    known: &BTreeSet<Slot>,
) -> (PolicySettings, PolicyDisks) {
    let section = top.table(reader, "policy", "policy");
    refuse_unknown(reader, &section);
    let mut default = blade_policy(reader, &section, &BUILT_IN);
    let disk = DiskTable::read(reader, &section);
    let mut disks = PolicyDisks { default: disk.keys, narrow: vec![] };
    let slots = section.table(reader, "slot", "policy.slot").tables(reader, NARROW);
    let blades = section.table(reader, "blade", "policy.blade").tables(reader, NARROW);
    let slots = narrower(reader, slots, (&default, &mut disks), |reader, name, path| {
        let slot = slot_number(reader, name, path)?;
        if !known.contains(&slot) {
            let all: Vec<_> = known.iter().map(Slot::to_string).collect();
            let expected = format!("a slot of [chassis.slots] ({})", all.join(", "));
            reader.fault(name.span(), path, &expected, &slot.to_string());
        }
        Some(slot)
    });
    let blades = narrower(reader, blades, (&default, &mut disks), |reader, name, path| {
        let mac: Option<Mac> = name.get_ref().parse().ok();
        if mac.is_none() {
            let found = reader.written(name.span());
            reader.fault(name.span(), path, "a unicast MAC address as the key", &found);
        }
        mac
    });
    default.disk = disk.keys;
    disks.check_others(reader, &disk);
    (PolicySettings { default, slots, blades }, disks)
}

/// A host name in `[policy]` would be every blade's: that slip deserves better words than "unknown".
fn refuse_unknown(reader: &mut Reader<'_>, section: &Section<'_, '_>) {
    let hostname = section.entries().into_iter().find(|(name, _)| name.get_ref() == "hostname");
    match hostname {
        Some((name, _)) => {
            let expected = "a host name in [policy.slot.N] or [policy.blade.\"MAC\"] only";
            reader.fault(name.span(), "policy.hostname", expected, "one for all blades");
            section.refuse_unknown_but(reader, "hostname");
        }
        None => section.refuse_unknown(reader),
    }
}

/// Reads the tables of one kind; `name` turns a table's key into what it names.
fn narrower<K: Ord>(
    reader: &mut Reader<'_>,
    tables: Vec<(Spanned<String>, Section<'_, '_>)>,
    (default, disks): (&BladePolicy, &mut PolicyDisks),
    name: impl Fn(&mut Reader<'_>, &Spanned<String>, &str) -> Option<K>,
) -> BTreeMap<K, BladePolicy> {
    let mut all = BTreeMap::new();
    let mut hostnames: BTreeMap<Hostname, String> = BTreeMap::new();
    for (key, section) in tables {
        section.refuse_unknown(reader);
        let mut policy = blade_policy(reader, &section, default);
        let disk = DiskTable::read(reader, &section);
        policy.disk = disk.keys;
        disks.narrow.push(disk);
        let hostname = section.value(reader, "hostname", parsed::<Hostname>);
        if let Some(hostname) = hostname {
            policy.hostname = Some(hostname.get_ref().clone());
            let (at, hostname) = (hostname.span(), hostname.into_inner());
            if let Some(other) = hostnames.get(&hostname) {
                let found = format!("\"{hostname}\", which [{other}] has too");
                reader.fault(at, &section.path_of("hostname"), "a host name that no other has", &found);
            }
            hostnames.insert(hostname, section.path().into());
        }
        let Some(name) = name(reader, &key, section.path()) else { continue };
        if all.insert(name, policy).is_some() {
            let found = format!("another spelling of one, {}", key.get_ref());
            reader.fault(key.span(), section.path(), "one table for each", &found);
        }
    }
    all
}

fn blade_policy(reader: &mut Reader<'_>, section: &Section<'_, '_>, default: &BladePolicy) -> BladePolicy {
    let policy = section.value(reader, "policy", |v| match v.as_str() {
        Some("prompt") => Some(Policy::Prompt),
        Some("wait") => Some(Policy::Wait),
        Some("ignore") => Some(Policy::Ignore),
        Some(_) => None,
        None => image_of(v, "auto").map(Policy::Auto),
    });
    let restart = section.value(reader, "restart", |v| match v.as_str()? {
        "reboot" => Some(Restart::Reboot),
        "direct" => Some(Restart::Direct),
        _ => None,
    });
    let menu_timeout = section.value(reader, "menu_timeout", |v| number(v, 0..=86400));
    let menu_default = section.value(reader, "menu_default", |v| match v.as_str() {
        Some("wait") => Some(MenuDefault::Wait),
        Some("firmware") => Some(MenuDefault::Firmware),
        Some(_) => None,
        None => image_of(v, "install").map(MenuDefault::Install),
    });
    let menu_capture = section.value(reader, "menu_capture", parsed::<ImageName>);
    let key_timeout = section.value(reader, "key_timeout", |v| number(v, 0..=600));
    BladePolicy {
        policy: inherit(policy, &default.policy),
        restart: inherit(restart, &default.restart),
        menu_timeout: inherit(menu_timeout, &default.menu_timeout),
        menu_default: inherit(menu_default, &default.menu_default),
        menu_capture: menu_capture.map(Spanned::into_inner).or_else(|| default.menu_capture.clone()),
        key_timeout: inherit(key_timeout, &default.key_timeout),
        disk: DiskKeys::default(),
        hostname: None,
    }
}

fn inherit<T: Clone>(own: Option<Spanned<T>>, default: &T) -> T {
    own.map_or_else(|| default.clone(), Spanned::into_inner)
}

/// Reads `{ auto = "IMAGE" }`: a table with this one key.
fn image_of(value: &DeValue<'_>, key: &str) -> Option<ImageRef> {
    let table = value.as_table().filter(|table| table.len() == 1)?;
    let (name, image) = table.iter().next()?;
    parsed(image.get_ref()).filter(|_| name.get_ref() == key)
}
