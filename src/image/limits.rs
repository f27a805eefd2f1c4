//! What ends an import early: a pool that fills up, a source that falls silent.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Kind, Result},
    host::{disk::stat, lvm::Lvm},
    model::{Bytes, PoolUsage},
    plan::admit,
};

/// How often the pool's fill is looked at meanwhile, at least: it takes some tenths of a second.
pub(super) const LOOK: Duration = Duration::from_secs(10);
/// It is not looked at before so much more is written, however full the pool is.
const LEAST_LOOK: Bytes = Bytes::mib(16);
/// How long a source may say nothing: a line that has gone, a disk that hangs.
pub const STALL: Duration = Duration::from_secs(60);
/// Longer than any stream takes: the sandbox that it runs in has the deadline.
pub(super) const STREAM: Duration = Duration::from_secs(7 * 24 * 3600);

/// Returns the pool's fill, or refuses when it is above its watermark.
pub(super) fn look(lvm: &Lvm, watermark: u8) -> Result<PoolUsage> {
    let pool = lvm.usage()?;
    admit(&pool, watermark).map(|()| pool)
}

/// When the pool is to be looked at again: a fast disk must not fill it between two looks.
#[derive(Debug)]
pub(super) struct Guard {
    looked: Instant,
    written: Bytes,
    room: Bytes,
    watermark: u8,
}

impl Guard {
    /// Returns the guard of a pool that has just been looked at, before anything is written.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share"
    )]
    pub(super) fn new(pool: PoolUsage, watermark: u8) -> Self {
        let percent = (f32::from(watermark) - pool.data_percent).max(0.0);
        let room = (pool.size.0 as f64 * f64::from(percent) / 100.0) as u64;
        Self { looked: Instant::now(), written: Bytes(0), room: Bytes(room), watermark }
    }

    /// Refuses when the pool is above its watermark, once it is time to look again.
    pub(super) fn admit(&mut self, lvm: &Lvm, written: Bytes) -> Result<()> {
        if self.is_due(written) {
            *self = Self { written, ..Self::new(look(lvm, self.watermark)?, self.watermark) };
        }
        Ok(())
    }

    /// Returns whether it is time: now and then, and when half of the room may be gone.
    fn is_due(&self, written: Bytes) -> bool {
        let half = (self.room.0 / 2).max(LEAST_LOOK.0);
        self.looked.elapsed() > LOOK || written.0.saturating_sub(self.written.0) >= half
    }
}

/// Returns how much has been written to a device, as the kernel counts it.
pub(super) fn written(node: &Path) -> Result<Bytes> {
    Ok(Bytes(stat::read("/sys".as_ref(), node)?.unwrap_or_default().written_bytes))
}

/// Returns the pool's fill with so much more in it.
#[allow(clippy::cast_precision_loss, reason = "a share, to be compared with a percentage")]
pub(super) fn with_more(pool: PoolUsage, more: Bytes) -> PoolUsage {
    let share = if pool.size.0 == 0 { 0.0 } else { more.0 as f32 / pool.size.0 as f32 };
    PoolUsage { data_percent: pool.data_percent + 100.0 * share, ..pool }
}

/// How long nothing has changed.
#[derive(Debug)]
pub(super) struct Silence<T> {
    most: Duration,
    since: Instant,
    last: Option<T>,
}

impl<T: PartialEq> Silence<T> {
    pub(super) fn new(most: Duration) -> Self {
        Self { most, since: Instant::now(), last: None }
    }

    /// Takes in how far it is, and refuses when that has not changed for too long.
    pub(super) fn hear(&mut self, now: T) -> Result<()> {
        if self.last.as_ref() != Some(&now) {
            (self.since, self.last) = (Instant::now(), Some(now));
        }
        if self.since.elapsed() < self.most {
            return Ok(());
        }
        let seconds = self.most.as_secs();
        Err(Error::new(Kind::Timeout, format!("the source has stalled: silent for {seconds} s")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> PoolUsage {
        PoolUsage { size: Bytes::gib(10), data_percent: 50.0, metadata_percent: 1.0 }
    }

    #[test]
    fn the_pool_is_looked_at_again_before_it_can_be_full() {
        let guard = Guard::new(pool(), 90);
        assert!(!guard.is_due(Bytes::gib(1)) && guard.is_due(Bytes::gib(2)));
        let nearly =
            Guard { written: Bytes::gib(2), ..Guard::new(PoolUsage { data_percent: 89.9, ..pool() }, 90) };
        assert!(!nearly.is_due(Bytes::gib(2)) && nearly.is_due(Bytes(Bytes::gib(2).0 + LEAST_LOOK.0)));
        let full = Guard::new(PoolUsage { data_percent: 95.0, ..pool() }, 90);
        assert!(!full.is_due(Bytes(0)) && full.is_due(LEAST_LOOK));
    }

    #[test]
    fn what_an_image_takes_counts_before_it_is_written() {
        assert!(admit(&with_more(pool(), Bytes::gib(3)), 90).is_ok());
        assert_eq!(admit(&with_more(pool(), Bytes::gib(4)), 90).unwrap_err().kind(), Kind::Full);
    }

    #[test]
    fn a_source_is_silent_when_nothing_changes_for_long() {
        let mut silence = Silence::new(Duration::ZERO);
        assert_eq!(silence.hear(1).unwrap_err().kind(), Kind::Timeout);
        let mut silence = Silence::new(Duration::from_secs(60));
        assert!((0..3).all(|n| silence.hear(n).is_ok() && silence.hear(n).is_ok()));
    }
}
