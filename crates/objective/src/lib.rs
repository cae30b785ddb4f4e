//! What a method adds to a trunk: its parameters, its targets and loss, and how it drafts.
//!
//! Trainer and decoder meet in [`Objective`], so that training and serving cannot drift apart. Adding a method is adding a
//! module. This crate knows neither files nor progress.

mod draft;
mod error;
mod exits;
mod heads;
mod joint;
mod loss;
mod method;
mod registers;

pub use draft::{Begun, Chooser, Drafter, Greedy, Verified};
pub use error::{Error, Result};
pub use exits::exit_layers;
pub use heads::{HeadKind, HeadStart, HeadTaps, HeadsSpec, ParallelHeads, UnembeddingKind, matched_layers};
pub use joint::{BalanceOn, JointHeads, JointKind, JointSpec, JointStart, JointWindows, LARGEST_RANK};
pub use loss::{Objective, OnStates, Window};
pub use method::Method;
pub use registers::{
    LARGEST_OFFSET, OffsetsPer, Placed, REGISTER_VECTOR, RegisterStart, Registers, RegistersSpec, RowEnd,
    place_registers,
};
