//! The arrows of the architecture: which room may use which. Reads every file below `src`, finds each path that starts
//! with `crate::`, `sheath::` or `super::`, and asks one table. What a `#[cfg(test)]` module uses is not asked: a test
//! may stand on anything.

mod source;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use source::{Source, Uses};

/// Room, and what it may use. Ordered from the ground up; nothing may use what stands further down in this table.
///
/// Two files have rows of their own, because they are nouns in the houses of verbs: `observed` (what the machine has) is
/// pure data that `plan` compares and `status` shows; `step` (what a plan is made of) is pure data that `host` runs.
const ARROWS: &[(&str, &[&str])] = &[
    // Nouns.
    ("error", &[]),
    ("model", &["error"]),
    ("observed", &["error", "model"]),
    ("step", &["error", "model"]),
    // Pure: no effect on the machine, no clock.
    ("config", &["error", "model"]),
    ("status", &["error", "model", "observed", "step"]),
    ("roster", &["error", "model", "observed", "config", "status"]),
    ("policy", &["error", "model", "observed", "step", "config", "status", "roster"]),
    ("plan", &["error", "model", "observed", "step", "config", "roster", "policy"]),
    // Every effect on the machine.
    ("host", &["error", "model", "observed", "step", "config", "status"]),
    // Acting.
    ("apply", &["error", "model", "observed", "step", "config", "status", "policy", "plan", "host"]),
    ("image", &["error", "model", "observed", "step", "config", "status", "plan", "host"]),
    // Edges: events in, answers out. `boot` serves over the same kind of socket as `control`.
    ("watch", &["error", "model", "observed", "config", "status", "host"]),
    ("control", &["error", "model", "status", "host"]),
    ("boot", &["error", "model", "config", "status", "host", "control"]),
    // Wiring.
    ("cli", &["error", "model", "observed", "step", "config", "status", "host", "image", "control"]),
    ("bootd", &["error", "model", "config", "status", "host", "control", "boot"]),
    (
        "daemon",
        &[
            "error", "model", "observed", "step", "config", "status", "roster", "policy", "plan", "host",
            "apply", "image", "watch", "control", "boot",
        ],
    ),
    ("bin", &["error", "cli", "bootd", "daemon"]),
];

/// Nouns that a house of verbs hands on under its own name: room, file of the house, module in it.
const NOUNS: &[(&str, &str, &str)] = &[("observed", "host", "observed"), ("step", "plan", "step")];

/// Returns what is wrong with one file's uses, a line each.
fn faults_of(uses: &Uses, nouns: &Nouns) -> Vec<String> {
    let from = nouns.room_of_file(&uses.file);
    let Some(allowed) = ARROWS.iter().find(|row| row.0 == from).map(|row| row.1) else {
        return vec![format!("{}: room '{from}' has no row in the table of tests/layers.rs", uses.file)];
    };
    let arrows = uses.paths.iter().map(|(line, path)| (line, nouns.room_of_path(path)));
    arrows
        .filter(|(_, to)| *to != from && !allowed.contains(&to.as_str()))
        .map(|(line, to)| format!("{}:{line}: {from} -> {to}", uses.file))
        .collect()
}

/// Which names a house hands on from its nouns.
struct Nouns(BTreeMap<(String, String), String>);

impl Nouns {
    /// Returns the names that the houses' `mod.rs` re-export from their nouns.
    fn read(sources: &[Source]) -> Self {
        let mut names = BTreeMap::new();
        for (room, house, module) in NOUNS {
            names.insert(((*house).to_owned(), (*module).to_owned()), (*room).to_owned());
            let head = sources.iter().find(|source| source.file == format!("{house}/mod.rs"));
            for name in head.map(|source| source.reexports_of(module)).unwrap_or_default() {
                names.insert(((*house).to_owned(), name), (*room).to_owned());
            }
        }
        Self(names)
    }

    /// Returns the room that a path (without `crate`) leads to.
    fn room_of_path(&self, path: &[String]) -> String {
        let key = (path[0].clone(), path.get(1).cloned().unwrap_or_default());
        self.0.get(&key).cloned().unwrap_or_else(|| path[0].clone())
    }

    /// Returns the room that a file (below `src`) is in.
    fn room_of_file(&self, file: &str) -> String {
        let path: Vec<_> = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        self.room_of_path(&path)
    }
}

/// Returns all faults of a source tree.
fn faults(sources: &[Source]) -> Vec<String> {
    let nouns = Nouns::read(sources);
    sources
        .iter()
        .filter(|source| source.file != "lib.rs" && source.file != "sample.rs")
        .flat_map(|source| {
            let mut uses = source.uses();
            // A house may name its own noun's module when it hands it on.
            let house = uses.file.strip_suffix("/mod.rs").map(str::to_owned);
            uses.paths.retain(|(_, path)| house.as_ref() != path.first());
            faults_of(&uses, &nouns)
        })
        .collect()
}

#[test]
fn every_room_uses_only_what_stands_below_it() {
    let sources = Source::read_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let faults = faults(&sources);
    assert!(faults.is_empty(), "arrows that the architecture does not have:\n  {}", faults.join("\n  "));
}

#[test]
fn the_table_itself_points_only_downwards() {
    let mut below = BTreeSet::new();
    for (room, allowed) in ARROWS {
        allowed.iter().for_each(|to| assert!(below.contains(to), "{room} -> {to} points up"));
        assert!(below.insert(room), "{room} has two rows");
    }
}

#[test]
fn a_wrong_arrow_is_named_with_file_and_line() {
    let text = "use crate::{\n    error::Error,\n    model::{Mac, Slot},\n    host::{self, Host},\n};\n";
    let sources = [Source::new("config/check.rs", text)];
    assert_eq!(faults(&sources), ["config/check.rs:4: config -> host", "config/check.rs:4: config -> host"]);
}

#[test]
fn an_arrow_hidden_in_code_or_behind_super_is_found() {
    let text = "//! crate::daemon in a comment is none.\nfn f() -> super::super::daemon::D {\n    crate::bootd::go(\"crate::cli::x\")\n}\n";
    let sources = [Source::new("model/mac.rs", text)];
    assert_eq!(faults(&sources), ["model/mac.rs:2: model -> daemon", "model/mac.rs:3: model -> bootd"]);
}

#[test]
fn a_test_module_may_stand_on_anything() {
    let text = "use crate::error::Error;\n#[cfg(test)]\nmod tests {\n    use crate::daemon::Daemon;\n}\n";
    assert_eq!(faults(&[Source::new("model/mac.rs", text)]), [""; 0]);
}

#[test]
fn nouns_of_a_house_are_rooms_of_their_own() {
    let house = Source::new(
        "host/mod.rs",
        "mod observed;\npub use observed::{Session, Volumes};\npub trait Host {}\n",
    );
    let good = Source::new("status.rs", "use crate::host::{Session, Volumes};\n");
    let bad = Source::new("status.rs", "use crate::host::Host;\n");
    let upward = Source::new("host/observed.rs", "use super::Host;\n");
    assert_eq!(faults(&[house.clone(), good]), [""; 0]);
    assert_eq!(faults(&[house.clone(), bad]), ["status.rs:1: status -> host"]);
    assert_eq!(faults(&[house, upward]), ["host/observed.rs:1: observed -> host"]);
}

#[test]
fn a_room_without_a_row_is_a_fault() {
    let faults = faults(&[Source::new("attic.rs", "")]);
    assert_eq!(faults, ["attic.rs: room 'attic' has no row in the table of tests/layers.rs"]);
}
