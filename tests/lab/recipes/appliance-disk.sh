#!/bin/sh
# Makes the appliance's files (TAR) into its disk: OUT/root.qcow2, and beside it the kernel and initramfs that QEMU
# starts it with. Needs no root where it runs as root of a user namespace: nothing is mounted.
#   appliance-disk.sh TAR OUT
set -eu
tar=$1; out=$2; root=$out/root
mkdir "$root"
# Device nodes cannot be made in a user namespace, and devtmpfs has them anyway.
tar -C "$root" --numeric-owner --exclude='./dev/*' -xf "$tar"
cp -L "$root/vmlinuz" "$root/initrd.img" "$out/"
chmod 644 "$out/vmlinuz" "$out/initrd.img"
mke2fs -q -F -t ext4 -L appliance -O '^has_journal' -E lazy_itable_init=0 -d "$root" "$out/root.raw" 6G
qemu-img convert -O qcow2 "$out/root.raw" "$out/root.qcow2"
rm -rf "$root" "$out/root.raw" "$tar"
