//! Sampling, drafting, verification and their statistics.
//!
//! Prompt, draft, verify, text: [`Target`] runs the model with rows that stay pending until they are committed,
//! [`decode`] is the loop of blockwise self-speculation (and plain decoding, its case without a draft), [`generate`] makes
//! streamed text of it. [`verify`] and [`measure`] answer the two questions about drafts: is it the same, is it faster.

#[cfg(test)]
extern crate self as sakiyomi_decode;

mod acceptance;
mod bare;
mod batch;
mod draft_length;
mod error;
mod exactness;
mod filters;
mod forced;
mod forward_cost;
mod generate;
mod lookup;
mod measure;
mod rejection;
mod repetition;
mod sampling;
mod score;
mod significance;
mod speculate;
mod statistics;
mod stop_strings;
mod target;
mod verify;

pub use acceptance::{Acceptance, DepthAcceptance, Estimate, RequestAcceptance, acceptance, paired_gain};
pub use bare::bare;
pub use batch::{Batch, Sink};
pub use draft_length::{DraftLength, RoundCosts};
pub use error::{Error, Result};
pub use exactness::{Exactness, ExactnessSettings, TestedCase, exactness};
pub use filters::{Distribution, Entry, Seen};
pub use forced::forced;
pub use forward_cost::{forward_costs, positions_of_rounds, round_costs};
pub use generate::{GenerateSettings, Generation, Piece, generate, text_after};
pub use lookup::Lookup;
pub use measure::{DraftedSpeed, MeasureSettings, Measurement, Speed, Spread, measure};
pub use rejection::Drafted;
pub use sampling::{Sampler, SamplingSettings};
pub use score::score;
pub use significance::Test;
pub use speculate::{DecodeSettings, Decoded, Ending, Origin, decode};
pub use statistics::{DepthCounts, Statistics};
pub use target::Target;
pub use verify::{Divergence, Verification, verify};
