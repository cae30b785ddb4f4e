//! Drafting with heads: the token at depth k is chosen from what head k says at the last committed position, whatever was
//! chosen at the depths before.

use model::Decoder;
use model::engine::{Engine, EngineWeights, Keep, Rows};
use tensor::{Linear, Ops, Params};

use super::{Body, HeadKind, ParallelHeads, UnembeddingKind};
use crate::{Chooser, Drafter, Verified};

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
        let maps = self.linear_maps();
        if !maps.is_empty() {
            // Side by side: all heads read the same state, so drafting is one product.
            weights.add_group(&maps, params);
        }
        for head in &self.heads {
            if let Body::Block(block) = &head.body {
                weights.add_block(block, params);
            }
            if self.spec.unembedding == UnembeddingKind::Replicated {
                weights.add_unembedding(head.unembedding, params);
            }
        }
    }

    fn draft(
        &self,
        engine: &mut Engine,
        decoder: &Decoder,
        verified: &Verified,
        length: usize,
        chooser: &mut dyn Chooser,
    ) {
        let states = match self.spec.kind {
            HeadKind::Linear | HeadKind::Anticausal if length == 0 => return,
            HeadKind::Linear => self.linear_states(engine, verified, length),
            HeadKind::Anticausal => {
                let last = |tap: &Rows, engine: &mut Engine| engine.copy_rows(tap, verified.rows - 1, 1);
                let states = verified.states[..length].iter().map(|tap| last(tap, engine)).collect();
                engine.stack(states)
            }
            // Blocks attend: every committed row goes through them, though only the last is read.
            HeadKind::Layer => self.blocks_on_trunk(engine, verified, length),
            HeadKind::Causal => self.chain_of_blocks(engine, verified, length),
        };
        self.read_out(engine, decoder, states, chooser);
    }
}

/// States of the heads at the last committed row: `[length, width]`, one row per depth from 2.
impl ParallelHeads {
    fn linear_maps(&self) -> Vec<Linear> {
        let map = |head: &super::Head| match &head.body {
            Body::Linear(map) => Some(*map),
            Body::Block(_) | Body::Readout => None,
        };
        self.heads.iter().filter_map(map).collect()
    }

    fn linear_states(&self, engine: &mut Engine, verified: &Verified, length: usize) -> Rows {
        let last = engine.copy_rows(&verified.states[0], verified.rows - 1, 1);
        let width = last.width;
        let side_by_side = engine.linear(last, &self.linear_maps());
        engine.reshape(side_by_side, width, length)
    }

    fn blocks_on_trunk(&self, engine: &mut Engine, verified: &Verified, length: usize) -> Rows {
        let mut states = Vec::with_capacity(length);
        for (index, head) in self.heads.iter().enumerate() {
            let Body::Block(block) = &head.body else { continue };
            engine.stand_at(verified.first_position);
            engine.set_keep(block.attention().slot, Keep::Last);
            let rows = engine.copy_rows(&verified.states[0], 0, verified.rows);
            let state = block.forward(engine, rows);
            if index < length { states.push(state) } else { engine.recycle(state) }
        }
        engine.stack(states)
    }

    fn chain_of_blocks(&self, engine: &mut Engine, verified: &Verified, length: usize) -> Rows {
        let mut states = Vec::with_capacity(length);
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
        engine.stack(states)
    }

    /// Final norm and unembedding of all drafted depths: one pass over the shared weights.
    fn read_out(&self, engine: &mut Engine, decoder: &Decoder, states: Rows, chooser: &mut dyn Chooser) {
        if states.rows == 0 {
            engine.recycle(states);
            return;
        }
        let normed = decoder.final_norm(engine, &states);
        engine.recycle(states);
        let mut choose = |mut logits: Rows, engine: &mut Engine| {
            for row in logits.data.chunks_exact_mut(logits.width) {
                chooser.choose(row);
            }
            engine.recycle(logits);
        };
        if self.spec.unembedding == UnembeddingKind::Shared {
            let logits = decoder.logits(engine, normed);
            return choose(logits, engine);
        }
        for row in 0..normed.rows {
            let state = engine.copy_rows(&normed, row, 1);
            let logits = decoder.logits_by(engine, state, self.heads[row].unembedding);
            choose(logits, engine);
        }
        engine.recycle(normed);
    }
}
