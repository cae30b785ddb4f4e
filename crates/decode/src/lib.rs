//! Sampling, drafting, verification and their statistics.
//!
//! Prompt, draft, verify, text: [`Target`] runs the model with rows that stay pending until they are committed,
//! [`decode`] is the loop of blockwise self-speculation (and plain decoding, its case without a draft), [`generate`] makes
//! streamed text of it. [`verify`] and [`measure`] answer the two questions about drafts: is it the same, is it faster.

mod bare;
mod draft_length;
mod error;
mod filters;
mod forced;
mod forward_cost;
mod generate;
mod measure;
mod sampling;
mod score;
mod speculate;
mod statistics;
mod stop_strings;
mod target;
mod verify;

pub use bare::bare;
pub use draft_length::{DraftLength, RoundCosts};
pub use error::{Error, Result};
pub use filters::{Distribution, Entry, Seen};
pub use forced::forced;
pub use forward_cost::forward_costs;
pub use generate::{GenerateSettings, Generation, Piece, generate};
pub use measure::{DraftedSpeed, MeasureSettings, Measurement, Speed, Spread, measure};
pub use sampling::{Sampler, SamplingSettings};
pub use score::score;
pub use speculate::{DecodeSettings, Decoded, Ending, Origin, SAMPLING_WITHOUT_DRAFTS, decode};
pub use statistics::{DepthCounts, Statistics};
pub use target::Target;
pub use verify::{Divergence, Verification, verify};
