//! The blades, by id, and which of them were changed since somebody last asked.
//!
//! Reading is a map's. Changing goes through [`Blades::get_mut`] and its neighbours alone, which note whom: so that what
//! follows from a change, such as saving it, costs the same with 1 or 1,000 blades.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
};

use super::Blade;
use crate::model::{BladeId, Slot};

/// All blades.
#[derive(Debug, Clone, Default)]
pub struct Blades {
    map: BTreeMap<BladeId, Blade>,
    touched: BTreeSet<BladeId>,
}

impl Blades {
    /// Returns the blade, to be changed.
    pub fn get_mut(&mut self, id: &BladeId) -> Option<&mut Blade> {
        let blade = self.map.get_mut(id)?;
        self.touched.insert(*id);
        Some(blade)
    }

    /// Returns the blade, to be changed; one that nobody knew is in this slot.
    pub fn get_or_new(&mut self, id: BladeId, slot: Slot) -> &mut Blade {
        self.touched.insert(id);
        self.map.entry(id).or_insert_with(|| Blade::new(slot))
    }

    /// Changes each blade for which `change` says that it did.
    pub fn change_where(&mut self, mut change: impl FnMut(BladeId, &mut Blade) -> bool) {
        let changed = self.map.iter_mut().filter_map(|(id, blade)| change(*id, blade).then_some(*id));
        self.touched.extend(changed);
    }

    /// Returns who was changed since this was last asked.
    pub fn take_touched(&mut self) -> BTreeSet<BladeId> {
        std::mem::take(&mut self.touched)
    }
}

impl Deref for Blades {
    type Target = BTreeMap<BladeId, Blade>;

    fn deref(&self) -> &Self::Target {
        &self.map
    }
}

impl PartialEq for Blades {
    fn eq(&self, other: &Self) -> bool {
        self.map == other.map
    }
}

impl FromIterator<(BladeId, Blade)> for Blades {
    /// Collects blades of which nothing was changed yet.
    fn from_iter<T: IntoIterator<Item = (BladeId, Blade)>>(blades: T) -> Self {
        Self { map: blades.into_iter().collect(), touched: BTreeSet::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn who_was_changed_is_told_once_and_who_was_read_is_not() {
        let (one, two) = (sample::blade_id(1), sample::blade_id(2));
        let mut blades: Blades = [one, two].map(|id| (id, Blade::new(sample::slot(1)))).into_iter().collect();
        assert!(blades.get(&two).is_some() && blades.take_touched().is_empty());
        blades.get_mut(&one).unwrap().present = true;
        assert_eq!(blades.take_touched(), [one].into());
        blades.change_where(|_, blade| std::mem::take(&mut blade.present));
        assert_eq!(blades.take_touched(), [one].into());
        blades.get_or_new(sample::blade_id(3), sample::slot(3));
        assert_eq!(blades.take_touched(), [sample::blade_id(3)].into());
        assert!(blades.take_touched().is_empty());
    }
}
