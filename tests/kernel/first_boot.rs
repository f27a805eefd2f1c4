//! What the sealer leaves for want of cloud-init, run as it would be in a blade: its root a file system that is smaller than
//! its partition, on a disk that was laid out and seeded by us.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;

use sheath::{
    host::disk::{cidata::write_seed, gpt},
    model::{DiskGuid, DiskProfile, Seed},
};

use crate::lvm::sh;

const SCRIPT: &str = include_str!("../../src/image/inside/sealer/first-boot");

/// Makes the disk: an image's only partition, with a file system of its size.
const MAKE: &str = r"set -e
rm -rf /run/first && mkdir -p /run/first/root && cd /run/first && truncate -s 64M disk
echo 'label: gpt
,' | sfdisk -q disk
l=$(losetup -f --show -P disk) && mkfs.ext4 -q -F -L first ${l}p1 && losetup -d $l
truncate -s 400M disk
echo made";

/// Starts it: the root is the disk's, programs are this machine's. Twice: the second time there is nothing to do.
const RUN: &str = r"set -e
cd /run/first && l=$(losetup -f --show -P disk) && udevadm settle
mount ${l}p1 root && cd root && mkdir -p usr etc proc sys dev run tmp root var/lib
for name in bin sbin lib lib64; do ln -s usr/$name $name; done
: > etc/fstab && mkdir -p etc/ssh && cp /etc/passwd ../script etc/
for name in usr proc sys dev; do mount --bind /$name $name; done
mkdir -p dev/disk/by-partlabel
for n in 2 3 4; do
  name=$(blkid -p -s PART_ENTRY_NAME -o value ${l}p$n); [ -e dev/disk/by-partlabel/$name ] || ln -s ${l}p$n dev/disk/by-partlabel/$name
done
before=$(df --output=size . | tail -1)
for time in 1 2; do unshare --uts chroot . sh -c 'sh /etc/script && hostname' > ../said 2>&1 || echo FAILED; cat ../said; done
after=$(df --output=size . | tail -1)
echo grown $((after / 1024 - before / 1024))
echo swaps $(grep -c $(readlink -f ${l}p2) /proc/swaps)
cat etc/hostname etc/fstab root/.ssh/authorized_keys var/lib/sheath-seal/instance
findmnt -n -o FSTYPE data; stat -c '%a %n' root/.ssh root/.ssh/authorized_keys
swapoff ${l}p2; cd / && umount -R /run/first/root && losetup -d $l && rm -rf /run/first
echo over";

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_first_boot_takes_what_the_seed_says_and_grows_root() {
    let made = sh(MAKE);
    assert!(made.ends_with("made\n"), "{made}");
    let disk = Path::new("/run/first/disk");
    let profile: DiskProfile = "size:400MiB/root:200MiB/swap:16MiB/data:64MiB".parse().unwrap();
    gpt::apply_layout(disk, &profile.layout(DiskGuid::from_random(11))).unwrap();
    let seed = Seed {
        instance_id: "i-1".into(),
        hostname: "blade7".parse().unwrap(),
        boot_nic: "52:54:00:12:34:56".parse().unwrap(),
        ssh_keys: vec!["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me@home".into()],
        user_data: Some("packages: [htop]".into()),
    };
    write_seed(disk, &seed).unwrap();
    sheath::host::file::save(Path::new("/run/first/script"), SCRIPT.as_bytes(), 0o600).unwrap();
    let said = sh(RUN);
    assert!(said.ends_with("over\n") && !said.contains("FAILED") && !said.contains("failed:"), "{said}");
    let number = |word: &str| -> u64 {
        let line =
            said.lines().find_map(|line| line.strip_prefix(word)).unwrap_or_else(|| panic!("{word}: {said}"));
        line.trim().parse().unwrap()
    };
    assert!((100..200).contains(&number("grown ")), "{said}");
    assert_eq!(number("swaps "), 1, "{said}");
    for (line, times) in [
        ("blade7", 2),
        ("/dev/disk/by-partlabel/swap none swap sw,nofail 0 0", 1),
        ("/dev/disk/by-partlabel/data /data ext4 defaults,nofail 0 2", 1),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me@home", 1),
        ("i-1", 1),
        ("ext4", 1),
        ("700 root/.ssh", 1),
        ("600 root/.ssh/authorized_keys", 1),
    ] {
        assert_eq!(said.lines().filter(|found| *found == line).count(), times, "{line}: {said}");
    }
}
