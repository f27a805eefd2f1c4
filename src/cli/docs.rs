//! Completions and manual pages, made from the same words and tables that the programs run on.
//!
//! The package's build calls `sheath man DIR` and `sheath completions SHELL`; nothing of it is written by hand twice.

use std::path::Path;

use clap::Args as _;
use clap_complete::Shell;
use clap_mangen::{
    Man,
    roff::{Roff, bold, italic, roman},
};

use super::{
    args::{CONFIG, EXIT_STATUS, Globals, command},
    session::Session,
};
use crate::{
    config::{KEYS, Key},
    control::api::SOCKET,
    error::{Context, Result},
    host::file,
};

/// Prints completions for a shell.
pub(super) fn completions(session: &mut Session<'_>, shell: Shell) -> Result<()> {
    let mut text = vec![];
    clap_complete::generate(shell, &mut visible(), "sheath", &mut text);
    session.write(&text)
}

/// Returns the command without its hidden subcommands, which completions would offer.
fn visible() -> clap::Command {
    let whole = command();
    let shown = whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let globals = Globals::augment_args(clap::Command::new("sheath").version(env!("CARGO_PKG_VERSION")));
    globals.subcommands(shown)
}

/// Prints the main manual page, or writes all of them to a folder.
pub(super) fn man(session: &mut Session<'_>, dir: Option<&Path>) -> Result<()> {
    let pages = pages()?;
    let Some(dir) = dir else {
        let main = pages.iter().find(|page| page.file == "sheath.1").expect("the root is a page");
        return session.write(&main.text);
    };
    std::fs::create_dir_all(dir).attempt(|| format!("make folder '{}'", dir.display()))?;
    for page in &pages {
        file::save(&dir.join(&page.file), &page.text, 0o644)?;
    }
    session.say(&format!("{} pages in {}", pages.len(), dir.display()))
}

/// One manual page.
pub(super) struct Page {
    /// Its file's name.
    pub(super) file: String,
    /// Its text in roff.
    pub(super) text: Vec<u8>,
}

/// Returns all pages: one per command, and `sheath.toml(5)`.
pub(super) fn pages() -> Result<Vec<Page>> {
    let mut root = command().disable_help_subcommand(true).after_long_help("");
    root.build();
    let mut pages = vec![configuration_page()?];
    let mut open = vec![root];
    while let Some(command) = open.pop() {
        open.extend(command.get_subcommands().filter(|c| !c.is_hide_set()).cloned());
        pages.push(command_page(command)?);
    }
    pages.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(pages)
}

fn command_page(command: clap::Command) -> Result<Page> {
    let (args, subcommands) = (command.get_arguments().count() > 0, command.has_subcommands());
    let is_root = command.get_name() == "sheath";
    let man = Man::new(command).manual("Sheath");
    let mut text = vec![];
    let written = man
        .render_title(&mut text)
        .and_then(|()| man.render_name_section(&mut text))
        .and_then(|()| man.render_synopsis_section(&mut text))
        .and_then(|()| man.render_description_section(&mut text))
        .and_then(|()| if args { man.render_options_section(&mut text) } else { Ok(()) })
        .and_then(|()| if subcommands { man.render_subcommands_section(&mut text) } else { Ok(()) })
        .and_then(|()| tail(is_root).to_writer(&mut text));
    written.attempt(|| "make a manual page".into())?;
    Ok(Page { file: man.get_filename(), text })
}

/// What the pages have beyond clap's words.
fn tail(is_root: bool) -> Roff {
    let mut roff = Roff::new();
    if is_root {
        roff.control("SH", ["EXIT STATUS"]);
        for (code, what) in EXIT_STATUS {
            roff.control("TP", []).text([bold(code.to_string())]).text([roman(*what)]);
        }
        roff.control("SH", ["ENVIRONMENT"]);
        roff.control("TP", []).text([bold("NO_COLOR")]).text([roman("if set, no colours with --color auto")]);
        roff.control("SH", ["FILES"]);
        roff.control("TP", []).text([italic(CONFIG)]).text([roman("the configuration, see sheath.toml(5)")]);
        roff.control("TP", []).text([italic(SOCKET)]).text([roman("the agent's control socket")]);
        roff.control("SH", ["SEE ALSO"])
            .text([roman("sheath.toml(5), lvmthin(7), targetcli(8), dnsmasq(8)")]);
    } else {
        roff.control("SH", ["EXIT STATUS"]).text([roman("As in sheath(1).")]);
        roff.control("SH", ["SEE ALSO"]).text([roman("sheath(1), sheath.toml(5)")]);
    }
    roff
}

/// Returns `sheath.toml(5)`, made from the table of keys.
fn configuration_page() -> Result<Page> {
    let mut roff = Roff::new();
    roff.control("TH", ["sheath.toml", "5", "", "", "Sheath"]);
    roff.control("SH", ["NAME"]).text([roman("sheath.toml - what the blade appliance does")]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([
        roman("A TOML file, "),
        italic(CONFIG),
        roman(". Only the address and the slots of [chassis] must be written. A file with faults is never used: "),
        roman("at start sheathd refuses it, later the last good one stays in force. "),
        bold("sheath config check"),
        roman(" lists every fault at once."),
    ]);
    let mut table = None;
    for key in KEYS.iter().filter(|key| !key.expected.starts_with("a table")) {
        if table != Some(key.table) {
            table = Some(key.table);
            roff.control("SH", [heading(key.table)]);
        }
        describe(&mut roff, key);
    }
    roff.control("SH", ["SEE ALSO"]).text([roman("sheath(1)")]);
    let mut text = vec![];
    roff.to_writer(&mut text).attempt(|| "make a manual page".into())?;
    Ok(Page { file: "sheath.toml.5".into(), text })
}

fn heading(table: &str) -> &str {
    match table {
        "policy" => "[policy], [policy.slot.N], [policy.blade.\"MAC\"]",
        "policy.*.*" => "[policy.slot.N], [policy.blade.\"MAC\"] only",
        "chassis" => "[chassis]",
        "chassis.slots" => "[chassis.slots]",
        "pool" => "[pool]",
        "dhcp" => "[dhcp]",
        "target" => "[target]",
        "image.NAME" => "[image.NAME]",
        other => other,
    }
}

fn describe(roff: &mut Roff, key: &Key) {
    let name = if key.name == "*" { "NUMBER" } else { key.name };
    roff.control("TP", []).text([bold(name)]);
    let mut about = key.about.to_owned();
    if let Some(first) = about.get(..1) {
        about = first.to_uppercase() + &about[1..];
    }
    let mut line = vec![roman(format!("{about}. Expects {}.", key.expected))];
    if !key.default.is_empty() {
        line.extend([roman(" Default: "), bold(key.default), roman(".")]);
    }
    roff.text(line);
}
