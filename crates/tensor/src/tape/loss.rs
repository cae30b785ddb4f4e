//! Cross-entropy straight from hidden states: logits exist for one chunk of rows at a time, and never as a whole.

use kernels::cross_entropy::{
    capped_softmax_cross_entropy_in_place, cross_entropy_loss, softmax_cross_entropy_in_place,
    softmax_cross_entropy_of_rows,
};
use kernels::matmul::{Factor, Side, View, ViewMut, Write, multiply};

use super::linear::Products;
use super::{LossSum, ParamId, Tape, Var};

/// Rows whose logits exist at once, at least; small vocabularies take more rows, up to this many logits.
const CHUNK_ROWS: usize = 256;
const CHUNK_LOGITS: usize = 1 << 20;

/// Rows of a chunk.
pub(super) fn rows_at_once(rows: usize, vocabulary: usize) -> usize {
    CHUNK_ROWS.max(CHUNK_LOGITS / vocabulary).min(rows)
}

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
        assert_eq!(targets.len(), self.nodes[hidden.0].rows, "targets and hidden states disagree");
        self.cross_entropy_of_rows(hidden, 0, unembedding, targets, scale, cap, None)
    }

    /// As [`Tape::cross_entropy`] for the rows from `first` on, as many as there are targets; the loss of the others, if there is
    /// any, is taken in another call. `losses` `[rows]` is overwritten with the loss of each row.
    pub fn cross_entropy_of_rows(
        &mut self,
        hidden: &Var,
        first: usize,
        unembedding: ParamId,
        targets: &[u32],
        scale: f32,
        cap: Option<f32>,
        mut losses: Option<&mut [LossSum]>,
    ) -> LossSum {
        let (vocabulary, width) = self.params.matrix_shape(unembedding);
        let rows = targets.len();
        let all_rows = self.nodes[hidden.0].rows;
        assert!(first + rows <= all_rows, "targets and hidden states disagree");
        let needs_dx = self.nodes[hidden.0].requires_gradient;
        let needs_dw = self.trained(unembedding);
        let chunk = rows_at_once(rows, vocabulary);
        let mut logits = self.arena.take(chunk * vocabulary);
        let mut d_hidden = needs_dx.then(|| match self.nodes[hidden.0].gradient.take() {
            Some(present) => (present, Write::Add),
            None if rows == all_rows => (self.arena.take(rows * width), Write::Overwrite),
            None => (self.arena.take_zeroed(all_rows * width), Write::Add),
        });
        let mut products = Products { precision: self.precision, arena: self.arena };
        let precision = products.precision;
        let weight = View::new(self.params.data(unembedding), vocabulary, width);
        // The unembedding is made ready once for all chunks: for the logits, and for the gradient of the states.
        let mut forward_buffer = products.buffer(Side::Right, width, vocabulary);
        let mut backward_buffer = match needs_dx {
            true => products.buffer(Side::Right, vocabulary, width),
            false => Vec::new(),
        };
        let forward = Factor::transposed(precision, Side::Right, weight, &mut forward_buffer);
        let backward = needs_dx.then(|| Factor::plain(precision, Side::Right, weight, &mut backward_buffer));
        let mut sum = LossSum::default();
        for start in (0..rows).step_by(chunk.max(1)) {
            let count = chunk.min(rows - start);
            let here = (first + start) * width..(first + start + count) * width;
            let states = View::new(&self.nodes[hidden.0].value[here.clone()], count, width);
            let logits = &mut logits[..count * vocabulary];
            let mut buffer = products.buffer(Side::Left, count, width);
            let left = Factor::plain(precision, Side::Left, states, &mut buffer);
            multiply(&left, &forward, ViewMut::new(logits, count, vocabulary), Write::Overwrite);
            products.arena.give(buffer);
            let targets = &targets[start..start + count];
            let apart = losses.as_deref_mut().map(|losses| &mut losses[start..start + count]);
            if let Some(losses) = apart {
                softmax_cross_entropy_of_rows(logits, vocabulary, targets, scale, cap, losses);
                losses.iter().for_each(|&loss| sum += loss);
            } else if !(needs_dx || needs_dw) {
                if let Some(cap) = cap {
                    kernels::soft_cap::forward(logits, cap);
                }
                sum += cross_entropy_loss(logits, vocabulary, targets);
            } else {
                sum += match cap {
                    None => softmax_cross_entropy_in_place(logits, vocabulary, targets, scale),
                    Some(cap) => {
                        capped_softmax_cross_entropy_in_place(logits, vocabulary, targets, scale, cap)
                    }
                };
            }
            if !(needs_dx || needs_dw) {
                continue;
            }
            let d_logits = View::new(logits, count, vocabulary);
            if let (Some((d_hidden, write)), Some(backward)) = (&mut d_hidden, &backward) {
                let mut buffer = products.buffer(Side::Left, count, vocabulary);
                let left = Factor::plain(precision, Side::Left, d_logits, &mut buffer);
                multiply(&left, backward, ViewMut::new(&mut d_hidden[here], count, width), *write);
                products.arena.give(buffer);
            }
            if let Some((slot, write)) = self.gradients.as_mut().and_then(|g| g.slot(unembedding)) {
                let mut buffer = products.buffer(Side::Right, count, width);
                let states = Factor::plain(precision, Side::Right, states, &mut buffer);
                let slot = ViewMut::new(slot, vocabulary, width);
                products.weight_gradient(d_logits, &states, slot, write);
                products.arena.give(buffer);
            }
        }
        if let Some((d_hidden, _)) = d_hidden {
            self.nodes[hidden.0].gradient = Some(d_hidden);
        }
        for buffer in [logits, forward_buffer, backward_buffer] {
            self.arena.give(buffer);
        }
        sum
    }
}
