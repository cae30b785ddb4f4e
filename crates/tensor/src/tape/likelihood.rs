//! Likelihoods straight from hidden states, row by row, for losses that are no sum over heads: such a loss first reads the
//! likelihoods, and hands each row its weight afterwards. Logits exist for one chunk of rows at a time.

use kernels::likelihood::{losses_of_rows, weighted_gradients_in_place};
use kernels::matmul::{View, ViewMut, Write, product_nn, product_nt, product_tn};

use super::loss::rows_at_once;
use super::{LossSum, ParamId, Tape, Var};

impl Tape<'_> {
    /// Whether it will run back.
    pub fn trains(&self) -> bool {
        self.gradients.is_some()
    }

    /// The loss of each row of `hidden` `[rows, width]` for its target (or [`crate::NO_TARGET`]) under `softmax(hidden W^T)`, as
    /// [`Tape::cross_entropy`] has it; overwrites `losses` `[rows]`. No gradient comes from it.
    pub fn losses(
        &mut self,
        hidden: &Var,
        unembedding: ParamId,
        targets: &[u32],
        cap: Option<f32>,
        losses: &mut [LossSum],
    ) {
        let (vocabulary, width) = self.params.matrix_shape(unembedding);
        let rows = self.nodes[hidden.0].rows;
        let chunk = rows_at_once(rows, vocabulary);
        let mut logits = self.arena.take(chunk * vocabulary);
        let weight = View::new(self.params.data(unembedding), vocabulary, width);
        for start in (0..rows).step_by(chunk.max(1)) {
            let here = start..(start + chunk).min(rows);
            let states = &self.nodes[hidden.0].value[here.start * width..here.end * width];
            let logits = &mut logits[..here.len() * vocabulary];
            let states = View::new(states, here.len(), width);
            product_nt(states, weight, ViewMut::new(logits, here.len(), vocabulary), Write::Overwrite);
            losses_of_rows(logits, vocabulary, &targets[here.clone()], cap, &mut losses[here]);
        }
        self.arena.give(logits);
    }

    /// Adds to the gradients of `hidden` and of `unembedding` what `sum over rows of weights[row] * loss[row]` gives, with the
    /// losses of [`Tape::losses`].
    pub fn weighted_cross_entropy(
        &mut self,
        hidden: &Var,
        unembedding: ParamId,
        targets: &[u32],
        weights: &[f32],
        cap: Option<f32>,
    ) {
        let (vocabulary, width) = self.params.matrix_shape(unembedding);
        let rows = self.nodes[hidden.0].rows;
        let needs_dx = self.nodes[hidden.0].requires_gradient;
        if !(needs_dx || self.trained(unembedding)) {
            return;
        }
        let chunk = rows_at_once(rows, vocabulary);
        let mut logits = self.arena.take(chunk * vocabulary);
        let mut d_hidden = needs_dx.then(|| self.gradient_of(hidden.0));
        let weight = View::new(self.params.data(unembedding), vocabulary, width);
        for start in (0..rows).step_by(chunk.max(1)) {
            let here = start..(start + chunk).min(rows);
            let values = here.start * width..here.end * width;
            let states = View::new(&self.nodes[hidden.0].value[values.clone()], here.len(), width);
            let logits = &mut logits[..here.len() * vocabulary];
            product_nt(states, weight, ViewMut::new(logits, here.len(), vocabulary), Write::Overwrite);
            weighted_gradients_in_place(
                logits,
                vocabulary,
                &targets[here.clone()],
                &weights[here.clone()],
                cap,
            );
            let d_logits = View::new(logits, here.len(), vocabulary);
            if let Some((d_hidden, write)) = &mut d_hidden {
                product_nn(d_logits, weight, ViewMut::new(&mut d_hidden[values], here.len(), width), *write);
            }
            if let Some((slot, write)) = self.gradients.as_mut().and_then(|g| g.slot(unembedding)) {
                product_tn(d_logits, states, ViewMut::new(slot, vocabulary, width), write);
            }
        }
        if let Some((d_hidden, _)) = d_hidden {
            self.nodes[hidden.0].gradient = Some(d_hidden);
        }
        self.arena.give(logits);
    }

    /// Adds `gradient` `[rows, width]`, found outside of the tape, to that of `var`.
    pub fn add_gradient(&mut self, var: &Var, gradient: &[f32]) {
        if !self.nodes[var.0].requires_gradient {
            return;
        }
        let (mut present, write) = self.gradient_of(var.0);
        match write {
            Write::Overwrite => present.copy_from_slice(gradient),
            Write::Add => kernels::vector::add_assign(&mut present, gradient),
        }
        self.nodes[var.0].gradient = Some(present);
    }
}
