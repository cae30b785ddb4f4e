//! Runs: the run file, the schedule, the step, checkpoints, resuming, evaluation and events.
//!
//! The way of a run: [`config`] says what it is, [`schedule`] gives the learning rate of each step, [`events`] records what
//! happened. Nothing here prints.

pub mod config;
pub mod error;
pub mod events;
pub mod schedule;

pub use config::RunConfig;
pub use error::{Error, Result};
