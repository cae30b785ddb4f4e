//! Drafting with heads: the token at depth k is the argmax of head k at the last committed position.

use model::Decoder;
use model::engine::{Engine, EngineWeights, Keep, Rows};
use tensor::{Linear, Ops, Params};

use super::{Body, HeadKind, ParallelHeads, UnembeddingKind};
use crate::{Draft, Drafter, Verified};

impl Drafter for ParallelHeads {
    fn longest(&self) -> usize {
        self.spec.n - 1
    }

    fn taps(&self) -> Vec<usize> {
        match self.spec.kind {
            HeadKind::Layer => vec![self.layers - 2],
            HeadKind::Linear | HeadKind::Causal => vec![self.layers - 1],
            // Depths 2, 3, ...: one block earlier each.
            HeadKind::Anticausal => (2..=self.spec.n).map(|depth| self.layers - depth).collect(),
        }
    }

    fn pack(&self, weights: &mut EngineWeights, params: &Params) {
        for head in &self.heads {
            match &head.body {
                Body::Block(block) => weights.add_block(block, params),
                Body::Linear(map) => weights.add_group(&[*map], params),
                Body::Readout => {}
            }
            if self.spec.unembedding == UnembeddingKind::Replicated {
                weights.add_group(&[Linear { weight: head.unembedding, bias: None }], params);
            }
        }
    }

    fn draft(&self, engine: &mut Engine, decoder: &Decoder, verified: &Verified, length: usize) -> Draft {
        let mut states: Vec<Rows> = Vec::with_capacity(length);
        match self.spec.kind {
            HeadKind::Linear if length == 0 => {}
            HeadKind::Linear | HeadKind::Anticausal => self.pointwise(engine, verified, length, &mut states),
            // Blocks attend: every committed row goes through them, though only the last is read.
            HeadKind::Layer => self.blocks_on_trunk(engine, verified, length, &mut states),
            HeadKind::Causal => self.chain_of_blocks(engine, verified, length, &mut states),
        }
        let tokens = self.read_out(engine, decoder, states);
        Draft { tokens }
    }
}

impl ParallelHeads {
    /// Heads that look at one position only.
    fn pointwise(&self, engine: &mut Engine, verified: &Verified, length: usize, states: &mut Vec<Rows>) {
        for (index, head) in self.heads[..length].iter().enumerate() {
            let tap = if self.spec.kind == HeadKind::Anticausal { index } else { 0 };
            let last = engine.copy_rows(&verified.states[tap], verified.rows - 1, 1);
            states.push(match &head.body {
                Body::Linear(map) => engine.linear(last, &[*map]),
                Body::Block(_) | Body::Readout => last,
            });
        }
    }

    fn blocks_on_trunk(
        &self,
        engine: &mut Engine,
        verified: &Verified,
        length: usize,
        states: &mut Vec<Rows>,
    ) {
        for (index, head) in self.heads.iter().enumerate() {
            let Body::Block(block) = &head.body else { continue };
            engine.stand_at(verified.first_position);
            engine.set_keep(block.attention().slot, Keep::Last);
            let rows = engine.copy_rows(&verified.states[0], 0, verified.rows);
            let state = block.forward(engine, rows);
            if index < length { states.push(state) } else { engine.recycle(state) }
        }
    }

    fn chain_of_blocks(
        &self,
        engine: &mut Engine,
        verified: &Verified,
        length: usize,
        states: &mut Vec<Rows>,
    ) {
        let mut below = engine.copy_rows(&verified.states[0], 0, verified.rows);
        for (index, head) in self.heads.iter().enumerate() {
            let Body::Block(block) = &head.body else { continue };
            engine.stand_at(verified.first_position);
            below = block.forward(engine, below);
            if index < length {
                let last = engine.copy(&below, Keep::Last);
                states.push(last);
            }
        }
        engine.recycle(below);
    }

    /// Final norm and unembedding of all drafted depths: one pass over the shared weights.
    fn read_out(&self, engine: &mut Engine, decoder: &Decoder, states: Vec<Rows>) -> Vec<u32> {
        if states.is_empty() {
            return Vec::new();
        }
        let stacked = engine.stack(states);
        let normed = decoder.final_norm(engine, &stacked);
        engine.recycle(stacked);
        let argmaxes = |logits: &Rows| -> Vec<u32> {
            (0..logits.rows).map(|row| kernels::argmax::argmax(logits.row(row)) as u32).collect()
        };
        if self.spec.unembedding == UnembeddingKind::Shared {
            let logits = decoder.logits(engine, normed);
            let tokens = argmaxes(&logits);
            engine.recycle(logits);
            return tokens;
        }
        let mut tokens = Vec::with_capacity(normed.rows);
        for row in 0..normed.rows {
            let state = engine.copy_rows(&normed, row, 1);
            let logits = engine.linear(state, &[Linear { weight: self.heads[row].unembedding, bias: None }]);
            tokens.extend(argmaxes(&logits));
            engine.recycle(logits);
        }
        engine.recycle(normed);
        tokens
    }
}
