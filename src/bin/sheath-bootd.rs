//! sheath-bootd: answers blades over HTTP.
//!
//! Words in, exit code out; everything it does is in `sheath::bootd`.

use std::process::ExitCode;

use clap::Parser;
use sheath::{bootd, daemon::journal};

fn main() -> ExitCode {
    let args = bootd::Args::parse();
    journal::init(log::LevelFilter::Info);
    match bootd::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            log::error!("{}", e.chain());
            ExitCode::from(e.kind().exit_code())
        }
    }
}
