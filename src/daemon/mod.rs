//! sheathd: wiring of the rooms, start, privileges, shutdown.

pub mod core;
pub mod journal;
