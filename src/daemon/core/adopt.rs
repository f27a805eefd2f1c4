//! The operator gives us a target that somebody made by hand: its volume becomes a blade's disk.
//!
//! First a lane looks at it, then the consent is noted as a grant that says where the disk comes from. From there it is a
//! blade's plan like any other: a kill on the way is found at the next start.

use super::{
    Core, Subject,
    operator::{ReplyTo, nobody, view},
    sessions::Awaited,
};
use crate::{
    apply,
    control::api::{Adopt, Reply},
    error::{Error, Kind, Result},
    model::{BladeId, ForeignExport, VolumeId},
    observed::ObservedForeign,
    plan,
    policy::{self, BladeWish},
    roster::{Blade, Grant, GrantedBy},
};

impl Core {
    /// Takes a foreign target over, or says what that would be; the answer comes when it is done.
    pub(super) fn operator_adopt(&mut self, adopt: Adopt, reply: ReplyTo) {
        let blade = self.adopting_blade(&adopt);
        match blade {
            Ok(id) if adopt.dry_run => self.preview_adopt(id, adopt, reply),
            Ok(id) => match self.survey(id, adopt.target.clone()) {
                Ok(()) => drop(self.awaited.insert(Subject::Blade(id), Awaited::survey(reply, adopt))),
                Err(error) => drop(reply.send(Err(error))),
            },
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// Returns the blade whose disk it is to be.
    fn adopting_blade(&self, adopt: &Adopt) -> Result<BladeId> {
        let slot = adopt.slot;
        let refuse = |kind, why: String| Err(Error::new(kind, format!("adopt '{}': {why}", adopt.target)));
        if !self.config.chassis.slots.contains_key(&slot) {
            return refuse(Kind::Invalid, format!("the chassis has no slot {slot}"));
        }
        let there = self.blade_in(slot);
        let id = adopt.blade.or(there.map(|(id, _)| id)).ok_or_else(|| {
            nobody(slot).while_doing(format!("adopt '{}': name the blade with --blade", adopt.target))
        })?;
        if let Some((other, _)) = there.filter(|(other, blade)| *other != id && blade.disk.is_some()) {
            return refuse(
                Kind::Exists,
                format!("slot {slot} is blade {other}'s: release or move its disk first"),
            );
        }
        match self.roster.blades.get(&id) {
            Some(blade) if blade.disk.is_some() => {
                refuse(Kind::Exists, format!("blade {id} has a disk already: release it first"))
            }
            Some(blade) if blade.grant.is_some() => {
                refuse(Kind::Busy, format!("an installation of blade {id} is under way"))
            }
            Some(blade) if blade.present && blade.slot != slot => {
                refuse(Kind::Invalid, format!("blade {id} is in slot {}, not in {slot}", blade.slot))
            }
            _ => Ok(id),
        }
    }

    fn preview_adopt(&mut self, id: BladeId, adopt: Adopt, reply: ReplyTo) {
        let volumes = match self.known_volumes() {
            Ok(volumes) => volumes.clone(),
            Err(error) => return drop(reply.send(Err(error))),
        };
        let config = self.config.clone();
        let volume = VolumeId((self.outside.fresh)());
        self.ask(Box::new(move |host| {
            let plan = host.foreign(&adopt.target).and_then(|found| {
                let wish = wish(&config, id, &adopt, granted(&adopt, volume, plan::adopt(&found)?))?;
                apply::blade_plan(host, &wish, &volumes)
            });
            let plan = plan.map(|plan| Reply::Plan(vec![view(format!("blade {id}"), Ok(plan))]));
            drop(reply.send(plan));
        }));
    }

    /// Goes on when the target was looked at: notes the consent, and acts upon it.
    pub(super) fn take_over(&mut self, adopt: Adopt, found: Option<&ObservedForeign>, reply: ReplyTo) {
        let checked = self.adopting_blade(&adopt).and_then(|id| {
            let found = found.ok_or_else(|| Error::new(Kind::Failed, "look at the foreign target"))?;
            // Without a report no plan is made, and nobody would ever answer.
            self.known_volumes()?;
            Ok((id, plan::adopt(found)?))
        });
        let (id, from) = match checked {
            Ok(checked) => checked,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let done = format!(
            "what was volume '{}' is the disk of blade {id} in slot {}; let 'targetcli saveconfig' forget '{}'",
            from.lv, adopt.slot, from.target
        );
        let text =
            format!("granted volume '{}' of the foreign target '{}' by the operator", from.lv, from.target);
        let blade = self.roster.blades.get_or_new(id, adopt.slot);
        blade.slot = adopt.slot;
        let grant = Grant { at: self.now(), ..granted(&adopt, VolumeId((self.outside.fresh)()), from) };
        self.awaited.insert(Subject::Blade(id), Awaited::new(reply, done));
        self.give(id, grant, &text);
    }
}

fn granted(adopt: &Adopt, volume: VolumeId, from: ForeignExport) -> Grant {
    Grant { image: adopt.image.clone(), volume, by: GrantedBy::Operator, at: 0, from: Some(from) }
}

fn wish(config: &crate::config::Config, id: BladeId, adopt: &Adopt, grant: Grant) -> Result<BladeWish> {
    policy::wish(config, id, &Blade { grant: Some(grant), ..Blade::new(adopt.slot) })
}
