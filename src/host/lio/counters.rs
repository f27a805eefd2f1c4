//! What LIO has counted for a target since it was made: sessions, logins let in and refused, sessions lost.
//!
//! Below `fabric_statistics` of the target. The disk's own counters are `disk::stat`'s: LIO's are in whole MiB.

use super::Lio;
use crate::{
    error::Result,
    host::{
        Counters,
        configfs::{Node, none_if_missing},
    },
    model::Iqn,
};

/// Why logins were refused, by LIO's account. A refused login is in `negotiate_fails` whatever the reason was, and in
/// one of the others beside it.
pub(super) const REFUSED: &str = "iscsi_login_stats/negotiate_fails";
/// How sessions end that nobody ended.
const LOST: [&str; 3] =
    ["iscsi_sess_err/cxn_errors", "iscsi_sess_err/digest_errors", "iscsi_sess_err/format_errors"];

impl Lio {
    /// Returns what LIO has counted for the target; nothing for one that is not there. The disk is left out.
    ///
    /// # Errors
    /// [`Kind::Missing`](crate::error::Kind::Missing) where LIO is not there,
    /// [`Kind::Denied`](crate::error::Kind::Denied) where the target is not ours.
    pub fn counters(&self, target: &Iqn) -> Result<Counters> {
        let counted = self.target_node(target)?.at("fabric_statistics");
        let lost = LOST.iter().map(|file| number(&counted, file)).sum::<Result<u64>>();
        Ok(Counters {
            sessions: u32::try_from(number(&counted, "iscsi_instance/sessions")?).unwrap_or(u32::MAX),
            session_errors: lost?,
            logins: number(&counted, "iscsi_login_stats/accepts")?,
            refused_logins: number(&counted, REFUSED)?,
            disk: None,
        })
    }
}

/// Returns the number in a file; 0 where it is not there.
pub(super) fn number(counted: &Node, file: &str) -> Result<u64> {
    let text = none_if_missing(counted.read(file))?;
    Ok(text.and_then(|text| text.parse().ok()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::{super::fake::Fake, *};

    #[test]
    fn a_target_that_is_not_there_has_counted_nothing() {
        let fake = Fake::new();
        assert_eq!(fake.lio.counters(&Fake::target()).unwrap(), Counters::default());
    }

    #[test]
    fn sessions_logins_and_errors_come_from_their_own_files() {
        let fake = Fake::new();
        let counted = fake.lio.target_node(&Fake::target()).unwrap().at("fabric_statistics");
        for (folder, file, value) in [
            ("iscsi_instance", "sessions", "2\n"),
            ("iscsi_login_stats", "accepts", "7\n"),
            ("iscsi_login_stats", "negotiate_fails", "5\n"),
            ("iscsi_sess_err", "cxn_errors", "3\n"),
            ("iscsi_sess_err", "digest_errors", "1\n"),
            ("iscsi_sess_err", "format_errors", "0\n"),
        ] {
            std::fs::create_dir_all(counted.at(folder).path()).unwrap();
            fake.raw(&counted.at(folder), file, value.as_bytes());
        }
        let right = Counters { sessions: 2, session_errors: 4, logins: 7, refused_logins: 5, disk: None };
        assert_eq!(fake.lio.counters(&Fake::target()).unwrap(), right);
    }
}
