//! Refusals that come again and again: told once, then counted, told again once a minute.

use std::{collections::BTreeMap, time::Instant};

use super::EVERY;
use crate::observed::Refusal;

/// So many different refusals are remembered; the one that was told longest ago is forgotten for a new one.
const MOST: usize = 64;

/// Which refusals were told when, and how often they came since.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    told: BTreeMap<Refusal, (Instant, u64)>,
}

impl Repeats {
    /// Notes that a refusal came so many times. Returns it with its number where it is to be told now.
    pub(super) fn again(&mut self, refusal: Refusal, count: u64, now: Instant) -> Option<(Refusal, u64)> {
        if let Some((_, more)) = self.told.get_mut(&refusal) {
            *more += count;
            return None;
        }
        self.forget_one();
        self.told.insert(refusal.clone(), (now, 0));
        Some((refusal, count))
    }

    /// Returns the refusals that came again and were told long enough ago. What did not come again is forgotten.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(Refusal, u64)> {
        let mut due = vec![];
        self.told.retain(|refusal, (at, more)| {
            if now.saturating_duration_since(*at) < EVERY {
                return true;
            }
            let again = *more > 0;
            if again {
                due.push((refusal.clone(), *more));
                (*at, *more) = (now, 0);
            }
            again
        });
        due
    }

    fn forget_one(&mut self) {
        if self.told.len() < MOST {
            return;
        }
        let oldest = self.told.iter().min_by_key(|(_, (at, _))| *at).map(|(refusal, _)| refusal.clone());
        if let Some(refusal) = oldest {
            self.told.remove(&refusal);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observed::RefusalCause;

    fn refusal(initiator: &str) -> Refusal {
        let initiator = Some(initiator.to_owned());
        Refusal { cause: RefusalCause::NotAdmitted, initiator, target: None, address: None, portal: None }
    }

    #[test]
    fn a_blade_that_tries_again_is_told_once_and_then_as_a_number_each_minute() {
        let (mut repeats, begin) = (Repeats::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(repeats.again(refusal("a"), 1, at(0)), Some((refusal("a"), 1)));
        for second in (2..60).step_by(2) {
            assert_eq!(repeats.again(refusal("a"), 1, at(second)), None);
        }
        assert_eq!(repeats.again(refusal("b"), 1, at(59)), Some((refusal("b"), 1)));
        assert_eq!(repeats.due(at(59)), []);
        assert_eq!(repeats.due(at(60)), [(refusal("a"), 29)]);
        assert_eq!(repeats.due(at(119)), [], "nothing came");
        assert_eq!(repeats.due(at(120)), []);
        assert_eq!(
            repeats.again(refusal("a"), 1, at(121)),
            Some((refusal("a"), 1)),
            "quiet for long: news again"
        );
    }

    #[test]
    fn a_flood_of_strangers_does_not_fill_the_memory() {
        let (mut repeats, begin) = (Repeats::default(), Instant::now());
        for n in 0..1000_u64 {
            repeats.again(refusal(&n.to_string()), 1, begin + Duration::from_millis(n));
        }
        assert_eq!(repeats.told.len(), MOST);
        assert!(repeats.told.contains_key(&refusal("999")) && !repeats.told.contains_key(&refusal("0")));
    }
}
