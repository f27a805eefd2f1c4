#!/bin/sh
# A server as somebody has installed it on a disk of its own and run it for a while: an identity, no cloud-init, a network that
# goes down at shutdown, and nothing of iSCSI but the package. What a blade cannot have, or must not, is what `sheath image
# seal` is for. A recipe for `debian.sh`.
set -eu
early() {
cd "$1"
mkdir -p etc/initramfs-tools/conf.d etc/systemd/network etc/iscsi etc/udev/rules.d etc/default var/lib/systemd var/lib/dhcp
# The drivers of its own disk, and of NICs. Sealing makes the initramfs anew, emulated twice: packed as fast as can be.
printf 'COMPRESSLEVEL=1\n' > etc/initramfs-tools/conf.d/quick
printf 'virtio_pci\nvirtio_net\ne1000\nnvme\nsd_mod\next4\n' > etc/initramfs-tools/modules
printf '[Match]\nType=ether\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n' > etc/systemd/network/wired.network
printf '127.0.0.1 localhost\n127.0.1.1 donor\n' > etc/hosts
echo donor > etc/hostname
printf 'GRUB_TIMEOUT=0\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX="console=ttyS0,115200 systemd.show_status=yes mitigations=off"\nGRUB_TERMINAL=serial\nGRUB_DISABLE_OS_PROBER=true\n' > etc/default/grub
# What running has left behind.
echo InitiatorName=iqn.1993-08.org.debian:01:d0d0d0d0d0d0 > etc/iscsi/initiatorname.iscsi
echo 'SUBSYSTEM=="net", ACTION=="add", ATTR{address}=="52:54:00:d0:d0:01", NAME="lan0"' > etc/udev/rules.d/70-persistent-net.rules
echo 'lease { fixed-address 192.0.2.7; }' > var/lib/dhcp/dhclient.lan0.leases
head -c 512 /dev/urandom > var/lib/systemd/random-seed
}

late() {
  chroot "$1" systemctl enable systemd-networkd.service
  # Installing the package has made them.
  ls "$1"/etc/ssh/ssh_host_ed25519_key > /dev/null
}

case $1 in
  packages) echo ethtool ;;
  *) "$1" "$2" ;;
esac
