//! Tables without borders, one line per row, so that they can be read, grepped and cut.
//!
//! Colour is put on whole lines after the columns are laid out: escape sequences have no width.

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, ContentArrangement, presets};

/// As it is.
pub(super) const PLAIN: Style = Style::new();
/// As it should be.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// Wrong.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
/// Waits for somebody.
pub(super) const WAITS: Style = AnsiColor::Yellow.on_default();
/// Not there.
pub(super) const FAINT: Style = Style::new().dimmed();
/// A heading.
pub(super) const HEAD: Style = Style::new().bold();

/// A table in the making.
pub(super) struct Table {
    inner: comfy_table::Table,
    styles: Vec<Style>,
}

impl Table {
    /// Returns a table with these headings.
    pub(super) fn new(headings: &[&str]) -> Self {
        let mut inner = comfy_table::Table::new();
        inner.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        inner.set_header(headings.iter().copied());
        Self { inner, styles: vec![HEAD] }
    }

    /// Aligns a column of numbers to the right.
    #[must_use]
    pub(super) fn right(mut self, column: usize) -> Self {
        if let Some(column) = self.inner.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        self
    }

    /// Adds a row.
    pub(super) fn row(&mut self, style: Style, cells: impl IntoIterator<Item = String>) {
        // A line break would tear the row from its style, and the table for whoever reads it line by line.
        self.inner.add_row(cells.into_iter().map(|cell| super::human::tame(&cell)));
        self.styles.push(style);
    }

    /// Returns the table's lines.
    pub(super) fn render(&self, color: bool) -> String {
        let lines = self.inner.lines().zip(&self.styles).map(|(line, style)| {
            let line = line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned();
            if color { paint(*style, &line) } else { line }
        });
        lines.fold(String::new(), |text, line| text + &line + "\n")
    }
}

/// Returns the text in this style.
pub(super) fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_colour_has_no_width() {
        let mut table = Table::new(&["SLOT", "NAME"]).right(0);
        table.row(PLAIN, ["1".into(), "a".into()]);
        table.row(BAD, ["22".into(), "two\nlines".into()]);
        assert_eq!(table.render(false), "SLOT  NAME\n   1  a\n  22  two\\nlines\n");
        let colored = table.render(true);
        assert_eq!(anstream::adapter::strip_str(&colored).to_string(), table.render(false));
        assert!(colored.contains("\u{1b}["));
    }
}
