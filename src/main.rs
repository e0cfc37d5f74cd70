//! Gatepost.
fn main() {}
