//! Terminal output as plain text: escape sequences and control characters taken out, so that "login:" is found whatever
//! colours and cursor jumps a boot loader puts around it. A cursor jump becomes a line break. No screen is modelled.

/// The state between two pieces of output; a sequence may be cut anywhere.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    place: Place,
    /// Bytes of a character that is not complete yet.
    partial: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Place {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// After ESC and `[`, until a letter.
    Control,
    /// After ESC and `]`, until BEL or ESC.
    Title,
}

impl Plain {
    /// Appends to `text` what of `bytes` is text.
    pub(crate) fn push(&mut self, bytes: &[u8], text: &mut String) {
        for &byte in bytes {
            self.place = match (self.place, byte) {
                (_, 0x1b) => Place::Escape,
                (Place::Escape, b'[') => Place::Control,
                (Place::Escape, b']') => Place::Title,
                (Place::Escape, _) | (Place::Title, 0x07) => Place::Text,
                (Place::Control, b'H' | b'f' | b'J') => {
                    text.push('\n');
                    Place::Text
                }
                (Place::Control, 0x40..=0x7e) => Place::Text,
                (Place::Text, _) => {
                    self.character(byte, text);
                    Place::Text
                }
                (place, _) => place,
            };
        }
    }

    fn character(&mut self, byte: u8, text: &mut String) {
        match byte {
            b'\n' | b'\t' | 0x20..=0x7e => text.push(char::from(byte)),
            0x80.. => {
                self.partial.push(byte);
                match std::str::from_utf8(&self.partial) {
                    Ok(whole) => text.push_str(whole),
                    Err(cut) if cut.error_len().is_none() => return,
                    Err(_) => text.push('\u{fffd}'),
                }
                self.partial.clear();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Plain;

    fn plain(pieces: &[&[u8]]) -> String {
        let (mut plain, mut text) = (Plain::default(), String::new());
        pieces.iter().for_each(|piece| plain.push(piece, &mut text));
        text
    }

    #[test]
    fn colours_vanish_and_jumps_break_the_line() {
        assert_eq!(plain(&[b"\x1b[0;44mInstall\x1b[06;02H\x1b[1mWait\r\n"]), "Install\nWait\n");
    }

    #[test]
    fn a_sequence_cut_in_two_is_still_one() {
        assert_eq!(plain(&[b"log\x1b[", b"0;1min:", b"\xc3", b"\xa9"]), "login:\u{e9}");
    }

    #[test]
    fn broken_text_is_marked_and_passed() {
        assert_eq!(plain(&[b"a\xff", b"b"]), "a\u{fffd}b");
    }
}
