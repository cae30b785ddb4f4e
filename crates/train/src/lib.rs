//! Runs: the run file, the schedule, the step, checkpoints, resuming, evaluation and events.
//!
//! The way of a run: [`config`] says what it is, [`mod@plan`] what it will take, [`start`] builds or reads the model, [`prepare`]
//! the data; [`run`] makes [`step`]s at the learning rate of [`schedule`], lets [`evaluate`] judge them, keeps
//! [`checkpoint`]s in its [`run_folder`], and records in [`events`] (and for [`tensorboard`]) what happened. A
//! [`mod@forecast`] tries a run beforehand. Nothing here prints.

mod budget;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod evaluate;
pub mod events;
pub mod forecast;
mod kept;
pub mod memory;
pub mod plan;
pub mod prepare;
pub mod processor;
pub mod run;
pub mod run_folder;
pub mod schedule;
pub mod start;
pub mod step;
pub mod tensorboard;
mod trainer_state;
mod trunk_states;
mod watchdog;

pub use checkpoint::Checkpoint;
pub use config::{RunConfig, template};
pub use error::{Error, Result};
pub use evaluate::{Evaluation, HeldOut};
pub use forecast::{Forecast, forecast};
pub use plan::{Plan, plan};
pub use run::{Observer, Outcome, Progress, train};
pub use run_folder::RunFolder;
