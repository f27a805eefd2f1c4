//! `lab`: the lab from the command line. `images` fills the cache, `selftest` proves that the guests work,
//! `demo` shows the main job, `shell` opens a root shell in an appliance that runs elsewhere.

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["images"] => images(),
        ["demo"] => sheath_lab::demo::run(),
        ["selftest"] => sheath_lab::selftest::run(),
        ["shell"] => sheath_lab::terminal::shell(),
        _ => {
            sheath_lab::phase::say("usage: lab images | demo | selftest | shell");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            sheath_lab::phase::say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Makes all that is kept.
fn images() -> sheath_lab::Result<()> {
    let lab = sheath_lab::Lab::new("images")?;
    let older = sheath_lab::Lab::new("images")?.on(sheath_lab::Release::Bookworm);
    sheath_lab::phase::timed("images", || {
        sheath_lab::images::booted(&lab)?;
        sheath_lab::images::booted(&older)?;
        sheath_lab::images::golden(&lab)?;
        sheath_lab::images::donor(&lab).map(|_| ())
    })
}
