//! Sequences with a known joint distribution: their tokens are independent given a hidden component.
//!
//! What the best model of a given rank can reach is computed here, so that a trained one can be held against it: with as many
//! components as were planted nothing is lost, with fewer a gap is left.

use crate::random::Random;

/// A mixture of `components` products over `places` symbols.
#[derive(Clone, Debug)]
pub struct PlantedMixture {
    /// `[component]`
    weights: Vec<f64>,
    /// `[component, place, symbol]`
    shares: Vec<f64>,
}

/// Components that are planted.
pub const COMPONENTS: usize = 4;

/// Symbols, written a, b, c and so on.
pub const SYMBOLS: usize = 16;

/// Tokens of a sequence.
pub const PLACES: usize = 4;

const CELLS: usize = SYMBOLS.pow(PLACES as u32);

/// Purposes of the random streams.
const PARAMETERS: u64 = 40;
const FITTING: u64 = 41;

/// How uneven the distributions of the components are: weights are this to the power of a uniform number.
const CONTRAST: f64 = 60.0;

impl PlantedMixture {
    /// The mixture of a seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed, PARAMETERS);
        let shares = (0..COMPONENTS * PLACES).flat_map(|_| uneven(&mut random, CONTRAST)).collect();
        Self { weights: vec![0.4, 0.3, 0.2, 0.1], shares }
    }

    /// One sequence: its symbols, below [`SYMBOLS`].
    pub fn draw(&self, random: &mut Random) -> [usize; PLACES] {
        let component = pick(random, &self.weights);
        std::array::from_fn(|place| pick(random, self.of(component, place)))
    }

    /// The text of a sequence.
    pub fn text(symbols: [usize; PLACES]) -> String {
        symbols.iter().map(|&symbol| char::from(b'a' + symbol as u8)).collect()
    }

    /// Probability of a sequence.
    pub fn probability(&self, symbols: [usize; PLACES]) -> f64 {
        let of = |component: usize| -> f64 {
            let places = symbols.iter().enumerate();
            places.map(|(place, &symbol)| self.of(component, place)[symbol]).product()
        };
        self.weights.iter().enumerate().map(|(component, weight)| weight * of(component)).sum()
    }

    /// Entropy of a sequence in nats: no model predicts better.
    pub fn entropy(&self) -> f64 {
        self.table().iter().map(|p| -p * p.ln()).sum()
    }

    /// Entropy of the first token in nats.
    pub fn first_entropy(&self) -> f64 {
        let share = |symbol: usize| -> f64 {
            (0..COMPONENTS).map(|component| self.weights[component] * self.of(component, 0)[symbol]).sum()
        };
        (0..SYMBOLS).map(share).map(|p| -p * p.ln()).sum()
    }

    /// By how many nats the best mixture of `rank` products misses the entropy: the smallest divergence that expectation
    /// maximisation finds on the whole table, over `restarts` beginnings.
    pub fn gap(&self, rank: usize, restarts: usize) -> f64 {
        if rank >= COMPONENTS {
            return 0.0;
        }
        let (table, entropy) = (self.table(), self.entropy());
        let mut random = Random::new(rank as u64, FITTING);
        let one = |_| fit(&table, rank, &mut random) - entropy;
        (0..if rank == 1 { 1 } else { restarts }).map(one).fold(f64::INFINITY, f64::min)
    }

    fn table(&self) -> Vec<f64> {
        (0..CELLS).map(|cell| self.probability(symbols(cell))).collect()
    }

    fn of(&self, component: usize, place: usize) -> &[f64] {
        &self.shares[(component * PLACES + place) * SYMBOLS..][..SYMBOLS]
    }
}

fn symbols(cell: usize) -> [usize; PLACES] {
    std::array::from_fn(|place| cell / SYMBOLS.pow(place as u32) % SYMBOLS)
}

fn uniform(random: &mut Random) -> f64 {
    const STEPS: usize = 1 << 24;
    (random.below(STEPS) as f64 + 0.5) / STEPS as f64
}

fn uneven(random: &mut Random, contrast: f64) -> Vec<f64> {
    let weights: Vec<f64> = (0..SYMBOLS).map(|_| contrast.powf(uniform(random))).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

fn pick(random: &mut Random, shares: &[f64]) -> usize {
    let mut left = uniform(random);
    for (index, share) in shares.iter().enumerate() {
        left -= share;
        if left < 0.0 {
            return index;
        }
    }
    shares.len() - 1
}

/// Expectation maximisation ends when a step gains less than this many nats, or after so many steps.
const SMALLEST_GAIN: f64 = 1e-7;
const MOST_STEPS: usize = 500;

/// Cross-entropy of `table` under a mixture of `rank` products that fits it.
fn fit(table: &[f64], rank: usize, random: &mut Random) -> f64 {
    let mut weights = vec![1.0 / rank as f64; rank];
    let mut shares: Vec<f64> = (0..rank * PLACES).flat_map(|_| uneven(random, 5.0)).collect();
    let mut before = f64::INFINITY;
    for _ in 0..MOST_STEPS {
        let mut counts = vec![0.0; rank];
        let mut symbol_counts = vec![0.0; rank * PLACES * SYMBOLS];
        let mut loss = 0.0;
        let mut parts = vec![0.0; rank];
        for (cell, p) in table.iter().enumerate() {
            let symbols = symbols(cell);
            let mut total = 0.0;
            for (component, part) in parts.iter_mut().enumerate() {
                *part = weights[component];
                for (place, symbol) in symbols.iter().enumerate() {
                    *part *= shares[(component * PLACES + place) * SYMBOLS + symbol];
                }
                total += *part;
            }
            loss -= p * total.ln();
            for (component, part) in parts.iter().enumerate() {
                let count = p * part / total;
                counts[component] += count;
                for (place, symbol) in symbols.iter().enumerate() {
                    symbol_counts[(component * PLACES + place) * SYMBOLS + symbol] += count;
                }
            }
        }
        for (component, count) in counts.iter().enumerate() {
            weights[component] = *count;
            let here = component * PLACES * SYMBOLS..(component + 1) * PLACES * SYMBOLS;
            for (share, symbol_count) in shares[here.clone()].iter_mut().zip(&symbol_counts[here]) {
                *share = symbol_count / count;
            }
        }
        if before - loss < SMALLEST_GAIN {
            return loss;
        }
        before = loss;
    }
    before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_probabilities() {
        let mixture = PlantedMixture::new(1);
        let total: f64 = mixture.table().iter().sum();
        assert!((total - 1.0).abs() < 1e-12);
        let mut random = Random::new(1, 1);
        let draws = 20_000;
        let nats: f64 = (0..draws).map(|_| -mixture.probability(mixture.draw(&mut random)).ln()).sum();
        let mean = nats / draws as f64;
        assert!((mean - mixture.entropy()).abs() < 0.05, "{mean}, {}", mixture.entropy());
        assert_eq!(PlantedMixture::text([0, 1, 15, 2]), "abpc");
    }

    #[test]
    fn rank_one_misses_by_the_total_correlation() {
        let mixture = PlantedMixture::new(1);
        let mut marginals = [[0.0; SYMBOLS]; PLACES];
        for (cell, p) in mixture.table().iter().enumerate() {
            symbols(cell).iter().enumerate().for_each(|(place, &symbol)| marginals[place][symbol] += p);
        }
        let entropies: f64 = marginals.iter().flatten().map(|p| -p * p.ln()).sum();
        let gap = mixture.gap(1, 1);
        assert!((gap - (entropies - mixture.entropy())).abs() < 1e-9, "{gap}");
        let first: f64 = marginals[0].iter().map(|p| -p * p.ln()).sum();
        assert!((mixture.first_entropy() - first).abs() < 1e-12);
        assert!(gap > 0.1 && mixture.gap(COMPONENTS, 1) == 0.0);
    }
}
