#!/bin/sh
# A Debian 13 golden image's files, as a tar on OUT. `golden-disk.sh` lays them out on a disk.
# What makes it bootable from its own iSCSI target is under "iSCSI root"; the rest keeps a boot on an emulated CPU short.
#   golden.sh OUT
set -eu
out=$1
packages=linux-image-amd64,initramfs-tools,zstd,busybox,systemd-sysv,udev,dbus,kmod,iproute2,iputils-ping,procps,login
packages=$packages,open-iscsi,cloud-init,cloud-guest-utils,fdisk,e2fsprogs
packages=$packages,grub-pc-bin,grub-efi-amd64-bin,grub2-common,openssh-server

early=$(mktemp); trap 'rm -f "$early"' EXIT
cat > "$early" <<'EARLY'
set -eu
cd "$1"
mkdir -p etc/initramfs-tools/conf.d etc/initramfs-tools/hooks etc/modprobe.d etc/systemd/network etc/systemd/system etc/iscsi etc/cloud/cloud.cfg.d etc/default/grub.d

# -- iSCSI root: the initramfs logs in with what iPXE left in the iBFT
echo ISCSI_AUTO=true > etc/iscsi/iscsi.initramfs
echo InitiatorName=iqn.1993-08.org.debian:01:placeholder > etc/iscsi/initiatorname.iscsi
printf 'virtio_pci\nvirtio_net\ne1000\ne1000e\niscsi_tcp\niscsi_ibft\nsd_mod\next4\n' > etc/initramfs-tools/modules
printf 'MODULES=list\nCOMPRESS=zstd\nCOMPRESSLEVEL=19\n' > etc/initramfs-tools/conf.d/golden
# The boot loader reads the initramfs through iPXE, a few sectors at a time: the hardware database is a third of it.
printf '#!/bin/sh\n[ "$1" = prereqs ] || rm -f "$DESTDIR/usr/lib/udev/hwdb.bin"\n' > etc/initramfs-tools/hooks/lean
chmod 755 etc/initramfs-tools/hooks/lean
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
# -- what no blade of the lab needs: each unit or generator costs a second or more on an emulated CPU
for u in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
  man-db.timer logrotate.timer systemd-timesyncd.service systemd-networkd-wait-online.service systemd-pstore.service \
  systemd-random-seed.service systemd-journal-catalog-update.service systemd-update-done.service ldconfig.service \
  systemd-binfmt.service systemd-udev-load-credentials.service systemd-hibernate-clear.service systemd-logind.service \
  systemd-rfkill.socket systemd-sysext.socket systemd-networkd-persistent-storage.service grub-common.service \
  modprobe@configfs.service modprobe@drm.service modprobe@efi_pstore.service modprobe@fuse.service \
  sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount \
  dev-hugepages.mount dev-mqueue.mount getty@tty1.service console-setup.service keyboard-setup.service; do
  ln -sf /dev/null etc/systemd/system/$u
done
# networkd asks for the wireless netlink family, which loads a whole stack; the rest is a PC's furniture.
{
  echo 'alias net-pf-16-proto-16-family-nl80211 off'
  for m in kvm_amd kvm_intel ata_piix ata_generic i2c_piix4 floppy pcspkr parport_pc psmouse powernow_k8; do echo "blacklist $m"; done
} > etc/modprobe.d/golden.conf
mkdir -p etc/systemd/system-generators
for g in ssh gpt-auto cryptsetup integritysetup veritysetup tpm2 hibernate-resume rc-local system-update bless-boot debug sysv; do
  ln -sf /dev/null etc/systemd/system-generators/systemd-$g-generator
done
EARLY
mmdebstrap --format=tar --variant=minbase --include=$packages \
  --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/lib/grub/*/*.image' --dpkgopt='force-unsafe-io' --dpkgopt='force-confold' \
  --essential-hook="sh $early \"\$1\"" \
  --customize-hook='echo root:root | chroot "$1" chpasswd' \
  --customize-hook='chroot "$1" systemctl enable systemd-networkd.service iscsid.service ibft-initiator-name.service iscsi-root-patience.service' \
  --customize-hook='sed -i "s/^node.session.timeo.replacement_timeout.*/node.session.timeo.replacement_timeout = 86400/" "$1/etc/iscsi/iscsid.conf"' \
  --customize-hook='printf "PermitRootLogin yes\n" > "$1/etc/ssh/sshd_config.d/lab.conf"; rm -f "$1"/etc/ssh/ssh_host_*' \
  --customize-hook='chroot "$1" ldconfig; chroot "$1" journalctl --update-catalog' \
  --customize-hook='rm -f "$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap"; : > "$1/etc/machine-id"' \
  trixie "$out"
