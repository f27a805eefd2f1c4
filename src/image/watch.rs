//! Who wants to know how far an import is, and may want to stop it.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::progress::{Meter, TELL, left};
use crate::{
    error::{Error, Kind, Result},
    model::{Bytes, Slot},
    status::{ImportProgress, Pace},
};

/// A service manager that ends the agent ends its children too, in no order: a child that has failed may be the first to be
/// noticed.
const END_OF_THE_AGENT: Duration = Duration::from_secs(1);

/// What is wished of an import, or a work on an image, that runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Wish {
    /// That it goes on.
    #[default]
    GoOn,
    /// That it ends, and nothing is left of it.
    Cancel,
    /// That it leaves all as it is: the next agent goes on with it.
    Leave,
}

/// The wish to stop an import, or a work on an image, given from another thread.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<(Mutex<Wish>, Condvar)>);

impl Cancel {
    /// Asks it to stop. It does within a second or two, and leaves nothing behind.
    pub fn cancel(&self) {
        self.wish(Wish::Cancel);
    }

    /// Tells the import that the agent is ending: whatever it is at stays as it is, for the next agent.
    pub fn leave(&self) {
        self.wish(Wish::Leave);
    }

    /// Returns whether the agent is ending: the import is not over then, the next agent goes on with it.
    pub fn is_leaving(&self) -> bool {
        *self.lock() == Wish::Leave
    }

    fn wish(&self, wish: Wish) {
        *self.lock() = wish;
        self.0.1.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Wish> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the error of what is to stop.
    pub(super) fn check(&self) -> Result<()> {
        match *self.lock() {
            Wish::GoOn => Ok(()),
            Wish::Cancel => Err(Error::new(Kind::Denied, "it was cancelled")),
            Wish::Leave => Err(Error::new(Kind::Busy, "the agent is ending; the next one goes on")),
        }
    }

    /// Returns whether an import that ends with this error is to leave all as it is.
    pub(super) fn leaves(&self, error: &Error) -> bool {
        if error.kind() == Kind::Failed {
            let _ = self.wait(END_OF_THE_AGENT);
        }
        self.is_leaving()
    }

    /// Waits so long, or until something is wished.
    pub(super) fn wait(&self, long: Duration) -> Result<()> {
        let waited = self.0.1.wait_timeout_while(self.lock(), long, |wish| *wish == Wish::GoOn);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        self.check()
    }
}

/// What an import goes through, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Fetching,
    Checking,
    Writing,
}

/// Tells how far an import is, with its pace, unless it is to stop.
pub(super) struct Watch<'a> {
    cancel: &'a Cancel,
    progress: &'a mut dyn FnMut(ImportProgress),
    stage: Option<Stage>,
    told: Instant,
    bytes: Meter,
    share: Meter,
}

impl<'a> Watch<'a> {
    pub(super) fn new(cancel: &'a Cancel, progress: &'a mut dyn FnMut(ImportProgress)) -> Self {
        let (bytes, share) = (Meter::default(), Meter::default());
        Self { cancel, progress, stage: None, told: Instant::now(), bytes, share }
    }

    /// Returns whether an import that ends with this error is to leave all as it is.
    pub(super) fn leaves(&self, error: &Error) -> bool {
        self.cancel.leaves(error)
    }

    /// Returns the error of an import that is to stop.
    pub(super) fn check(&self) -> Result<()> {
        self.cancel.check()
    }

    /// Waits so long, unless it is to stop.
    pub(super) fn wait(&self, long: Duration) -> Result<()> {
        self.cancel.wait(long)
    }

    /// So much of the source is here.
    pub(super) fn fetching(&mut self, done: u64, total: Option<Bytes>) -> Result<()> {
        if !self.is_due(Stage::Fetching, total == Some(Bytes(done)))? {
            return Ok(());
        }
        let rate = self.bytes.feed(self.told, done);
        let left = rate.zip(total).and_then(|(rate, total)| left(total.0.saturating_sub(done), rate));
        let pace = Pace { rate: rate.map(whole), left };
        (self.progress)(ImportProgress::Fetching { done: Bytes(done), total, pace });
        Ok(())
    }

    /// All is ready for a donor.
    pub(super) fn awaiting(&mut self, slot: Slot) -> Result<()> {
        self.check()?;
        (self.progress)(ImportProgress::Awaiting { slot });
        Ok(())
    }

    /// So much of the source is in its checksum.
    pub(super) fn checking(&mut self, done: u64, total: Bytes) -> Result<()> {
        if !self.is_due(Stage::Checking, done == total.0)? {
            return Ok(());
        }
        let rate = self.bytes.feed(self.told, done);
        let left = rate.and_then(|rate| left(total.0.saturating_sub(done), rate));
        let permyriad = permyriad(Bytes(done), total);
        let pace = Pace { rate: rate.map(whole), left };
        (self.progress)(ImportProgress::Checking { permyriad, pace });
        Ok(())
    }

    /// So much of the image is on its volume: a share of all, and in bytes.
    pub(super) fn writing(&mut self, permyriad: u16, written: Bytes) -> Result<()> {
        if !self.is_due(Stage::Writing, permyriad == 10_000)? {
            return Ok(());
        }
        let rate = self.bytes.feed(self.told, written.0);
        let share = self.share.feed(self.told, u64::from(permyriad));
        let left = share.and_then(|share| left(10_000 - u64::from(permyriad.min(10_000)), share));
        let pace = Pace { rate: rate.map(whole), left };
        (self.progress)(ImportProgress::Writing { permyriad, pace });
        Ok(())
    }

    /// Returns whether it is time to tell: at a stage's begin and end, and now and then.
    fn is_due(&mut self, stage: Stage, ended: bool) -> Result<bool> {
        self.check()?;
        let begins = self.stage.replace(stage) != Some(stage);
        if begins {
            (self.bytes, self.share) = (Meter::default(), Meter::default());
        }
        let due = begins || ended || self.told.elapsed() >= TELL;
        if due {
            self.told = Instant::now();
        }
        Ok(due)
    }
}

/// Returns how much of all that is, in hundredths of a percent; never more than all.
pub(super) fn permyriad(done: Bytes, total: Bytes) -> u16 {
    let share = u128::from(done.0) * 10_000 / u128::from(total.0.max(1));
    u16::try_from(share.min(10_000)).expect("at most 10,000")
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes a second, never below 0")]
fn whole(rate: f64) -> Bytes {
    Bytes(rate as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_import_stops_at_the_next_sign_of_progress() {
        let (cancel, mut heard) = (Cancel::default(), 0);
        let mut count = |_| heard += 1;
        let mut watch = Watch::new(&cancel, &mut count);
        watch.writing(1, Bytes(0)).unwrap();
        cancel.clone().cancel();
        assert_eq!(watch.writing(2, Bytes(0)).unwrap_err().kind(), Kind::Denied);
        assert_eq!(watch.wait(Duration::from_secs(60)).unwrap_err().kind(), Kind::Denied);
        assert_eq!(heard, 1);
    }

    #[test]
    fn a_failure_that_comes_with_the_agents_end_leaves_all_as_it_is() {
        let failed = || Error::new(Kind::Failed, "unit 'x' did not end");
        let cancel = Cancel::default();
        assert!(!cancel.leaves(&Error::invalid("refused")) && !cancel.leaves(&failed()));
        let later = cancel.clone();
        let ending = std::thread::spawn(move || later.leave());
        assert!(cancel.leaves(&failed()));
        ending.join().unwrap();
        assert_eq!(cancel.check().unwrap_err().kind(), Kind::Busy);
    }

    #[test]
    fn a_stage_tells_its_begin_and_its_end_and_little_between() {
        let (cancel, mut heard) = (Cancel::default(), vec![]);
        let mut keep = |progress| heard.push(progress);
        let mut watch = Watch::new(&cancel, &mut keep);
        (0..=100).for_each(|n| watch.fetching(n, Some(Bytes(100))).unwrap());
        (0..=100).for_each(|n| watch.checking(n, Bytes(100)).unwrap());
        (0..=100).for_each(|n| watch.writing(n * 100, Bytes(0)).unwrap());
        assert!(matches!(heard[0], ImportProgress::Fetching { done: Bytes(0), total: Some(Bytes(100)), .. }));
        assert!(matches!(heard[1], ImportProgress::Fetching { done: Bytes(100), .. }), "{heard:?}");
        assert!(matches!(heard[2], ImportProgress::Checking { permyriad: 0, .. }), "{heard:?}");
        assert!(matches!(heard.last(), Some(ImportProgress::Writing { permyriad: 10_000, .. })));
        assert!(heard.len() < 12, "{heard:?}");
    }
}
