//! The block of an encoder, or of a decoder that looks at an encoder's output, on the tape.

use tensor::{Activation, AttentionSpec, Linear, Norm, Ops, Tape, Var};

use crate::taps::TapSizes;

/// Where the norms stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placement {
    /// Before attention and feed-forward part (ViT, Whisper).
    Pre,
    /// After each has been added to the residual stream (BERT, keyword spotting).
    Post,
}

/// What an attention looks at.
#[derive(Clone, Debug)]
pub(super) enum Sight {
    /// Its own rows, all of them.
    Own,
    /// Its own rows up to the query.
    Past(AttentionSpec),
    /// The rows of an encoder.
    Memory,
}

/// One attention with its norm.
#[derive(Clone, Debug)]
pub(super) struct Attention {
    pub(super) norm: Norm,
    pub(super) query: Linear,
    /// Keys and values.
    pub(super) memory: [Linear; 2],
    pub(super) output: Linear,
    pub(super) heads: usize,
    pub(super) scale: f32,
    pub(super) sight: Sight,
}

/// Attentions, then a feed-forward part.
#[derive(Clone, Debug)]
pub(super) struct EncoderBlock {
    pub(super) placement: Placement,
    pub(super) attentions: Vec<Attention>,
    pub(super) norm: Norm,
    pub(super) up: Linear,
    pub(super) down: Linear,
    pub(super) activation: Activation,
}

impl EncoderBlock {
    /// `[rows, width]` to `[rows, width]`; `memory` is what an encoder gave.
    pub(super) fn forward(&self, tape: &mut Tape, mut x: Var, memory: Option<&Var>) -> Var {
        for attention in &self.attentions {
            let normed = self.before(tape, &x, &attention.norm);
            let attended = attention.forward(tape, normed, memory);
            let sum = tape.linear_add(attended, attention.output, x);
            x = self.after(tape, sum, &attention.norm);
        }
        let normed = self.before(tape, &x, &self.norm);
        let inner = tape.linear(normed, &[self.up]);
        let inner = tape.activate(inner, self.activation);
        let sum = tape.linear_add(inner, self.down, x);
        self.after(tape, sum, &self.norm)
    }

    fn before(&self, tape: &mut Tape, x: &Var, norm: &Norm) -> Var {
        match self.placement {
            Placement::Pre => tape.norm(x, norm),
            Placement::Post => tape.share(x),
        }
    }

    fn after(&self, tape: &mut Tape, sum: Var, norm: &Norm) -> Var {
        match self.placement {
            Placement::Pre => sum,
            Placement::Post => tape.norm(&sum, norm),
        }
    }
}

impl Attention {
    fn forward(&self, tape: &mut Tape, x: Var, memory: Option<&Var>) -> Var {
        let [keys, values] = self.memory;
        match (&self.sight, memory) {
            (Sight::Past(spec), _) => {
                let qkv = tape.linear(x, &[self.query, keys, values]);
                tape.attention(qkv, spec)
            }
            (Sight::Memory, Some(memory)) => {
                let memory = tape.share(memory);
                self.full(tape, x, memory)
            }
            (Sight::Own, _) | (Sight::Memory, None) => {
                let own = tape.share(&x);
                self.full(tape, x, own)
            }
        }
    }

    fn full(&self, tape: &mut Tape, x: Var, looked_at: Var) -> Var {
        let queries = tape.linear(x, &[self.query]);
        let memory = tape.linear(looked_at, &self.memory);
        tape.full_attention(queries, memory, self.heads, self.scale)
    }
}

/// Sizes of a model of such blocks with one attention each.
pub(super) fn block_sizes(layers: usize, width: usize, ffn: usize, outputs: usize) -> TapSizes {
    let block_work = 4 * width * width + 2 * width * ffn;
    TapSizes { layers, width, outputs, block_work, read_out_work: width * outputs }
}
