//! The `pinnace` binary.
fn main() {}
