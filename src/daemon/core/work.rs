//! Jobs out, reports in.

use std::collections::BTreeSet;

use super::{Busy, Core, EventKind};
use crate::{
    apply::{Ending, Failure, Job, Report, Subject, Work},
    error::Result,
    model::{BladeId, ImageId, Iqn, LvName, Role, Volume, VolumeId, VolumeState},
    observed::Volumes,
    plan::{self, Step},
    policy,
    roster::Fault,
    status::Moment,
};

/// How many jobs a look at all blades keeps in the lanes: enough that none of them waits for the line.
const IN_THE_LANES: usize = 8;

impl Core {
    /// Hands a job to the lanes, or notes that its subject is to be looked at again.
    pub(super) fn submit(&mut self, subject: Subject, cause: &str, work: Work) {
        if let Some(busy) = self.busy.get_mut(&subject) {
            busy.again = Some(cause.to_owned());
            return self.show_quarantine(&subject);
        }
        if subject != Subject::Question {
            self.busy.insert(subject.clone(), Busy::default());
        }
        // A grant must be on disk before anything is done about it.
        self.save();
        (self.outside.submit)(Job { subject, cause: cause.to_owned(), work });
    }

    /// Asks the machine something. While an earlier question hangs, its answer's place is dropped, and whoever waits there
    /// is told so.
    pub(super) fn ask(&mut self, question: crate::apply::Question) {
        if !self.may_ask() {
            return;
        }
        self.submit(Subject::Question, "question", Work::Ask(question));
    }

    /// Hands the operator's own steps to the lanes.
    ///
    /// # Errors
    /// [`Kind::Busy`](crate::error::Kind::Busy) where a job of the subject runs already.
    pub(super) fn run_steps(&mut self, subject: Subject, cause: &str, steps: Vec<Step>) -> Result<()> {
        self.refuse_busy(&subject)?;
        self.submit(subject, cause, Work::Steps(steps));
        Ok(())
    }

    /// Has a foreign target looked at for a blade that is to take it over.
    ///
    /// # Errors
    /// As [`Core::run_steps`].
    pub(super) fn survey(&mut self, id: BladeId, target: Iqn) -> Result<()> {
        let subject = Subject::Blade(id);
        self.refuse_busy(&subject)?;
        self.submit(subject, "a foreign target is looked at", Work::Survey(target));
        Ok(())
    }

    pub(super) fn make_chassis(&mut self, cause: &str) {
        let files = (self.outside.files)(&self.config);
        let wish = policy::chassis::wish(&self.config, files);
        self.submit(Subject::Chassis, cause, Work::Chassis(wish));
    }

    pub(super) fn ask_volumes(&mut self, cause: &str) {
        (self.reported, self.report_due) = (self.now(), None);
        self.submit(Subject::Volumes, cause, Work::Report);
    }

    /// Asks for a report at the next tick but one: udev tells of our own steps too, many at a time.
    pub(super) fn ask_volumes_soon(&mut self) {
        let soon = self.now() + 2_000;
        self.report_due.get_or_insert(soon);
    }

    /// Returns whether events want a report now. While an import writes, they wait: most of them are of its own LVM commands, a
    /// report would hold it up, and its end asks for one.
    pub(super) fn is_report_due(&self) -> bool {
        self.report_due.is_some_and(|due| self.now() > due) && !self.imports_now()
    }

    /// Makes one blade's disk and target as wished.
    pub(super) fn converge(&mut self, id: BladeId, cause: &str) {
        let (Some(wish), Some(volumes)) = (self.wish(id), &self.volumes) else { return };
        if wish.disk.is_none() && wish.releases.is_empty() {
            return;
        }
        let volumes = volumes.only(wish.volumes());
        let work = self.work_for(wish, volumes);
        self.submit(Subject::Blade(id), cause, work);
    }

    /// Looks at all blades: the ones that are there first, and few at a time, so that one that asks meanwhile does not
    /// wait for the others.
    pub(super) fn converge_all(&mut self, cause: &'static str) {
        let mut all: Vec<_> = self.roster.blades.iter().map(|(id, blade)| (!blade.present, *id)).collect();
        all.sort_unstable();
        self.backlog = all.into_iter().map(|(_, id)| (id, cause)).collect();
        self.feed();
    }

    /// Hands jobs of the backlog to the lanes, as long as few are there already.
    pub(super) fn feed(&mut self) {
        while self.at_work().count() < IN_THE_LANES {
            let Some((id, cause)) = self.backlog.pop_front() else { return };
            self.converge(id, cause);
        }
    }

    /// Returns what the lanes work on, or will: not what they have left behind.
    fn at_work(&self) -> impl Iterator<Item = &Subject> {
        self.busy.iter().filter(|(_, busy)| busy.quarantine.is_none()).map(|(subject, _)| subject)
    }

    pub(super) fn on_report(&mut self, mut report: Report) {
        match report.ending {
            Ending::InTime => {}
            Ending::Overdue => return self.on_overdue(&report),
            Ending::Late => return self.on_late(&report),
        }
        if report.subject == Subject::Question {
            return;
        }
        let again = self.busy.remove(&report.subject).and_then(|busy| busy.again);
        if report.failure.is_some() {
            self.stuck.insert(report.subject.clone());
        }
        self.fold(&report);
        self.on_drift(&report);
        self.write_line(&report);
        self.on_promoted(&report);
        let told = self.answer_operator(&report);
        match (report.subject.clone(), report.volumes.take()) {
            (Subject::Volumes, Some(volumes)) => self.on_volumes(volumes),
            (Subject::Volumes, None) => self.on_failed("volumes", report.failure.as_ref()),
            (Subject::Chassis, _) => {
                self.chassis_seen = true;
                self.on_failed("chassis", report.failure.as_ref());
            }
            // Who asked has been told how it ended; the blade itself is as its wish says, or becomes so.
            (Subject::Blade(id), _) if told => self.converge(id, &report.cause),
            (Subject::Blade(id), _) => self.on_blade_done(id, &report),
            (Subject::Spare(image), _) => {
                self.on_failed(&format!("spare of '{image}'"), report.failure.as_ref())
            }
            (Subject::Image(image), _) => {
                self.on_failed(&format!("image '{image}'"), report.failure.as_ref())
            }
            (Subject::Donors, _) => {
                self.on_failed("donors", report.failure.as_ref());
                self.on_donors(&mut report);
            }
            (Subject::Leftover(_) | Subject::Question, _) => {}
        }
        self.look_again(&report.subject, again);
        self.feed();
        self.tend();
    }

    /// One line per finished plan: subject, cause, steps, changed, time.
    fn write_line(&mut self, report: &Report) {
        let Report { subject, cause, steps, failure, .. } = report;
        if let Some(failure) = failure {
            let text = format!("plan for {subject} ({cause}) failed after {} steps: {failure}", steps.len());
            return self.write_about(EventKind::Failed, subject, &text);
        }
        if report.changed() > 0 {
            let (steps, changed, ms) = (steps.len(), report.changed(), report.elapsed.as_millis());
            let text = format!("plan for {subject} ({cause}): {steps} steps, {changed} changed, {ms} ms");
            self.write_about(EventKind::Plan, subject, &text);
        }
    }

    pub(super) fn write_about(&mut self, kind: EventKind, subject: &Subject, text: &str) {
        match subject {
            Subject::Blade(id) => self.tell(kind, *id, text),
            Subject::Spare(image) | Subject::Image(image) => {
                self.journal.tell_image(kind, &image.name, text);
            }
            _ => self.journal.tell(kind, text),
        }
    }

    fn look_again(&mut self, subject: &Subject, again: Option<String>) {
        let Some(cause) = again else { return };
        match subject {
            Subject::Chassis => self.make_chassis(&cause),
            Subject::Volumes => self.ask_volumes(&cause),
            Subject::Blade(id) => self.converge(*id, &cause),
            _ => {}
        }
    }

    fn on_failed(&mut self, about: &str, failure: Option<&Failure>) {
        match failure {
            Some(failure) => self.complain(about, failure.to_string()),
            None => self.solve(about),
        }
    }

    /// Lets the cached LVM report follow the steps that ran, and learns from the volumes that they were about.
    pub(super) fn fold(&mut self, report: &Report) {
        let Some(volumes) = &mut self.volumes else { return };
        let vg = &self.config.pool.vg;
        let about: BTreeSet<LvName> =
            report.steps.iter().filter_map(|(step, _)| volumes.after(step, vg)).collect();
        if about.is_empty() {
            return;
        }
        self.untended = true;
        if let Subject::Blade(id) = &report.subject {
            self.roster.released(*id, volumes);
        }
        let found = about.iter().filter_map(|lv| volumes.volumes.get(lv));
        let consumed: Vec<BladeId> =
            found.filter_map(|volume| self.roster.learn_one(volume, volumes)).collect();
        self.tell_installed(consumed);
    }

    fn on_volumes(&mut self, volumes: Volumes) {
        self.solve("volumes");
        self.stuck.clear();
        let first = self.volumes.is_none();
        let consumed = self.roster.learn(&volumes);
        let before = self.volumes.replace(volumes);
        self.untended = true;
        self.tell_installed(consumed);
        self.list_imports();
        self.list_works();
        self.watch_pool();
        if first {
            self.converge_all("start");
            self.rest_images();
            return;
        }
        let before = before.unwrap_or_default();
        let touched: Vec<BladeId> = self
            .roster
            .blades
            .iter()
            .filter(|(_, blade)| {
                let volume = blade.disk.as_ref().map(|disk| disk.volume.lv_name());
                volume.is_some_and(|lv| !same(self.volume(&lv), before.volumes.get(&lv)))
            })
            .map(|(id, _)| *id)
            .collect();
        touched.into_iter().for_each(|id| self.converge(id, "its volume changed"));
    }

    pub(super) fn volume(&self, lv: &LvName) -> Option<&Volume> {
        self.volumes.as_ref()?.volumes.get(lv)
    }

    fn tell_installed(&mut self, consumed: Vec<BladeId>) {
        for id in consumed {
            self.tell(EventKind::Installed, id, "its disk is ready");
        }
    }

    fn watch_pool(&mut self) {
        let Some(volumes) = &self.volumes else { return };
        match plan::admit(&volumes.pool, self.config.pool.watermark) {
            Ok(()) => self.solve("pool"),
            Err(error) => self.complain("pool", error.to_string()),
        }
    }

    fn on_blade_done(&mut self, id: BladeId, report: &Report) {
        if report.wish.is_none() && report.failure.is_none() {
            // The operator's steps, not the wish: what they changed may change the wish.
            return self.converge(id, &report.cause);
        }
        let now = self.now();
        let served = report.wish.as_ref().and_then(|wish| wish.disk.as_ref());
        self.note_held(id, report);
        let Some(blade) = self.roster.blades.get_mut(&id) else { return };
        if let Some(failure) = &report.failure {
            let fault = Fault { kind: failure.error.kind(), text: failure.to_string() };
            (blade.problem, blade.ready) = (Some(fault), false);
            self.answer_parked(|parked| parked.blade == id);
            return;
        }
        blade.problem = None;
        let volume = served.map(|disk| disk.export.backstore.volume);
        // A target that leads to another disk waits to be made anew.
        let astray = report.held.iter().any(|step| matches!(step, Step::RemoveTarget { .. }));
        blade.ready = volume.is_some() && !astray && blade.disk.as_ref().map(|disk| disk.volume) == volume;
        if blade.ready {
            blade.note(Moment::TargetReady, now);
        }
        let mut watched = self.served.lock().expect("no holder panics");
        match served {
            Some(disk) => {
                drop(watched.insert(id, (disk.export.target.clone(), disk.export.initiator.clone())))
            }
            None => drop(watched.remove(&id)),
        }
        drop(watched);
        if let Some(wish) = &report.wish {
            self.on_made(id, wish);
        }
        self.answer_parked(|parked| parked.blade == id);
    }

    /// Notes what a plan left for when the blade is off, and takes the consent back that a plan has used.
    fn note_held(&mut self, id: BladeId, report: &Report) {
        let held: Vec<String> = report.held.iter().map(ToString::to_string).collect();
        let used = report.wish.as_ref().is_some_and(|wish| wish.interrupt);
        let Some(blade) = self.roster.blades.get(&id) else { return };
        if blade.held == held && !used {
            return;
        }
        let text = format!(
            "{}: would end its session, so it waits until the blade is off, or for 'sheath blade apply {}'",
            held.join("; "),
            blade.slot
        );
        let is_news = !held.is_empty() && blade.held != held;
        if let Some(blade) = self.roster.blades.get_mut(&id) {
            (blade.held, blade.interrupt) = (held, blade.interrupt && !used);
        }
        if is_news {
            self.tell(EventKind::Held, id, &text);
        }
    }

    /// What is done when nothing is asked for and the volumes have changed: spares made, half-made volumes that nobody
    /// wants taken away.
    pub(super) fn tend(&mut self) {
        let blades_are_busy = self.at_work().any(|subject| matches!(subject, Subject::Blade(_)));
        if !self.untended || blades_are_busy {
            return;
        }
        let Some(volumes) = &self.volumes else { return };
        self.untended = false;
        let abandoned = self.abandoned_imports(volumes);
        let images = self.offered().into_iter().map(|(image, _)| image);
        let short: Vec<ImageId> = images.filter(|image| self.lacks_spare(volumes, image)).collect();
        // The volume of a spare under way, quarantined or not, looks like a left-over.
        if !self.busy.keys().any(|subject| matches!(subject, Subject::Spare(_))) {
            let wanted = self.wanted();
            let leftovers = plan::leftovers(volumes, &wanted).into_iter();
            let leftovers = leftovers.filter(|volume| !self.stuck.contains(&Subject::Leftover(*volume)));
            for volume in leftovers.collect::<Vec<_>>() {
                let steps = super::proof::undo(&self.config, volume);
                self.submit(Subject::Leftover(volume), "half-made and wanted by nobody", Work::Steps(steps));
            }
        }
        for image in abandoned {
            // Should a capture have made it, its target goes first.
            let mut steps = policy::capture::undo(&self.config, &image);
            steps.push(Step::RemoveImage { image: image.clone() });
            self.submit(Subject::Image(image), "half-imported and nobody imports it", Work::Steps(steps));
        }
        short.into_iter().for_each(|image| self.make_spare(image));
        self.drop_spares();
        self.forget_manifests();
    }

    fn abandoned_imports(&self, volumes: &Volumes) -> Vec<ImageId> {
        let half_made = volumes.volumes.values().filter(|volume| volume.state == VolumeState::Making);
        let images = half_made.filter_map(|volume| match &volume.role {
            Role::Image { image, .. } => Some(image.clone()),
            _ => None,
        });
        let is_imported = |image: &ImageId| {
            self.imports.get(&image.name).is_some_and(|import| import.is_running() && import.image == *image)
        };
        let is_stuck = |image: &ImageId| self.stuck.contains(&Subject::Image(image.clone()));
        let is_sealed = |image: &ImageId| self.works.values().any(|work| work.makes() == Some(image));
        images.filter(|image| !is_imported(image) && !is_sealed(image) && !is_stuck(image)).collect()
    }

    fn lacks_spare(&self, volumes: &Volumes, image: &ImageId) -> bool {
        let taken = self.wanted();
        let ready = plan::ready_spares((image, self.config.disk_from(&image.name)), volumes, &taken);
        let subject = Subject::Spare(image.clone());
        let failed = self.stuck.contains(&subject);
        ready.count() < usize::from(self.config.profile_of(&image.name).spares)
            && !failed
            && !self.busy.contains_key(&subject)
    }

    fn make_spare(&mut self, image: ImageId) {
        let Some(volumes) = self.volumes.as_ref().map(|all| all.only([image.lv_name()])) else { return };
        let volume = VolumeId((self.outside.fresh)());
        let make = Box::new(policy::make(&self.config, &image, volume));
        self.submit(Subject::Spare(image), "too few spares", Work::Spare { volume, make, volumes });
    }
}

/// Returns whether two reports of a volume say the same of what plans look at.
fn same(a: Option<&Volume>, b: Option<&Volume>) -> bool {
    let of = |volume: &Volume| (volume.role.clone(), volume.state, volume.active, volume.size);
    a.map(of) == b.map(of)
}
