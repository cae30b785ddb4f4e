//! Cross-entropy straight from hidden states: logits exist for one chunk of rows at a time, and never as a whole.

use kernels::cross_entropy::{
    capped_softmax_cross_entropy_in_place, cross_entropy_loss, softmax_cross_entropy_in_place,
};
use kernels::matmul::{View, ViewMut, Write, product_nn, product_nt, product_tn};

use super::{LossSum, ParamId, Tape, Var};

/// Rows whose logits exist at once, at least; small vocabularies take more rows, up to this many logits.
const CHUNK_ROWS: usize = 256;
const CHUNK_LOGITS: usize = 1 << 20;

impl Tape<'_> {
    /// Negative log-likelihood of `targets` (one per row, or [`crate::NO_TARGET`]) under `softmax(hidden W^T)`;
    /// with a `cap`, the logits pass through a soft cap before the softmax.
    ///
    /// `hidden` `[rows, width]`, `unembedding` `[vocabulary, width]`. While training, `scale` times the gradient of the
    /// summed loss goes into the gradients of `hidden` and of `unembedding` at once, as part of the same pass.
    pub fn cross_entropy(
        &mut self,
        hidden: &Var,
        unembedding: ParamId,
        targets: &[u32],
        scale: f32,
        cap: Option<f32>,
    ) -> LossSum {
        let (vocabulary, width) = self.params.matrix_shape(unembedding);
        let rows = self.nodes[hidden.0].rows;
        assert_eq!(targets.len(), rows, "targets and hidden states disagree");
        let needs_dx = self.nodes[hidden.0].requires_gradient;
        let needs_dw = self.trained(unembedding);
        let chunk = CHUNK_ROWS.max(CHUNK_LOGITS / vocabulary).min(rows);
        let mut logits = self.arena.take(chunk * vocabulary);
        let mut d_hidden = needs_dx.then(|| match self.nodes[hidden.0].gradient.take() {
            Some(present) => (present, Write::Add),
            None => (self.arena.take(rows * width), Write::Overwrite),
        });
        let weight = View::new(self.params.data(unembedding), vocabulary, width);
        let mut sum = LossSum::default();
        for start in (0..rows).step_by(chunk.max(1)) {
            let count = chunk.min(rows - start);
            let states =
                View::new(&self.nodes[hidden.0].value[start * width..(start + count) * width], count, width);
            let logits = &mut logits[..count * vocabulary];
            product_nt(states, weight, ViewMut::new(logits, count, vocabulary), Write::Overwrite);
            let targets = &targets[start..start + count];
            if !(needs_dx || needs_dw) {
                if let Some(cap) = cap {
                    kernels::soft_cap::forward(logits, cap);
                }
                sum += cross_entropy_loss(logits, vocabulary, targets);
                continue;
            }
            sum += match cap {
                None => softmax_cross_entropy_in_place(logits, vocabulary, targets, scale),
                Some(cap) => capped_softmax_cross_entropy_in_place(logits, vocabulary, targets, scale, cap),
            };
            let d_logits = View::new(logits, count, vocabulary);
            if let Some((d_hidden, write)) = &mut d_hidden {
                let part = &mut d_hidden[start * width..(start + count) * width];
                product_nn(d_logits, weight, ViewMut::new(part, count, width), *write);
            }
            if let Some((slot, write)) = self.gradients.as_mut().and_then(|g| g.slot(unembedding)) {
                product_tn(d_logits, states, ViewMut::new(slot, vocabulary, width), write);
            }
        }
        if let Some((d_hidden, _)) = d_hidden {
            self.nodes[hidden.0].gradient = Some(d_hidden);
        }
        self.arena.give(logits);
        sum
    }
}
