//! A network of its own for a test: bridges and cables that vanish with the test's process.

use std::{
    path::Path,
    process::{Command, Stdio},
};

/// Says that this process is the one inside the namespace.
const INSIDE: &str = "SHEATH_TEST_NAMESPACE";

/// Runs `body` in a network namespace of its own, by running the test `name` (its path without the crate) once more.
///
/// Skips with a sentence where it cannot.
#[allow(clippy::disallowed_methods, reason = "a test starts itself")]
pub(crate) fn in_namespace(name: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        // Named namespaces live in a folder of this mount namespace alone; /sys shows this network namespace.
        shell("mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && mount -t sysfs sysfs /sys");
        return body();
    }
    if !nix::unistd::geteuid().is_root() || !Path::new("/usr/bin/unshare").exists() {
        eprintln!("skipped '{name}': a network namespace needs root and unshare(1)");
        return;
    }
    let output = Command::new("/usr/bin/unshare")
        .args(["--net", "--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--include-ignored"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    // A name that matches no test would pass, having tested nothing.
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs a line of shell and returns what it said.
#[allow(clippy::disallowed_methods, reason = "the test's own hands")]
pub(crate) fn shell(line: &str) -> String {
    let output = Command::new("/bin/sh").arg("-ec").arg(line).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Lays a cable: `port` here, `eth0` of a new namespace `blade` there, with this MAC.
pub(crate) fn plug_blade(port: &str, blade: &str, mac: &str) {
    shell(&format!(
        "ip netns add {blade}
         ip link add {port} type veth peer name eth0 netns {blade} address {mac}"
    ));
}

/// Lets the blade send its first frames: its end of the cable is up, has an address and asks for 10.99.0.1.
pub(crate) fn wake_blade(blade: &str, ip: &str) {
    shell(&format!("ip -n {blade} addr add {ip}/24 dev eth0; ip -n {blade} link set eth0 up"));
    shell(&format!("ip netns exec {blade} bash -c 'echo > /dev/udp/10.99.0.1/9'"));
}
