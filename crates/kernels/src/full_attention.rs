//! Attention in which every query sees every key: encoders, and decoders that look at an encoder's output.
//!
//! Queries and keys may be of different sequences and of different number. One task is one head of one row of the batch;
//! tasks work serially within, so that the bits do not depend on the number of threads.

use rayon::prelude::*;

use crate::matmul::{View, ViewMut, Write, serial};

/// The sizes of an attention without a mask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FullAttention {
    /// Rows of the batch.
    pub batch: usize,
    /// Queries in a row of the batch.
    pub queries: usize,
    /// Keys in a row of the batch.
    pub keys: usize,
    /// Heads, of queries as of keys and values.
    pub heads: usize,
    /// Components of one head.
    pub head_dim: usize,
    /// Factor of the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
}

/// Softmax attention.
///
/// - `queries` `[batch * queries, heads * head_dim]`;
/// - `memory` `[batch * keys, 2 heads * head_dim]`: key heads, then value heads;
/// - `out` `[batch * queries, heads * head_dim]`, overwritten.
///
/// # Panics
/// When the lengths disagree, or there are queries and no keys.
pub fn forward(shape: &FullAttention, queries: &[f32], memory: &[f32], out: &mut [f32]) {
    shape.check(queries.len(), memory.len());
    assert_eq!(out.len(), queries.len(), "attention: outputs and queries disagree");
    if out.is_empty() {
        return;
    }
    let dim = shape.head_dim;
    let mut tasks = Vec::with_capacity(shape.batch * shape.heads);
    for (batch, out) in out.chunks_mut(shape.queries * shape.width()).enumerate() {
        let columns = ViewMut::new(out, shape.queries, shape.width()).column_blocks(dim);
        tasks.extend(
            columns
                .into_iter()
                .enumerate()
                .map(|(head, out)| (Task::new(shape, queries, memory, batch, head), out)),
        );
    }
    tasks.into_par_iter().for_each(|(task, out)| {
        let weights = task.weights();
        let weights = View::new(&weights, shape.queries, shape.keys);
        serial::product_nn(weights, task.values, out, Write::Overwrite);
    });
}

/// Gradients of [`forward`] for `queries` and `memory`, given its inputs and `d_out`; overwrites `d_queries` and `d_memory`.
/// The weights are computed again.
///
/// # Panics
/// As [`forward`].
pub fn backward(
    shape: &FullAttention,
    queries: &[f32],
    memory: &[f32],
    d_out: &[f32],
    d_queries: &mut [f32],
    d_memory: &mut [f32],
) {
    shape.check(queries.len(), memory.len());
    assert!(
        d_out.len() == queries.len() && d_queries.len() == queries.len() && d_memory.len() == memory.len(),
        "attention: gradients and inputs disagree"
    );
    if d_out.is_empty() {
        d_memory.fill(0.0);
        return;
    }
    let (dim, width) = (shape.head_dim, shape.width());
    let mut tasks = Vec::with_capacity(shape.batch * shape.heads);
    let parts = d_queries.chunks_mut(shape.queries * width).zip(d_memory.chunks_mut(shape.keys * 2 * width));
    for (batch, (d_queries, d_memory)) in parts.enumerate() {
        let (d_keys, d_values) = ViewMut::new(d_memory, shape.keys, 2 * width).split_columns(width);
        let d_queries = ViewMut::new(d_queries, shape.queries, width).column_blocks(dim);
        let blocks = d_queries.into_iter().zip(d_keys.column_blocks(dim)).zip(d_values.column_blocks(dim));
        for (head, ((d_queries, d_keys), d_values)) in blocks.enumerate() {
            let d_out = View::new(
                &d_out[batch * shape.queries * width..][..shape.queries * width],
                shape.queries,
                width,
            )
            .column_range(head * dim..(head + 1) * dim);
            tasks.push((Task::new(shape, queries, memory, batch, head), d_out, d_queries, d_keys, d_values));
        }
    }
    tasks.into_par_iter().for_each(|(task, d_out, d_queries, d_keys, d_values)| {
        task.backward(d_out, d_queries, d_keys, d_values);
    });
}

impl FullAttention {
    fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    fn check(&self, queries: usize, memory: usize) {
        assert!(
            queries == self.batch * self.queries * self.width()
                && memory == self.batch * self.keys * 2 * self.width(),
            "attention: {queries} elements of queries and {memory} of keys and values do not fit {self:?}"
        );
        assert!(self.keys > 0 || queries == 0, "attention: queries without keys");
    }
}

/// One head of one row of the batch.
struct Task<'a> {
    shape: &'a FullAttention,
    queries: View<'a>,
    keys: View<'a>,
    values: View<'a>,
}

impl<'a> Task<'a> {
    fn new(
        shape: &'a FullAttention,
        queries: &'a [f32],
        memory: &'a [f32],
        batch: usize,
        head: usize,
    ) -> Self {
        let (width, dim) = (shape.width(), shape.head_dim);
        let queries = &queries[batch * shape.queries * width..][..shape.queries * width];
        let memory = &memory[batch * shape.keys * 2 * width..][..shape.keys * 2 * width];
        let memory = View::new(memory, shape.keys, 2 * width);
        Self {
            shape,
            queries: View::new(queries, shape.queries, width).column_range(head * dim..(head + 1) * dim),
            keys: memory.column_range(head * dim..(head + 1) * dim),
            values: memory.column_range(width + head * dim..width + (head + 1) * dim),
        }
    }

    /// `softmax(scale Q K^T)`, `[queries, keys]`.
    fn weights(&self) -> Vec<f32> {
        let (rows, keys) = (self.shape.queries, self.shape.keys);
        let mut weights = vec![0.0; rows * keys];
        let view = ViewMut::new(&mut weights, rows, keys);
        serial::product_nt(self.queries, self.keys, view, Write::Overwrite, self.shape.scale);
        for row in weights.chunks_exact_mut(keys) {
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            row.iter_mut().for_each(|score| *score = (*score - largest).exp());
            let inverse = 1.0 / row.iter().sum::<f32>();
            row.iter_mut().for_each(|weight| *weight *= inverse);
        }
        weights
    }

    /// With weights `P` and `dP = dO V^T`: `dV = P^T dO`, `dS = P (dP - rowsum(P dP))`, `dQ = scale dS K`, `dK = scale dS^T Q`.
    fn backward(&self, d_out: View, d_queries: ViewMut, d_keys: ViewMut, d_values: ViewMut) {
        let (rows, keys) = (self.shape.queries, self.shape.keys);
        let weights = self.weights();
        serial::product_tn(View::new(&weights, rows, keys), d_out, d_values, Write::Overwrite);
        let mut d_scores = vec![0.0; rows * keys];
        let view = ViewMut::new(&mut d_scores, rows, keys);
        serial::product_nt(d_out, self.values, view, Write::Overwrite, 1.0);
        for (d_row, row) in d_scores.chunks_exact_mut(keys).zip(weights.chunks_exact(keys)) {
            let mean: f32 = d_row.iter().zip(row).map(|(d, p)| d * p).sum();
            d_row.iter_mut().zip(row).for_each(|(d, p)| *d = p * (*d - mean) * self.shape.scale);
        }
        let d_scores = View::new(&d_scores, rows, keys);
        serial::product_nn(d_scores, self.keys, d_queries, Write::Overwrite);
        serial::product_tn(d_scores, self.queries, d_keys, Write::Overwrite);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::AttentionShape;
    use crate::reference::{self, assert_close, finite_difference, random_values, weighted_sum};

    /// `[batch, queries, keys, heads, head_dim]`
    const SHAPES: [[usize; 5]; 6] = [
        [0, 3, 2, 1, 4],
        [2, 0, 3, 2, 4],
        [1, 1, 1, 1, 1],
        [2, 5, 5, 3, 7],
        [3, 17, 17, 2, 16],
        [1, 4, 33, 2, 8],
    ];

    fn shape([batch, queries, keys, heads, head_dim]: [usize; 5]) -> FullAttention {
        FullAttention { batch, queries, keys, heads, head_dim, scale: 0.6 }
    }

    fn inputs(shape: &FullAttention) -> (Vec<f32>, Vec<f32>) {
        let queries = random_values(shape.batch * shape.queries * shape.width(), 1);
        (queries, random_values(shape.batch * shape.keys * 2 * shape.width(), 2))
    }

    /// The plain attention knows one sequence: queries and keys become its rows, and a mask keeps them apart.
    fn plain(shape: &FullAttention, queries: &[f32], memory: &[f32]) -> Vec<f64> {
        let (width, length) = (shape.width(), shape.queries + shape.keys);
        let mut qkv = Vec::new();
        for batch in 0..shape.batch {
            for row in 0..shape.queries {
                qkv.extend_from_slice(&queries[(batch * shape.queries + row) * width..][..width]);
                qkv.extend(vec![0.0; 2 * width]);
            }
            for row in 0..shape.keys {
                qkv.extend(vec![0.0; width]);
                qkv.extend_from_slice(&memory[(batch * shape.keys + row) * 2 * width..][..2 * width]);
            }
        }
        let causal = AttentionShape {
            batch: shape.batch,
            length,
            heads: shape.heads,
            kv_heads: shape.heads,
            head_dim: shape.head_dim,
            scale: shape.scale,
            cap: None,
        };
        let (out, _) = reference::attention(&causal, &qkv, |_, key| key % length >= shape.queries);
        let rows = (0..shape.batch).flat_map(|batch| batch * length..batch * length + shape.queries);
        rows.flat_map(|row| out[row * width..][..width].to_vec()).collect()
    }

    #[test]
    fn forward_agrees_with_plain() {
        for sizes in SHAPES {
            let shape = shape(sizes);
            let (queries, memory) = inputs(&shape);
            let mut out = vec![f32::NAN; queries.len()];
            forward(&shape, &queries, &memory, &mut out);
            assert_close(&out, &plain(&shape, &queries, &memory), 2e-6, &format!("{sizes:?}"));
        }
    }

    #[test]
    fn backward_agrees_with_finite_differences() {
        let shape = shape([2, 3, 4, 2, 3]);
        let (queries, memory) = inputs(&shape);
        let d_out = random_values(queries.len(), 3);
        let (mut d_queries, mut d_memory) = (vec![f32::NAN; queries.len()], vec![f32::NAN; memory.len()]);
        backward(&shape, &queries, &memory, &d_out, &mut d_queries, &mut d_memory);
        let by_queries = finite_difference(&queries, 1e-3, |queries| {
            weighted_sum(&plain(&shape, queries, &memory), &d_out)
        });
        assert_close(&d_queries, &by_queries, 1e-5, "queries");
        let by_memory =
            finite_difference(&memory, 1e-3, |memory| weighted_sum(&plain(&shape, &queries, memory), &d_out));
        assert_close(&d_memory, &by_memory, 1e-5, "memory");
    }
}
