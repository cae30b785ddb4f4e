//! Are the choices decided in order? Rank correspondence, and a strict Kendall tau with its permutation test.

use rayon::prelude::*;
use serde::Serialize;
use tensor::random;

use crate::saturation::Decision;
use crate::statistics::{Mean, Test};

/// Permutations of the test, so that the smallest p-value is 0.0001.
pub const PERMUTATIONS: usize = 9_999;

/// Purpose of the random stream of the permutations.
const PERMUTING: u64 = 40;

/// What the order of saturation looks like.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Order {
    /// For each choice the place of its layer among the sorted layers of its token, from 0, equals at the first of them; choices
    /// that only the last layer decides are left out.
    pub mean_rank: Vec<Mean>,
    /// Whether each choice's rank is larger than that of the choice before.
    pub neighbours: Vec<Option<Test>>,
    /// Tokens with at least three choices decided before the last layer: those that tau is about.
    pub tau_tokens: usize,
    /// Mean of (concordant - others) / pairs, where a pair is concordant only if the better choice settles strictly earlier.
    pub strict_tau: Option<f64>,
    /// Share of concordant pairs.
    pub concordant: Option<f64>,
    /// Share of pairs that settle in the same layer.
    pub tied: Option<f64>,
    /// Share of permutations of each token's layers with a tau at least as large, `(b + 1) / (m + 1)`.
    pub p_value: Option<f64>,
    /// Permutations that were drawn.
    pub permutations: usize,
    /// Tau of the permutations: smallest, mean, largest.
    pub permuted: Option<[f64; 3]>,
    /// Counts of permutations by tau, in [`BINS`] bins from the smallest to the largest.
    pub permuted_histogram: Vec<usize>,
}

/// Bins of the histogram of permutations.
pub const BINS: usize = 40;

/// Judges `decisions` of a model with `layers` blocks over their first `choices` choices.
pub fn order(decisions: &[Decision], layers: usize, choices: usize, permutations: usize, seed: u64) -> Order {
    let last = (layers - 1) as u16;
    let mean_rank: Vec<Mean> = (0..choices)
        .map(|choice| {
            let ranks = decisions.iter().filter(|d| d.layers[choice] < last);
            Mean::of(ranks.map(|d| {
                let layer = d.layers[choice];
                d.layers[..choices].iter().filter(|other| **other < layer).count() as f64
            }))
        })
        .collect();
    let neighbours = mean_rank.windows(2).map(|pair| Test::of_means(pair[0], pair[1])).collect();
    let mut tau = Tau::default();
    decisions.iter().for_each(|decision| tau.add(&decision.layers[..choices], last));
    let actual = tau.value();
    let mut taus = if actual.is_some() { tau.permuted(permutations, seed) } else { Vec::new() };
    taus.sort_by(f64::total_cmp);
    let p_value = actual.filter(|_| !taus.is_empty()).map(|actual| {
        // Equal means may differ in their last bits: sums are the same integers, divided in the same way, so they do not.
        let as_large = taus.iter().filter(|tau| **tau >= actual).count();
        (as_large + 1) as f64 / (taus.len() + 1) as f64
    });
    let permuted = taus
        .first()
        .zip(taus.last())
        .map(|(low, high)| [*low, taus.iter().sum::<f64>() / taus.len() as f64, *high]);
    Order {
        mean_rank,
        neighbours,
        tau_tokens: tau.tokens(),
        strict_tau: actual,
        concordant: actual.map(|_| tau.concordant as f64 / tau.pairs as f64),
        tied: actual.map(|_| tau.tied as f64 / tau.pairs as f64),
        p_value,
        permutations: taus.len(),
        permuted,
        permuted_histogram: histogram(&taus),
    }
}

fn histogram(sorted: &[f64]) -> Vec<usize> {
    let (Some(low), Some(high)) = (sorted.first(), sorted.last()) else { return Vec::new() };
    let mut counts = vec![0; BINS];
    for tau in sorted {
        let place = if high > low { (tau - low) / (high - low) * BINS as f64 } else { 0.0 };
        counts[(place as usize).min(BINS - 1)] += 1;
    }
    counts
}

/// Concordant pairs of many tokens, kept by how many tokens have the same numbers of equal layers: how many pairs a random
/// permutation makes concordant depends on nothing else.
#[derive(Default)]
struct Tau {
    kinds: Vec<Kind>,
    concordant: usize,
    tied: usize,
    pairs: usize,
}

/// Tokens whose layers are equal in the same way.
struct Kind {
    /// Number of choices, then how many choices share each layer, in the order of the layers.
    equal: Vec<usize>,
    tokens: usize,
    /// Sum of the concordant pairs of its tokens.
    concordant: usize,
}

impl Tau {
    /// Takes a token in. Choices after the last that settles before the end are left out; tokens with fewer than three others too.
    fn add(&mut self, layers: &[u16], last: u16) {
        let Some(choices) = layers.iter().rposition(|layer| *layer != last).map(|choice| choice + 1) else {
            return;
        };
        if choices < 3 {
            return;
        }
        let layers = &layers[..choices];
        let mut sorted = layers.to_vec();
        sorted.sort_unstable();
        let equal: Vec<usize> = sorted.chunk_by(|a, b| a == b).map(<[u16]>::len).collect();
        let concordant = concordant_pairs(layers);
        let tied: usize = equal.iter().map(|count| count * (count - 1) / 2).sum();
        self.concordant += concordant;
        self.tied += tied;
        self.pairs += choices * (choices - 1) / 2;
        match self.kinds.iter_mut().find(|kind| kind.equal == equal) {
            Some(kind) => {
                kind.tokens += 1;
                kind.concordant += concordant;
            }
            None => self.kinds.push(Kind { equal, tokens: 1, concordant }),
        }
    }

    fn tokens(&self) -> usize {
        self.kinds.iter().map(|kind| kind.tokens).sum()
    }

    fn value(&self) -> Option<f64> {
        let sums = self.kinds.iter().map(|kind| kind.concordant);
        (self.tokens() > 0).then(|| self.mean(sums))
    }

    /// Mean tau, given the sum of concordant pairs of each kind.
    fn mean(&self, concordant: impl Iterator<Item = usize>) -> f64 {
        let sums = self.kinds.iter().zip(concordant).map(|(kind, concordant)| {
            let pairs = kind.pairs();
            (2 * concordant) as f64 / pairs as f64 - kind.tokens as f64
        });
        sums.sum::<f64>() / self.tokens() as f64
    }

    /// Mean tau of `count` random permutations of every token's layers.
    fn permuted(&self, count: usize, seed: u64) -> Vec<f64> {
        let tables: Vec<Vec<u8>> = self.kinds.iter().map(Kind::outcomes).collect();
        let draw = |permutation: usize| {
            let mut rng = random::seeded(seed.wrapping_add(permutation as u64), PERMUTING);
            let sums = self.kinds.iter().zip(&tables).map(|(kind, table)| {
                (0..kind.tokens).map(|_| usize::from(table[below(&mut rng, table.len())])).sum()
            });
            self.mean(sums)
        };
        (0..count).into_par_iter().map(draw).collect()
    }
}

impl Kind {
    fn pairs(&self) -> usize {
        let choices: usize = self.equal.iter().sum();
        choices * (choices - 1) / 2
    }

    /// Concordant pairs of every permutation.
    fn outcomes(&self) -> Vec<u8> {
        let layers: Vec<u16> =
            self.equal.iter().enumerate().flat_map(|(layer, count)| vec![layer as u16; *count]).collect();
        let mut outcomes = Vec::new();
        permutations(&mut layers.clone(), 0, &mut |layers| outcomes.push(concordant_pairs(layers) as u8));
        outcomes
    }
}

/// Calls `each` with every order of `values[from..]`, equals told apart.
fn permutations(values: &mut [u16], from: usize, each: &mut dyn FnMut(&[u16])) {
    if from == values.len() {
        return each(values);
    }
    for other in from..values.len() {
        values.swap(from, other);
        permutations(values, from + 1, each);
        values.swap(from, other);
    }
}

/// Pairs of which the better choice settles strictly earlier.
fn concordant_pairs(layers: &[u16]) -> usize {
    (0..layers.len()).map(|a| layers[a + 1..].iter().filter(|b| layers[a] < **b).count()).sum()
}

/// A number below `limit`, which is at most 8!: the bias of 32 bits is below one in a hundred thousand.
fn below(rng: &mut random::Seeded, limit: usize) -> usize {
    use rand_chacha::rand_core::Rng;
    ((u64::from(rng.next_u32()) * limit as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::look::MOST_CHOICES;

    fn decision(layers: &[u16]) -> Decision {
        let mut all = [0; MOST_CHOICES];
        all[..layers.len()].copy_from_slice(layers);
        Decision { group: 0, item: 0, row: 0, target: None, layers: all, tokens: [0; MOST_CHOICES] }
    }

    #[test]
    fn tau_counts_ties_as_discordant_and_leaves_the_last_layer_out() {
        let tau = |layers: &[u16]| {
            let tau = order(&[decision(layers)], 12, layers.len(), 0, 1).strict_tau;
            tau.map(|tau| (tau * 30.0).round() / 30.0)
        };
        assert_eq!(tau(&[1, 2, 3, 4, 5]), Some(1.0));
        assert_eq!(tau(&[5, 4, 3, 2, 1]), Some(-1.0));
        assert_eq!(tau(&[3, 3, 3, 3, 3]), Some(-1.0));
        // Three of the choices settle before the end: 1 < 2, 1 < 2, and a tie.
        assert_eq!(tau(&[1, 2, 2, 11, 11]), Some(10.0 / 30.0));
        // A choice that only the last layer decides counts as long as a later one settles before.
        assert_eq!(tau(&[1, 11, 4, 11, 11]), Some(10.0 / 30.0));
        assert_eq!(tau(&[1, 2, 11, 11, 11]), None);
    }

    /// Random weights, or a null model, may leave nothing below the cut: that is a finding and no failure.
    #[test]
    fn without_tokens_there_is_no_order() {
        let order = order(&[], 12, 3, 99, 1);
        assert_eq!((order.strict_tau, order.p_value, order.permuted), (None, None, None));
        assert!(order.mean_rank.iter().all(|mean| mean.count == 0));
        assert_eq!(order.neighbours, [None, None]);
    }

    #[test]
    fn ranks_are_places_among_the_tokens_own_layers() {
        let order = order(&[decision(&[2, 2, 7]), decision(&[5, 1, 11])], 12, 3, 0, 1);
        let means: Vec<f64> = order.mean_rank.iter().map(|mean| mean.mean).collect();
        assert_eq!(means, [0.5, 0.0, 2.0]);
        assert_eq!(order.mean_rank[2].count, 1);
    }

    #[test]
    fn the_permutation_test_finds_order_and_only_order() {
        let ordered: Vec<Decision> = (0..40).map(|i| decision(&[1, 2 + i % 3, 6, 6, 11])).collect();
        let found = order(&ordered, 12, 5, 999, 3);
        assert_eq!(found.p_value, Some(0.001));
        assert!(found.permuted.unwrap()[2] < found.strict_tau.unwrap());
        assert_eq!(found.permuted_histogram.iter().sum::<usize>(), 999);
        // Half the tokens in order, half in reverse.
        let mixed: Vec<Decision> =
            (0..40).map(|i| decision(if i % 2 == 0 { &[1, 2, 3, 4] } else { &[4, 3, 2, 1] })).collect();
        let found = order(&mixed, 12, 4, 999, 3);
        assert!(found.strict_tau == Some(0.0) && found.p_value.unwrap() > 0.2, "{found:?}");
    }

    /// The table of outcomes is what shuffling gives: the mean over all orders of three different layers is 3/2 pairs of 3.
    #[test]
    fn outcomes_are_those_of_all_permutations() {
        let kind = |equal: &[usize]| Kind { equal: equal.to_vec(), tokens: 1, concordant: 0 };
        let mut outcomes = kind(&[1, 1, 1]).outcomes();
        outcomes.sort_unstable();
        assert_eq!(outcomes, [0, 1, 1, 2, 2, 3]);
        assert!(kind(&[3]).outcomes().iter().all(|pairs| *pairs == 0));
        let mean =
            |outcomes: Vec<u8>| outcomes.iter().map(|x| f64::from(*x)).sum::<f64>() / outcomes.len() as f64;
        // Each of the nine pairs that are not tied is concordant in half of the orders.
        assert_eq!(mean(kind(&[1, 2, 1, 1]).outcomes()), 4.5);
    }
}
