//! Tests against a real kernel: run as root in a guest, never on the machine that builds.

#[path = "kernel/import.rs"]
mod import;
#[path = "kernel/lvm.rs"]
mod lvm;
mod blade;
mod guest;
mod initiator;
mod lio;
mod lio_sessions;
