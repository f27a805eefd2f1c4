//! Reads how far qemu-img is from what it prints for people: `    (12.34/100%)\r`.

/// The end of output that may be the start of a figure; none is longer.
const KEPT: usize = 32;

/// What stands behind each figure.
const END: &str = "/100%)";

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
    fn anything_else_is_not_a_figure() {
        for text in ["", "hello", "(x/100%)", "(999.99/100%)", "(1/100%)", "\u{e4}\u{e4}(/100%)"] {
            assert_eq!(Progress::default().feed(text.as_bytes()), None, "{text}");
        }
    }
}
