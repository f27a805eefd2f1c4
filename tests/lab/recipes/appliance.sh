#!/bin/sh
# A Debian for the appliance guest, as a tar on OUT: everything our package depends on, and no service of its own
# that would touch LIO, the slots' NICs or DHCP. The guest agent makes the bridge, the tests install the package.
#   appliance.sh RELEASE OUT      RELEASE is bookworm or trixie
set -eu
release=$1; out=$2
packages=linux-image-amd64,initramfs-tools,zstd,systemd-sysv,udev,dbus,kmod,iproute2,iputils-ping,procps,less
packages=$packages,lvm2,thin-provisioning-tools,targetcli-fb,open-iscsi,dnsmasq-base,ipxe,ethtool,tcpdump
packages=$packages,qemu-guest-agent,qemu-utils,curl,ca-certificates,e2fsprogs,fdisk,parted,dosfstools,mtools
packages=$packages,bash-completion,man-db,python3-minimal,strace,fio,jq,libiscsi-bin,qemu-system-x86,ipxe-qemu,seabios,ovmf,partclone
packages=$packages,qemu-block-extra,openssh-client,openssh-server,gdisk

# Set up before any package is configured: the initramfs is then made once, small (it only has to mount /dev/vda),
# and already knows the names of the slots' NICs.
early=$(mktemp); trap 'rm -f "$early"' EXIT
cat > "$early" <<'EARLY'
set -eu
cd "$1"
mkdir -p etc/initramfs-tools/conf.d etc/systemd/network etc/systemd/system etc/sysctl.d etc/modprobe.d payload
printf 'MODULES=list\nCOMPRESS=lz4\n' > etc/initramfs-tools/conf.d/lab
printf 'virtio_pci\nvirtio_blk\next4\n' > etc/initramfs-tools/modules
for n in 1 2 3 4 5 6 7 8; do
  printf '[Match]\nMACAddress=52:54:00:5a:00:0%s\n[Link]\nName=slot%s\n' $n $n > etc/systemd/network/10-slot$n.link
done
printf 'net.ipv6.conf.default.accept_ra=0\nnet.ipv6.conf.all.accept_ra=0\nkernel.printk=4 4 1 7\n' > etc/sysctl.d/lab.conf
echo appliance > etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 appliance\n' > etc/hosts
: > etc/fstab
# LIO is driven by the agent alone; an initiator is started by the test that wants one.
for u in iscsid.service iscsid.socket open-iscsi.service rtslib-fb-targetctl.service targetclid.service targetclid.socket \
  target.service systemd-networkd.service systemd-networkd-wait-online.service systemd-timesyncd.service networking.service \
  apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
  man-db.timer logrotate.timer getty@tty1.service ssh.service ssh.socket; do
  ln -sf /dev/null etc/systemd/system/$u
done
EARLY
mmdebstrap --format=tar --variant=minbase --include=$packages \
  --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='force-unsafe-io' \
  --essential-hook="sh $early \"\$1\"" \
  --customize-hook='echo root:root | chroot "$1" chpasswd' \
  --customize-hook='rm -f "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap "$1"/etc/machine-id; echo 5ea7b0a70000000000000000000000aa > "$1/etc/machine-id"' \
  --customize-hook='mkdir -p "$1/etc/systemd/system/serial-getty@hvc0.service.d" "$1/etc/systemd/system/serial-getty@ttyS0.service.d"' \
  --customize-hook='for t in hvc0 ttyS0; do printf "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --noclear --keep-baud 115200 %%I linux\n" > "$1/etc/systemd/system/serial-getty@$t.service.d/autologin.conf"; done' \
  --customize-hook='chroot "$1" systemctl enable serial-getty@hvc0.service' \
  --customize-hook='echo "[ -z \"\$PS1\" ] || . /usr/share/bash-completion/bash_completion" >> "$1/root/.bashrc"' \
  "$release" "$out"
