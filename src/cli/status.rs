//! `sheath status`: how the appliance is, the problems last, where the eye ends.

use super::{
    ask,
    human::{self, NONE},
    session::Session,
    table::{BAD, FAINT, PLAIN, Table, WAITS},
};
use crate::{
    error::Result,
    status::{SlotView, Status},
};

/// Shows the status.
pub(super) fn status(session: &mut Session<'_>) -> Result<()> {
    let status = ask::status(session.ask)?;
    session.answer(&status, text)
}

fn text(status: &Status, session: &Session<'_>) -> String {
    let now = session.now;
    let up = human::span(now.saturating_sub(status.started) / 1000);
    let mut text = format!("sheathd {}, up {up}, since {}\n", status.version, human::clock(status.started));
    text += &format!("configuration loaded {}\n", human::when(now, status.config_loaded));
    text += &match &status.pool {
        Some(pool) => format!(
            "pool of {}: data {}, metadata {}\n",
            pool.size.human(),
            human::percent(pool.data_percent),
            human::percent(pool.metadata_percent)
        ),
        None => format!("{}\n", session.paint(WAITS, "pool: LVM could not be asked")),
    };
    text += &format!("{}\n\n", blades(status));
    text += &session.table(&slots(&status.slots));
    text + &faults(status, session) + &problems(status, session)
}

fn blades(status: &Status) -> String {
    let phases: Vec<_> =
        status.blades.iter().map(|(phase, n)| format!("{n} {}", human::phase(*phase))).collect();
    match phases.is_empty() {
        true => "no blades".into(),
        false => format!("blades: {}", phases.join(", ")),
    }
}

fn slots(slots: &[SlotView]) -> Table {
    let mut table = Table::new(&["SLOT", "PORT", "LINK"]).right(0);
    for slot in slots {
        let (link, style) = match slot.carrier {
            Some(true) => ("up", PLAIN),
            Some(false) => (NONE, FAINT),
            None => ("port missing", BAD),
        };
        table.row(style, [slot.slot.to_string(), slot.port.to_string(), link.into()]);
    }
    table
}

fn faults(status: &Status, session: &Session<'_>) -> String {
    if status.config_faults.is_empty() {
        return String::new();
    }
    let head = session.paint(BAD, "A newer configuration was refused; the one before is in force:");
    let faults = status.config_faults.iter().map(|fault| format!("  {}\n", human::tame(fault)));
    format!("\n{head}\n{}", faults.collect::<String>())
}

fn problems(status: &Status, session: &Session<'_>) -> String {
    if status.problems.is_empty() {
        return String::new();
    }
    let lines = status.problems.iter().map(|problem| {
        let since = human::when(session.now, problem.since);
        format!("  {}: {}\n    since {since}\n", human::tame(&problem.about), human::tame(&problem.text))
    });
    format!("\n{}\n{}", session.paint(BAD, "Problems:"), lines.collect::<String>())
}
