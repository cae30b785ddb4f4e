//! Drafting with registers: the rows that learnt to predict tokens farther ahead say what may come.
//!
//! Behind every token that is verified stand registers for the places of the next draft, in the same run of the model. The token
//! after the last committed one is the model's own; the first place of a draft is two tokens ahead, offset 2. A register with
//! offset d stands d - 1 positions after its token, as in training. Those of tokens that were rejected are forgotten.

use model::Decoder;
use model::engine::{Engine, EngineWeights};
use tensor::{ParamId, Params};

use super::Registers;
use crate::{Chooser, Drafter, Verified};

impl Drafter for Registers {
    /// Up to the largest offset that was learnt, in an image within its row.
    fn longest(&self) -> usize {
        self.spec.longest_draft()
    }

    fn taps(&self) -> Vec<usize> {
        Vec::new()
    }

    fn pack(&self, weights: &mut EngineWeights, params: &Params) {
        weights.add_vector(self.vector(), params);
    }

    fn draft(
        &self,
        engine: &mut Engine,
        decoder: &Decoder,
        verified: &Verified,
        length: usize,
        chooser: &mut dyn Chooser,
    ) {
        let Some(beside) = verified.beside.filter(|_| length > 0) else { return };
        let states = engine.copy_rows(beside, 0, length);
        let normed = decoder.final_norm(engine, &states);
        engine.recycle(states);
        let mut logits = decoder.logits(engine, normed);
        for row in logits.data.chunks_exact_mut(logits.width) {
            chooser.choose(row);
        }
        engine.recycle(logits);
    }

    fn beside(&self) -> Option<ParamId> {
        Some(self.vector())
    }
}
