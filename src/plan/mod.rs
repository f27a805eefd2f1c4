//! Plans: the ordered steps that lead from what exists to what should exist. Pure: no I/O, no clock.
//!
//! Start-up, recovery after a crash, a hand edit and a new configuration all come through here: what is not true yet
//! becomes a step, what is true becomes none. `sheath plan` prints the same steps that `apply` would run.

mod adopt;
mod chassis;
mod disk;
mod drift;
mod effect;
mod export;
mod step;
mod volume;

pub use adopt::adopt;
pub use chassis::chassis;
pub use disk::{blade, undo};
pub use drift::{drift, leaving};
pub use export::serve;
pub use step::{Changed, Step};
pub use volume::{admit, grow, leftovers, promote, ready_spares, spare, surplus_spares};

/// What is to be done for one blade.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What can be done now, in order.
    pub steps: Vec<Step>,
    /// What would end a session, in order: it waits until the blade is off, or for the operator's consent.
    pub held: Vec<Step>,
}

#[cfg(test)]
mod tests;
