//! Quarantine: a job that has not come back within its deadline.
//!
//! ```text
//!   a job runs ── overdue ──► quarantined ── late ──► planned anew
//! ```
//!
//! Its subject gets no other job meanwhile: two at work on one target would be worse than one that waits. What hangs is a
//! device, most likely, and only whoever looks after the machine can mend that; so it is named wherever somebody looks.
//! When the device answers, the job comes back and the subject goes on by itself, with a plan of that moment.

use super::{Core, EventKind};
use crate::{
    apply::{LEFT_BEHIND, Report, Subject},
    error::{Error, Kind, Result},
    model::BladeId,
    roster::Fault,
    status::{PlanView, Problem},
};

/// What the problem of hung questions is about.
const QUESTIONS: &str = "questions";
/// What the problem of too many stuck jobs is about.
const LANES: &str = "lanes";

impl Core {
    /// A job is over its deadline.
    pub(super) fn on_overdue(&mut self, report: &Report) {
        let subject = &report.subject;
        let Some(failure) = &report.failure else { return };
        self.answer_operator(report);
        let text = format!(
            "quarantined: {failure}; most likely a device hangs, see 'dmsetup info -c' and 'journalctl -k'; \
             it goes on by itself when the device answers"
        );
        match self.busy.get_mut(subject) {
            Some(busy) => {
                busy.quarantine = Some(text.clone());
                self.write_about(EventKind::Problem, subject, &text);
                let (about, since) = (subject.to_string(), self.now());
                self.problems.insert(about.clone(), Problem { about, text, since });
            }
            // A question has no subject that others could have to wait for.
            None => {
                self.hung_questions += 1;
                self.complain(QUESTIONS, text);
            }
        }
        // A chassis that cannot be looked at is no reason to keep the services that read our files from starting.
        self.chassis_seen |= *subject == Subject::Chassis;
        self.show_quarantine(subject);
        self.count_left_behind();
        self.feed();
        self.tend();
    }

    /// A job that was over its deadline has come back.
    pub(super) fn on_late(&mut self, report: &Report) {
        let subject = &report.subject;
        if *subject == Subject::Question {
            self.hung_questions = self.hung_questions.saturating_sub(1);
            return self.count_left_behind();
        }
        self.busy.remove(subject);
        self.fold(report);
        self.problems.remove(&subject.to_string());
        let (steps, seconds) = (report.steps.len(), report.elapsed.as_secs());
        let text = format!("out of quarantine: it came back after {seconds} s and {steps} steps");
        self.write_about(EventKind::Solved, subject, &text);
        self.count_left_behind();
        self.go_on(subject);
        // What is known of the volumes may be as old as the job.
        self.ask_volumes_soon();
        self.untended = true;
        self.feed();
        self.tend();
    }

    /// Plans anew what came out of quarantine. Spares and left-overs are planned whenever a report comes in.
    fn go_on(&mut self, subject: &Subject) {
        let cause = "out of quarantine";
        match subject {
            Subject::Blade(id) => {
                if let Some(blade) = self.roster.blades.get_mut(id) {
                    blade.problem = None;
                }
                self.converge(*id, cause);
            }
            Subject::Chassis => self.make_chassis(cause),
            Subject::Volumes => self.ask_volumes(cause),
            Subject::Spare(_)
            | Subject::Image(_)
            | Subject::Leftover(_)
            | Subject::Question
            | Subject::Donors => {}
        }
    }

    /// Says at the blade itself that it is quarantined, whatever else has happened to it since; whoever waits is answered.
    pub(super) fn show_quarantine(&mut self, subject: &Subject) {
        let Subject::Blade(id) = subject else { return };
        let Some(text) = self.quarantine_of(*id).map(str::to_owned) else { return };
        let Some(blade) = self.roster.blades.get_mut(id) else { return };
        (blade.problem, blade.ready) = (Some(Fault { kind: Kind::Timeout, text }), false);
        self.answer_parked(|parked| parked.blade == *id);
    }

    /// Returns what is told of a blade that is quarantined.
    fn quarantine_of(&self, id: BladeId) -> Option<&str> {
        self.busy.get(&Subject::Blade(id))?.quarantine.as_deref()
    }

    /// Refuses what cannot be planned again later: a job of its own whose subject has one already.
    ///
    /// # Errors
    /// [`Kind::Busy`], with what is told of a quarantined one.
    pub(super) fn refuse_busy(&self, subject: &Subject) -> Result<()> {
        let Some(busy) = self.busy.get(subject) else { return Ok(()) };
        let why = busy.quarantine.as_deref().unwrap_or("a job of it is under way, try again");
        Err(Error::new(Kind::Busy, format!("change {subject}: {why}")))
    }

    /// Parts the blades into those that may be looked at and what `sheath plan` says of those that may not.
    pub(super) fn part_quarantined(&self, ids: Vec<BladeId>) -> (Vec<BladeId>, Vec<PlanView>) {
        let (held, free): (Vec<_>, Vec<_>) =
            ids.into_iter().partition(|id| self.quarantine_of(*id).is_some());
        let view = |id: BladeId| PlanView {
            subject: format!("blade {id}"),
            steps: vec![],
            held: vec![],
            problem: self.quarantine_of(id).map(str::to_owned),
        };
        (free, held.into_iter().map(view).collect())
    }

    /// Returns whether the machine can be asked: each question that hangs costs a thread, and the next one would too.
    pub(super) fn may_ask(&self) -> bool {
        self.hung_questions == 0
    }

    fn count_left_behind(&mut self) {
        if self.hung_questions == 0 {
            self.solve(QUESTIONS);
        }
        let quarantined = self.busy.values().filter(|busy| busy.quarantine.is_some()).count();
        let left_behind = quarantined + self.hung_questions;
        if left_behind > LEFT_BEHIND {
            let text = format!("{left_behind} jobs hang, and their threads are not replaced any more");
            self.complain(LANES, text);
        } else {
            self.solve(LANES);
        }
    }
}
