#!/bin/sh
# The files of a Debian for a blade, as a tar on OUT: what every one of them has, and what keeps its boot short on an emulated
# CPU. RECIPE says the rest: it is called with `packages`, `early ROOT` (before packages are configured) and `late ROOT`.
#   debian.sh RECIPE RELEASE OUT
set -eu
recipe=$1; release=$2; out=$3
packages=linux-image-amd64,initramfs-tools,zstd,busybox,systemd-sysv,udev,dbus,kmod,iproute2,iputils-ping,procps,login
packages=$packages,open-iscsi,fdisk,e2fsprogs,grub-pc-bin,grub-efi-amd64-bin,grub2-common,openssh-server

lean=$(mktemp); trap 'rm -f "$lean"' EXIT
cat > "$lean" <<'LEAN'
set -eu
cd "$1"
mkdir -p etc/initramfs-tools/conf.d etc/initramfs-tools/hooks etc/modprobe.d etc/systemd/system etc/systemd/system-generators
printf 'MODULES=list\nCOMPRESS=zstd\nCOMPRESSLEVEL=19\n' > etc/initramfs-tools/conf.d/lean
# The boot loader reads the initramfs through iPXE, a few sectors at a time: the hardware database is a third of it.
printf '#!/bin/sh\n[ "$1" = prereqs ] || rm -f "$DESTDIR/usr/lib/udev/hwdb.bin" "$DESTDIR/lib/udev/hwdb.bin"\n' > etc/initramfs-tools/hooks/lean
chmod 755 etc/initramfs-tools/hooks/lean
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
} > etc/modprobe.d/lean.conf
for g in ssh gpt-auto cryptsetup integritysetup veritysetup tpm2 hibernate-resume rc-local system-update bless-boot debug sysv; do
  ln -sf /dev/null etc/systemd/system-generators/systemd-$g-generator
done
LEAN
mmdebstrap --format=tar --variant=minbase --include="$packages,$(sh "$recipe" packages)" \
  --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/lib/grub/*/*.image' --dpkgopt='force-unsafe-io' --dpkgopt='force-confold' \
  --essential-hook="sh $lean \"\$1\"" --essential-hook="sh $recipe early \"\$1\"" \
  --customize-hook='echo root:root | chroot "$1" chpasswd' \
  --customize-hook='printf "PermitRootLogin yes\n" > "$1/etc/ssh/sshd_config.d/lab.conf"' \
  --customize-hook="sh $recipe late \"\$1\"" \
  --customize-hook='chroot "$1" ldconfig; chroot "$1" journalctl --update-catalog; rm -f "$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap"' \
  "$release" "$out"
