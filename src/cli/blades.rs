//! `sheath blades` and `sheath blade …`: who is in which slot, and what happens to their disks.

use super::{
    args::InstallArgs,
    ask,
    human::{self, NONE},
    session::Session,
    table::Table,
};
use crate::{
    control::api::Request,
    error::{Error, Kind, Result},
    host::{Counters, SessionKind},
    model::{BladeId, Bytes, Growth, Hardware, Slot},
    status::{BladeView, RefusedLogin},
};

/// Lists the blades.
pub(super) fn list(session: &mut Session<'_>) -> Result<()> {
    let blades = ask::blades(session.ask)?;
    session.answer(&blades, |blades, session| match blades.is_empty() {
        true => "no blades\n".into(),
        false => session.table(&table(blades, session)) + &problems(blades),
    })
}

fn table(blades: &[BladeView], session: &Session<'_>) -> Table {
    let headings = ["SLOT", "BLADE", "HOSTNAME", "PHASE", "IMAGE", "DISK", "USED", "ADDRESS", "LAST"];
    let mut table = Table::new(&headings).right(0).right(5).right(6);
    for blade in blades {
        let last = blade.times.iter().max_by_key(|(_, at)| **at);
        let cells = [
            blade.slot.to_string(),
            blade.blade.to_string(),
            blade.hostname.clone(),
            human::phase(blade.phase).into(),
            human::or_none(blade.image.as_ref()),
            blade.size.map_or(NONE.into(), Bytes::human),
            blade.used_percent.map_or(NONE.into(), human::percent),
            human::or_none(blade.ip.as_ref()),
            last.map_or(NONE.into(), |(what, at)| {
                format!("{} {}", human::moment(*what), human::ago(session.now, *at))
            }),
        ];
        table.row(human::phase_style(blade.phase), cells);
    }
    table
}

fn problems(blades: &[BladeView]) -> String {
    let about = |blade: &BladeView| {
        let problem = blade.problem.iter().map(|problem| human::tame(problem));
        let held = blade.held.iter().map(|held| format!("waits until it is off: {}", human::tame(held)));
        let drift =
            blade.drift.iter().map(|drift| format!("changed by somebody else: {}", human::tame(drift)));
        let lines = problem.chain(held).chain(drift).map(|line| format!("slot {}: {line}\n", blade.slot));
        lines.collect::<String>()
    };
    let lines: String = blades.iter().map(about).collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

/// Shows everything about the blade in a slot.
pub(super) fn show(session: &mut Session<'_>, slot: Slot) -> Result<()> {
    let blade = blade_in(session, slot)?;
    session.answer(&blade, details)
}

/// Gives the blade in a slot a disk made from an image.
pub(super) fn install(session: &mut Session<'_>, args: &InstallArgs) -> Result<()> {
    let InstallArgs { slot, image, replace, yes } = args;
    if *replace && !yes {
        let blade = blade_in(session, *slot)?;
        let question = format!("Delete {} and install '{image}' in its place?", disk_of(&blade));
        session.confirm(*yes, &format!("replace the disk of slot {slot}"), &question)?;
    }
    let request = Request::Install { slot: *slot, image: image.clone(), replace: *replace };
    let message = ask::accepted(session.ask, request)?;
    session.accepted(message)
}

/// Takes the disk of a slot's blade away.
pub(super) fn release(session: &mut Session<'_>, slot: Slot, yes: bool) -> Result<()> {
    if !yes {
        let blade = blade_in(session, slot)?;
        let question = format!("Delete {} for good?", disk_of(&blade));
        session.confirm(yes, &format!("release slot {slot}"), &question)?;
    }
    let message = ask::accepted(session.ask, Request::Release { slot })?;
    session.accepted(message)
}

/// Does what waits for the blade to be off: its session is ended for it.
pub(super) fn apply(session: &mut Session<'_>, slot: Slot, yes: bool) -> Result<()> {
    if !yes {
        let blade = blade_in(session, slot)?;
        let name = human::tame(&blade.hostname);
        let held = blade.held.iter().map(|held| format!("  {}\n", human::tame(held))).collect::<String>();
        let question = format!("{held}This ends the session of '{name}' in slot {slot}. Go on?");
        session.confirm(yes, &format!("apply slot {slot}"), &question)?;
    }
    let message = ask::accepted(session.ask, Request::Apply { slot })?;
    session.accepted(message)
}

/// Makes the disk of a slot's blade larger, or shows what that would be.
pub(super) fn grow(session: &mut Session<'_>, slot: Slot, size: Growth, dry_run: bool) -> Result<()> {
    let request = Request::Grow { slot, size, dry_run };
    if dry_run {
        return super::plan::print(session, &ask::planned(session.ask, request)?);
    }
    let message = ask::accepted(session.ask, request)?;
    session.accepted(message)
}

/// Binds a blade's disk to the slot that the blade is in now.
pub(super) fn bind(session: &mut Session<'_>, blade: BladeId, slot: Slot) -> Result<()> {
    let message = ask::accepted(session.ask, Request::Move { slot, blade })?;
    session.accepted(message)
}

/// Returns the blade in the slot.
pub(super) fn blade_in(session: &Session<'_>, slot: Slot) -> Result<BladeView> {
    let blades = ask::blades(session.ask)?;
    let found = blades.into_iter().find(|blade| blade.slot == slot);
    found
        .ok_or_else(|| Error::new(Kind::Missing, format!("find a blade in slot {slot}: none was seen there")))
}

/// Returns what would be lost, so that nobody agrees to more than they meant.
fn disk_of(blade: &BladeView) -> String {
    let size = blade.size.map_or(String::new(), |size| format!("{} ", size.human()));
    let image = blade.image.as_ref().map_or(String::new(), |image| format!(", made from '{image}'"));
    let (slot, name, phase) = (blade.slot, human::tame(&blade.hostname), human::phase(blade.phase));
    format!("the {size}disk of '{name}' in slot {slot} ({}{image}, {phase})", blade.blade)
}

fn details(blade: &BladeView, session: &Session<'_>) -> String {
    let phase = session.paint(human::phase_style(blade.phase), human::phase(blade.phase));
    let mut lines = vec![
        ("slot", blade.slot.to_string()),
        ("blade", blade.blade.to_string()),
        ("mac", blade.mac.to_string()),
        ("phase", phase),
        ("problem", blade.problem.as_deref().map_or(NONE.into(), human::tame)),
        ("waits", if blade.held.is_empty() { NONE.into() } else { human::tame(&blade.held.join("; ")) }),
        ("hostname", human::tame(&blade.hostname)),
        ("address", human::or_none(blade.ip.as_ref())),
        ("image", human::or_none(blade.image.as_ref())),
        ("disk", disk_line(blade)),
        ("target", blade.target.as_deref().map_or(NONE.into(), human::tame)),
        ("session", session_line(blade)),
    ];
    lines.extend(blade.drift.iter().map(|drift| ("changed", human::tame(drift))));
    lines.extend(blade.refused.as_ref().map(|login| ("refused", refused_line(login, session))));
    lines.extend(blade.counters.map(|counters| ("counted", counted_line(&counters))));
    lines.extend(hardware(&blade.hardware));
    let lines: String = lines.into_iter().map(|(name, value)| format!("{name:<10} {value}\n")).collect();
    lines + &moments(blade, session)
}

fn disk_line(blade: &BladeView) -> String {
    let Some(volume) = blade.volume else { return NONE.into() };
    let size = blade.size.map_or(NONE.into(), Bytes::human);
    let used = blade.used_percent.map_or(String::new(), |used| format!(", {} used", human::percent(used)));
    format!("{size}{used} ({})", volume.lv_name())
}

fn session_line(blade: &BladeView) -> String {
    let Some(login) = &blade.session else { return NONE.into() };
    let who = match login.kind {
        SessionKind::Ipxe => "iPXE",
        SessionKind::Os => "operating system",
    };
    let from = login.address.map_or(String::new(), |ip| format!(" from {ip}"));
    format!("{who}{from}, {} (session {})", human::tame(&login.initiator), login.id)
}

fn refused_line(login: &RefusedLogin, session: &Session<'_>) -> String {
    let initiator = login.refusal.initiator.as_deref().map(human::tame);
    let initiator = initiator.map_or(String::new(), |name| format!(", {name}"));
    let (last, times) = (human::ago(session.now, login.last), login.count);
    format!("{} ({times} times, last {last}{initiator})", login.refusal.cause.text())
}

/// Returns what disk and target have counted, operations in brackets.
fn counted_line(counters: &Counters) -> String {
    let disk = counters.disk.map(|disk| {
        let part = |word, bytes, operations| format!("{word} {}, ", human::traffic(bytes, operations));
        part("read", disk.read_bytes, disk.reads)
            + &part("written", disk.written_bytes, disk.writes)
            + &part("discarded", disk.discarded_bytes, disk.discards)
    });
    let Counters { logins, refused_logins, session_errors, .. } = counters;
    let target = format!("{logins} logins, {refused_logins} refused, {session_errors} sessions lost");
    disk.unwrap_or_default() + &target
}

fn hardware(hardware: &Hardware) -> Vec<(&'static str, String)> {
    let maker = [&hardware.manufacturer, &hardware.product].into_iter().flatten();
    let machine = maker.map(|word| human::tame(word)).collect::<Vec<_>>().join(" ");
    let lines = [
        ("machine", Some(machine).filter(|text| !text.is_empty())),
        ("serial", hardware.serial.as_deref().map(human::tame)),
        ("uuid", hardware.uuid.as_deref().map(human::tame)),
        ("firmware", hardware.firmware.map(|firmware| firmware.to_string())),
        ("ipxe", hardware.ipxe.as_deref().map(human::tame)),
    ];
    lines.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// Returns the moments of the current boot, each with the time since the one before.
fn moments(blade: &BladeView, session: &Session<'_>) -> String {
    if blade.times.is_empty() {
        return String::new();
    }
    let mut times: Vec<_> = blade.times.iter().map(|(moment, at)| (*at, *moment)).collect();
    times.sort_unstable();
    let mut table = Table::new(&["MOMENT", "AFTER", "WHEN"]).right(1);
    let mut before = None;
    for (at, moment) in times {
        let after = before.map_or(String::new(), |before| format!("+{:.1} s", seconds(at - before)));
        table.row(super::table::PLAIN, [human::moment(moment).into(), after, human::when(session.now, at)]);
        before = Some(at);
    }
    format!("\n{}", session.table(&table))
}

fn seconds(millis: u64) -> f64 {
    std::time::Duration::from_millis(millis).as_secs_f64()
}
