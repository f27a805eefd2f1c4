//! The kernel tier: real configfs, LIO, device-mapper, LVM thin, netlink and udev, an iSCSI initiator that logs in.
//!
//! Each `kernel_…` test starts an appliance of the lab (a stock Debian kernel, systemd as PID 1) and runs this very
//! program in it, which then runs the `vm_` tests below: they change the kernel that they run on, so they are ignored
//! unless asked for and refuse to run outside a guest (`SHEATH_GUEST=1`). `SHEATH_TESTS=vm_a_word` runs only those of
//! this name. What starts guests of its own has an appliance for that: `kernel_6_12_with_guests`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "tests drive the guest's own tools and wait for its devices")]

#[path = "kernel/adopt.rs"]
mod adopt;
#[path = "kernel/blade.rs"]
mod blade;
#[path = "kernel/conformance.rs"]
mod conformance;
#[path = "kernel/crash.rs"]
mod crash;
#[path = "kernel/drift.rs"]
mod drift;
#[path = "kernel/drift_line.rs"]
mod drift_line;
#[path = "kernel/first_boot.rs"]
mod first_boot;
#[path = "kernel/foreign_tools.rs"]
mod foreign_tools;
#[path = "kernel/freeze.rs"]
mod freeze;
#[path = "kernel/full.rs"]
mod full;
#[path = "kernel/guest.rs"]
mod guest;
#[path = "kernel/hand.rs"]
mod hand;
#[path = "kernel/hang.rs"]
mod hang;
#[path = "kernel/import.rs"]
mod import;
#[path = "kernel/import_crash.rs"]
mod import_crash;
#[path = "kernel/import_iscsi.rs"]
mod import_iscsi;
#[path = "kernel/import_refusals.rs"]
mod import_refusals;
#[path = "kernel/import_sources.rs"]
mod import_sources;
#[path = "kernel/import_ssh.rs"]
mod import_ssh;
#[path = "kernel/initiator.rs"]
mod initiator;
#[path = "kernel/lio.rs"]
mod lio;
#[path = "kernel/lio_sessions.rs"]
mod lio_sessions;
#[path = "kernel/lvm.rs"]
mod lvm;
#[path = "kernel/net.rs"]
mod net;
#[path = "kernel/plans.rs"]
mod plans;
#[path = "kernel/promote.rs"]
mod promote;
#[path = "kernel/proof.rs"]
mod proof;
#[path = "kernel/refusals.rs"]
mod refusals;
#[path = "kernel/sessions.rs"]
mod sessions;
#[path = "kernel/workshop.rs"]
mod workshop;

use std::path::Path;

use sheath_lab::{Appliance, Lab, Output, Payload, Release, Result, Stage, again, phase::say, secs, until};

/// Makes the guest what the tests expect: modules, folders, the product's own program for the import's sandbox.
const PREPARE: &str = "mkdir -p /etc/target/pr /etc/target/alua \
    && modprobe -a configfs dm_mod dm_thin_pool loop null_blk \
    && modprobe -a target_core_mod target_core_iblock iscsi_target_mod iscsi_tcp sd_mod bridge veth \
    && ip link set lo up && install -m 755 /payload/sheath /usr/bin/sheath";

/// What the package recommends and the guest has not: this machine's own are put there.
const UNPACKERS: [&str; 2] = ["/usr/bin/xz", "/usr/bin/bzip2"];
const ADD_UNPACKERS: &str = "for program in xz bzip2; do \
    [ -e /usr/bin/$program ] || [ ! -e /payload/$program ] || install -m 755 /payload/$program /usr/bin; done";

/// What takes minutes has its turn on one of them, so that both guests are done at about the same time, and a run has an end: where
/// images come from, conformance, drift and a pool that fills up on the older one; formats, and what LVM does at a promotion, on the
/// newer one. The verbs themselves (LIO, LVM, netlink, sessions, crashes) have theirs on both.
fn left_to_the_other(release: Release) -> &'static [&'static str] {
    match release {
        Release::Bookworm => &["import::", "promote::", "adopt::", "first_boot::"],
        Release::Trixie => &[
            "import_crash::",
            "import_refusals::",
            "import_sources::",
            "import_ssh::",
            "import_iscsi::",
            "freeze::",
            "conformance::",
            "drift::",
            "full::",
        ],
    }
}

/// What starts guests of its own, on the newer kernel alone.
const GUESTS: [&str; 2] = ["proof::", "workshop::"];

/// Puts before each line at which second it came.
const CLOCK: &str = r#"while IFS= read -r line; do printf "%5d %s\n" $SECONDS "$line"; done"#;

/// Emulated, all of it has taken a quarter of an hour; a neighbour on the same cores may double that, and a slow machine once more.
const BOUND: std::time::Duration = secs(3600);
/// So many tests may fail and be tried once more: more than that is no chance.
const FEW: usize = 2;

#[test]
fn kernel_6_12() {
    run_on(Lab::new("kernel").unwrap(), &usual(Release::Trixie));
}

#[test]
fn kernel_6_12_with_guests() {
    run_on(Lab::new("kernel").unwrap().with_guests(), &GUESTS.join(" "));
}

#[test]
fn kernel_6_1() {
    run_on(Lab::new("kernel").unwrap().on(Release::Bookworm), &usual(Release::Bookworm));
}

/// Returns the words that choose a release's share of the tests.
fn usual(release: Release) -> String {
    let left = left_to_the_other(release).iter().chain(&GUESTS).map(|module| format!("--skip {module} "));
    format!("{}vm_", left.collect::<String>())
}

/// A disk with one partition, as small as an image can be.
const TINY_IMAGE: &str =
    "truncate -s 64M /run/tiny.raw && echo 'start=2048, type=linux' | sfdisk -q -X gpt /run/tiny.raw";
/// What went wrong beside the program: units that failed, keys in ours that an older systemd does not know.
const COMPLAINTS: &str = "systemctl --failed --plain --no-legend; \
    journalctl -b --no-pager | grep -iE 'unknown (key|lvalue|section).*sheath|sheath.*unknown (key|lvalue|section)' || true; \
    journalctl -b --no-pager -p warning -t sheathd -t sheath-bootd -o cat";

/// The chassis tier has the package on Debian 13; here it has to come up on Debian 12.
#[test]
fn the_package_comes_up_on_debian_12() {
    if std::env::var_os("SHEATH_DEB").is_none() {
        return say("skipped: SHEATH_DEB names no package (make does)");
    }
    again::twice("the package on Debian 12", comes_up);
}

fn comes_up() {
    let mut stage = Stage::empty(Lab::new("bookworm").unwrap().on(Release::Bookworm)).unwrap();
    stage.install().unwrap();
    stage.set_up("").unwrap();
    let active = "systemctl is-active sheathd sheath-bootd sheath-dnsmasq";
    assert_eq!(stage.appliance.ok(active).unwrap().split_whitespace().collect::<Vec<_>>(), ["active"; 3]);
    let status = stage.sheath("status").unwrap();
    assert_eq!(status["problems"], serde_json::json!([]), "{status}");
    stage.appliance.ok(TINY_IMAGE).unwrap();
    stage.appliance.ok("sheath image import tiny /run/tiny.raw --publish --unproved").unwrap();
    assert_eq!(
        stage.sheath("images").unwrap()[0]["image"],
        "tiny@1",
        "it is listed when it is reported as done"
    );
    imports_outlive_the_agent(&mut stage);
    takes_a_target_over(&mut stage);
    stage.appliance.ok("systemctl restart sheathd && sheath status").unwrap();
    assert_eq!(stage.appliance.ok(COMPLAINTS).unwrap(), "");
}

/// A disk whose import takes some seconds.
const LARGE_IMAGE: &str = "cp /run/tiny.raw /var/tmp/large.raw && truncate -s 600M /var/tmp/large.raw && \
    head -c 500M /dev/zero | tr '\\0' x | dd of=/var/tmp/large.raw bs=1M seek=65 conv=notrunc status=none";

/// What a command says that is not waited for.
const SHOWN: &str = "/run/shown";

/// Stops the processes of an import as soon as there are some.
const STAND_STILL: &str = "for turn in $(seq 600); do \
    pkill --signal STOP --full 'sheath internal-cop[y]' && exit 0; sleep 0.1; done; exit 1";

/// An import goes on by itself when the agent is killed, and when it is restarted; a cancelled one leaves nothing.
fn imports_outlive_the_agent(stage: &mut Stage) {
    let import = "sheath image import large /var/tmp/large.raw";
    stage.appliance.ok(LARGE_IMAGE).unwrap();
    for end in ["systemctl kill --kill-whom=main --signal=KILL sheathd", "systemctl restart sheathd"] {
        stage
            .appliance
            .ok(&format!("setsid sh -c '{import}; echo status $?' > {SHOWN} 2>&1 < /dev/null &"))
            .unwrap();
        // Its child stands still, so that it cannot be whole before the agent's end.
        stage.appliance.ok(STAND_STILL).unwrap();
        stage.appliance.ok(end).unwrap();
        // Who has asked for it sees it to its end.
        let shown = until("the command's end", secs(240), || {
            Some(stage.appliance.ok(&format!("cat {SHOWN}")).ok()?).filter(|shown| shown.contains("status "))
        });
        let shown = shown.unwrap();
        assert!(shown.ends_with("image 'large' is imported, not published\nstatus 0\n"), "{end}: {shown}");
        let images = stage.sheath("images").unwrap();
        let large: Vec<_> = images.as_array().unwrap().iter().map(|image| image["image"].clone()).collect();
        assert_eq!(large, ["large@1", "tiny@1"], "{end}");
        stage.appliance.ok("sheath image remove large@1 --yes").unwrap();
        until("its end", secs(60), || (stage.sheath("images").ok()?.as_array()?.len() == 1).then_some(()))
            .unwrap();
    }
    // Nor before it is cancelled.
    stage.appliance.ok(&format!("{import} --no-wait; {STAND_STILL}")).unwrap();
    stage.appliance.ok("sheath image cancel large").unwrap();
    let left = "ls -d /var/lib/sheath/import-* 2>/dev/null; systemctl list-units --all --plain --no-legend 'sheath-import-*'";
    until("nothing to be left", secs(60), || {
        let listed = stage.sheath("images").ok()?.as_array()?.len();
        let left = stage.appliance.run(left).ok()?;
        (listed == 1 && left.stdout.trim().is_empty()).then_some(())
    })
    .unwrap();
}

/// What an administrator types who has a target by hand: a thin volume with some words on it.
const BY_HAND: &str = "systemctl start dbus
    lvcreate -y -qq -V 64m --thinpool pool -n byhand sheath && echo words | dd of=/dev/sheath/byhand conv=fsync status=none
    targetcli /backstores/block create byhand /dev/sheath/byhand && targetcli set global auto_add_default_portal=false
    targetcli /iscsi create iqn.2003-01.org.example:byhand
    targetcli /iscsi/iqn.2003-01.org.example:byhand/tpg1/luns create /backstores/block/byhand";

/// The installed agent, in its unit's sandbox, takes a target over that targetcli has made.
fn takes_a_target_over(stage: &mut Stage) {
    stage.appliance.ok(BY_HAND).unwrap();
    let adopt = "adopt iqn.2003-01.org.example:byhand --slot 2 --blade 52:54:00:5a:ff:02";
    let plan = stage.sheath(&format!("{adopt} --dry-run")).unwrap();
    assert_eq!(plan[0]["steps"][0]["step"], "remove-foreign", "{plan}");
    assert!(stage.appliance.ok("targetcli ls").unwrap().contains("org.example:byhand"), "a dry run");
    let done = stage.sheath(&format!("{adopt} --yes")).unwrap();
    assert!(done["message"].as_str().unwrap().contains("'byhand' is the disk of blade"), "{done}");
    let blade = stage.blade(2).unwrap();
    let disk = format!("/dev/sheath/sheath-vol-{}", blade["volume"].as_str().unwrap());
    assert_eq!(stage.appliance.ok(&format!("head -c 5 {disk}")).unwrap(), "words");
    let left = stage.appliance.ok("targetcli ls").unwrap();
    assert!(!left.contains("byhand") && left.contains("b-5254005aff02"), "{left}");
}

/// Runs the tests that `which` chooses in an appliance of this run and shows what they say. What fails, and what the emulator has
/// lost with its appliance, is done once more, in another one: what a failed test leaves is in its own way.
fn run_on(lab: Lab, which: &str) {
    // Whoever names tests wants them on the kernel that he names, too.
    let which = std::env::var("SHEATH_TESTS").unwrap_or_else(|_| which.to_owned());
    let (why, which) = match pass_in(&lab, &which) {
        Ok(failed) if failed.is_empty() => return,
        Ok(failed) => {
            assert!(failed.len() <= FEW, "tests failed in the guest: {}", failed.join(", "));
            (failed.join(", "), format!("--exact {}", failed.join(" ")))
        }
        Err(error) => (error.to_string(), which),
    };
    again::tell(&format!("Linux {}: {why}", lab.release().kernel()));
    let failed = pass_in(&lab.another("kernel-again").unwrap(), &which).unwrap();
    assert!(failed.is_empty(), "tests failed in the guest, and once more: {}", failed.join(", "));
}

/// Does that in one appliance, and returns which tests have failed.
///
/// # Errors
/// What became of the appliance.
fn pass_in(lab: &Lab, which: &str) -> Result<Vec<String>> {
    let release = lab.release();
    let mut payload = Payload::new()
        .file("kernel", std::env::current_exe().unwrap())
        .file("sheath", env!("CARGO_BIN_EXE_sheath"));
    for program in UNPACKERS.map(Path::new).into_iter().filter(|program| program.exists()) {
        payload = payload.file(program.file_name().unwrap().to_str().unwrap(), program);
    }
    let mut appliance = Appliance::booted(lab, &payload)?;
    let version = appliance.ok("uname -r")?;
    assert!(version.starts_with(&format!("{}.", release.kernel())), "this kernel is {version}");
    if !runs_here(&mut appliance)? {
        say(&format!("skipped on Linux {}: built for a newer C library than its Debian has", version.trim()));
        return Ok(vec![]);
    }
    appliance.ok(PREPARE)?;
    appliance.ok(ADD_UNPACKERS)?;
    say(&format!("Linux {}", version.trim()));
    let output = run_tests(&mut appliance, which)?;
    say(&format!("the slowest of them: {}", slowest(&output.stdout).join(", ")));
    let failed = failed(&output.stdout);
    assert_eq!(output.code == 0, failed.is_empty(), "the tests broke off in the guest");
    assert!(!failed.is_empty() || output.stdout.contains("test result: ok"), "no test ran in the guest");
    Ok(failed)
}

/// Runs the tests that these words choose, and shows what they say.
fn run_tests(appliance: &mut Appliance, which: &str) -> Result<Output> {
    let tests = format!(
        "SHEATH_GUEST=1 SHEATH_TEST_DISK=/dev/vdb /payload/kernel --ignored --test-threads=1 {which} 2>&1"
    );
    // On the console, too: what a guest said is then known even where it never comes to its end.
    let command = format!("bash -o pipefail -c '{tests} | {CLOCK} | tee /dev/ttyS0'");
    let output = appliance.run_within(&command, BOUND)?;
    say(&output.stdout);
    Ok(output)
}

/// Returns the tests that the runner's own list of failures names: the last one in what it said.
fn failed(said: &str) -> Vec<String> {
    let lines: Vec<_> = said.lines().filter_map(|line| line.trim_start().split_once(' ')).collect();
    let from =
        lines.iter().rposition(|(_, line)| line.trim() == "failures:").map_or(lines.len(), |at| at + 1);
    let listed = lines[from..].iter().map(|(_, line)| line.trim());
    let tests =
        listed.take_while(|line| !line.starts_with("test result:")).filter(|line| line.contains("::"));
    tests.map(str::to_owned).collect()
}

/// Returns the ten tests that took longest, with how long. A test lasts until the last line before the next one's.
fn slowest(said: &str) -> Vec<String> {
    let (mut took, mut last, mut begun) = (vec![], 0_u32, 0);
    for (at, line) in said.lines().filter_map(|line| line.trim_start().split_once(' ')) {
        let Ok(at) = at.parse() else { continue };
        if let Some((test, _)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            took.push((0, test));
            begun = last;
        }
        if let Some(current) = took.last_mut().filter(|_| !line.is_empty()) {
            current.0 = at - begun;
        }
        last = at;
    }
    took.sort_unstable_by_key(|(seconds, _)| std::cmp::Reverse(*seconds));
    took.iter().take(10).map(|(seconds, test)| format!("{seconds} s {test}")).collect()
}

/// Returns whether this program starts there: one that was built on a newer Debian may not.
fn runs_here(appliance: &mut Appliance) -> Result<bool> {
    let tried = appliance.run("/payload/kernel --list")?;
    let foreign = tried.stderr.contains("GLIBC_");
    assert!(foreign || tried.code == 0, "{}", tried.stderr);
    Ok(!foreign)
}

#[test]
fn the_slowest_tests_are_found_by_the_clock_before_each_line() {
    let said = "    0 running 3 tests\n    7 test a::vm_one ... ok\n    8 test b::vm_two ... it says\n   20 ok\n\
                22 test c::vm_three ... FAILED\n   22 \nno time\n";
    assert_eq!(slowest(said), ["13 s b::vm_two", "7 s a::vm_one", "2 s c::vm_three"]);
}

#[test]
fn what_failed_is_read_from_the_runners_own_list() {
    let said = "    9 test a::vm_one ... FAILED\n    9 failures:\n    9 ---- a::vm_one stdout ----\n    9 thread panicked: x::y\n\
                9 failures:\n    9     a::vm_one\n    9     b::vm_two\n    9 \n    9 test result: FAILED. 1 passed; c::d\n";
    assert_eq!(failed(said), ["a::vm_one", "b::vm_two"]);
    assert_eq!(
        failed("    9 test a::vm_one ... ok\n    9 test result: ok. 1 passed\n"),
        Vec::<String>::new()
    );
}

#[test]
fn what_one_kernel_leaves_to_the_other_is_not_left_by_that_one_too() {
    for module in left_to_the_other(Release::Bookworm) {
        let mut others = left_to_the_other(Release::Trixie).iter();
        assert!(others.all(|other| !other.contains(module) && !module.contains(other)), "{module}");
    }
}
