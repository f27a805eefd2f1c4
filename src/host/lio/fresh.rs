//! What was made a moment ago, and need not be read back.
//!
//! LIO gives a new object its defaults, and a plan's steps run one right after the other. So what a step wrote to an object
//! that it had just made is still there when the next step of the same plan comes. A mark says so; it is taken by the one
//! step that would have to look, and observing the blade, which each plan begins with, takes both away.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::model::{Iqn, VolumeId};

/// Marks of what was made since its blade was last observed.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    backstores: Mutex<BTreeSet<VolumeId>>,
    targets: Mutex<BTreeSet<Iqn>>,
}

impl Fresh {
    /// Notes a backstore that nothing exports yet.
    pub(super) fn made_backstore(&self, volume: VolumeId) {
        held(&self.backstores).insert(volume);
    }

    /// Notes a target whose TPG has our profile.
    pub(super) fn made_target(&self, target: &Iqn) {
        held(&self.targets).insert(target.clone());
    }

    /// Returns whether the backstore is known to be exported by nobody, once.
    pub(super) fn take_backstore(&self, volume: VolumeId) -> bool {
        held(&self.backstores).remove(&volume)
    }

    /// Returns whether the TPG is known to have our profile, once.
    pub(super) fn take_target(&self, target: &Iqn) -> bool {
        held(&self.targets).remove(target)
    }

    /// Forgets both: whoever plans anew looks.
    pub(super) fn forget(&self, target: &Iqn, volume: VolumeId) {
        self.take_backstore(volume);
        self.take_target(target);
    }
}

fn held<T>(set: &Mutex<T>) -> MutexGuard<'_, T> {
    // A set of marks is whole between any two calls.
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_good_for_one_look_and_for_none_after_an_observation() {
        let (fresh, target, volume) = (Fresh::default(), "iqn.2026-11.org.x:b".parse().unwrap(), VolumeId(1));
        for observed in [false, true] {
            fresh.made_backstore(volume);
            fresh.made_target(&target);
            if observed {
                fresh.forget(&target, volume);
            }
            assert_eq!((fresh.take_backstore(volume), fresh.take_target(&target)), (!observed, !observed));
            assert!(!fresh.take_backstore(volume) && !fresh.take_target(&target));
        }
    }
}
