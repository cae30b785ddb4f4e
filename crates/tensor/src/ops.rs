//! The operations that a decoder is written in.

use std::ops::Range;
use std::sync::Arc;

use crate::{ParamId, RopeTable};

/// A linear map `y = x W^T + b`, weights stored `[outputs, inputs]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linear {
    /// `[outputs, inputs]`
    pub weight: ParamId,
    /// `[outputs]`
    pub bias: Option<ParamId>,
}

/// How tokens become rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Embedding {
    /// `[vocabulary, width]`
    pub table: ParamId,
    /// What its rows are multiplied with.
    pub scale: f32,
    /// Learned vectors that are added, one for each position, `[positions, width]`.
    pub positions: Option<ParamId>,
}

/// A norm over the columns of each row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// `[width]`
    pub weight: ParamId,
    /// What kind, and the bias of the kind that has one.
    pub kind: NormKind,
    /// Added to the mean square, or to the variance, before the root.
    pub epsilon: f32,
}

/// Kinds of norms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NormKind {
    /// `x / rms(x) * weight`
    Rms,
    /// `x / rms(x) * (1 + weight)`
    RmsPlusOne,
    /// `(x - mean) / deviation * weight + bias`
    Layer {
        /// `[width]`
        bias: ParamId,
    },
}

/// RMSNorm of every query head and of every key head, before they are rotated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadNorms {
    /// `[head_dim]`, the same for all query heads.
    pub query: ParamId,
    /// `[head_dim]`, the same for all key heads.
    pub key: ParamId,
    /// Added to the mean square before the root.
    pub epsilon: f32,
}

/// What stands between the maps of a feed-forward part. In the gated ones `x` is `[rows, 2 * width]`, gate first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `silu(gate) * up`
    SiluGated,
    /// `gelu(gate) * up`, GELU in its tanh form.
    GeluGated,
    /// `gelu(x)`, GELU in its tanh form.
    Gelu,
    /// `gelu(x)`, GELU as it is defined, with the error function.
    GeluErf,
}

impl Activation {
    /// How many inputs there are for an output.
    pub fn inputs(self) -> usize {
        match self {
            Self::SiluGated | Self::GeluGated => 2,
            Self::Gelu | Self::GeluErf => 1,
        }
    }
}

/// What an attention layer needs to know besides its inputs.
#[derive(Clone, Debug)]
pub struct AttentionSpec {
    /// Which cache a decoding engine keeps for this layer.
    pub slot: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Factor on the scores, commonly `1/sqrt(head_dim)`.
    pub scale: f32,
    /// Bound that scaled scores approach but do not reach.
    pub cap: Option<f32>,
    /// How many keys a query sees, its own among them; all before it where there is none.
    pub window: Option<usize>,
    /// Norms of queries and keys.
    pub head_norms: Option<HeadNorms>,
    /// Rotary angles for queries and keys; none where positions do not turn them.
    pub rope: Option<Arc<RopeTable>>,
}

impl AttentionSpec {
    /// Width of queries, keys and values side by side.
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Columns of queries and keys within a row, which are what rope rotates.
    pub fn rotated(&self) -> Range<usize> {
        0..(self.heads + self.kv_heads) * self.head_dim
    }
}

/// A part of a model, written over [`Ops`] like the whole.
pub trait Part: Clone + Send + Sync + 'static {
    /// `[rows, width]` to `[rows, width]`.
    fn forward<O: Ops>(&self, ops: &mut O, x: O::Var) -> O::Var;
}

/// Operations on values of shape `[rows, width]`; rows are the positions of one or several sequences, and the implementer
/// knows where each stands and what it may see.
///
/// A value passed by value is used for the last time: the implementer may free it or work in place.
pub trait Ops {
    /// A value `[rows, width]`.
    type Var;

    /// `part(x)`. An implementer that runs back may keep `x` alone, and run the part again when it needs the values inside.
    fn run<P: Part>(&mut self, part: &P, x: Self::Var) -> Self::Var
    where
        Self: Sized,
    {
        part.forward(self, x)
    }

    /// Another handle on `x`, which then may be used up once more.
    fn share(&mut self, x: &Self::Var) -> Self::Var;

    /// A row for each token.
    fn embed(&mut self, embedding: &Embedding, tokens: &[u32]) -> Self::Var;

    /// Each row of `x` normalised.
    fn norm(&mut self, x: &Self::Var, norm: &Norm) -> Self::Var;

    /// `residual + norm(x)`.
    fn norm_add(&mut self, x: Self::Var, norm: &Norm, residual: Self::Var) -> Self::Var;

    /// Several linear maps of one input, their outputs side by side in each row.
    fn linear(&mut self, x: Self::Var, maps: &[Linear]) -> Self::Var;

    /// `residual + map(x)`.
    fn linear_add(&mut self, x: Self::Var, map: Linear, residual: Self::Var) -> Self::Var;

    /// Norms and rotates queries and keys, then causal attention within each sequence. `qkv` `[rows, qkv_width]` to
    /// `[rows, heads * head_dim]`.
    fn attention(&mut self, qkv: Self::Var, spec: &AttentionSpec) -> Self::Var;

    /// `[rows, inputs * width]` to `[rows, width]`, as `activation` says.
    fn activate(&mut self, x: Self::Var, activation: Activation) -> Self::Var;

    /// `cap tanh(x / cap)`.
    fn soft_cap(&mut self, x: Self::Var, cap: f32) -> Self::Var;

    /// Drops the rows of `x` that the attention of layer `slot` dropped because nobody will read them. Training reads all.
    fn narrow(&mut self, x: Self::Var, slot: usize) -> Self::Var {
        let _ = slot;
        x
    }
}
