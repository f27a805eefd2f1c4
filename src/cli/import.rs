//! `sheath image import`: hands a source to the agent and shows how far it is, and how fast.
//!
//! The agent does the work and goes on when this command is stopped; the same command again shows how far it is.

use std::{path::Path, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

use super::{
    args::{CaptureArgs, ImportArgs, ProofFirmware},
    ask, human,
    session::Session,
};
use crate::{
    control::api::{ImportRequest, Request},
    error::{Context, Error, Result},
    model::{Bytes, ImageName, NetDonor},
    status::{ImportProgress, Pace},
};

/// How often the bar's spinner turns while nothing else is new.
const TICK: Duration = Duration::from_millis(120);

/// Has the disk of a machine in a slot captured.
pub(super) fn capture(session: &mut Session<'_>, args: &CaptureArgs) -> Result<()> {
    let source = NetDonor { slot: args.slot, disk: args.disk.clone() };
    let CaptureArgs { name, then, .. } = args.clone();
    let import = ImportArgs { name, source: source.to_string(), then, sha256: None, checksum: None };
    self::import(session, &import)
}

/// Imports an image.
pub(super) fn import(session: &mut Session<'_>, args: &ImportArgs) -> Result<()> {
    let request = ImportRequest {
        name: args.name.clone(),
        source: absolute(&args.source)?,
        publish: args.then.publish,
        sha256: args.sha256.as_ref().map(ToString::to_string),
        checksum: args.checksum.as_deref().map(absolute).transpose()?,
        unproved: args.then.unproved,
    };
    let message = ask::accepted(session.ask, Request::Import(request))?;
    if args.then.no_wait {
        return session.accepted(message);
    }
    let last = watch(session, &args.name, &mut Shown::new(session))?;
    if let ImportProgress::Failed { error, kind } = last {
        return Err(Error::new(kind, error));
    }
    if args.then.offer {
        return super::offer::offer(session, &args.name.clone().into(), ProofFirmware::Both);
    }
    let state = if args.then.publish { "imported and published unproved" } else { "imported, not published" };
    let text = format!("image '{}' is {state}\n", args.name);
    session.answer(&last, |_, _| text)
}

/// Asks until the import has ended, and returns its last word.
fn watch(session: &mut Session<'_>, name: &ImageName, shown: &mut Shown) -> Result<ImportProgress> {
    let mut request = Request::ImportProgress { name: name.clone() };
    loop {
        let now = session.follow(|agent| ask::progress(agent, request.clone()))?;
        match now {
            ImportProgress::Done | ImportProgress::Failed { .. } => return Ok(now),
            ImportProgress::Fetching { .. }
            | ImportProgress::Awaiting { .. }
            | ImportProgress::Checking { .. }
            | ImportProgress::Writing { .. } => shown.update(session, &now)?,
        }
        // The agent answers in its own time: nobody asks in vain, and nobody hears of the end late.
        request = Request::NextProgress { name: name.clone() };
    }
}

/// The agent has another working folder than we: a path becomes absolute here. A URL stays as it is.
fn absolute(source: &str) -> Result<String> {
    if ["http://", "https://", "nbd://", "ssh://", "iscsi://", NetDonor::SCHEME]
        .iter()
        .any(|scheme| source.starts_with(scheme))
    {
        return Ok(source.into());
    }
    if source.contains("://") {
        let scheme = source.split("://").next().unwrap_or_default();
        return Err(Error::invalid(format!(
            "import from '{}://…': only http, https, ssh, nbd and iscsi URLs",
            human::tame(scheme)
        )));
    }
    let path = std::path::absolute(Path::new(source)).attempt(|| format!("find '{source}'"))?;
    path.metadata().attempt(|| format!("find image file '{}'", path.display()))?;
    let text = path.into_os_string().into_string();
    text.map_err(|path| Error::invalid(format!("import '{}': the path is not UTF-8", path.display())))
}

/// How progress is shown: a bar on a terminal, a line now and then elsewhere, nothing with `--json`.
enum Shown {
    Bar(ProgressBar),
    Lines { last: String },
    Nothing,
}

impl Shown {
    fn new(session: &Session<'_>) -> Self {
        match (session.json, session.terminal) {
            (true, _) => Self::Nothing,
            (false, true) => {
                let bar = ProgressBar::new_spinner().with_style(style("{spinner} waiting"));
                bar.enable_steady_tick(TICK);
                Self::Bar(bar)
            }
            (false, false) => Self::Lines { last: String::new() },
        }
    }

    fn update(&mut self, session: &mut Session<'_>, progress: &ImportProgress) -> Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Bar(bar) => {
                draw(bar, progress);
                Ok(())
            }
            Self::Lines { last } => {
                let line = coarse(progress);
                if line == *last {
                    return Ok(());
                }
                session.complain(&line)?;
                *last = line;
                Ok(())
            }
        }
    }
}

impl Drop for Shown {
    /// Whatever ends the watching, what is printed next begins on a clean line.
    fn drop(&mut self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are constants").progress_chars("=> ")
}

fn draw(bar: &ProgressBar, progress: &ImportProgress) {
    match progress {
        ImportProgress::Fetching { done, total: Some(total), pace } => {
            bar.set_style(style("{spinner} fetching [{wide_bar}] {bytes}/{total_bytes} {msg}"));
            bar.set_length(total.0);
            bar.set_position(done.0);
            bar.set_message(speed(*pace));
        }
        ImportProgress::Fetching { done, total: None, pace } => {
            bar.set_style(style("{spinner} fetching, {bytes} so far {msg}"));
            bar.set_position(done.0);
            bar.set_message(speed(*pace));
        }
        ImportProgress::Awaiting { .. } => bar.set_style(style(&format!("{{spinner}} {}", coarse(progress)))),
        ImportProgress::Checking { permyriad, pace } => share(bar, "checking", *permyriad, *pace),
        ImportProgress::Writing { permyriad, pace } => share(bar, "writing ", *permyriad, *pace),
        ImportProgress::Done | ImportProgress::Failed { .. } => {}
    }
}

fn share(bar: &ProgressBar, what: &str, permyriad: u16, pace: Pace) {
    bar.set_style(style(&format!("{{spinner}} {what} [{{wide_bar}}] {{percent}} % {{msg}}")));
    bar.set_length(10_000);
    bar.set_position(u64::from(permyriad));
    bar.set_message(speed(pace));
}

/// Returns how fast it goes: `52.1 MiB/s, 3 min left`; nothing before that is known.
fn speed(pace: Pace) -> String {
    let rate = pace.rate.map(|rate| format!("{}/s", rate.human()));
    let left = pace.left.map(|left| format!("{} left", human::span(left)));
    rate.into_iter().chain(left).collect::<Vec<_>>().join(", ")
}

/// Returns how far it is in a few words, for a table.
pub(super) fn short(progress: &ImportProgress) -> String {
    let (what, permyriad, pace) = match progress {
        ImportProgress::Fetching { done, total, pace } => {
            let share = total.map(|total| u128::from(done.0) * 10_000 / u128::from(total.0.max(1)));
            let Some(share) = share else { return format!("fetching, {} so far", done.human()) };
            ("fetching", share, *pace)
        }
        ImportProgress::Awaiting { .. } => return coarse(progress),
        ImportProgress::Checking { permyriad, pace } => ("checking", u128::from(*permyriad), *pace),
        ImportProgress::Writing { permyriad, pace } => ("writing", u128::from(*permyriad), *pace),
        ImportProgress::Done => return "imported".into(),
        ImportProgress::Failed { .. } => return "failed".into(),
    };
    let left = pace.left.map_or(String::new(), |left| format!(", {} left", human::span(left)));
    format!("{what}, {} %{left}", permyriad / 100)
}

/// Returns a line that changes ten times in the course of a stage: a log should not be filled by it.
fn coarse(progress: &ImportProgress) -> String {
    match progress {
        ImportProgress::Fetching { done, total: Some(total), .. } if total.0 > 0 => {
            let tenths = u128::from(done.0) * 10 / u128::from(total.0);
            format!("fetching: {} % of {}", tenths * 10, total.human())
        }
        ImportProgress::Fetching { done, .. } => {
            format!("fetching: {} so far", Bytes::gib(done.0 >> 30).human())
        }
        ImportProgress::Awaiting { slot } => {
            format!("waiting for the machine in slot {slot} to start over the network")
        }
        ImportProgress::Checking { permyriad, .. } => format!("checking: {} %", permyriad / 1000 * 10),
        ImportProgress::Writing { permyriad, .. } => format!("writing: {} %", permyriad / 1000 * 10),
        ImportProgress::Done => "done".into(),
        ImportProgress::Failed { .. } => "failed".into(),
    }
}
