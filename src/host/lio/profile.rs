//! The attributes that we set, one table for a TPG and one for a backstore: made so, and compared.
//!
//! A backstore's attributes go out after its `enable`: on Linux 6.1 writing `emulate_tpu` before it is a kernel oops.
//! Everything that is not in a table keeps the kernel's default.

use std::{
    io,
    sync::atomic::{AtomicU8, Ordering},
};

use super::backstore::exports;
use crate::{
    error::{Error, Kind, Result},
    host::configfs::Node,
    plan::Changed,
};

/// A TPG of ours: nobody in without an ACL and CHAP, nobody else is told that it exists.
///
/// `generate_node_acls` comes first: while it is 1, LIO ignores a 0 for `cache_dynamic_acls`.
pub(super) const TPG: [(&str, &str); 7] = [
    ("attrib/generate_node_acls", "0"),
    ("attrib/cache_dynamic_acls", "0"),
    ("attrib/authentication", "1"),
    ("attrib/demo_mode_write_protect", "1"),
    ("attrib/prod_mode_write_protect", "0"),
    // The default of 1 shows the target to every initiator that asks, ACL or not.
    ("attrib/demo_mode_discovery", "0"),
    // Not `CHAP,None`: an initiator would choose None.
    ("param/AuthMethod", "CHAP"),
];

/// What a backstore's attribute should be, given what it is.
enum Rule {
    /// 1, where the device can discard.
    OneWhereDiscard,
    /// At most this many blocks: some drivers claim 4294967288. LIO refuses a change while a LUN leads to the backstore,
    /// so one that is exported keeps what it has.
    AtMost(u64),
}

/// A backstore of ours.
const BACKSTORE: [(&str, Rule); 2] = [
    // Thin provisioning: the blade's discards reach the pool.
    ("attrib/emulate_tpu", Rule::OneWhereDiscard),
    ("attrib/optimal_sectors", Rule::AtMost(2048)),
];

/// Returns whether the TPG has our profile.
pub(super) fn tpg_holds(tpg: &Node) -> Result<bool> {
    for (attribute, value) in TPG {
        if tpg.read_if_there(attribute)?.as_deref() != Some(value) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Gives the TPG our profile.
pub(super) fn apply_tpg(tpg: &Node) -> Result<Changed> {
    let mut changed = false;
    for (attribute, value) in TPG {
        changed |= tpg.set(attribute, value)? == Changed::Changed;
    }
    Ok(Changed::from_bool(changed))
}

/// Gives a TPG that was just made our profile. Its defaults are not asked for: reading costs as much as writing.
pub(super) fn apply_to_new_tpg(tpg: &Node) -> Result<()> {
    TPG.iter().try_for_each(|(attribute, value)| tpg.write(attribute, value))
}

/// Returns whether the backstore has our profile, as far as its device can.
pub(super) fn backstore_holds(device: &Node) -> Result<bool> {
    for (attribute, rule) in &BACKSTORE {
        let now = device.read(attribute)?;
        let drifted = match rule {
            Rule::OneWhereDiscard => now != "1" && can_discard(device)?,
            Rule::AtMost(max) => above(&now, *max) && exports(device)?.is_empty(),
        };
        if drifted {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns the attributes of the backstore that are not our profile: name, value now, value of ours.
pub(super) fn backstore_differs(device: &Node) -> Result<Vec<(&'static str, String, String)>> {
    let mut differs = vec![];
    for (attribute, rule) in &BACKSTORE {
        let now = device.read(attribute)?;
        match rule {
            Rule::OneWhereDiscard if now != "1" && can_discard(device)? => {
                differs.push((*attribute, now, "1".to_owned()));
            }
            Rule::AtMost(max) if above(&now, *max) && exports(device)?.is_empty() => {
                differs.push((*attribute, now, format!("at most {max}")));
            }
            Rule::OneWhereDiscard | Rule::AtMost(_) => {}
        }
    }
    Ok(differs)
}

/// Gives the backstore, which is enabled, our profile.
pub(super) fn apply_backstore(device: &Node) -> Result<Changed> {
    let mut changed = false;
    for (attribute, rule) in &BACKSTORE {
        changed |= match rule {
            // Asked even where LIO does not know of a discard yet: it looks at the device again then.
            Rule::OneWhereDiscard => device.read(attribute)? != "1" && write_if_supported(device, attribute)?,
            Rule::AtMost(max) => exports(device)?.is_empty() && lower(device, attribute, *max)?,
        };
    }
    Ok(Changed::from_bool(changed))
}

/// What the last new backstore claimed as its optimal transfer. Volumes of one pool have the limits of its disks, so the next
/// one claims the same and is not asked; a backstore that was there already always is.
#[derive(Debug, Default)]
pub(super) struct Claims(AtomicU8);

const UNKNOWN: u8 = 0;
const SANE: u8 = 1;
const TOO_LARGE: u8 = 2;

/// Gives a backstore that was just enabled, and that nothing exports, our profile.
pub(super) fn apply_to_new_backstore(device: &Node, claims: &Claims) -> Result<()> {
    for (attribute, rule) in &BACKSTORE {
        match rule {
            Rule::OneWhereDiscard => drop(write_if_supported(device, attribute)?),
            Rule::AtMost(max) => {
                let known = match claims.0.load(Ordering::Relaxed) {
                    UNKNOWN => false,
                    SANE => true,
                    // Where the kernel refuses, this one is not like the last.
                    _ => device.write(attribute, &max.to_string()).is_ok(),
                };
                if !known {
                    let now = if lower(device, attribute, *max)? { TOO_LARGE } else { SANE };
                    claims.0.store(now, Ordering::Relaxed);
                }
            }
        }
    }
    Ok(())
}

/// Lowers a number of blocks to `max`, or to the hardware's own limit where that is less: more than that is EINVAL.
fn lower(device: &Node, attribute: &str, max: u64) -> Result<bool> {
    if !above(&device.read(attribute)?, max) {
        return Ok(false);
    }
    match device.write(attribute, &max.to_string()) {
        Err(e) if e.kind() == Kind::Invalid => {
            let limit = device.read("attrib/hw_max_sectors")?;
            device.write(attribute, &limit).map_err(|_| e)?;
        }
        written => written?,
    }
    Ok(true)
}

/// Returns whether LIO found that the device can discard.
fn can_discard(device: &Node) -> Result<bool> {
    Ok(device.read_if_there("attrib/max_unmap_block_desc_count")?.is_some_and(|count| count != "0"))
}

fn above(now: &str, max: u64) -> bool {
    now.parse().is_ok_and(|now: u64| now > max)
}

/// Writes 1; returns `false` where the device cannot do that.
fn write_if_supported(device: &Node, attribute: &str) -> Result<bool> {
    match device.write(attribute, "1") {
        Err(e) if errno(&e) == Some(nix::libc::ENOSYS) => Ok(false),
        written => written.map(|()| true),
    }
}

fn errno(error: &Error) -> Option<i32> {
    std::error::Error::source(error)?.downcast_ref::<io::Error>()?.raw_os_error()
}

#[cfg(test)]
mod tests {
    use super::{super::fake::Fake, *};

    #[test]
    fn every_attribute_is_in_a_table_once() {
        let all: Vec<_> = TPG.iter().map(|row| row.0).chain(BACKSTORE.iter().map(|row| row.0)).collect();
        let once: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(all.len(), once.len());
        assert!(TPG[0].0.ends_with("generate_node_acls"), "the order matters: see the table's doc");
    }

    #[test]
    fn one_changed_attribute_is_drift_and_is_put_right() {
        let fake = Fake::new();
        let tpg = fake.make_tpg();
        assert!(!tpg_holds(&tpg).unwrap(), "the kernel's defaults are not our profile");
        assert_eq!(apply_tpg(&tpg).unwrap(), Changed::Changed);
        for (attribute, value) in TPG {
            assert!(tpg_holds(&tpg).unwrap());
            assert_eq!(apply_tpg(&tpg).unwrap(), Changed::AlreadyTrue);
            tpg.write(attribute, "foreign").unwrap();
            assert!(!tpg_holds(&tpg).unwrap(), "{attribute}");
            apply_tpg(&tpg).unwrap();
            assert_eq!(tpg.read(attribute).unwrap(), value);
        }
    }

    #[test]
    fn a_device_without_discard_has_not_drifted() {
        let fake = Fake::new();
        let device = fake.make_backstore();
        device.write("attrib/max_unmap_block_desc_count", "0").unwrap();
        assert!(backstore_holds(&device).unwrap());
        device.write("attrib/max_unmap_block_desc_count", "1").unwrap();
        assert!(!backstore_holds(&device).unwrap());
        assert_eq!(apply_backstore(&device).unwrap(), Changed::Changed);
        assert!(backstore_holds(&device).unwrap());
        assert_eq!(apply_backstore(&device).unwrap(), Changed::AlreadyTrue);
    }

    #[test]
    fn absurd_optimal_sectors_become_sane() {
        let fake = Fake::new();
        let device = fake.make_backstore();
        for (now, then) in [("4294967288", "2048"), ("4096", "2048"), ("256", "256")] {
            device.write("attrib/optimal_sectors", now).unwrap();
            apply_backstore(&device).unwrap();
            assert_eq!(device.read("attrib/optimal_sectors").unwrap(), then);
            assert!(backstore_holds(&device).unwrap());
        }
    }

    #[test]
    fn a_new_backstore_is_taken_to_be_like_the_last_one() {
        let fake = Fake::new();
        let device = fake.make_backstore();
        for (claimed, sane) in [("4294967288", "2048"), ("256", "256")] {
            let claims = Claims::default();
            for _ in 0..2 {
                device.write("attrib/optimal_sectors", claimed).unwrap();
                apply_to_new_backstore(&device, &claims).unwrap();
                assert_eq!(device.read("attrib/optimal_sectors").unwrap(), sane);
            }
        }
    }

    #[test]
    fn what_lio_cannot_change_while_exported_is_not_drift() {
        let fake = Fake::new();
        let device = fake.make_backstore();
        apply_backstore(&device).unwrap();
        device.write("attrib/optimal_sectors", "4096").unwrap();
        assert!(!backstore_holds(&device).unwrap());
        fake.raw(&device, "alua/default_tg_pt_gp/members", b"iSCSI/iqn.x:b/tpgt_1/lun_0\n\0");
        assert!(backstore_holds(&device).unwrap());
        assert_eq!(apply_backstore(&device).unwrap(), Changed::AlreadyTrue);
    }
}
