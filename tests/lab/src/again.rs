//! A second try, for what an emulated machine may have spoilt: it is late for a bound, or lost, now and then. Twice in a row is no
//! chance. What failed once is told, and stands at the end of a run of everything, too.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::SystemTime;

use crate::phase::say;
use crate::wait::secs;

/// Does a test, and once more from its beginning where it fails. `what` names it.
///
/// # Panics
/// When it fails twice, or there is no time for another try.
pub fn twice(what: &str, test: impl Fn()) {
    with_pause(test, || tell(what));
}

fn with_pause(test: impl Fn(), pause: impl FnOnce()) {
    // Why it failed, the panic itself has said.
    if catch_unwind(AssertUnwindSafe(&test)).is_err() {
        pause();
        test();
    }
}

/// Says that something has failed once, and is begun again.
///
/// # Panics
/// When there is no time for that.
pub fn tell(what: &str) {
    assert!(has_time(), "failed, and there is no time for another try: {what}");
    say(&format!("FAILED ONCE, and begun again: {what}"));
}

/// Returns whether there is time left for more. `SHEATH_UNTIL` (seconds since 1970) says when it is over, as continuous integration
/// does.
pub fn has_time() -> bool {
    let until = std::env::var("SHEATH_UNTIL").ok().and_then(|until| until.parse().ok());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is past 1970");
    until.is_none_or(|until| now < secs(until))
}

#[cfg(test)]
mod tests {
    use super::with_pause;
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    /// Returns how often a test is done that fails so many times, and whether it passes in the end.
    fn tries(failures: u32) -> (u32, bool) {
        let done = Cell::new(0);
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let test = || {
                done.set(done.get() + 1);
                assert!(done.get() > failures, "failed");
            };
            with_pause(test, || ());
        }));
        (done.get(), ended.is_ok())
    }

    #[test]
    fn what_fails_is_tried_once_more_and_not_for_ever() {
        assert_eq!([0, 1, 2].map(tries), [(1, true), (2, true), (2, false)]);
    }
}
