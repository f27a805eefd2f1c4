//! The engine without LVM: the benchmark's own program in a bare appliance, one part after the other.

use std::path::Path;

use serde_json::Value;

use super::{Report, Row};
use crate::appliance::Appliance;
use crate::error::{Attempt, Result};
use crate::payload::Payload;
use crate::phase::{say, timed};
use crate::run::Lab;
use crate::wait::secs;

/// The longest part is `targetctl restore` of 400 targets: eight minutes emulated, on an idle machine.
const BOUND: std::time::Duration = secs(2400);
/// As many devices as the largest part has blades.
const DEVICES: &str = "1000";

/// Words for the program, and the figures that they give.
const PARTS: &[(&str, &[&str])] = &[
    ("restore 400 3", &["lio.restore.400.vs_raw", "lio.restore.400.lanes_alone"]),
    ("syscalls 40", &["lio.syscalls_per_target"]),
    ("growth 2", &["lio.restore.growth"]),
    ("event 1000 600", &["lio.event.growth", "lio.event.growth.boot", "lio.event.growth.frame"]),
    (
        "fio 40",
        &[
            "lio.fio.vs_handmade",
            "lio.fio.vs_handmade.randread",
            "lio.fio.vs_handmade.randwrite",
            "lio.fio.vs_handmade.read",
        ],
    ),
    ("storm 64", &["lio.storm.64"]),
    ("targetctl 400 2", &["lio.audit.400.vs_targetctl_save", "lio.restore.400.vs_targetctl"]),
];

/// All figures of [`PARTS`], for the choice of parts.
pub(super) const NAMES: &[&str] = &[
    "lio.restore.400.vs_raw",
    "lio.restore.400.lanes_alone",
    "lio.syscalls_per_target",
    "lio.restore.growth",
    "lio.event.growth",
    "lio.event.growth.boot",
    "lio.event.growth.frame",
    "lio.fio.vs_handmade",
    "lio.fio.vs_handmade.randread",
    "lio.fio.vs_handmade.randwrite",
    "lio.fio.vs_handmade.read",
    "lio.storm.64",
    "lio.audit.400.vs_targetctl_save",
    "lio.restore.400.vs_targetctl",
];

/// Measures the wanted parts.
///
/// # Errors
/// The guest's, or a part's own words.
pub(super) fn run(program: &Path, wanted: &dyn Fn(&[&str]) -> bool, report: &mut Report) -> Result<()> {
    let lab = Lab::new("bench")?;
    let mut guest = Appliance::booted(&lab, &Payload::new().file("figures", program))?;
    report.machine(&mut guest, &lab)?;
    part(&mut guest, &format!("prepare {DEVICES}"))?;
    for (words, names) in PARTS.iter().filter(|(_, names)| wanted(names)) {
        let rows = timed(&format!("{}: {words}", names[0]), || part(&mut guest, words))?;
        rows.into_iter().for_each(|row| report.add(row));
    }
    Ok(())
}

/// Has the program do one part in the guest; returns its figures.
pub(super) fn part(guest: &mut Appliance, words: &str) -> Result<Vec<Row>> {
    let output = guest.run_within(&format!("SHEATH_GUEST=1 /payload/figures {words}"), BOUND)?;
    output.stderr.lines().for_each(say);
    let lines = output.ok()?;
    lines.lines().map(row).collect()
}

fn row(line: &str) -> Result<Row> {
    let value: Value = serde_json::from_str(line).attempt(|| format!("read the figure '{line}'"))?;
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    Ok(Row {
        name: text("name"),
        value: value["value"].as_f64(),
        unit: text("unit"),
        baseline: value["baseline"].as_f64(),
        note: text("note"),
    })
}

#[cfg(test)]
mod tests {
    use super::{NAMES, PARTS, row};

    #[test]
    fn every_parts_figures_can_be_asked_for() {
        let all: Vec<&str> = PARTS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        assert_eq!(all, NAMES);
    }

    #[test]
    fn a_figure_that_could_not_be_measured_has_no_value() {
        let row = row(r#"{"name":"a","value":null,"unit":"ms","baseline":null,"note":"why"}"#).unwrap();
        assert_eq!((row.value, row.note.as_str()), (None, "why"));
    }
}
