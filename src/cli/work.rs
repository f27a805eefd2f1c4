//! `sheath image check`: has the agent work on an image, shows its phases, prints what came of it.
//!
//! The agent does the work and goes on when this command is stopped.

use super::{
    args::ProofFirmware,
    ask, human,
    session::Session,
    table::{BAD, FAINT, GOOD, PLAIN, Table, WAITS},
};
use crate::{
    control::api::Request,
    error::{Error, Kind, Result},
    model::{Change, Checkup, Finding, Firmware, ImageRef, Judgement, Proof, Sealing},
    status::{Task, WorkProgress, WorkResult, WorkView},
};

/// Looks what an image lacks.
pub(super) fn check(session: &mut Session<'_>, image: &ImageRef) -> Result<()> {
    let WorkResult::Checkup(checkup) = carry_out(session, image, Task::Check)? else {
        return Err(another());
    };
    session.answer(&checkup, |checkup, session| shown(image, checkup, session))?;
    if checkup.is_clean() {
        return Ok(());
    }
    let bad = checkup.findings.iter().filter(|finding| finding.judgement.is_bad()).count();
    let things = if bad == 1 { "thing" } else { "things" };
    Err(Error::new(Kind::Failed, format!("image '{image}' is not ready: {bad} {things} to mend")))
}

/// Makes a version that any blade can have.
pub(super) fn seal(session: &mut Session<'_>, image: &ImageRef, dry_run: bool) -> Result<()> {
    let sealing = sealing(session, image, Task::Seal { dry_run })?;
    session.answer(&sealing, |sealing, session| sealed(image, sealing, session))
}

/// Has a sealing done, and returns what came of it.
pub(super) fn sealing(session: &mut Session<'_>, image: &ImageRef, task: Task) -> Result<Sealing> {
    match carry_out(session, image, task)? {
        WorkResult::Sealing(sealing) => Ok(sealing),
        _ => Err(another()),
    }
}

/// Has a proof by one firmware done, and returns it.
pub(super) fn proof(session: &mut Session<'_>, image: &ImageRef, firmware: Firmware) -> Result<Proof> {
    match carry_out(session, image, Task::Prove { firmware })? {
        WorkResult::Proof(proof) => Ok(proof),
        _ => Err(another()),
    }
}

/// Proves that an image boots, by each firmware that is asked for.
pub(super) fn prove(session: &mut Session<'_>, image: &ImageRef, by: ProofFirmware) -> Result<()> {
    let mut proofs = vec![];
    for firmware in by.all() {
        proofs.push(proof(session, image, *firmware)?);
    }
    session.answer(&proofs, |proofs, _| proofs.iter().map(|proof| proved(image, proof)).collect())
}

/// Returns a proof for people: what was proved, and what not.
fn proved(image: &ImageRef, proof: &Proof) -> String {
    let firmware = proof.firmware;
    format!(
        "image '{image}' boots by {firmware}: PXE, iPXE, iSCSI with CHAP, login prompt after {} s\n  \
         not tried: the chassis' own DHCP and a blade's own NIC; console: {}\n",
        proof.millis / 1000,
        human::tame(&proof.log.display().to_string())
    )
}

/// Returns the error for a result of another task: agent and command line are not of the same version.
fn another() -> Error {
    Error::new(Kind::Failed, "read the agent's answer: it is of another task")
}

/// Returns a sealing for people: what was changed, and what is still to be mended.
fn sealed(image: &ImageRef, sealing: &Sealing, session: &Session<'_>) -> String {
    let mut table = Table::new(&["ABOUT", "CHANGE"]);
    for Change { about, text } in &sealing.changes {
        table.row(PLAIN, [about.clone(), text.clone()]);
    }
    let mut text = if sealing.changes.is_empty() { String::new() } else { session.table(&table) + "\n" };
    text += &match (&sealing.image, sealing.changes.is_empty()) {
        (Some(made), _) => format!("image '{made}' is made, not published (sheath image prove {made})\n"),
        (None, true) => format!("image '{image}' needs no change\n"),
        (None, false) => "nothing was changed\n".to_owned(),
    };
    let findings = sealing.checkup.iter().flat_map(|checkup| &checkup.findings);
    for finding in findings.filter(|finding| finding.judgement.is_bad()) {
        text +=
            &format!("still to be mended: {}: {}\n", human::tame(&finding.about), human::tame(&finding.text));
    }
    text
}

/// Orders the work, waits for its end, and returns what came of it.
fn carry_out(session: &mut Session<'_>, image: &ImageRef, task: Task) -> Result<WorkResult> {
    ask::accepted(session.ask, Request::Work { image: image.clone(), task })?;
    let mut told = 0;
    loop {
        let WorkView { phases, progress, .. } =
            session.follow(|agent| ask::work(agent, Request::WorkProgress { image: image.clone() }))?;
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
