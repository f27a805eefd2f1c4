//! Where log lines go: the journal's fields, its lines, or a terminal.
//!
//! Under systemd, a record with key-values (`log::info!(SHEATH_SLOT = slot; "…")`) goes to journald's own socket, so
//! that `journalctl SHEATH_SLOT=3` finds it; every other record is a line on stderr with its priority before it. With
//! no systemd around, env_logger writes for people. Nothing else in the library knows where it logs to.

use std::io::Write;

use env_logger::{Builder, Env, Logger, fmt::Formatter};
use log::{Level, LevelFilter, Log, Metadata, Record};
use systemd_journal_logger::{JournalLog, connected_to_journal};

/// Starts logging at `default`, unless `RUST_LOG` says otherwise. Called once, before any thread starts.
pub fn init(default: LevelFilter) {
    let mut builder = Builder::from_env(Env::default().default_filter_or(default.as_str()));
    if !connected_to_journal() {
        builder.init();
        return;
    }
    let lines = builder.format(write_lines).build();
    log::set_max_level(lines.filter());
    // The socket is missing in some sandboxes: lines on stderr then say the same, without fields.
    let journal = Journal { lines, native: JournalLog::new().ok() };
    log::set_boxed_logger(Box::new(journal)).expect("logging is started once");
}

/// Logging under systemd.
struct Journal {
    lines: Logger,
    native: Option<JournalLog>,
}

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.lines.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.lines.matches(record) {
            return;
        }
        let sent = match &self.native {
            Some(native) if record.key_values().count() > 0 => native.journal_send(record).is_ok(),
            _ => false,
        };
        if !sent {
            self.lines.log(record);
        }
    }

    fn flush(&self) {
        self.lines.flush();
    }
}

/// Writes a record as journald reads it from stderr: each line with `<N>` before it (sd-daemon(3)).
fn write_lines(out: &mut Formatter, record: &Record<'_>) -> std::io::Result<()> {
    out.write_all(lines(record).as_bytes())
}

fn lines(record: &Record<'_>) -> String {
    let priority = priority(record.level());
    let text = record.args().to_string();
    text.lines().filter(|line| !line.is_empty()).map(|line| format!("<{priority}>{line}\n")).collect()
}

/// Returns the syslog priority; the same that systemd-journal-logger sends, so that both ways filter alike.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 5,
        Level::Debug => 6,
        Level::Trace => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_a_record_carries_its_priority() {
        let record =
            |level, text: &str| lines(&Record::builder().level(level).args(format_args!("{text}")).build());
        assert_eq!(record(Level::Error, "a\nb\r\n\n"), "<3>a\n<3>b\n");
        assert_eq!(record(Level::Trace, "one"), "<7>one\n");
    }
}
