//! What the workshop is asked and what it answers: a role on its kernel's command line, lines of JSON over its second
//! serial port.
//!
//! The answer comes out of a guest that runs programs of the image, so it is a claim: bounded, parsed into plain data,
//! shown, and never acted upon beyond the image itself.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::facts::Facts;
use crate::{
    error::{Error, Kind, Result},
    model::Change,
};

/// The word of the kernel's command line that says what the workshop is for.
const WORD: &str = "sheath.role=";
/// The phase that may last long without a word: minutes, where the processor is emulated.
pub(super) const LONG_PHASE: &str = "making the initramfs anew";
/// Another one.
pub(super) const GRUB_PHASE: &str = "installing GRUB";
/// More of an answer is not read: facts of a large image have some ten KiB.
const LONGEST: usize = 1 << 20;

/// What the workshop is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Look into an image.
    Check,
    /// Make it one that any blade can have, or say what that would change.
    Seal {
        /// Only say it.
        dry_run: bool,
    },
    /// Copy a donor's disk: this is no guest but the donor itself.
    Capture,
}

impl Role {
    /// Returns the role as the kernel's command line has it.
    pub(super) fn word(self) -> String {
        format!("{WORD}{}", self.name())
    }

    /// Returns the role that a kernel's command line has.
    ///
    /// # Errors
    /// [`Kind::Missing`] where it has none, [`Kind::Invalid`] where it is not known.
    pub(super) fn of_cmdline(cmdline: &str) -> Result<Self> {
        let word = cmdline.split_whitespace().find_map(|word| word.strip_prefix(WORD));
        word.ok_or_else(|| Error::new(Kind::Missing, format!("the kernel's command line has no {WORD}")))?
            .parse()
    }

    /// Returns its name, which units and logs have too.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Seal { dry_run: false } => "seal",
            Self::Seal { dry_run: true } => "seal-preview",
            Self::Capture => "capture",
        }
    }
}

impl FromStr for Role {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "check" => Ok(Self::Check),
            "seal" => Ok(Self::Seal { dry_run: false }),
            "seal-preview" => Ok(Self::Seal { dry_run: true }),
            "capture" => Ok(Self::Capture),
            other => Err(Error::invalid(format!("the workshop has no role '{}'", other.escape_debug()))),
        }
    }
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "kebab-case")]
pub(super) enum Line {
    /// A phase begins.
    Phase {
        /// For people: `mounting`, `looking`.
        name: String,
    },
    /// What was found.
    Facts(Box<Facts>),
    /// What is changed.
    Changes {
        /// One by one.
        changes: Vec<Change>,
    },
    /// It did not work.
    Failed {
        /// The error's chain.
        error: String,
    },
    /// All is said.
    Done,
}

impl Line {
    /// Returns the line's bytes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("a line is plain data");
        bytes.push(b'\n');
        bytes
    }
}

/// Gathers pieces of an answer, which may be cut anywhere, into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
    taken: usize,
}

impl Lines {
    /// Takes in a piece and returns the lines that are whole by now.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where it is no answer of ours, or too long.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Result<Vec<Line>> {
        self.taken += piece.len();
        if self.taken > LONGEST {
            return Err(Error::invalid(format!("the workshop's answer is longer than {LONGEST} bytes")));
        }
        self.rest.extend_from_slice(piece);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Ok(vec![]) };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        let lines =
            whole.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
        let parse = |line| serde_json::from_slice(line);
        lines
            .map(parse)
            .collect::<Result<_, _>>()
            .map_err(|e| Error::invalid("read the workshop's answer").because(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_survives_the_command_line() {
        for role in [Role::Capture, Role::Check, Role::Seal { dry_run: true }, Role::Seal { dry_run: false }]
        {
            let cmdline = format!("console=ttyS0 quiet {} -- internal-workshop", role.word());
            assert_eq!(Role::of_cmdline(&cmdline).unwrap(), role);
        }
        assert_eq!(Role::of_cmdline("quiet").unwrap_err().kind(), Kind::Missing);
        assert_eq!(Role::of_cmdline("sheath.role=dance").unwrap_err().kind(), Kind::Invalid);
    }

    #[test]
    fn lines_are_whole_wherever_the_answer_is_cut() {
        let facts = Line::Facts(Box::new(Facts { cloud_init: true, ..Facts::default() }));
        let bytes: Vec<u8> = [Line::Phase { name: "looking".into() }, facts.clone(), Line::Done]
            .iter()
            .flat_map(Line::to_bytes)
            // What a serial line makes of a line's end.
            .flat_map(|byte| if byte == b'\n' { vec![b'\r', b'\n'] } else { vec![byte] })
            .collect();
        for size in [1, 7, 64, 4096] {
            let mut lines = Lines::default();
            let heard: Vec<Line> = bytes.chunks(size).flat_map(|piece| lines.feed(piece).unwrap()).collect();
            assert_eq!(heard.len(), 3, "{size}");
            assert_eq!(heard[1], facts);
        }
    }

    #[test]
    fn an_endless_answer_and_one_that_is_none_are_refused() {
        let mut lines = Lines::default();
        let refused = (0..1000).find_map(|_| lines.feed(&[b'x'; 4096]).err()).unwrap();
        assert_eq!(refused.kind(), Kind::Invalid);
        assert_eq!(Lines::default().feed(b"login: \n").unwrap_err().kind(), Kind::Invalid);
    }
}
