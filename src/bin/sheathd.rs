//! sheathd, the agent. Everything it does is in `sheath::daemon`.

use std::process::ExitCode;

use clap::Parser;
use sheath::daemon::{self, Refusal, journal};

/// sysexits.h's EX_CONFIG: the unit does not start again what only an editor can mend.
const FAULTY_CONFIGURATION: u8 = 78;

fn main() -> ExitCode {
    let args = daemon::Args::parse();
    journal::init(log::LevelFilter::Info);
    match daemon::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Refusal::Configuration(faults)) => {
            faults.iter().for_each(|fault| log::error!("{fault}"));
            log::error!("not started: {} faults in the configuration", faults.len());
            ExitCode::from(FAULTY_CONFIGURATION)
        }
        Err(Refusal::Failure(error)) => {
            log::error!("{}", error.chain());
            ExitCode::from(error.kind().exit_code())
        }
    }
}
