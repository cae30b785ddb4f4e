//! The loss of early exits (LayerSkip, Elhoushi et al. 2404.16710, section 4.1.2): what the model would say after an earlier block,
//! read with its own last norm and unembedding, learns the same targets.
//!
//! Without it nothing asks a model to decide before its last block. Where a decision takes several steps, one after the other,
//! those that are learnt first then settle in late blocks and leave none for the rest.

use std::ops::Range;

use model::Decoder;
use tensor::{LearningRows, Tape, Var};

use crate::Window;

/// Blocks (from 0) after which such a loss is taken, in a model of `layers`: all but the first, whose attention finds no more than
/// the tokens as they are, and the last.
pub fn exit_layers(layers: usize) -> Range<usize> {
    1..layers.saturating_sub(1).max(1)
}

/// Normed states after the blocks that have such a loss.
pub(crate) struct Exits<'a> {
    decoder: &'a Decoder,
    weight: f32,
    states: Vec<Var>,
}

impl<'a> Exits<'a> {
    /// None yet; none at all where `window` gives them no weight.
    pub(crate) fn new(decoder: &'a Decoder, window: &Window) -> Self {
        Self { decoder, weight: window.exit_weight, states: Vec::new() }
    }

    /// Keeps the state after block `layer` (from 0) if it is one of [`exit_layers`].
    pub(crate) fn see(&mut self, tape: &mut Tape, layer: usize, state: &Var) {
        if self.weight > 0.0 && exit_layers(self.decoder.blocks.len()).contains(&layer) {
            self.states.push(self.decoder.final_norm(tape, state));
        }
    }

    /// Whether there are none to learn.
    pub(crate) fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// The loss of `parts`, their scales times the exits' weight; what the unembedding says is learnt there as well.
    pub(crate) fn learn(&self, tape: &mut Tape, parts: &[LearningRows]) {
        let (unembedding, cap) = (self.decoder.unembedding, self.decoder.config.variant.logit_cap);
        let parts: Vec<LearningRows> =
            parts.iter().map(|part| LearningRows { scale: self.weight * part.scale, ..*part }).collect();
        for state in &self.states {
            tape.cross_entropy_of_rows(state, unembedding, &parts, cap, None);
        }
    }
}
