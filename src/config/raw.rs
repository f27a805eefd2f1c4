//! The file as it was written: TOML with the place of every key, read key by key.
//!
//! serde's derive stops at the first fault; this reader goes on and keeps them all. It knows types and names (from the
//! table in `keys`); what the values mean together is for `check`.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    fault::{Fault, did_you_mean, place, written},
    keys::known,
};

/// A file being read, and its faults so far.
pub(super) struct Reader<'t> {
    file: &'t str,
    text: &'t str,
    faults: Vec<Fault>,
    syntax_lines: Vec<usize>,
}

/// One table of the file; an absent one reads as empty.
pub(super) struct Section<'d, 't> {
    /// The table's row in `keys`, such as `image.NAME`.
    schema: &'static str,
    /// The table as the file names it, such as `image.debian13`.
    path: String,
    table: Option<&'d DeTable<'t>>,
    /// Where the table begins, for faults about what is not in it.
    at: Range<usize>,
}

impl<'t> Reader<'t> {
    /// Returns a reader of `text` and the file's table. Faults of syntax are kept; what could be read is in the table.
    pub(super) fn open(file: &'t str, text: &'t str) -> (Self, Spanned<DeTable<'t>>) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut reader = Self { file, text, faults: vec![], syntax_lines: vec![] };
        for error in errors {
            let (line, _) = place(text, error.span().unwrap_or_default().start);
            // One slip confuses the rest of its line: the first complaint is the one that helps.
            if !reader.syntax_lines.contains(&line) {
                reader.syntax_fault(&error);
                reader.syntax_lines.push(line);
            }
        }
        (reader, table)
    }

    /// Keeps a fault.
    pub(super) fn fault(&mut self, at: Range<usize>, key: &str, expected: &str, found: &str) {
        let (line, column) = place(self.text, at.start);
        // A line that is not TOML has no meaning that could be wrong too.
        if !self.syntax_lines.contains(&line) {
            self.faults.push(Fault {
                file: self.file.into(),
                line,
                column,
                key: key.into(),
                expected: expected.into(),
                found: found.into(),
            });
        }
    }

    fn syntax_fault(&mut self, error: &toml::de::Error) {
        let (at, message) = (error.span().unwrap_or_default(), error.message().replace('\n', ", "));
        let line_start = self.text.get(..at.start).and_then(|t| t.rfind('\n')).map_or(0, |n| n + 1);
        let found =
            format!("{} ({message})", self.written(line_start..self.text.len()).trim_end_matches('…'));
        self.fault(at, "", "TOML", &found);
    }

    /// Returns what was written at this place, for a fault.
    pub(super) fn written(&self, at: Range<usize>) -> String {
        written(self.text, at)
    }

    /// Returns all faults, in the order of the file.
    pub(super) fn into_faults(mut self) -> Vec<Fault> {
        self.faults.sort_by(|a, b| (a.line, a.column, &a.key).cmp(&(b.line, b.column, &b.key)));
        self.faults.dedup();
        self.faults
    }
}

impl<'d, 't> Section<'d, 't> {
    /// Returns the top of the file.
    pub(super) fn top(table: &'d Spanned<DeTable<'t>>) -> Self {
        Self { schema: "", path: String::new(), table: Some(table.get_ref()), at: 0..0 }
    }

    /// Returns the table below this one; a fault is kept where something else stands there.
    pub(super) fn table(&self, reader: &mut Reader<'_>, name: &str, schema: &'static str) -> Self {
        let path = self.path_of(name);
        match self.find(name) {
            Some((key, value)) => {
                Self { schema, table: self.as_table(reader, (&path, name), value), path, at: key.span() }
            }
            None => Self { schema, path, table: None, at: self.at.clone() },
        }
    }

    /// Returns the tables below this one, whose names are the administrator's: `[image.NAME]`.
    pub(super) fn tables(
        &self,
        reader: &mut Reader<'_>,
        schema: &'static str,
    ) -> Vec<(Spanned<String>, Self)> {
        let entries = self.entries();
        let made = entries.into_iter().map(|(name, value)| {
            let path = self.path_of(name.get_ref());
            let at = name.span();
            let table = self.as_table(reader, (&path, name.get_ref()), value);
            (name, Self { schema, path, table, at })
        });
        made.collect()
    }

    /// Returns all keys and values, whatever their names, in the order of the file.
    pub(super) fn entries(&self) -> Vec<(Spanned<String>, &'d Spanned<DeValue<'t>>)> {
        let all = self.table.into_iter().flatten();
        let mut all: Vec<_> =
            all.map(|(key, value)| (Spanned::new(key.span(), key.get_ref().to_string()), value)).collect();
        all.sort_by_key(|(key, _)| key.span().start);
        all
    }

    /// Returns the value of a key as `read` understands it; `None` where it is absent, or wrong: then a fault is kept.
    pub(super) fn value<T>(
        &self,
        reader: &mut Reader<'_>,
        name: &str,
        read: impl FnOnce(&DeValue<'_>) -> Option<T>,
    ) -> Option<Spanned<T>> {
        let (_, value) = self.find(name)?;
        self.read_value(reader, (&self.path_of(name), name), value, read)
    }

    /// Returns a value that is already at hand; the fault is as in [`Section::value`].
    pub(super) fn read_value<T>(
        &self,
        reader: &mut Reader<'_>,
        (path, name): (&str, &str),
        value: &Spanned<DeValue<'_>>,
        read: impl FnOnce(&DeValue<'_>) -> Option<T>,
    ) -> Option<Spanned<T>> {
        let found = read(value.get_ref());
        if found.is_none() {
            let shown = shown(reader, value);
            reader.fault(value.span(), path, self.expected(name), &shown);
        }
        found.map(|found| Spanned::new(value.span(), found))
    }

    /// Keeps a fault for a key that must be there and is not.
    pub(super) fn require(&self, reader: &mut Reader<'_>, name: &str) {
        if self.find(name).is_none() {
            reader.fault(self.at.clone(), &self.path_of(name), self.expected(name), "nothing");
        }
    }

    /// Keeps a fault for each key that the table does not know.
    pub(super) fn refuse_unknown(&self, reader: &mut Reader<'_>) {
        self.refuse_unknown_but(reader, "");
    }

    /// As [`Section::refuse_unknown`], but for one key that somebody else has words for.
    pub(super) fn refuse_unknown_but(&self, reader: &mut Reader<'_>, but: &str) {
        let names: Vec<&str> = known(self.schema).map(|key| key.name).collect();
        for (key, _) in self.entries() {
            if names.contains(&key.get_ref().as_str()) || key.get_ref() == but {
                continue;
            }
            let expected = match did_you_mean(key.get_ref(), names.iter().copied()) {
                Some(near) => format!("a known key (did you mean '{near}'?)"),
                None => format!("one of {}", names.join(", ")),
            };
            let found = reader.written(key.span());
            reader.fault(key.span(), &self.path_of(key.get_ref()), &expected, &format!("'{found}'"));
        }
    }

    /// Returns the table's name as the file has it.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Returns whether the file has the table.
    pub(super) fn is_there(&self) -> bool {
        self.table.is_some()
    }

    /// Returns the whole name of a key of this table.
    pub(super) fn path_of(&self, name: &str) -> String {
        let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let name = if !name.is_empty() && name.chars().all(bare) { name.into() } else { format!("{name:?}") };
        if self.path.is_empty() { name } else { format!("{}.{name}", self.path) }
    }

    /// Returns the place of a key, or of the table where it is absent.
    pub(super) fn at(&self, name: &str) -> Range<usize> {
        self.find(name).map_or(self.at.clone(), |(key, _)| key.span())
    }

    fn find(&self, name: &str) -> Option<(&'d Spanned<toml::de::DeString<'t>>, &'d Spanned<DeValue<'t>>)> {
        self.table?.iter().find(|(key, _)| key.get_ref() == name)
    }

    fn expected(&self, name: &str) -> &'static str {
        let row = known(self.schema).find(|key| key.name == name || key.name == "*");
        row.expect("a test reads every key through this table").expected
    }

    fn as_table(
        &self,
        reader: &mut Reader<'_>,
        (path, name): (&str, &str),
        value: &'d Spanned<DeValue<'t>>,
    ) -> Option<&'d DeTable<'t>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            let shown = shown(reader, value);
            reader.fault(value.span(), path, self.expected(name), &shown);
        }
        table
    }
}

/// Returns a value for a fault: as it was written, or its type where that is no help.
fn shown(reader: &Reader<'_>, value: &Spanned<DeValue<'_>>) -> String {
    let written = reader.written(value.span());
    match value.get_ref() {
        DeValue::Table(_) if !written.starts_with('{') => "a table".into(),
        _ => written,
    }
}
