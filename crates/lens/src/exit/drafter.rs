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
use tensor::Params;

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
    pub fn new(
        layers: usize,
        blocks: usize,
        longest: usize,
        rule: Rule,
        probe: Option<Probe>,
    ) -> Result<Self> {
        if blocks == 0 || blocks >= layers {
            let problem = format!(
                "{blocks}: give 1 to {}, so that a layer is left to verify",
                layers.saturating_sub(1)
            );
            return Err(Error::setting("exit-layer", problem));
        }
        if longest == 0 || longest > LONGEST {
            return Err(Error::setting("speculate", format!("{longest} tokens: give 1 to {LONGEST}")));
        }
        match (rule, &probe) {
            (Rule::Response(lead), _) if !(-1.0..=1.0).contains(&lead) => {
                return Err(Error::setting(
                    "exit-threshold",
                    format!("{lead}: give a probability from 0 to 1, or -1 to draft always"),
                ));
            }
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
        let (mut tokens, mut states): (Vec<u32>, Vec<Rows>) = Default::default();
        for place in 0..length {
            engine.stand_at(first + place);
            let embedded = decoder.embed(engine, &[token]);
            let state = decoder.run_blocks(engine, embedded, 0..self.blocks, &mut |_, _, _| {});
            let normed = decoder.final_norm(engine, &state);
            let mut logits = decoder.logits(engine, normed);
            let sure = self.sure(&state.data, &logits.data);
            tokens.push(token);
            states.push(state);
            if sure {
                token = chooser.choose(&mut logits.data);
            }
            engine.recycle(logits);
            if !sure {
                break;
            }
        }
        let begun = Begun { blocks: self.blocks, tokens, states: engine.stack(states) };
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun);
    }

    fn begun(&self) -> Option<Begun> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::sync::Arc;

    use decode::{DecodeSettings, Decoded, SamplingSettings, Target, decode};
    use kernels::team::Team;
    use model::presets::preset;

    use super::*;

    fn toy(layers: usize) -> (Decoder, Arc<EngineWeights>) {
        let mut config = preset("1M", 43).unwrap();
        (config.width, config.head_dim, config.ffn, config.layers) = (32, 8, 64, layers);
        let (decoder, params) = Decoder::initialise(&config, 5).unwrap();
        let weights = Target::pack(&decoder, None, &params);
        (decoder, weights)
    }

    fn run(
        decoder: &Decoder,
        weights: &Arc<EngineWeights>,
        drafter: Option<&dyn Drafter>,
        draft_length: usize,
        sampling: SamplingSettings,
    ) -> Decoded {
        let mut target =
            Target::new(decoder, drafter, Arc::clone(weights), Arc::new(Team::new(1)), 96).unwrap();
        let settings = DecodeSettings { max_new_tokens: 50, draft_length, sampling, end_tokens: Vec::new() };
        decode(&mut target, &[3, 1, 4, 1, 5], &settings, &mut |_, _| ControlFlow::Continue(())).unwrap()
    }

    #[test]
    fn greedy_text_is_the_models_whatever_drafts_and_however_long() {
        let (decoder, weights) = toy(5);
        let plain = run(&decoder, &weights, None, 0, SamplingSettings::default());
        for blocks in 1..5 {
            for (threshold, length) in [(-1.0, 1), (-1.0, 6), (0.001, 4), (2.0, 3)] {
                let drafter = ExitDrafter::new(5, blocks, length, Rule::Response(threshold), None).unwrap();
                let drafted = run(&decoder, &weights, Some(&drafter), length, SamplingSettings::default());
                assert_eq!(drafted.ids, plain.ids, "{blocks} blocks, threshold {threshold}, {length} tokens");
                let depths = &drafted.statistics.depths;
                assert_eq!(depths.first().is_some_and(|depth| depth.drafted > 0), threshold < 1.0);
            }
        }
    }

    #[test]
    fn nothing_of_one_text_is_left_for_the_next() {
        let (decoder, weights) = toy(4);
        let drafter = ExitDrafter::new(4, 2, 3, Rule::Response(-1.0), None).unwrap();
        let plain = run(&decoder, &weights, None, 0, SamplingSettings::default());
        let mut target =
            Target::new(&decoder, Some(&drafter), Arc::clone(&weights), Arc::new(Team::new(1)), 96).unwrap();
        target.prefill(&[1, 2], true).unwrap();
        target.draft(7, 3, &mut objective::Greedy::default());
        let settings = DecodeSettings { max_new_tokens: 50, draft_length: 3, ..DecodeSettings::default() };
        let again =
            decode(&mut target, &[3, 1, 4, 1, 5], &settings, &mut |_, _| ControlFlow::Continue(())).unwrap();
        assert_eq!(again.ids, plain.ids);
    }

    #[test]
    fn what_cannot_draft_is_refused() {
        for (blocks, longest, rule) in [
            (0, 3, Rule::Response(0.5)),
            (4, 3, Rule::Response(0.5)),
            (2, 0, Rule::Response(0.5)),
            (2, 3, Rule::Oracle),
            (2, 3, Rule::Probe),
        ] {
            assert!(ExitDrafter::new(4, blocks, longest, rule, None).is_err(), "{blocks} {longest} {rule:?}");
        }
    }
}
