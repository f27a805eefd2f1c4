//! The lines of some refused logins, until they have settled: lines of several logins come mixed.
//!
//! So nothing depends on their order: causes are counted, and what one line takes back from another is subtracted. What
//! a line still owes when they settle (its login's end comes later) is carried over.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{host::lio::Hint, observed::RefusalCause};

/// A cause, and the name that its line told.
pub(super) type Cause = (RefusalCause, Option<String>);

/// Lines that wait to be told.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    causes: BTreeMap<Cause, u64>,
    /// "CHAP failed" lines, less those that follow from a cause that was told.
    chap: i64,
    /// "Negotiation failed" lines, less those that follow from a cause that was told.
    ends: i64,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Gathered {
    /// Notes what a line says.
    pub(super) fn add(&mut self, hint: Hint) {
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.last = Some(now);
        match hint {
            Hint::End => self.ends += 1,
            Hint::Chap => self.chap += 1,
            Hint::Cause(cause, name) => {
                *self.causes.entry((cause, name)).or_default() += 1;
                self.ends -= 1;
                if matches!(cause, RefusalCause::WrongUser | RefusalCause::NoCredentials) {
                    self.chap -= 1;
                }
            }
        }
    }

    /// Returns when the lines count as settled; `None` where there are none.
    pub(super) fn settled(&self, quiet: Duration, patience: Duration) -> Option<Instant> {
        Some((self.last? + quiet).min(self.first? + patience))
    }

    /// Returns the causes with how often each was, and begins anew.
    pub(super) fn take(&mut self) -> BTreeMap<Cause, u64> {
        (self.first, self.last) = (None, None);
        let mut causes = std::mem::take(&mut self.causes);
        self.ends += i64::try_from(drop_echoes(&mut causes)).expect("a handful");
        let mut add = |cause, balance: &mut i64| {
            let more = u64::try_from(*balance).unwrap_or_default();
            if more > 0 {
                *causes.entry((cause, None)).or_default() += more;
            }
            // Owed lines are carried over; what was told is not.
            *balance = (*balance).min(0);
            more
        };
        let passwords = add(RefusalCause::WrongPassword, &mut self.chap);
        self.ends -= i64::try_from(passwords).expect("a handful");
        add(RefusalCause::Negotiation, &mut self.ends);
        causes
    }
}

/// Takes away what some kernels say twice: that a login timed out at a portal, and that it timed out. Returns how often.
fn drop_echoes(causes: &mut BTreeMap<Cause, u64>) -> u64 {
    let timed_out = |cause: &Cause| cause.0 == RefusalCause::Timeout && cause.1.is_some();
    let named: u64 = causes.iter().filter(|(cause, _)| timed_out(cause)).map(|(_, count)| count).sum();
    let anonymous = (RefusalCause::Timeout, None);
    let echoes = causes.get(&anonymous).map_or(0, |count| named.min(*count));
    if let Some(count) = causes.get_mut(&anonymous) {
        *count -= echoes;
    }
    causes.retain(|_, count| *count > 0);
    echoes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(lines: &[&str]) -> BTreeMap<Cause, u64> {
        let mut all = Gathered::default();
        lines.iter().filter_map(|line| Hint::of(line)).for_each(|hint| all.add(hint));
        all.take()
    }

    const END: &str = "iSCSI Login negotiation failed.";
    const CHAP: &str = "Security negotiation failed.";
    const USER: &str = "CHAP_N values do not match!";
    const STRANGER: &str =
        "iSCSI Initiator Node: iqn.x:s is not authorized to access iSCSI target portal group: 1.";

    #[test]
    fn each_login_is_told_once_with_its_most_exact_cause() {
        for (lines, right) in [
            (&[CHAP, END][..], (RefusalCause::WrongPassword, None)),
            (&[USER, CHAP, END], (RefusalCause::WrongUser, None)),
            (
                &["CHAP user or password not set for Initiator ACL", CHAP, END],
                (RefusalCause::NoCredentials, None),
            ),
            (&[STRANGER, END], (RefusalCause::NotAdmitted, Some("iqn.x:s".to_owned()))),
            (&[END], (RefusalCause::Negotiation, None)),
        ] {
            assert_eq!(gathered(lines), [(right, 1)].into(), "{lines:?}");
        }
    }

    #[test]
    fn a_login_that_timed_out_is_one_whether_the_kernel_says_so_once_or_twice() {
        let portal = "iSCSI Login timeout on Network Portal 10.77.0.1:3260";
        let interrupted = "rx_data returned -512, expecting 48.";
        let named = (RefusalCause::Timeout, Some("10.77.0.1:3260".to_owned()));
        assert_eq!(gathered(&[portal, interrupted, END]), [(named.clone(), 1)].into());
        assert_eq!(gathered(&[portal, END]), [(named, 1)].into());
        assert_eq!(gathered(&[interrupted, END]), [((RefusalCause::Timeout, None), 1)].into());
    }

    #[test]
    fn mixed_lines_of_several_logins_come_out_the_same_in_any_order() {
        let lines = [USER, CHAP, END, STRANGER, END, CHAP, END, STRANGER, END];
        let mut turned = lines;
        turned.reverse();
        let right = BTreeMap::from([
            ((RefusalCause::NotAdmitted, Some("iqn.x:s".to_owned())), 2),
            ((RefusalCause::WrongUser, None), 1),
            ((RefusalCause::WrongPassword, None), 1),
        ]);
        assert_eq!(gathered(&lines), right);
        assert_eq!(gathered(&turned), right);
    }

    #[test]
    fn an_end_that_comes_later_is_not_another_login() {
        let mut all = Gathered::default();
        Hint::of(STRANGER).into_iter().for_each(|hint| all.add(hint));
        assert_eq!(all.take().len(), 1);
        assert_eq!(all.settled(Duration::ZERO, Duration::ZERO), None);
        Hint::of(END).into_iter().for_each(|hint| all.add(hint));
        assert!(all.take().is_empty());
        Hint::of(END).into_iter().for_each(|hint| all.add(hint));
        assert_eq!(all.take().len(), 1, "that one is");
    }

    #[test]
    fn lines_settle_when_it_is_quiet_or_patience_ends() {
        let mut all = Gathered::default();
        assert_eq!(all.settled(Duration::from_secs(1), Duration::from_secs(9)), None);
        all.add(Hint::End);
        let (quiet, patience) = (Duration::from_secs(1), Duration::from_secs(9));
        assert_eq!(all.settled(quiet, patience), all.last.map(|at| at + quiet));
        assert_eq!(all.settled(patience, quiet), all.first.map(|at| at + quiet));
    }
}
