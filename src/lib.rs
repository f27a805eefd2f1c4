//! Sheath turns a Linux storage box into a blade appliance.

pub mod apply;
pub mod boot;
pub mod bootd;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod error;
pub mod host;
pub mod image;
pub mod model;
pub mod observed;
pub mod plan;
pub mod policy;
pub mod roster;
#[cfg(test)]
mod sample;
pub mod status;
pub mod watch;
