//! A head as the lens sees it: the layers below it, the head itself, and its read-out.
//!
//! A linear head reads out every layer through its own map. Heads that are blocks stand in the place of the last layer (causal
//! ones with all heads before them); the layers below are read out as the model reads them. An anticausal head is an earlier
//! layer of the model, at which its lens ends.

use model::taps::{Hook, Input, TapSizes, Taps};
use model::{Decoder, Result};
use tensor::{Arena, Layout, Ops, Params, Tape, Var};

use super::{Body, HeadKind, ParallelHeads};

/// One head of a model, to be looked into.
pub struct HeadTaps<'a> {
    decoder: &'a Decoder,
    params: &'a Params,
    heads: &'a ParallelHeads,
    depth: usize,
}

impl<'a> HeadTaps<'a> {
    /// The head that predicts the token `depth` places ahead.
    ///
    /// # Panics
    /// When there is no such head beyond the first.
    pub fn new(decoder: &'a Decoder, params: &'a Params, heads: &'a ParallelHeads, depth: usize) -> Self {
        assert!(depth >= 2 && depth <= heads.spec.n, "head {depth} of {}", heads.spec.n);
        Self { decoder, params, heads, depth }
    }

    fn body(&self, depth: usize) -> &Body {
        &self.heads.heads[depth - 2].body
    }

    /// Layers that are seen, and how many of them are the model's own.
    fn layers(&self) -> (usize, usize) {
        let layers = self.heads.layers;
        match self.heads.spec.kind {
            HeadKind::Linear => (layers, layers),
            HeadKind::Layer | HeadKind::Causal => (layers, layers - 1),
            HeadKind::Anticausal => (layers + 1 - self.depth, layers + 1 - self.depth),
        }
    }

    /// What stands in the place of the last layer.
    fn last(&self, tape: &mut Tape, trunk: Var) -> Var {
        match self.heads.spec.kind {
            HeadKind::Causal => {
                let mut x = self.decoder.blocks[self.heads.layers - 1].forward(tape, trunk);
                for depth in 2..=self.depth {
                    if let Body::Block(block) = self.body(depth) {
                        x = block.forward(tape, x);
                    }
                }
                x
            }
            _ => match self.body(self.depth) {
                Body::Block(block) => block.forward(tape, trunk),
                Body::Linear(_) | Body::Readout => trunk,
            },
        }
    }
}

impl Taps for HeadTaps<'_> {
    fn params(&self) -> &Params {
        self.params
    }

    fn sizes(&self) -> TapSizes {
        let config = &self.decoder.config;
        let maps = self.decoder.blocks[0].linear_groups().into_iter().flatten();
        TapSizes {
            layers: self.layers().0,
            width: config.width,
            outputs: config.vocabulary,
            block_work: maps.map(|map| self.params.data(map.weight).len()).sum(),
            read_out_work: config.vocabulary * config.width,
        }
    }

    fn causal(&self) -> bool {
        true
    }

    fn rows(&self, input: &Input) -> usize {
        match input {
            Input::Tokens(tokens) => tokens.len(),
            _ => 0,
        }
    }

    fn run(&self, arena: &mut Arena, inputs: &[Input], hook: &mut Hook) -> Result<()> {
        let tokens: Vec<u32> = inputs
            .iter()
            .filter_map(|input| if let Input::Tokens(tokens) = input { Some(tokens) } else { None })
            .flatten()
            .copied()
            .collect();
        let length = tokens.len() / inputs.len().max(1);
        let layout = Layout {
            batch: inputs.len(),
            length,
            positions: (0..inputs.len()).flat_map(|_| 0..length as u32).collect(),
            first_visible: vec![0; tokens.len()],
            ..Layout::default()
        };
        let (layers, own) = self.layers();
        let mut tape = Tape::evaluation(self.params, arena, &layout);
        let mut x = self.decoder.embed(&mut tape, &tokens);
        for layer in 0..own {
            x = self.decoder.blocks[layer].forward(&mut tape, x);
            hook(layer, tape.value_mut(&x));
        }
        if own < layers {
            x = self.last(&mut tape, x);
            hook(own, tape.value_mut(&x));
        }
        tape.forget();
        Ok(())
    }

    fn read_out(&self, arena: &mut Arena, states: &[f32], logits: &mut Vec<f32>) {
        let width = self.decoder.config.width;
        let layout = Layout::single(states.len() / width);
        let mut tape = Tape::evaluation(self.params, arena, &layout);
        let mut x = tape.input(states, width);
        if let Body::Linear(map) = self.body(self.depth) {
            x = tape.linear(x, &[*map]);
        }
        let normed = self.decoder.final_norm(&mut tape, &x);
        let unembedding = self.heads.unembedding(self.decoder, self.depth);
        let out = self.decoder.logits_by(&mut tape, normed, unembedding);
        logits.clear();
        logits.extend_from_slice(tape.value(&out));
        tape.forget();
    }
}
