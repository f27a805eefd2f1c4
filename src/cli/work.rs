//! `sheath image check`: has the agent work on an image, shows its phases, prints what came of it.
//!
//! The agent does the work and goes on when this command is stopped.

use super::{
    ask, human,
    session::Session,
    table::{BAD, FAINT, GOOD, Table, WAITS},
};
use crate::{
    control::api::Request,
    error::{Error, Kind, Result},
    model::{Checkup, Finding, ImageRef, Judgement},
    status::{Task, WorkProgress, WorkResult, WorkView},
};

/// Looks what an image lacks.
pub(super) fn check(session: &mut Session<'_>, image: &ImageRef) -> Result<()> {
    let WorkResult::Checkup(checkup) = carry_out(session, image, Task::Check)?;
    session.answer(&checkup, |checkup, session| shown(image, checkup, session))?;
    if checkup.is_clean() {
        return Ok(());
    }
    let bad = checkup.findings.iter().filter(|finding| finding.judgement.is_bad()).count();
    let things = if bad == 1 { "thing" } else { "things" };
    Err(Error::new(Kind::Failed, format!("image '{image}' is not ready: {bad} {things} to mend")))
}

/// Orders the work, waits for its end, and returns what came of it.
fn carry_out(session: &mut Session<'_>, image: &ImageRef, task: Task) -> Result<WorkResult> {
    ask::accepted(session.ask, Request::Work { image: image.clone(), task })?;
    let mut told = 0;
    loop {
        let WorkView { phases, progress, .. } =
            ask::work(session.ask, Request::WorkProgress { image: image.clone() })?;
        if !session.json {
            for phase in phases.iter().skip(told) {
                session.complain(&format!("{} …", human::tame(&phase.name)))?;
            }
            told = told.max(phases.len());
        }
        match progress {
            WorkProgress::Running => session.pause(),
            WorkProgress::Done { result } => return Ok(*result),
            WorkProgress::Failed { error, kind } => return Err(Error::new(kind, error)),
        }
    }
}

/// Returns a checkup for people.
fn shown(image: &ImageRef, checkup: &Checkup, session: &Session<'_>) -> String {
    let boots = |does: bool| if does { "yes" } else { "no" };
    let or_none = |text: &Option<String>| human::tame(text.as_deref().unwrap_or(human::NONE));
    let mut text = format!(
        "image    {image}\nsystem   {}\nkernel   {}\nBIOS     {}\nUEFI     {}\n\n",
        or_none(&checkup.system),
        or_none(&checkup.kernel),
        boots(checkup.bios),
        boots(checkup.uefi)
    );
    let mut table = Table::new(&["", "ABOUT", "FOUND", "FIX"]);
    for finding in &checkup.findings {
        table.row(style(finding), cells(finding, image));
    }
    text += &session.table(&table);
    text
}

fn style(finding: &Finding) -> anstyle::Style {
    match (finding.judgement, finding.fatal) {
        (Judgement::Ok, _) => GOOD,
        (Judgement::Note, _) => FAINT,
        (_, true) => BAD,
        (_, false) => WAITS,
    }
}

fn cells(finding: &Finding, image: &ImageRef) -> [String; 4] {
    let judgement = match finding.judgement {
        Judgement::Ok => "ok",
        Judgement::Missing => "missing",
        Judgement::Wrong => "wrong",
        Judgement::Note => "note",
    };
    // Our own commands are shown with the image's name, so that they can be typed as they stand.
    let fix = finding.fix.clone().unwrap_or_default();
    let fix = if fix.starts_with("sheath image ") { format!("{fix} {image}") } else { fix };
    [judgement.into(), finding.about.clone(), finding.text.clone(), fix]
}
