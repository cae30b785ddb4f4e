//! The lens.
