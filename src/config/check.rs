//! From what was written to what is meant: every key checked, then what the values mean together.
//!
//! All faults are gathered before any is reported. Whether a port, a volume group or an image exists is not asked here:
//! a configuration may be written before the machine is ready for it.

mod chassis;
mod disk;
mod image;
mod policy;

use std::str::FromStr;

use toml::de::DeValue;

use super::{
    Config, Fault, Pool,
    raw::{Reader, Section},
};

/// Reads a configuration. `file_name` is only for the faults' words.
///
/// # Errors
/// Every fault of the file, in the order of the file.
pub fn parse(file_name: &str, text: &str) -> Result<Config, Vec<Fault>> {
    let (mut reader, root) = Reader::open(file_name, text);
    let config = read(&mut reader, &Section::top(&root));
    let faults = reader.into_faults();
    match config {
        Some(config) if faults.is_empty() => Ok(config),
        _ => Err(faults),
    }
}

/// Returns the configuration, or `None` where a part without a default is missing; a fault is kept for that.
fn read(reader: &mut Reader<'_>, top: &Section<'_, '_>) -> Option<Config> {
    top.refuse_unknown(reader);
    let chassis = chassis::chassis(reader, top);
    let pool = pool(reader, top);
    let dhcp = chassis::dhcp(reader, top, &chassis);
    let target = chassis::target(reader, top, &chassis, &dhcp);
    let (policy, mut disks) = policy::policy(reader, top, &chassis.named);
    let images = image::images(reader, top, &mut disks);
    Some(Config { chassis: chassis.whole()?, pool, dhcp: dhcp?, target: target?, policy, images })
}

fn pool(reader: &mut Reader<'_>, top: &Section<'_, '_>) -> Pool {
    let section = top.table(reader, "pool", "pool");
    section.refuse_unknown(reader);
    let vg = section.value(reader, "vg", parsed);
    let thinpool = section.value(reader, "thinpool", parsed);
    let watermark = section.value(reader, "watermark", |v| number(v, 1..=100));
    Pool {
        vg: or_default(vg, "sheath"),
        thinpool: or_default(thinpool, "pool"),
        watermark: watermark.map_or(90, toml::Spanned::into_inner),
    }
}

/// Reads text that a type's own constructor accepts.
fn parsed<T: FromStr>(value: &DeValue<'_>) -> Option<T> {
    value.as_str()?.parse().ok()
}

/// Reads a whole number within bounds.
fn number<T: TryFrom<i64>>(value: &DeValue<'_>, bounds: std::ops::RangeInclusive<i64>) -> Option<T> {
    let written = value.as_integer()?;
    let number = i64::from_str_radix(written.as_str(), written.radix()).ok()?;
    bounds.contains(&number).then(|| T::try_from(number).ok()).flatten()
}

/// Returns the value, or the default in the type's own words.
fn or_default<T: FromStr>(value: Option<toml::Spanned<T>>, default: &str) -> T {
    match value {
        Some(value) => value.into_inner(),
        None => default.parse().ok().expect("a default is a valid value"),
    }
}

#[cfg(test)]
#[path = "check/tests.rs"]
mod tests;
