//! `sheath targets`: all iSCSI targets of this machine, from configfs itself, ours and foreign.

use super::{
    ask,
    human::NONE,
    session::Session,
    table::{FAINT, PLAIN, Table, WAITS},
};
use crate::{
    error::Result,
    host::{SessionKind, TargetSummary},
};

/// Lists the targets.
pub(super) fn list(session: &mut Session<'_>) -> Result<()> {
    let targets = ask::targets(session.ask)?;
    session.answer(&targets, |targets, session| match targets.is_empty() {
        true => "no targets\n".into(),
        false => session.table(&table(targets)),
    })
}

fn table(targets: &[TargetSummary]) -> Table {
    let mut table = Table::new(&["TARGET", "WHOSE", "STATE", "PORTALS", "DEVICES", "LOGGED IN"]);
    for target in targets {
        let (state, style) = match (target.enabled, target.ours) {
            (false, _) => ("disabled", WAITS),
            (true, true) => ("enabled", PLAIN),
            (true, false) => ("enabled", FAINT),
        };
        let devices = target.devices.iter().map(|device| device.display().to_string());
        let cells = [
            target.target.clone(),
            if target.ours { "ours" } else { "foreign" }.into(),
            state.into(),
            listed(target.portals.iter().cloned()),
            listed(devices),
            listed(target.sessions.iter().map(login)),
        ];
        table.row(style, cells);
    }
    table
}

fn login(session: &crate::host::Session) -> String {
    let who = match session.kind {
        SessionKind::Ipxe => "ipxe",
        SessionKind::Os => "os",
    };
    session.address.map_or(who.to_owned(), |ip| format!("{who}@{ip}"))
}

fn listed(items: impl Iterator<Item = String>) -> String {
    let items: Vec<_> = items.collect();
    if items.is_empty() { NONE.into() } else { items.join(" ") }
}
