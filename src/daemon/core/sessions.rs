//! Who is logged in, since when; and the operator's verbs whose answer waits for their outcome.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::{Core, operator::nobody};
use crate::{
    apply::{Report, Subject},
    control::api::{Adopt, Reply},
    error::{Error, Kind, Result},
    model::{BladeId, Slot},
    observed::{Session, SessionKind},
    plan::Step,
    policy,
    status::{Millis, SessionView, Sessions},
};

/// What the line remembers of logins.
#[derive(Debug, Default)]
pub(super) struct Logins {
    /// Which session a blade has, by LIO's id, and when it was first seen.
    since: BTreeMap<BladeId, (u32, Millis)>,
}

/// An operator's verb under way: where its answer goes, and what comes when all is well.
pub(super) struct Awaited {
    reply: oneshot::Sender<Result<Reply>>,
    then: Then,
}

/// What comes when an operator's steps have run.
enum Then {
    /// This is said.
    Say(String),
    /// A foreign target was looked at: it is taken over.
    TakeOver(Adopt),
}

impl Logins {
    /// Notes which session the blade has now. One that is known keeps its time.
    pub(super) fn note(&mut self, id: BladeId, session: Option<&Session>, now: Millis) {
        match session {
            None => drop(self.since.remove(&id)),
            Some(session) if self.since.get(&id).is_some_and(|known| known.0 == session.id) => {}
            Some(session) => drop(self.since.insert(id, (session.id, now))),
        }
    }
}

impl Core {
    /// Returns the blades' sessions. What was counted and the other targets' sessions are read where nobody waits.
    pub(super) fn sessions(&self) -> Sessions {
        let views = self.roster.blades.iter().filter_map(|(id, blade)| {
            Some(SessionView {
                slot: Some(blade.slot),
                blade: Some(*id),
                volume: blade.disk.as_ref().map(|disk| disk.volume),
                target: policy::target_of(&self.config, *id).ok()?.to_string(),
                ours: true,
                session: blade.session.clone()?,
                since: self.logins.since.get(id).map(|known| known.1),
                older: 0,
                counters: None,
            })
        });
        let mut sessions: Vec<_> = views.collect();
        sessions.sort_by_key(|view| (view.slot, view.blade));
        Sessions { sessions, refused: self.refusals.all() }
    }

    /// Closes the session of the slot's blade; the answer comes when it is closed.
    pub(super) fn operator_drop(&mut self, slot: Slot, reply: oneshot::Sender<Result<Reply>>) {
        match self.drop_step(slot) {
            Ok((id, step, done)) => {
                self.run_for_operator(
                    id,
                    "session closed by the operator",
                    vec![step],
                    Awaited::new(reply, done),
                );
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn drop_step(&self, slot: Slot) -> Result<(BladeId, Step, String)> {
        let (id, blade) = self.blade_in(slot).ok_or_else(|| nobody(slot))?;
        let session = blade.session.as_ref().ok_or_else(|| {
            Error::new(
                Kind::Missing,
                format!("close the session of slot {slot}: blade {id} is not logged in"),
            )
        })?;
        self.refuse_busy(&Subject::Blade(id))?;
        let step = Step::DropSession {
            target: policy::target_of(&self.config, id)?,
            initiator: policy::initiator_of(&self.config, id)?,
            session: session.id,
        };
        let then = match session.kind {
            SessionKind::Ipxe => "its boot starts anew or fails",
            SessionKind::Os => "its operating system logs in again by itself",
        };
        Ok((id, step, format!("session {} of blade {id} in slot {slot} is closed; {then}", session.id)))
    }

    /// Runs an operator's steps on a blade; the answer comes with their outcome, or at once where a plan for it runs.
    pub(super) fn run_for_operator(&mut self, id: BladeId, cause: &str, steps: Vec<Step>, awaited: Awaited) {
        match self.run_steps(Subject::Blade(id), cause, steps) {
            Ok(()) => drop(self.awaited.insert(Subject::Blade(id), awaited)),
            Err(error) => drop(awaited.reply.send(Err(error))),
        }
    }

    /// Answers the operator who waits for this report. Returns whether somebody did.
    pub(super) fn answer_operator(&mut self, report: &Report) -> bool {
        let Some(Awaited { reply, then }) = self.awaited.remove(&report.subject) else { return false };
        let answer = match (&report.failure, then) {
            // The error itself goes on into the journal; its chain says all of it.
            (Some(failure), _) => Err(Error::new(failure.error.kind(), failure.error.chain())),
            (None, Then::Say(message)) => Ok(Reply::Accepted { message }),
            (None, Then::TakeOver(adopt)) => {
                self.take_over(adopt, report.foreign.as_ref(), reply);
                return true;
            }
        };
        let _ = reply.send(answer);
        true
    }
}

impl Awaited {
    /// Returns what is sent to `reply` when the steps have run: `done`, or the failure.
    pub(super) fn new(reply: oneshot::Sender<Result<Reply>>, done: String) -> Self {
        Self { reply, then: Then::Say(done) }
    }

    /// Adds to what is said when all is well.
    pub(super) fn add(&mut self, words: &str) {
        if let Then::Say(done) = &mut self.then {
            done.push_str(words);
        }
    }

    /// Returns what takes the foreign target over once it was looked at; `reply` hears the end of it.
    pub(super) fn survey(reply: oneshot::Sender<Result<Reply>>, adopt: Adopt) -> Self {
        Self { reply, then: Then::TakeOver(adopt) }
    }
}
