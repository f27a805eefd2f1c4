//! What the benchmark says: rows with their bars, as JSON for programs and as a page for the documentation.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::appliance::Appliance;
use crate::error::{Attempt, Result};
use crate::machine::qemu_version;
use crate::phase::say;
use crate::run::Lab;

const PAGE: &str = include_str!("benchmarks.md");

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) name: String,
    /// Ours; `None` where it could not be measured, `note` then says why.
    pub(super) value: Option<f64>,
    pub(super) unit: String,
    /// The other side's, of the same run.
    pub(super) baseline: Option<f64>,
    pub(super) note: String,
}

/// What a figure has to be.
#[derive(Debug, Clone, Copy)]
enum Bar {
    /// Ours over the other side's, at most.
    Ratio(f64),
    /// Ours over the other side's, between the two.
    Like(f64, f64),
    /// Ours itself, at most.
    Value(f64),
}

/// Name, bar, what is compared.
const FIGURES: &[(&str, Option<Bar>, &str)] = &[
    (
        "lio.restore.400.vs_targetctl",
        Some(Bar::Ratio(0.05)),
        "empty configfs to 400 targets, beside `targetctl restore` of the same 400",
    ),
    (
        "lio.restore.400.vs_raw",
        Some(Bar::Ratio(0.6)),
        "the same, beside the bare minimum of system calls in one thread",
    ),
    ("lio.restore.400.lanes_alone", None, "the same without the daemon's line: lanes, plans and LIO only"),
    ("lio.restore.growth", Some(Bar::Ratio(2.8)), "1,000 targets beside 400"),
    (
        "lio.audit.400.vs_targetctl_save",
        Some(Bar::Ratio(0.03)),
        "full audit that finds nothing to do, beside `targetctl save`",
    ),
    (
        "lio.event.growth",
        Some(Bar::Ratio(1.2)),
        "one blade's target repaired, with 1,000 targets present beside 1",
    ),
    (
        "lio.event.growth.boot",
        Some(Bar::Ratio(1.2)),
        "one blade's boot request answered, with 1,000 targets present beside 1",
    ),
    (
        "lio.event.growth.frame",
        Some(Bar::Ratio(1.2)),
        "one frame of a known blade taken in, with 1,000 targets present beside 1",
    ),
    (
        "lio.syscalls_per_target",
        Some(Bar::Ratio(1.15)),
        "system calls per target created, beside the bare minimum",
    ),
    ("lio.drift_repair_ms", Some(Bar::Value(500.0)), "hand edit until it is taken back"),
    ("lio.start.1000", None, "from sheathd's start, with an empty configfs, to 1,000 targets enabled"),
    ("lio.rss_mib.1000", Some(Bar::Value(24.0)), "sheathd's resident memory with 1,000 targets"),
    ("lio.fio.vs_handmade", Some(Bar::Like(0.95, 1.05)), "the pattern below that differs most"),
    (
        "lio.fio.vs_handmade.randread",
        Some(Bar::Like(0.95, 1.05)),
        "4 KiB random reads through our LUN, beside a hand-made one",
    ),
    ("lio.fio.vs_handmade.randwrite", Some(Bar::Like(0.95, 1.05)), "4 KiB random writes"),
    ("lio.fio.vs_handmade.read", Some(Bar::Like(0.95, 1.05)), "1 MiB sequential reads"),
    (
        "lio.storm.64",
        Some(Bar::Value(0.125)),
        "share of 64 logins delayed over 5 s while a silent connection sits on one portal of eight; beside all on one portal",
    ),
    (
        "blade.ready.spare",
        None,
        "from the choice to the blade's target, of a spare; beside `lvcreate` and `targetcli` by hand",
    ),
    ("blade.ready.fresh_clone", None, "the same, of a fresh clone"),
    ("blade.pool_bytes.fresh", None, "pool space that a fresh disk takes, beside a full copy"),
    (
        "image.promote",
        Some(Bar::Ratio(1.5)),
        "a blade's disk becomes an image, from the command to its answer; beside a bare `lvcreate -s` of that disk",
    ),
    ("sheathd.rss", None, "sheathd's resident memory with one blade"),
    (
        "image.import.vs_qemu_img",
        Some(Bar::Ratio(1.1)),
        "import of a 2 GiB raw image with 400 MiB of data until it is listed, beside `qemu-img convert -W` alone",
    ),
    ("image.import.copying", None, "the process that copies it, from its start to its end, beside the same"),
    (
        "image.import.vs_by_hand",
        Some(Bar::Ratio(1.1)),
        "the import, beside `lvcreate`, `qemu-img convert -W` and two `lvchange` by hand",
    ),
    ("image.import.pool_bytes", Some(Bar::Ratio(1.05)), "pool space that it takes, beside the data in it"),
    (
        "image.import.rss_mib",
        Some(Bar::Value(40.0)),
        "largest resident memory meanwhile of sheathd and its helpers together",
    ),
    ("image.seal", None, "a small image's guest: facts, changes, facts again"),
    (
        "image.prove",
        None,
        "a small image's throw-away disk, from its making over PXE and iSCSI to the prompt, and away again",
    ),
];

/// All figures of a run.
#[derive(Debug, Default)]
pub(super) struct Report {
    rows: Vec<Row>,
    machine: String,
}

impl Row {
    /// Returns a figure.
    pub(super) fn new(name: &str, value: f64, unit: &str, baseline: Option<f64>) -> Self {
        Self { name: name.into(), value: Some(value), unit: unit.into(), baseline, note: String::new() }
    }

    /// Returns the figure with a word on how it was measured.
    #[must_use]
    pub(super) fn note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    fn ratio(&self) -> Option<f64> {
        Some((self.value? / self.baseline? * 10_000.0).round() / 10_000.0)
    }

    fn bar(&self) -> Option<Bar> {
        FIGURES.iter().find(|figure| figure.0 == self.name)?.1
    }

    fn what(&self) -> &'static str {
        FIGURES.iter().find(|figure| figure.0 == self.name).map_or("", |figure| figure.2)
    }

    /// Returns whether the figure meets its bar; one that was not measured does not. `None` where it has no bar.
    fn met(&self) -> Option<bool> {
        let ratio = self.ratio();
        Some(match self.bar()? {
            Bar::Ratio(most) => ratio.is_some_and(|ratio| ratio <= most),
            Bar::Like(least, most) => ratio.is_some_and(|ratio| (least..=most).contains(&ratio)),
            Bar::Value(most) => self.value.is_some_and(|value| value <= most),
        })
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name, "value": self.value, "unit": self.unit, "baseline": self.baseline,
            "ratio": self.ratio(), "bar": self.bar().map(|bar| bar.to_string()), "met": self.met(), "note": self.note,
        })
    }

    /// Returns the figure as a line of a Markdown table.
    fn line(&self) -> String {
        let number = |value: Option<f64>| value.map_or("-".to_owned(), short);
        let met = match self.met() {
            None => "",
            Some(true) => "met",
            Some(false) => "**NOT met**",
        };
        let (ours, theirs, ratio) = (number(self.value), number(self.baseline), number(self.ratio()));
        let bar = self.bar().map_or(String::new(), |bar| bar.to_string());
        let cells = [
            &format!("`{}`", self.name),
            self.what(),
            &ours,
            &theirs,
            &self.unit,
            &ratio,
            &bar,
            met,
            &self.note,
        ];
        format!("| {} |", cells.join(" | "))
    }
}

impl std::fmt::Display for Bar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ratio(most) => write!(f, "ratio ≤ {most}"),
            Self::Like(least, most) => write!(f, "ratio {least} to {most}"),
            Self::Value(most) => write!(f, "≤ {most}"),
        }
    }
}

/// Returns a number with as many digits as anybody reads.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

impl Report {
    /// Adds a figure.
    pub(super) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Notes what the figures are measured on: the first guest's word stands.
    pub(super) fn machine(&mut self, guest: &mut Appliance, lab: &Lab) -> Result<()> {
        if !self.machine.is_empty() {
            return Ok(());
        }
        let words = "echo \"$(date -u +%F), Linux $(uname -r), $(nproc) CPUs, \
            $(awk '/MemTotal/ { printf \"%.1f\", $2 / 1048576 }' /proc/meminfo) GiB, \
            targetcli-fb $(dpkg-query -W -f '${Version}' targetcli-fb)\"";
        let qemu = qemu_version()?;
        let qemu = qemu.split_whitespace().nth(3).unwrap_or_default();
        self.machine = format!("{}, QEMU {qemu} with {}", guest.ok(words)?.trim(), lab.accel().identity());
        Ok(())
    }

    /// Writes `target/bench/results.json` and `target/bench/table.md`, and shows the table. Returns whether every bar
    /// is met.
    #[allow(clippy::disallowed_methods, reason = "a report that the next run makes again")]
    pub(super) fn write(&self) -> Result<bool> {
        let folder = Path::new("target/bench");
        std::fs::create_dir_all(folder).attempt(|| "make folder 'target/bench'".to_owned())?;
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let results =
            serde_json::to_string_pretty(&rows).attempt(|| "write the results as JSON".to_owned())?;
        for (name, text) in [("results.json", results), ("table.md", self.page())] {
            std::fs::write(folder.join(name), text).attempt(|| format!("write 'target/bench/{name}'"))?;
        }
        self.table().lines().for_each(say);
        Ok(self.rows.iter().all(|row| row.met() != Some(false)))
    }

    fn page(&self) -> String {
        PAGE.replace("MACHINE", &self.machine).replace("TABLE\n", &self.table())
    }

    fn table(&self) -> String {
        let mut text = String::from(
            "| figure | what | ours | the other side | unit | ratio | bar | | how |\n|---|---|--:|--:|---|--:|---|---|---|\n",
        );
        let place = |row: &&Row| FIGURES.iter().position(|figure| figure.0 == row.name);
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by_key(place);
        rows.iter()
            .for_each(|row| writeln!(text, "{}", row.line()).expect("writing to a string cannot fail"));
        text
    }
}

/// Returns the middle one; of an even number, the lower of the two.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::{FIGURES, Report, Row, median};

    fn row(name: &str, value: Option<f64>, baseline: Option<f64>) -> Row {
        Row { name: name.into(), value, unit: "ms".into(), baseline, note: String::new() }
    }

    #[test]
    fn a_ratio_is_ours_over_the_baseline() {
        assert_eq!(row("a", Some(1.0), Some(4.0)).ratio(), Some(0.25));
        assert_eq!(row("a", Some(1.0), None).ratio(), None);
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert!((median(vec![9.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_bar_is_met_up_to_its_very_figure_and_not_beyond() {
        assert_eq!(row("lio.restore.400.vs_raw", Some(6.0), Some(10.0)).met(), Some(true));
        assert_eq!(row("lio.restore.400.vs_raw", Some(6.1), Some(10.0)).met(), Some(false));
        assert_eq!(row("lio.fio.vs_handmade", Some(1.06), Some(1.0)).met(), Some(false));
        assert_eq!(row("lio.fio.vs_handmade", Some(0.94), Some(1.0)).met(), Some(false));
        assert_eq!(row("sheathd.rss", Some(1e9), None).met(), None);
    }

    #[test]
    fn what_was_not_measured_meets_no_bar() {
        assert_eq!(row("lio.drift_repair_ms", None, None).met(), Some(false));
    }

    #[test]
    fn the_page_shows_figures_in_the_tables_order() {
        let mut report = Report::default();
        report.add(row(FIGURES[3].0, Some(1.0), None));
        report.add(row(FIGURES[0].0, Some(2.0), None));
        let page = report.page();
        assert!(page.find(FIGURES[0].0).unwrap() < page.find(FIGURES[3].0).unwrap(), "{page}");
        assert!(!page.contains("TABLE") && !page.contains("MACHINE"), "{page}");
    }
}
