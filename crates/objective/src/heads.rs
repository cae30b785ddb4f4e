//! Parallel heads (Gloeckle et al. 2404.19737, section 2): n predictions from one trunk.
//!
//! | kind | depth 1 | depth k > 1 | parameters added |
//! |---|---|---|---|
//! | `layer` | last block of the model on trunk state z | a block of its own on z | n-1 blocks |
//! | `linear` | the model as it is, final state z | a `width x width` matrix on z | n-1 matrices |
//! | `causal` | last block on z | a block on top of the head of depth k-1 | n-1 blocks |
//! | `anticausal` | last block, on top of depth 2 | an earlier block of the model read out k-1 blocks before the end | none |
//!
//! In every kind the model without its heads is an ordinary decoder: head 1 is its last block (the identity for `linear`).
//! The final norm is shared; the unembedding is shared or replicated.

mod attach;
mod drafting;
mod lens;
mod training;

use data::Batch;
use model::{Block, Decoder};
use serde::{Deserialize, Serialize};
use tensor::{Linear, LossSum, ParamId, Tape, Var};

use crate::loss::loss_through_states;
use crate::{Drafter, Error, Objective, OnStates, Result, Window};
pub use attach::{HeadStart, matched_layers};
pub use lens::HeadTaps;

/// What a head is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadKind {
    /// A transformer block on the trunk's state: the paper's default.
    Layer,
    /// One matrix, no non-linearity.
    Linear,
    /// A block on top of the head before it.
    Causal,
    /// Read-outs of the model's own last blocks, the farthest token first.
    Anticausal,
}

/// Whether heads have unembeddings of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnembeddingKind {
    /// All heads use the model's.
    #[default]
    Shared,
    /// Each head has its own (byte vocabularies).
    Replicated,
}

/// Settings of parallel heads, as they stand in `mtp.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadsSpec {
    /// Tokens predicted from one position, the next token included.
    pub n: usize,
    /// What a head is made of.
    pub kind: HeadKind,
    /// Whether heads have unembeddings of their own.
    #[serde(default)]
    pub unembedding: UnembeddingKind,
    /// Weight of the loss at each depth; empty means 1 for each, the paper's plain sum.
    #[serde(default)]
    pub weights: Vec<f32>,
}

/// More heads than this is a mistake: the paper's largest is 32.
pub const LARGEST_N: usize = 64;

impl HeadsSpec {
    /// The next token only.
    pub fn next_token() -> Self {
        Self { n: 1, kind: HeadKind::Linear, unembedding: UnembeddingKind::Shared, weights: Vec::new() }
    }

    /// Checks the settings against a model of `layers` blocks.
    pub fn validate(&self, layers: usize) -> Result<()> {
        let refuse = |setting, problem: String| Err(Error::Setting { setting, problem });
        if self.n == 0 || self.n > LARGEST_N {
            return refuse("n", format!("{} heads: give 1 to {LARGEST_N}", self.n));
        }
        if !self.weights.is_empty() && self.weights.len() != self.n {
            let problem =
                format!("{} weights for {} heads: give one for each, or none", self.weights.len(), self.n);
            return refuse("weights", problem);
        }
        if self.weights.iter().any(|w| !w.is_finite() || *w < 0.0) {
            return refuse("weights", "a weight is negative or not finite".to_owned());
        }
        if self.kind == HeadKind::Layer && self.n > 1 && layers < 2 {
            return refuse("kind", "layer heads need a trunk: give the model at least 2 layers".to_owned());
        }
        if self.kind == HeadKind::Anticausal && layers < self.n {
            let problem =
                format!("anticausal heads are the last {} blocks, and the model has {layers}", self.n);
            return refuse("kind", problem);
        }
        Ok(())
    }
}

/// One head beyond the first.
#[derive(Clone, Debug)]
struct Head {
    body: Body,
    /// `[vocabulary, width]`
    unembedding: ParamId,
}

#[derive(Clone, Debug)]
enum Body {
    Block(Box<Block>),
    Linear(Linear),
    /// The state after one of the decoder's own blocks.
    Readout,
}

/// n heads on one decoder.
#[derive(Clone, Debug)]
pub struct ParallelHeads {
    spec: HeadsSpec,
    /// `heads[k - 2]` predicts at depth k.
    heads: Vec<Head>,
    parameters: Vec<ParamId>,
    layers: usize,
}

impl ParallelHeads {
    /// Its settings.
    pub fn spec(&self) -> &HeadsSpec {
        &self.spec
    }

    /// Blocks of the decoder below the state that the heads share.
    fn trunk_layers(&self) -> usize {
        match self.spec.kind {
            HeadKind::Linear => self.layers,
            HeadKind::Layer | HeadKind::Causal => self.layers - 1,
            HeadKind::Anticausal => self.layers - self.spec.n,
        }
    }

    fn unembedding(&self, decoder: &Decoder, depth: usize) -> ParamId {
        if depth == 1 { decoder.unembedding } else { self.heads[depth - 2].unembedding }
    }
}

impl Objective for ParallelHeads {
    fn kind(&self) -> &'static str {
        "heads"
    }

    fn depths(&self) -> usize {
        self.spec.n
    }

    fn parameters(&self) -> &[ParamId] {
        &self.parameters
    }

    fn weight(&self, depth: usize) -> f32 {
        self.spec.weights.get(depth - 1).copied().unwrap_or(1.0)
    }

    fn loss(&self, tape: &mut Tape, decoder: &Decoder, batch: &Batch, window: &Window) -> Vec<LossSum> {
        loss_through_states(self, tape, decoder, batch, window)
    }

    fn drafter(&self) -> Option<&dyn Drafter> {
        (self.spec.n > 1).then_some(self as &dyn Drafter)
    }

    fn on_states(&self) -> Option<&dyn OnStates> {
        Some(self)
    }
}

impl OnStates for ParallelHeads {
    fn layers_below(&self) -> usize {
        self.trunk_layers()
    }

    fn loss_from(
        &self,
        tape: &mut Tape,
        decoder: &Decoder,
        states: &Var,
        batch: &Batch,
        window: &Window,
    ) -> Vec<LossSum> {
        training::loss(self, tape, decoder, states, batch, window)
    }
}
