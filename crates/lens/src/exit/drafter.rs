//! Leaving early without loss: the early layers draft, the rest verifies and goes on where they stopped.
//!
//! After the decided token has run through the early layers, the lens reads the token after it; if it is sure enough (by lead or
//! by probe) that becomes a draft and runs through the early layers in its turn. What ran is handed to the next run of the model,
//! which takes those rows from there on ([`Drafter::begun`]): of the early layers nothing runs twice (Elhoushi et al. 2404.16710,
//! section 4.3). Every token is the model's own all the same.

use std::sync::{Mutex, PoisonError};

use model::Decoder;
use model::engine::{Engine, EngineWeights, Rows};
use objective::{Begun, Chooser, Drafter, Verified};
use tensor::{Ops, Params};

use super::Rule;
use crate::error::{Error, Result};
use crate::look::lead_of;
use crate::probe::Probe;

/// Drafts with the early layers of the model itself.
pub struct ExitDrafter {
    /// Blocks that draft.
    blocks: usize,
    /// Drafting goes on while this rule would leave.
    rule: Rule,
    probe: Option<Probe>,
    longest: usize,
    /// What ran for the latest draft.
    begun: Mutex<Option<Begun>>,
}

/// Longer drafts than this would not be accepted.
pub const LONGEST: usize = 15;

impl ExitDrafter {
    /// The first `blocks` blocks of a model of `layers` draft up to `longest` tokens, as long as `rule` would leave there.
    ///
    /// # Errors
    /// When no layer is left to verify, or the rule is none that can be asked while writing.
    pub fn new(layers: usize, blocks: usize, longest: usize, rule: Rule, probe: Option<Probe>) -> Result<Self> {
        if blocks == 0 || blocks >= layers {
            let problem = format!("{blocks}: give 1 to {}, so that a layer is left to verify", layers.saturating_sub(1));
            return Err(Error::setting("exit-layer", problem));
        }
        if longest == 0 || longest > LONGEST {
            return Err(Error::setting("speculate", format!("{longest} tokens: give 1 to {LONGEST}")));
        }
        match (rule, &probe) {
            (Rule::Probe, Some(_)) | (Rule::Response(_), _) => {}
            _ => return Err(Error::setting("exit-rule", "give a threshold, or a probe".to_owned())),
        }
        Ok(Self { blocks, rule, probe, longest, begun: Mutex::default() })
    }

    fn sure(&self, state: &[f32], logits: &[f32]) -> bool {
        match (self.rule, &self.probe) {
            (Rule::Probe, Some(probe)) => probe.settled(self.blocks - 1, state),
            (Rule::Response(threshold), _) => f64::from(lead_of(logits)) >= threshold,
            _ => false,
        }
    }
}

impl Drafter for ExitDrafter {
    fn longest(&self) -> usize {
        self.longest
    }

    fn taps(&self) -> Vec<usize> {
        Vec::new()
    }

    fn pack(&self, _: &mut EngineWeights, _: &Params) {}

    fn draft(
        &self,
        engine: &mut Engine,
        decoder: &Decoder,
        verified: &Verified,
        length: usize,
        chooser: &mut dyn Chooser,
    ) {
        if length == 0 {
            return;
        }
        let first = verified.first_position + verified.rows;
        let mut token = verified.decided();
        let mut states: Vec<Rows> = Vec::with_capacity(length);
        for place in 0..length {
            engine.stand_at(first + place);
            let embedded = decoder.embed(engine, &[token]);
            let state = decoder.run_blocks(engine, embedded, 0..self.blocks, &mut |_, _, _| {});
            let normed = decoder.final_norm(engine, &state);
            let mut logits = decoder.logits(engine, normed);
            let sure = self.sure(&state.data, &logits.data);
            states.push(state);
            if sure {
                token = chooser.choose(&mut logits.data);
            }
            engine.recycle(logits);
            if !sure {
                break;
            }
        }
        let begun = Begun { blocks: self.blocks, states: engine.stack(states) };
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun);
    }

    fn begun(&self) -> Option<Begun> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
