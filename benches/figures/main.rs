//! The figures that `make bench` shows, measured on real kernels in a guest of the lab.
//!
//! One program for both sides. On the machine that builds, it hands itself to the lab (`sheath_lab::bench`), which starts
//! the guest, runs the parts that drive the installed package, and collects. In the guest (`SHEATH_GUEST=1`) it is the
//! engine without LVM: the product's own line, lanes, plans and LIO verbs over null_blk devices, beside the raw system
//! calls and the distribution's tools. Each figure is a line of JSON on standard output:
//! `{"name", "value", "unit", "baseline", "note"}`.
//!
//! ```text
//!   fixture   N blades: devices, volumes, configuration        host   the machine without LVM and udev
//!   line      daemon::core::Core with real lanes               raw    the same objects by bare system calls
//!   restore · targetctl · event · syscalls · fio · storm           the engine alone, in a bare guest
//!   drift · volumes · import · workshop                        beside the installed agent
//! ```

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]
#![allow(
    clippy::disallowed_methods,
    reason = "drives the guest's own tools and writes to its kernel as a person would"
)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its output is its result")]

mod clear;
mod drift;
mod event;
mod fio;
mod fixture;
mod host;
mod import;
mod initiator;
mod line;
mod raw;
mod restore;
mod row;
mod storm;
mod syscalls;
mod targetctl;
mod volumes;
mod workshop;

use std::process::ExitCode;

/// How the guest is told that it is one: everything here changes the kernel that it runs on.
const GUEST: &str = "SHEATH_GUEST";

fn main() -> ExitCode {
    if std::env::var_os(GUEST).is_none_or(|value| value != "1") {
        return on_the_building_machine();
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["prepare", devices] => fixture::prepare(devices.parse().unwrap()),
        ["clear"] => drop(clear::all()),
        ["restore", targets, rounds] => {
            restore::against_raw(targets.parse().unwrap(), rounds.parse().unwrap())
        }
        ["growth", rounds] => restore::growth(rounds.parse().unwrap()),
        ["targetctl", targets, rounds] => {
            targetctl::beside(targets.parse().unwrap(), rounds.parse().unwrap());
        }
        ["event", targets, events] => event::growth(targets.parse().unwrap(), events.parse().unwrap()),
        ["syscalls", targets] => syscalls::against_raw(targets.parse().unwrap()),
        ["fio", rounds] => fio::vs_handmade(rounds.parse().unwrap()),
        ["storm", initiators] => storm::logins(initiators.parse().unwrap()),
        // Beside the installed agent.
        ["drift", rounds] => drift::repair(rounds.parse().unwrap()),
        ["volumes", number] => volumes::make(number.parse().unwrap()),
        ["served", number] => volumes::served(number.parse().unwrap()),
        ["import", rounds] => import::beside_qemu(rounds.parse().unwrap()),
        ["workshop"] => workshop::phases(),
        // What strace runs.
        ["engine", targets] => drop(restore::engine(targets.parse().unwrap())),
        ["raw", targets] => drop(restore::raw(targets.parse().unwrap())),
        other => panic!("no such part: {other:?}"),
    }
    ExitCode::SUCCESS
}

/// Hands this very program to the lab.
fn on_the_building_machine() -> ExitCode {
    let program = std::env::current_exe().unwrap();
    match sheath_lab::bench::run(&program) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("a bar is not met");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
