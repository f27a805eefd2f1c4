//! The benchmark: what the agent does, beside the same done with LVM's and LIO's own tools, in the same guest and the same
//! run. Prints a table and writes `target/bench/results.json`: a list of `{name, value, unit, baseline, ratio}`.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::blade::{Blade, Firmware, Spec};
use crate::error::{Attempt, Result};
use crate::phase::{say, timed};
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

/// Runs it.
///
/// # Errors
/// What did not work.
pub fn run() -> Result<()> {
    let mut stage = Stage::ready("bench")?;
    stage.appliance.ok("systemctl start dbus; targetcli ls >/dev/null")?;
    let blade = see_a_blade(&mut stage)?;
    // Fresh clones first: a spare that is once made is always taken.
    let (mut fresh, mut spare, mut hand) = (vec![], vec![], vec![]);
    for round in 1..=ROUNDS {
        timed(&format!("round {round}: a fresh clone, and by hand"), || {
            fresh.push(install(&mut stage)?);
            release(&mut stage)?;
            hand.push(by_hand(&mut stage)?);
            Ok(())
        })?;
    }
    let bytes = pool_bytes(&mut stage)?;
    release(&mut stage)?;
    for round in 1..=ROUNDS {
        timed(&format!("round {round}: a spare"), || {
            one_spare(&mut stage)?;
            spare.push(install(&mut stage)?);
            release(&mut stage)
        })?;
    }
    let hand = median(hand);
    let results = json!([
        row("blade.ready.spare", median(spare), "ms", Some(hand)),
        row("blade.ready.fresh_clone", median(fresh), "ms", Some(hand)),
        row("blade.pool_bytes.fresh", bytes.0, "bytes", Some(bytes.1)),
        row("sheathd.rss", resident(&mut stage)?, "KiB", None),
    ]);
    blade.power_off();
    report(&results)
}

/// Puts a machine in slot 1 that waits for the administrator.
fn see_a_blade(stage: &mut Stage) -> Result<Blade> {
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
fn install(stage: &mut Stage) -> Result<f64> {
    stage.appliance.ok(&format!("sheath blade install 1 {IMAGE} --yes"))?;
    until("the blade's target", READY_BOUND, || {
        let times = stage.blade(1).ok()?["times"].clone();
        let (ready, choice) = (times["target-ready"].as_u64()?, times["choice"].as_u64()?);
        #[allow(clippy::cast_precision_loss, reason = "milliseconds of some seconds")]
        (ready >= choice).then(|| (ready - choice) as f64)
    })
}

fn release(stage: &mut Stage) -> Result<()> {
    stage.appliance.ok("sheath blade release 1 --yes")?;
    until("the released disk's end", READY_BOUND, || {
        (stage.sheath("images").ok()?[0]["disks"].as_u64()? == 0).then_some(())
    })
}

/// Does the same with `lvcreate -s` and `targetcli`, and returns how long that took, in milliseconds.
fn by_hand(stage: &mut Stage) -> Result<f64> {
    let begin = Instant::now();
    stage.appliance.agent().run_within(BY_HAND, secs(240))?.ok()?;
    let took = begin.elapsed().as_secs_f64() * 1000.0;
    stage.appliance.agent().run_within(UNDO_BY_HAND, secs(240))?.ok()?;
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

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn row(name: &str, value: f64, unit: &str, baseline: Option<f64>) -> Value {
    let ratio = baseline.map(|baseline| (value / baseline * 10_000.0).round() / 10_000.0);
    json!({ "name": name, "value": value, "unit": unit, "baseline": baseline, "ratio": ratio })
}

#[allow(clippy::disallowed_methods, reason = "a report that the next run makes again")]
fn report(results: &Value) -> Result<()> {
    for row in results.as_array().into_iter().flatten() {
        say(&format!(
            "{}: {} {} (by hand {}, ratio {})",
            row["name"], row["value"], row["unit"], row["baseline"], row["ratio"]
        ));
    }
    let folder = Path::new("target/bench");
    std::fs::create_dir_all(folder).attempt(|| "make folder 'target/bench'".to_owned())?;
    let text = serde_json::to_string_pretty(results).attempt(|| "write the results as JSON".to_owned())?;
    std::fs::write(folder.join("results.json"), text)
        .attempt(|| "write 'target/bench/results.json'".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{median, row};

    #[test]
    fn a_ratio_is_ours_over_the_baseline() {
        assert_eq!(row("a", 1.0, "ms", Some(4.0))["ratio"], 0.25);
        assert!(row("a", 1.0, "ms", None)["ratio"].is_null());
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert!((median(vec![9.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
    }
}
