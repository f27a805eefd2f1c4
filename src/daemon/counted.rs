//! Adds to an answer what the kernel has counted, on its way out.
//!
//! Counters change all the time and are only read when somebody looks. That is done here, beside the line and its lanes:
//! `sheath blades` must answer at once also while all lanes are at work.

use std::collections::BTreeMap;

use crate::{
    control::api::Reply,
    error::Result,
    host::Host,
    model::{ImageId, LvName, VolumeId},
    observed::{Counters, Space, TargetSummary},
    status::{SessionView, Sessions},
};

/// Returns the answer with what was counted for each blade, and with the sessions of targets that are no blade's.
///
/// # Errors
/// The list of targets cannot be read.
pub(super) fn add(host: &dyn Host, reply: Reply) -> Result<Reply> {
    match reply {
        Reply::Blades(mut blades) => {
            for blade in &mut blades {
                blade.counters =
                    blade.target.as_deref().zip(blade.volume).and_then(|(t, v)| counters(host, t, v));
            }
            Ok(Reply::Blades(blades))
        }
        Reply::Sessions(sessions) => sessions_of_all(host, sessions).map(Reply::Sessions),
        other => Ok(other),
    }
}

/// Returns the answer with how much of the pool each image takes, or with why that is not known.
pub(super) fn with_space(mut reply: Reply, space: Result<BTreeMap<LvName, Space>>) -> Reply {
    let space = space.inspect_err(|e| log::warn!("the space of images is not shown: {}", e.chain()));
    let of = |image: &ImageId| space.as_ref().ok().and_then(|all| all.get(&image.lv_name()).copied());
    match &mut reply {
        Reply::Images(images) => images.iter_mut().for_each(|view| view.space = of(&view.image)),
        Reply::Image(detail) => {
            detail.view.space = of(&detail.view.image);
            detail.space_unknown = space.err().map(|error| error.chain());
        }
        _ => {}
    }
    reply
}

fn counters(host: &dyn Host, target: &str, volume: VolumeId) -> Option<Counters> {
    let counted = target.parse().and_then(|target| host.counters(&target, volume));
    counted.inspect_err(|e| log::debug!("counters of '{target}' are not shown: {}", e.chain())).ok()
}

fn sessions_of_all(host: &dyn Host, mut all: Sessions) -> Result<Sessions> {
    for view in &mut all.sessions {
        view.counters = view.volume.and_then(|volume| counters(host, &view.target, volume));
        view.older = view.counters.map_or(0, |counters| counters.sessions.saturating_sub(1));
    }
    let targets = host.targets()?;
    let others = targets.iter().filter(|found| !all.sessions.iter().any(|view| view.target == found.target));
    let others: Vec<_> = others.flat_map(sessions_of).collect();
    all.sessions.extend(others);
    Ok(all)
}

/// Returns the sessions of a target that is no blade's.
fn sessions_of(found: &TargetSummary) -> impl Iterator<Item = SessionView> + '_ {
    found.sessions.iter().map(|session| SessionView {
        slot: None,
        blade: None,
        volume: None,
        target: found.target.clone(),
        ours: found.ours,
        session: session.clone(),
        since: None,
        older: 0,
        counters: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::Kind,
        host::{
            AuthState, DiskCounters, MapState, ObservedAcl, ObservedTarget, Session, SessionKind,
            sim::{Machine, Sim},
        },
    };

    const DISK: VolumeId = VolumeId(7);

    fn target(session: u32) -> ObservedTarget {
        let session = Session { initiator: "i".into(), address: None, kind: SessionKind::Os, id: session };
        let acl = ObservedAcl {
            auth: AuthState::OneWay,
            map: MapState::Mapped,
            nopin_timeout: 15,
            session: Some(session),
        };
        let acls = [("i".to_owned(), acl.clone()), ("j".to_owned(), acl)].into();
        ObservedTarget {
            enabled: true,
            profile: true,
            lun: None,
            acls,
            portals: Default::default(),
            strays: Default::default(),
        }
    }

    #[test]
    fn a_blades_session_gets_its_counters_and_a_foreign_one_is_listed_without() {
        let machine = Machine {
            targets: [
                ("iqn.2026-11.org.example:b".parse().unwrap(), target(1)),
                ("iqn.2026-11.org.foreign:x".parse().unwrap(), target(2)),
            ]
            .into(),
            counted: [(DISK, DiskCounters { reads: 3, ..DiskCounters::default() })].into(),
            ..Machine::default()
        };
        let host = Sim::new("sheath".parse().unwrap(), machine);
        let ours = sessions_of(&host.targets().unwrap()[0]).next().unwrap();
        let ours = SessionView { volume: Some(DISK), ours: true, ..ours };
        let all = add(&host, Reply::Sessions(Sessions { sessions: vec![ours], refused: vec![] })).unwrap();
        let Reply::Sessions(Sessions { sessions, .. }) = all else { panic!("another answer") };
        assert_eq!(sessions[0].counters.unwrap().disk.unwrap().reads, 3);
        assert_eq!(sessions[0].older, 1, "LIO shows one of the target's two");
        assert_eq!(sessions.len(), 3);
        assert!(
            sessions[1..]
                .iter()
                .all(|view| view.target == "iqn.2026-11.org.foreign:x" && view.counters.is_none())
        );
    }

    #[test]
    fn other_answers_go_out_as_they_are() {
        let host = Sim::new("sheath".parse().unwrap(), Machine::default());
        let error = crate::error::Error::new(Kind::Failed, "x");
        for reply in [Reply::Images(vec![]), Reply::Accepted { message: error.to_string() }] {
            assert_eq!(add(&host, reply.clone()).unwrap(), reply);
        }
    }
}
