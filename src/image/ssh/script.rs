//! What a shell on the other machine is told to do. POSIX, with what util-linux, GNU and BusyBox have beside it where it is
//! there: `blockdev`, `stat -c`, `lsblk`; `fsfreeze` where file systems are to stand still.

use super::quoted;

/// What is read at once there; also the steps in which it can be gone on.
pub(super) const STEP: u64 = 1 << 20;

/// Functions of both scripts.
const COMMON: &str = r#"PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin
export PATH LC_ALL=C
what() {
    if [ -b "$p" ]; then echo "device $(blockdev --getsize64 "$p") -"
    else stat -L -c 'file %s %Y.%Z.%i' "$p" 2>/dev/null || echo "file $(wc -c < "$p" | tr -d ' ') -"; fi
}
"#;

/// The look: one line, and the first and the last 512 bytes of a file.
const LOOK: &str = r#"no() { echo "sheath-no $1"; exit 0; }
[ -e "$p" ] || no missing
[ -b "$p" ] || [ -f "$p" ] || no kind
[ -r "$p" ] || no unreadable
used=unknown
if [ -b "$p" ] && mounts=$(lsblk -n -o MOUNTPOINT "$p" 2>/dev/null); then
    used=no
    [ -z "$(printf %s "$mounts" | tr -d ' \n')" ] || used=yes
fi
echo "sheath-there $used $(what)"
[ -b "$p" ] || { dd if="$p" bs=512 count=1 2>/dev/null; tail -c 512 "$p"; }
"#;

/// The reading: a line before it and a line behind it.
const READ: &str = r#"echo "sheath-there unknown $(what)"
dd if="$p" bs=1048576 skip="$n" || exit 1
echo "sheath-end unknown $(what)"
"#;

/// Freezes the file systems on disks until its standard input ends, the root's last; thaws them by itself after some time,
/// whatever becomes of us.
///
/// It is one command, for a login shell to hand to `sh`: so there is no single quote in it. All of it is read and running
/// before the first file system stands still; reading from a frozen one goes on.
pub(super) const FREEZE: &str = r#"exec sh -c '
if [ "$(id -u)" = 0 ]; then exec sh -c "$0"; else exec sudo -n sh -c "$0"; fi
' '
PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin
export PATH LC_ALL=C
no() { echo "sheath-no $1"; exit 0; }
thaw() {
    held=yes; n=$1; shift
    while [ "$n" -gt 0 ]; do eval "at=\${$n}"; fsfreeze -u "$at" 2>/dev/null || held=no; n=$((n - 1)); done
}
main() {
    command -v fsfreeze >/dev/null || no "it has no fsfreeze (util-linux)"
    root=; seen=" "
    while read -r dev at type opts rest; do
        case $dev in /dev/*) ;; *) continue ;; esac
        case ",$opts," in *,ro,*) continue ;; esac
        case $type in vfat|exfat|iso9660|udf|squashfs) continue ;; esac
        case $seen in *" $dev "*) continue ;; esac
        seen="$seen$dev "
        at=$(printf %b "$at")
        if [ "$at" = / ]; then root=/; else set -- "$@" "$at"; fi
    done < /proc/self/mounts
    if [ -n "$root" ]; then set -- "$@" /; fi
    [ $# -gt 0 ] || no "none of its file systems is on a disk"
    sync
    ( trap "" HUP INT TERM PIPE; sleep 30; thaw $# "$@" ) </dev/null >/dev/null 2>&1 &
    watchdog=$!; froze=0
    for at in "$@"; do
        said=$(fsfreeze -f "$at" 2>&1) && froze=$((froze + 1)) && continue
        thaw "$froze" "$@"; kill -9 "$watchdog"; no "$said"
    done
    echo "sheath-frozen"
    read -r word
    thaw $# "$@"
    kill -9 "$watchdog" 2>/dev/null
    echo "sheath-thawed $held"
}
main
'"#;

/// Returns the script that looks at a path.
pub(super) fn look(path: &str) -> String {
    format!("p={}\n{COMMON}{LOOK}", quoted(path))
}

/// Returns the script that reads what is at a path, from the step on that this byte is in.
pub(super) fn read(path: &str, from: u64) -> String {
    format!("p={}\nn={}\n{COMMON}{READ}", quoted(path), from / STEP)
}
