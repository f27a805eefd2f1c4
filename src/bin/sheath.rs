//! sheath.

fn main() {}
