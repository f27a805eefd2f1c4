//! The README's commands are ones that the command line takes.

use clap::Parser as _;

use crate::cli::args::Args;

const README: &str = include_str!("../../../README.md");

/// Returns the commands of the README's shell blocks, without what stands behind a `#`.
fn commands() -> Vec<String> {
    let blocks = README.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let lines = blocks.flat_map(str::lines).map(|line| line.split('#').next().unwrap_or_default().trim());
    let ours = lines.filter_map(|line| line.strip_prefix("sudo ").or(Some(line)));
    ours.filter(|line| line.starts_with("sheath ")).map(str::to_owned).collect()
}

#[test]
fn every_command_of_the_readme_is_one() {
    let commands = commands();
    assert!(commands.len() > 30, "{commands:?}");
    for command in commands {
        // What the reader has to put in himself.
        let written = command.replace("IQN", "iqn.2003-01.org.linux-iscsi.box:sn.1");
        let parsed = Args::try_parse_from(written.split_whitespace());
        assert!(parsed.is_ok(), "'{command}': {}", parsed.unwrap_err());
    }
}
