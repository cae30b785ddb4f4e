//! Losses of the heads, one after the other, so that memory does not grow with n (2404.19737 section 2, "memory-efficient").

use data::Batch;
use model::Decoder;
use tensor::{LossSum, Ops, Tape, Var};

use super::{Body, HeadKind, ParallelHeads};
use crate::{Objective, Window};

pub(super) fn loss(
    heads: &ParallelHeads,
    tape: &mut Tape,
    decoder: &Decoder,
    trunk: &Var,
    batch: &Batch,
    window: &Window,
) -> Vec<LossSum> {
    let depths = window.depths().min(heads.depths());
    let mut step =
        Step { heads, decoder, batch, window, targets: Vec::new(), sums: vec![LossSum::default(); depths] };
    match heads.spec.kind {
        HeadKind::Layer | HeadKind::Linear => step.parallel(tape, trunk),
        HeadKind::Causal | HeadKind::Anticausal => step.chain(tape, trunk),
    }
    step.sums
}

struct Step<'a> {
    heads: &'a ParallelHeads,
    decoder: &'a Decoder,
    batch: &'a Batch,
    window: &'a Window,
    targets: Vec<u32>,
    sums: Vec<LossSum>,
}

impl Step<'_> {
    /// Each head on the trunk's state: forward, loss, back to the trunk, next.
    fn parallel(&mut self, tape: &mut Tape, trunk: &Var) {
        let mark = tape.mark();
        for depth in 1..=self.sums.len() {
            let state = tape.share(trunk);
            let state = match depth {
                // Not to be run again: backward follows at once.
                1 if self.heads.trunk_layers() < self.heads.layers => {
                    self.decoder.blocks[self.heads.layers - 1].forward(tape, state)
                }
                1 => state,
                _ => self.body(tape, depth, state),
            };
            self.read_out(tape, depth, &state);
            tape.backward_to(mark);
        }
    }

    /// Heads on top of each other: forward to the one farthest from the trunk, then loss and backward from there down.
    fn chain(&mut self, tape: &mut Tape, trunk: &Var) {
        let n = self.heads.depths();
        // In the order of the chain; depths that are not trained now still carry the others (anticausal).
        let order: Vec<usize> = match self.heads.spec.kind {
            HeadKind::Anticausal => (1..=n).rev().collect(),
            _ => (1..=self.sums.len()).collect(),
        };
        let mut states = Vec::new();
        let mut below = tape.share(trunk);
        for &depth in &order {
            let mark = tape.mark();
            let state = match &self.heads.spec.kind {
                HeadKind::Anticausal => tape.run(&self.decoder.blocks[self.heads.layers - depth], below),
                _ if depth == 1 => tape.run(&self.decoder.blocks[self.heads.layers - 1], below),
                _ => self.body(tape, depth, below),
            };
            below = tape.share(&state);
            states.push((depth, mark, state));
        }
        for (depth, mark, state) in states.into_iter().rev() {
            if depth <= self.sums.len() {
                self.read_out(tape, depth, &state);
            }
            tape.backward_to(mark);
        }
    }

    fn body(&self, tape: &mut Tape, depth: usize, state: Var) -> Var {
        match &self.heads.heads[depth - 2].body {
            Body::Block(block) if self.heads.spec.kind == HeadKind::Causal => tape.run(&**block, state),
            Body::Block(block) => block.forward(tape, state),
            Body::Linear(map) => tape.linear(state, &[*map]),
            Body::Readout => state,
        }
    }

    fn read_out(&mut self, tape: &mut Tape, depth: usize, state: &Var) {
        let normed = self.decoder.final_norm(tape, state);
        self.batch.targets(depth, &mut self.targets);
        let targets = self.window.targets[depth - 1].max(1);
        let scale = self.heads.weight(depth) / targets as f32;
        let unembedding = self.heads.unembedding(self.decoder, depth);
        self.sums[depth - 1] = tape.cross_entropy(
            &normed,
            unembedding,
            &self.targets,
            scale,
            self.decoder.config.variant.logit_cap,
        );
    }
}
