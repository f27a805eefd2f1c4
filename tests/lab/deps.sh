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

missing=
for package in $wanted; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null)" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
echo "deps: installing$missing"
$sudo apt-get update -q
# qemu-system-x86 and qemu-utils share files that must be of one version. A qemu-utils from backports blocks the
# emulator of the release: take it back to the emulator's version then.
extra=
case " $missing " in
  *" qemu-system-x86 "*)
    candidate=$(apt-cache policy qemu-system-x86 | awk '/Candidate:/ { print $2 }')
    have=$(dpkg-query -W -f '${Version}' qemu-utils 2> /dev/null || :)
    if [ -n "$have" ] && [ "$have" != "$candidate" ]; then extra="qemu-utils=$candidate"; fi
    ;;
esac
# shellcheck disable=SC2086 # lists of words
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends --allow-downgrades $missing $extra
# The archive keyring must know the releases that the guests are made of.
for release in bookworm trixie; do
  keyring=/usr/share/keyrings/debian-archive-$release-stable.gpg
  [ -e "$keyring" ] || [ "${1:-all}" = build ] ||
    { echo "deps: $keyring is missing: upgrade debian-archive-keyring" >&2; exit 1; }
done
