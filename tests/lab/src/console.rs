//! A guest's serial console: all it prints goes to a log file, with the escape sequences of menus and boot loaders taken out
//! for searching; a test waits for words and types answers.
//! Waiting is by event: the reader's thread wakes whoever expects something.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::ansi::Plain;
use crate::error::{Attempt, Error, Result};
use crate::wire::connect;

/// How much of the console's end an error shows.
const TAIL: usize = 1500;

/// One serial console of a running guest.
#[derive(Debug)]
pub struct Console {
    stream: UnixStream,
    heard: Arc<Heard>,
    log: PathBuf,
    cursor: usize,
}

#[derive(Debug)]
struct Heard {
    state: Mutex<State>,
    more: Condvar,
    started: Instant,
}

#[derive(Debug, Default)]
struct State {
    text: String,
    /// Where each piece of the text begins, and when it came.
    pieces: Vec<(usize, Duration)>,
    closed: bool,
    echo: bool,
}

impl Console {
    /// Connects to a console's socket and begins to collect. `started` is the moment that times are counted from.
    ///
    /// # Errors
    /// When the socket is not there or the log cannot be made.
    pub fn connect(socket: &Path, log: &Path, started: Instant) -> Result<Self> {
        let stream = connect(socket)?;
        let file = File::create(log).attempt(|| format!("make log '{}'", log.display()))?;
        let heard = Arc::new(Heard { state: Mutex::default(), more: Condvar::new(), started });
        let source = stream.try_clone().attempt(|| format!("share '{}'", socket.display()))?;
        let listener = Arc::clone(&heard);
        std::thread::spawn(move || listener.collect(source, file));
        Ok(Console { stream, heard, log: log.to_owned(), cursor: 0 })
    }

    /// Waits until the guest has printed `needle` after what was expected last. Returns when that was, counted from
    /// the guest's power-on.
    ///
    /// # Errors
    /// When it does not within `bound`, or the guest is gone; the error shows the console's end.
    pub fn expect(&mut self, needle: &str, bound: Duration) -> Result<Duration> {
        self.expect_any(&[needle], bound).map(|(_, at)| at)
    }

    /// Waits for the first of several texts; returns which, and when.
    ///
    /// # Errors
    /// As [`Console::expect`].
    pub fn expect_any(&mut self, needles: &[&str], bound: Duration) -> Result<(usize, Duration)> {
        let end = Instant::now() + bound;
        let mut state = self.heard.lock();
        loop {
            let found = needles
                .iter()
                .enumerate()
                .filter_map(|(i, n)| find(&state.text, self.cursor, n).map(|p| (p, i)));
            if let Some((past, which)) = found.min() {
                self.cursor = past;
                return Ok((which, state.time_of(past - 1)));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || state.closed {
                let why = if state.closed { "the guest is gone" } else { "not seen in time" };
                let cause = format!("{why}; {} ends with:\n{}", self.log.display(), tail(&state.text));
                return Err(Error::new(format!("expect {needles:?} on a console"), cause));
            }
            let heard = self.heard.more.wait_timeout(state, left);
            state = heard.expect("no holder of the console's lock panics").0;
        }
    }

    /// Types text; a line needs its "\r".
    ///
    /// # Errors
    /// When the guest is gone.
    pub fn send(&mut self, text: &str) -> Result<()> {
        self.stream.write_all(text.as_bytes()).attempt(|| format!("type {text:?} on a console"))
    }

    /// Returns everything printed so far, without escape sequences.
    pub fn text(&self) -> String {
        self.heard.lock().text.clone()
    }

    /// Returns the end of what was printed: what an error shows.
    pub fn tail(&self) -> String {
        tail(&self.heard.lock().text).to_owned()
    }

    /// Expects only what is printed from now on: after a reset, say.
    pub fn skip(&mut self) {
        self.cursor = self.heard.lock().text.len();
    }

    /// Returns the file that has everything, escape sequences included.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Copies what the guest prints to this process's standard output from now on, or stops doing so.
    pub fn echo(&self, on: bool) {
        self.heard.lock().echo = on;
    }

    /// Returns a second hand that types on this console: a person's keyboard while the test goes on expecting.
    ///
    /// # Errors
    /// When the socket cannot be shared.
    pub fn keyboard(&self) -> Result<UnixStream> {
        self.stream.try_clone().attempt(|| "share a console".to_owned())
    }
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the console's lock panics")
    }

    fn collect(&self, mut source: UnixStream, mut log: File) {
        let mut plain = Plain::default();
        let mut bytes = [0; 4096];
        loop {
            let read = source.read(&mut bytes).unwrap_or(0);
            let mut state = self.lock();
            if read == 0 {
                state.closed = true;
                self.more.notify_all();
                return;
            }
            // A full disk must not stop the test; it loses the log's end only.
            let _ = log.write_all(&bytes[..read]);
            if state.echo {
                let mut out = std::io::stdout().lock();
                let _ = out.write_all(&bytes[..read]).and_then(|()| out.flush());
            }
            let begin = state.text.len();
            state.pieces.push((begin, self.started.elapsed()));
            plain.push(&bytes[..read], &mut state.text);
            self.more.notify_all();
        }
    }
}

impl State {
    fn time_of(&self, at: usize) -> Duration {
        let piece = self.pieces.partition_point(|&(begin, _)| begin <= at);
        self.pieces[..piece].last().map_or(Duration::ZERO, |&(_, time)| time)
    }
}

/// Returns the end of the first `needle` at or after `from`.
fn find(text: &str, from: usize, needle: &str) -> Option<usize> {
    text.get(from..)?.find(needle).map(|at| from + at + needle.len())
}

fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(TAIL);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::{State, find};
    use std::time::Duration;

    #[test]
    fn a_text_is_found_once() {
        let past = find("login: login:", 0, "login:").unwrap();
        assert_eq!(find("login: login:", past, "login:"), Some(13));
        assert_eq!(find("login: login:", 13, "login:"), None);
    }

    #[test]
    fn a_text_has_the_time_of_the_piece_that_completed_it() {
        let s = Duration::from_secs;
        let state = State { pieces: vec![(0, s(1)), (5, s(4)), (9, s(6))], ..State::default() };
        assert_eq!([state.time_of(4), state.time_of(5), state.time_of(20)], [s(1), s(4), s(6)]);
    }
}
