#!/bin/sh
# Lays a Debian's files (TAR, of `debian.sh`) out on a blank DISK. Runs as root inside the appliance guest: GPT, GRUB for BIOS and
# UEFI, the root file system last, so that it can grow. As is:
#   golden   UEFI's removable path; root by its label, which every clone of it has
#   donor    as an installer leaves it: a loader of its own name that the firmware would have been told of, root by its UUID
#   debian-disk.sh TAR DISK golden|donor
set -eu
tar=$1; disk=$(readlink -f "$2"); kind=$3; root=/run/made
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
sfdisk -q "$disk" <<'T'
label: gpt
size=1MiB, type=21686148-6449-6E6F-744E-656564454649, name=bios
size=64MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=esp
type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name=root
T
udevadm settle
mkfs.vfat -n ESP "${disk}2" > /dev/null
mkfs.ext4 -F -q -L root -E lazy_itable_init=0,lazy_journal_init=0 -J size=16 "${disk}3"
mkdir -p $root; mount "${disk}3" $root
tar -C $root --numeric-owner -xf "$tar"
mkdir -p $root/boot/efi; mount "${disk}2" $root/boot/efi
for d in proc sys dev; do mount --bind /$d $root/$d; done
case $kind in
  golden) name=LABEL=root; loader=--removable ;;
  donor) name=UUID=$(blkid -s UUID -o value "${disk}3"); loader=--bootloader-id=debian
    echo "$name / ext4 errors=remount-ro 0 1" > $root/etc/fstab
    # Whoever makes the tar empties it.
    echo d0d0d0d0d0d04d0d8d0dd0d0d0d0d0d0 > $root/etc/machine-id ;;
esac
chroot $root grub-install --target=i386-pc "$disk"
chroot $root grub-install --target=x86_64-efi --efi-directory=/boot/efi $loader --no-nvram --no-uefi-secure-boot
chroot $root update-grub
# What this disk is called while it is made says nothing about a blade.
sed -i "s,root=${disk}3,root=$name,; s,root=UUID=[^ ]*,root=$name," $root/boot/grub/grub.cfg
grep -q "root=$name" $root/boot/grub/grub.cfg
umount $root/boot/efi $root/dev $root/sys $root/proc
fstrim $root; umount $root; sync
