//! Just enough of Rust's grammar to see which modules a file uses: comments and strings blanked, test modules cut,
//! `use` trees unfolded. What the arrows mean is for `layers.rs`.

use std::{fs, path::Path};

/// One source file.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Its path below `src`.
    pub(crate) file: String,
    /// Its text, blanked and cut; lines keep their numbers.
    text: String,
}

/// The modules that a file uses.
#[derive(Debug, Clone)]
pub(crate) struct Uses {
    /// The file's path below `src`.
    pub(crate) file: String,
    /// Line, and path from the crate's root.
    pub(crate) paths: Vec<(usize, Vec<String>)>,
}

impl Source {
    /// Returns the source `text` of the file.
    pub(crate) fn new(file: &str, text: &str) -> Self {
        Self { file: file.to_owned(), text: without_tests(&blanked(text)) }
    }

    /// Returns all sources below the folder, test modules' files left out.
    pub(crate) fn read_all(root: &Path) -> Vec<Self> {
        let (mut sources, mut folders) = (vec![], vec![root.to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a source folder is readable") {
                let path = entry.expect("a source folder is readable").path();
                let name =
                    path.file_name().and_then(|name| name.to_str()).expect("source files have plain names");
                match name {
                    "tests" | "tests.rs" => {}
                    _ if path.is_dir() => folders.push(path),
                    _ if name.ends_with(".rs") => {
                        let text = fs::read_to_string(&path).expect("a source file is readable");
                        let below = path.strip_prefix(root).expect("it was found below the root");
                        sources.push(Self::new(&below.to_string_lossy(), &text));
                    }
                    _ => {}
                }
            }
        }
        sources.sort_by(|a, b| a.file.cmp(&b.file));
        sources
    }

    /// Returns the paths that start with `crate`, `sheath` or `super`.
    pub(crate) fn uses(&self) -> Uses {
        let tokens = tokens(&self.text);
        let mut paths = vec![];
        for at in 0..tokens.len() {
            let starts = matches!(tokens[at].1, "crate" | "sheath" | "super");
            let follows = at > 0 && tokens[at - 1].1 == "::";
            if starts && !follows && tokens.get(at + 1).is_some_and(|token| token.1 == "::") {
                unfold(&tokens, at, &[], &mut paths);
            }
        }
        let from_root = |(line, path): (usize, Vec<String>)| Some((line, self.resolve(&path)?));
        Uses { file: self.file.clone(), paths: paths.into_iter().filter_map(from_root).collect() }
    }

    /// Returns the names that `pub use MODULE::…` hands on.
    pub(crate) fn reexports_of(&self, module: &str) -> Vec<String> {
        let tokens = tokens(&self.text);
        let mut paths = vec![];
        for at in 1..tokens.len() {
            if tokens[at].1 == module && tokens[at - 1].1 == "use" {
                unfold(&tokens, at, &[], &mut paths);
            }
        }
        paths.into_iter().filter_map(|(_, path)| path.get(1).cloned()).collect()
    }

    /// Returns the path from the crate's root; `None` where it leads to the root itself.
    fn resolve(&self, path: &[String]) -> Option<Vec<String>> {
        let mut here: Vec<String> = self.file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        here.pop_if(|last| last == "mod");
        let supers = path.iter().take_while(|part| *part == "super").count();
        here.truncate(here.len().saturating_sub(supers));
        let rest = if supers == 0 { &path[1..] } else { &path[supers..] };
        let full: Vec<_> =
            if supers == 0 { rest.to_vec() } else { here.iter().chain(rest).cloned().collect() };
        (!full.is_empty()).then_some(full)
    }
}

/// Line number (from 1) and text of a token.
type Token<'a> = (usize, &'a str);

/// Splits into identifiers, `::`, and single other characters.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = vec![];
    for (number, line) in text.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            let length = match first {
                _ if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
                ':' if rest.starts_with("::") => 2,
                _ => first.len_utf8(),
            };
            tokens.push((number + 1, &rest[..length]));
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

/// Adds the paths of the tree that begins at `at`; returns where it ends.
fn unfold(
    tokens: &[Token<'_>],
    at: usize,
    before: &[String],
    paths: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    let Some((line, word)) = tokens.get(at).copied() else { return at };
    if word == "{" {
        let mut at = at + 1;
        while tokens.get(at).is_some_and(|token| token.1 != "}") {
            at = if tokens[at].1 == "," { at + 1 } else { unfold(tokens, at, before, paths) };
        }
        return at + 1;
    }
    let mut path = before.to_vec();
    if !matches!(word, "self" | "*") {
        path.push(word.to_owned());
    }
    let next = tokens.get(at + 1).map(|token| token.1);
    let goes_on = tokens.get(at + 2).is_some_and(|token| token.1 == "{" || !token.1.starts_with(['<', '(']));
    if next == Some("::") && goes_on {
        return unfold(tokens, at + 2, &path, paths);
    }
    paths.push((line, path));
    let renamed = next == Some("as");
    if renamed { at + 3 } else { at + 1 }
}

/// Returns the text with comments and the insides of strings blanked; every line stays where it is.
fn blanked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (length, keep) = match first {
            '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), false),
            '/' if rest.starts_with("/*") => (rest.find("*/").map_or(rest.len(), |end| end + 2), false),
            '"' => (string_length(rest, 1), false),
            'r' if rest.starts_with("r#\"") => (rest.find("\"#").map_or(rest.len(), |end| end + 2), false),
            '\'' if rest.starts_with("'\"'") || rest.starts_with("'{'") || rest.starts_with("'}'") => {
                (3, false)
            }
            _ => (first.len_utf8(), true),
        };
        let (part, tail) = rest.split_at(length);
        match keep {
            true => out.push_str(part),
            false => out.extend(part.chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
        }
        rest = tail;
    }
    out
}

/// Returns the length of the string literal that `rest` begins with.
fn string_length(rest: &str, from: usize) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(from) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Returns the text without what stands behind `#[cfg(test)]`: the next item, to its closing brace or semicolon.
fn without_tests(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("#[cfg(test)]") {
        out.push_str(&rest[..at]);
        let (mut depth, mut end) = (0usize, rest.len());
        for (i, c) in rest[at..].char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 && (c == '}' || c == ';') {
                end = at + i + 1;
                break;
            }
        }
        out.extend(rest[at..end].chars().filter(|c| *c == '\n'));
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}
