//! Making a blade's disk larger while it is in use.

use tokio::sync::oneshot;

use super::{Core, Subject, operator::nobody, sessions::Awaited};
use crate::{
    control::api::Reply,
    error::{Error, Kind, Result},
    model::{BladeId, Growth, Slot, Volume},
    observed::SessionKind,
    plan::{self, Step},
    status::PlanView,
};

impl Core {
    /// Makes the disk of the slot's blade larger; the answer comes when it is.
    pub(super) fn operator_grow(
        &mut self,
        slot: Slot,
        growth: Growth,
        reply: oneshot::Sender<Result<Reply>>,
    ) {
        let steps = self.grow_steps(slot, growth).and_then(|(id, steps)| {
            self.refuse_busy(&Subject::Blade(id))?;
            Ok((id, steps))
        });
        let answer = match steps {
            Ok((id, steps)) if !steps.is_empty() => {
                let awaited = Awaited::new(reply, self.grown(slot, id, &steps));
                return self.run_for_operator(id, "disk grown by the operator", steps, awaited);
            }
            Ok((id, _)) => {
                Ok(Reply::Accepted { message: format!("the disk of blade {id} has that size already") })
            }
            Err(error) => Err(error),
        };
        let _ = reply.send(answer);
    }

    /// Says what growing would do.
    pub(super) fn preview_grow(&self, slot: Slot, growth: Growth) -> Result<Reply> {
        let (id, steps) = self.grow_steps(slot, growth)?;
        Ok(Reply::Plan(vec![PlanView { subject: format!("blade {id}"), steps, held: vec![], problem: None }]))
    }

    fn grow_steps(&self, slot: Slot, growth: Growth) -> Result<(BladeId, Vec<Step>)> {
        let (id, _) = self.blade_in(slot).ok_or_else(|| nobody(slot))?;
        let missing = |what| Error::new(Kind::Missing, format!("grow the disk of slot {slot}: {what}"));
        let volumes = self.volumes.as_ref().ok_or_else(|| missing("LVM has not reported yet".to_owned()))?;
        let disk = self.disk_of(id).ok_or_else(|| missing(format!("blade {id} has none")))?;
        Ok((id, plan::grow(disk, growth, &volumes.pool, self.config.pool.watermark)?))
    }

    fn disk_of(&self, id: BladeId) -> Option<&Volume> {
        let disk = self.roster.blades.get(&id)?.disk.as_ref()?;
        self.volumes.as_ref()?.volumes.get(&disk.volume.lv_name())
    }

    /// Returns what the operator is told afterwards. Nothing is written to a disk that a blade owns: the rest is done there.
    fn grown(&self, slot: Slot, id: BladeId, steps: &[Step]) -> String {
        let size = steps.iter().find_map(|step| match step {
            Step::Grow { size, .. } => Some(size.human()),
            _ => None,
        });
        let session = self.roster.blades.get(&id).and_then(|blade| blade.session.as_ref());
        let seen = match session.map(|session| session.kind) {
            Some(SessionKind::Os) => "the blade sees it after 'iscsiadm -m session -R'",
            Some(SessionKind::Ipxe) | None => "the blade sees it when its operating system starts",
        };
        let size = size.unwrap_or_default();
        format!("the disk of blade {id} in slot {slot} has {size}; {seen}, as room behind its last partition")
    }
}
