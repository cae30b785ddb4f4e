//! Scores that tell a right verifier from two wrong ones.
//!
//! With e what a wrong verifier gives in place of p, `e / p` is the score whose sum tells them apart best. Its mean under p is 1;
//! its mean under e shows how many draws are needed.

use crate::filters::Distribution;
use crate::rejection::Drafted;

/// Sums of both scores.
#[derive(Default)]
pub(super) struct Alternatives {
    /// Against a verifier that draws from p where it refuses: `e = min(p, q) + (1 - sum of min(p, q)) p`.
    pub(super) residual_from_target: Score,
    /// Against a verifier that takes q of the step before, q', for q: `e = q min(1, p / q') + rest max(0, p - q')`.
    pub(super) stale_proposal: Score,
}

/// Tokens that are hardly ever drawn must not decide: what a score counts at most.
const LARGEST_SCORE: f64 = 8.0;

impl Alternatives {
    /// A token was drawn where `drafted` was proposed, and `earlier` at the step before.
    pub(super) fn count(
        &mut self,
        p: &Distribution,
        token: u32,
        drafted: &Drafted,
        earlier: Option<&Drafted>,
    ) {
        let kept: Vec<f64> = along(p, drafted).map(|(p, q)| p.min(q)).collect();
        let refused = 1.0 - kept.iter().sum::<f64>();
        let wrong = kept.iter().zip(p.entries()).map(|(kept, p)| kept + refused * f64::from(p.probability));
        self.residual_from_target.count(p, token, wrong.collect());
        let Some(earlier) = earlier else { return };
        let stale: Vec<(f64, f64, f64)> =
            along(p, drafted).zip(along(p, earlier)).map(|((p, q), (_, stale))| (p, q, stale)).collect();
        let kept = |&(p, q, stale): &(f64, f64, f64)| if stale > p { q * p / stale } else { q };
        let residual = |&(p, _, stale): &(f64, f64, f64)| (p - stale).max(0.0);
        let refused = 1.0 - stale.iter().map(kept).sum::<f64>();
        let left = stale.iter().map(residual).sum::<f64>();
        let share = |row| if left > 0.0 { residual(row) / left } else { row.0 };
        let wrong = stale.iter().map(|row| kept(row) + refused * share(row)).collect();
        self.stale_proposal.count(p, token, wrong);
    }
}

/// p and what was drafted with, for every token of p.
fn along<'a>(p: &'a Distribution, drafted: &'a Drafted) -> impl Iterator<Item = (f64, f64)> + 'a {
    let mut others = Vec::with_capacity(p.entries().len());
    match &drafted.proposal {
        Some(proposal) => {
            p.beside(proposal, |_, mine, theirs| others.push((f64::from(mine), f64::from(theirs))))
        }
        None => {
            others.extend(p.entries().iter().map(|entry| {
                (f64::from(entry.probability), f64::from(u8::from(entry.token == drafted.token)))
            }))
        }
    }
    others.into_iter()
}

/// A sum of scores, and what it should be.
#[derive(Default)]
pub(super) struct Score {
    /// Scores of the drawn tokens, less their means under p.
    sum: f64,
    variance: f64,
    /// What the sum would be on average under the wrong verifier.
    under_wrong: f64,
}

impl Score {
    /// `wrong[i]` is what the wrong verifier gives the i-th token of `p`.
    fn count(&mut self, p: &Distribution, token: u32, wrong: Vec<f64>) {
        let (mut mean, mut square, mut under_wrong, mut drawn) = (0.0, 0.0, 0.0, 0.0);
        for (entry, wrong) in p.entries().iter().zip(wrong) {
            let p = f64::from(entry.probability);
            let score = (wrong / p).min(LARGEST_SCORE);
            mean += p * score;
            square += p * score * score;
            under_wrong += wrong * score;
            if entry.token == token {
                drawn = score;
            }
        }
        self.sum += drawn - mean;
        self.variance += (square - mean * mean).max(0.0);
        self.under_wrong += under_wrong - mean;
    }

    /// The standardised sum; none where every token has the same score.
    pub(super) fn z(&self) -> Option<f64> {
        (self.variance > f64::EPSILON).then(|| self.sum / self.variance.sqrt())
    }

    /// What the standardised sum would be on average under the wrong verifier.
    pub(super) fn drift(&self) -> f64 {
        if self.variance > f64::EPSILON { self.under_wrong / self.variance.sqrt() } else { 0.0 }
    }
}
