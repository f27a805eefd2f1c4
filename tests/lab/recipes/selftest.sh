#!/bin/sh
# Runs inside the appliance guest: by hand, for slots 1 and 2, what the product does by itself. So the lab can be proved
# without the product, and a fault can be told to be the one's or the other's. The golden image is /payload/golden.qcow2.
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
address=10.77.0.1
mkdir -p /etc/target /srv/tftp /srv/http
modprobe -a target_core_mod target_core_iblock iscsi_target_mod dm-thin-pool bridge
ip link add br0 type bridge
ip address add $address/24 dev br0
ip link set br0 up
for slot in 1 2; do ip link set slot$slot master br0 up; done

pvcreate -qq -y /dev/vdb
vgcreate -qq blades /dev/vdb
lvcreate -qq -L 16G -T blades/pool
lvcreate -qq -V 2G -T blades/pool -n golden
qemu-img convert -n -O raw /payload/golden.qcow2 /dev/blades/golden

target=/sys/kernel/config/target
for slot in 1 2; do
  lvcreate -qq -s -kn -n blade$slot blades/golden
  backstore=$target/core/iblock_$slot/blade$slot
  tpg=$target/iscsi/iqn.2026-11.org.example:blade$slot/tpgt_1
  acl=$tpg/acls/iqn.2026-11.org.example:init-525400b1ad0$slot
  mkdir -p $backstore $tpg/lun/lun_0
  printf udev_path=/dev/blades/blade$slot > $backstore/control
  printf /dev/blades/blade$slot > $backstore/udev_path
  printf 1 > $backstore/enable
  ln -s $backstore $tpg/lun/lun_0/storage_object
  mkdir -p $tpg/np/$address:3260 $acl/lun_0
  ln -s $tpg/lun/lun_0 $acl/lun_0/mapped
  printf bladeuser > $acl/auth/userid
  printf bladesecret12 > $acl/auth/password
  printf 0 > $acl/attrib/nopin_timeout # iPXE answers no pings
  printf 0 > $tpg/attrib/demo_mode_discovery
  printf 1 > $tpg/attrib/authentication
  printf 1 > $tpg/enable
done

cp /usr/lib/ipxe/undionly.kpxe /usr/lib/ipxe/snponly.efi /srv/tftp/
cat > /srv/http/boot.ipxe << 'E'
#!ipxe
echo SCRIPT-RUNS ${version} ${platform} ${serial}
set slot 1
iseq ${net0/mac:hexraw} 525400b1ad02 && set slot 2 ||
set initiator-iqn iqn.2026-11.org.example:init-${net0/mac:hexraw}
set username bladeuser
set password bladesecret12
sanboot iscsi:10.77.0.1::::iqn.2026-11.org.example:blade${slot} ||
echo SANBOOT-FAILED ${errno}
shell
E
systemd-run -q --unit=selftest-http -p WorkingDirectory=/srv/http python3 -m http.server 8080
cat > /run/dnsmasq.conf << E
port=0
interface=br0
bind-interfaces
dhcp-range=10.77.0.100,10.77.0.200,1h
enable-tftp
tftp-root=/srv/tftp
dhcp-userclass=set:ipxe,iPXE
dhcp-match=set:efi,option:client-arch,7
dhcp-boot=tag:!ipxe,tag:!efi,undionly.kpxe
dhcp-boot=tag:!ipxe,tag:efi,snponly.efi
dhcp-boot=tag:ipxe,http://$address:8080/boot.ipxe
dhcp-leasefile=/run/leases
log-dhcp
user=root
E
systemd-run -q --unit=selftest-dnsmasq dnsmasq -k -C /run/dnsmasq.conf --log-facility=-
