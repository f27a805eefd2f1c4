//! What a command may touch: the agent, the terminal, the clock's reading at its start.
//!
//! Handed to every command, so that a test can stand in for all of it.

use std::{
    io::{BufRead, BufReader, IsTerminal, Write},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anstyle::Style;
use serde::Serialize;

use super::{
    Ask,
    args::{Color, Globals},
    table::{Table, paint},
};
use crate::{
    control::unix::is_away,
    error::{Context, Error, Kind, Result},
    status::Millis,
};

/// How soon the progress of a work on an image is asked for again, at first.
const POLL: Duration = Duration::from_millis(100);
/// How soon in the end: a proof takes minutes.
const LAZY: Duration = Duration::from_secs(1);
/// How long an agent may be away before what was being watched is given up: a restart with a thousand targets.
const AWAY: Duration = Duration::from_secs(60);

/// What a command may touch.
pub(crate) struct Session<'a> {
    /// The agent.
    pub(super) ask: &'a dyn Ask,
    /// Standard output.
    pub(super) out: Box<dyn Write + 'a>,
    /// Standard error.
    pub(super) err: Box<dyn Write + 'a>,
    /// Standard input, where answers to questions come from.
    pub(super) input: Box<dyn BufRead + 'a>,
    /// Print JSON.
    pub(super) json: bool,
    /// Colour standard output.
    pub(super) color: bool,
    /// Colour standard error.
    pub(super) color_err: bool,
    /// Somebody sits there: standard input and standard error are terminals.
    pub(super) terminal: bool,
    /// When the command began.
    pub(super) now: Millis,
    /// Since when it looks at something that goes on.
    pub(super) begun: Instant,
    /// How long to wait between two looks at it, at first.
    pub(super) poll: Duration,
    /// How long the agent may be away meanwhile.
    pub(super) away: Duration,
}

impl<'a> Session<'a> {
    /// Returns the session of this process.
    pub(super) fn of_process(ask: &'a dyn Ask, globals: &Globals) -> Self {
        let wanted = |auto| match globals.color {
            Color::Auto => auto != anstream::ColorChoice::Never,
            Color::Always => true,
            Color::Never => false,
        };
        Self {
            ask,
            color: wanted(anstream::AutoStream::choice(&std::io::stdout())),
            color_err: wanted(anstream::AutoStream::choice(&std::io::stderr())),
            out: Box::new(std::io::stdout().lock()),
            err: Box::new(std::io::stderr()),
            input: Box::new(BufReader::new(std::io::stdin())),
            json: globals.json,
            terminal: std::io::stdin().is_terminal() && std::io::stderr().is_terminal(),
            now: now(),
            begun: Instant::now(),
            poll: POLL,
            away: AWAY,
        }
    }

    /// Prints one line.
    pub(super) fn say(&mut self, line: &str) -> Result<()> {
        writeln!(self.out, "{line}").and_then(|()| self.out.flush()).attempt(|| "write the answer".into())
    }

    /// Prints text as it is.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).and_then(|()| self.out.flush()).attempt(|| "write the answer".into())
    }

    /// Prints one line to standard error: what is not part of the answer.
    pub(super) fn complain(&mut self, line: &str) -> Result<()> {
        writeln!(self.err, "{line}").attempt(|| "write to standard error".into())
    }

    /// Prints a value as JSON for scripts.
    pub(super) fn say_json<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        let text = serde_json::to_string_pretty(value).expect("views have text keys and no fallible parts");
        self.say(&text)
    }

    /// Prints the value as JSON, or the text that `human` makes of it.
    pub(super) fn answer<T: Serialize + ?Sized>(
        &mut self,
        value: &T,
        human: impl FnOnce(&T, &Self) -> String,
    ) -> Result<()> {
        if self.json {
            return self.say_json(value);
        }
        let text = human(value, self);
        self.write(text.as_bytes())
    }

    /// Prints that a request was accepted.
    pub(super) fn accepted(&mut self, message: String) -> Result<()> {
        let reply = crate::control::api::Reply::Accepted { message };
        self.answer(&reply, |reply, _| match reply {
            crate::control::api::Reply::Accepted { message } => format!("{message}\n"),
            _ => unreachable!("made three lines above"),
        })
    }

    /// Returns the table as text, coloured if that is wanted.
    pub(super) fn table(&self, table: &Table) -> String {
        table.render(self.color)
    }

    /// Returns the text in this style for standard output.
    pub(super) fn paint(&self, style: Style, text: &str) -> String {
        if self.color { paint(style, text) } else { text.into() }
    }

    /// Returns the text in this style for standard error.
    pub(super) fn paint_err(&self, style: Style, text: &str) -> String {
        if self.color_err { paint(style, text) } else { text.into() }
    }

    /// Lets pass what the operator has agreed to: with `--yes`, or by an answer to this question.
    ///
    /// # Errors
    /// [`Kind::Denied`] where the answer is no, or nobody is there to be asked.
    pub(super) fn confirm(&mut self, yes: bool, attempt: &str, question: &str) -> Result<()> {
        if yes {
            return Ok(());
        }
        if !self.terminal {
            let why = "nobody to ask (no terminal); --yes does it without asking";
            return Err(Error::new(Kind::Denied, format!("{attempt}: {why}")));
        }
        write!(self.err, "{question} [y/N] ")
            .and_then(|()| self.err.flush())
            .attempt(|| "ask for consent".into())?;
        let mut answer = String::new();
        self.input.read_line(&mut answer).attempt(|| "read the answer".into())?;
        match answer.trim().to_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(Error::new(Kind::Denied, format!("{attempt}: not confirmed, nothing is changed"))),
        }
    }

    /// Asks about something that goes on, again and again where the agent is away: it goes on with that at its next start.
    ///
    /// # Errors
    /// As `ask`; the agent's being away, where that lasts.
    pub(super) fn follow<T>(&mut self, ask: impl Fn(&dyn Ask) -> Result<T>) -> Result<T> {
        let mut since = None;
        loop {
            let error = match ask(self.ask) {
                // Who waited for an answer when it ended is told that it is busy with that.
                Err(error) if is_away(&error) || error.kind() == Kind::Busy => error,
                Err(error) if error.kind() == Kind::Missing && since.is_some() => {
                    return Err(error
                        .while_doing("go on after sheathd's restart ('sheath images' lists what is whole)"));
                }
                done => return done,
            };
            if since.is_none() && !self.json {
                self.complain("sheathd is away: waiting for it to come back")?;
            }
            if since.get_or_insert_with(Instant::now).elapsed() >= self.away {
                return Err(error);
            }
            self.pause();
        }
    }

    /// Waits a moment before the next look at something that goes on.
    pub(super) fn pause(&self) {
        #[allow(
            clippy::disallowed_methods,
            reason = "the API has no event to wait for here; the wait is POLL, and later LAZY"
        )]
        std::thread::sleep(patience(self.begun.elapsed(), self.poll));
    }
}

/// Returns how long to wait for the next look at what has gone on for so long: who waits for a hundredth of it is not late.
fn patience(gone_on: Duration, first: Duration) -> Duration {
    (gone_on / 100).clamp(first, LAZY.max(first))
}

/// Returns the time.
pub(super) fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_looked_at_less_often() {
        let after = |seconds| patience(Duration::from_secs(seconds), POLL);
        assert_eq!(
            [after(0), after(10), after(50), after(86400)],
            [POLL, POLL, Duration::from_millis(500), LAZY]
        );
        assert_eq!(patience(Duration::from_secs(86400), Duration::ZERO), LAZY);
    }
}
