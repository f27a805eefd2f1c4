//! `sheath image import`: hands a file or a URL to the agent and shows how far it is.
//!
//! The agent does the work and goes on when this command is stopped; only the progress is lost then.

use std::{path::Path, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

use super::{args::ImportArgs, ask, human, session::Session};
use crate::{
    control::api::{ImportRequest, Request},
    error::{Context, Error, Result},
    model::{Bytes, ImageName},
    status::ImportProgress,
};

/// How often the bar's spinner turns while nothing else is new.
const TICK: Duration = Duration::from_millis(120);

/// Imports an image.
pub(super) fn import(session: &mut Session<'_>, args: &ImportArgs) -> Result<()> {
    let source = absolute(&args.source)?;
    let request = ImportRequest { name: args.name.clone(), source, publish: args.publish };
    let message = ask::accepted(session.ask, Request::Import(request))?;
    if args.no_wait {
        return session.accepted(message);
    }
    let last = watch(session, &args.name, &mut Shown::new(session))?;
    if let ImportProgress::Failed { error, kind } = last {
        return Err(Error::new(kind, error));
    }
    let state = if args.publish { "imported and published" } else { "imported, not published" };
    let text = format!("image '{}' is {state}\n", args.name);
    session.answer(&last, |_, _| text)
}

/// Asks until the import has ended, and returns its last word.
fn watch(session: &mut Session<'_>, name: &ImageName, shown: &mut Shown) -> Result<ImportProgress> {
    loop {
        let now = ask::progress(session.ask, Request::ImportProgress { name: name.clone() })?;
        match now {
            ImportProgress::Done | ImportProgress::Failed { .. } => return Ok(now),
            ImportProgress::Fetching { .. } | ImportProgress::Writing { .. } => {
                shown.update(session, &now)?
            }
        }
        session.pause();
    }
}

/// The agent has another working folder than we: a path becomes absolute here. A URL stays as it is.
fn absolute(source: &str) -> Result<String> {
    if source.starts_with("http://") || source.starts_with("https://") {
        return Ok(source.into());
    }
    if source.contains("://") {
        return Err(Error::invalid(format!(
            "import '{}': only http:// and https:// URLs",
            human::tame(source)
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
        ImportProgress::Fetching { done, total: Some(total) } => {
            bar.set_style(style("{spinner} fetching [{wide_bar}] {bytes}/{total_bytes}"));
            bar.set_length(total.0);
            bar.set_position(done.0);
        }
        ImportProgress::Fetching { done, total: None } => {
            bar.set_style(style("{spinner} fetching, {bytes} so far"));
            bar.set_position(done.0);
        }
        ImportProgress::Writing { permyriad } => {
            bar.set_style(style("{spinner} writing  [{wide_bar}] {percent} %"));
            bar.set_length(10_000);
            bar.set_position(u64::from(*permyriad));
        }
        ImportProgress::Done | ImportProgress::Failed { .. } => {}
    }
}

/// Returns a line that changes ten times in the course of an import: a log should not be filled by it.
fn coarse(progress: &ImportProgress) -> String {
    match progress {
        ImportProgress::Fetching { done, total: Some(total) } if total.0 > 0 => {
            let tenths = u128::from(done.0) * 10 / u128::from(total.0);
            format!("fetching: {} % of {}", tenths * 10, total.human())
        }
        ImportProgress::Fetching { done, .. } => {
            format!("fetching: {} so far", Bytes::gib(done.0 >> 30).human())
        }
        ImportProgress::Writing { permyriad } => format!("writing: {} %", permyriad / 1000 * 10),
        ImportProgress::Done => "done".into(),
        ImportProgress::Failed { .. } => "failed".into(),
    }
}
