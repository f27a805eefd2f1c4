//! `sheath adopt`: a target that somebody made by hand becomes a blade's disk, after its plan was shown.

use super::{args::AdoptArgs, ask, plan, session::Session};
use crate::{
    control::api::{Adopt, Request},
    error::Result,
};

/// Shows the plan, asks, and has it carried out.
pub(super) fn adopt(session: &mut Session<'_>, args: &AdoptArgs) -> Result<()> {
    let AdoptArgs { target, slot, blade, image, dry_run, yes } = args.clone();
    let request = |dry_run| {
        Request::Adopt(Adopt { target: target.clone(), slot, blade, image: image.clone(), dry_run })
    };
    if dry_run {
        return plan::print(session, &ask::planned(session.ask, request(true))?);
    }
    if !yes {
        let steps = ask::planned(session.ask, request(true))?;
        let shown = plan::text(&steps, session);
        let question = format!("{shown}Take '{target}' over as the disk of slot {slot}?");
        session.confirm(yes, &format!("adopt '{target}'"), &question)?;
    }
    let message = ask::accepted(session.ask, request(false))?;
    session.accepted(message)
}
