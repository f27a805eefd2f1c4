# Makes /run/small.raw: what a workshop test and the benchmark look into and seal.
set -e
cd /run && rm -f small.raw && truncate -s 96M small.raw
printf 'label: gpt\nsize=1MiB, type=21686148-6449-6E6F-744E-656564454649\nsize=40MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\ntype=0FC63DAF-8483-4772-8E79-3D69D8477DE4\n' | sfdisk -q small.raw
loop=$(losetup --find --show --partscan small.raw)
mkfs.vfat -n ESP ${loop}p2 > /dev/null
mkfs.ext4 -q -F -L root ${loop}p3
mkdir -p /run/small && mount ${loop}p3 /run/small && cd /run/small
mkdir -p etc/ssh etc/iscsi etc/systemd/system/multi-user.target.wants boot/grub usr/sbin usr/bin tmp var/tmp run proc sys dev
printf 'ID=debian\nVERSION_ID=13\nPRETTY_NAME="Small Linux"\n' > etc/os-release
printf 'LABEL=root / ext4 defaults 0 1\n/dev/sda2 /boot/efi vfat defaults 0 0\n' > etc/fstab
printf 'linux /boot/vmlinuz-6.1.0 root=LABEL=root console=ttyS0\n' > boot/grub/grub.cfg
echo 0123456789abcdef0123456789abcdef > etc/machine-id
echo InitiatorName=iqn.2026-11.org.example:its-own > etc/iscsi/initiatorname.iscsi
: > boot/vmlinuz-6.1.0; : > usr/sbin/iscsid; : > usr/sbin/mkinitramfs; : > usr/bin/cloud-init
echo secret > etc/ssh/ssh_host_rsa_key
mkdir -p bin lib64 lib/x86_64-linux-gnu && cp /bin/dash bin/sh
cp -L /lib64/ld-linux-x86-64.so.2 lib64 && cp -L /lib/x86_64-linux-gnu/libc.so.6 lib/x86_64-linux-gnu
printf '#!/bin/sh\nfor name in sbin/iscsistart m/iscsi_tcp.ko m/iscsi_ibft.ko; do echo $name; done > /boot/initrd.img-6.1.0\n' > usr/sbin/update-initramfs
printf '#!/bin/sh\nwhile read -r name; do echo $name; done < $1\n' > usr/bin/lsinitramfs
chmod 755 usr/sbin/update-initramfs usr/bin/lsinitramfs
: > etc/systemd/system/multi-user.target.wants/systemd-networkd.service
cd / && umount /run/small && mount ${loop}p2 /run/small
mkdir -p /run/small/EFI/debian && echo x > /run/small/EFI/debian/grubx64.efi
umount /run/small && losetup --detach $loop && rmdir /run/small
echo made
