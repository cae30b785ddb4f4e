//! How far drafts reach: per depth, per request, with intervals over requests, and what was to be expected beside it.
//!
//! Rounds of one text are not independent, so the intervals are taken over requests: the bootstrap draws requests anew, and
//! each figure is a ratio of sums over them (Efron and Tibshirani 1993, chapter 13: percentiles).

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};
use tensor::random;

use crate::error::{Error, Result};
use crate::repetition::repeated_share;
use crate::speculate::{DecodeSettings, decode};
use crate::statistics::{DepthCounts, Statistics};
use crate::target::Target;

/// What drafts were worth at one temperature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Acceptance {
    /// Of target and draft.
    pub temperature: f32,
    /// Tokens drafted per round.
    pub draft_length: usize,
    /// Committed tokens per decoding round, after stop rules.
    pub tokens_per_forward: Estimate,
    /// Each place of a draft, the nearest first, as far as any round reached.
    pub depths: Vec<DepthAcceptance>,
    /// Share of the spans of 16 tokens that stand earlier in the same continuation: loops, which are easy to draft. None
    /// where all are shorter.
    pub repeated: Option<f64>,
    /// Each prompt, in order.
    pub requests: Vec<RequestAcceptance>,
}

/// A figure with the 95 % interval over requests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Over all requests together.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// One place of a draft.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DepthAcceptance {
    /// Place in the draft, from 1.
    pub depth: usize,
    /// Counts over all requests.
    pub counts: DepthCounts,
    /// Accepted of those that reached it.
    pub observed: Estimate,
    /// The mean of `sum of min(p, q)` there.
    pub expected: f64,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestAcceptance {
    /// Tokens of the continuation.
    pub tokens: usize,
    /// Decoding rounds.
    pub forwards: usize,
    /// None where the first token ended the text.
    pub tokens_per_forward: Option<f64>,
    /// Each place of a draft.
    pub depths: Vec<DepthCounts>,
}

/// Continues every prompt once, with drafts of `settings.draft_length` tokens.
///
/// # Errors
///
/// If there are no prompts, or decoding fails.
pub fn acceptance(
    target: &mut Target,
    prompts: &[Vec<u32>],
    settings: &DecodeSettings,
) -> Result<Acceptance> {
    if prompts.is_empty() {
        return Err(Error::setting("prompts", "there are none: give at least one"));
    }
    let mut requests = Vec::with_capacity(prompts.len());
    let mut texts = Vec::with_capacity(prompts.len());
    for (index, prompt) in prompts.iter().enumerate() {
        let mut settings = settings.clone();
        settings.sampling.seed = settings.sampling.seed.wrapping_add(index as u64);
        let decoded = decode(target, prompt, &settings, &mut |_, _| ControlFlow::Continue(()))?;
        texts.push(decoded.ids);
        requests.push(decoded.statistics);
    }
    let repeated = repeated_share(texts.iter().map(Vec::as_slice));
    Ok(of(&requests, repeated, settings))
}

fn of(requests: &[Statistics], repeated: Option<f64>, settings: &DecodeSettings) -> Acceptance {
    let mut all = Statistics::default();
    requests.iter().for_each(|request| all.merge(request));
    let at = |request: &Statistics, index: usize| request.depths.get(index).copied().unwrap_or_default();
    let depths = all.depths.iter().enumerate().map(|(index, counts)| DepthAcceptance {
        depth: index + 1,
        counts: *counts,
        observed: estimate(requests, |request| {
            let counts = at(request, index);
            (counts.accepted as f64, counts.drafted as f64)
        }),
        expected: counts.expected_acceptance().unwrap_or_default(),
    });
    Acceptance {
        temperature: settings.sampling.temperature,
        draft_length: settings.draft_length,
        tokens_per_forward: estimate(requests, |request| {
            (request.committed_tokens as f64, request.forwards as f64)
        }),
        depths: depths.collect(),
        repeated,
        requests: requests
            .iter()
            .map(|request| RequestAcceptance {
                tokens: request.new_tokens(),
                forwards: request.forwards,
                tokens_per_forward: request.tokens_per_forward(),
                depths: request.depths.clone(),
            })
            .collect(),
    }
}

/// How often requests are drawn anew.
const RESAMPLES: usize = 2000;

/// Purpose of the random stream that draws them.
const RESAMPLING: u64 = 35;

/// A ratio of sums over requests.
fn estimate(requests: &[Statistics], parts: impl Fn(&Statistics) -> (f64, f64)) -> Estimate {
    let parts: Vec<(f64, f64)> = requests.iter().map(parts).collect();
    let ratio = |sums: (f64, f64)| if sums.1 > 0.0 { sums.0 / sums.1 } else { 0.0 };
    let add = |a: (f64, f64), b: (f64, f64)| (a.0 + b.0, a.1 + b.1);
    let mut rng = random::seeded(1, RESAMPLING);
    let mut drawn: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let one = |_| parts[(random::uniform(&mut rng) * parts.len() as f32) as usize];
            ratio((0..parts.len()).map(one).fold((0.0, 0.0), add))
        })
        .collect();
    drawn.sort_by(f64::total_cmp);
    Estimate {
        value: ratio(parts.iter().copied().fold((0.0, 0.0), add)),
        low: drawn[RESAMPLES / 40],
        high: drawn[RESAMPLES - 1 - RESAMPLES / 40],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(drafted: usize, accepted: usize, forwards: usize) -> Statistics {
        let depths = vec![DepthCounts { drafted, accepted, expected: 0.5 * drafted as f64 }];
        Statistics {
            generations: 1,
            forwards,
            committed_tokens: forwards + accepted,
            depths,
            ..Statistics::default()
        }
    }

    #[test]
    fn intervals_are_over_requests_and_figures_over_all_rounds() {
        let requests: Vec<Statistics> = (0..50).map(|index| request(10, index % 10, 10)).collect();
        let found = of(&requests, None, &DecodeSettings { draft_length: 1, ..DecodeSettings::default() });
        let Estimate { value, low, high } = found.depths[0].observed;
        assert_eq!((value, found.depths[0].expected, found.requests.len()), (0.45, 0.5, 50));
        // The deviation of a mean of 50 requests, each uniform over 0, 0.1, ... 0.9: 0.287 / sqrt(50) = 0.0406.
        assert!((value - low - 1.96 * 0.0406).abs() < 0.01 && (high - value - 1.96 * 0.0406).abs() < 0.01);
        assert!((found.tokens_per_forward.value - 1.45).abs() < 1e-12);
        let one = of(&requests[..1], None, &DecodeSettings::default());
        assert_eq!(one.depths[0].observed, Estimate { value: 0.0, low: 0.0, high: 0.0 });
    }
}
