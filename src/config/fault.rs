//! What is wrong with a configuration file: the place, what was expected there, what was found.
//!
//! A fault never stops the reading: `check` goes on and reports all of them together, in the order of the file.

use std::{fmt, ops::Range};

/// One fault of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Fault {
    /// The file, as it was named to the parser.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The column, counted in characters from 1.
    pub column: usize,
    /// The key, such as `chassis.address`; empty where the text is not TOML.
    pub key: String,
    /// What should stand there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "expected {}, found {}", self.expected, self.found)
    }
}

/// Returns line and column of a byte offset, both counted from 1.
pub(super) fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Longest part of the file that a fault repeats, in characters.
const SHOWN: usize = 60;

/// Returns what was written at this place: its first line, control characters escaped, shortened.
pub(super) fn written(text: &str, span: Range<usize>) -> String {
    let slice = text.get(span).unwrap_or_default();
    let line = slice.lines().next().unwrap_or_default().trim();
    let safe: String = line.chars().flat_map(shown).collect();
    let cut = safe.chars().count() > SHOWN || line.len() < slice.trim().len();
    match (safe.is_empty(), cut) {
        (true, _) => "nothing".into(),
        (false, true) => format!("{}…", safe.chars().take(SHOWN).collect::<String>()),
        (false, false) => safe,
    }
}

/// Escapes what could move a terminal's cursor, and nothing else.
fn shown(c: char) -> Vec<char> {
    if c.is_control() { c.escape_default().collect() } else { vec![c] }
}

/// Returns the candidate that `word` was probably meant to be: at most two typing mistakes away.
pub(super) fn did_you_mean<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = if word.chars().count() < 4 { 1 } else { 2 };
    candidates
        .map(|candidate| (distance(&word.to_lowercase(), candidate), candidate))
        .filter(|(mistakes, _)| *mistakes <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Counts the letters to add, drop, change or swap with their neighbour to get from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let swapped = i > 0 && j > 0 && from[i - 1] == *b && to[j - 1] == *a;
            let swap = if swapped { rows[i - 1][j - 1] + 1 } else { usize::MAX };
            row.push((rows[i][j] + usize::from(a != b)).min(rows[i][j + 1] + 1).min(row[j] + 1).min(swap));
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_from_one_and_in_characters() {
        let text = "a = 1\nä = 2\n";
        assert_eq!(place(text, 0), (1, 1));
        assert_eq!(place(text, text.find("2").unwrap()), (2, 5));
        assert_eq!(place(text, 999), (3, 1));
    }

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        let keys = ["address", "bridge", "isolate", "vg"];
        assert_eq!(did_you_mean("brigde", keys.into_iter()), Some("bridge"));
        assert_eq!(did_you_mean("Adress", keys.into_iter()), Some("address"));
        assert_eq!(did_you_mean("colour", keys.into_iter()), None);
        assert_eq!(did_you_mean("xx", keys.into_iter()), None);
    }

    #[test]
    fn what_was_written_is_shown_short_and_without_control_characters() {
        assert_eq!(written("x = \"\u{1b}[2J\"", 4..10), "\"\\u{1b}[2J\"");
        assert_eq!(written(&"y".repeat(99), 0..99).chars().count(), SHOWN + 1);
        assert_eq!(written("[\n1]", 0..4), "[…");
        assert_eq!(written("", 0..0), "nothing");
    }
}
