//! The lens: in which layer a model decides its first, second, third choice, and what that is good for (Lioubashevski et al.,
//! arXiv 2410.20210).
//!
//! The way of the data: [`input`] makes items of files, [`look`](mod@look) runs them and reads every layer out, a chunk at a time,
//! [`saturation`] reduces what was read to a few numbers for each token, [`order`], [`null`] and [`tokens`] judge them;
//! [`probe`] learns the task from states, [`intervene`] puts states elsewhere, [`exit`] leaves early. Activations are never kept
//! beyond their chunk, but for a bounded sample that the probe learns from. Nothing here prints.

pub mod error;
pub mod exit;
pub mod input;
pub mod intervene;
pub mod item;
pub mod logistic;
pub mod look;
pub mod null;
pub mod order;
pub mod probe;
pub mod saturation;
pub mod statistics;
pub mod tokens;

pub use error::{Error, Result};
pub use item::Item;
pub use look::{Look, Place, Seen, look};
pub use saturation::{Decision, Saturation};
