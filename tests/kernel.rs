//! Tests against a real kernel: run as root in a guest, never on the machine that builds.

#[path = "kernel/lvm.rs"]
mod lvm;
