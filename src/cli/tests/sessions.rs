//! Sessions and what they are shown with: samples, and the question before one is closed.

use super::*;

pub(super) fn counters() -> Counters {
    let disk = DiskCounters {
        reads: 20_481,
        read_bytes: 1 << 30,
        writes: 512,
        written_bytes: 5 << 20,
        discards: 3,
        discarded_bytes: 3 << 20,
    };
    Counters { sessions: 2, session_errors: 1, logins: 9, refused_logins: 4, disk: Some(disk) }
}

pub(super) fn sessions() -> Sessions {
    let blade = &blades()[0];
    let of_blade = SessionView {
        slot: Some(blade.slot),
        blade: Some(blade.blade),
        volume: blade.volume,
        target: blade.target.clone().unwrap(),
        ours: true,
        session: blade.session.clone().unwrap(),
        since: Some(NOW - 12_000),
        older: 1,
        counters: blade.counters,
    };
    let foreign = SessionView {
        slot: None,
        blade: None,
        volume: None,
        target: "iqn.2003-01.org.linux-iscsi.x:backup".into(),
        ours: false,
        session: host::Session { kind: SessionKind::Ipxe, address: None, ..of_blade.session.clone() },
        since: None,
        older: 0,
        counters: None,
    };
    let stranger = RefusedLogin { slot: None, blade: None, ..refused(RefusalCause::UnknownTarget) };
    Sessions {
        sessions: vec![of_blade, foreign],
        refused: vec![refused(RefusalCause::WrongPassword), stranger],
    }
}

pub(super) fn refused(cause: RefusalCause) -> RefusedLogin {
    let refusal = Refusal {
        cause,
        initiator: (cause == RefusalCause::WrongPassword)
            .then(|| "iqn.2026-11.internal.sheath:i-525400123456".into()),
        target: Some("iqn.2026-11.internal.sheath:b-525400123456".into()),
        address: Some("10.77.0.130".parse().unwrap()),
        portal: None,
    };
    RefusedLogin {
        slot: Some("1".parse().unwrap()),
        blade: Some("b-525400123456".parse().unwrap()),
        refusal,
        first: NOW - 70_000,
        last: NOW - 10_000,
        count: 31,
    }
}

#[test]
fn a_session_that_is_not_there_is_not_asked_about() {
    let agent = Agent::default();
    let ran = run(&agent, "session drop 2", Some("y\n"));
    assert_eq!(ran.result.unwrap_err().kind(), Kind::Missing);
    let ran = run(&agent, "session drop 1", Some("y\n"));
    assert!(ran.result.is_ok() && ran.err.starts_with(
        "Close the session of 'web1' in slot 1 (b-525400123456; its operating system's I/O waits until it has logged in again)? [y/N] "
    ), "{}", ran.err);
}
