//! Logits of several states of a row side by side, for losses that see them together. They exist for a chunk of rows at a time.

use kernels::matmul::{View, ViewMut, Write, product_nn, product_nt, product_tn};
use kernels::mixture::map_rows;

use super::{ParamId, Tape, Var};

/// Logits that exist at once, unless a few rows have more.
const CHUNK_LOGITS: usize = 1 << 21;

/// Rows of a chunk, at least.
const LEAST_ROWS: usize = 8;

impl Tape<'_> {
    /// `visit(row, logits)` for each row, where `logits` `[states, vocabulary]` are those of the row of each of `hidden`
    /// `[rows, width]` under `hidden W^T`, capped if there is a `cap`; gives what it gives, in the order of the rows.
    ///
    /// With `back`, what `visit` leaves in the place of the logits is their gradient, and is added to those of the states and of
    /// `unembedding`.
    pub fn visit_logits<T: Send>(
        &mut self,
        hidden: &[Var],
        unembedding: ParamId,
        cap: Option<f32>,
        back: bool,
        visit: &(dyn Fn(usize, &mut [f32]) -> T + Sync),
    ) -> Vec<T> {
        let (vocabulary, width) = self.params.matrix_shape(unembedding);
        let (states, rows) = (hidden.len(), hidden.first().map_or(0, |var| self.nodes[var.0].rows));
        let chunk = (CHUNK_LOGITS / (vocabulary * states).max(1)).max(LEAST_ROWS).min(rows);
        let mut side_by_side = self.arena.take(chunk * states * width);
        let mut logits = self.arena.take(chunk * states * vocabulary);
        let mut gradients: Vec<_> = hidden
            .iter()
            .map(|var| (back && self.nodes[var.0].requires_gradient).then(|| self.gradient_of(var.0)))
            .collect();
        let weight = View::new(self.params.data(unembedding), vocabulary, width);
        let mut found = Vec::with_capacity(rows);
        for start in (0..rows).step_by(chunk.max(1)) {
            let count = chunk.min(rows - start);
            let side_by_side = &mut side_by_side[..count * states * width];
            let logits = &mut logits[..count * states * vocabulary];
            for (row, of_row) in side_by_side.chunks_exact_mut(states * width).enumerate() {
                for (var, state) in hidden.iter().zip(of_row.chunks_exact_mut(width)) {
                    let here = (start + row) * width..(start + row + 1) * width;
                    state.copy_from_slice(&self.nodes[var.0].value[here]);
                }
            }
            let inputs = View::new(side_by_side, count * states, width);
            product_nt(inputs, weight, ViewMut::new(logits, count * states, vocabulary), Write::Overwrite);
            let capped = cap.map(|cap| {
                kernels::soft_cap::forward(logits, cap);
                (cap, if back { logits.to_vec() } else { Vec::new() })
            });
            found.extend(map_rows(logits, states * vocabulary, &|row, logits| visit(start + row, logits)));
            if !back {
                continue;
            }
            if let Some((cap, capped)) = capped {
                kernels::soft_cap::backward(&capped, cap, logits);
            }
            let d_logits = View::new(logits, count * states, vocabulary);
            if let Some((slot, write)) = self.gradients.as_mut().and_then(|g| g.slot(unembedding)) {
                product_tn(d_logits, inputs, ViewMut::new(slot, vocabulary, width), write);
            }
            // The states were read for the last time.
            let d_states = side_by_side;
            product_nn(d_logits, weight, ViewMut::new(d_states, count * states, width), Write::Overwrite);
            for (row, of_row) in d_states.chunks_exact(states * width).enumerate() {
                let here = (start + row) * width..(start + row + 1) * width;
                for (gradient, d_state) in gradients.iter_mut().zip(of_row.chunks_exact(width)) {
                    match gradient {
                        Some((gradient, Write::Overwrite)) => gradient[here.clone()].copy_from_slice(d_state),
                        Some((gradient, Write::Add)) => {
                            kernels::vector::add_assign(&mut gradient[here.clone()], d_state);
                        }
                        None => {}
                    }
                }
            }
        }
        for (var, gradient) in hidden.iter().zip(gradients) {
            self.nodes[var.0].gradient =
                gradient.map(|(gradient, _)| gradient).or(self.nodes[var.0].gradient.take());
        }
        self.arena.give(side_by_side);
        self.arena.give(logits);
        found
    }
}
