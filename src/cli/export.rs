//! `sheath image export`: an image as a file, which appears whole or not at all.
//!
//! The agent sends what is in the image; this process writes it, with the rights of whoever called it.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use indicatif::{ProgressBar, ProgressStyle};

use super::{
    args::{ExportArgs, ExportFormat},
    ask,
    session::Session,
};
use crate::{
    error::{Context, Result},
    host::file::Pending,
    image::qcow2::{CLUSTER, Writer},
};

/// Exports an image.
pub(super) fn export(session: &mut Session<'_>, args: &ExportArgs) -> Result<()> {
    let attempt = || format!("export image '{}' to '{}'", args.image, args.file.display());
    let image = ask::image(session.ask, args.image.clone())?.view;
    let pending = Pending::create(&args.file, args.force).map_err(|e| e.while_doing(attempt()))?;
    let mut shown = Shown::new(session, image.size.0);
    let written = fill(session, args, &pending, &mut shown);
    shown.end();
    let size =
        written.and_then(|size| pending.finish().map(|()| size)).map_err(|e| e.while_doing(attempt()))?;
    let (id, size, file) = (image.image, crate::model::Bytes(size).human(), args.file.display());
    session.accepted(format!("image '{id}' of {size} is exported to '{file}'"))
}

/// Writes what comes from the agent into the file, and returns the disk's size.
fn fill(session: &Session<'_>, args: &ExportArgs, pending: &Pending, shown: &mut Shown) -> Result<u64> {
    let file = pending.file().try_clone().attempt(|| "use the file twice".into())?;
    let mut sink = Sink::new(args.format, file);
    let size = session.ask.content(&args.image, &mut |at, data| {
        shown.update(at)?;
        sink.write(at, data).attempt(|| written(&args.file))
    })?;
    sink.finish(size).attempt(|| written(&args.file))?;
    Ok(size)
}

fn written(file: &Path) -> String {
    format!("write '{}'", file.display())
}

/// Where the content goes.
enum Sink {
    Raw(File),
    Qcow2(Writer),
}

impl Sink {
    fn new(format: ExportFormat, file: File) -> Self {
        match format {
            ExportFormat::Raw => Self::Raw(file),
            ExportFormat::Qcow2 => Self::Qcow2(Writer::new(file)),
        }
    }

    /// Writes a piece, but for what is all zeros in it: a file has none of that either.
    fn write(&mut self, at: u64, data: &[u8]) -> io::Result<()> {
        let clusters = (at..).step_by(CLUSTER).zip(data.chunks(CLUSTER));
        for (at, data) in clusters.filter(|(_, data)| data.iter().any(|byte| *byte != 0)) {
            match self {
                Self::Raw(file) => file.write_all_at(data, at)?,
                Self::Qcow2(writer) => writer.cluster(at, data)?,
            }
        }
        Ok(())
    }

    fn finish(self, size: u64) -> io::Result<()> {
        match self {
            Self::Raw(file) => file.set_len(size),
            Self::Qcow2(writer) => writer.finish(size).map(drop),
        }
    }
}

/// How progress is shown: a bar on a terminal, a line now and then elsewhere, nothing with `--json`.
enum Shown {
    Bar(ProgressBar),
    Lines { total: u64, tenth: u64 },
    Nothing,
}

impl Shown {
    fn new(session: &Session<'_>, total: u64) -> Self {
        match (session.json, session.terminal) {
            (true, _) => Self::Nothing,
            (false, true) => {
                let template = "{spinner} exporting [{wide_bar}] {percent} %, {eta} left";
                let style = ProgressStyle::with_template(template).expect("the template is a constant");
                Self::Bar(ProgressBar::new(total).with_style(style.progress_chars("=> ")))
            }
            (false, false) => Self::Lines { total, tenth: 0 },
        }
    }

    fn update(&mut self, at: u64) -> Result<()> {
        match self {
            Self::Nothing => {}
            Self::Bar(bar) => bar.set_position(at),
            Self::Lines { total, tenth } => {
                let now = u64::try_from(u128::from(at) * 10 / u128::from(*total).max(1)).unwrap_or(10);
                if now > *tenth {
                    *tenth = now;
                    let line = format!("exporting: {} %\n", now * 10);
                    io::Write::write_all(&mut io::stderr(), line.as_bytes())
                        .attempt(|| "write to standard error".into())?;
                }
            }
        }
        Ok(())
    }

    fn end(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
