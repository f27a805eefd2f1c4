//! `sheath events`: what happened, and with `--follow` what happens.

use std::ops::ControlFlow;

use super::{args::EventsArgs, human, session::Session, table};
use crate::{error::Result, status::EventView};

/// Prints events, one line each.
pub(super) fn run(session: &mut Session<'_>, args: &EventsArgs) -> Result<()> {
    let ask = session.ask;
    let (mut outcome, mut none) = (Ok(()), true);
    let streamed = ask.events(args.follow, &mut |event| {
        if args.slot.is_some_and(|slot| event.slot != Some(slot)) {
            return ControlFlow::Continue(());
        }
        none = false;
        outcome = print(session, &event);
        if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    // That our reader has gone matters more than what the stream says about being dropped.
    outcome.and(streamed)?;
    if none && !session.json { session.complain("no events since the agent's start") } else { Ok(()) }
}

fn print(session: &mut Session<'_>, event: &EventView) -> Result<()> {
    if session.json {
        // One line each, so that a script can read while the stream goes on.
        let line = serde_json::to_string(event).expect("an event has text keys and no fallible parts");
        return session.say(&line);
    }
    let line = line(event, session);
    session.say(&line)
}

fn line(event: &EventView, session: &Session<'_>) -> String {
    let style = match event.kind.as_str() {
        "security" | "failed" | "refused" => table::BAD,
        _ => table::PLAIN,
    };
    let slot = event.slot.map(|slot| format!("slot {slot}"));
    let subject = [slot, event.blade.map(|b| b.to_string()), event.image.as_ref().map(|i| format!("'{i}'"))];
    let subject = subject.into_iter().flatten().collect::<Vec<_>>().join(" ");
    let subject = if subject.is_empty() { String::new() } else { format!("{subject}: ") };
    let kind = session.paint(style, &format!("{:<10}", human::tame(&event.kind)));
    format!("{}  {kind}  {subject}{}", human::clock(event.at), human::tame(&event.text))
}
