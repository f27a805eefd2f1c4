//! Whose logins were refused: the served targets' own counters, beside what the log's lines tell.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::gathered::Cause;
use crate::{
    host::Host,
    model::Iqn,
    observed::{LoginFailures, Refusal, RefusalCause},
};

/// What the targets had counted at the last look.
#[derive(Debug, Default)]
pub(super) struct Whose {
    seen: BTreeMap<Iqn, LoginFailures>,
}

/// In which of LIO's counters a refused login is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counter {
    Unauthorised,
    Unauthenticated,
    Other,
}

/// A target that has refused somebody since the last look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Risen {
    target: String,
    initiator: Option<String>,
    address: Option<IpAddr>,
    counter: Counter,
}

impl Whose {
    /// Returns whether the target was looked at before.
    pub(super) fn knows(&self, target: &Iqn) -> bool {
        self.seen.contains_key(target)
    }

    /// Forgets all other targets.
    pub(super) fn keep(&mut self, which: &BTreeSet<&Iqn>) {
        self.seen.retain(|target, _| which.contains(target));
    }

    /// Looks at all targets: one file each, and some more for those that have refused somebody.
    pub(super) fn look(&mut self, host: &dyn Host, targets: &[Iqn]) -> Vec<Risen> {
        targets.iter().filter_map(|target| self.look_at(host, target)).collect()
    }

    fn look_at(&mut self, host: &dyn Host, target: &Iqn) -> Option<Risen> {
        let before = self.seen.entry(target.clone()).or_default().clone();
        // A target that cannot be read now is looked at the next time.
        let now = host.login_failures(target, before.refused).ok()??;
        let counter = match &now {
            now if now.unauthorised > before.unauthorised => Counter::Unauthorised,
            now if now.unauthenticated > before.unauthenticated => Counter::Unauthenticated,
            _ => Counter::Other,
        };
        let (initiator, address) = (now.initiator.clone(), now.address);
        // A target that was made anew counts from nothing.
        let risen = now.refused > before.refused;
        self.seen.insert(target.clone(), now);
        risen.then(|| Risen { target: target.to_string(), initiator, address, counter })
    }
}

impl Counter {
    /// Returns where LIO counts a login that was refused for this cause; `None` where it does not.
    fn of(cause: RefusalCause) -> Option<Self> {
        use RefusalCause as C;
        match cause {
            C::UnknownTarget | C::Disabled | C::Timeout => None,
            C::NotAdmitted => Some(Self::Unauthorised),
            C::WrongUser | C::WrongPassword | C::NoChap | C::NoCredentials | C::Chap => {
                Some(Self::Unauthenticated)
            }
            C::Negotiation => Some(Self::Other),
        }
    }
}

/// Returns the refused logins with as much as is certain of who they were, and how often each was.
pub(super) fn attribute(causes: BTreeMap<Cause, u64>, risen: Vec<Risen>) -> Vec<(Refusal, u64)> {
    let (counted, named): (Vec<_>, Vec<_>) =
        causes.into_iter().partition(|((cause, _), _)| Counter::of(*cause).is_some());
    let mut refusals: Vec<_> = named.into_iter().map(|(cause, count)| (plain(cause), count)).collect();
    for counter in [Counter::Unauthorised, Counter::Unauthenticated, Counter::Other] {
        let of = |cause: &Cause| Counter::of(cause.0) == Some(counter);
        let causes: Vec<_> = counted.iter().filter(|(cause, _)| of(cause)).cloned().collect();
        let risen: Vec<_> = risen.iter().filter(|risen| risen.counter == counter).collect();
        refusals.extend(join(causes, &risen));
    }
    refusals
}

/// Joins causes and targets of one counter. With several of both, which belongs to which cannot be known.
fn join(causes: Vec<(Cause, u64)>, risen: &[&Risen]) -> Vec<(Refusal, u64)> {
    match (causes.as_slice(), risen) {
        ([], _) => vec![],
        // Somebody came and went, without a name, a target or a cause: nothing that anybody could act upon.
        ([((RefusalCause::Negotiation, None), _)], []) => vec![],
        (_, [one]) => causes.into_iter().map(|(cause, count)| (at(cause, one), count)).collect(),
        (_, []) => causes.into_iter().map(|(cause, count)| (plain(cause), count)).collect(),
        ([(cause, count)], several) => {
            let share = (count / several.len() as u64).max(1);
            several.iter().map(|risen| (at(cause.clone(), risen), share)).collect()
        }
        (several, _) if several.iter().any(|((_, name), _)| name.is_some()) => {
            causes.into_iter().map(|(cause, count)| (plain(cause), count)).collect()
        }
        (_, targets) => targets.iter().map(|risen| (at((RefusalCause::Chap, None), risen), 1)).collect(),
    }
}

/// Returns a refusal of which nothing is known but its line.
fn plain((cause, name): Cause) -> Refusal {
    let none = Refusal { cause, initiator: None, target: None, address: None, portal: None };
    match cause {
        RefusalCause::UnknownTarget | RefusalCause::Disabled => Refusal { target: name, ..none },
        RefusalCause::Timeout => Refusal { portal: name, ..none },
        _ => Refusal { initiator: name, ..none },
    }
}

fn at(cause: Cause, risen: &Risen) -> Refusal {
    let plain = plain(cause);
    let initiator = plain.initiator.or_else(|| risen.initiator.clone());
    Refusal { initiator, target: Some(risen.target.clone()), address: risen.address, ..plain }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::sim::{Machine, Sim};

    const T1: &str = "iqn.2026-11.org.example:t1";
    const T2: &str = "iqn.2026-11.org.example:t2";

    fn risen(target: &str, counter: Counter) -> Risen {
        let initiator = (counter != Counter::Unauthorised).then(|| format!("{target}-i"));
        Risen { target: target.into(), initiator, address: Some([10, 0, 0, 1].into()), counter }
    }

    fn told(causes: &[(RefusalCause, Option<&str>, u64)], risen: &[Risen]) -> Vec<String> {
        let causes = causes.iter().map(|(cause, name, n)| ((*cause, name.map(str::to_owned)), *n)).collect();
        let line = |(refusal, count): (Refusal, u64)| {
            let or = |text: Option<String>| text.unwrap_or_else(|| "?".into());
            let target = refusal.target.map(|target| target.replace("iqn.2026-11.org.example:", ""));
            let initiator = refusal.initiator.map(|name| name.replace("iqn.2026-11.org.example:", ""));
            format!("{count} {:?} {} {}", refusal.cause, or(initiator), or(target))
        };
        attribute(causes, risen.to_vec()).into_iter().map(line).collect()
    }

    #[test]
    fn what_a_line_leaves_out_comes_from_the_target_that_counted() {
        use RefusalCause as C;
        let of = [risen(T1, Counter::Unauthenticated), risen(T2, Counter::Unauthorised)];
        let causes =
            [(C::WrongPassword, None, 2), (C::NotAdmitted, Some("s"), 1), (C::UnknownTarget, Some("x"), 3)];
        assert_eq!(
            told(&causes, &of),
            ["3 UnknownTarget ? x", "1 NotAdmitted s t2", "2 WrongPassword t1-i t1"]
        );
    }

    #[test]
    fn a_login_at_a_target_that_is_not_ours_keeps_what_its_line_says() {
        use RefusalCause as C;
        assert_eq!(told(&[(C::WrongUser, None, 1)], &[]), ["1 WrongUser ? ?"]);
        assert_eq!(told(&[(C::NotAdmitted, Some("s"), 1)], &[]), ["1 NotAdmitted s ?"]);
        assert!(told(&[(C::Negotiation, None, 1)], &[]).is_empty(), "nothing is known of it");
        let other = [risen(T1, Counter::Other)];
        assert_eq!(told(&[(C::Negotiation, None, 1)], &other), ["1 Negotiation t1-i t1"]);
        assert_eq!(told(&[(C::NotAdmitted, Some("s"), 1)], &other), ["1 NotAdmitted s ?"]);
    }

    #[test]
    fn what_cannot_be_told_apart_is_not_guessed() {
        use RefusalCause as C;
        let chap = [risen(T1, Counter::Unauthenticated), risen(T2, Counter::Unauthenticated)];
        let both = [(C::WrongUser, None, 1), (C::WrongPassword, None, 1)];
        assert_eq!(told(&both, &chap), ["1 Chap t1-i t1", "1 Chap t2-i t2"]);
        assert_eq!(told(&[(C::NoChap, None, 2)], &chap), ["1 NoChap t1-i t1", "1 NoChap t2-i t2"]);
        let strangers = [(C::NotAdmitted, Some("a"), 1), (C::NotAdmitted, Some("b"), 1)];
        let acls = [risen(T1, Counter::Unauthorised), risen(T2, Counter::Unauthorised)];
        assert_eq!(told(&strangers, &acls), ["1 NotAdmitted a ?", "1 NotAdmitted b ?"]);
    }

    #[test]
    fn only_what_was_counted_since_the_last_look_has_risen() {
        let target: Iqn = T1.parse().unwrap();
        let host = Sim::new("sheath".parse().unwrap(), Machine::default());
        let mut whose = Whose::default();
        let mut count = |refused, unauthenticated| {
            host.meddle(|machine| {
                let failures = LoginFailures { refused, unauthenticated, ..LoginFailures::default() };
                machine.refused.insert(target.clone(), failures);
            });
            whose
                .look(&host, std::slice::from_ref(&target))
                .iter()
                .map(|risen| risen.counter)
                .collect::<Vec<_>>()
        };
        assert_eq!(count(3, 1), [Counter::Unauthenticated]);
        assert_eq!(count(3, 1), []);
        assert_eq!(count(4, 1), [Counter::Other]);
        assert_eq!(count(1, 1), [], "made anew");
        assert_eq!(count(2, 2), [Counter::Unauthenticated]);
        assert!(whose.knows(&target));
        whose.keep(&BTreeSet::new());
        assert!(!whose.knows(&target), "gone, forgotten");
    }
}
