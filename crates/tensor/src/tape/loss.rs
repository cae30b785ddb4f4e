//! Cross-entropy straight from hidden states: logits exist for one chunk of rows at a time, and never as a whole.

use kernels::cross_entropy::{
    cross_entropy_loss, softmax_cross_entropy_in_place, softmax_cross_entropy_of_rows,
};
use kernels::likelihood::losses_of_rows;
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

/// Some of the rows of hidden states, with what they learn.
#[derive(Clone, Copy, Debug)]
pub struct LearningRows<'a> {
    /// The first of them; there are as many as targets.
    pub first: usize,
    /// One for each row, or [`crate::NO_TARGET`].
    pub targets: &'a [u32],
    /// Times the gradient of their summed loss.
    pub scale: f32,
}

impl<'a> LearningRows<'a> {
    fn end(&self) -> usize {
        self.first + self.targets.len()
    }

    /// As many at once as there are logits for.
    fn chunks(self, vocabulary: usize) -> impl Iterator<Item = LearningRows<'a>> {
        let rows = rows_at_once(self.targets.len(), vocabulary).max(1);
        let chunks = self.targets.chunks(rows).enumerate();
        chunks.map(move |(index, targets)| LearningRows { first: self.first + index * rows, targets, ..self })
    }
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
        let rows = LearningRows { first: 0, targets, scale };
        self.cross_entropy_of_rows(hidden, unembedding, &[rows], cap, None)
    }

    /// As [`Tape::cross_entropy`] for some of the rows, in `parts` that follow each other and have a scale each. Logits of one chunk
    /// are of one part, so that parts leave each other's bits alone.
    ///
    /// `losses`, as many as there are targets, is overwritten with the loss of each row.
    pub fn cross_entropy_of_rows(
        &mut self,
        hidden: &Var,
        unembedding: ParamId,
        parts: &[LearningRows],
        cap: Option<f32>,
        mut losses: Option<&mut [LossSum]>,
    ) -> LossSum {
        let (vocabulary, width) = self.params.matrix_shape(unembedding);
        let rows = parts.iter().map(|part| part.targets.len()).sum::<usize>();
        let all_rows = self.nodes[hidden.0].rows;
        let in_order = parts.is_sorted_by(|part, next| part.end() <= next.first);
        let within = parts.last().is_none_or(|last| last.end() <= all_rows);
        assert!(in_order && within, "targets and hidden states disagree");
        assert!(losses.as_ref().is_none_or(|losses| losses.len() == rows), "losses and targets disagree");
        let needs_dx = self.nodes[hidden.0].requires_gradient;
        let needs_dw = self.trained(unembedding);
        let chunk = parts.iter().map(|part| rows_at_once(part.targets.len(), vocabulary)).max().unwrap_or(0);
        let mut logits = self.arena.take(chunk * vocabulary);
        let mut d_hidden = needs_dx.then(|| match self.nodes[hidden.0].gradient.take() {
            Some(present) => (present, Write::Add),
            None if rows == all_rows => (self.arena.take(rows * width), Write::Overwrite),
            None => (self.arena.take_zeroed(all_rows * width), Write::Add),
        });
        let mut products = Products { precision: self.precision, arena: self.arena };
        let precision = products.precision;
        let weight = View::new(self.params.data(unembedding), vocabulary, width);
        // The unembedding is made ready once for all parts: for the logits, and for the gradient of the states.
        let mut forward_buffer = products.buffer(Side::Right, width, vocabulary);
        let mut backward_buffer = match needs_dx {
            true => products.buffer(Side::Right, vocabulary, width),
            false => Vec::new(),
        };
        let forward = Factor::transposed(precision, Side::Right, weight, &mut forward_buffer);
        let backward = needs_dx.then(|| Factor::plain(precision, Side::Right, weight, &mut backward_buffer));
        let mut sum = LossSum::default();
        for LearningRows { first, targets, scale } in parts.iter().flat_map(|part| part.chunks(vocabulary)) {
            let count = targets.len();
            let here = first * width..(first + count) * width;
            let states = View::new(&self.nodes[hidden.0].value[here.clone()], count, width);
            let logits = &mut logits[..count * vocabulary];
            let mut buffer = products.buffer(Side::Left, count, width);
            let left = Factor::plain(precision, Side::Left, states, &mut buffer);
            multiply(&left, &forward, ViewMut::new(logits, count, vocabulary), Write::Overwrite);
            products.arena.give(buffer);
            let losses = losses.as_mut().and_then(|losses| losses.split_off_mut(..count));
            let learns = needs_dx || needs_dw;
            sum += match losses {
                Some(losses) => {
                    match learns {
                        true => {
                            softmax_cross_entropy_of_rows(logits, vocabulary, targets, scale, cap, losses)
                        }
                        false => losses_of_rows(logits, vocabulary, targets, cap, losses),
                    }
                    losses.iter().copied().sum()
                }
                None if !learns => {
                    if let Some(cap) = cap {
                        kernels::soft_cap::forward(logits, cap);
                    }
                    cross_entropy_loss(logits, vocabulary, targets)
                }
                None => softmax_cross_entropy_in_place(logits, vocabulary, targets, scale, cap),
            };
            if !learns {
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
