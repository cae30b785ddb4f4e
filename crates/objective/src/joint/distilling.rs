//! Distillation: joint heads learn what the model itself says of each token once it has read the text before it, in place of (a
//! share of) the token that stands in the text. With p the model's distribution and q the conditional of the joint, the loss at a
//! depth is `(1 - distill) * (-ln q(token)) + distill * KL(p || q)` (Basharin et al. 2410.17765 v2, eq. 14). p is no variable:
//! nothing is learnt through it.
//!
//! A conditional mixes all components, so here the components of a place run together: their states are kept, and their logits
//! stand beside each other for a chunk of rows.

use data::NO_TARGET;
use kernels::likelihood::softmax_in_place;
use kernels::mixture::{Weighted, divergence, gradients_in_place};
use tensor::{Tape, Var};

use super::circuit::Scratch;
use super::training::{Gradients, Likelihoods, Step};

/// What was learnt of the model's own distributions.
pub(super) struct Lessons {
    /// `[row, width]`: normed states of the model, whose logits are its distribution of the token after the row.
    states: Vec<f32>,
    width: usize,
    /// `[place][row]`: the row whose state tells of the token there, if there is one and the token counts.
    teachers: Vec<Vec<Option<u32>>>,
    rank: usize,
    /// `[row, place, rank]`: shares of the components given the tokens before.
    shares: Vec<f64>,
    /// `[row, place, rank]`: what each component is worth to the model's distribution.
    ratios: Vec<f64>,
    /// `[row, place]`
    divergence: Vec<f64>,
}

impl Lessons {
    /// Whether the model tells of the token at `place` after `row`.
    pub(super) fn taught(&self, row: usize, place: usize) -> bool {
        self.teachers[place][row].is_some()
    }

    /// The divergence of the joint's conditional there.
    pub(super) fn divergence(&self, row: usize, place: usize) -> f64 {
        self.divergence[row * self.teachers.len() + place]
    }

    fn here(&self, row: usize, place: usize) -> std::ops::Range<usize> {
        let at = (row * self.teachers.len() + place) * self.rank;
        at..at + self.rank
    }

    /// What stands for the token in the gradient of the divergence: as though it were observed, and each component had given it
    /// this likelihood. (The mean of the components' own gradients over p; the circuit is linear in the likelihoods of a place.)
    pub(super) fn log_ratios(&self, row: usize, place: usize) -> impl Iterator<Item = f64> {
        self.ratios[self.here(row, place)].iter().map(|ratio| ratio.max(f64::MIN_POSITIVE).ln())
    }

    /// The model's states before the tokens at `place`; another row's where there is none.
    fn teacher(&self, tape: &mut Tape, place: usize) -> Var {
        let mut states = Vec::with_capacity(self.states.len());
        for teacher in &self.teachers[place] {
            let row = teacher.unwrap_or(0) as usize;
            states.extend_from_slice(&self.states[row * self.width..(row + 1) * self.width]);
        }
        tape.input(&states, self.width)
    }
}

impl Step<'_> {
    /// None where nothing is distilled: without gradients the loss is that of the text.
    pub(super) fn lessons(&self, tape: &mut Tape, trunk: &Var, length: usize) -> Option<Lessons> {
        let (n, rank, rows) = (self.heads.spec.n, self.heads.spec.rank, self.targets[0].len());
        if self.heads.spec.distill == 0.0 || !tape.trains() {
            return None;
        }
        let mark = tape.mark();
        let normed = self.decoder.final_norm(tape, trunk);
        let states = tape.value(&normed).to_vec();
        tape.forget_to(mark);
        let teacher = |row: usize, place: usize| {
            // The target is of the same document, so the rows between are as well.
            let read = row % length + place < length;
            let counts = self.targets[place][row] != NO_TARGET && !self.heads.maps[place].is_empty();
            (read && counts).then_some((row + place) as u32)
        };
        Some(Lessons {
            width: states.len() / rows.max(1),
            states,
            teachers: (0..n).map(|place| (0..rows).map(|row| teacher(row, place)).collect()).collect(),
            rank,
            shares: vec![0.0; rows * n * rank],
            ratios: vec![1.0; rows * n * rank],
            divergence: vec![0.0; rows * n],
        })
    }

    /// As [`Step::read`], with the model's distributions beside the components'.
    pub(super) fn study(
        &self,
        tape: &mut Tape,
        trunk: &Var,
        place: usize,
        into: &mut Likelihoods,
        lessons: &mut Lessons,
    ) {
        let (n, rank, rows) = (self.heads.spec.n, self.heads.spec.rank, self.targets[place].len());
        self.share(place, into, lessons);
        let mark = tape.mark();
        let mut hidden: Vec<Var> =
            (0..rank).map(|state| self.component(tape, trunk, place, state).1).collect();
        hidden.push(lessons.teacher(tape, place));
        let known = &*lessons;
        let found = tape.visit_logits(
            &hidden,
            self.decoder.unembedding,
            self.decoder.config.variant.logit_cap,
            false,
            &|row, logits| self.study_row(row, place, logits, known),
        );
        tape.forget_to(mark);
        debug_assert_eq!(found.len(), rows, "a result for each row");
        for (row, found) in found.into_iter().enumerate() {
            let at = (row * n + place) * rank;
            for (state, (log, correct)) in found.components.into_iter().enumerate() {
                (into.logs[at + state], into.correct[at + state]) = (log, correct);
            }
            if lessons.taught(row, place) {
                lessons.divergence[row * n + place] = found.divergence;
                lessons.ratios[at..at + rank].copy_from_slice(&found.ratios);
            }
        }
    }

    fn study_row(&self, row: usize, place: usize, logits: &mut [f32], lessons: &Lessons) -> Studied {
        let rank = self.heads.spec.rank;
        let vocabulary = logits.len() / (rank + 1);
        let (components, teacher) = logits.split_at_mut(rank * vocabulary);
        let target = self.targets[place][row];
        let mut studied = Studied { components: vec![(0.0, false); rank], ..Studied::default() };
        if target == NO_TARGET {
            return studied;
        }
        let of_components = studied.components.iter_mut().zip(components.chunks_exact_mut(vocabulary));
        for ((log, correct), component) in of_components {
            let own = component[target as usize];
            let before = component[..target as usize].iter().all(|logit| *logit < own);
            *correct = before && component.iter().all(|logit| *logit <= own);
            *log = f64::from(own) - softmax_in_place(component);
        }
        if lessons.taught(row, place) {
            softmax_in_place(teacher);
            studied.ratios = vec![0.0; rank];
            let shares = &lessons.shares[lessons.here(row, place)];
            studied.divergence = divergence(components, shares, teacher, &mut studied.ratios);
        }
        studied
    }

    /// Shares of the components at `place`, given the tokens before.
    fn share(&self, place: usize, likelihoods: &Likelihoods, lessons: &mut Lessons) {
        let (n, rank, circuit) = (self.heads.spec.n, self.heads.spec.rank, &self.heads.circuit);
        let (mut gate, mut scratch) = (Vec::new(), Scratch::default());
        let (mut flow, mut unused) = (vec![0.0; rank], vec![0.0; circuit.gate_width()]);
        for row in 0..self.targets[place].len() {
            if !lessons.taught(row, place) {
                continue;
            }
            self.gate(likelihoods, row, &mut gate);
            let logs = &likelihoods.logs[row * n * rank..(row + 1) * n * rank];
            let before = |other: usize| other < place && self.observed(row, other);
            circuit.log_probability(&gate, logs, &before, &mut scratch);
            circuit.responsibilities(&gate, &scratch, &mut flow);
            let mut leaves = vec![0.0; n * rank];
            circuit.back(&gate, &flow, &mut scratch, &mut leaves, &mut unused);
            let here = lessons.here(row, place);
            lessons.shares[here].copy_from_slice(&leaves[place * rank..(place + 1) * rank]);
        }
    }

    /// The components of a place forward once more, and back, with the model's distributions beside them.
    pub(super) fn teach(
        &self,
        tape: &mut Tape,
        trunk: &Var,
        place: usize,
        gradients: &Gradients,
        lessons: &Lessons,
    ) {
        let rank = self.heads.spec.rank;
        let mark = tape.mark();
        let mut hidden: Vec<Var> =
            (0..rank).map(|state| self.component(tape, trunk, place, state).1).collect();
        hidden.push(lessons.teacher(tape, place));
        let factor = f64::from(self.heads.spec.distill) * self.scale(place);
        tape.visit_logits(
            &hidden,
            self.decoder.unembedding,
            self.decoder.config.variant.logit_cap,
            true,
            &|row, logits| {
                let vocabulary = logits.len() / (rank + 1);
                let target = self.targets[place][row];
                if target == NO_TARGET {
                    logits.fill(0.0);
                    return;
                }
                let (components, teacher) = logits.split_at_mut(rank * vocabulary);
                for component in components.chunks_exact_mut(vocabulary) {
                    softmax_in_place(component);
                }
                softmax_in_place(teacher);
                let weights: Vec<f32> =
                    (0..rank).map(|state| gradients.weights[place * rank + state][row]).collect();
                let here = lessons.here(row, place);
                let of = Weighted {
                    shares: &lessons.shares[here.clone()],
                    ratios: &lessons.ratios[here],
                    factor: if lessons.taught(row, place) { factor } else { 0.0 },
                    weights: &weights,
                    target: target as usize,
                };
                gradients_in_place(components, teacher, &of);
                teacher.fill(0.0);
            },
        );
        tape.backward_to(mark);
    }
}

/// What a row says of its token.
#[derive(Default)]
struct Studied {
    /// `[rank]`: logarithm of its likelihood, and whether it is the most likely one.
    components: Vec<(f64, bool)>,
    /// `[rank]`; empty where nothing is taught.
    ratios: Vec<f64>,
    divergence: f64,
}
