//! Writes the seed: a small FAT file system labelled `CIDATA` with what cloud-init's NoCloud source reads.
//!
//! The whole file system is made in memory and compared with the disk, so that the same seed twice is one write; the
//! empty parts of it take no space in a thin pool. What a blade is called is `policy`'s; the partition is `gpt`'s.

use std::{
    fmt::Write as _,
    io::{self, Cursor, Write},
    path::Path,
};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions, format_volume};
use sha2::{Digest, Sha256};

use super::{
    SECTOR,
    buffer::write_difference,
    gpt::{self, Ours, SEED_SIZE},
    open,
};
use crate::{
    error::{Context, Error, Result},
    model::{PartitionKind, Seed},
    plan::Changed,
};

/// The label as FAT has it: 11 bytes, padded.
const FAT_LABEL: [u8; 11] = *b"CIDATA     ";

/// Makes the disk's `CIDATA` partition hold this seed, and only it.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid) where the disk has not been partitioned, or the seed does not fit.
pub fn write_seed(device: &Path, seed: &Seed) -> Result<Changed> {
    let file = open(device)?;
    let ours = gpt::ours(&file, device)?;
    let size = ours.seed.end - ours.seed.start;
    if size != SEED_SIZE.0 {
        return Err(Error::invalid(format!("'{}' has a seed partition of {size} bytes", device.display())));
    }
    let attempt = || format!("write the seed of '{}' to '{}'", seed.hostname, device.display());
    let image = file_system(seed, &ours).attempt(attempt)?;
    write_difference(&file, ours.seed.start, &image).map(Changed::from_bool).attempt(attempt)
}

/// Returns the file system's bytes: the same for the same seed, times and volume id included.
fn file_system(seed: &Seed, ours: &Ours) -> io::Result<Vec<u8>> {
    let len = usize::try_from(SEED_SIZE.0).expect("4 MiB fit");
    let mut disk = Cursor::new(vec![0; len]);
    let id = Sha256::digest(&seed.instance_id);
    let options = FormatVolumeOptions::new()
        .bytes_per_sector(u16::try_from(SECTOR).expect("512 fits"))
        .volume_id(u32::from_be_bytes(id[..4].try_into().expect("a hash has 32 bytes")))
        .volume_label(FAT_LABEL);
    format_volume(&mut disk, options)?;
    let volume = FileSystem::new(&mut disk, FsOptions::new())?;
    for (name, text) in [
        ("meta-data", meta_data(seed)),
        ("user-data", user_data(seed, ours)),
        ("network-config", network_config(seed)),
    ] {
        volume.root_dir().create_file(name)?.write_all(text.as_bytes())?;
    }
    volume.unmount()?;
    Ok(disk.into_inner())
}

/// Returns who the instance is.
fn meta_data(seed: &Seed) -> String {
    format!(
        "instance-id: {}\nlocal-hostname: {}\n",
        quoted(&seed.instance_id),
        quoted(seed.hostname.as_str())
    )
}

/// Returns the `#cloud-config`: name, keys, the grown root, the extra partitions, and the administrator's own keys,
/// which come last because the last of two equal keys counts.
fn user_data(seed: &Seed, ours: &Ours) -> String {
    let mut text = String::from("#cloud-config\n");
    let mut line = |line: String| text.extend([line.as_str(), "\n"]);
    line(format!("hostname: {}", quoted(seed.hostname.as_str())));
    line("preserve_hostname: false".into());
    // What was left free behind root is the operator's.
    let mode = if ours.free { "'off'" } else { "auto" };
    line(format!("growpart: {{mode: {mode}, devices: [\"/\"]}}"));
    line("resize_rootfs: true".into());
    if !seed.ssh_keys.is_empty() {
        line("disable_root: false".into());
        line("ssh_authorized_keys:".into());
        seed.ssh_keys.iter().for_each(|key| line(format!("  - {}", quoted(key.trim()))));
    }
    text.push_str(&extra_partitions(&ours.extra));
    if let Some(more) = &seed.user_data {
        text.push_str(more);
        text.push('\n');
    }
    text
}

/// Returns how the blade makes and mounts the partitions that the image does not have. `nofail`: a blade without its
/// swap still starts.
fn extra_partitions(extra: &[PartitionKind]) -> String {
    let (mut make, mut mount) = (String::new(), String::new());
    for kind in [PartitionKind::Swap, PartitionKind::Data].into_iter().filter(|kind| extra.contains(kind)) {
        let (label, system, line) = match kind {
            PartitionKind::Swap => ("swap", "swap", r#""none", "swap", "sw,nofail", "0", "0""#),
            PartitionKind::Data => ("data", "ext4", r#""/data", "ext4", "defaults,nofail", "0", "2""#),
        };
        let device = format!("/dev/disk/by-partlabel/{label}");
        let entry = format!(
            "  - {{device: \"{device}\", partition: \"none\", filesystem: \"{system}\", label: \"{label}\", overwrite: false}}"
        );
        writeln!(make, "{entry}").expect("text grows");
        writeln!(mount, "  - [\"{device}\", {line}]").expect("text grows");
    }
    if make.is_empty() { make } else { format!("fs_setup:\n{make}mounts:\n{mount}") }
}

/// Returns the boot NIC's configuration: found by its MAC, kept up until the very end, because the root is behind it,
/// and known to the DHCP server by the MAC that the firmware had used.
fn network_config(seed: &Seed) -> String {
    let mac = quoted(&seed.boot_nic.to_string());
    format!(
        "version: 2\nethernets:\n  boot:\n    match: {{macaddress: {mac}}}\n    dhcp4: true\n    dhcp-identifier: mac\n    \
         critical: true\n"
    )
}

/// Returns the text as a double-quoted YAML scalar; whatever is not printable ASCII is escaped (YAML 1.2 §5.7).
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            other => write!(out, "\\U{:08x}", u32::from(other)).expect("text grows"),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(extra: &[PartitionKind]) -> Ours {
        Ours { seed: 0..SEED_SIZE.0, extra: extra.to_vec(), free: false }
    }

    fn seed() -> Seed {
        Seed {
            instance_id: "i-1".into(),
            hostname: "blade3".parse().unwrap(),
            boot_nic: "52:54:00:12:34:56".parse().unwrap(),
            ssh_keys: vec!["ssh-ed25519 AAAA \"me\"\n- evil: ä".into()],
            user_data: Some("packages: [htop]".into()),
        }
    }

    #[test]
    fn the_seed_reads_as_it_is_meant() {
        assert_eq!(meta_data(&seed()), "instance-id: \"i-1\"\nlocal-hostname: \"blade3\"\n");
        let network = "version: 2\nethernets:\n  boot:\n    match: {macaddress: \"52:54:00:12:34:56\"}\n    \
                       dhcp4: true\n    dhcp-identifier: mac\n    critical: true\n";
        assert_eq!(network_config(&seed()), network);
        let user = r##"#cloud-config
hostname: "blade3"
preserve_hostname: false
growpart: {mode: auto, devices: ["/"]}
resize_rootfs: true
disable_root: false
ssh_authorized_keys:
  - "ssh-ed25519 AAAA \"me\"\U0000000a- evil: \U000000e4"
fs_setup:
  - {device: "/dev/disk/by-partlabel/swap", partition: "none", filesystem: "swap", label: "swap", overwrite: false}
  - {device: "/dev/disk/by-partlabel/data", partition: "none", filesystem: "ext4", label: "data", overwrite: false}
mounts:
  - ["/dev/disk/by-partlabel/swap", "none", "swap", "sw,nofail", "0", "0"]
  - ["/dev/disk/by-partlabel/data", "/data", "ext4", "defaults,nofail", "0", "2"]
packages: [htop]
"##;
        assert_eq!(user_data(&seed(), &ours(&[PartitionKind::Data, PartitionKind::Swap])), user);
    }

    #[test]
    fn root_is_opened_only_where_a_key_is_given() {
        let closed = Seed { ssh_keys: vec![], ..seed() };
        assert!(!user_data(&closed, &ours(&[])).contains("disable_root"));
        assert!(!user_data(&closed, &ours(&[])).contains("fs_setup"));
    }

    #[test]
    fn room_that_was_left_free_is_not_taken_by_the_blade() {
        let free = Ours { free: true, ..ours(&[]) };
        assert!(user_data(&seed(), &free).contains("growpart: {mode: 'off',"));
    }

    #[test]
    fn nothing_in_a_value_can_end_it() {
        assert_eq!(quoted("a\"b\\c\nd\u{7f}ä#: "), r#""a\"b\\c\U0000000ad\U0000007f\U000000e4#: ""#);
    }
}
