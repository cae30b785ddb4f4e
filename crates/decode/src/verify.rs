//! The greedy identity: decoding with drafts gives the tokens of decoding without, whatever the draft length.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::sampling::Sampler;
use crate::speculate::{DecodeSettings, Decoded, decode};
use crate::statistics::Statistics;
use crate::target::Target;

/// What the comparison found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// Prompts that were continued.
    pub prompts: usize,
    /// Tokens compared, over all prompts and draft lengths.
    pub compared_tokens: usize,
    /// Continuations that differ, at most one for each prompt and draft length.
    pub divergences: Vec<Divergence>,
    /// Decoding without drafts.
    pub plain: Statistics,
    /// Decoding with drafts of 1, 2, ... tokens.
    pub drafted: Vec<Statistics>,
}

/// Where a continuation with drafts first differs from the one without.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// Index of the prompt.
    pub prompt: usize,
    /// Tokens drafted per round.
    pub draft_length: usize,
    /// Index of the token within the continuation.
    pub position: usize,
    /// The token without drafts; none if that continuation ended before.
    pub plain: Option<u32>,
    /// The token with drafts; none if that continuation ended before.
    pub drafted: Option<u32>,
    /// By how much the logit of the first is above the second's there, when the model runs over all tokens before as one
    /// prompt. Next to nothing points to arithmetic that depends on neighbouring rows, more to a cache that is wrong.
    pub logit_gap: Option<f32>,
}

impl Verification {
    /// Whether every continuation was the same.
    pub fn identical(&self) -> bool {
        self.divergences.is_empty()
    }
}

/// Continues every prompt without drafts and with drafts of every length that the drafter makes. `settings.draft_length`
/// does not matter. `progress` is told how many of how many continuations are done.
///
/// # Errors
///
/// If the settings are not greedy, there is nothing to compare, or decoding fails.
pub fn verify(
    target: &mut Target,
    prompts: &[Vec<u32>],
    settings: &DecodeSettings,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Verification> {
    let longest = target.longest_draft();
    if !settings.sampling.greedy() {
        return Err(Error::setting("temperature", "identity holds for greedy decoding: set it to 0"));
    }
    if longest == 0 {
        return Err(Error::setting(
            "draft",
            "this model has no heads that draft: there is nothing to compare",
        ));
    }
    if prompts.is_empty() {
        return Err(Error::setting("prompts", "there are none: give at least one"));
    }
    let mut verification = Verification {
        prompts: prompts.len(),
        compared_tokens: 0,
        divergences: Vec::new(),
        plain: Statistics::default(),
        drafted: vec![Statistics::default(); longest],
    };
    let runs = prompts.len() * (longest + 1);
    for (index, prompt) in prompts.iter().enumerate() {
        let plain = run(target, prompt, settings, 0)?;
        verification.plain.merge(&plain.statistics);
        progress(index * (longest + 1) + 1, runs);
        for draft_length in 1..=longest {
            let drafted = run(target, prompt, settings, draft_length)?;
            verification.drafted[draft_length - 1].merge(&drafted.statistics);
            verification.compared_tokens += plain.ids.len();
            if let Some(position) = first_difference(&plain.ids, &drafted.ids) {
                let (plain, drafted) = (plain.ids.as_slice(), drafted.ids.as_slice());
                verification.divergences.push(Divergence {
                    prompt: index,
                    draft_length,
                    position,
                    plain: plain.get(position).copied(),
                    drafted: drafted.get(position).copied(),
                    logit_gap: logit_gap(target, prompt, plain, drafted, position, settings)?,
                });
            }
            progress(index * (longest + 1) + 1 + draft_length, runs);
        }
    }
    Ok(verification)
}

fn run(
    target: &mut Target,
    prompt: &[u32],
    settings: &DecodeSettings,
    draft_length: usize,
) -> Result<Decoded> {
    let settings = DecodeSettings { draft_length, ..settings.clone() };
    decode(target, prompt, &settings, &mut |_, _| ControlFlow::Continue(()))
}

/// The first place where the tokens differ, or where one continuation ends before the other.
fn first_difference(plain: &[u32], drafted: &[u32]) -> Option<usize> {
    let common = plain.iter().zip(drafted).take_while(|(plain, drafted)| plain == drafted).count();
    (common < plain.len().max(drafted.len())).then_some(common)
}

/// How far apart two tokens are after what both continuations share.
fn logit_gap(
    target: &mut Target,
    prompt: &[u32],
    plain: &[u32],
    drafted: &[u32],
    position: usize,
    settings: &DecodeSettings,
) -> Result<Option<f32>> {
    let (Some(ours), Some(theirs)) = (plain.get(position), drafted.get(position)) else { return Ok(None) };
    let before = [prompt, &plain[..position]].concat();
    let mut sampler = Sampler::new(&settings.sampling)?;
    before.iter().for_each(|token| sampler.observe(*token));
    let mut logits = target.prefill(&before, false)?;
    sampler.penalise(&mut logits.data);
    let gap = logits.data[*ours as usize] - logits.data[*theirs as usize];
    target.recycle(logits);
    Ok(Some(gap))
}

#[cfg(test)]
mod tests {
    use super::first_difference;

    #[test]
    fn the_first_difference_is_found_and_so_is_an_early_end() {
        assert_eq!(first_difference(&[1, 2, 3], &[1, 2, 3]), None);
        assert_eq!(first_difference(&[1, 2, 3], &[1, 7, 3]), Some(1));
        assert_eq!(first_difference(&[1, 2, 3], &[1, 2]), Some(2));
        assert_eq!(first_difference(&[1], &[1, 2]), Some(1));
        assert_eq!(first_difference(&[], &[]), None);
    }
}
