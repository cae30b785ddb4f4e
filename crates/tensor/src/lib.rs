//! Parameters, an arena of buffers, and a tape of the operations that the methods need.
//!
//! Deliberately no array library: values are contiguous `[rows, width]` matrices in f32, operations are the few that a
//! decoder and its training objectives use, and each carries its own backward. [`Ops`] is the seam: a model is written
//! once against it and runs on the [`Tape`] (training, evaluation) or on a decoding engine (packed weights, cache).
//! A second device joins by implementing [`Ops`] again.

mod arena;
mod gradients;
mod ops;
mod optimiser;
mod params;
pub mod random;
mod tape;

pub use arena::Arena;
pub use gradients::Gradients;
pub use kernels::adamw::AdamW;
pub use kernels::cross_entropy::{LossSum, NO_TARGET};
pub use kernels::matmul::Precision;
pub use kernels::muon::Muon;
pub use kernels::rope::RopeTable;
pub use ops::{Activation, AttentionSpec, Embedding, HeadNorms, Linear, Norm, NormKind, Ops, Part};
pub use optimiser::{Decay, Optimiser, Rules};
pub use params::{Adapter, Param, ParamId, Params};
pub use tape::{Blend, Layout, LearningRows, Mark, Register, Tape, Var};
