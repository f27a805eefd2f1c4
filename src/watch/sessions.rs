//! Who is logged in to the blades' targets.
//!
//! LIO tells of no login: configfs can be neither polled nor watched for sessions (measured), and one `info` file costs
//! 0.13 ms. So each served blade's is read once a second, and only changes are told.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    host::Host,
    model::{BladeId, Iqn},
    observed::Session,
};

/// The targets to look at: blade, target, initiator.
pub type Served = Arc<Mutex<BTreeMap<BladeId, (Iqn, Iqn)>>>;

/// How often: a boot's moments are told to the second.
const EVERY: Duration = Duration::from_secs(1);

/// Tells each change, for as long as `tell` returns true.
pub async fn run(
    host: Arc<dyn Host>,
    served: Served,
    tell: impl Fn(BladeId, Option<Session>) -> bool + Send + 'static,
) {
    let mut known = BTreeMap::new();
    let mut clock = tokio::time::interval(EVERY);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        let targets = served.lock().expect("no holder panics").clone();
        let host = host.clone();
        // A stuck target would stop the event loop: files are read on another thread.
        let Ok(now) = tokio::task::spawn_blocking(move || look(host.as_ref(), &targets)).await else {
            return;
        };
        for (blade, session) in changes(&mut known, now) {
            if !tell(blade, session) {
                return;
            }
        }
    }
}

/// Reads all sessions. A target that cannot be read keeps what was known of it: it is left out.
fn look(host: &dyn Host, targets: &BTreeMap<BladeId, (Iqn, Iqn)>) -> BTreeMap<BladeId, Option<Session>> {
    let read = |(blade, (target, initiator)): (&BladeId, &(Iqn, Iqn))| {
        Some((*blade, host.session(target, initiator).ok()?))
    };
    targets.iter().filter_map(read).collect()
}

/// Returns what has changed, and remembers it.
fn changes(
    known: &mut BTreeMap<BladeId, Option<Session>>,
    now: BTreeMap<BladeId, Option<Session>>,
) -> Vec<(BladeId, Option<Session>)> {
    let changed: Vec<_> =
        now.into_iter().filter(|(blade, session)| known.get(blade).unwrap_or(&None) != session).collect();
    known.extend(changed.iter().cloned());
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{observed::SessionKind, sample};

    #[test]
    fn only_changes_are_told() {
        let session = Some(Session { initiator: "i".into(), address: None, kind: SessionKind::Ipxe, id: 1 });
        let mut known = BTreeMap::new();
        let blade = sample::blade_id(1);
        assert_eq!(changes(&mut known, [(blade, None)].into()), []);
        assert_eq!(changes(&mut known, [(blade, session.clone())].into()), [(blade, session.clone())]);
        assert_eq!(changes(&mut known, [(blade, session)].into()), []);
        assert_eq!(changes(&mut known, BTreeMap::new()), []);
        assert_eq!(changes(&mut known, [(blade, None)].into()), [(blade, None)]);
    }
}
