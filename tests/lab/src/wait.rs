//! Bounded waiting for something that gives no event: a socket that QEMU is about to make, an agent that is starting.
//! Whatever has an event (a console's text, a QMP reply) waits for that instead.
//! The only place of the lab that sleeps.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How often a condition is looked at: short against a guest's steps, long against a look.
const PAUSE: Duration = Duration::from_millis(50);

/// Returns what `look` finds, looking again until it finds something.
///
/// # Errors
/// When `bound` has passed; `what` says what was awaited.
pub fn until<T>(what: &str, bound: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let end = Instant::now() + bound;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() >= end {
            return Err(Error::new(format!("wait for {what}"), format!("not within {} s", bound.as_secs())));
        }
        pause(PAUSE);
    }
}

/// Sleeps.
#[allow(clippy::disallowed_methods, reason = "the one bounded poll of the lab")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Returns so many seconds: `secs(60)` reads better in a test than the long form.
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[cfg(test)]
mod tests {
    use super::{secs, until};
    use std::time::Duration;

    #[test]
    fn what_is_there_is_returned_at_once() {
        assert_eq!(until("it", secs(0), || Some(7)).unwrap(), 7);
    }

    #[test]
    fn what_never_comes_is_named_in_the_error() {
        let error = until::<()>("the moon", Duration::from_millis(60), || None).unwrap_err();
        assert!(error.to_string().contains("the moon"), "{error}");
    }
}
