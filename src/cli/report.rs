//! How a command fails: the chain of causes, and what to do about it where that is known.

use super::session::Session;
use crate::error::{Error, Kind};

/// Prints `sheath: error: <chain>` and, where one is known, a `fix:` line.
///
/// Standard error may be gone; there is nobody left to tell that to.
pub(super) fn report(session: &mut Session<'_>, error: &Error) {
    let red = session.paint_err(super::table::BAD, "error:");
    let _ = session.complain(&format!("sheath: {red} {}", error.chain()));
    if let Some(fix) = fix(error) {
        let _ = session.complain(&format!("fix: {fix}"));
    }
}

/// Returns whether the error is that the reader of our output has gone.
pub(super) fn is_broken_pipe(error: &Error) -> bool {
    io_cause(error).is_some_and(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

fn io_cause(error: &Error) -> Option<&std::io::Error> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(level) = next {
        if let Some(io) = level.downcast_ref::<std::io::Error>() {
            return Some(io);
        }
        next = level.source();
    }
    None
}

/// Returns what helps against this error, where that is certain enough to say.
fn fix(error: &Error) -> Option<&'static str> {
    let chain = error.chain();
    let socket = chain.contains("sheathd at '");
    match error.kind() {
        Kind::Missing if socket => {
            Some("start the agent: systemctl start sheathd (a new machine: sheath setup)")
        }
        Kind::Failed if socket && chain.contains("refused") => {
            Some("look at the agent: systemctl status sheathd")
        }
        Kind::Denied if socket => Some("run as root, or as a member of the group that owns the socket"),
        Kind::Timeout if socket => Some("look at the agent: systemctl status sheathd"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_left_is_told_apart_from_other_failures() {
        let io =
            |kind| Error::io("write the answer", std::io::Error::from(kind)).while_doing("show the blades");
        assert!(is_broken_pipe(&io(std::io::ErrorKind::BrokenPipe)));
        assert!(!is_broken_pipe(&io(std::io::ErrorKind::StorageFull)));
    }

    #[test]
    fn a_missing_agent_comes_with_its_fix() {
        let error = Error::new(Kind::Missing, "connect to sheathd at '/run/sheath/control.sock'");
        assert!(fix(&error).unwrap().contains("systemctl start sheathd"));
        assert_eq!(fix(&Error::new(Kind::Missing, "find image 'x'")), None);
    }
}
