//! Who is logged in to the blades' targets.
//!
//! LIO tells of no login: configfs can be neither polled nor watched for sessions (measured), and one `info` file costs
//! 0.13 ms. So each served blade's is read once a second, and only changes are told. A read that hangs takes its thread with
//! it: both are left behind, and that blade is not read again before it has come back.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

use crate::{
    host::Host,
    model::{BladeId, Iqn},
    observed::Session,
};

/// The targets to look at: blade, target, initiator.
pub type Served = Arc<Mutex<BTreeMap<BladeId, (Iqn, Iqn)>>>;

/// What a look found.
type Found = BTreeMap<BladeId, Option<Session>>;

/// How often: a boot's moments are told to the second.
const EVERY: Duration = Duration::from_secs(1);
/// How long one read may take. It needs no device and no grace period: one that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many reads may hang, each with its thread; then all sessions wait for one of them to come back.
const LEFT_BEHIND: usize = 32;

/// Tells each change, for as long as `tell` returns true.
pub async fn run(
    host: Arc<dyn Host>,
    served: Served,
    tell: impl Fn(BladeId, Option<Session>) -> bool + Send + 'static,
) {
    let mut known = BTreeMap::new();
    let mut looks = Looks { host, patience: PATIENCE, stuck: BTreeMap::new() };
    let mut clock = tokio::time::interval(EVERY);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        let targets = served.lock().expect("no holder panics").clone();
        for (blade, session) in changes(&mut known, looks.look(targets).await) {
            if !tell(blade, session) {
                return;
            }
        }
    }
}

/// Looks at sessions, and the ones that have not come back, each by the blade whose read hangs.
struct Looks {
    host: Arc<dyn Host>,
    patience: Duration,
    stuck: BTreeMap<BladeId, JoinHandle<()>>,
}

/// A look under way: what it has found, and the blade that it reads.
#[derive(Default)]
struct Look {
    found: Found,
    at: Option<BladeId>,
}

impl Looks {
    /// Reads all sessions. A target that cannot be read keeps what was known of it: it is left out, as is one whose last
    /// read hangs. A stuck target would stop the event loop: files are read on another thread.
    async fn look(&mut self, mut targets: BTreeMap<BladeId, (Iqn, Iqn)>) -> Found {
        self.stuck.retain(|_, look| !look.is_finished());
        if self.stuck.len() >= LEFT_BEHIND {
            return Found::new();
        }
        targets.retain(|blade, _| !self.stuck.contains_key(blade));
        let look = Arc::<Mutex<Look>>::default();
        let (host, shared) = (self.host.clone(), look.clone());
        let mut reading = spawn_blocking(move || read(host.as_ref(), &targets, &shared));
        let mut last = None;
        // As long as it gets on from blade to blade it is slow, not stuck.
        while timeout(self.patience, &mut reading).await.is_err() {
            let at = locked(&look).at;
            if let Some(blade) = at.filter(|_| at == last) {
                self.stuck.insert(blade, reading);
                break;
            }
            last = at;
        }
        std::mem::take(&mut locked(&look).found)
    }
}

fn read(host: &dyn Host, targets: &BTreeMap<BladeId, (Iqn, Iqn)>, look: &Mutex<Look>) {
    for (blade, (target, initiator)) in targets {
        locked(look).at = Some(*blade);
        if let Ok(session) = host.session(target, initiator) {
            locked(look).found.insert(*blade, session);
        }
    }
}

/// Returns what is shared. A look that panicked has found what it has found.
fn locked(look: &Mutex<Look>) -> std::sync::MutexGuard<'_, Look> {
    look.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns what has changed, and remembers it.
fn changes(known: &mut Found, now: Found) -> Vec<(BladeId, Option<Session>)> {
    let changed: Vec<_> =
        now.into_iter().filter(|(blade, session)| known.get(blade).unwrap_or(&None) != session).collect();
    known.extend(changed.iter().cloned());
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        host::sim::{Machine, Sim},
        observed::SessionKind,
        sample,
    };

    /// Returns the targets of these blades.
    fn targets(blades: std::ops::RangeInclusive<u8>) -> BTreeMap<BladeId, (Iqn, Iqn)> {
        let name = |n: u8, what: &str| format!("iqn.2026-11.org.example:{what}-{n}").parse().unwrap();
        blades.map(|n| (sample::blade_id(n), (name(n, "b"), name(n, "i")))).collect()
    }

    #[test]
    fn a_read_that_hangs_holds_up_its_own_blade_only() {
        let host = Arc::new(Sim::new("sheath".parse().unwrap(), Machine::default()));
        host.hang("b-2");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let patience = Duration::from_millis(100);
            let mut looks = Looks { host: host.clone(), patience, stuck: BTreeMap::new() };
            let seen = |found: Found| found.into_keys().collect::<Vec<_>>();
            let [one, two, three] = [1, 2, 3].map(sample::blade_id);
            assert_eq!(seen(looks.look(targets(1..=3)).await), [one], "what it had read by then");
            for _ in 0..3 {
                assert_eq!(seen(looks.look(targets(1..=3)).await), [one, three]);
                assert_eq!(looks.stuck.keys().collect::<Vec<_>>(), [&two], "one thread, not one a second");
            }
            host.resume("b-2");
            while !looks.stuck.values().all(JoinHandle::is_finished) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(seen(looks.look(targets(1..=3)).await), [one, two, three]);
        });
    }

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
