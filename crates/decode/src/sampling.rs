//! Settings of sampling, and the sampler that turns a row of logits into a token.

use kernels::argmax::argmax;
use objective::Chooser;
use serde::{Deserialize, Serialize};
use tensor::random::{self, Seeded};

use crate::error::{Error, Result};
use crate::filters::{Distribution, Seen};
use crate::rejection::{Drafted, Judged, Rule};

/// How a token is chosen among the logits. The default is greedy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingSettings {
    /// Divides the logits; 0 always takes the most likely token (greedy), and no other filter matters then.
    pub temperature: f32,
    /// Only this many most likely tokens; 0 leaves all.
    pub top_k: usize,
    /// Only the most likely tokens that together reach this probability; 1 leaves all.
    pub top_p: f32,
    /// Only tokens at least this fraction as likely as the most likely one; 0 leaves all.
    pub min_p: f32,
    /// Above 1 makes tokens that stand in the prompt or in the text so far less likely; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Equal seeds draw equal tokens.
    pub seed: u64,
}

impl Default for SamplingSettings {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

impl SamplingSettings {
    /// Whether nothing is drawn.
    pub fn greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// Refuses settings that mean nothing.
    ///
    /// # Errors
    ///
    /// Naming the first setting that is out of its range.
    pub fn validate(&self) -> Result<()> {
        let refuse =
            |setting, value: f32, range| Err(Error::setting(setting, format!("{value} is not {range}")));
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return refuse("temperature", self.temperature, "a number from 0 (greedy) on");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse("top_p", self.top_p, "above 0 and at most 1; 1 switches the filter off");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return refuse("min_p", self.min_p, "between 0 and 1; 0 switches the filter off");
        }
        // Beyond this a logit of usual size could become infinite.
        if !(1e-6..=1e6).contains(&self.repetition_penalty) {
            return refuse(
                "repetition_penalty",
                self.repetition_penalty,
                "between 1e-6 and 1e6; 1 changes nothing",
            );
        }
        Ok(())
    }
}

/// Purposes of the random streams that draw the model's tokens and the drafts'.
const SAMPLING: u64 = 32;
const DRAFTING: u64 = 33;

/// Chooses the tokens of one text.
#[derive(Debug)]
pub struct Sampler {
    settings: SamplingSettings,
    seen: Seen,
    rng: Seeded,
    drafting_rng: Seeded,
    distribution: Distribution,
    /// The only tokens that may be chosen.
    allowed: Option<Vec<u32>>,
}

impl Sampler {
    /// A sampler that has seen nothing yet.
    ///
    /// # Errors
    ///
    /// If the settings are out of their ranges.
    pub fn new(settings: &SamplingSettings) -> Result<Self> {
        Self::within(settings, None)
    }

    /// As [`new`](Self::new), of a vocabulary that has the tokens `allowed` only.
    pub(crate) fn within(settings: &SamplingSettings, allowed: Option<&[u32]>) -> Result<Self> {
        settings.validate()?;
        Ok(Self {
            allowed: allowed.map(<[u32]>::to_vec),
            settings: settings.clone(),
            seen: Seen::default(),
            rng: random::seeded(settings.seed, SAMPLING),
            drafting_rng: random::seeded(settings.seed, DRAFTING),
            distribution: Distribution::default(),
        })
    }

    /// Takes in a token of the prompt or of the text.
    pub fn observe(&mut self, token: u32) {
        if self.penalises() {
            self.seen.add(token);
        }
    }

    /// The token after `position`, given its `logits` `[vocabulary]`, which are used up. Greedy ties go to the lowest id.
    ///
    /// # Errors
    ///
    /// If the logits are not finite.
    pub fn choose(&mut self, logits: &mut [f32], position: usize) -> Result<u32> {
        if !self.settings.greedy() {
            self.fill(logits, position)?;
            return Ok(self.distribution.at(random::uniform(&mut self.rng)));
        }
        self.penalise(logits);
        let token = argmax(logits);
        match logits.get(token) {
            Some(logit) if logit.is_finite() => Ok(token as u32),
            _ => Err(Error::NotFinite { position }),
        }
    }

    /// What [`choose`](Self::choose) would draw from.
    ///
    /// # Errors
    ///
    /// If the logits are not finite.
    ///
    /// # Panics
    ///
    /// If the settings are greedy.
    pub fn distribution(&mut self, logits: &mut [f32], position: usize) -> Result<&Distribution> {
        self.fill(logits, position)?;
        Ok(&self.distribution)
    }

    /// The token after `position`, where `drafted` was proposed by a draft whose token before was `earlier`; and whether it
    /// is that token, accepted. Its distribution is that of [`choose`](Self::choose).
    ///
    /// # Errors
    ///
    /// If the logits are not finite.
    pub(crate) fn judge(
        &mut self,
        rule: &dyn Rule,
        logits: &mut [f32],
        position: usize,
        drafted: &Drafted,
        earlier: Option<&Drafted>,
    ) -> Result<Judged> {
        if self.settings.greedy() {
            let token = self.choose(logits, position)?;
            let accepted = token == drafted.token;
            return Ok(Judged { token, accepted, expected: f64::from(u8::from(accepted)) });
        }
        self.fill(logits, position)?;
        let (token, accepted) = rule.decide(&self.distribution, drafted, earlier, &mut self.rng);
        Ok(Judged { token, accepted, expected: drafted.expected_acceptance(&self.distribution) })
    }

    /// Chooses the tokens of one draft as this sampler chooses those of the text, from a random stream of their own.
    pub(crate) fn drafting(&mut self) -> Drafting<'_> {
        Drafting { sampler: self, drafted: Vec::new(), new: 0 }
    }

    fn fill(&mut self, logits: &mut [f32], position: usize) -> Result<()> {
        self.penalise(logits);
        self.distribution.fill(logits, &self.settings, position)
    }

    pub(crate) fn penalise(&self, logits: &mut [f32]) {
        if self.penalises() {
            self.seen.penalise(logits, self.settings.repetition_penalty);
        }
        if let Some(allowed) = &self.allowed {
            let kept: Vec<f32> = allowed.iter().map(|token| logits[*token as usize]).collect();
            logits.fill(f32::NEG_INFINITY);
            allowed.iter().zip(kept).for_each(|(token, logit)| logits[*token as usize] = logit);
        }
    }

    fn penalises(&self) -> bool {
        self.settings.repetition_penalty != 1.0
    }
}

/// A draft being made. What it observes is forgotten when it ends.
pub(crate) struct Drafting<'a> {
    sampler: &'a mut Sampler,
    drafted: Vec<Drafted>,
    /// Tokens that were new to the text.
    new: usize,
}

impl Drafting<'_> {
    /// The tokens, and what each was drawn from.
    pub(crate) fn finish(mut self) -> Vec<Drafted> {
        std::mem::take(&mut self.drafted)
    }

    fn take(&mut self, token: u32, proposal: Option<Distribution>) -> u32 {
        if self.sampler.penalises() {
            self.new += usize::from(self.sampler.seen.add(token));
        }
        self.drafted.push(Drafted { token, proposal });
        token
    }
}

impl Chooser for Drafting<'_> {
    fn choose(&mut self, logits: &mut [f32]) -> u32 {
        let sampler = &mut *self.sampler;
        sampler.penalise(logits);
        if !sampler.settings.greedy() {
            let mut proposal = Distribution::default();
            // A drafter whose numbers are bad makes bad drafts, which are refused: no reason to stop.
            if proposal.fill(logits, &sampler.settings, 0).is_ok() {
                let token = proposal.at(random::uniform(&mut sampler.drafting_rng));
                return self.take(token, Some(proposal));
            }
        }
        self.take(argmax(logits) as u32, None)
    }

    fn propose(&mut self, token: u32) {
        self.take(token, None);
    }
}

impl Drop for Drafting<'_> {
    fn drop(&mut self) {
        self.sampler.seen.forget(self.new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(settings: SamplingSettings) -> Sampler {
        Sampler::new(&settings).unwrap()
    }

    #[test]
    fn greedy_takes_the_lowest_id_among_equals_after_the_penalty() {
        let settings = SamplingSettings { repetition_penalty: 2.0, ..SamplingSettings::default() };
        let mut sampler = sampler(settings);
        let logits = [1.0, 4.0, 2.0, 2.0];
        assert_eq!(sampler.choose(&mut logits.clone(), 0).unwrap(), 1);
        sampler.observe(1);
        assert_eq!(
            sampler.choose(&mut logits.clone(), 0).unwrap(),
            1,
            "4/2 equals the others, and comes first"
        );
        sampler.observe(2);
        sampler.observe(1);
        assert_eq!(sampler.choose(&mut [1.0, 3.9, 2.0, 2.0], 0).unwrap(), 3);
    }

    #[test]
    fn equal_seeds_draw_equal_tokens() {
        let settings = |seed| SamplingSettings { temperature: 1.0, seed, ..SamplingSettings::default() };
        let draw = |seed| -> Vec<u32> {
            let mut sampler = sampler(settings(seed));
            (0..64).map(|_| sampler.choose(&mut [0.0; 50], 0).unwrap()).collect()
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }

    #[test]
    fn draws_follow_the_distribution() {
        let settings = SamplingSettings { temperature: 1.0, seed: 11, ..SamplingSettings::default() };
        let mut sampler = sampler(settings);
        let shares = [0.5f32, 0.25, 0.125, 0.125];
        let mut counts = [0.0f32; 4];
        let draws = 8000;
        for _ in 0..draws {
            let token = sampler.choose(&mut shares.map(f32::ln), 0).unwrap();
            counts[token as usize] += 1.0;
        }
        // Chi-square with 3 degrees of freedom: above 16.27 in one of a thousand seeds, and the seed is fixed.
        let expected = shares.map(|share| share * draws as f32);
        let chi_square: f32 = counts.iter().zip(expected).map(|(c, e)| (c - e).powi(2) / e).sum();
        assert!(chi_square < 16.27, "{counts:?}: {chi_square}");
    }

    #[test]
    fn logits_that_are_no_numbers_are_an_error() {
        let mut sampler = sampler(SamplingSettings::default());
        for bad in [[f32::NAN; 3], [f32::NEG_INFINITY; 3], [0.0, f32::INFINITY, 1.0]] {
            assert!(matches!(sampler.choose(&mut bad.clone(), 5), Err(Error::NotFinite { position: 5 })));
        }
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let good = SamplingSettings::default();
        let bad = [
            ("temperature", SamplingSettings { temperature: -0.1, ..good.clone() }),
            ("temperature", SamplingSettings { temperature: f32::NAN, ..good.clone() }),
            ("temperature", SamplingSettings { temperature: f32::INFINITY, ..good.clone() }),
            ("top_p", SamplingSettings { top_p: 0.0, ..good.clone() }),
            ("top_p", SamplingSettings { top_p: 1.01, ..good.clone() }),
            ("top_p", SamplingSettings { top_p: f32::NAN, ..good.clone() }),
            ("min_p", SamplingSettings { min_p: -0.5, ..good.clone() }),
            ("min_p", SamplingSettings { min_p: 1.5, ..good.clone() }),
            ("repetition_penalty", SamplingSettings { repetition_penalty: 0.0, ..good.clone() }),
        ];
        for (name, settings) in bad {
            let message = settings.validate().unwrap_err().to_string();
            assert!(message.starts_with(name), "{message}");
        }
        good.validate().unwrap();
    }
}
