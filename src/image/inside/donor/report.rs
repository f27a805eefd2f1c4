//! What the donor says: to whoever stands before it, on every console that the kernel has, and to the appliance.

use std::{
    cell::Cell,
    io::Write,
    time::{Duration, Instant},
};

use super::copy::Stage;
use crate::{
    error::{Error, Kind, Result},
    host::cmd::{Cmd, Tool},
    model::Bytes,
};

/// The kernel's log, which goes to all of its consoles.
const LOG: &str = "/dev/kmsg";
/// How often progress is told.
const TELL: Duration = Duration::from_secs(2);
/// Longest time for one report.
const LONG: Duration = Duration::from_secs(30);
/// The last word is said again for so long: the appliance may be starting.
const LAST: Duration = Duration::from_secs(600);
const AGAIN: Duration = Duration::from_secs(5);

/// Shows a line on the machine's consoles.
pub(super) fn show(text: &str) {
    // Level 3 is the least that a quiet kernel prints. There is nobody else to tell.
    let line = format!("<3>sheath: {text}\n");
    let _ = std::fs::File::options().write(true).open(LOG).and_then(|mut log| log.write_all(line.as_bytes()));
}

/// Reports to the appliance.
pub(super) struct Report {
    url: String,
    mac: String,
    told: Cell<Option<(Stage, Instant)>>,
}

/// What the appliance says to a report.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    GoOn,
    Stop(String),
    Nothing,
}

impl Report {
    /// Returns what reports to the appliance at this URL, as the machine with this address.
    pub(super) fn new(appliance: &str, mac: &str) -> Self {
        Self { url: format!("{appliance}/v1/report"), mac: mac.to_owned(), told: Cell::new(None) }
    }

    /// Tells how far it is, now and then.
    ///
    /// # Errors
    /// [`Kind::Denied`] where the appliance says that it is to end. One that says nothing may be starting.
    pub(super) fn tell(&self, stage: Stage, done: Bytes, all: Bytes) -> Result<()> {
        let due = self.told.get().is_none_or(|(last, at)| last != stage || at.elapsed() >= TELL);
        if !due && done != all {
            return Ok(());
        }
        self.told.set(Some((stage, Instant::now())));
        let word = match stage {
            Stage::Copying => "copying",
            Stage::Verifying => "verifying",
        };
        show(&format!("{word}: {} of {}", done.human(), all.human()));
        match self.send(&[("w", word), ("done", &done.0.to_string()), ("total", &all.0.to_string())]) {
            Heard::Stop(why) => Err(Error::new(Kind::Denied, format!("the appliance says: {why}"))),
            Heard::GoOn | Heard::Nothing => Ok(()),
        }
    }

    /// Says that all is copied and verified.
    pub(super) fn done(&self, size: Bytes) {
        self.insist(&[("w", "done"), ("total", &size.0.to_string())]);
    }

    /// Says that it did not work, and why.
    pub(super) fn failed(&self, error: &str) {
        self.insist(&[("w", "failed"), ("error", error)]);
    }

    /// Says it until somebody has heard it.
    fn insist(&self, words: &[(&str, &str)]) {
        let begin = Instant::now();
        while self.send(words) == Heard::Nothing && begin.elapsed() < LAST {
            super::pause(AGAIN);
        }
    }

    fn send(&self, words: &[(&str, &str)]) -> Heard {
        let mut cmd =
            Cmd::new(Tool::Curl, LONG).args(["--silent", "--get", "--write-out", "\\n%{http_code}"]);
        for (name, value) in words.iter().chain(&[("mac", self.mac.as_str())]) {
            cmd = cmd.args(["--data", &format!("{name}={}", encoded(value))]);
        }
        let said = cmd.arg(&self.url).run().map(|output| output.stdout).unwrap_or_default();
        heard(&String::from_utf8_lossy(&said))
    }
}

/// Returns the text as it can stand in a URL. curl's own way writes a space as a plus sign, which is one to the appliance.
fn encoded(text: &str) -> String {
    let one = |byte: u8| match byte {
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

/// Returns what an answer means: its text, and its status in the last line.
fn heard(said: &str) -> Heard {
    match said.trim_end().rsplit_once('\n') {
        Some((_, "200")) => Heard::GoOn,
        Some((why, "409")) => Heard::Stop(why.trim().to_owned()),
        _ => Heard::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_cross_a_url() {
        assert_eq!(encoded("a+b c/ä&1"), "a%2Bb%20c%2F%C3%A4%261");
    }

    #[test]
    fn only_the_appliances_own_refusal_ends_a_capture() {
        assert_eq!(heard("go on\n\n200"), Heard::GoOn);
        assert_eq!(heard("nothing is captured\n\n409"), Heard::Stop("nothing is captured".into()));
        for nothing in ["", "\n000", "say it again\n\n503", "x\n400"] {
            assert_eq!(heard(nothing), Heard::Nothing, "{nothing:?}");
        }
    }
}
