#!/bin/sh
# Lays a golden image's files (TAR) out on a blank DISK. Runs as root inside the
# appliance guest: GPT, GRUB for BIOS and on UEFI's removable path, the root file system last, so that it can grow.
#   golden-disk.sh TAR DISK
set -eu
tar=$1; disk=$(readlink -f "$2"); root=/run/golden
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
chroot $root grub-install --target=i386-pc "$disk"
chroot $root grub-install --target=x86_64-efi --efi-directory=/boot/efi --removable --no-nvram --no-uefi-secure-boot
# By label: what this disk is called while it is made says nothing about a blade.
chroot $root update-grub
sed -i "s,root=${disk}3,root=LABEL=root,; s,root=UUID=[^ ]*,root=LABEL=root," $root/boot/grub/grub.cfg
grep -q root=LABEL=root $root/boot/grub/grub.cfg
umount $root/boot/efi $root/dev $root/sys $root/proc
fstrim $root; umount $root; sync
