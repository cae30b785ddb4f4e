//! The decoding side of an objective.

use model::Decoder;
use model::engine::{Engine, EngineWeights, Rows};
use tensor::Params;

/// A chain of proposed tokens, to be verified by the model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// The proposed tokens, nearest first; the first stands two places after the last committed token, because the place
    /// between is decided by the model itself.
    pub tokens: Vec<u32>,
}

/// Rows of the model that were verified and committed: what a drafter may build on.
pub struct Verified<'a> {
    /// For each layer of [`Drafter::taps`], the residual stream after it; the first `rows` rows count.
    pub states: &'a [Rows],
    /// How many rows were committed.
    pub rows: usize,
    /// Position of the first of them.
    pub first_position: usize,
}

/// Proposes tokens from states of the trunk.
pub trait Drafter: Send + Sync {
    /// The longest draft it can make.
    fn longest(&self) -> usize;

    /// Layers after which it wants the residual stream.
    fn taps(&self) -> Vec<usize>;

    /// Adds what it needs to the engine's weights.
    fn pack(&self, weights: &mut EngineWeights, params: &Params);

    /// Takes in committed rows (its own caches must cover every committed position) and proposes `length` tokens after the
    /// last of them; with `length` 0 it only takes them in.
    fn draft(&self, engine: &mut Engine, decoder: &Decoder, verified: &Verified, length: usize) -> Draft;
}
