//! The joint distribution of n tokens as a circuit of sums and products over the tokens' own distributions.
//!
//! A *region* covers some of the places. It has `rank` states; in state b its tokens are the product of its children in state b.
//! The root's state is drawn from the weights w; a region below the root has a matrix: the state a of the region above becomes
//! the state b with probability `mixing[a][b]`. A place is a leaf: in state b it has the distribution `p_b`.
//!
//! - `cp`: the root alone, all places its leaves: `sum over b of w_b prod over s of p_b^(s)` (Basharin et al. 2410.17765, eq. 4).
//! - `tree`: each region is halved until places are left (the binary tree of Grivas et al. 2511.11346).
//!
//! A place that is not observed counts as 1 in every state, which sums it out.

use super::JointKind;

/// The shape of a distribution over `places` tokens.
#[derive(Clone, Debug)]
pub(super) struct Circuit {
    places: usize,
    rank: usize,
    /// Children before parents; the last is the root.
    regions: Vec<Vec<Child>>,
}

#[derive(Clone, Copy, Debug)]
enum Child {
    Leaf(usize),
    /// Index of the region.
    Region(usize),
}

/// Values of one evaluation, reused from row to row.
#[derive(Clone, Debug, Default)]
pub(super) struct Scratch {
    /// `[region, rank]`: products of the children, divided by the largest.
    products: Vec<f64>,
    /// `[region, rank]`: what the region above sees, for regions below the root.
    mixed: Vec<f64>,
    /// `[region, rank]`: responsibilities on the way back.
    flows: Vec<f64>,
    /// `[place, rank]`: likelihoods, divided by the largest of the place.
    leaves: Vec<f64>,
    total: f64,
}

impl Circuit {
    pub(super) fn new(kind: JointKind, places: usize, rank: usize) -> Self {
        let mut circuit = Self { places, rank, regions: Vec::new() };
        match kind {
            JointKind::Cp => circuit.regions.push((0..places).map(Child::Leaf).collect()),
            JointKind::Tree => drop(circuit.halve(0..places)),
        }
        circuit
    }

    /// Adds the region of `places`, after those below it; says where it is.
    fn halve(&mut self, places: std::ops::Range<usize>) -> usize {
        let middle = places.start + places.len().div_ceil(2);
        let mut child = |half: std::ops::Range<usize>| match half.len() {
            1 => Child::Leaf(half.start),
            _ => Child::Region(self.halve(half)),
        };
        let halves = [places.start..middle, middle..places.end];
        let children = halves.into_iter().filter(|half| !half.is_empty()).map(&mut child).collect();
        self.regions.push(children);
        self.regions.len() - 1
    }

    /// Regions below the root.
    pub(super) fn mixings(&self) -> usize {
        self.regions.len() - 1
    }

    /// Numbers of a gate: the weights of the root, and a matrix `[rank, rank]` for each region below it.
    pub(super) fn gate_width(&self) -> usize {
        self.rank + self.mixings() * self.rank * self.rank
    }

    /// Logits of a gate to probabilities: the weights, and each row of each matrix.
    pub(super) fn gate(&self, logits: &[f32], gate: &mut Vec<f64>) {
        gate.clear();
        gate.extend(logits.iter().map(|&logit| f64::from(logit)));
        for row in gate.chunks_exact_mut(self.rank) {
            let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            row.iter_mut().for_each(|value| *value = (*value - largest).exp());
            let sum: f64 = row.iter().sum();
            row.iter_mut().for_each(|value| *value /= sum);
        }
    }

    /// Gradient of logarithms of a gate's probabilities to that of its logits, added.
    pub(super) fn gate_back(&self, gate: &[f64], d_log: &[f64], d_logits: &mut [f32]) {
        let rows = gate.chunks_exact(self.rank).zip(d_log.chunks_exact(self.rank));
        for ((gate, d_log), d_logits) in rows.zip(d_logits.chunks_exact_mut(self.rank)) {
            let sum: f64 = d_log.iter().sum();
            for ((p, d), to) in gate.iter().zip(d_log).zip(d_logits) {
                *to += (d - p * sum) as f32;
            }
        }
    }

    /// The logarithm of the probability of the tokens at the observed places. `log_leaves` `[place, rank]` are the logarithms
    /// of their likelihoods in each state.
    pub(super) fn log_probability(
        &self,
        gate: &[f64],
        log_leaves: &[f64],
        observed: &dyn Fn(usize) -> bool,
        scratch: &mut Scratch,
    ) -> f64 {
        let rank = self.rank;
        let mut log_scale = 0.0;
        scratch.leaves.clear();
        scratch.leaves.resize(self.places * rank, 1.0);
        for place in (0..self.places).filter(|&place| observed(place)) {
            let here = place * rank..(place + 1) * rank;
            let logs = &log_leaves[here.clone()];
            let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            log_scale += largest;
            for (leaf, log) in scratch.leaves[here].iter_mut().zip(logs) {
                *leaf = (log - largest).exp();
            }
        }
        scratch.products.clear();
        scratch.products.resize(self.regions.len() * rank, 1.0);
        scratch.mixed.clear();
        scratch.mixed.resize(self.regions.len() * rank, 0.0);
        for (index, children) in self.regions.iter().enumerate() {
            let (below, here) = scratch.products.split_at_mut(index * rank);
            let _ = below;
            let product = &mut here[..rank];
            for child in children {
                let values = match *child {
                    Child::Leaf(place) => &scratch.leaves[place * rank..(place + 1) * rank],
                    Child::Region(region) => &scratch.mixed[region * rank..(region + 1) * rank],
                };
                product.iter_mut().zip(values).for_each(|(product, value)| *product *= value);
            }
            let largest = product.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
            log_scale += largest.ln();
            product.iter_mut().for_each(|product| *product /= largest);
            if index + 1 < self.regions.len() {
                let matrix = self.matrix(gate, index);
                for (mixed, row) in scratch.mixed[index * rank..].iter_mut().zip(matrix.chunks_exact(rank)) {
                    *mixed = row.iter().zip(&*product).map(|(weight, value)| weight * value).sum();
                }
            }
        }
        let root = &scratch.products[(self.regions.len() - 1) * rank..];
        scratch.total = gate[..rank].iter().zip(root).map(|(weight, value)| weight * value).sum();
        log_scale + scratch.total.max(f64::MIN_POSITIVE).ln()
    }

    /// After [`Self::log_probability`]: how responsible each state of the root is, given the observed places.
    pub(super) fn responsibilities(&self, gate: &[f64], scratch: &Scratch, out: &mut [f64]) {
        let root = &scratch.products[(self.regions.len() - 1) * self.rank..];
        let total = scratch.total.max(f64::MIN_POSITIVE);
        for ((out, weight), value) in out.iter_mut().zip(gate).zip(root) {
            *out = weight * value / total;
        }
    }

    /// After [`Self::log_probability`]: runs `root_flow` `[rank]`, the gradient with respect to the logarithm of each root
    /// state's part, back to the leaves (`d_leaves` `[place, rank]`) and to the logarithms of the gate, where it is added.
    pub(super) fn back(
        &self,
        gate: &[f64],
        root_flow: &[f64],
        scratch: &mut Scratch,
        d_leaves: &mut [f64],
        d_gate: &mut [f64],
    ) {
        let rank = self.rank;
        let root = self.regions.len() - 1;
        scratch.flows.clear();
        scratch.flows.resize(self.regions.len() * rank, 0.0);
        scratch.flows[root * rank..].copy_from_slice(root_flow);
        d_gate[..rank].iter_mut().zip(root_flow).for_each(|(to, flow)| *to += flow);
        for index in (0..self.regions.len()).rev() {
            let (below, here) = scratch.flows.split_at_mut(index * rank);
            let flow = &here[..rank];
            for child in &self.regions[index] {
                match *child {
                    Child::Leaf(place) => {
                        let to = &mut d_leaves[place * rank..(place + 1) * rank];
                        to.iter_mut().zip(flow).for_each(|(to, flow)| *to += flow);
                    }
                    Child::Region(region) => {
                        let matrix = self.matrix(gate, region);
                        let place = self.matrix_place(region);
                        let product = &scratch.products[region * rank..(region + 1) * rank];
                        let to = &mut below[region * rank..(region + 1) * rank];
                        for (state, &flow) in flow.iter().enumerate() {
                            let mixed = scratch.mixed[region * rank + state].max(f64::MIN_POSITIVE);
                            for other in 0..rank {
                                let share = matrix[state * rank + other] * product[other] / mixed;
                                to[other] += flow * share;
                                d_gate[place + state * rank + other] += flow * share;
                            }
                        }
                    }
                }
            }
        }
    }

    fn matrix_place(&self, region: usize) -> usize {
        self.rank + region * self.rank * self.rank
    }

    fn matrix<'a>(&self, gate: &'a [f64], region: usize) -> &'a [f64] {
        &gate[self.matrix_place(region)..self.matrix_place(region + 1)]
    }
}

#[cfg(test)]
mod tests {
    use tensor::random;

    use super::*;

    const KINDS: [JointKind; 2] = [JointKind::Cp, JointKind::Tree];

    /// A circuit with a gate, and the distributions of its leaves over `vocabulary` tokens, `[place, rank, vocabulary]`.
    fn drawn(
        kind: JointKind,
        places: usize,
        rank: usize,
        vocabulary: usize,
    ) -> (Circuit, Vec<f32>, Vec<f64>) {
        let circuit = Circuit::new(kind, places, rank);
        let mut rng = random::seeded(7, 7);
        let logits = random::normal(&mut rng, circuit.gate_width(), 1.0);
        let mut leaves = Vec::new();
        for _ in 0..places * rank {
            let weights: Vec<f64> =
                random::normal(&mut rng, vocabulary, 1.5).iter().map(|x| f64::from(*x).exp()).collect();
            let sum: f64 = weights.iter().sum();
            leaves.extend(weights.iter().map(|weight| weight / sum));
        }
        (circuit, logits, leaves)
    }

    fn of(circuit: &Circuit, gate: &[f64], leaves: &[f64], tokens: &[usize], vocabulary: usize) -> f64 {
        let logs: Vec<f64> = (0..circuit.places * circuit.rank)
            .map(|leaf| {
                let token = tokens.get(leaf / circuit.rank).copied().unwrap_or(0);
                leaves[leaf * vocabulary + token].ln()
            })
            .collect();
        let observed = |place: usize| place < tokens.len();
        circuit.log_probability(gate, &logs, &observed, &mut Scratch::default()).exp()
    }

    #[test]
    fn the_joint_sums_to_one_and_its_prefixes_are_its_marginals() {
        let vocabulary = 3;
        for kind in KINDS {
            for (places, rank) in [(1, 1), (2, 3), (3, 2), (4, 3), (5, 2)] {
                let (circuit, logits, leaves) = drawn(kind, places, rank, vocabulary);
                let mut gate = Vec::new();
                circuit.gate(&logits, &mut gate);
                let all = vocabulary.pow(places as u32);
                let tokens = |index: usize| -> Vec<usize> {
                    (0..places).map(|place| index / vocabulary.pow(place as u32) % vocabulary).collect()
                };
                let joint: Vec<f64> =
                    (0..all).map(|index| of(&circuit, &gate, &leaves, &tokens(index), vocabulary)).collect();
                let sum: f64 = joint.iter().sum();
                assert!((sum - 1.0).abs() < 1e-12, "{kind:?} {places} {rank}: {sum}");
                for prefix in 1..places {
                    let first = tokens(all - 2);
                    let alike = (0..all).filter(|&index| tokens(index)[..prefix] == first[..prefix]);
                    let summed: f64 = alike.map(|index| joint[index]).sum();
                    let marginal = of(&circuit, &gate, &leaves, &first[..prefix], vocabulary);
                    assert!((summed - marginal).abs() < 1e-12, "{kind:?} {places} {rank} {prefix}");
                }
            }
        }
    }

    #[test]
    fn cp_is_the_sum_of_products() {
        let (circuit, logits, leaves) = drawn(JointKind::Cp, 4, 3, 5);
        let mut gate = Vec::new();
        circuit.gate(&logits, &mut gate);
        let tokens = [4, 0, 2, 1];
        let plain: f64 = (0..3)
            .map(|state| {
                let places = tokens.iter().enumerate();
                gate[state] * places.map(|(s, token)| leaves[(s * 3 + state) * 5 + token]).product::<f64>()
            })
            .sum();
        assert!((of(&circuit, &gate, &leaves, &tokens, 5) / plain - 1.0).abs() < 1e-12);
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        for kind in KINDS {
            let (places, rank) = (5, 3);
            let circuit = Circuit::new(kind, places, rank);
            let mut rng = random::seeded(9, 9);
            let logits = random::normal(&mut rng, circuit.gate_width(), 1.0);
            let leaves: Vec<f64> =
                random::normal(&mut rng, places * rank, 2.0).iter().map(|x| f64::from(*x)).collect();
            let observed = |place: usize| place != 2;
            let value = |logits: &[f32], leaves: &[f64]| {
                let mut gate = Vec::new();
                circuit.gate(logits, &mut gate);
                circuit.log_probability(&gate, leaves, &observed, &mut Scratch::default())
            };
            let (mut gate, mut scratch, mut flow) = (Vec::new(), Scratch::default(), vec![0.0; rank]);
            circuit.gate(&logits, &mut gate);
            circuit.log_probability(&gate, &leaves, &observed, &mut scratch);
            circuit.responsibilities(&gate, &scratch, &mut flow);
            let (mut d_leaves, mut d_gate) = (vec![0.0; leaves.len()], vec![0.0; gate.len()]);
            circuit.back(&gate, &flow, &mut scratch, &mut d_leaves, &mut d_gate);
            let mut d_logits = vec![0.0; logits.len()];
            circuit.gate_back(&gate, &d_gate, &mut d_logits);
            for index in 0..leaves.len() {
                let at = |step: f64| {
                    let mut leaves = leaves.clone();
                    leaves[index] += step;
                    value(&logits, &leaves)
                };
                let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
                let exact = if observed(index / rank) { d_leaves[index] } else { 0.0 };
                assert!((numeric - exact).abs() < 1e-8, "{kind:?} leaf {index}: {numeric}, {exact}");
            }
            for index in 0..logits.len() {
                let at = |step: f32| {
                    let mut logits = logits.clone();
                    logits[index] += step;
                    (value(&logits, &leaves), f64::from(logits[index]))
                };
                let ((high, above), (low, below)) = (at(1e-2), at(-1e-2));
                let numeric = (high - low) / (above - below);
                let exact = f64::from(d_logits[index]);
                assert!((numeric - exact).abs() < 1e-4, "{kind:?} logit {index}: {numeric}, {exact}");
            }
        }
    }

    #[test]
    fn likelihoods_that_share_no_state_do_not_vanish() {
        let circuit = Circuit::new(JointKind::Cp, 2, 2);
        let mut gate = Vec::new();
        circuit.gate(&[0.0, 0.0], &mut gate);
        let log =
            circuit.log_probability(&gate, &[0.0, -300.0, -300.0, 0.0], &|_| true, &mut Scratch::default());
        assert!((log + 300.0).abs() < 1e-9, "{log}");
    }
}
