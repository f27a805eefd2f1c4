//! `sheath image log`: what stood on the console of an image's last proof.
//!
//! A guest has written it, and a guest may have written anything: what moves a terminal's cursor, or worse, does not get
//! there.

use std::{iter::Peekable, str::Chars};

use super::{ask, human, session::Session};
use crate::{
    control::api::Request,
    error::Result,
    model::{Firmware, ImageRef},
};

/// Shows the log of the last proof, by this firmware where one is named.
pub(super) fn log(session: &mut Session<'_>, image: ImageRef, firmware: Option<Firmware>) -> Result<()> {
    let log = ask::log(session.ask, Request::ImageLog { image, firmware })?;
    if !session.json {
        let ago = human::ago(session.now, log.at);
        session.complain(&format!("the last proof of image '{}' by {}, {ago}:", log.image, log.firmware))?;
    }
    session.answer(&log, |log, _| plain(&log.text))
}

/// Returns a console's text for a terminal: lines and tabs stay, a terminal's commands go, other control characters are
/// escaped.
fn plain(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text.chars().peekable());
    while let Some(c) = rest.next() {
        match c {
            '\n' | '\t' => out.push(c),
            '\r' if matches!(rest.peek(), Some('\r' | '\n') | None) => {}
            // What was drawn over is read too.
            '\r' => out.push('\n'),
            '\u{1b}' => skip(&mut rest),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    out
}

/// Skips a terminal's command after its escape character (ECMA-48): parameters, and the one character that ends it.
fn skip(rest: &mut Peekable<Chars<'_>>) {
    let parameters = if rest.next_if_eq(&'[').is_some() { ' '..='?' } else { ' '..='/' };
    while rest.next_if(|c| parameters.contains(c)).is_some() {}
    rest.next_if(|c| (' '..='~').contains(c));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_console_is_readable_without_its_terminals_commands() {
        for (console, shown) in [
            ("\u{1b}[2J\u{1b}[01;00Hdebian login: ", "debian login: \n"),
            ("[\u{1b}[0;32m  OK  \u{1b}[0m] Started\r\r\n", "[  OK  ] Started\n"),
            ("\u{1b}c\u{1b}7\u{1b}(Bx\ty", "x\ty\n"),
            ("1 %\r2 %\r\n", "1 %\n2 %\n"),
            ("\u{1b}]0;title\u{7}x", "0;title\\u{7}x\n"),
            ("\u{9b}2J\u{8}", "\\u{9b}2J\\u{8}\n"),
            ("\u{1b}", ""),
            ("\u{1b}[", ""),
        ] {
            assert_eq!(plain(console), shown, "{console:?}");
        }
    }

    proptest! {
        #[test]
        fn no_console_reaches_the_terminal(text in "[\\x00-\\x9f\u{1b}\\[a-z]{0,60}") {
            let shown = plain(&text);
            prop_assert!(!shown.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{shown:?}");
        }
    }
}
