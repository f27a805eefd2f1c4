#!/bin/sh
# Installs what building and testing need on a fresh Debian 12 or 13 that has git, make and Rust. Does nothing, at once,
# when all is there. Asks for root through sudo.
#   deps.sh [build|lab|all]
set -eu
build="gcc libc6-dev pkg-config libudev-dev dpkg-dev"
lab="qemu-system-x86 qemu-utils ovmf ipxe-qemu seabios mmdebstrap debian-archive-keyring e2fsprogs squashfs-tools util-linux uidmap arch-test curl ca-certificates"
case ${1:-all} in
  build) wanted=$build ;;
  lab) wanted=$lab ;;
  all) wanted="$build $lab" ;;
  *) echo "usage: deps.sh [build|lab|all]" >&2; exit 2 ;;
esac

# The least QEMU that emulates a processor of several cores soundly. Debian 12's own, 7.2, loses a guest now and then: its
# kernel stops at a double fault, with processor flags that no processor has. Debian 12's backports have a newer one.
sound=8
version_of() { dpkg-query -W -f '${Version}' "$1" 2> /dev/null || :; }
missing=
for package in $wanted; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null)" = installed ] || missing="$missing $package"
done
case " $wanted " in
  *" qemu-system-x86 "*) dpkg --compare-versions "$(version_of qemu-system-x86)" ge "1:$sound" || newer=yes ;;
esac
[ -n "$missing${newer:-}" ] || exit 0

sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
sources=$(mktemp -d)
trap 'rm -rf "$sources"' EXIT
# Apt's sources as they are, and the backports beside them for this run alone: nothing is left in /etc/apt.
cp /etc/apt/sources.list.d/* "$sources" 2> /dev/null || :
apt() { $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -o Dir::Etc::sourceparts="$sources" "$@"; }
qemu_on_offer() { apt-cache policy -o Dir::Etc::sourceparts="$sources" qemu-system-x86 | awk '/Candidate:/ { print $2 }'; }

echo "deps: installing$missing${newer:+, an emulator of at least version $sound}"
apt update
target=
if [ -n "${newer:-}" ] && dpkg --compare-versions "$(qemu_on_offer)" lt "1:$sound"; then
  . /etc/os-release
  target=$VERSION_CODENAME-backports
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $target main" > "$sources/sheath-lab.list"
  apt update
fi
# These share files that must be of one version.
[ -z "${newer:-}" ] || missing="$missing qemu-system-x86 qemu-system-common qemu-system-data qemu-utils seabios"
# shellcheck disable=SC2086 # a list of words
apt install -y --no-install-recommends --allow-downgrades ${target:+-t $target} $missing
# The archive keyring must know the releases that the guests are made of.
for release in bookworm trixie; do
  keyring=/usr/share/keyrings/debian-archive-$release-stable.gpg
  [ -e "$keyring" ] || [ "${1:-all}" = build ] ||
    { echo "deps: $keyring is missing: upgrade debian-archive-keyring" >&2; exit 1; }
done
