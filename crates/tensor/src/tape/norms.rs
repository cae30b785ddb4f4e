//! Norms on the tape: their three kinds, and those of single heads.

use kernels::head_norm::Heads;

use super::{HeadColumns, Op, Tape, Var};
use crate::{AttentionSpec, HeadNorms, Norm, NormKind};

impl Tape<'_> {
    /// The rows of `x` normalised, and the inverse root mean square of each where the kind has one.
    pub(super) fn normed(&mut self, x: usize, norm: &Norm) -> (Vec<f32>, Vec<f32>) {
        let (rows, width) = (self.nodes[x].rows, self.nodes[x].width);
        let mut value = self.arena.take(rows * width);
        if let NormKind::Layer { bias } = norm.kind {
            let (weight, bias) = (self.params.data(norm.weight), self.params.data(bias));
            kernels::layer_norm::forward(&self.nodes[x].value, weight, bias, norm.epsilon, &mut value);
            return (value, Vec::new());
        }
        let mut inverse_rms = self.arena.take(rows);
        let gain = self.gain(norm);
        let input = &self.nodes[x].value;
        kernels::rms_norm::forward(
            input,
            gain.as_deref().unwrap_or(self.params.data(norm.weight)),
            norm.epsilon,
            &mut value,
            &mut inverse_rms,
        );
        self.arena.give(gain.unwrap_or_default());
        (value, inverse_rms)
    }

    /// Runs a norm back: `gradient` of its output to that of `x`, of its weight and of its bias.
    pub(super) fn norm_back(&mut self, x: usize, norm: &Norm, inverse_rms: &[f32], gradient: &[f32]) {
        let (mut dx, write) = self.gradient_of(x);
        if let NormKind::Layer { bias } = norm.kind {
            let weight = self.params.data(norm.weight);
            let mut d_bias = self.arena.take_zeroed(weight.len());
            kernels::layer_norm::backward(
                &self.nodes[x].value,
                weight,
                norm.epsilon,
                gradient,
                &mut dx,
                write,
                self.gradients.as_mut().and_then(|g| g.adding_slot(norm.weight)),
                &mut d_bias,
            );
            if let Some(slot) = self.gradients.as_mut().and_then(|g| g.adding_slot(bias)) {
                kernels::vector::add_assign(slot, &d_bias);
            }
            self.arena.give(d_bias);
        } else {
            let gain = self.gain(norm);
            let slot = self.gradients.as_mut().and_then(|g| g.adding_slot(norm.weight));
            // The gradient of a gain is that of its weight, whether or not one is added to it.
            kernels::rms_norm::backward(
                &self.nodes[x].value,
                gain.as_deref().unwrap_or(self.params.data(norm.weight)),
                inverse_rms,
                gradient,
                &mut dx,
                write,
                slot,
            );
            self.arena.give(gain.unwrap_or_default());
        }
        self.nodes[x].gradient = Some(dx);
    }

    /// `1 + weight` where the kind says so; otherwise the weight itself is the gain.
    fn gain(&mut self, norm: &Norm) -> Option<Vec<f32>> {
        if norm.kind != NormKind::RmsPlusOne {
            return None;
        }
        let weight = self.params.data(norm.weight);
        let mut gain = self.arena.take(weight.len());
        gain.iter_mut().zip(weight).for_each(|(gain, weight)| *gain = 1.0 + weight);
        Some(gain)
    }

    pub(super) fn norm_trained(&self, norm: &Norm) -> bool {
        let bias = match norm.kind {
            NormKind::Layer { bias } => self.trained(bias),
            NormKind::Rms | NormKind::RmsPlusOne => false,
        };
        bias || self.trained(norm.weight)
    }

    /// Queries and keys of `qkv` normalised head by head; values as they are.
    pub(super) fn norm_heads(&mut self, qkv: Var, norms: &HeadNorms, spec: &AttentionSpec) -> Var {
        let input = &self.nodes[qkv.0];
        let (rows, width) = (input.rows, input.width);
        let columns = HeadColumns {
            queries: Heads { row_width: width, first_column: 0, heads: spec.heads },
            keys: Heads { row_width: width, first_column: spec.heads * spec.head_dim, heads: spec.kv_heads },
        };
        let mut value = self.arena.take(rows * width);
        value.copy_from_slice(&input.value);
        let mut inverse_rms = self.arena.take(rows * (spec.heads + spec.kv_heads));
        let (of_queries, of_keys) = inverse_rms.split_at_mut(rows * spec.heads);
        let (query, key) = (self.params.data(norms.query), self.params.data(norms.key));
        kernels::head_norm::forward(columns.queries, &mut value, query, norms.epsilon, of_queries);
        kernels::head_norm::forward(columns.keys, &mut value, key, norms.epsilon, of_keys);
        let requires = input.requires_gradient || self.trained(norms.query) || self.trained(norms.key);
        self.consume(qkv.0, requires);
        self.push(Op::HeadNorm { qkv: qkv.0, norms: *norms, columns, inverse_rms }, width, value, requires)
    }

    /// Turns `gradient` of normalised queries and keys into that of `qkv`.
    pub(super) fn head_norm_back(
        &mut self,
        qkv: usize,
        norms: &HeadNorms,
        columns: &HeadColumns,
        inverse_rms: &[f32],
        mut gradient: Vec<f32>,
    ) {
        let x = &self.nodes[qkv].value;
        let (of_queries, of_keys) = inverse_rms.split_at(self.nodes[qkv].rows * columns.queries.heads);
        for (heads, weight, inverse_rms) in
            [(columns.queries, norms.query, of_queries), (columns.keys, norms.key, of_keys)]
        {
            let slot = self.gradients.as_mut().and_then(|g| g.adding_slot(weight));
            kernels::head_norm::backward(
                heads,
                x,
                self.params.data(weight),
                inverse_rms,
                &mut gradient,
                slot,
            );
        }
        self.nodes[qkv].gradient = Some(gradient);
    }
}
