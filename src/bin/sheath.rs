//! `sheath`, the operator's command line. Everything is in the library's `cli` room.

fn main() -> std::process::ExitCode {
    sheath::cli::main()
}
