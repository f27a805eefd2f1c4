//! `sheath plan`: what the agent would change now. Looking changes nothing.

use super::{ask, human, session::Session, table::HEAD};
use crate::{control::api::Request, error::Result, status::PlanView};

/// Shows the plan.
pub(super) fn show(session: &mut Session<'_>) -> Result<()> {
    let plan = ask::planned(session.ask, Request::Plan)?;
    print(session, &plan)
}

/// Prints a plan.
pub(super) fn print(session: &mut Session<'_>, plan: &[PlanView]) -> Result<()> {
    session.answer(plan, text)
}

pub(super) fn text(plan: &[PlanView], session: &Session<'_>) -> String {
    let mut text = String::new();
    for view in
        plan.iter().filter(|view| !view.steps.is_empty() || !view.held.is_empty() || view.problem.is_some())
    {
        text += &format!("{}\n", session.paint(HEAD, &human::tame(&view.subject)));
        for (step, n) in view.steps.iter().zip(1..) {
            text += &format!("  {n:>2}. {step}\n");
        }
        for step in &view.held {
            text += &format!("   -  {step} (waits until the blade is off, or for 'sheath blade apply')\n");
        }
        if let Some(problem) = &view.problem {
            text += &format!("  cannot be done now: {}\n", human::tame(problem));
        }
    }
    if text.is_empty() { "nothing to change: everything is as it should be\n".into() } else { text }
}
