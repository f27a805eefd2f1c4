//! How a command fails: the chain of causes, and what to do about it where that is known.

use super::session::Session;
use crate::{
    control::unix::NOT_RUNNING,
    error::{Error, Kind},
};

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
    match error.kind() {
        Kind::Missing if chain.contains(NOT_RUNNING) => {
            Some("systemctl status sheathd says why; a new machine: sheath setup")
        }
        Kind::Timeout if chain.contains("ask sheathd") => Some("look at the agent: journalctl -u sheathd"),
        Kind::Denied if chain.contains("only root can") => Some("run it with sudo"),
        _ if chain.contains("/usr/bin/systemctl enable") => {
            Some("see why: journalctl -u sheathd -u sheath-bootd")
        }
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
        let client = crate::control::client::Client::new("/nowhere/control.sock".as_ref()).unwrap();
        let error = client.ask(&crate::control::api::Request::Status).unwrap_err();
        assert!(fix(&error).unwrap().contains("sheath setup"), "{}", error.chain());
        assert_eq!(fix(&Error::new(Kind::Missing, "find image 'x'")), None);
    }
}
