//! The text of an ACL's `info` file, and what it says about the session in it.
//!
//! It is made for people: one session, a few lines of `Label: value`, `No active iSCSI Session` without one. Only the
//! latest session of an initiator is shown; during the hand-over from iPXE to the operating system there are two.

use std::net::IpAddr;

use crate::host::{Session, SessionKind};

/// What `info` says of a session, whatever its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Info {
    initiator: String,
    isid: Vec<u8>,
    id: u32,
    logged_in: bool,
    address: Option<IpAddr>,
}

/// ISIDs of operating systems' initiators: Open-iSCSI (as ESXi's) has a random one of Cisco's OUI, Microsoft's one of its
/// enterprise number. iPXE's is `40 00 27 23` and two random bytes.
const OS_ISIDS: [&[u8]; 2] = [&[0x00, 0x02, 0x3d], &[0x40, 0x00, 0x01, 0x37]];

impl Info {
    /// Returns the session in the text, or `None` where there is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let value = |label| text.lines().find_map(|line| after(line, label));
        let ids = value("LIO Session ID: ")?;
        Some(Self {
            initiator: value("InitiatorName: ")?.to_owned(),
            isid: isid(ids).unwrap_or_default(),
            id: word(ids)?.parse().ok()?,
            logged_in: value("Session State: ") == Some("TARG_SESS_STATE_LOGGED_IN"),
            address: value("Address ").and_then(word).and_then(address),
        })
    }

    /// Returns LIO's id of the session.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Returns the session, where its initiator is logged in: not one that is on its way in or out.
    pub(super) fn session(self) -> Option<Session> {
        // What we do not know counts as firmware: it is left without pings, which an operating system does not mind.
        let os = OS_ISIDS.iter().any(|prefix| self.isid.starts_with(prefix));
        self.logged_in.then_some(Session {
            initiator: self.initiator,
            address: self.address,
            kind: if os { SessionKind::Os } else { SessionKind::Ipxe },
            id: self.id,
        })
    }
}

/// Returns what follows the label at the line's start.
fn after<'a>(line: &'a str, label: &str) -> Option<&'a str> {
    line.trim().strip_prefix(label).map(str::trim)
}

fn word(text: &str) -> Option<&str> {
    text.split_whitespace().next()
}

/// Returns the bytes between `ISID: 0x` and `TSIH:`; the kernel puts a space between each two.
fn isid(line: &str) -> Option<Vec<u8>> {
    let (_, rest) = line.split_once("ISID: 0x")?;
    let (bytes, _) = rest.split_once("TSIH:")?;
    bytes.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).ok()).collect()
}

/// Returns the address, which an IPv6 one has brackets around.
fn address(text: &str) -> Option<IpAddr> {
    text.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Texts as kernels gave them.
#[cfg(test)]
pub(super) mod samples {
    /// No session: Linux 6.1.
    pub(in super::super) const NONE: &str =
        "No active iSCSI Session for Initiator Endpoint: iqn.2026-11.org.x:i\n";
    /// Open-iSCSI 2.1 over loopback: Linux 6.1.
    pub(in super::super) const OPEN_ISCSI: &str = "\
InitiatorName: iqn.2026-11.org.x:i
InitiatorAlias: (none)
LIO Session ID: 1   ISID: 0x00 02 3d 00 00 01  TSIH: 1  SessionType: Normal
Session State: TARG_SESS_STATE_LOGGED_IN
---------------------[iSCSI Session Values]-----------------------
  CmdSN/WR  :  CmdSN/WC  :  ExpCmdSN  :  MaxCmdSN  :     ITT    :     TTT
 0x00000040   0x00000040   0x00000028   0x00000067   0x00000028   0x00000024
----------------------[iSCSI Connections]-------------------------
CID: 0  Connection State: TARG_CONN_STATE_LOGGED_IN
   Address 127.0.0.1 TCP  StatSN: 0xd8ec0cd0
";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_session_is_none() {
        assert_eq!(Info::parse(samples::NONE), None);
        assert_eq!(Info::parse(""), None);
    }

    #[test]
    fn open_iscsis_session_is_an_operating_systems() {
        let session = Info::parse(samples::OPEN_ISCSI).unwrap().session().unwrap();
        let right = Session {
            initiator: "iqn.2026-11.org.x:i".into(),
            address: Some("127.0.0.1".parse().unwrap()),
            kind: SessionKind::Os,
            id: 1,
        };
        assert_eq!(session, right);
    }

    #[test]
    fn every_other_isid_is_firmware() {
        for isid in ["40 00 27 23 8c 1f", "40 00 27 23 00 00", "80 ab cd ef 00 01"] {
            let text = samples::OPEN_ISCSI.replace("00 02 3d 00 00 01", isid);
            assert_eq!(Info::parse(&text).unwrap().session().unwrap().kind, SessionKind::Ipxe, "{isid}");
        }
        let text = samples::OPEN_ISCSI.replace("00 02 3d 00 00 01", "40 00 01 37 00 00");
        assert_eq!(Info::parse(&text).unwrap().session().unwrap().kind, SessionKind::Os);
    }

    #[test]
    fn a_session_on_its_way_is_there_but_not_logged_in() {
        for state in ["TARG_SESS_STATE_FAILED", "TARG_SESS_STATE_ACTIVE", "TARG_SESS_FREE"] {
            let text = samples::OPEN_ISCSI.replace("TARG_SESS_STATE_LOGGED_IN", state);
            assert_eq!(Info::parse(&text).unwrap().session(), None, "{state}");
        }
    }

    #[test]
    fn an_ipv6_address_loses_its_brackets() {
        let text = samples::OPEN_ISCSI.replace("127.0.0.1 TCP", "[fe80::1] TCP");
        let session = Info::parse(&text).unwrap().session().unwrap();
        assert_eq!(session.address, Some("fe80::1".parse().unwrap()));
    }
}
