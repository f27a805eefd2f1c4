//! What a shell on the other machine is told to do. POSIX, with what util-linux, GNU and BusyBox have beside it where it is
//! there: `blockdev`, `stat -c`, `lsblk`.

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

/// Returns the script that looks at a path.
pub(super) fn look(path: &str) -> String {
    format!("p={}\n{COMMON}{LOOK}", quoted(path))
}

/// Returns the script that reads what is at a path, from the step on that this byte is in.
pub(super) fn read(path: &str, from: u64) -> String {
    format!("p={}\nn={}\n{COMMON}{READ}", quoted(path), from / STEP)
}
