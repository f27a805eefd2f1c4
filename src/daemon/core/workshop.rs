//! Work on images in the workshop: the operator asks, a thread outside does it, its progress comes back as events.
//!
//! One work at a time per image. Its clone's id is given out here and counts as wanted until the work is over; one that
//! a killed agent has left is half-made and wanted by nobody, and goes like the others.

use super::{
    Core, EventKind,
    imports::{Import, MOST_REPORTS},
};
use crate::{
    control::api::Reply,
    error::{Error, Kind, Result},
    image::{Cancel, Trial},
    model::{Check, Checkup, Firmware, ImageId, ImageName, ImageRef, Proof, Sealing, VolumeId, VolumeState},
    policy,
    status::{Phase, Task, WorkProgress, WorkResult, WorkView},
};

/// A work that somebody outside is to do.
#[derive(Debug, Clone)]
pub struct WorkOrder {
    /// The image.
    pub image: ImageId,
    /// What to do.
    pub task: Task,
    /// The id for its clone.
    pub volume: VolumeId,
    /// What a version that comes of it is called.
    pub next: Option<ImageId>,
    /// What a proof needs.
    pub trial: Option<Box<Trial>>,
    /// How it is told to stop.
    pub cancel: Cancel,
}

/// How a work goes on.
#[derive(Debug)]
pub enum WorkNews {
    /// A phase begins.
    Phase(String),
    /// It is over.
    Ended(Result<WorkResult>),
}

/// A work, running or over.
#[derive(Debug)]
pub(super) struct Work {
    view: WorkView,
    volume: VolumeId,
    next: Option<ImageId>,
    /// How many reports of the volumes to wait for, at most, until one lists the image that it has made.
    unlisted: u32,
    cancel: Cancel,
    /// Whether somebody has cancelled it.
    cancelled: bool,
}

impl Work {
    /// Returns the clone that it needs, while it runs.
    pub(super) fn volume(&self) -> Option<VolumeId> {
        self.is_running().then_some(self.volume)
    }

    /// Returns the image that it makes, while it runs.
    pub(super) fn makes(&self) -> Option<&ImageId> {
        self.next.as_ref().filter(|_| self.is_running())
    }

    /// Returns whether it makes, or has made, this image: its words may be there before LVM lists it.
    pub(super) fn is_about(&self, image: &ImageId) -> bool {
        self.next.as_ref() == Some(image)
    }

    /// Returns the image that it has made.
    fn made(&self) -> Option<&ImageId> {
        match &self.view.progress {
            WorkProgress::Done { result } => match &**result {
                WorkResult::Sealing(sealing) => sealing.image.as_ref(),
                WorkResult::Checkup(_) | WorkResult::Proof(_) => None,
            },
            WorkProgress::Running | WorkProgress::Failed { .. } => None,
        }
    }

    fn is_running(&self) -> bool {
        self.view.progress == WorkProgress::Running
    }
}

impl Core {
    pub(super) fn operator_work(&mut self, image: &ImageRef, task: Task) -> Result<Reply> {
        let image = self.whole_image(image)?;
        if let Some(work) = self.works.get(&image).filter(|work| work.is_running()) {
            let text = format!("{task} image '{image}': there is a {} of it under way", work.view.task);
            return Err(Error::new(Kind::Busy, text));
        }
        let next = match task {
            Task::Seal { dry_run: false } => Some(self.next_sealed(&image.name)?),
            Task::Check | Task::Seal { dry_run: true } | Task::Prove { .. } => None,
        };
        let (begun, volume) = (self.now(), VolumeId((self.outside.fresh)()));
        let trial = match task {
            Task::Prove { firmware } => {
                policy::images::usable(self.known_volumes()?, &image)
                    .map_err(|e| e.while_doing(format!("prove image '{image}'")))?;
                Some(Box::new(self.trial(&image, firmware, volume)?))
            }
            Task::Check | Task::Seal { .. } => None,
        };
        let view = WorkView { task, begun, phases: vec![], progress: WorkProgress::Running };
        let cancel = Cancel::default();
        let work =
            Work { view, volume, next: next.clone(), unlisted: 0, cancel: cancel.clone(), cancelled: false };
        self.works.insert(image.clone(), work);
        self.journal.tell_image(EventKind::Image, &image.name, &format!("{task} of image '{image}' begins"));
        let message = format!("image '{image}': {task} begins");
        (self.outside.work)(WorkOrder { image, task, volume, next, trial, cancel });
        Ok(Reply::Accepted { message })
    }

    /// Ends what is done with the image: its import, or the work on it. A name alone stands for whichever of its versions
    /// something is done with.
    pub(super) fn operator_cancel(&mut self, image: &ImageRef) -> Result<Reply> {
        let meant =
            |id: &ImageId| id.name == image.name && image.version.is_none_or(|version| id.version == version);
        let import = self.imports.get(&image.name).filter(|import| import.is_running());
        if import.is_some_and(|import| meant(&import.image)) {
            return self.cancel_import(image.name.clone());
        }
        let mut running = self.works.iter_mut().filter(|(id, work)| work.is_running() && meant(id));
        let Some((id, work)) = running.next() else {
            let text = format!("cancel '{image}': it is neither imported nor worked on");
            return Err(Error::new(Kind::Missing, text));
        };
        if let Some((other, _)) = running.next() {
            let text = format!("cancel '{image}': say which of its versions, '{id}' or '{other}'");
            return Err(Error::invalid(text));
        }
        work.cancelled = true;
        work.cancel.cancel();
        let text = format!("the {} of image '{id}' is being cancelled; nothing stays of it", work.view.task);
        self.journal.tell_image(EventKind::Image, &image.name, &text);
        Ok(Reply::Accepted { message: text })
    }

    /// Returns the version that a seal makes: nobody else may be about to make it.
    fn next_sealed(&self, name: &ImageName) -> Result<ImageId> {
        if self.being_made(name).is_some() {
            return Err(Error::new(
                Kind::Busy,
                format!("seal image '{name}': a version of it is being made"),
            ));
        }
        policy::images::next_version(self.known_volumes()?, name)
    }

    /// Returns what makes a version of this family right now, imported or sealed: the next number is taken.
    pub(super) fn being_made(&self, name: &ImageName) -> Option<&'static str> {
        if self.imports.get(name).is_some_and(Import::is_running) {
            return Some("imported");
        }
        let sealed = self.works.values().filter_map(Work::makes).any(|image| image.name == *name);
        sealed.then_some("sealed")
    }

    /// Returns how a work goes on. A name alone stands for the version that a work was begun on last, and not for the
    /// family's default one: that is another as soon as a seal has made it.
    pub(super) fn work_view(&self, image: &ImageRef) -> Result<Reply> {
        let none = || Error::new(Kind::Missing, format!("follow the work on image '{image}': there is none"));
        let work = match image.version {
            Some(_) => self.works.get(&self.whole_image(image)?),
            None => {
                let family = self.works.iter().filter(|(id, _)| id.name == image.name);
                family.max_by_key(|(_, work)| work.view.begun).map(|(_, work)| work)
            }
        };
        let work = work.ok_or_else(none)?;
        let mut view = work.view.clone();
        if work.unlisted > 0 {
            // Who asks for the image next is to find it there.
            view.progress = WorkProgress::Running;
            return Ok(Reply::Work(Box::new(view)));
        }
        if view.progress == WorkProgress::Running {
            close(&mut view, self.now());
        }
        Ok(Reply::Work(Box::new(view)))
    }

    /// Ends the works whose images the newest report lists. One that no report lists was taken away by somebody.
    pub(super) fn list_works(&mut self) {
        let Some(volumes) = &self.volumes else { return };
        for work in self.works.values_mut().filter(|work| work.unlisted > 0) {
            let found = work.made().and_then(|image| volumes.volumes.get(&image.lv_name()));
            work.unlisted = match found.map(|volume| volume.state) {
                Some(VolumeState::Ready) => 0,
                // The report is older than the work's end.
                Some(VolumeState::Making) => work.unlisted,
                None => work.unlisted - 1,
            };
        }
    }

    pub(super) fn on_work(&mut self, image: &ImageId, news: WorkNews) {
        let now = self.now();
        let Some(work) = self.works.get_mut(image) else { return };
        close(&mut work.view, now);
        match news {
            WorkNews::Phase(phase) => work.view.phases.push(Phase { name: phase, millis: 0 }),
            WorkNews::Ended(result) => {
                let cancelled = work.cancelled && result.is_err();
                let kind = if result.is_ok() || cancelled { EventKind::Image } else { EventKind::Failed };
                // What was cut off says nothing of the image.
                let noted = if cancelled { None } else { noted(work.view.task, now, &result) };
                let found = result.as_ref().ok().cloned();
                let text = end(image, &mut work.view, result);
                work.unlisted = if work.made().is_some() { MOST_REPORTS } else { 0 };
                self.journal.tell_image(kind, &image.name, &text);
                self.note_work(image, found.as_ref(), noted);
                self.ask_volumes("work on an image is over");
            }
        }
    }
}

impl Core {
    /// Writes down what was tried with the image, or done to what became its next version.
    fn note_work(&mut self, image: &ImageId, found: Option<&WorkResult>, noted: Option<Check>) {
        let Some(noted) = noted else { return };
        let mut manifest = self.manifest_of(image);
        let checkup = match found {
            Some(WorkResult::Checkup(checkup)) => Some(checkup),
            Some(WorkResult::Sealing(sealing)) => sealing.checkup.as_ref(),
            Some(WorkResult::Proof(_)) | None => None,
        };
        if let Some(WorkResult::Sealing(Sealing { image: Some(made), .. })) = found {
            // What was tried with the other does not hold for this one.
            (manifest.image, manifest.made, manifest.checks) = (made.clone(), noted.at, vec![]);
            manifest.unproved = None;
        }
        if let Some(Checkup { system, kernel, bios, uefi, .. }) = checkup {
            (manifest.system, manifest.kernel) = (system.clone(), kernel.clone());
            let boots = [(*bios, Firmware::Bios), (*uefi, Firmware::Uefi)];
            manifest.firmware = boots.into_iter().filter_map(|(does, by)| does.then_some(by)).collect();
        }
        manifest.checks.push(noted);
        self.keep_manifest(manifest);
    }
}

/// Returns what is to be remembered of a work: that it was done, and how it went. A preview and a seal without a change are
/// nothing, and so is a work that could not be tried.
fn noted(task: Task, at: u64, result: &Result<WorkResult>) -> Option<Check> {
    let check = |what: &str, passed, lines| Some(Check { what: what.to_owned(), passed, at, lines });
    match (task, result) {
        (_, Ok(WorkResult::Checkup(checkup))) => {
            let bad = checkup.findings.iter().filter(|finding| finding.judgement.is_bad());
            let lines = bad.map(|finding| format!("{}: {}", finding.about, finding.text)).collect();
            check("checked", checkup.is_clean(), lines)
        }
        (_, Ok(WorkResult::Sealing(Sealing { changes, image: Some(_), .. }))) => {
            let lines = changes.iter().map(|change| format!("{}: {}", change.about, change.text)).collect();
            check("sealed", true, lines)
        }
        (_, Ok(WorkResult::Proof(Proof { firmware, millis, log }))) => {
            let line = format!("login prompt after {} s ({})", millis / 1000, log.display());
            check(&policy::images::proof_of(*firmware), true, vec![line])
        }
        (Task::Prove { firmware }, Err(error)) if error.kind() == Kind::Failed => {
            check(&policy::images::proof_of(firmware), false, vec![error.chain()])
        }
        _ => None,
    }
}

/// Says how long the last phase has taken: until now, less what the others took.
fn close(view: &mut WorkView, now: u64) {
    let before: u64 = view.phases.iter().rev().skip(1).map(|phase| phase.millis).sum();
    if let Some(last) = view.phases.last_mut() {
        last.millis = now.saturating_sub(view.begun).saturating_sub(before);
    }
}

/// Notes how it ended, and returns that for people, with the time of each phase.
fn end(image: &ImageId, view: &mut WorkView, result: Result<WorkResult>) -> String {
    let seconds = |millis: u64| format!("{}.{} s", millis / 1000, millis % 1000 / 100);
    let phases = view.phases.iter().map(|phase| format!("{} {}", phase.name, seconds(phase.millis)));
    let phases = phases.collect::<Vec<_>>().join(", ");
    let (text, progress) = match result {
        Ok(result) => (told(&result), WorkProgress::Done { result: Box::new(result) }),
        Err(error) => {
            let (error, kind) = (error.chain(), error.kind());
            (error.clone(), WorkProgress::Failed { error, kind })
        }
    };
    view.progress = progress;
    format!("{} of image '{image}': {text} ({phases})", view.task)
}

fn told(result: &WorkResult) -> String {
    match result {
        WorkResult::Checkup(checkup) => {
            let bad = checkup.findings.iter().filter(|finding| finding.judgement.is_bad()).count();
            let boots = |does: bool| if does { "boots" } else { "does not boot" };
            format!("{bad} things to mend, BIOS {}, UEFI {}", boots(checkup.bios), boots(checkup.uefi))
        }
        WorkResult::Sealing(Sealing { changes, image: Some(image), .. }) => {
            format!("{} changes, it is '{image}' now", changes.len())
        }
        WorkResult::Proof(Proof { millis, log, .. }) => {
            format!("its login prompt came after {} s; its console is in '{}'", millis / 1000, log.display())
        }
        WorkResult::Sealing(Sealing { changes, image: None, .. }) => {
            format!("{} changes to make, none made", changes.len())
        }
    }
}
