//! Takes apart what the scripts print. The other machine may say anything: sizes and lengths are bounds here, not promises.

use super::{There, What, script::STEP};
use crate::{
    error::{Error, Result},
    image::header,
};

/// The most that a look may bring: what a login prints, a line, two sectors.
pub(super) const LONGEST_LOOK: usize = 128 << 10;
/// The most that a login may print before the first line of ours.
const LONGEST_GREETING: usize = 64 << 10;
/// The longest line of ours.
const LONGEST_LINE: usize = 256;
const SECTOR: usize = 512;
/// What lines of ours begin with.
const THERE: &str = "sheath-there ";
const END: &str = "sheath-end ";
const NO: &str = "sheath-no ";

/// Why a machine that has answered has nothing for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum No {
    Missing,
    Kind,
    Unreadable,
    Size,
}

/// What a machine says whose file systems were to stand still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::image) enum Frozen {
    /// They cannot, and none of them does.
    No(String),
    /// They do.
    Yes,
    /// They do no more; whether they did until they were told.
    Thawed {
        /// Whether they stood still until then.
        held: bool,
    },
}

/// Returns the last word of a machine whose file systems were to stand still.
pub(in crate::image) fn frozen(said: &[u8]) -> Option<Frozen> {
    let (mut rest, mut last) = (said, None);
    while let Some((line, more)) = found(rest, &["sheath-frozen", "sheath-thawed ", NO]) {
        rest = more;
        last = Some(match line.strip_prefix(NO) {
            Some(why) => Frozen::No(why.chars().filter(|c| !c.is_control()).collect()),
            None if line == "sheath-frozen" => Frozen::Yes,
            None => Frozen::Thawed { held: line == "sheath-thawed yes" },
        });
    }
    last
}

/// Reads the answer to a look. An error without a reason is one of a line that broke.
pub(super) fn there(said: &[u8]) -> Result<There, Option<No>> {
    let (line, rest) = found(said, &[THERE, NO]).ok_or(None)?;
    match line.strip_prefix(NO) {
        Some("missing") => return Err(Some(No::Missing)),
        Some("kind") => return Err(Some(No::Kind)),
        Some("unreadable") => return Err(Some(No::Unreadable)),
        Some(_) => return Err(None),
        None => {}
    }
    let (used, what) = line.strip_prefix(THERE).and_then(read).ok_or(Some(No::Size))?;
    if what.device {
        // Whatever its first bytes are: somebody else has written them.
        return Ok(There { what, used, raw: true });
    }
    let sector = usize::try_from(what.size).unwrap_or(usize::MAX).min(SECTOR);
    if rest.len() != 2 * sector {
        return Err(None);
    }
    let raw = header::looks_raw(&rest[..sector], &rest[sector..]);
    Ok(There { what, used, raw })
}

/// Returns the first whole line with one of these beginnings, and what comes behind it.
fn found<'a>(said: &'a [u8], beginnings: &[&str]) -> Option<(&'a str, &'a [u8])> {
    let mut rest = said;
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let line = std::str::from_utf8(&rest[..end]).ok().filter(|line| line.len() <= LONGEST_LINE);
        rest = &rest[end + 1..];
        if let Some(line) = line.filter(|line| beginnings.iter().any(|begin| line.starts_with(begin))) {
            return Some((line, rest));
        }
    }
}

/// Reads `no device 1048576 -` or `unknown file 512 1.2.3`.
fn read(line: &str) -> Option<(Option<bool>, What)> {
    let words: Vec<&str> = line.split(' ').collect();
    let [used, kind, size, version] = words[..] else { return None };
    let used = match used {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    };
    let plain = version.chars().all(|c| c.is_ascii_digit() || c == '.');
    let version = (plain && !version.is_empty()).then(|| version.to_owned());
    let device = match kind {
        "device" => true,
        "file" => false,
        _ => return None,
    };
    Some((used, What { device, size: size.parse().ok()?, version }))
}

/// A file or disk on its way here.
pub(super) struct Stream<'a> {
    what: &'a What,
    at: At,
    /// What is gathered of a line.
    line: Vec<u8>,
    /// What comes once more, because reading begins at a step.
    again: u64,
    left: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Greeting,
    Bytes,
    End,
    Whole,
}

impl<'a> Stream<'a> {
    /// Returns the stream from this byte of this file or disk on.
    pub(super) fn new(what: &'a What, from: u64) -> Self {
        let left = what.size.saturating_sub(from);
        Self { what, at: At::Greeting, line: vec![], again: from % STEP, left }
    }

    /// Returns whether all has come, and was to the end what it was at the beginning.
    pub(super) fn is_whole(&self) -> bool {
        self.at == At::Whole
    }

    /// Takes in a piece, and hands on what is of the file in it.
    pub(super) fn take(
        &mut self,
        mut piece: &[u8],
        take: &mut impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        if piece.is_empty() {
            return take(&[]);
        }
        while !piece.is_empty() {
            piece = match self.at {
                At::Greeting => self.greeting(piece)?,
                At::Bytes => self.bytes(piece, take)?,
                At::End => self.end(piece)?,
                At::Whole => return Ok(()),
            };
        }
        Ok(())
    }

    fn greeting<'p>(&mut self, piece: &'p [u8]) -> Result<&'p [u8]> {
        // A line may be cut anywhere: it is looked for in all that has come.
        let before = self.line.len();
        self.line.extend_from_slice(piece);
        let Some((line, rest)) = found(&self.line, &[THERE]) else {
            if self.line.len() > LONGEST_GREETING {
                return Err(Error::invalid("the machine there says more than it was asked"));
            }
            return Ok(&[]);
        };
        let taken = self.line.len() - rest.len() - before;
        self.compare(line.strip_prefix(THERE).unwrap_or_default())?;
        self.line.clear();
        self.at = if self.left + self.again == 0 { At::End } else { At::Bytes };
        Ok(&piece[taken..])
    }

    fn bytes<'p>(&mut self, piece: &'p [u8], take: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<&'p [u8]> {
        let (again, piece) = piece.split_at(at_most(self.again, piece.len()));
        self.again -= again.len() as u64;
        let (fresh, rest) = piece.split_at(at_most(self.left, piece.len()));
        self.left -= fresh.len() as u64;
        if self.left + self.again == 0 {
            self.at = At::End;
        }
        if !fresh.is_empty() {
            take(fresh)?;
        }
        Ok(rest)
    }

    fn end<'p>(&mut self, piece: &'p [u8]) -> Result<&'p [u8]> {
        let end = piece.iter().position(|byte| *byte == b'\n');
        self.line.extend_from_slice(&piece[..end.unwrap_or(piece.len())]);
        if end.is_some() || self.line.len() > LONGEST_LINE {
            let line = std::str::from_utf8(&self.line).unwrap_or_default();
            self.compare(line.strip_prefix(END).unwrap_or_default())?;
            self.at = At::Whole;
        }
        Ok(&[])
    }

    fn compare(&self, line: &str) -> Result<()> {
        match read(line) {
            Some((_, what)) if what == *self.what => Ok(()),
            _ => Err(Error::invalid(
                "it has changed while it was read: import it again when nobody writes to it",
            )),
        }
    }
}

fn at_most(most: u64, len: usize) -> usize {
    usize::try_from(most).map_or(len, |most| most.min(len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(size: u64) -> What {
        What { device: false, size, version: Some("1.2.3".into()) }
    }

    #[test]
    fn a_look_tells_a_raw_file_a_disk_and_everything_else_apart() {
        let mut said = b"Welcome!\nsheath-there unknown file 2048 1.2.3\n".to_vec();
        said.extend([0; 2 * SECTOR]);
        assert_eq!(there(&said), Ok(There { what: file(2048), used: None, raw: true }));
        let at = said.len() - 2 * SECTOR;
        said[at..at + 4].copy_from_slice(b"QFI\xfb");
        assert!(!there(&said).unwrap().raw);
        said[at..at + 4].fill(0);
        said[at + SECTOR..at + SECTOR + 8].copy_from_slice(b"conectix");
        assert!(!there(&said).unwrap().raw, "a VHD has its mark at its end");
        let device = there(b"sheath-there yes device 4096 -\n").unwrap();
        assert_eq!(
            device,
            There { what: What { device: true, size: 4096, version: None }, used: Some(true), raw: true }
        );
        assert_eq!(there(b"sheath-there no device  -\n"), Err(Some(No::Size)));
        assert_eq!(there(b"sheath-no missing\n"), Err(Some(No::Missing)));
        for broken in
            [&b""[..], b"sheath-there no device 4096", b"bash: sh: not found\n", &said[..said.len() - 1]]
        {
            assert_eq!(there(broken), Err(None));
        }
    }

    #[test]
    fn the_last_word_of_a_frozen_machine_counts() {
        assert_eq!(frozen(b"Welcome\nsheath-froz"), None);
        assert_eq!(frozen(b"Welcome\nsheath-frozen\n"), Some(Frozen::Yes));
        assert_eq!(frozen(b"sheath-frozen\nsheath-thawed no\n"), Some(Frozen::Thawed { held: false }));
        assert_eq!(frozen(b"sheath-frozen\nsheath-thawed yes\n"), Some(Frozen::Thawed { held: true }));
        assert_eq!(frozen(b"sheath-no /x: busy\n"), Some(Frozen::No("/x: busy".into())));
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_an_error() {
        let what = file(3);
        for said in [
            &b"sheath-there unknown file 3 1.2.4\nabc"[..],
            b"sheath-there unknown file 3 1.2.3\nabcsheath-end unknown file 4 1.2.3\n",
            b"sheath-there unknown file 3 1.2.3\nabcd\nsheath-end unknown file 3 1.2.3\n",
        ] {
            let mut stream = Stream::new(&what, 0);
            let error = stream.take(said, &mut |_| Ok(())).unwrap_err();
            assert!(error.to_string().contains("has changed"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn the_bytes_come_out_however_they_are_cut_and_wherever_they_begin(
            size in 0_usize..5000, from in 0_usize..5000, cut in 1_usize..400, lost in 0_usize..3,
        ) {
            let (from, what) = (from.min(size), file(size as u64));
            let bytes: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let mut said = b"motd\nsheath-there unknown file ".to_vec();
            said.extend(format!("{size} 1.2.3\n").bytes());
            said.extend(&bytes);
            said.extend(format!("sheath-end unknown file {size} 1.2.3\n").bytes());
            said.truncate(said.len() - lost);
            let (mut stream, mut came) = (Stream::new(&what, from as u64), vec![]);
            for piece in said.chunks(cut) {
                let mut take = |fresh: &[u8]| { came.extend_from_slice(fresh); Ok(()) };
                stream.take(piece, &mut take).unwrap();
            }
            prop_assert!(came == bytes[from..]);
            prop_assert_eq!(stream.is_whole(), lost == 0);
        }

        #[test]
        fn whatever_a_machine_says_it_is_taken_without_a_panic(said in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = there(&said);
            let what = file(7);
            let _ = Stream::new(&what, 3).take(&said, &mut |_| Ok(()));
        }
    }
}
