//! Plans: the ordered steps that lead from what exists to what should exist. Pure: no I/O, no clock.

mod step;

pub use step::{Changed, Step};
