//! The loss of joint heads and its gradient, one component of one place after the other.
//!
//! With `L_s` the log-probability of the first s tokens, the loss at depth s is `L_(s-1) - L_s`; their sum is the negative
//! logarithm of the joint probability. First every component's log-likelihood of its token is read, `[row, place, rank]` numbers;
//! they and the gate give each loss and, by responsibilities, the weight of each component's own cross-entropy in the
//! gradient. Then the components run once more, with these weights, and back. Logits exist for a chunk of rows of one component.

use data::{Batch, NO_TARGET};
use model::Decoder;
use tensor::{LossSum, Mark, Ops, Tape, Var};

use super::circuit::Scratch;
use super::distilling::Lessons;
use super::{BalanceOn, JointHeads, JointWindows};
use crate::{Objective, Window};

pub(super) fn loss(
    heads: &JointHeads,
    tape: &mut Tape,
    decoder: &Decoder,
    trunk: &Var,
    batch: &Batch,
    window: &Window,
) -> Vec<LossSum> {
    let depths = window.depths().min(heads.losses());
    let mut own = Vec::new();
    batch.targets(1, &mut own);
    let targets = (1..=heads.spec.n)
        .map(|depth| {
            let mut targets = Vec::new();
            batch.targets(depth, &mut targets);
            if heads.spec.windows == JointWindows::First {
                let later = targets.iter_mut().zip(&batch.positions).filter(|(_, at)| **at > 0);
                later.for_each(|(target, _)| *target = NO_TARGET);
            }
            targets
        })
        .collect();
    let step = Step { heads, decoder, window, own, targets, depths, length: batch.length };
    let mut sums = vec![step.own_next_token(tape, trunk)];
    sums.extend(step.joint(tape, trunk, sums[0]));
    sums
}

pub(super) struct Step<'a> {
    pub(super) heads: &'a JointHeads,
    pub(super) decoder: &'a Decoder,
    window: &'a Window,
    /// `[row]`, of the model's own next token.
    own: Vec<u32>,
    /// `[place][row]`
    pub(super) targets: Vec<Vec<u32>>,
    /// Losses that are wanted.
    depths: usize,
    /// Of a row of the batch.
    length: usize,
}

/// What the components say of their tokens.
pub(super) struct Likelihoods {
    /// `[row, place, rank]`
    pub(super) logs: Vec<f64>,
    /// Whether the token is the component's most likely one.
    pub(super) correct: Vec<bool>,
    /// Logits of the gate, `[row, gate]`; empty at rank 1.
    gate: Vec<f32>,
}

/// Gradients that the rows leave.
pub(super) struct Gradients {
    /// `[place, rank][row]`: weight of a component's cross-entropy.
    pub(super) weights: Vec<Vec<f32>>,
    /// `[row, gate]`
    gate: Vec<f32>,
}

/// Sums over rows.
struct Sums {
    losses: Vec<LossSum>,
    /// Mean weights, as sums.
    usage: Vec<f64>,
    /// How often each weight was the largest.
    chosen: Vec<usize>,
    rows: usize,
}

impl Step<'_> {
    fn own_next_token(&self, tape: &mut Tape, trunk: &Var) -> LossSum {
        let mark = tape.mark();
        let normed = self.decoder.final_norm(tape, trunk);
        let scale = self.heads.weight(1) / self.window.targets[0].max(1) as f32;
        let cap = self.decoder.config.variant.logit_cap;
        let sum = tape.cross_entropy(&normed, self.decoder.unembedding, &self.own, scale, cap);
        tape.backward_to(mark);
        sum
    }

    /// Losses of the joint, and behind them what each component's weight was on average, as sums.
    fn joint(&self, tape: &mut Tape, trunk: &Var, own: LossSum) -> Vec<LossSum> {
        let (rank, rows) = (self.heads.spec.rank, self.targets[0].len());
        let mark = tape.mark();
        let gate = self.heads.gate.map(|gate| {
            let normed = self.decoder.final_norm(tape, trunk);
            tape.linear(normed, &[gate])
        });
        let mut likelihoods = Likelihoods {
            logs: vec![0.0; rows * self.heads.spec.n * rank],
            correct: vec![false; rows * self.heads.spec.n * rank],
            gate: gate.as_ref().map_or_else(Vec::new, |gate| tape.value(gate).to_vec()),
        };
        let mut lessons = self.lessons(tape, trunk, self.length);
        for place in 0..self.heads.spec.n {
            match &mut lessons {
                Some(lessons) if !self.heads.maps[place].is_empty() => {
                    self.study(tape, trunk, place, &mut likelihoods, lessons);
                }
                _ => self.read(tape, trunk, place, &mut likelihoods),
            }
        }
        let mut sums = self.sums(&likelihoods, lessons.as_ref());
        if tape.trains() {
            let gradients = self.gradients(&likelihoods, &sums, lessons.as_ref());
            for (place, maps) in self.heads.maps.iter().enumerate().take(self.depths.saturating_sub(1)) {
                if let (Some(lessons), false) = (&lessons, maps.is_empty()) {
                    self.teach(tape, trunk, place, &gradients, lessons);
                    continue;
                }
                for (state, _) in maps.iter().enumerate() {
                    let (mark, normed) = self.component(tape, trunk, place, state);
                    let weights = &gradients.weights[place * rank + state];
                    let cap = self.decoder.config.variant.logit_cap;
                    let unembedding = self.decoder.unembedding;
                    tape.weighted_cross_entropy(&normed, unembedding, &self.targets[place], weights, cap);
                    tape.backward_to(mark);
                }
            }
            if let Some(gate) = &gate {
                tape.add_gradient(gate, &gradients.gate);
            }
        }
        tape.backward_to(mark);
        if !self.reads(0) {
            // The first place is the model itself, and was read already.
            sums.losses[0] = own;
        }
        sums.losses.truncate(self.depths.saturating_sub(1));
        let usage = sums.usage.iter().filter(|_| self.heads.mixes());
        let usage = usage.map(|sum| LossSum { nll: *sum, targets: sums.rows, correct: 0 });
        sums.losses.iter().copied().chain(usage).collect()
    }

    /// The normed state of a component, and the mark before it.
    pub(super) fn component(&self, tape: &mut Tape, trunk: &Var, place: usize, state: usize) -> (Mark, Var) {
        let mark = tape.mark();
        let shared = tape.share(trunk);
        let mapped = match self.heads.maps[place].get(state) {
            Some(map) => tape.linear(shared, &[*map]),
            None => shared,
        };
        (mark, self.decoder.final_norm(tape, &mapped))
    }

    /// Whether a place has to be read: at rank 1 the first is the model itself.
    fn reads(&self, place: usize) -> bool {
        !self.heads.maps[place].is_empty() || self.heads.spec.windows == JointWindows::First
    }

    fn read(&self, tape: &mut Tape, trunk: &Var, place: usize, into: &mut Likelihoods) {
        let (n, rank) = (self.heads.spec.n, self.heads.spec.rank);
        let mut losses = vec![LossSum::default(); self.targets[place].len()];
        for state in (0..rank).filter(|_| self.reads(place)) {
            let (mark, normed) = self.component(tape, trunk, place, state);
            let (unembedding, cap) = (self.decoder.unembedding, self.decoder.config.variant.logit_cap);
            tape.losses(&normed, unembedding, &self.targets[place], cap, &mut losses);
            tape.forget_to(mark);
            for (row, loss) in losses.iter().enumerate() {
                let at = (row * n + place) * rank + state;
                into.logs[at] = -loss.nll;
                into.correct[at] = loss.correct > 0;
            }
        }
    }

    /// Whether the token at `place` counts: it is there, and what the components say of it was read.
    pub(super) fn observed(&self, row: usize, place: usize) -> bool {
        self.targets[place][row] != NO_TARGET && self.reads(place)
    }

    /// The gate of a row, as probabilities.
    pub(super) fn gate(&self, likelihoods: &Likelihoods, row: usize, gate: &mut Vec<f64>) {
        let circuit = &self.heads.circuit;
        if self.heads.mixes() {
            let width = circuit.gate_width();
            circuit.gate(&likelihoods.gate[row * width..(row + 1) * width], gate);
        } else {
            gate.clear();
            gate.resize(circuit.gate_width(), 1.0);
        }
    }

    fn sums(&self, likelihoods: &Likelihoods, lessons: Option<&Lessons>) -> Sums {
        let (n, rank, circuit) = (self.heads.spec.n, self.heads.spec.rank, &self.heads.circuit);
        let mut sums = Sums {
            losses: vec![LossSum::default(); n],
            usage: vec![0.0; rank],
            chosen: vec![0; rank],
            rows: 0,
        };
        let (mut gate, mut scratch) = (Vec::new(), Scratch::default());
        let (mut flow, mut unused) = (vec![0.0; rank], vec![0.0; circuit.gate_width()]);
        for row in (0..self.targets[0].len()).filter(|&row| self.targets.iter().any(|t| t[row] != NO_TARGET))
        {
            self.gate(likelihoods, row, &mut gate);
            let here = row * n * rank..(row + 1) * n * rank;
            let logs = &likelihoods.logs[here.clone()];
            let mut before = circuit.log_probability(&gate, logs, &|_| false, &mut scratch);
            for place in 0..n {
                if !self.observed(row, place) {
                    continue;
                }
                // Of the components, the one that the tokens before make likeliest speaks.
                circuit.responsibilities(&gate, &scratch, &mut flow);
                let mut leaves = vec![0.0; n * rank];
                circuit.back(&gate, &flow, &mut scratch, &mut leaves, &mut unused);
                let likeliest = largest(&leaves[place * rank..(place + 1) * rank]);
                let correct = likelihoods.correct[here.start + place * rank + likeliest];
                let seen = |other: usize| other <= place && self.observed(row, other);
                let after = circuit.log_probability(&gate, logs, &seen, &mut scratch);
                let own = self.distilled(row, place, lessons);
                let divergence = lessons.map_or(0.0, |lessons| lessons.divergence(row, place));
                let nll = (1.0 - own) * (before - after) + own * divergence;
                sums.losses[place] += LossSum { nll, targets: 1, correct: usize::from(correct) };
                before = after;
            }
            let balanced = match self.heads.spec.balance_on {
                BalanceOn::Weights => &gate[..rank],
                BalanceOn::Responsibilities => {
                    circuit.responsibilities(&gate, &scratch, &mut flow);
                    &flow
                }
            };
            sums.usage.iter_mut().zip(&gate).for_each(|(sum, weight)| *sum += weight);
            sums.chosen[largest(balanced)] += 1;
            sums.rows += 1;
        }
        sums
    }

    /// Share of the loss of a token that is the divergence from the model's own distribution.
    fn distilled(&self, row: usize, place: usize, lessons: Option<&Lessons>) -> f64 {
        let taught = lessons.is_some_and(|lessons| lessons.taught(row, place));
        if taught { f64::from(self.heads.spec.distill) } else { 0.0 }
    }

    fn gradients(&self, likelihoods: &Likelihoods, sums: &Sums, lessons: Option<&Lessons>) -> Gradients {
        let (n, rank, circuit) = (self.heads.spec.n, self.heads.spec.rank, &self.heads.circuit);
        let (rows, width) = (self.targets[0].len(), circuit.gate_width());
        let mut gradients = Gradients {
            weights: vec![vec![0.0; rows]; n * rank],
            gate: vec![0.0; if self.heads.mixes() { rows * width } else { 0 }],
        };
        let balance = self.balance(sums);
        let (mut gate, mut scratch) = (Vec::new(), Scratch::default());
        let mut flow = vec![0.0; rank];
        let (mut leaves, mut d_gate) = (vec![0.0; n * rank], vec![0.0; width]);
        for row in (0..rows).filter(|&row| self.targets.iter().any(|t| t[row] != NO_TARGET)) {
            self.gate(likelihoods, row, &mut gate);
            let logs = &likelihoods.logs[row * n * rank..(row + 1) * n * rank];
            leaves.fill(0.0);
            d_gate.fill(0.0);
            // The loss is `sum over s of c_s (L_(s-1) - L_s)`: that of L_s is `c_(s+1) - c_s`.
            for place in (0..n).filter(|&place| self.observed(row, place)) {
                let later = (place + 1..n).find(|&later| self.observed(row, later));
                let scale = |place| (1.0 - self.distilled(row, place, lessons)) * self.scale(place);
                let factor = later.map_or(0.0, scale) - scale(place);
                let last = later.is_none();
                if factor == 0.0 && !last {
                    continue;
                }
                let seen = |other: usize| other <= place && self.observed(row, other);
                circuit.log_probability(&gate, logs, &seen, &mut scratch);
                circuit.responsibilities(&gate, &scratch, &mut flow);
                let even = match self.heads.spec.balance_on {
                    BalanceOn::Responsibilities if last => {
                        flow.iter().zip(&balance).map(|(share, even)| share * even).sum()
                    }
                    _ => 0.0,
                };
                for (flow, balance) in flow.iter_mut().zip(&balance) {
                    let own = if last && self.heads.spec.balance_on == BalanceOn::Responsibilities {
                        *flow * (balance - even)
                    } else {
                        0.0
                    };
                    *flow = *flow * factor + own;
                }
                let mut unseen = vec![0.0; n * rank];
                circuit.back(&gate, &flow, &mut scratch, &mut unseen, &mut d_gate);
                for place in (0..n).filter(|&place| seen(place)) {
                    let here = place * rank..(place + 1) * rank;
                    leaves[here.clone()].iter_mut().zip(&unseen[here]).for_each(|(to, d)| *to += d);
                }
            }
            for place in (0..n).filter(|&place| self.distilled(row, place, lessons) > 0.0) {
                let Some(lessons) = lessons else { continue };
                let factor = self.distilled(row, place, Some(lessons)) * self.scale(place);
                let before = |other: usize| other < place && self.observed(row, other);
                let mut expected = logs.to_vec();
                let here = place * rank..(place + 1) * rank;
                expected[here].iter_mut().zip(lessons.log_ratios(row, place)).for_each(|(log, of)| *log = of);
                // The divergence at s is the mean of `L_(s-1) - L_s` over the model's distribution, less its entropy.
                for (with, factor) in [(true, -factor), (false, factor)] {
                    let seen = |other: usize| before(other) || with && other == place;
                    circuit.log_probability(&gate, &expected, &seen, &mut scratch);
                    circuit.responsibilities(&gate, &scratch, &mut flow);
                    flow.iter_mut().for_each(|flow| *flow *= factor);
                    let mut unseen = vec![0.0; n * rank];
                    circuit.back(&gate, &flow, &mut scratch, &mut unseen, &mut d_gate);
                    for place in (0..n).filter(|&place| before(place)) {
                        let here = place * rank..(place + 1) * rank;
                        leaves[here.clone()].iter_mut().zip(&unseen[here]).for_each(|(to, d)| *to += d);
                    }
                }
            }
            if self.heads.spec.balance_on == BalanceOn::Weights {
                for (state, balance) in balance.iter().enumerate() {
                    d_gate[state] += gate[state] * balance;
                }
            }
            for (weights, d_log) in gradients.weights.iter_mut().zip(&leaves) {
                // A cross-entropy is the negative of a log-likelihood.
                weights[row] = -*d_log as f32;
            }
            if self.heads.mixes() {
                circuit.gate_back(&gate, &d_gate, &mut gradients.gate[row * width..(row + 1) * width]);
            }
        }
        gradients
    }

    /// What the loss at `place` is multiplied with.
    pub(super) fn scale(&self, place: usize) -> f64 {
        match self.window.targets.get(place + 1) {
            Some(&targets) => f64::from(self.heads.weight(place + 2)) / targets.max(1) as f64,
            // Not trained now.
            None => 0.0,
        }
    }

    /// Gradient of the balancing loss with respect to the weight of each component in one row.
    fn balance(&self, sums: &Sums) -> Vec<f64> {
        let rank = self.heads.spec.rank;
        let rows = self.window.targets.get(1).copied().unwrap_or(0).max(1);
        let factor = match self.heads.mixes() {
            true => f64::from(self.heads.spec.balance) * rank as f64 / rows as f64,
            false => 0.0,
        };
        sums.chosen.iter().map(|&chosen| factor * chosen as f64 / sums.rows.max(1) as f64).collect()
    }
}

/// Index of the largest; the first among equals.
fn largest(values: &[f64]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}
