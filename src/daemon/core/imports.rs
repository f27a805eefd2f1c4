//! Imports, as the line knows them: who asked for what, how far each is, and that one is over only when LVM lists it.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Core, EventKind, ImportOrder,
    captures::Capture,
    operator::{ReplyTo, accepted},
};
use crate::{
    control::api::{ImportRequest, Reply},
    error::{Error, Kind, Result},
    image::{Source, Whole},
    model::{ImageId, ImageName, Imported, Manifest, NetDonor, Origin, Tag, VolumeState},
    plan::Step,
    policy,
    status::{ImportProgress, Millis},
};

/// An image that is whole and not among the volumes of so many reports was taken away by somebody.
pub(super) const MOST_REPORTS: u32 = 3;
/// How long an answer to how far an import is waits for its end, in milliseconds; it goes with a tick.
const PATIENCE: Millis = 1000;

/// An import that runs, or how it ended.
pub(super) struct Import {
    /// The version that it makes.
    pub(super) image: ImageId,
    /// How far it is.
    pub(super) progress: ImportProgress,
}

impl Import {
    /// Returns whether it still runs.
    pub(super) fn is_running(&self) -> bool {
        self.progress.is_running()
    }
}

/// What is known of imports beside how far they are.
#[derive(Debug, Default)]
pub(super) struct Imports {
    /// What was asked for, of those that run.
    requests: BTreeMap<ImageName, ImportRequest>,
    /// Those that are whole: whether they are published, and how many reports did not list them.
    whole: BTreeMap<ImageName, (bool, u32)>,
    /// Those that a donor's disk is captured for.
    pub(super) captures: BTreeMap<ImageName, Capture>,
    /// Those that somebody has cancelled.
    cancelled: BTreeSet<ImageName>,
    /// What the sources of those that are whole were.
    found: BTreeMap<ImageName, Imported>,
    /// Those who want to hear of an import's end.
    waiting: Vec<Waiting>,
}

/// Somebody who wants to hear how far an import is, not at once.
#[derive(Debug)]
struct Waiting {
    name: ImageName,
    until: Millis,
    reply: ReplyTo,
}

impl Core {
    pub(super) fn operator_import(&mut self, request: ImportRequest) -> Result<Reply> {
        let name = request.name.clone();
        if let Some(import) = self.imports.get(&name).filter(|import| import.is_running()) {
            // Who lost his terminal types the same again, and sees how far it is.
            if self.asked.requests.get(&name) == Some(&request) {
                return Ok(accepted(format!("image '{}' is being imported already", import.image)));
            }
        }
        if let Some(how) = self.being_made(&name) {
            let text = format!("import image '{name}': a version of it is being {how}");
            return Err(Error::new(Kind::Busy, text));
        }
        let image = policy::images::next_version(self.known_volumes()?, &name)?;
        let donor = self.donor_of(&request)?;
        if request.publish {
            policy::images::publication_of_new(&image, request.unproved)
                .map_err(|e| e.while_doing(format!("import and publish image '{image}'")))?;
        }
        self.journal.tell_image(EventKind::Image, &name, &format!("import of image '{image}' begins"));
        self.begin_import(image.clone(), request, donor.clone())?;
        let text = donor.map_or_else(
            || format!("image '{image}' is being imported"),
            |donor| {
                format!(
                    "image '{image}' is made from the machine in slot {}: start it over the network",
                    donor.slot
                )
            },
        );
        Ok(accepted(text))
    }

    /// Goes on with an import that was cut off with an earlier agent: the same version is made anew.
    pub fn resume_import(&mut self, image: ImageId, request: ImportRequest) {
        let text = format!("import of image '{image}' goes on after a restart of the agent");
        self.journal.tell_image(EventKind::Image, &image.name, &text);
        let begun = self.donor_of(&request).and_then(|donor| self.begin_import(image, request, donor));
        if let Err(error) = begun {
            self.config_error(&error);
        }
    }

    fn begin_import(
        &mut self,
        image: ImageId,
        request: ImportRequest,
        donor: Option<NetDonor>,
    ) -> Result<()> {
        let order = match donor {
            Some(donor) => self.begin_capture(image.clone(), request.clone(), donor)?,
            None => ImportOrder::Start(image.clone(), request.clone()),
        };
        let import = Import { image: image.clone(), progress: ImportProgress::begin() };
        self.imports.insert(image.name.clone(), import);
        self.asked.requests.insert(image.name, request);
        (self.outside.import)(order);
        Ok(())
    }

    pub(super) fn cancel_import(&mut self, name: ImageName) -> Result<Reply> {
        let running = self.imports.get(&name).filter(|import| import.is_running());
        let Some(import) = running.filter(|_| !self.asked.whole.contains_key(&name)) else {
            return Err(Error::new(Kind::Missing, format!("cancel the import of '{name}': none is running")));
        };
        let text = format!("the import of image '{}' is being cancelled; nothing stays of it", import.image);
        (self.outside.import)(ImportOrder::Cancel(name.clone()));
        self.asked.cancelled.insert(name);
        Ok(accepted(text))
    }

    pub(super) fn import_progress(&self, name: &ImageName) -> Result<Reply> {
        let progress = self.imports.get(name).map(|import| import.progress.clone());
        let none = || Error::new(Kind::Missing, format!("follow the import of '{name}': there is none"));
        progress.map(Reply::ImportProgress).ok_or_else(none)
    }

    /// Answers how far an import is when it has ended, or at one of the next ticks.
    pub(super) fn next_progress(&mut self, name: ImageName, reply: ReplyTo) {
        let until = self.now() + PATIENCE;
        self.asked.waiting.push(Waiting { name, until, reply });
        self.answer_waiting();
    }

    /// Answers those who wait to hear of an import that does not run, and those who have waited long enough.
    pub(super) fn answer_waiting(&mut self) {
        let (now, waiting) = (self.now(), std::mem::take(&mut self.asked.waiting));
        for one in waiting {
            let goes_on = self.imports.get(&one.name).is_some_and(Import::is_running);
            if goes_on && now < one.until {
                self.asked.waiting.push(one);
            } else {
                // Who has gone away meanwhile hears nothing.
                let _ = one.reply.send(self.import_progress(&one.name));
            }
        }
    }

    /// Returns whether an import writes.
    pub(super) fn imports_now(&self) -> bool {
        self.imports.values().any(|import| matches!(import.progress, ImportProgress::Writing { .. }))
    }

    fn set_progress(&mut self, image: ImageId, progress: ImportProgress) {
        let ends = !progress.is_running();
        self.imports.insert(image.name.clone(), Import { image, progress });
        if ends {
            self.answer_waiting();
        }
    }

    pub(super) fn on_import(&mut self, image: ImageId, publish: bool, progress: ImportProgress) {
        match &progress {
            ImportProgress::Done => {
                // Who asks for the images next is to find it there.
                self.ask_volumes("an image was imported");
                if self.volume(&image.lv_name()).is_some_and(|volume| volume.state == VolumeState::Ready) {
                    return self.close_import(&image, publish, true);
                }
                self.asked.whole.insert(image.name, (publish, 0));
                return;
            }
            ImportProgress::Failed { error, .. } => {
                let cancelled = self.end_import(&image.name);
                let (kind, how) =
                    if cancelled { (EventKind::Image, "ended") } else { (EventKind::Failed, "failed") };
                let text = format!("import of image '{image}' {how}: {error}");
                self.journal.tell_image(kind, &image.name, &text);
                self.ask_volumes("an import failed");
                self.forget_import(image.name.clone());
            }
            ImportProgress::Awaiting { .. } => self.await_donor(&image),
            ImportProgress::Fetching { .. }
            | ImportProgress::Checking { .. }
            | ImportProgress::Writing { .. } => {}
        }
        self.set_progress(image, progress);
    }

    /// Notes what a source was, for the manifest, and the image's volume, which no report is needed for: it was made by us.
    pub(super) fn on_imported(&mut self, image: ImageId, whole: Whole) {
        let size = whole.volume_size();
        if let (Some(volumes), Some(size)) = (&mut self.volumes, size) {
            let vg = &self.config.pool.vg;
            volumes.after(&Step::CreateImage { image: image.clone(), size }, vg);
            let (add, remove) = (whole.tags, vec![Tag::Making]);
            volumes.after(&Step::TagImage { image: image.clone(), add, remove }, vg);
            self.untended = true;
        }
        self.asked.found.insert(image.name, whole.found);
    }

    /// Forgets what was asked for; returns whether somebody has cancelled it.
    fn end_import(&mut self, name: &ImageName) -> bool {
        self.asked.requests.remove(name);
        self.asked.captures.remove(name);
        self.asked.whole.remove(name);
        self.asked.found.remove(name);
        self.asked.cancelled.remove(name)
    }

    /// Has the note of an import taken away whose end is told: in the journal, the manifest and the view.
    fn forget_import(&mut self, name: ImageName) {
        (self.outside.import)(ImportOrder::Forget(name));
    }

    /// Ends the imports whose images the newest report lists.
    pub(super) fn list_imports(&mut self) {
        let Some(volumes) = &self.volumes else { return };
        let mut ended = vec![];
        for (name, (publish, missed)) in &mut self.asked.whole {
            let Some(Import { image, .. }) = self.imports.get(name) else { continue };
            match volumes.volumes.get(&image.lv_name()).map(|volume| volume.state) {
                Some(VolumeState::Ready) => ended.push((image.clone(), *publish, true)),
                // The report is older than the image's end.
                Some(VolumeState::Making) => {}
                None => {
                    *missed += 1;
                    if *missed >= MOST_REPORTS {
                        ended.push((image.clone(), *publish, false));
                    }
                }
            }
        }
        for (image, publish, listed) in ended {
            self.close_import(&image, publish, listed);
        }
    }

    /// Ends an import whose image is listed, or gone. Whoever waits for that hears of it first: its note stays until the
    /// manifest is written, so that a kill between the two loses nothing.
    fn close_import(&mut self, image: &ImageId, publish: bool, listed: bool) {
        let cancelled = self.asked.cancelled.contains(&image.name);
        self.tell_import_end(image.clone(), publish, listed, cancelled);
        if listed {
            self.keep_import(image);
        }
        self.end_import(&image.name);
        self.forget_import(image.name.clone());
    }

    /// Writes down what was imported.
    fn keep_import(&mut self, image: &ImageId) {
        let Some(request) = self.asked.requests.get(&image.name) else { return };
        let found = self.asked.found.get(&image.name).cloned();
        // An agent that was killed at the import's end has seen what the source was, and this one has not.
        if found.is_none() && self.manifests.get(image).is_some() {
            return;
        }
        let origin = Origin::Import(found.unwrap_or_else(|| asked_for(request)));
        let (now, published) = (self.now(), request.publish);
        let mut manifest = Manifest::new(image.clone(), now, origin);
        manifest.unproved = published.then_some(now);
        self.keep_manifest(manifest);
    }

    fn tell_import_end(&mut self, image: ImageId, publish: bool, listed: bool, cancelled: bool) {
        let published = if publish { ", published unproved by the operator" } else { "" };
        let late = if cancelled { "; it was whole before it could be cancelled: remove it" } else { "" };
        let (kind, text, progress) = if listed {
            let text = format!("image '{image}' is imported{published}{late}");
            (EventKind::Image, text, ImportProgress::Done)
        } else {
            let error =
                format!("image '{image}' was imported, and its volume is gone: somebody has removed it");
            (EventKind::Failed, error.clone(), ImportProgress::Failed { error, kind: Kind::Missing })
        };
        self.journal.tell_image(kind, &image.name, &text);
        self.set_progress(image, progress);
    }
}

/// Returns what is known of a source before it is looked at.
fn asked_for(request: &ImportRequest) -> Imported {
    // A password in the source is not shown.
    let source = request.source.parse::<Source>().map(|source| source.to_string()).unwrap_or_default();
    // The same option takes a SHA-512.
    let sha256 = request.sha256.clone().filter(|digits| digits.len() == 64);
    Imported { source, format: None, size: None, sha256, caution: None }
}
