//! What LIO's lines in the kernel log say of refused logins.
//!
//! The texts are those of Linux 6.1 and 6.12 (`iscsi_target_{nego,login,auth}.c`), each seen. Few of them say who was
//! refused where: LIO's counters ([`Lio::login_failures`]) know the target, and often the initiator. Each attempt ends
//! with [`Hint::End`], whatever came before it.

use super::{Lio, counters::number};
use crate::{
    error::Result,
    host::{LoginFailures, RefusalCause, configfs::none_if_missing},
    model::Iqn,
};

/// The end of every refused login.
const END: &str = "iSCSI Login negotiation failed.";
/// CHAP failed; why may have been said before.
const CHAP: &str = "Security negotiation failed.";
/// What LIO says where it does not know the initiator's name.
const NOBODY: [&str; 3] = ["", "None", "Unknown"];

/// Lines that name nobody, by how they begin.
const ANONYMOUS: [(&str, RefusalCause); 5] = [
    ("CHAP_N values do not match", RefusalCause::WrongUser),
    ("CHAP user or password not set for Initiator ACL", RefusalCause::NoCredentials),
    ("Initiator is requesting CSG: 1, has not been successfully authenticated", RefusalCause::NoChap),
    ("Initiator sent AuthMethod=None but Target is enforcing", RefusalCause::NoChap),
    // ERESTARTSYS: the timer has interrupted the wait for the first request. All that Linux 6.12 says of it.
    ("rx_data returned -512, expecting 48.", RefusalCause::Timeout),
];

/// Lines with a name between two texts.
const NAMED: [(&str, &str, RefusalCause); 4] = [
    ("Unable to locate Target IQN: ", " in Storage Node", RefusalCause::UnknownTarget),
    ("Unable to locate Target Portal Group on ", "", RefusalCause::Disabled),
    (
        "iSCSI Initiator Node: ",
        " is not authorized to access iSCSI target portal group",
        RefusalCause::NotAdmitted,
    ),
    ("iSCSI Login timeout on Network Portal ", "", RefusalCause::Timeout),
];

/// What one line says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hint {
    /// A login was refused for this cause, with the target, initiator or portal that the line names.
    Cause(RefusalCause, Option<String>),
    /// CHAP failed: with another password, unless a cause was told as well.
    Chap,
    /// A refused login has ended.
    End,
}

impl Hint {
    /// Returns what the line says of a refused login, if anything.
    pub fn of(text: &str) -> Option<Self> {
        let named = NAMED.iter().find_map(|(before, after, cause)| {
            let rest = text.strip_prefix(before)?;
            let name = if after.is_empty() { rest } else { &rest[..rest.rfind(after)?] };
            Some(Self::Cause(*cause, Some(name.to_owned())))
        });
        let anonymous = || {
            let row = ANONYMOUS.iter().find(|(begin, _)| text.starts_with(begin))?;
            Some(Self::Cause(row.1, None))
        };
        match text {
            END => Some(Self::End),
            CHAP => Some(Self::Chap),
            _ => named.or_else(anonymous),
        }
    }
}

impl Lio {
    /// Returns what LIO has counted of refused logins to the target, and who the last of them was; `None` where the count
    /// is `known`. Reads one file then, else six.
    ///
    /// # Errors
    /// As [`Lio::counters`].
    pub fn login_failures(&self, target: &Iqn, known: u64) -> Result<Option<LoginFailures>> {
        let counted = self.target_node(target)?.at("fabric_statistics");
        let refused = number(&counted, super::counters::REFUSED)?;
        if refused == known {
            return Ok(None);
        }
        let text =
            |file| Ok(none_if_missing(counted.read(file))?.filter(|text| !NOBODY.contains(&text.as_str())));
        Ok(Some(LoginFailures {
            refused,
            unauthorised: number(&counted, "iscsi_login_stats/authorize_fails")?,
            unauthenticated: number(&counted, "iscsi_login_stats/authenticate_fails")?,
            initiator: text("iscsi_tgt_attr/fail_intr_name")?,
            address: text("iscsi_tgt_attr/fail_intr_addr")?.and_then(|text| text.parse().ok()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fake::Fake, *};

    #[test]
    fn every_line_of_a_refused_login_is_understood() {
        let named = |cause, name: &str| Some(Hint::Cause(cause, Some(name.to_owned())));
        let cause = |cause| Some(Hint::Cause(cause, None));
        for (line, hint) in [
            (
                "Unable to locate Target IQN: iqn.2026-11.org.x:nope in Storage Node",
                named(RefusalCause::UnknownTarget, "iqn.2026-11.org.x:nope"),
            ),
            (
                "Unable to locate Target Portal Group on iqn.2026-11.org.x:t",
                named(RefusalCause::Disabled, "iqn.2026-11.org.x:t"),
            ),
            (
                "iSCSI Initiator Node: iqn.2026-11.org.x:stranger is not authorized to access iSCSI target portal group: 1.",
                named(RefusalCause::NotAdmitted, "iqn.2026-11.org.x:stranger"),
            ),
            ("CHAP_N values do not match!", cause(RefusalCause::WrongUser)),
            ("Security negotiation failed.", Some(Hint::Chap)),
            ("CHAP user or password not set for Initiator ACL", cause(RefusalCause::NoCredentials)),
            (
                "Initiator is requesting CSG: 1, has not been successfully authenticated, and the Target is enforcing iSCSI Authentication, login failed.",
                cause(RefusalCause::NoChap),
            ),
            (
                "iSCSI Login timeout on Network Portal 10.77.0.1:3260",
                named(RefusalCause::Timeout, "10.77.0.1:3260"),
            ),
            ("rx_data returned -512, expecting 48.", cause(RefusalCause::Timeout)),
            ("iSCSI Login negotiation failed.", Some(Hint::End)),
            ("rx_data returned -104, expecting 48.", None),
            ("kernel_bind() failed: -98", None),
            ("", None),
        ] {
            assert_eq!(Hint::of(line), hint, "{line}");
        }
    }

    #[test]
    fn a_name_that_holds_the_kernels_own_words_stays_whole() {
        let line = "Unable to locate Target IQN: x in Storage Node in Storage Node";
        let whole = Hint::Cause(RefusalCause::UnknownTarget, Some("x in Storage Node".into()));
        assert_eq!(Hint::of(line), Some(whole));
    }

    #[test]
    fn the_last_refused_initiator_is_told_only_where_the_count_has_moved() {
        let fake = Fake::new();
        let failures = |known| fake.lio.login_failures(&Fake::target(), known).unwrap();
        assert_eq!(failures(0), None, "no target, none refused");
        let counted = fake.lio.target_node(&Fake::target()).unwrap().at("fabric_statistics");
        for (folder, file, value) in [
            ("iscsi_login_stats", "negotiate_fails", "5"),
            ("iscsi_login_stats", "authorize_fails", "1"),
            ("iscsi_login_stats", "authenticate_fails", "3"),
            ("iscsi_tgt_attr", "fail_intr_name", "iqn.2026-11.org.x:i"),
            ("iscsi_tgt_attr", "fail_intr_addr", "10.77.0.101"),
        ] {
            std::fs::create_dir_all(counted.at(folder).path()).unwrap();
            fake.raw(&counted.at(folder), file, format!("{value}\n").as_bytes());
        }
        let seen = failures(4).unwrap();
        assert_eq!((seen.refused, seen.unauthorised, seen.unauthenticated), (5, 1, 3));
        assert_eq!(seen.initiator.as_deref(), Some("iqn.2026-11.org.x:i"));
        assert_eq!(seen.address, Some("10.77.0.101".parse().unwrap()));
        assert_eq!(failures(5), None);
        fake.raw(&counted.at("iscsi_tgt_attr"), "fail_intr_name", b"Unknown\n");
        fake.raw(&counted.at("iscsi_tgt_attr"), "fail_intr_addr", b"(einval)\n");
        let seen = failures(4).unwrap();
        assert_eq!((seen.initiator, seen.address), (None, None));
    }
}
