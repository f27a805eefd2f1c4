//! The operator's command line: words in, tables or JSON out.
//!
//! One file per command; `args` has the words, `session` is what a command may touch (the agent, the terminal), `table`
//! and `human` turn views into text. Nothing is decided here: the agent decides, the command line asks and shows.
//! `setup` is the exception: it prepares a machine on which no agent runs yet.

mod adopt;
pub mod args;
mod ask;
mod blades;
mod config;
mod connect;
mod docs;
mod donors;
mod events;
mod export;
mod human;
mod images;
mod import;
mod internal;
mod log;
mod offer;
mod plan;
mod report;
mod session;
mod sessions;
mod setup;
mod status;
mod table;
mod targets;
mod work;

pub use ask::Ask;

use std::process::ExitCode;

use clap::Parser as _;

use crate::error::Result;
use args::{Args, BladeVerb, Command, ConfigVerb, ImageVerb, SessionVerb};
use session::Session;

/// Runs `sheath` with the process's arguments and returns its exit code.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let client = connect::client(&args.globals.socket);
    let mut session = Session::of_process(&*client, &args.globals);
    match run(&mut session, args.command) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads our output has seen enough.
        Err(error) if report::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            report::report(&mut session, &error);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

/// Runs one command.
fn run(session: &mut Session<'_>, command: Command) -> Result<()> {
    match command {
        Command::Status => status::status(session),
        Command::Blades => blades::list(session),
        Command::Blade(verb) => match verb {
            BladeVerb::Show { slot } => blades::show(session, slot),
            BladeVerb::Install(install) => blades::install(session, &install),
            BladeVerb::Release { slot, yes } => blades::release(session, slot, yes),
            BladeVerb::Grow { slot, size, dry_run } => blades::grow(session, slot, size, dry_run),
            BladeVerb::Move { blade, slot } => blades::bind(session, blade, slot),
            BladeVerb::Apply { slot, yes } => blades::apply(session, slot, yes),
        },
        Command::Images => images::list(session),
        Command::Image(verb) => match verb {
            ImageVerb::Import(import) => import::import(session, &import),
            ImageVerb::Capture(capture) => import::capture(session, &capture),
            ImageVerb::Publish { image, unproved } => images::publish(session, image, unproved),
            ImageVerb::Log { image, firmware } => log::log(session, image, firmware),
            ImageVerb::Unpublish { image } => images::unpublish(session, image),
            ImageVerb::Show { image } => images::show(session, image),
            ImageVerb::Default { image } => images::default(session, image),
            ImageVerb::Promote(promote) => images::promote(session, &promote),
            ImageVerb::Export(args) => export::export(session, &args),
            ImageVerb::Remove { image, yes } => images::remove(session, image, yes),
            ImageVerb::Check { image } => work::check(session, &image),
            ImageVerb::Cancel { image } => images::cancel(session, image),
            ImageVerb::Seal { image, dry_run } => work::seal(session, &image, dry_run),
            ImageVerb::Prove { image, firmware } => work::prove(session, &image, firmware),
            ImageVerb::Offer { image, firmware } => offer::offer(session, &image, firmware),
            ImageVerb::Key => images::key(session),
        },
        Command::Targets => targets::list(session),
        Command::Sessions => sessions::list(session),
        Command::Session(SessionVerb::Drop { slot, yes }) => sessions::close(session, slot, yes),
        Command::Adopt(args) => adopt::adopt(session, &args),
        Command::Plan => plan::show(session),
        Command::Events(events) => events::run(session, &events),
        Command::Config(ConfigVerb::Check { file }) => config::check(session, &file),
        Command::Reload => config::reload(session),
        Command::Setup(args) => setup::setup(session, &args),
        Command::Completions { shell } => docs::completions(session, shell),
        Command::Man { dir } => docs::man(session, dir.as_deref()),
        Command::Donors => donors::list(session),
        Command::InternalProbe { args } => internal::probe(&args),
        Command::InternalConvert { args } => internal::convert(&args),
        Command::InternalCopy { args } => internal::copy(&args),
        Command::InternalWorkshop => internal::workshop(),
        Command::InternalBuildWorkshop { folder, flavour } => internal::build_workshop(&folder, &flavour),
    }
}

#[cfg(test)]
mod tests;
