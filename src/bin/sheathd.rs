//! sheathd.

fn main() {}
