//! `sheath sessions` and `sheath session …`: who is logged in, what their disks have done, and closing a session.

use super::{
    ask,
    blades::blade_in,
    human::{self, NONE},
    session::Session,
    table::{BAD, FAINT, PLAIN, Table, WAITS},
};
use crate::{
    control::api::Request,
    error::{Error, Kind, Result},
    host::{DiskCounters, SessionKind},
    model::Slot,
    status::{RefusedLogin, SessionView, Sessions},
};

/// Lists the sessions.
pub(super) fn list(session: &mut Session<'_>) -> Result<()> {
    let sessions = ask::sessions(session.ask)?;
    session.answer(&sessions, |Sessions { sessions, refused }, session| {
        let logged_in = match sessions.is_empty() {
            true => "nobody is logged in\n".into(),
            false => session.table(&table(sessions, session)),
        };
        let refused = match refused.is_empty() {
            true => String::new(),
            false => format!("\nRefused logins:\n{}", session.table(&refusals(refused, session))),
        };
        logged_in + &refused
    })
}

fn refusals(refused: &[RefusedLogin], session: &Session<'_>) -> Table {
    let headings = ["SLOT", "BLADE", "LAST", "TIMES", "ADDRESS", "CAUSE", "INITIATOR", "TARGET"];
    let mut table = Table::new(&headings).right(0).right(3);
    for login in refused {
        let refusal = &login.refusal;
        let at = refusal.target.clone().or_else(|| refusal.portal.as_ref().map(|at| format!("portal {at}")));
        let cells = [
            human::or_none(login.slot.as_ref()),
            human::or_none(login.blade.as_ref()),
            human::ago(session.now, login.last),
            login.count.to_string(),
            human::or_none(refusal.address.as_ref()),
            refusal.cause.text().into(),
            human::or_none(refusal.initiator.as_ref()),
            human::or_none(at.as_ref()),
        ];
        table.row(BAD, cells);
    }
    table
}

fn table(sessions: &[SessionView], session: &Session<'_>) -> Table {
    let headings =
        ["SLOT", "BLADE", "WHO", "ADDRESS", "SINCE", "READ", "WRITTEN", "ERRORS", "INITIATOR", "TARGET"];
    let mut table = Table::new(&headings).right(0).right(5).right(6).right(7);
    for login in sessions {
        let style = match (login.blade, login.older) {
            (None, _) => FAINT,
            (Some(_), 0) => PLAIN,
            (Some(_), _) => WAITS,
        };
        let disk = login.counters.and_then(|counters| counters.disk);
        let cells = [
            human::or_none(login.slot.as_ref()),
            login.blade.map_or_else(|| whose(login).into(), |blade| blade.to_string()),
            who(login),
            human::or_none(login.session.address.as_ref()),
            login.since.map_or(NONE.into(), |since| human::ago(session.now, since)),
            disk.map_or(NONE.into(), |DiskCounters { reads, read_bytes, .. }| {
                human::traffic(read_bytes, reads)
            }),
            disk.map_or(NONE.into(), |DiskCounters { writes, written_bytes, .. }| {
                human::traffic(written_bytes, writes)
            }),
            login.counters.map_or(NONE.into(), |counters| counters.session_errors.to_string()),
            login.session.initiator.clone(),
            login.target.clone(),
        ];
        table.row(style, cells);
    }
    table
}

fn whose(login: &SessionView) -> &'static str {
    if login.ours { NONE } else { "foreign" }
}

fn who(login: &SessionView) -> String {
    let latest = match login.session.kind {
        SessionKind::Ipxe => "ipxe",
        SessionKind::Os => "os",
    };
    match login.older {
        0 => latest.into(),
        older => format!("{latest} and {older} older"),
    }
}

/// Closes the session of the blade in a slot.
pub(super) fn close(session: &mut Session<'_>, slot: Slot, yes: bool) -> Result<()> {
    if !yes {
        let blade = blade_in(session, slot)?;
        let login = blade.session.as_ref().ok_or_else(|| {
            Error::new(Kind::Missing, format!("close the session of slot {slot}: nobody is logged in"))
        })?;
        let who = match login.kind {
            SessionKind::Ipxe => "iPXE is logged in, its boot may fail",
            SessionKind::Os => "its operating system's I/O waits until it has logged in again",
        };
        let name = human::tame(&blade.hostname);
        let question = format!("Close the session of '{name}' in slot {slot} ({}; {who})?", blade.blade);
        session.confirm(yes, &format!("close the session of slot {slot}"), &question)?;
    }
    let message = ask::accepted(session.ask, Request::DropSession { slot })?;
    session.accepted(message)
}
