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
    /// Rotary angles for queries and keys.
    pub rope: Arc<RopeTable>,
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

/// Operations on values of shape `[rows, width]`; rows are the positions of one or several sequences, and the implementer
/// knows where each stands and what it may see.
///
/// A value passed by value is used for the last time: the implementer may free it or work in place.
pub trait Ops {
    /// A value `[rows, width]`.
    type Var;

    /// Another handle on `x`, which then may be used up once more.
    fn share(&mut self, x: &Self::Var) -> Self::Var;

    /// Rows of `table` `[vocabulary, width]`, one for each token.
    fn embed(&mut self, table: ParamId, tokens: &[u32]) -> Self::Var;

    /// `x / rms(x) * weight`, per row; `weight` `[width]`.
    fn rms_norm(&mut self, x: &Self::Var, weight: ParamId, epsilon: f32) -> Self::Var;

    /// Several linear maps of one input, their outputs side by side in each row.
    fn linear(&mut self, x: Self::Var, maps: &[Linear]) -> Self::Var;

    /// `residual + map(x)`.
    fn linear_add(&mut self, x: Self::Var, map: Linear, residual: Self::Var) -> Self::Var;

    /// Rotates queries and keys, then causal attention within each sequence. `qkv` `[rows, qkv_width]` to
    /// `[rows, heads * head_dim]`.
    fn attention(&mut self, qkv: Self::Var, spec: &AttentionSpec) -> Self::Var;

    /// `silu(gate) * up`; `gate_up` `[rows, 2 * width]`, gate first.
    fn swiglu(&mut self, gate_up: Self::Var) -> Self::Var;

    /// Drops the rows of `x` that the attention of layer `slot` dropped because nobody will read them. Training reads all.
    fn narrow(&mut self, x: Self::Var, slot: usize) -> Self::Var {
        let _ = slot;
        x
    }
}
