//! Does sampling with drafts have the target's distribution?
//!
//! Texts are sampled with drafts. A plain run of the model over each text then gives the distribution p that every one of its
//! tokens should have had, given those before it, and four statistics of the tokens are compared with what p implies:
//!
//! - two histograms of the place of the token within p (with the probability integral transform of discrete variables: uniform
//!   between the sums of p before and after it; uniform whatever the tokens before were, Brockwell 2007), with tokens in the
//!   order of ids and in the order of p;
//! - two sums of scores, the most powerful ones against two wrong verifiers: one that draws the residual from p, and one that
//!   verifies with q of the step before. Each score has a mean and a variance under p, so that their standardised sum is normal.
//!
//! All tests of all cases together reject a right verifier with the given probability at most (Holm).

mod alternatives;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};
use tensor::random::{self, Seeded};

use crate::error::{Error, Result};
use crate::filters::Distribution;
use crate::rejection::{Drafted, Exact, Rule};
use crate::sampling::{Sampler, SamplingSettings};
use crate::significance::{Test, chi_square_tail, holm, power, two_sided_normal_tail};
use crate::speculate::{DecodeSettings, Manner, decode_by};
use crate::statistics::Statistics;
use crate::target::Target;
use alternatives::Alternatives;

/// What to test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExactnessSettings {
    /// Tokens that are drawn and tested in each case, at least.
    pub draws: usize,
    /// Tokens drafted per round.
    pub draft_length: usize,
    /// Tokens of a text.
    pub tokens_per_text: usize,
    /// Decides all draws: fix it before looking.
    pub seed: u64,
    /// How often all tests together may reject a right verifier.
    pub level: f64,
}

impl Default for ExactnessSettings {
    fn default() -> Self {
        Self { draws: 20_000, draft_length: 3, tokens_per_text: 32, seed: 1, level: 0.01 }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exactness {
    /// Every case.
    pub cases: Vec<TestedCase>,
    /// Tests that were made, in all cases.
    pub tests: usize,
    /// How often all of them together may reject a right verifier.
    pub level: f64,
    /// Probability that at least one test would reject a verifier that draws the residual from p.
    pub power_residual_from_target: f64,
    /// Probability that at least one test would reject a verifier that takes q of the step before.
    pub power_stale_proposal: f64,
}

impl Exactness {
    /// Whether no test speaks against the verifier.
    pub fn holds(&self) -> bool {
        self.rejections().next().is_none()
    }

    /// The tests that do, with their cases.
    pub fn rejections(&self) -> impl Iterator<Item = (&TestedCase, &Test)> {
        let of = |case| move |test| (case, test);
        self.cases.iter().flat_map(move |case| case.tests.iter().filter(|test| test.rejected).map(of(case)))
    }
}

/// One way to sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestedCase {
    /// Tokens that could be drawn: those of the model, or the few that the case is restricted to.
    pub vocabulary: usize,
    /// Temperature and filters.
    pub sampling: SamplingSettings,
    /// Tokens drawn and tested.
    pub draws: usize,
    /// Those of them at places that a draft reached.
    pub drafted: usize,
    /// The tests.
    pub tests: Vec<Test>,
    /// Power of the test that is made for a verifier that draws the residual from p, within this case alone.
    pub power_residual_from_target: f64,
    /// Power of the test that is made for a verifier that takes q of the step before, within this case alone.
    pub power_stale_proposal: f64,
    /// Acceptance and cost.
    pub statistics: Statistics,
}

/// Temperatures of the cases.
const TEMPERATURES: [f32; 3] = [0.5, 1.0, 1.5];

/// Tokens of the tiny vocabulary.
const TINY: usize = 6;

/// Samples and tests: the model's vocabulary and a tiny one (its likeliest tokens after the first prompt), three temperatures,
/// with and without filters. `progress` is told how many of how many draws are done.
///
/// # Errors
///
/// If there is nothing to test, prompts leave no room for a text, or decoding fails.
pub fn exactness(
    target: &mut Target,
    prompts: &[Vec<u32>],
    settings: &ExactnessSettings,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Exactness> {
    exactness_of(&Exact, target, prompts, settings, progress)
}

fn exactness_of(
    rule: &dyn Rule,
    target: &mut Target,
    prompts: &[Vec<u32>],
    settings: &ExactnessSettings,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Exactness> {
    let Some(first) = prompts.first() else {
        return Err(Error::setting("prompts", "there are none: give at least one"));
    };
    if settings.draws == 0 {
        return Err(Error::setting("draws", "0: give at least 1"));
    }
    if settings.draft_length == 0 || target.longest_draft() == 0 {
        return Err(Error::setting("draft", "there is nothing that drafts: nothing to test"));
    }
    let tiny = likeliest(target, first)?;
    let mut cases = Vec::new();
    let wanted = settings.draws * 2 * TEMPERATURES.len() * 2;
    for allowed in [Some(tiny.as_slice()), None] {
        for temperature in TEMPERATURES {
            let plain = SamplingSettings { temperature, ..SamplingSettings::default() };
            let top_k = if allowed.is_some() { 4 } else { 20 };
            let filtered =
                SamplingSettings { top_k, top_p: 0.9, min_p: 0.02, repetition_penalty: 1.2, ..plain.clone() };
            for sampling in [plain, filtered] {
                let done = cases.len() * settings.draws;
                let manner = Manner { rule, allowed };
                let number = cases.len() as u64;
                let vocabulary = allowed.map_or(target.vocabulary(), <[u32]>::len);
                let mut case = Case::new(manner, sampling, settings, number, vocabulary);
                case.run(target, prompts, &mut |draws| progress(done + draws.min(settings.draws), wanted))?;
                cases.push(case);
            }
        }
    }
    Ok(report(cases, settings.level))
}

/// The tokens of the tiny vocabulary.
fn likeliest(target: &mut Target, prompt: &[u32]) -> Result<Vec<u32>> {
    let logits = target.prefill(prompt, false)?;
    let mut tokens: Vec<u32> = (0..logits.width as u32).collect();
    tokens.sort_by(|a, b| logits.data[*b as usize].total_cmp(&logits.data[*a as usize]));
    tokens.truncate(TINY);
    tokens.sort_unstable();
    target.recycle(logits);
    Ok(tokens)
}

/// Bins of a histogram.
const BINS: usize = 64;

/// Purpose of the random stream that places tokens within their share of p.
const PLACING: u64 = 34;

/// Sums over the tokens of one case.
struct Case<'a> {
    manner: Manner<'a>,
    vocabulary: usize,
    settings: &'a ExactnessSettings,
    sampling: SamplingSettings,
    number: u64,
    placing: Seeded,
    by_id: Vec<usize>,
    by_probability: Vec<usize>,
    alternatives: Alternatives,
    draws: usize,
    drafted: usize,
    statistics: Statistics,
}

impl<'a> Case<'a> {
    fn new(
        manner: Manner<'a>,
        sampling: SamplingSettings,
        settings: &'a ExactnessSettings,
        number: u64,
        vocabulary: usize,
    ) -> Self {
        Self {
            manner,
            vocabulary,
            settings,
            sampling,
            number,
            placing: random::seeded(settings.seed ^ number << 32, PLACING),
            by_id: vec![0; BINS],
            by_probability: vec![0; BINS],
            alternatives: Alternatives::default(),
            draws: 0,
            drafted: 0,
            statistics: Statistics::default(),
        }
    }

    fn run(
        &mut self,
        target: &mut Target,
        prompts: &[Vec<u32>],
        progress: &mut dyn FnMut(usize),
    ) -> Result<()> {
        let mut text = 0;
        while self.draws < self.settings.draws {
            let prompt = &prompts[text % prompts.len()];
            // Seeds of different cases and texts never meet: a case has fewer than 2^32 texts.
            self.sampling.seed = self.settings.seed.wrapping_add((self.number << 32) + text as u64);
            let settings = DecodeSettings {
                max_new_tokens: self.settings.tokens_per_text,
                draft_length: self.settings.draft_length.min(target.longest_draft()),
                sampling: self.sampling.clone(),
                end_tokens: Vec::new(),
            };
            let mut rows: Vec<(Option<Drafted>, Option<Drafted>)> = Vec::new();
            let mut watch =
                |row: crate::speculate::Row| rows.push((row.drafted.cloned(), row.earlier.cloned()));
            let go_on = &mut |_, _| ControlFlow::Continue(());
            let decoded = decode_by(&self.manner, target, prompt, &settings, &mut watch, go_on)?;
            self.statistics.merge(&decoded.statistics);
            self.test(target, prompt, &decoded.ids, &rows)?;
            text += 1;
            progress(self.draws);
        }
        Ok(())
    }

    /// Compares a text with what a plain run of the model says of each of its tokens.
    fn test(
        &mut self,
        target: &mut Target,
        prompt: &[u32],
        ids: &[u32],
        rows: &[(Option<Drafted>, Option<Drafted>)],
    ) -> Result<()> {
        let mut sampler = Sampler::within(&self.sampling, self.manner.allowed)?;
        prompt.iter().for_each(|token| sampler.observe(*token));
        let mut logits = target.prefill(prompt, false)?;
        let mut row = 0;
        for (place, (&token, (drafted, earlier))) in ids.iter().zip(rows).enumerate() {
            if place == 1 {
                target.recycle(logits);
                logits = target.forward(&ids[..ids.len() - 1])?;
                row = 0;
            }
            let width = logits.width;
            let here = &mut logits.data[row * width..(row + 1) * width];
            let p = sampler.distribution(here, prompt.len() + place)?;
            self.count(p, token, drafted.as_ref(), earlier.as_ref());
            sampler.observe(token);
            row += 1;
        }
        target.recycle(logits);
        Ok(())
    }

    fn count(&mut self, p: &Distribution, token: u32, drafted: Option<&Drafted>, earlier: Option<&Drafted>) {
        self.draws += 1;
        let share = p.probability(token);
        let (mut below, mut likelier) = (0.0, 0.0);
        for entry in p.entries() {
            let probability = f64::from(entry.probability);
            below += if entry.token < token { probability } else { 0.0 };
            let first = entry.probability > share || (entry.probability == share && entry.token < token);
            likelier += if first { probability } else { 0.0 };
        }
        let within = f64::from(share) * f64::from(random::uniform(&mut self.placing));
        for (bins, before) in [(&mut self.by_id, below), (&mut self.by_probability, likelier)] {
            let bin = ((before + within) * BINS as f64) as usize;
            bins[bin.min(BINS - 1)] += 1;
        }
        if let Some(drafted) = drafted {
            self.drafted += 1;
            self.alternatives.count(p, token, drafted, earlier);
        }
    }

    fn tests(&self) -> Vec<Test> {
        let histogram = |name: &str, bins: &[usize]| {
            let expected = self.draws as f64 / BINS as f64;
            let statistic: f64 = bins.iter().map(|&n| (n as f64 - expected).powi(2) / expected).sum();
            let p_value = chi_square_tail(statistic, (BINS - 1) as f64);
            Test { name: name.to_owned(), statistic, p_value, rejected: false }
        };
        let score = |name: &str, z: Option<f64>| {
            z.map(|z| Test {
                name: name.to_owned(),
                statistic: z,
                p_value: two_sided_normal_tail(z),
                rejected: false,
            })
        };
        let scores = [
            score("score against a residual drawn from p", self.alternatives.residual_from_target.z()),
            score("score against q of the step before", self.alternatives.stale_proposal.z()),
        ];
        [histogram("place by id", &self.by_id), histogram("place by probability", &self.by_probability)]
            .into_iter()
            .chain(scores.into_iter().flatten())
            .collect()
    }
}

fn report(cases: Vec<Case>, level: f64) -> Exactness {
    let mut cases: Vec<(Case, Vec<Test>)> = cases
        .into_iter()
        .map(|case| {
            let tests = case.tests();
            (case, tests)
        })
        .collect();
    let count = cases.iter().map(|(_, tests)| tests.len()).sum();
    holm(&mut cases.iter_mut().flat_map(|(_, tests)| tests.iter_mut()).collect::<Vec<_>>(), level);
    // The first step of Holm: what a single case has to reach.
    let hardest = level / count as f64;
    let cases: Vec<TestedCase> = cases
        .into_iter()
        .map(|(case, tests)| TestedCase {
            vocabulary: case.vocabulary,
            draws: case.draws,
            drafted: case.drafted,
            tests,
            power_residual_from_target: power(case.alternatives.residual_from_target.drift(), hardest),
            power_stale_proposal: power(case.alternatives.stale_proposal.drift(), hardest),
            statistics: case.statistics,
            sampling: case.sampling,
        })
        .collect();
    let together =
        |of: fn(&TestedCase) -> f64| 1.0 - cases.iter().map(|case| 1.0 - of(case)).product::<f64>();
    Exactness {
        tests: count,
        level,
        power_residual_from_target: together(|case| case.power_residual_from_target),
        power_stale_proposal: together(|case| case.power_stale_proposal),
        cases,
    }
}
