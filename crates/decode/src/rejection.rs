//! Whether a drafted token stays: exact rejection sampling (Leviathan et al. 2211.17192, section 2.3; Chen et al. 2302.01318,
//! algorithm 2).
//!
//! A token drawn from q stays with probability `min(1, p/q)`, else one is drawn from `max(0, p - q)`, normalised: what comes
//! out is distributed as p, whatever q is. p and q are what temperature and filters leave of the target and of the draft.

use tensor::random::{self, Seeded};

use crate::filters::Distribution;

/// A drafted token and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Drafted {
    /// The token.
    pub token: u32,
    /// What it was drawn from; none for a token that was proposed outright (a point mass).
    pub proposal: Option<Distribution>,
}

impl Drafted {
    /// How often a token drafted so stays under `target`: `sum of min(p, q)`.
    pub fn expected_acceptance(&self, target: &Distribution) -> f64 {
        match &self.proposal {
            Some(proposal) => target.overlap(proposal),
            None => f64::from(target.probability(self.token)),
        }
    }
}

/// What became of a drafted token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Judged {
    /// The token of the text.
    pub(crate) token: u32,
    /// Whether it is the drafted one.
    pub(crate) accepted: bool,
    /// How often it would be, over all draws.
    pub(crate) expected: f64,
}

/// A way to verify a drafted token. There is one right way, [`Exact`]; tests prove that they notice wrong ones.
pub(crate) trait Rule {
    /// The token of the text, and whether it is the drafted one, accepted. `earlier` is the drafted token before, if there is
    /// one.
    fn decide(
        &self,
        target: &Distribution,
        drafted: &Drafted,
        earlier: Option<&Drafted>,
        rng: &mut Seeded,
    ) -> (u32, bool);
}

/// Rejection sampling as it should be.
pub(crate) struct Exact;

impl Rule for Exact {
    fn decide(
        &self,
        target: &Distribution,
        drafted: &Drafted,
        _earlier: Option<&Drafted>,
        rng: &mut Seeded,
    ) -> (u32, bool) {
        let uniform = random::uniform(rng);
        let Some(proposal) = &drafted.proposal else {
            // With q = 1 the token stays with probability p, and the residual is p without it: the same as drawing from p. Drawn
            // so, a seed gives the text that it gives without drafts.
            let token = target.at(uniform);
            return (token, token == drafted.token);
        };
        let (p, q) = (target.probability(drafted.token), proposal.probability(drafted.token));
        if uniform * q < p {
            return (drafted.token, true);
        }
        // Where rounding leaves no residual, p and q are equal.
        let residual = target.residual(proposal);
        (residual.as_ref().unwrap_or(target).at(random::uniform(rng)), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SamplingSettings;

    fn distribution(probabilities: &[f32]) -> Distribution {
        let logits: Vec<f32> = probabilities.iter().map(|p| p.ln()).collect();
        let settings = SamplingSettings { temperature: 1.0, ..SamplingSettings::default() };
        Distribution::new(&logits, &settings, 0).unwrap()
    }

    /// Counts of the tokens that come out, and how many were accepted.
    fn outcomes(p: &Distribution, q: Option<&Distribution>, draws: usize) -> ([f64; 4], f64) {
        let (mut rng, mut draft) = (random::seeded(3, 1), random::seeded(3, 2));
        let (mut counts, mut accepted) = ([0.0; 4], 0.0);
        for _ in 0..draws {
            let token = q.map_or(1, |q| q.at(random::uniform(&mut draft)));
            let drafted = Drafted { token, proposal: q.cloned() };
            let (token, stays) = Exact.decide(p, &drafted, None, &mut rng);
            counts[token as usize] += 1.0 / draws as f64;
            accepted += f64::from(u8::from(stays)) / draws as f64;
        }
        (counts, accepted)
    }

    #[test]
    fn what_comes_out_is_the_target_whatever_was_drafted() {
        let p = [0.5, 0.25, 0.2, 0.05];
        let target = distribution(&p);
        for q in [[0.1, 0.2, 0.3, 0.4], [0.5, 0.25, 0.2, 0.05], [0.0, 0.0, 0.0, 1.0], [0.0, 0.5, 0.0, 0.5]] {
            let proposal = distribution(&q);
            let draws = 40_000;
            let (counts, accepted) = outcomes(&target, Some(&proposal), draws);
            let overlap: f32 = p.iter().zip(q).map(|(p, q)| p.min(q)).sum();
            assert!((accepted - f64::from(overlap)).abs() < 0.012, "{q:?}: {accepted}");
            // Chi-square with 3 degrees of freedom: above 16.27 in one of a thousand seeds, and the seed is fixed.
            let term = |(c, p): (&f64, f32)| (c - f64::from(p)).powi(2) / f64::from(p);
            let chi_square = draws as f64 * counts.iter().zip(p).map(term).sum::<f64>();
            assert!(chi_square < 16.27, "{q:?}: {counts:?}, {chi_square}");
        }
        let (counts, accepted) = outcomes(&target, None, 40_000);
        assert!((accepted - 0.25).abs() < 0.01 && (counts[0] - 0.5).abs() < 0.01, "{counts:?}");
    }

    #[test]
    fn a_token_that_the_filters_took_from_the_target_never_stays() {
        let target = distribution(&[1.0, 0.0, 0.0, 0.0]);
        let proposal = distribution(&[0.0, 1.0, 0.0, 0.0]);
        let (counts, accepted) = outcomes(&target, Some(&proposal), 128);
        assert_eq!((counts, accepted), ([1.0, 0.0, 0.0, 0.0], 0.0));
    }
}
