//! A blade's install, from the choice to its target, with the package on the appliance; beside the same by hand with
//! LVM's and LIO's own tools.

use std::time::{Duration, Instant};

use super::report::{Report, Row, median};
use crate::blade::{Blade, Firmware, Spec};
use crate::error::{Attempt, Result};
use crate::phase::timed;
use crate::stage::{IMAGE, Stage};
use crate::wait::{secs, until};

/// How often each side is measured, in turn; medians are reported.
const ROUNDS: usize = 3;
/// A clone with its target takes some seconds emulated.
const READY_BOUND: Duration = secs(120);

/// What an administrator types for one blade, without our agent. Secrets as an example has them.
const BY_HAND: &str = "set -e
lvcreate -qq -s -kn -n hand sheath/sheath-img-debian13 -K
t=iqn.2003-01.org.example:hand i=iqn.2003-01.org.example:initiator
targetcli /backstores/block create hand /dev/sheath/hand
targetcli /iscsi create $t
targetcli /iscsi/$t/tpg1 set attribute authentication=1
targetcli /iscsi/$t/tpg1/luns create /backstores/block/hand
targetcli /iscsi/$t/tpg1/acls create $i
targetcli /iscsi/$t/tpg1/acls/$i set auth userid=hand password=secretsecret1";

const UNDO_BY_HAND: &str = "targetcli /iscsi delete iqn.2003-01.org.example:hand
targetcli /backstores/block delete hand
lvremove -qq -y sheath/hand";

/// The figures of this part.
pub(super) const NAMES: &[&str] =
    &["blade.ready.spare", "blade.ready.fresh_clone", "blade.pool_bytes.fresh", "sheathd.rss"];

/// Measures both kinds of install in turn; the blade has no disk before and after.
///
/// # Errors
/// What did not work.
pub(super) fn run(stage: &mut Stage, report: &mut Report) -> Result<()> {
    stage.appliance.ok("systemctl start dbus; targetcli ls >/dev/null")?;
    // Fresh clones first: a spare that is once made is always taken.
    let (mut fresh, mut spare, mut hand) = (vec![], vec![], vec![]);
    for round in 1..=ROUNDS {
        timed(&format!("round {round}: a fresh clone, and by hand"), || {
            fresh.push(install(stage)?);
            release(stage)?;
            hand.push(by_hand(stage)?);
            Ok(())
        })?;
    }
    let bytes = pool_bytes(stage)?;
    release(stage)?;
    for round in 1..=ROUNDS {
        timed(&format!("round {round}: a spare"), || {
            one_spare(stage)?;
            spare.push(install(stage)?);
            release(stage)
        })?;
    }
    let hand = median(hand);
    let rounds = format!("{ROUNDS} rounds in turn");
    report.add(Row::new("blade.ready.spare", median(spare), "ms", Some(hand)).note(&rounds));
    report.add(Row::new("blade.ready.fresh_clone", median(fresh), "ms", Some(hand)).note(&rounds));
    report.add(Row::new("blade.pool_bytes.fresh", bytes.0, "bytes", Some(bytes.1)));
    report.add(Row::new("sheathd.rss", resident(stage)?, "KiB", None));
    Ok(())
}

/// Puts a machine in slot 1 that waits for the administrator.
pub(super) fn see_a_blade(stage: &mut Stage) -> Result<Blade> {
    stage
        .appliance
        .ok("sed -i 's/^#policy = \"prompt\"/policy = \"wait\"/' /etc/sheath/sheath.toml; sheath reload")?;
    stage.appliance.plug(1)?;
    let blade = Blade::power_on(&stage.lab, Spec::new(1, Firmware::Bios))?;
    until("the blade in slot 1", secs(120), || stage.blade(1).ok())?;
    Ok(blade)
}

/// Has one spare kept, and waits until it is there.
fn one_spare(stage: &mut Stage) -> Result<()> {
    let text = format!("\\n[image.{IMAGE}]\\nspares = 1\\n");
    let file = "/etc/sheath/sheath.toml";
    stage.appliance.ok(&format!(
        "grep -q '^.image.{IMAGE}' {file} || {{ printf '{text}' >> {file}; sheath reload; }}"
    ))?;
    until("the spare", READY_BOUND, || {
        (stage.sheath("images").ok()?[0]["spares"].as_u64()? >= 1).then_some(())
    })
}

/// Has the operator choose, and returns the time from the choice to the target's being ready, in milliseconds.
pub(super) fn install(stage: &mut Stage) -> Result<f64> {
    stage.appliance.ok(&format!("sheath blade install 1 {IMAGE} --yes"))?;
    until("the blade's target", READY_BOUND, || {
        let times = stage.blade(1).ok()?["times"].clone();
        let (ready, choice) = (times["target-ready"].as_u64()?, times["choice"].as_u64()?);
        #[allow(clippy::cast_precision_loss, reason = "milliseconds of some seconds")]
        (ready >= choice).then(|| (ready - choice) as f64)
    })
}

/// Takes the blade's disk away again.
pub(super) fn release(stage: &mut Stage) -> Result<()> {
    stage.appliance.ok("sheath blade release 1 --yes")?;
    until("the released disk's end", READY_BOUND, || {
        (stage.sheath("images").ok()?[0]["disks"].as_u64()? == 0).then_some(())
    })
}

/// Does the same with `lvcreate -s` and `targetcli`, and returns how long that took, in milliseconds.
fn by_hand(stage: &mut Stage) -> Result<f64> {
    let begin = Instant::now();
    stage.appliance.run_within(BY_HAND, secs(240))?.ok()?;
    let took = begin.elapsed().as_secs_f64() * 1000.0;
    stage.appliance.run_within(UNDO_BY_HAND, secs(240))?.ok()?;
    Ok(took)
}

/// Returns the bytes of the pool that a fresh blade's disk takes, and that a full copy of the image would take.
fn pool_bytes(stage: &mut Stage) -> Result<(f64, f64)> {
    let before = used(stage)?;
    install(stage)?;
    Ok((used(stage)? - before, before))
}

/// Returns how many bytes of the pool are in use: device-mapper counts chunks, LVM only shows hundredths of a percent.
fn used(stage: &mut Stage) -> Result<f64> {
    let words = "chunk=$(lvs --noheadings --units b --nosuffix -o chunk_size sheath/pool | tr -d ' '); sync; \
        dmsetup status sheath-pool-tpool | awk -v chunk=$chunk '{ split($6, data, \"/\"); print data[1] * chunk }'";
    let text = stage.appliance.ok(words)?;
    text.trim().parse().attempt(|| format!("read the pool's fill from '{text}'"))
}

/// Returns sheathd's resident memory in KiB.
fn resident(stage: &mut Stage) -> Result<f64> {
    let words =
        "sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$(systemctl show -P MainPID sheathd)/status";
    let text = stage.appliance.ok(words)?;
    text.trim().parse().attempt(|| format!("read sheathd's resident memory from '{text}'"))
}
