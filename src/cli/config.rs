//! `sheath config check` and `sheath reload`: the check needs no agent and says what the agent would say.

use std::path::Path;

use super::{ask, session::Session, table::BAD};
use crate::{
    config::{Fault, parse},
    control::api::Request,
    error::{Context, Error, Result},
};

/// Lists every fault of a configuration file.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid) where there are any.
pub(super) fn check(session: &mut Session<'_>, file: &Path) -> Result<()> {
    let name = file.display().to_string();
    let bytes = std::fs::read(file).attempt(|| format!("read '{name}'"))?;
    let text = String::from_utf8(bytes)
        .map_err(|cause| Error::invalid(format!("read '{name}' as text")).because(cause))?;
    let faults = parse(&name, &text).err().unwrap_or_default();
    session.answer(faults.as_slice(), |faults, session| listed(&name, faults, session))?;
    match faults.len() {
        0 => Ok(()),
        1 => Err(Error::invalid(format!("check '{name}': 1 fault"))),
        n => Err(Error::invalid(format!("check '{name}': {n} faults"))),
    }
}

fn listed(name: &str, faults: &[Fault], session: &Session<'_>) -> String {
    if faults.is_empty() {
        return format!("{name}: no faults\n");
    }
    let lines = faults.iter().map(|fault| {
        let place = session.paint(BAD, &format!("{}:{}:", fault.file, fault.line));
        let text = fault.to_string();
        let rest = text.strip_prefix(&format!("{}:{}:", fault.file, fault.line)).unwrap_or(&text);
        format!("{place}{rest}\n")
    });
    lines.collect()
}

/// Makes the agent read its configuration again.
pub(super) fn reload(session: &mut Session<'_>) -> Result<()> {
    let message = ask::accepted(session.ask, Request::Reload)?;
    session.accepted(message)
}
