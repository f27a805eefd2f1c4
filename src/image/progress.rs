//! How far and how fast: reads what qemu-img prints for people, `    (12.34/100%)\r`, prints the same for what copies itself, and
//! measures pace.

use std::{
    collections::VecDeque,
    io::Write,
    time::{Duration, Instant},
};

use super::watch::permyriad as share;
use crate::{
    error::{Context, Result},
    model::Bytes,
};

/// The end of output that may be the start of a figure; none is longer.
const KEPT: usize = 32;

/// What stands behind each figure.
const END: &str = "/100%)";
/// What stands before the size that `unpack` tells at its end.
pub(super) const SIZE: &str = "size ";
/// How often it is told how far something is.
pub(super) const TELL: Duration = Duration::from_millis(250);
/// A pace is that of the last seconds: long enough to be steady, short enough to follow a line that becomes slow.
const WINDOW: Duration = Duration::from_secs(10);
/// No pace is told of less than this.
const LEAST: Duration = Duration::from_millis(500);

/// Gathers pieces of output, which may be cut anywhere.
#[derive(Debug, Default)]
pub(super) struct Progress {
    tail: String,
}

impl Progress {
    /// Takes in a piece and returns the last figure that is whole by now, in hundredths of a percent.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Option<u16> {
        self.tail.push_str(&String::from_utf8_lossy(piece));
        let mut figure = None;
        if let Some(at) = self.tail.rfind(END) {
            figure = self.tail[..at].rsplit('(').next().and_then(permyriad);
            self.tail.drain(..at + END.len());
        }
        let from = self.tail.len().saturating_sub(KEPT);
        self.tail = self.tail.get(from..).unwrap_or_default().to_owned();
        figure
    }

    /// Returns what came behind the last figure.
    pub(super) fn rest(&self) -> &str {
        &self.tail
    }
}

/// Prints how far it is, as qemu-img does.
pub(super) struct Teller {
    total: Bytes,
    told: Option<Instant>,
}

impl Teller {
    pub(super) fn new(total: Bytes) -> Self {
        Self { total, told: None }
    }

    /// Tells it now and then.
    pub(super) fn at(&mut self, done: impl FnOnce() -> u64) -> Result<()> {
        if self.told.is_some_and(|told| told.elapsed() <= TELL) {
            return Ok(());
        }
        self.told = Some(Instant::now());
        self.tell(done())
    }

    /// Tells that it is done.
    pub(super) fn end(self) -> Result<()> {
        self.tell(self.total.0)
    }

    fn tell(&self, done: u64) -> Result<()> {
        let share = share(Bytes(done), self.total);
        let mut out = std::io::stdout().lock();
        write!(out, "    ({}.{:02}/100%)\r", share / 100, share % 100)
            .and_then(|()| out.flush())
            .attempt(|| "tell how far it is".into())
    }
}

/// How fast a number grows.
#[derive(Debug, Default)]
pub(super) struct Meter {
    samples: VecDeque<(Instant, u64)>,
}

impl Meter {
    /// Takes in a value and returns how much is added in a second, once that can be said.
    pub(super) fn feed(&mut self, now: Instant, value: u64) -> Option<f64> {
        while self.samples.len() > 1 && self.samples[1].0 + WINDOW <= now {
            self.samples.pop_front();
        }
        self.samples.push_back((now, value));
        let (then, first) = *self.samples.front()?;
        let took = now.saturating_duration_since(then);
        #[allow(clippy::cast_precision_loss, reason = "a pace, shown with two digits")]
        (took >= LEAST).then(|| value.saturating_sub(first) as f64 / took.as_secs_f64())
    }
}

/// Returns the seconds that the rest takes at this pace; `None` at no pace at all.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate"
)]
pub(super) fn left(rest: u64, a_second: f64) -> Option<u64> {
    let seconds = rest as f64 / a_second;
    (seconds.is_finite() && seconds < 1e9).then(|| seconds.ceil() as u64)
}

/// Returns `12.34` as 1234.
fn permyriad(percent: &str) -> Option<u16> {
    let (whole, cents) = percent.trim().split_once('.')?;
    let (whole, cents): (u16, u16) = (whole.parse().ok()?, cents.get(..2)?.parse().ok()?);
    whole.checked_mul(100)?.checked_add(cents).filter(|sum| *sum <= 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_wherever_the_output_is_cut() {
        let mut progress = Progress::default();
        let seen: Vec<u16> =
            [b"    (0.00/100%)\r    (1.".as_slice(), b"01/10", b"0%)\r", b"    (100.00/100%)\r\n"]
                .iter()
                .filter_map(|piece| progress.feed(piece))
                .collect();
        assert_eq!(seen, [0, 101, 10_000]);
    }

    #[test]
    fn what_comes_behind_the_last_figure_is_kept() {
        let mut progress = Progress::default();
        for piece in [b"    (99.00/100%)\r    (100.00/100%)\rsi".as_slice(), b"ze 9223372036854775807", b"\n"]
        {
            progress.feed(piece);
        }
        assert_eq!(progress.rest(), "\rsize 9223372036854775807\n");
    }

    #[test]
    fn a_pace_is_that_of_the_last_seconds() {
        let (mut meter, begin) = (Meter::default(), Instant::now());
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        assert_eq!(meter.feed(begin, 100), None);
        assert_eq!(meter.feed(at(1), 1100), Some(1000.0));
        // From here on nothing comes: the pace falls, and ends at none.
        assert!(meter.feed(at(5), 1100).unwrap() < 300.0);
        (6..30).for_each(|second| assert!(meter.feed(at(second), 1100).is_some()));
        assert_eq!(meter.feed(at(30), 1100), Some(0.0));
        assert!(meter.samples.len() < 16);
    }

    #[test]
    fn what_is_left_is_an_estimate_or_nothing() {
        assert_eq!(left(1000, 300.0), Some(4));
        assert_eq!(left(0, 300.0), Some(0));
        assert_eq!((left(1000, 0.0), left(0, 0.0), left(u64::MAX, 0.001)), (None, None, None));
    }

    #[test]
    fn anything_else_is_not_a_figure() {
        for text in ["", "hello", "(x/100%)", "(999.99/100%)", "(1/100%)", "\u{e4}\u{e4}(/100%)"] {
            assert_eq!(Progress::default().feed(text.as_bytes()), None, "{text}");
        }
    }
}
