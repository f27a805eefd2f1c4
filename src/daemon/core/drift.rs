//! Hand edits of what we made: noticed by inotify or by the slow audit, told, and put right or left.
//!
//! ```text
//!   watch::configfs ── Touched ──┐                       ┌─ nothing differs: nothing is told
//!   clock ──────────── audit ────┼─► a look at one blade ┼─ repair: told, then mended by the same job
//!   any other cause ─────────────┘                       └─ report: told once, shown until it is gone
//! ```
//!
//! Once a blade's wish has been carried out, every later job of that same wish is such a look: what LIO's part of the
//! plan wants then is somebody else's doing. A new wish (an installation, a new configuration) and a start make
//! everything as wished and call nothing drift. Our own steps are touches too; the look that follows them finds nothing.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
};

use super::{Core, EventKind};
use crate::{
    apply::{HandEdits, Report, Subject, Work},
    config,
    model::{BladeId, Difference, VolumeId},
    observed::Volumes,
    policy::BladeWish,
    status::{Millis, Problem},
    watch::configfs::{Exported, Orders},
};

/// Every export is looked at within so many ticks of a second, a few at each: inotify tells of hand edits at once, so
/// this is only for what it missed. Reading 30 files of 1,000 exports costs seconds of a processor: not to be felt.
const AUDIT_TICKS: usize = 600;
/// So many exports are looked at each second when events were lost.
const HURRY: usize = 50;
/// So many repairs of one blade in [`FIGHT`] milliseconds are a fight with somebody who keeps changing it back: nobody
/// types as fast, and a script of hand edits has fewer lines.
const ROUNDS: u8 = 20;
/// How long a fight rests before the next repair.
const FIGHT: Millis = 10_000;

/// What the line remembers about hand edits.
#[derive(Default)]
pub(super) struct Drift {
    /// The disk of each blade whose wish has been carried out.
    made: BTreeMap<BladeId, VolumeId>,
    /// What is different still: left so, or not to be mended now.
    known: BTreeMap<BladeId, Vec<Difference>>,
    /// When the last repairs of a blade began, and how many they were.
    fights: BTreeMap<BladeId, (Millis, u8)>,
    /// Who is to be looked at when a fight has rested.
    resting: BTreeMap<BladeId, Millis>,
    /// The last one that the audit looked at.
    audited: Option<BladeId>,
    credit: usize,
    hurry: usize,
    orders: Orders,
}

impl Drift {
    /// Returns the end that tells the watch what to watch.
    pub(super) fn orders(&self) -> Orders {
        self.orders.clone()
    }

    /// Returns what of the blade's export is different, for people.
    pub(super) fn of(&self, id: BladeId) -> Vec<String> {
        self.known.get(&id).into_iter().flatten().map(ToString::to_string).collect()
    }

    /// Wishes are new: the next jobs make everything as wished.
    pub(super) fn forget_wishes(&mut self) {
        self.made.clear();
    }

    fn is_made(&self, wish: &BladeWish) -> bool {
        let Some(disk) = &wish.disk else { return false };
        let same = self.made.get(&wish.blade) == Some(&disk.export.backstore.volume);
        same && disk.make.is_none() && disk.adopt.is_none() && wish.releases.is_empty()
    }

    /// Returns the blade that comes after the last audited one.
    fn next(&self) -> Option<BladeId> {
        let after = self.audited.map_or(Unbounded, Excluded);
        self.made.range((after, Unbounded)).chain(&self.made).next().map(|(id, _)| *id)
    }

    /// Returns how many exports are to be looked at in this tick.
    fn share(&mut self) -> usize {
        if self.hurry > 0 {
            let share = self.hurry.min(HURRY);
            self.hurry -= share;
            return share;
        }
        self.credit += self.made.len();
        let share = self.credit / AUDIT_TICKS;
        self.credit %= AUDIT_TICKS;
        share
    }

    /// Notes a repair.
    fn repaired(&mut self, id: BladeId, now: Millis) {
        let (since, rounds) = self.fights.entry(id).or_insert((now, 0));
        if now.saturating_sub(*since) > FIGHT {
            (*since, *rounds) = (now, 0);
        }
        *rounds = rounds.saturating_add(1);
    }

    /// Returns until when a blade's repairs rest, if they do.
    fn rests_until(&self, id: BladeId, now: Millis) -> Option<Millis> {
        let (since, rounds) = self.fights.get(&id)?;
        let until = since + FIGHT;
        (*rounds >= ROUNDS && now <= until).then_some(until)
    }
}

impl Core {
    /// Returns what has to be done for a blade: a look where its wish has been carried out before, else all of it.
    pub(super) fn work_for(&self, wish: BladeWish, volumes: Volumes) -> Work {
        let (made, wish) = (self.drift.is_made(&wish), Box::new(wish));
        if !made {
            return Work::Blade { wish, volumes };
        }
        let edits = match self.config.target.drift {
            config::Drift::Repair => HandEdits::Mended,
            config::Drift::Report => HandEdits::Left,
        };
        Work::Look { wish, volumes, edits }
    }

    /// Somebody, maybe we, touched a blade's export.
    pub(super) fn on_touched(&mut self, id: BladeId, paths: &[String]) {
        // What is being made for the first time, or anew, is looked at when it is done.
        if !self.wish(id).is_some_and(|wish| self.drift.is_made(&wish)) {
            return;
        }
        match self.drift.rests_until(id, self.now()) {
            Some(until) => drop(self.drift.resting.insert(id, until)),
            None => self.converge(id, &format!("touched: {}", paths.join(", "))),
        }
    }

    /// Nobody knows what was touched.
    pub(super) fn on_edits_lost(&mut self) {
        self.drift.hurry = self.drift.made.len();
    }

    /// Looks at a few exports: those whose fight has rested, and the audit's share of this second.
    pub(super) fn audit(&mut self) {
        let now = self.now();
        let rested: Vec<_> =
            self.drift.resting.iter().filter(|(_, until)| **until < now).map(|(id, _)| *id).collect();
        for id in rested {
            self.drift.resting.remove(&id);
            self.converge(id, "touched again and again");
        }
        for _ in 0..self.drift.share() {
            self.drift.audited = self.drift.next();
            if let Some(id) = self.drift.audited {
                self.converge(id, "audit");
            }
        }
    }

    /// Takes in what a job of a blade found: told before the line of its plan, and once.
    pub(super) fn on_drift(&mut self, report: &Report) {
        let Subject::Blade(id) = report.subject else { return };
        if report.drift.is_empty() {
            return self.on_no_drift(id, report);
        }
        // What would end a session is not put right yet.
        let repairs = self.config.target.drift == config::Drift::Repair;
        let mended = repairs && report.held.is_empty();
        let told = report.drift.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let known = self.drift.known.get(&id) == Some(&report.drift);
        if repairs {
            self.drift.repaired(id, self.now());
        }
        if mended && report.failure.is_none() {
            self.tell(EventKind::Drift, id, &format!("changed by somebody else, put right: {told}"));
            return self.on_no_drift(id, report);
        }
        if !known {
            self.tell(EventKind::Drift, id, &format!("changed by somebody else, left so: {told}"));
            self.drift.known.insert(id, report.drift.clone());
        }
        if !mended && !known {
            let when = match repairs {
                true => "put right when the blade is off, or by 'sheath blade apply'",
                false => "'sheath reload' puts it right",
            };
            let text = format!("changed by somebody else, {when}: {told}");
            let (about, since) = (about(id), self.now());
            self.problems.insert(about.clone(), Problem { about, text, since });
        }
    }

    fn on_no_drift(&mut self, id: BladeId, report: &Report) {
        // A job that could not look knows nothing.
        if report.failure.is_none() && self.drift.known.remove(&id).is_some() {
            self.solve(&about(id));
        }
    }

    /// A job of a blade has ended well: what is served is watched from now on.
    pub(super) fn on_made(&mut self, id: BladeId, wish: &BladeWish) {
        match &wish.disk {
            Some(disk) => {
                let export = &disk.export;
                let (target, initiator) = (export.target.clone(), export.initiator.clone());
                let volume = export.backstore.volume;
                self.drift.made.insert(id, volume);
                self.drift.orders.watch(id, Exported { target, initiator, volume });
            }
            None => {
                self.drift.made.remove(&id);
                self.drift.orders.forget(id);
            }
        }
    }

    /// Puts right what was left: the operator asks for it.
    pub(super) fn repair_what_was_left(&mut self) {
        for id in self.drift.known.keys().copied().collect::<Vec<_>>() {
            self.drift.made.remove(&id);
            self.converge(id, "the operator's wish");
        }
    }
}

fn about(id: BladeId) -> String {
    format!("drift of blade {id}")
}
