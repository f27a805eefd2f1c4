//! The kernel log, `/dev/kmsg`: records, read as they come, never waited for.
//!
//! What LIO thinks of a call that it refuses stands nowhere else: configfs flattens it to `EINVAL`. [`Log`] keeps one
//! reader for the whole agent and the last few records, each with the moment at which it was read; so [`Log::since`] can
//! say what the kernel said during a call, at no cost for a call that goes well. The kernel's own time stamps cannot: its
//! log runs on another clock than any that a program can read, and the two drift apart (1.2 s in 95 s was seen).
//!
//! Reading needs `CAP_SYSLOG` where `kernel.dmesg_restrict` is set. Which lines mean what is `lio`'s and `watch`'s.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nix::libc::{EPIPE, O_CLOEXEC, O_NONBLOCK};

use crate::error::{Context, Error, Kind, Result};

/// Where the kernel log is.
pub const KMSG: &str = "/dev/kmsg";

/// One record never is larger: the kernel's own limit (CONSOLE_EXT_LOG_MAX, later PRINTK_MESSAGE_MAX) is 8 KiB or less.
const LARGEST: usize = 8192;

/// Records that are kept for whoever asks what was said.
const KEPT: usize = 256;

/// Lines of one call that go into an error: the kernel says one or two.
const MOST: usize = 4;

/// The least urgent priority that goes into an error: `KERN_WARNING`. What is below tells of things that go well.
const WARNING: u8 = 4;

/// One record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// 0 (emergency) to 7 (debug).
    pub priority: u8,
    /// 0 for the kernel itself; programs that write to the log have others.
    pub facility: u32,
    /// Counts up by one from the start of the kernel.
    pub seq: u64,
    /// On the log's own clock.
    pub at: Duration,
    /// What is said. Control characters in it are escaped by the kernel.
    pub text: String,
    /// What it is about, where it is about a device: `SUBSYSTEM`, `DEVICE`.
    pub fields: BTreeMap<String, String>,
}

impl Record {
    /// Reads a record as `/dev/kmsg` gives it (kernel: Documentation/ABI/testing/dev-kmsg), or returns `None` where it is
    /// not one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once(';')?;
        let mut head = head.split(',');
        let level: u32 = head.next()?.parse().ok()?;
        let seq = head.next()?.parse().ok()?;
        let at = Duration::from_micros(head.next()?.parse().ok()?);
        let mut lines = body.lines();
        let text = lines.next().unwrap_or_default().to_owned();
        let field = |line: &str| line.strip_prefix(' ')?.split_once('=').map(|(k, v)| (k.into(), v.into()));
        let fields = lines.filter_map(field).collect();
        let priority = u8::try_from(level & 7).expect("three bits");
        Some(Self { priority, facility: level >> 3, seq, at, text, fields })
    }
}

/// What a read of the log gives.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    /// A record.
    Record(Record),
    /// The kernel has overwritten records before they were read.
    Lost,
}

/// Reads records one by one.
#[derive(Debug)]
pub struct Reader<R = File> {
    from: R,
}

impl Reader {
    /// Returns a reader of what is said from now on.
    ///
    /// # Errors
    /// [`Kind::Missing`] or [`Kind::Denied`], with the path.
    pub fn open(path: &Path) -> Result<Self> {
        let what = || format!("read the kernel log '{}'", path.display());
        let flags = O_NONBLOCK | O_CLOEXEC;
        let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path).attempt(what)?;
        file.seek(SeekFrom::End(0)).attempt(what)?;
        Ok(Self { from: file })
    }
}

impl<R: Read> Reader<R> {
    /// Returns the next entry, or `None` where there is none yet: it never waits.
    ///
    /// # Errors
    /// The failing system call.
    pub fn entry(&mut self) -> Result<Option<Entry>> {
        let mut record = [0; LARGEST];
        loop {
            match self.from.read(&mut record) {
                Ok(0) => return Ok(None),
                // What cannot be read is no record of the kernel's; the ones after it may be.
                Ok(length) => {
                    if let Some(record) = Record::parse(&record[..length]) {
                        return Ok(Some(Entry::Record(record)));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.raw_os_error() == Some(EPIPE) => return Ok(Some(Entry::Lost)),
                Err(e) => return Err(Error::io("read the kernel log", e)),
            }
        }
    }
}

/// The agent's one view of the kernel log, shared by its threads.
#[derive(Debug)]
pub struct Log {
    inner: std::result::Result<Mutex<Inner>, String>,
}

#[derive(Debug)]
struct Inner {
    reader: Reader,
    /// The last records, oldest first, with the moment at which they were read.
    recent: VecDeque<(Instant, Record)>,
    /// Whether the kernel has overwritten records since somebody took them.
    lost: bool,
}

/// New records for one follower.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// In order.
    pub records: Vec<Record>,
    /// Whether some before them are missing.
    pub lost: bool,
}

impl Log {
    /// Opens the log at its end. One that cannot be read is an empty one; [`Log::follow`] says why.
    pub fn open(path: &Path) -> Self {
        let reader = Reader::open(path).map_err(|e| e.chain());
        let inner = reader.map(|reader| Inner { reader, recent: VecDeque::new(), lost: false });
        Self { inner: inner.map(Mutex::new) }
    }

    /// Returns a descriptor that becomes readable when something is said.
    ///
    /// # Errors
    /// Why the log cannot be read.
    pub fn follow(&self) -> Result<OwnedFd> {
        let inner = self.inner.as_ref().map_err(|why| Error::new(Kind::Denied, why.clone()))?;
        let file = locked(inner).reader.from.try_clone();
        file.map(OwnedFd::from).attempt(|| "follow the kernel log".into())
    }

    /// Returns the records after `cursor`, and moves it behind the last of them.
    ///
    /// # Errors
    /// The failing system call.
    pub fn take(&self, cursor: &mut Option<u64>) -> Result<Batch> {
        let Ok(inner) = &self.inner else { return Ok(Batch::default()) };
        let mut inner = locked(inner);
        inner.drain()?;
        let new = inner.recent.iter().map(|(_, record)| record);
        let records: Vec<_> = new.filter(|record| cursor.is_none_or(|c| record.seq > c)).cloned().collect();
        let gap = records.first().zip(*cursor).is_some_and(|(first, cursor)| first.seq > cursor + 1);
        *cursor = records.last().map(|record| record.seq).or(*cursor);
        Ok(Batch { records, lost: std::mem::take(&mut inner.lost) || gap })
    }

    /// Returns what the kernel itself has complained of since that moment, about no device in particular; the last few
    /// lines. Somebody must follow the log: else what was said long ago is read, and taken for new, now.
    pub fn since(&self, begin: Instant) -> Vec<String> {
        let Ok(inner) = &self.inner else { return vec![] };
        let mut inner = locked(inner);
        // It is said in an error already; that the log cannot be read is the follower's to say.
        let _ = inner.drain();
        let complaint =
            |record: &Record| record.facility == 0 && record.priority <= WARNING && record.fields.is_empty();
        let since = inner.recent.iter().rev().take_while(|(at, _)| *at >= begin);
        let mut lines: Vec<_> = since
            .filter(|(_, record)| complaint(record))
            .map(|(_, record)| record.text.clone())
            .take(MOST)
            .collect();
        lines.reverse();
        lines
    }
}

/// A holder that panicked has left whole records behind.
fn locked(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    /// Reads everything that is there.
    fn drain(&mut self) -> Result<()> {
        while let Some(entry) = self.reader.entry()? {
            match entry {
                Entry::Lost => self.lost = true,
                Entry::Record(record) => {
                    if self.recent.len() == KEPT {
                        self.recent.pop_front();
                    }
                    self.recent.push_back((Instant::now(), record));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives each of its items to one read, as the device does.
    struct Script(VecDeque<io::Result<&'static [u8]>>);

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let record = self.0.pop_front().unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))?;
            buffer[..record.len()].copy_from_slice(record);
            Ok(record.len())
        }
    }

    fn reader<const N: usize>(items: [io::Result<&'static [u8]>; N]) -> Reader<Script> {
        Reader { from: Script(items.into()) }
    }

    fn text(entry: Option<Entry>) -> String {
        match entry {
            Some(Entry::Record(record)) => record.text,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_record_is_its_head_its_text_and_its_fields() {
        let bytes = b"14,380,4074429,-,caller=T1;virtio2: [vda] 4 GiB; a=b\n SUBSYSTEM=virtio\n DEVICE=+virtio:virtio2\n";
        let record = Record::parse(bytes).unwrap();
        assert_eq!((record.priority, record.facility, record.seq), (6, 1, 380));
        assert_eq!(record.at, Duration::from_micros(4_074_429));
        assert_eq!(record.text, "virtio2: [vda] 4 GiB; a=b");
        assert_eq!(record.fields["DEVICE"], "+virtio:virtio2");
        let plain = Record::parse(b"3,477,59233656,-;Source se_lun->lun_se_dev does not exist\n").unwrap();
        assert_eq!((plain.priority, plain.fields.len()), (3, 0));
    }

    #[test]
    fn what_is_no_record_is_none_and_never_a_panic() {
        for broken in ["", ";", "3;x", "3,1;x", "x,1,2,-;y", "3,x,2,-;y", "3,1,-2,-;y", "3,1,2,-", "\0"] {
            assert_eq!(Record::parse(broken.as_bytes()), None, "{broken:?}");
        }
        assert_eq!(Record::parse(b"3,1,2,-;").unwrap().text, "");
        assert!(Record::parse(b"3,1,2,-;\xff\xfe").is_some());
    }

    #[test]
    fn a_silent_log_is_not_waited_for() {
        assert_eq!(reader([]).entry().unwrap(), None);
    }

    #[test]
    fn overwritten_records_are_told_and_the_next_one_is_read() {
        let mut reader = reader([
            Ok(b"3,1,1,-;one"),
            Err(io::Error::from_raw_os_error(EPIPE)),
            Ok(b"not a record"),
            Err(io::ErrorKind::Interrupted.into()),
            Ok(b"3,9,1,-;nine"),
            Err(io::Error::from_raw_os_error(nix::libc::EIO)),
        ]);
        assert_eq!(text(reader.entry().unwrap()), "one");
        assert_eq!(reader.entry().unwrap(), Some(Entry::Lost));
        assert_eq!(text(reader.entry().unwrap()), "nine");
        assert!(reader.entry().is_err());
    }

    #[test]
    fn a_log_that_cannot_be_read_says_why_once_it_is_followed_and_is_empty_else() {
        let log = Log::open("/nowhere/kmsg".as_ref());
        assert!(log.follow().unwrap_err().to_string().contains("/nowhere/kmsg"));
        assert_eq!(log.take(&mut None).unwrap(), Batch::default());
        assert!(log.since(Instant::now()).is_empty());
    }

    /// Returns a log with these records, each read at that many milliseconds after the returned moment.
    fn log(records: &[(u64, &str)]) -> (Log, Instant) {
        let log = Log::open("/dev/null".as_ref());
        let begin = Instant::now();
        let parsed = |line: &str| Record::parse(line.as_bytes()).unwrap();
        let stamped = records.iter().map(|(ms, line)| (begin + Duration::from_millis(*ms), parsed(line)));
        locked(log.inner.as_ref().unwrap()).recent.extend(stamped);
        (log, begin)
    }

    #[test]
    fn only_complaints_of_the_kernel_itself_during_the_call_are_told_and_few() {
        let (log, begin) = log(&[
            (0, "3,1,1,-;before"),
            (10, "6,2,1,-;well"),
            (10, "11,3,1,-;a program"),
            (10, "3,4,1,-;a disk\n SUBSYSTEM=scsi\n"),
            (10, "3,5,1,-;a"),
            (10, "4,6,1,-;b"),
            (10, "3,7,1,-;c"),
            (11, "3,8,1,-;d"),
            (12, "3,9,1,-;e"),
        ]);
        assert_eq!(log.since(begin + Duration::from_millis(5)), ["b", "c", "d", "e"]);
        assert!(log.since(begin + Duration::from_millis(13)).is_empty());
    }

    #[test]
    fn a_follower_takes_each_record_once_and_hears_of_gaps() {
        let (log, _) = log(&[(0, "3,1,1,-;one"), (0, "3,2,1,-;two")]);
        let mut cursor = None;
        assert_eq!(log.take(&mut cursor).unwrap().records.len(), 2);
        assert_eq!(log.take(&mut cursor).unwrap(), Batch::default());
        let next = Record::parse(b"3,7,1,-;seven").unwrap();
        locked(log.inner.as_ref().unwrap()).recent.push_back((Instant::now(), next));
        let batch = log.take(&mut cursor).unwrap();
        assert_eq!((batch.records.len(), batch.lost, cursor), (1, true, Some(7)));
    }
}
