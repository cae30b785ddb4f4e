//! The sakiyomi binary.

fn main() {}
