//! Promoting: the disk of a blade, as it is at this moment, becomes the next version of an image.
//!
//! A thin snapshot copies nothing, so that it takes as long for a large disk as for a small one. A blade that is off has
//! left its disk in order; of one that runs, the disk is taken as a power cut would leave it, which the operator has to
//! ask for. Which of both it was stands in the manifest.

use super::{Core, Subject, operator::nobody, sessions::Awaited};
use crate::{
    apply::Report,
    control::api::{PromoteRequest, Reply},
    error::{Error, Kind, Result},
    model::{BladeId, Consistency, ImageId, Manifest, Origin, Parent},
    plan::{self, Step},
    policy,
    status::PlanView,
};

/// What is told of a disk that was taken while its blade ran.
pub(super) const CRASH: &str = "as after a power cut: what was not yet written is not in it";

/// A promotion, decided and not begun.
pub(super) struct Promotion {
    pub(super) image: ImageId,
    pub(super) parent: Parent,
    steps: Vec<Step>,
}

impl Core {
    /// Makes the disk of the slot's blade an image; the answer comes when it is one.
    pub(super) fn operator_promote(
        &mut self,
        request: &PromoteRequest,
        reply: tokio::sync::oneshot::Sender<Result<Reply>>,
    ) {
        let promotion = self.promotion(request).and_then(|promotion| {
            self.refuse_busy(&Subject::Blade(promotion.parent.blade))?;
            Ok(promotion)
        });
        match promotion {
            Ok(promotion) if request.dry_run => drop(reply.send(Ok(preview(promotion)))),
            Ok(promotion)
                if request.freeze.is_some() && promotion.parent.consistency == Consistency::Crash =>
            {
                self.freeze(request, &promotion, reply);
            }
            Ok(promotion) => self.promote(promotion, request.publish, reply),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    pub(super) fn promote(
        &mut self,
        Promotion { image, parent, steps }: Promotion,
        publish: bool,
        reply: tokio::sync::oneshot::Sender<Result<Reply>>,
    ) {
        let (blade, slot) = (parent.blade, parent.slot);
        let how = match parent.consistency {
            Consistency::Clean => "which is off".to_owned(),
            Consistency::Crash => format!("which is running, {CRASH}"),
            Consistency::Frozen => "which is running, with its file systems frozen meanwhile".to_owned(),
        };
        let state = if publish { "published unproved by the operator" } else { "not published" };
        let done =
            format!("image '{image}' is the disk of blade {blade} in slot {slot}, {how}; it is {state}");
        // Before the image: what was not written down now would be lost with a kill.
        let now = self.now();
        let mut manifest = Manifest::new(image, now, Origin::Blade(parent));
        manifest.unproved = publish.then_some(now);
        self.keep_manifest(manifest);
        self.run_for_operator(blade, "promoted by the operator", steps, Awaited::new(reply, done));
    }

    /// Decides how the disk becomes an image, or refuses it.
    pub(super) fn promotion(&self, request: &PromoteRequest) -> Result<Promotion> {
        let PromoteRequest { slot, name, running, publish, unproved, .. } = request;
        let refuse =
            |kind, why: String| Err(Error::new(kind, format!("promote slot {slot} to '{name}': {why}")));
        let (id, blade) = self.blade_in(*slot).ok_or_else(|| nobody(*slot))?;
        let Some(disk) = blade.disk.as_ref().filter(|_| blade.grant.is_none()) else {
            return refuse(Kind::Missing, format!("blade {id} has no disk"));
        };
        let is_up = self.is_up(id);
        if is_up && !running {
            // A target notices within a minute that nobody is there any more.
            let why = match blade.present {
                true => "is running: shut it down first",
                false => "is off, but its session has not ended yet: try again in a minute",
            };
            return refuse(Kind::Busy, format!("blade {id} {why}, or take its disk {CRASH} (--running)"));
        }
        let volumes = self.known_volumes()?;
        let Some(found) = volumes.volumes.get(&disk.volume.lv_name()) else {
            return refuse(Kind::Missing, format!("volume '{}' of blade {id} is not there", disk.volume));
        };
        if let Some(how) = self.being_made(name) {
            return refuse(Kind::Busy, format!("a version of it is being {how}"));
        }
        let image = policy::images::next_version(volumes, name)?;
        if *publish {
            policy::images::publication_of_new(&image, *unproved)
                .map_err(|e| e.while_doing(format!("promote slot {slot} to '{image}' and publish it")))?;
        }
        plan::admit(&volumes.pool, self.config.pool.watermark)?;
        let steps = plan::promote(found, &image, *publish)?;
        let consistency = if is_up { Consistency::Crash } else { Consistency::Clean };
        let parent =
            Parent { blade: id, slot: disk.slot, disk: disk.volume, image: disk.image.clone(), consistency };
        Ok(Promotion { image, parent, steps })
    }

    /// Returns whether anything of the blade's may write to its disk: a session that is gone for a moment comes back.
    fn is_up(&self, id: BladeId) -> bool {
        let blade = self.roster.blades.get(&id);
        blade.is_some_and(|blade| blade.session.is_some() || blade.is_running())
    }

    /// Notes how a promotion ended, where this report is one's: a blade may have come up while its disk was taken.
    pub(super) fn on_promoted(&mut self, report: &Report) {
        let promoted = report.steps.iter().find_map(|(step, _)| match step {
            Step::Promote { image, .. } => Some(image.clone()),
            _ => None,
        });
        let (Some(image), Subject::Blade(id)) = (promoted, &report.subject) else { return };
        let Some(mut manifest) = self.manifests.get(&image).cloned() else { return };
        let came_up = self.is_up(*id);
        if let Origin::Blade(parent) = &mut manifest.origin
            && parent.consistency == Consistency::Clean
            && came_up
        {
            parent.consistency = Consistency::Crash;
            self.keep_manifest(manifest);
            if let Some(awaited) = self.awaited.get_mut(&report.subject) {
                awaited.add(&format!("; the blade came up meanwhile, so it is {CRASH}"));
            }
        }
    }
}

fn preview(Promotion { image, steps, .. }: Promotion) -> Reply {
    Reply::Plan(vec![PlanView { subject: format!("image {image}"), steps, held: vec![], problem: None }])
}
