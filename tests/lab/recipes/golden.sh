#!/bin/sh
# A golden image, as an administrator would make one by hand: a Debian that boots from its own iSCSI target, with cloud-init for
# what each blade has of its own. What makes it bootable from iSCSI is under "iSCSI root". A recipe for `debian.sh`.
set -eu
early() {
cd "$1"
mkdir -p etc/systemd/network etc/systemd/system etc/iscsi etc/cloud/cloud.cfg.d

# -- iSCSI root: the initramfs logs in with what iPXE left in the iBFT
echo ISCSI_AUTO=true > etc/iscsi/iscsi.initramfs
echo InitiatorName=iqn.1993-08.org.debian:01:placeholder > etc/iscsi/initiatorname.iscsi
printf 'virtio_pci\nvirtio_net\ne1000\ne1000e\niscsi_tcp\niscsi_ibft\nsd_mod\next4\n' > etc/initramfs-tools/modules
# iscsid must know the name that the target's ACL has, or the first lost session is never taken up again. Never remove the file.
cat > etc/systemd/system/ibft-initiator-name.service <<'U'
[Unit]
Description=Take the iSCSI initiator name from the firmware (iBFT)
DefaultDependencies=no
After=local-fs.target
Before=iscsid.service open-iscsi.service
ConditionPathExists=/sys/firmware/ibft/initiator/initiator-name
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'printf "InitiatorName=%%s\\n" "$(cat /sys/firmware/ibft/initiator/initiator-name)" > /etc/iscsi/initiatorname.iscsi'
[Install]
WantedBy=sysinit.target
U
# What stands between a blade and a hung disk while the appliance restarts: wait a day for it, not two minutes.
cat > etc/systemd/system/iscsi-root-patience.service <<'U'
[Unit]
Description=Let the root disk wait for its iSCSI target
After=iscsid.service
ConditionPathExistsGlob=/sys/class/iscsi_session/session*
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'for s in /sys/class/iscsi_session/session*/recovery_tmo; do echo 86400 > $s; done'
[Install]
WantedBy=multi-user.target
U
# The root disk's NIC: set up by the initramfs, adopted here, never taken down (not even at shutdown).
cat > etc/systemd/network/50-boot-nic.network <<'U'
[Match]
Type=ether
[Network]
DHCP=ipv4
KeepConfiguration=yes
LinkLocalAddressing=no
IPv6AcceptRA=no
[DHCPv4]
ClientIdentifier=mac
UseHostname=no
SendHostname=no
UseTimezone=no
UseNTP=no
U

# -- cloud-init: a seed on the disk or nothing. The network is the image's own affair: cloud-init would write what the
# initramfs did into networkd's files and restart networkd, which takes the root disk's NIC down. Only the kernel's command
# line ranks above the initramfs (network-config=disabled, below); `network: {config: disabled}` here would not.
cat > etc/cloud/cloud.cfg.d/90-golden.cfg <<'U'
datasource_list: [NoCloud, None]
disable_root: false
ssh_pwauth: true
ssh_genkeytypes: [ed25519]
growpart: {mode: growpart, devices: [/], ignore_growroot_disabled: true}
resize_rootfs: noblock
apt_preserve_sources_list: true
manage_etc_hosts: true
preserve_hostname: false
cloud_init_modules: [seed_random, bootcmd, write_files, growpart, resizefs, disk_setup, mounts, set_hostname, update_hostname, update_etc_hosts, users_groups, ssh]
cloud_config_modules: [set_passwords, runcmd]
cloud_final_modules: [scripts_per_once, scripts_per_boot, scripts_per_instance, scripts_user, final_message]
U

# Passed over by fsck: the journal is enough, and this saves two starts of it.
echo 'LABEL=root / ext4 errors=remount-ro 0 0' > etc/fstab
echo golden > etc/hostname
printf '127.0.0.1 localhost\n' > etc/hosts
printf 'GRUB_TIMEOUT=0\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX="console=ttyS0,115200 iscsi_auto network-config=disabled systemd.show_status=yes mitigations=off"\nGRUB_TERMINAL=serial\nGRUB_DISABLE_OS_PROBER=true\n' > etc/default/grub
}

late() {
  chroot "$1" systemctl enable systemd-networkd.service iscsid.service ibft-initiator-name.service iscsi-root-patience.service
  sed -i "s/^node.session.timeo.replacement_timeout.*/node.session.timeo.replacement_timeout = 86400/" "$1/etc/iscsi/iscsid.conf"
  rm -f "$1"/etc/ssh/ssh_host_*
  : > "$1/etc/machine-id"
}

case $1 in
  packages) echo cloud-init,cloud-guest-utils ;;
  *) "$1" "$2" ;;
esac
