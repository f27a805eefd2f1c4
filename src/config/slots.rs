//! The slots and their ports, found from either side: each frame that comes in asks for the slot of its port.

use std::{collections::BTreeMap, fmt, ops::Deref};

use crate::model::{PortName, Slot};

/// The port of each slot; no port twice. Reads as a map from slot to port.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Slots {
    ports: BTreeMap<Slot, PortName>,
    slots: BTreeMap<PortName, Slot>,
}

impl Slots {
    /// Returns the slot that this interface is the port of.
    pub fn of(&self, port: &PortName) -> Option<Slot> {
        self.slots.get(port).copied()
    }
}

impl Deref for Slots {
    type Target = BTreeMap<Slot, PortName>;

    fn deref(&self) -> &Self::Target {
        &self.ports
    }
}

impl FromIterator<(Slot, PortName)> for Slots {
    fn from_iter<T: IntoIterator<Item = (Slot, PortName)>>(slots: T) -> Self {
        let ports: BTreeMap<Slot, PortName> = slots.into_iter().collect();
        let slots = ports.iter().map(|(slot, port)| (port.clone(), *slot)).collect();
        Self { ports, slots }
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ports.fmt(f)
    }
}
