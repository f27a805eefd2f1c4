//! Refused logins: told to the journal, and the last of each remembered for whoever looks.

use std::collections::BTreeMap;

use super::{Core, EventKind};
use crate::{
    model::BladeId,
    observed::{Refusal, RefusalCause},
    policy,
    status::{Millis, RefusedLogin},
};

/// So many strangers are remembered; the one refused longest ago is forgotten for a new one.
const STRANGERS: usize = 64;

/// Refused logins since the agent's start.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    of_blades: BTreeMap<BladeId, RefusedLogin>,
    strangers: BTreeMap<Refusal, RefusedLogin>,
}

impl Refusals {
    /// Returns the blade's last.
    pub(super) fn of(&self, id: BladeId) -> Option<&RefusedLogin> {
        self.of_blades.get(&id)
    }

    /// Returns all: blades' by slot, then strangers', the latest first.
    pub(super) fn all(&self) -> Vec<RefusedLogin> {
        let mut blades: Vec<_> = self.of_blades.values().cloned().collect();
        blades.sort_by_key(|login| (login.slot, login.blade));
        let mut strangers: Vec<_> = self.strangers.values().cloned().collect();
        strangers.sort_by_key(|login| std::cmp::Reverse(login.last));
        blades.extend(strangers);
        blades
    }

    fn note(&mut self, login: RefusedLogin) {
        let known = match login.blade {
            Some(id) => self.of_blades.get(&id).filter(|known| known.refusal == login.refusal),
            None => self.strangers.get(&login.refusal),
        };
        let login = match known {
            Some(known) => RefusedLogin { first: known.first, count: known.count + login.count, ..login },
            None => login,
        };
        match login.blade {
            Some(id) => drop(self.of_blades.insert(id, login)),
            None => {
                self.make_room(&login.refusal);
                self.strangers.insert(login.refusal.clone(), login);
            }
        }
    }

    fn make_room(&mut self, comer: &Refusal) {
        if self.strangers.len() < STRANGERS || self.strangers.contains_key(comer) {
            return;
        }
        let oldest =
            self.strangers.values().min_by_key(|login| login.last).map(|login| login.refusal.clone());
        oldest.into_iter().for_each(|refusal| drop(self.strangers.remove(&refusal)));
    }
}

impl Core {
    pub(super) fn on_refusal(&mut self, refusal: Refusal, count: u64) {
        let now: Millis = self.now();
        let text = sentence(&refusal, count);
        let blade = self.blade_of(&refusal);
        let slot = blade.and_then(|id| self.roster.blades.get(&id)).map(|blade| blade.slot);
        match blade {
            Some(id) => self.tell(EventKind::Security, id, &text),
            None => self.journal.tell(EventKind::Security, &text),
        }
        self.refusals.note(RefusedLogin { slot, blade, refusal, first: now, last: now, count });
    }

    /// Returns the blade that was refused, or whose target refused somebody.
    fn blade_of(&self, refusal: &Refusal) -> Option<BladeId> {
        let target = refusal.target.as_deref();
        // LIO itself compares initiators' names in lower case, and targets' as they are.
        let initiator = refusal.initiator.as_ref().map(|name| name.to_lowercase());
        let is = |wanted: crate::error::Result<crate::model::Iqn>, name: Option<&str>| {
            name.is_some_and(|name| wanted.is_ok_and(|wanted| wanted.as_str() == name))
        };
        let ids = || self.roster.blades.keys().copied();
        let mine = |id: &BladeId| is(policy::initiator_of(&self.config, *id), initiator.as_deref());
        let at_mine = |id: &BladeId| is(policy::target_of(&self.config, *id), target);
        ids().find(mine).or_else(|| ids().find(at_mine))
    }
}

/// Returns the refusal as a line for people.
fn sentence(refusal: &Refusal, count: u64) -> String {
    let Refusal { cause, initiator, target, address, portal } = refusal;
    let word = |word: &str, name: Option<&str>| name.map(|name| format!("{word} '{}'", name.escape_debug()));
    let who = [
        word("initiator", initiator.as_deref()),
        word("target", target.as_deref()),
        word("portal", portal.as_deref()),
        address.map(|ip| format!("from {ip}")),
    ];
    let who: Vec<_> = who.into_iter().flatten().collect();
    let who = if who.is_empty() { String::new() } else { format!(" ({})", who.join(", ")) };
    let times = if count > 1 { format!(", {count} times") } else { String::new() };
    let what = if *cause == RefusalCause::Timeout { "login timed out" } else { "login refused" };
    format!("{what}: {}{who}{times}", cause.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stranger(n: u64) -> RefusedLogin {
        let refusal = Refusal {
            cause: RefusalCause::UnknownTarget,
            initiator: None,
            target: Some(format!("t{n}")),
            address: None,
            portal: None,
        };
        RefusedLogin { slot: None, blade: None, refusal, first: n, last: n, count: 1 }
    }

    #[test]
    fn strangers_are_bounded_and_the_latest_stay() {
        let mut refusals = Refusals::default();
        (0..1000).for_each(|n| refusals.note(stranger(n)));
        let all = refusals.all();
        assert_eq!(
            (all.len(), all[0].last, all[STRANGERS - 1].last),
            (STRANGERS, 999, 1000 - STRANGERS as u64)
        );
    }

    #[test]
    fn the_same_refusal_again_is_counted() {
        let mut refusals = Refusals::default();
        refusals.note(stranger(5));
        refusals.note(RefusedLogin { last: 60, count: 29, ..stranger(5) });
        let all = refusals.all();
        assert_eq!((all.len(), all[0].first, all[0].last, all[0].count), (1, 5, 60, 30));
    }

    #[test]
    fn a_line_says_who_and_why_and_carries_no_control_characters() {
        let refusal = Refusal {
            cause: RefusalCause::NotAdmitted,
            initiator: Some("iqn.x\x1b[2J".into()),
            target: Some("iqn.t".into()),
            address: Some([10, 0, 0, 1].into()),
            portal: None,
        };
        let line = sentence(&refusal, 30);
        assert!(
            line.starts_with("login refused: the target does not admit this initiator (initiator 'iqn.x")
        );
        assert!(line.ends_with(", target 'iqn.t', from 10.0.0.1), 30 times"), "{line}");
        assert!(!line.contains('\x1b'));
        let bare = Refusal { initiator: None, target: None, address: None, ..refusal };
        assert_eq!(sentence(&bare, 1), "login refused: the target does not admit this initiator");
    }
}
