//! From logits to the distribution that a token is drawn from.
//!
//! Definitions and order are those of Hugging Face transformers: repetition penalty, temperature, top-k, top-p, min-p.
//! The filtered distribution is a value, so that drafts can be verified against it as well as drawn from it.

use crate::error::{Error, Result};
use crate::sampling::SamplingSettings;

/// Probabilities of the tokens that the filters left, in f32; they sum to 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// By ascending token id.
    entries: Vec<Entry>,
}

/// One token that can be drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry {
    /// The token.
    pub token: u32,
    /// Its probability, above 0.
    pub probability: f32,
}

impl Distribution {
    /// The distribution that `settings` make of `logits` `[vocabulary]`; the repetition penalty is applied before, by
    /// [`Seen::penalise`].
    ///
    /// # Errors
    ///
    /// If a logit is NaN or +infinity, or all are -infinity. `position` is named in the message.
    ///
    /// # Panics
    ///
    /// If the temperature is 0: greedy decoding draws nothing.
    pub fn new(logits: &[f32], settings: &SamplingSettings, position: usize) -> Result<Self> {
        let mut distribution = Self::default();
        distribution.fill(logits, settings, position)?;
        Ok(distribution)
    }

    /// The same in place, reusing the memory.
    pub(crate) fn fill(
        &mut self,
        logits: &[f32],
        settings: &SamplingSettings,
        position: usize,
    ) -> Result<()> {
        assert!(settings.temperature > 0.0, "greedy decoding has no distribution to draw from");
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if !largest.is_finite() || logits.iter().any(|logit| logit.is_nan()) {
            return Err(Error::NotFinite { position });
        }
        let possible = logits.iter().enumerate().filter(|(_, logit)| **logit > f32::NEG_INFINITY);
        let entries = &mut self.entries;
        entries.clear();
        // `probability` holds logits first, then weights, and probabilities at last.
        entries.extend(possible.map(|(token, logit)| Entry { token: token as u32, probability: *logit }));
        keep_top_k(entries, settings.top_k);
        for entry in entries.iter_mut() {
            // Relative to the largest, so that small temperatures do not overflow.
            entry.probability = ((entry.probability - largest) / settings.temperature).exp();
        }
        entries.retain(|entry| entry.probability > 0.0);
        keep_top_p(entries, settings.top_p);
        // The largest weight is exp(0) = 1.
        entries.retain(|entry| entry.probability >= settings.min_p);
        entries.sort_unstable_by_key(|entry| entry.token);
        self.normalise();
        Ok(())
    }

    /// Makes weights sum to 1; in f64, because a vocabulary of f32 sums would bias the last tokens.
    fn normalise(&mut self) {
        let total: f64 = self.entries.iter().map(|entry| f64::from(entry.probability)).sum();
        self.entries
            .iter_mut()
            .for_each(|entry| entry.probability = (f64::from(entry.probability) / total) as f32);
    }

    /// What is left of this distribution where `other` has too little: `max(0, p - q)`, normalised (Leviathan et al.
    /// 2211.17192, section 2.3). None where nothing is, up to rounding.
    pub fn residual(&self, other: &Self) -> Option<Self> {
        let mut entries = Vec::new();
        self.beside(other, |token, mine, others| {
            if mine > others {
                entries.push(Entry { token, probability: mine - others });
            }
        });
        let mut residual = Self { entries };
        residual.normalise();
        (!residual.entries.is_empty()).then_some(residual)
    }

    /// `sum of min(p, q)`: how often a token drawn from `other` is accepted for this distribution.
    pub fn overlap(&self, other: &Self) -> f64 {
        let mut sum = 0.0;
        self.beside(other, |_, mine, others| sum += f64::from(mine.min(others)));
        sum
    }

    /// Calls `visit` with every token of this distribution, its probability here and in `other`.
    pub(crate) fn beside(&self, other: &Self, mut visit: impl FnMut(u32, f32, f32)) {
        let mut others = other.entries.iter().peekable();
        for entry in &self.entries {
            while others.next_if(|theirs| theirs.token < entry.token).is_some() {}
            let theirs = others.next_if(|theirs| theirs.token == entry.token);
            visit(entry.token, entry.probability, theirs.map_or(0.0, |theirs| theirs.probability));
        }
    }

    /// The tokens that can be drawn, by ascending id.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Probability of `token`; 0 if it was filtered.
    pub fn probability(&self, token: u32) -> f32 {
        let found = self.entries.binary_search_by_key(&token, |entry| entry.token);
        found.map_or(0.0, |place| self.entries[place].probability)
    }

    /// The token at `uniform` in `[0, 1)` of the cumulative distribution (inverse transform).
    pub fn at(&self, uniform: f32) -> u32 {
        let mut cumulative = 0.0;
        for entry in &self.entries {
            cumulative += f64::from(entry.probability);
            if f64::from(uniform) < cumulative {
                return entry.token;
            }
        }
        // Rounding may leave the sum just below 1.
        self.entries.last().expect("the filters leave at least the most likely token").token
    }
}

/// Keeps the `k` largest, and whatever equals the smallest of them; 0 keeps all.
fn keep_top_k(entries: &mut Vec<Entry>, k: usize) {
    if k == 0 || k >= entries.len() {
        return;
    }
    let (_, smallest, _) = entries.select_nth_unstable_by(k - 1, likelier_first);
    let smallest = smallest.probability;
    entries.retain(|entry| entry.probability >= smallest);
}

/// Keeps the smallest set of most likely tokens whose weights reach the share `p` of all; at least one.
fn keep_top_p(entries: &mut Vec<Entry>, p: f32) {
    if p >= 1.0 {
        return;
    }
    let wanted = p * entries.iter().map(|entry| entry.probability).sum::<f32>();
    let mut sum = 0.0;
    let (mut kept, mut sorted) = (0, 0);
    while kept < entries.len() && (kept == 0 || sum < wanted) {
        if kept == sorted {
            // Commonly a few tokens hold the share: sort as many as are needed, not the vocabulary.
            let more = (sorted.max(FIRST_SORTED)).min(entries.len() - sorted);
            let rest = &mut entries[sorted..];
            if more < rest.len() {
                rest.select_nth_unstable_by(more - 1, likelier_first);
            }
            rest[..more].sort_unstable_by(likelier_first);
            sorted += more;
        }
        sum += entries[kept].probability;
        kept += 1;
    }
    entries.truncate(kept);
}

const FIRST_SORTED: usize = 64;

/// Among equals the lower id counts as likelier, as in greedy decoding.
fn likelier_first(a: &Entry, b: &Entry) -> std::cmp::Ordering {
    b.probability.total_cmp(&a.probability).then(a.token.cmp(&b.token))
}

/// Which tokens stand in the text so far, prompt included.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    tokens: Vec<u32>,
    present: Vec<bool>,
}

impl Seen {
    /// Takes a token in; says whether it is new.
    pub fn add(&mut self, token: u32) -> bool {
        let place = token as usize;
        if self.present.len() <= place {
            self.present.resize(place + 1, false);
        }
        let new = !std::mem::replace(&mut self.present[place], true);
        if new {
            self.tokens.push(token);
        }
        new
    }

    /// Forgets the `count` newest of the tokens that were new.
    pub(crate) fn forget(&mut self, count: usize) {
        for token in self.tokens.drain(self.tokens.len() - count..) {
            self.present[token as usize] = false;
        }
    }

    /// Makes seen tokens less likely (for a penalty above 1): positive logits are divided by it, negative ones multiplied,
    /// once however often the token was seen (Keskar et al. 1909.05858, section 4.1, with the sign as transformers has it).
    pub fn penalise(&self, logits: &mut [f32], penalty: f32) {
        for &token in &self.tokens {
            let logit = &mut logits[token as usize];
            *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> SamplingSettings {
        SamplingSettings { temperature: 1.0, ..SamplingSettings::default() }
    }

    fn distribution(logits: &[f32], settings: &SamplingSettings) -> Distribution {
        Distribution::new(logits, settings, 0).unwrap()
    }

    /// Logits of probabilities 1/10, 4/10, 2/10, 3/10.
    fn tenths() -> Vec<f32> {
        [1.0f32, 4.0, 2.0, 3.0].map(|share| (share / 10.0).ln() + 5.0).to_vec()
    }

    fn assert_probabilities(distribution: &Distribution, expected: &[f32]) {
        for (token, expected) in expected.iter().enumerate() {
            let found = distribution.probability(token as u32);
            assert!((found - expected).abs() < 1e-6, "token {token}: {found}, expected {expected}");
        }
        let positive = expected.iter().filter(|p| **p > 0.0).count();
        assert_eq!(distribution.entries().len(), positive);
    }

    #[test]
    fn without_filters_it_is_softmax() {
        assert_probabilities(&distribution(&tenths(), &settings()), &[0.1, 0.4, 0.2, 0.3]);
    }

    #[test]
    fn temperature_divides_logits() {
        // At temperature 1/2 probabilities are squared: 1, 16, 4, 9 of 30.
        let cold = SamplingSettings { temperature: 0.5, ..settings() };
        assert_probabilities(
            &distribution(&tenths(), &cold),
            &[1.0 / 30.0, 16.0 / 30.0, 4.0 / 30.0, 9.0 / 30.0],
        );
        let coldest = SamplingSettings { temperature: f32::MIN_POSITIVE, ..settings() };
        assert_probabilities(&distribution(&tenths(), &coldest), &[0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn top_k_keeps_the_largest_and_what_equals_the_last_of_them() {
        let two = SamplingSettings { top_k: 2, ..settings() };
        assert_probabilities(&distribution(&tenths(), &two), &[0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
        assert_probabilities(
            &distribution(&[0.0, 1.0, 0.0, f32::NEG_INFINITY], &two),
            &[0.211_941_57, 0.576_116_9, 0.211_941_57, 0.0],
        );
        let all = SamplingSettings { top_k: 9, ..settings() };
        assert_probabilities(&distribution(&tenths(), &all), &[0.1, 0.4, 0.2, 0.3]);
    }

    #[test]
    fn top_p_keeps_the_smallest_set_that_reaches_the_share() {
        let kept = |top_p| distribution(&tenths(), &SamplingSettings { top_p, ..settings() });
        assert_probabilities(&kept(0.39), &[0.0, 1.0, 0.0, 0.0]);
        assert_probabilities(&kept(0.41), &[0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
        assert_probabilities(&kept(0.75), &[0.0, 4.0 / 9.0, 2.0 / 9.0, 3.0 / 9.0]);
        assert_probabilities(&kept(0.95), &[0.1, 0.4, 0.2, 0.3]);
        assert_probabilities(&kept(1e-9), &[0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn top_p_of_a_flat_vocabulary_walks_past_the_first_sorted_block() {
        let half = SamplingSettings { top_p: 0.5, ..settings() };
        let flat = distribution(&vec![0.25; 1000], &half);
        let tokens: Vec<u32> = flat.entries().iter().map(|entry| entry.token).collect();
        assert_eq!(tokens, (0..500).collect::<Vec<u32>>());
    }

    #[test]
    fn min_p_is_relative_to_the_most_likely() {
        let kept = |min_p| distribution(&tenths(), &SamplingSettings { min_p, ..settings() });
        assert_probabilities(&kept(0.6), &[0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
        assert_probabilities(&kept(0.2), &[0.1, 0.4, 0.2, 0.3]);
        assert_probabilities(&kept(1.0), &[0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn filters_apply_in_order() {
        // The two most likely hold 7/9 of what top-k 3 leaves, which reaches 0.77; of everything they hold only 7/10.
        let both = SamplingSettings { top_k: 3, top_p: 0.77, ..settings() };
        assert_probabilities(&distribution(&tenths(), &both), &[0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
        let only = SamplingSettings { top_p: 0.77, ..settings() };
        assert_probabilities(&distribution(&tenths(), &only), &[0.0, 4.0 / 9.0, 2.0 / 9.0, 3.0 / 9.0]);
        // Min-p looks at weights after the temperature: 3/4 becomes 9/16.
        let cold = SamplingSettings { temperature: 0.5, min_p: 0.6, ..settings() };
        assert_probabilities(&distribution(&tenths(), &cold), &[0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn the_inverse_transform_walks_ids_in_order() {
        let distribution = distribution(&tenths(), &settings());
        let tokens = [0.0, 0.09, 0.11, 0.49, 0.51, 0.69, 0.71, 0.999_999_9].map(|u| distribution.at(u));
        assert_eq!(tokens, [0, 0, 1, 1, 2, 2, 3, 3]);
    }

    #[test]
    fn logits_that_are_no_numbers_are_an_error() {
        for bad in [[f32::NAN, 0.0], [f32::INFINITY, 0.0], [f32::NEG_INFINITY; 2]] {
            let error = Distribution::new(&bad, &settings(), 17).unwrap_err();
            assert!(error.to_string().contains("position 17"), "{error}");
        }
    }

    #[test]
    fn the_repetition_penalty_counts_a_token_once() {
        let mut seen = Seen::default();
        assert_eq!([3, 1, 3, 0].map(|token| seen.add(token)), [true, true, false, true]);
        let mut logits = [0.0, -2.0, 3.0, 6.0];
        seen.penalise(&mut logits, 1.5);
        assert_eq!(logits, [0.0, -3.0, 3.0, 4.0]);
        seen.forget(2);
        let mut logits = [0.0, -2.0, 3.0, 6.0];
        seen.penalise(&mut logits, 1.5);
        assert_eq!(logits, [0.0, -2.0, 3.0, 4.0]);
    }

    #[test]
    fn overlap_and_residual_of_two_distributions() {
        let one = distribution(&tenths(), &settings());
        let kept = SamplingSettings { top_k: 2, ..settings() };
        // 1, 4, 2, 3 tenths against 0, 4, 0, 3 sevenths.
        let other = distribution(&tenths(), &kept);
        assert!((one.overlap(&other) - 0.7).abs() < 1e-6 && (other.overlap(&one) - 0.7).abs() < 1e-6);
        assert_probabilities(&one.residual(&other).unwrap(), &[1.0 / 3.0, 0.0, 2.0 / 3.0, 0.0]);
        let left = other.residual(&one).unwrap();
        assert_probabilities(&left, &[0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
        assert_eq!(one.residual(&one), None);
    }
}
