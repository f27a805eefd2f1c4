//! sheath-bootd.

fn main() {}
