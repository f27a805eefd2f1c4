//! The workshop under a real systemd: made of what the guest has installed, a guest in the guest, and an image that is
//! looked into and sealed there. The image is a small one with its own shell and stand-ins for the initramfs's maker and
//! lister: making a real one takes too long here.
//!
//! The guest in the guest is emulated twice: a minute or two.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    io::Write,
    path::Path,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use sheath::{
    error::{Kind, Result},
    image::{Cancel, Work},
    model::{Checkup, ImageId, Judgement, Role, VolumeId, VolumeState},
};

use crate::{
    guest::wait_for,
    lvm::{pool, sh},
};

/// Returns whether guests can be run here, with a sentence where not.
pub(crate) fn ready() -> bool {
    let needed =
        ["/run/systemd/system", "/usr/bin/sheath", "/usr/bin/qemu-system-x86_64", "/usr/sbin/mkinitramfs"];
    let missing = needed.iter().find(|path| !Path::new(path).exists());
    let older = sh("uname -r").starts_with("6.1.");
    let why = match missing {
        Some(path) => format!("needs {path}"),
        None if older => "a guest in a guest takes minutes; Linux 6.12 has its turn".to_owned(),
        None => return true,
    };
    let _ = writeln!(std::io::stdout(), "skipped: {why}");
    false
}

/// Makes a disk with a BIOS boot partition, an EFI system partition and a root, which holds what is at hand of a system:
/// names, a kernel's name, an initiator name of its own, left-overs of identity.
const MAKE: &str = include_str!("small_image.sh");

/// Imports the small disk, without the import's sandboxes: they have tests of their own.
fn small_image(image: &ImageId) {
    small_image_by(MAKE, image);
}

fn small_image_by(script: &str, image: &ImageId) {
    let made = sh(script);
    assert!(made.ends_with("made\n"), "{made}");
    let device = pool().create_image(image, sheath::model::Bytes::mib(104)).unwrap();
    let written = sh(&format!(
        "dd if=/run/small.raw of={} bs=1M conv=fsync status=none && rm /run/small.raw && echo written",
        device.display()
    ));
    assert!(written.ends_with("written\n"), "{written}");
    pool().finish_image(image, false).unwrap();
}

/// Makes a disk as an installer does for BIOS: root first, swap in an extended partition behind it, GRUB's code, and a
/// stand-in for GRUB's tools that leaves its word where the core belongs.
const MAKE_MBR: &str = r#"set -e
cd /run && rm -f small.raw && truncate -s 96M small.raw
printf 'label: dos\nlabel-id: 0x0a0b0c0d\nstart=2048, size=70MiB, type=83, bootable\ntype=5\ntype=82\n' | sfdisk -q small.raw
printf 'GRUB ' | dd of=small.raw conv=notrunc bs=1 seek=384 status=none
loop=$(losetup --find --show --partscan small.raw)
mkfs.ext4 -q -F -L root ${loop}p1
mkswap -q -U 5a5a5a5a-0000-4000-8000-000000000000 ${loop}p5
mkdir -p /run/small && mount ${loop}p1 /run/small && cd /run/small
mkdir -p etc boot/grub usr/sbin usr/bin usr/lib/grub/i386-pc tmp var/tmp run proc sys dev
printf 'ID=debian\nVERSION_ID=13\nPRETTY_NAME="Small Linux"\n' > etc/os-release
printf '/dev/sda1 / ext4 defaults 0 1\nUUID=5a5a5a5a-0000-4000-8000-000000000000 none swap sw 0 0\n' > etc/fstab
printf 'linux /boot/vmlinuz-6.1.0 root=PARTUUID=0a0b0c0d-01 console=ttyS0\n' > boot/grub/grub.cfg
: > boot/vmlinuz-6.1.0; : > usr/sbin/iscsid; : > usr/sbin/mkinitramfs; : > usr/bin/cloud-init
: > usr/lib/grub/i386-pc/boot.img
mkdir -p bin lib64 lib/x86_64-linux-gnu && cp /bin/dash bin/sh
cp -L /lib64/ld-linux-x86-64.so.2 lib64 && cp -L /lib/x86_64-linux-gnu/libc.so.6 lib/x86_64-linux-gnu
printf '#!/bin/sh\nfor name in sbin/iscsistart m/iscsi_tcp.ko m/iscsi_ibft.ko; do echo $name; done > /boot/initrd.img-6.1.0\n' > usr/sbin/update-initramfs
printf '#!/bin/sh\nwhile read -r name; do echo $name; done < $1\n' > usr/bin/lsinitramfs
printf '#!/bin/sh\n[ "$1" = --target=i386-pc ] || exit 9\necho loading 1<> ${2}2\n' > usr/sbin/grub-install
printf '#!/bin/sh\nfor link in /dev/disk/by-uuid/*; do :; done\necho "linux /boot/vmlinuz-6.1.0 root=UUID=${link##*/} console=ttyS0" > $2\n' > usr/sbin/grub-mkconfig
chmod 755 usr/sbin/* usr/bin/lsinitramfs
cd / && umount /run/small && losetup --detach $loop && rmdir /run/small
echo made"#;

fn of(image: &ImageId, cancel: Cancel) -> Work {
    let (image, volume) = (image.clone(), VolumeId(0xc4ec << 64));
    Work { image, volume, folder: "/var/lib/sheath".into(), watermark: 90, cancel }
}

/// Cancels as soon as there is such a unit, and returns when that was.
pub(crate) fn cancel_when_up(unit: &'static str, cancel: &Cancel) -> JoinHandle<Instant> {
    let cancel = cancel.clone();
    thread::spawn(move || {
        let list = format!("systemctl list-units --state=active --plain --no-legend '{unit}'");
        wait_for("the guest's unit", || (!sh(&list).is_empty()).then_some(()));
        cancel.cancel();
        Instant::now()
    })
}

/// Does a work on the image, and says how long each phase of it took: not captured, because how long a guest in a guest
/// takes is worth knowing of every run.
fn on<T>(image: &ImageId, work: impl FnOnce(&Work, &mut dyn FnMut(&str)) -> Result<T>) -> T {
    let (begin, mut phases) = (Instant::now(), vec![]);
    let of = of(image, Cancel::default());
    let mut phase = |phase: &str| phases.push(format!("{:.1} s {phase}", begin.elapsed().as_secs_f32()));
    let done = work(&of, &mut phase);
    phase("over");
    let _ = writeln!(std::io::stdout(), "{image}: {}", phases.join(", "));
    done.unwrap_or_else(|e| panic!("{}", e.chain()))
}

fn bad(checkup: &Checkup) -> Vec<(&str, Judgement)> {
    let bad = checkup.findings.iter().filter(|finding| finding.judgement.is_bad());
    bad.map(|finding| (finding.about.as_str(), finding.judgement)).collect()
}

fn nothing_is_left() {
    let left = sh("ls -A /var/lib/sheath; lvs --noheadings -o lv_name sheathtest; \
         systemctl list-units --all 'sheath-image*' --no-legend");
    let words = ["guest-small", "sheath-vol", "sheath-image"];
    assert!(!words.iter().any(|word| left.contains(word)), "{left}");
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_workshop_finds_what_an_image_lacks_and_mends_it_once() {
    if !ready() {
        return;
    }
    let image: ImageId = "small".parse().unwrap();
    small_image(&image);
    // As an agent leaves it that is killed while it makes the workshop: the next one makes it all the same.
    sh(
        "rm -rf /var/lib/sheath/workshop; systemctl --quiet stop sheath-workshop; systemd-run --quiet --unit=sheath-workshop sleep 3600",
    );
    let checkup = on(&image, |work, phase| work.check(pool(), phase));
    assert_eq!((checkup.system.as_deref(), checkup.kernel.as_deref()), (Some("Small Linux"), Some("6.1.0")));
    use Judgement::{Missing, Wrong};
    let expected = [
        ("initramfs", Missing),
        ("iscsi-login", Missing),
        ("initiator-name", Wrong),
        ("patience", Wrong),
        ("machine-id", Wrong),
        ("ssh-host-keys", Wrong),
        ("boot-nic", Wrong),
        ("fstab", Wrong),
        ("bios", Missing),
        ("uefi", Missing),
    ];
    assert_eq!(bad(&checkup), expected);
    nothing_is_left();

    let next: ImageId = "small@2".parse().unwrap();
    let sealing = on(&image, |work, phase| work.seal(pool(), Some(&next), phase));
    let about: Vec<_> = sealing.changes.iter().map(|change| change.about.as_str()).collect();
    let expected = [
        "machine-id",
        "ssh-host-keys",
        "initiator-name",
        "patience",
        "boot-nic",
        "uefi",
        "iscsi-login",
        "initramfs",
        "seal",
    ];
    assert_eq!((about.as_slice(), sealing.image.as_ref()), (expected.as_slice(), Some(&next)));
    // What the sealer cannot mend.
    assert_eq!(bad(sealing.checkup.as_ref().unwrap()), [("fstab", Wrong), ("bios", Missing)]);
    let found = pool().volumes().unwrap().volumes[&next.lv_name()].clone();
    assert!(matches!(found.role, Role::Image { published: false, .. }) && found.state == VolumeState::Ready);
    nothing_is_left();

    let third: ImageId = "small@3".parse().unwrap();
    let again = on(&next, |work, phase| work.seal(pool(), Some(&third), phase));
    assert_eq!((again.changes.as_slice(), again.image), ([].as_slice(), None));
    assert!(!pool().volumes().unwrap().volumes.contains_key(&third.lv_name()));
    nothing_is_left();
    for image in [image, next] {
        pool().remove_image(&image).unwrap();
    }
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_workshop_makes_a_gpt_of_an_mbr_that_boots_by_bios() {
    if !ready() {
        return;
    }
    let (image, next): (ImageId, ImageId) = ("old".parse().unwrap(), "old@2".parse().unwrap());
    small_image_by(MAKE_MBR, &image);
    let device = pool().device(&image.lv_name());
    let sealing = on(&image, |work, phase| work.seal(pool(), Some(&next), phase));
    let about: Vec<_> = sealing.changes.iter().map(|change| change.about.as_str()).collect();
    for change in ["mbr", "fstab", "initramfs", "bios"] {
        assert!(about.contains(&change), "{about:?}");
    }
    let checkup = sealing.checkup.as_ref().unwrap();
    assert_eq!(bad(checkup), [("uefi", Judgement::Missing)], "no ESP, no UEFI: {checkup:#?}");
    assert!(checkup.bios && !checkup.uefi);
    nothing_is_left();

    // What the world's tools say of it, and of the image that it was made of.
    let lv = pool().device(&next.lv_name());
    let seen = sh(&format!(
        "lvchange -K -ay sheathtest/{0} sheathtest/{1}; sgdisk --verify {2}; sgdisk --print {2}; sfdisk --dump {3}
         l=$(losetup -f --show -P -r {2}); mount -o ro,noload ${{l}}p1 /mnt; cat /mnt/etc/fstab /mnt/boot/grub/grub.cfg
         umount /mnt; losetup -d $l; lvchange -an sheathtest/{0} sheathtest/{1}",
        next.lv_name(),
        image.lv_name(),
        lv.display(),
        device.display(),
    ));
    for word in ["No problems found", "EF02", "label: dos", "UUID=", "# Left out with its partition"] {
        assert!(seen.contains(word), "{word}: {seen}");
    }
    assert!(!seen.contains("\n/dev/sda1") && !seen.contains("root=PARTUUID"), "{seen}");
    for image in [image, next] {
        pool().remove_image(&image).unwrap();
    }
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_workshop_work_that_is_cancelled_ends_soon_and_leaves_nothing() {
    if !ready() {
        return;
    }
    let (image, next): (ImageId, ImageId) = ("small".parse().unwrap(), "small@2".parse().unwrap());
    small_image(&image);
    // Cancelled before it has begun, and while its guest runs.
    let cancel = Cancel::default();
    cancel.cancel();
    let early = of(&image, cancel).check(pool(), &mut |_| ()).unwrap_err();
    assert_eq!(early.kind(), Kind::Denied, "{}", early.chain());
    nothing_is_left();

    let (work, canceller) = (of(&image, Cancel::default()), std::cell::Cell::new(None));
    // Making the workshop may come before the guest, and takes long.
    let mut phase = |phase: &str| {
        if phase == "starting the guest" {
            canceller.set(Some(cancel_when_up("sheath-image-small*", &work.cancel)));
        }
    };
    let late = work.seal(pool(), Some(&next), &mut phase).unwrap_err();
    let since = canceller.take().expect("a guest was started").join().unwrap();
    assert_eq!(late.kind(), Kind::Denied, "{}", late.chain());
    assert_eq!(late.chain(), "seal image 'small@1': it was cancelled");
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    nothing_is_left();
    assert!(!pool().volumes().unwrap().volumes.contains_key(&next.lv_name()));
    pool().remove_image(&image).unwrap();
}
