//! The operator asks: views, verbs, a new configuration.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Core, EventKind};
use crate::{
    apply::{self, Subject},
    control::api::{Reply, Request},
    error::{Error, Kind, Result},
    host::Host,
    model::{BladeId, Firmware, ImageId, ImageName, ImageRef, Role, Slot, Tag, VolumeState},
    observed::{SessionKind, Volumes},
    plan::{Plan, Step},
    policy::{self, BladeWish, chassis::ChassisWish},
    roster::GrantedBy,
    status::{CloneView, PlanView},
};

pub(super) type ReplyTo = oneshot::Sender<Result<Reply>>;

impl Core {
    pub(super) fn on_operator(&mut self, request: Request, reply: ReplyTo) {
        let answer = match request {
            Request::Status => Ok(Reply::Status(Box::new(self.status()))),
            Request::Blades => Ok(Reply::Blades(self.blades())),
            Request::Images => Ok(Reply::Images(self.images())),
            Request::Targets => return self.ask_targets(reply),
            Request::Plan => return self.ask_plan(reply),
            Request::Install { slot, image, replace } => self.operator_install(slot, &image, replace),
            Request::Release { slot } => self.operator_release(slot),
            Request::Move { slot, blade } => self.operator_move(slot, blade),
            Request::Apply { slot } => self.operator_apply(slot),
            Request::Import(request) => self.operator_import(request),
            Request::ImportProgress { name } => self.import_progress(&name),
            Request::NextProgress { name } => return self.next_progress(name, reply),
            Request::Publish { image, published: true, unproved } => self.operator_publish(&image, unproved),
            Request::Publish { image, published: false, .. } => self.operator_unpublish(&image),
            Request::RemoveImage { image } => self.operator_remove_image(&image),
            Request::Reload => self.operator_reload(),
            Request::Sessions => Ok(Reply::Sessions(self.sessions())),
            Request::DropSession { slot } => return self.operator_drop(slot, reply),
            Request::Adopt(adopt) => return self.operator_adopt(adopt, reply),
            Request::Grow { slot, size, dry_run: true } => self.preview_grow(slot, size),
            Request::Grow { slot, size, dry_run: false } => return self.operator_grow(slot, size, reply),
            Request::Work { image, task } => self.operator_work(&image, task),
            Request::WorkProgress { image } => self.work_view(&image),
            Request::Cancel { image } => self.operator_cancel(&image),
            Request::Donors => return self.ask_donors(reply),
            Request::ImageLog { image, firmware } => return self.ask_log(&image, firmware, reply),
            Request::Image { image } => {
                self.image_detail(&image).map(|detail| Reply::Image(Box::new(detail)))
            }
            Request::DefaultImage { image } => self.operator_default(&image),
            Request::Promote(request) => return self.operator_promote(&request, reply),
        };
        let _ = reply.send(answer);
    }

    fn ask_targets(&mut self, reply: ReplyTo) {
        self.ask(Box::new(move |host| drop(reply.send(host.targets().map(Reply::Targets)))));
    }

    fn ask_donors(&mut self, reply: ReplyTo) {
        self.ask(Box::new(move |host| drop(reply.send(host.donors().map(Reply::Donors)))));
    }

    /// Has the log read where nobody waits.
    fn ask_log(&mut self, image: &ImageRef, by: Option<Firmware>, reply: ReplyTo) {
        let image = self.known_volumes().and_then(|volumes| policy::images::resolve(volumes, image));
        let (image, logs) = match image {
            Ok(image) => (image, self.proof_logs()),
            Err(error) => return drop(reply.send(Err(error))),
        };
        self.ask(Box::new(move |_| {
            let log = logs.read(&image, by).map(|log| Reply::ImageLog(Box::new(log)));
            drop(reply.send(log));
        }));
    }

    fn ask_plan(&mut self, reply: ReplyTo) {
        let Some(volumes) = self.volumes.clone() else {
            let error = Error::new(Kind::Busy, "plan: LVM has not reported yet, see 'sheath status'");
            return drop(reply.send(Err(error)));
        };
        let (ids, held) = self.part_quarantined(self.roster.blades.keys().copied().collect());
        let wishes: Vec<BladeWish> = ids.into_iter().filter_map(|id| self.wish(id)).collect();
        let chassis = policy::chassis::wish(&self.config, (self.outside.files)(&self.config));
        self.ask(Box::new(move |host| {
            let plans = preview(host, &chassis, &wishes, &volumes);
            drop(reply.send(Ok(Reply::Plan(plans.into_iter().chain(held).collect()))));
        }));
    }

    fn operator_install(&mut self, slot: Slot, image: &ImageRef, replace: bool) -> Result<Reply> {
        let image = self.whole_image(image)?;
        let (id, blade) = self.blade_in(slot).ok_or_else(|| nobody(slot))?;
        if blade.is_misplaced() {
            return Err(Error::new(
                Kind::Denied,
                format!("install blade {id}: its disk belongs to another slot"),
            ));
        }
        if blade.grant.is_some() {
            return Err(Error::new(Kind::Busy, format!("install blade {id}: an installation is under way")));
        }
        if blade.disk.is_some() && !replace {
            let text = format!("install blade {id}: it has a disk; --replace deletes that disk");
            return Err(Error::new(Kind::Exists, text));
        }
        self.give_up_disk(id);
        self.grant(id, &image, GrantedBy::Operator);
        Ok(accepted(format!("blade {id} in slot {slot} gets a disk made from '{image}'")))
    }

    fn operator_release(&mut self, slot: Slot) -> Result<Reply> {
        let (id, blade) = self.blade_in(slot).ok_or_else(|| nobody(slot))?;
        if blade.disk.is_none() && blade.grant.is_none() {
            return Err(Error::new(Kind::Missing, format!("release slot {slot}: blade {id} has no disk")));
        }
        if blade.session.as_ref().is_some_and(|session| session.kind == SessionKind::Os) {
            let text =
                format!("release slot {slot}: blade {id} is running from that disk; shut it down first");
            return Err(Error::new(Kind::Busy, text));
        }
        self.give_up_disk(id);
        self.tell(EventKind::Released, id, "its disk is released by the operator");
        self.converge(id, "released");
        Ok(accepted(format!("the disk of blade {id} in slot {slot} is deleted")))
    }

    /// Notes the operator's consent: disk and grant go, their volumes are to be taken away.
    fn give_up_disk(&mut self, id: BladeId) {
        let Some(blade) = self.roster.blades.get_mut(&id) else { return };
        let volumes =
            [blade.disk.take().map(|disk| disk.volume), blade.grant.take().map(|grant| grant.volume)];
        blade.releases.extend(volumes.into_iter().flatten());
        (blade.ready, blade.problem, blade.restart_due) = (false, None, false);
    }

    fn operator_move(&mut self, slot: Slot, id: BladeId) -> Result<Reply> {
        let blade = self.roster.blades.get(&id);
        let disk = blade.and_then(|blade| blade.disk.clone());
        let disk =
            disk.ok_or_else(|| Error::new(Kind::Missing, format!("move blade {id}: it has no disk")))?;
        if !self.config.chassis.slots.contains_key(&slot) {
            return Err(Error::invalid(format!("move blade {id}: the chassis has no slot {slot}")));
        }
        let (add, remove) = (vec![Tag::Slot(slot)], vec![Tag::Slot(disk.slot)]);
        if disk.slot != slot {
            let steps = vec![Step::Tag { volume: disk.volume, add, remove }];
            self.run_steps(Subject::Blade(id), "moved by the operator", steps)?;
        }
        Ok(accepted(format!("the disk of blade {id} belongs to slot {slot} now")))
    }

    fn operator_apply(&mut self, slot: Slot) -> Result<Reply> {
        let (id, blade) = self.blade_in(slot).ok_or_else(|| nobody(slot))?;
        if blade.held.is_empty() {
            return Err(Error::new(
                Kind::Missing,
                format!("apply slot {slot}: nothing waits, see 'sheath plan'"),
            ));
        }
        if let Some(blade) = self.roster.blades.get_mut(&id) {
            blade.interrupt = true;
        }
        self.converge(id, "the operator's consent");
        Ok(accepted(format!("what waited for blade {id} in slot {slot} is done now; its session ends")))
    }

    fn operator_remove_image(&mut self, image: &ImageRef) -> Result<Reply> {
        let image = self.only_version(image, "remove")?;
        let clones = self.clones_of(&image);
        if !clones.is_empty() {
            let owner = |disk: &CloneView| format!("blade {} in slot {}", disk.blade, disk.slot);
            let owners: Vec<String> = clones.iter().map(owner).collect();
            let text = format!("remove image '{image}': disks came from it: {}", owners.join(", "));
            return Err(Error::new(Kind::Busy, text));
        }
        self.imports.retain(|_, import| import.is_running() || import.image != image);
        let text = format!("image '{image}' is removed");
        let mut steps = self.spare_removals(&image);
        steps.push(Step::RemoveImage { image: image.clone() });
        self.run_steps(Subject::Image(image), "the operator's wish", steps)?;
        Ok(accepted(text))
    }

    fn spare_removals(&self, image: &ImageId) -> Vec<Step> {
        let volumes = self.volumes.iter().flat_map(|all| all.volumes.values());
        let spares = volumes.filter_map(|volume| match &volume.role {
            Role::Spare { id, image: of, .. } if of == image => Some(Step::RemoveVolume { volume: *id }),
            _ => None,
        });
        spares.collect()
    }

    /// Returns what LVM has reported.
    ///
    /// # Errors
    /// [`Kind::Busy`] before its first report.
    pub(super) fn known_volumes(&self) -> Result<&Volumes> {
        let unknown = "look at the volumes: LVM has not reported yet, see 'sheath status'";
        self.volumes.as_ref().ok_or_else(|| Error::new(Kind::Busy, unknown))
    }

    /// Returns the whole image that is meant.
    ///
    /// # Errors
    /// [`Kind::Missing`] where there is none, [`Kind::Busy`] where it is being made.
    pub(super) fn whole_image(&self, image: &ImageRef) -> Result<ImageId> {
        let volumes = self.known_volumes()?;
        let id = policy::images::resolve(volumes, image)?;
        let found = volumes.volumes.get(&id.lv_name());
        if found.is_none_or(|volume| volume.state == VolumeState::Making) {
            return Err(Error::new(Kind::Busy, format!("use image '{id}': it is still being made")));
        }
        Ok(id)
    }

    /// Returns the family's newest whole version: what somebody means who publishes it by its name.
    ///
    /// # Errors
    /// As [`Core::whole_image`].
    pub(super) fn newest(&self, name: &ImageName) -> Result<ImageId> {
        let whole = policy::images::versions(self.known_volumes()?, name)
            .filter(|(_, volume)| volume.state == VolumeState::Ready)
            .last()
            .map(|(image, _)| image.clone());
        whole.map_or_else(|| self.whole_image(&name.clone().into()), Ok)
    }

    /// Returns the image that is meant, finished or not; of several versions one has to be named.
    ///
    /// # Errors
    /// [`Kind::Missing`] where there is none, [`Kind::Invalid`] where there are several.
    pub(super) fn only_version(&self, image: &ImageRef, verb: &str) -> Result<ImageId> {
        let volumes = self.known_volumes()?;
        let all: Vec<&ImageId> = policy::images::versions(volumes, &image.name).map(|(id, _)| id).collect();
        match (image.version, all.as_slice()) {
            (None, [only]) => Ok((*only).clone()),
            (None, [_, _, ..]) => {
                let all: Vec<String> = all.iter().map(ToString::to_string).collect();
                let text = format!("{verb} image '{image}': say which of its versions: {}", all.join(", "));
                Err(Error::invalid(text))
            }
            _ => policy::images::resolve(volumes, image),
        }
    }

    fn operator_reload(&mut self) -> Result<Reply> {
        self.reload();
        match self.config_faults.as_slice() {
            [] => {
                self.repair_what_was_left();
                Ok(accepted("the configuration is in force".into()))
            }
            faults => {
                Err(Error::invalid(format!("reload, the old configuration stays: {}", faults.join("; "))))
            }
        }
    }

    /// Reads the configuration again. A faulty one is refused as a whole, and the old one stays in force.
    pub(super) fn reload(&mut self) {
        match (self.outside.reload)() {
            Ok(config) if config == *self.config && self.config_faults.is_empty() => {}
            Ok(config) => {
                (self.config, self.config_loaded, self.config_faults) =
                    (Arc::new(config), self.now(), vec![]);
                self.journal.tell(EventKind::Config, "new configuration in force");
                self.untended = true;
                self.drift.forget_wishes();
                self.make_chassis("new configuration");
                self.converge_all("new configuration");
            }
            Err(faults) => {
                let text = format!("configuration refused, the old one stays: {}", faults.join("; "));
                self.journal.tell(EventKind::Problem, &text);
                self.config_faults = faults;
            }
        }
    }
}

/// Returns what would be done now, subject by subject. One that cannot be planned says why and hides no other.
fn preview(host: &dyn Host, chassis: &ChassisWish, wishes: &[BladeWish], volumes: &Volumes) -> Vec<PlanView> {
    let chassis = apply::chassis_steps(host, chassis).map(|steps| Plan { steps, held: vec![] });
    let mut plans = vec![view("chassis".into(), chassis)];
    plans.extend(wishes.iter().map(|wish| {
        let plan = apply::blade_plan(host, wish, volumes);
        view(format!("blade {}", wish.blade), plan)
    }));
    plans.retain(|plan| !plan.steps.is_empty() || !plan.held.is_empty() || plan.problem.is_some());
    plans
}

pub(super) fn view(subject: String, plan: Result<Plan>) -> PlanView {
    match plan {
        Ok(Plan { steps, held }) => PlanView { subject, steps, held, problem: None },
        Err(error) => PlanView { subject, steps: vec![], held: vec![], problem: Some(error.chain()) },
    }
}

pub(super) fn accepted(message: String) -> Reply {
    Reply::Accepted { message }
}

pub(super) fn nobody(slot: Slot) -> Error {
    Error::new(
        Kind::Missing,
        format!("find a blade in slot {slot}: none was seen there, see 'sheath blades'"),
    )
}
