//! Causal attention over packed documents, without the matrix of all scores.
//!
//! Queries are taken in blocks of 64; a block looks only at keys that one of its queries may see, so that short documents packed
//! into one row cost what they would cost alone. Forward keeps one number per query and head, the logarithm of its sum of
//! exponentials, from which backward computes the probabilities again (as FlashAttention does, Dao et al. 2205.14135).
//!
//! One task is one key-value head of one row of the batch, with all query heads that share it. Tasks write different columns
//! and work serially within, so that the bits do not depend on the number of threads.
//!
//! The mask is a rule ([`Mask`]), never a matrix. Beside the positions of the batch there may be *side rows*: queries that see
//! some keys of one row of the batch and themselves, and that nobody sees. They cost what their own keys cost, and what they
//! stand beside has the bits that it has without them.

mod scores;
mod side;

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use crate::matmul::{View, ViewMut, Write, serial};
use crate::soft_cap;
use crate::vector;
use crate::vector::lanes::LANES;

/// Queries that share one product with the keys.
const QUERIES_PER_BLOCK: usize = 64;

/// The sizes of an attention layer and of the batch it runs over.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    /// Rows of the batch.
    pub batch: usize,
    /// Positions in a row of the batch.
    pub length: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`. Query head `h` uses number `h * kv_heads / heads`.
    pub kv_heads: usize,
    /// Components of one head.
    pub head_dim: usize,
    /// Factor of the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Bound that scaled scores approach but do not reach, `cap tanh(score / cap)`, if there is one (Gemma 2, 2408.00118).
    pub cap: Option<f32>,
}

/// What each query sees.
#[derive(Clone, Copy, Debug)]
pub struct Mask<'a> {
    /// `[batch * length]`: index within its row of the batch of the first key that the query sees. Query `t` sees keys
    /// `first_visible[t]..=t`. It never decreases along a row (starts of documents, or of a sliding window).
    pub first_visible: &'a [u32],
    /// The side rows, in the order of the rows of the batch that they belong to.
    pub side: &'a [SideRow],
}

/// A query beside the batch: it sees some keys of one row of the batch and itself, and nobody else sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SideRow {
    /// The row of the batch.
    pub row: u32,
    /// Index within that row of the first key that it sees.
    pub first: u32,
    /// Index behind the last one; not beyond `first` where it sees itself alone.
    pub end: u32,
}

/// Attention of every query over the keys it sees. Side rows come after all positions of the batch.
///
/// - `qkv` `[batch * length + side, (heads + 2 kv_heads) * head_dim]`: query heads, then key heads, then value heads, already
///   rotated;
/// - `out` `[batch * length + side, heads * head_dim]`, overwritten;
/// - `log_sum_exp`: `[batch, heads, length]`, then for each row of the batch `[heads, its side rows]`; overwritten: what
///   [`backward`] needs.
///
/// # Panics
/// When the lengths disagree, `kv_heads` does not divide `heads`, or the mask is not as described.
pub fn forward(shape: &AttentionShape, qkv: &[f32], mask: Mask, out: &mut [f32], log_sum_exp: &mut [f32]) {
    shape.check(qkv.len(), mask, out.len(), log_sum_exp.len());
    if out.is_empty() {
        return;
    }
    let first_visible = mask.first_visible;
    let rows = shape.batch * shape.length;
    let (out, side_out) = out.split_at_mut(rows * shape.out_width());
    let (log_sum_exp, side_log_sum_exp) = log_sum_exp.split_at_mut(rows * shape.heads);
    let shared = shape.heads / shape.kv_heads;
    let mut tasks = Vec::with_capacity(shape.batch * shape.kv_heads);
    for (batch, out) in out.chunks_mut(shape.length * shape.out_width()).enumerate() {
        let columns =
            ViewMut::new(out, shape.length, shape.out_width()).column_blocks(shared * shape.head_dim);
        tasks.extend(columns.into_iter().enumerate().map(|(head, out)| (batch, head, out)));
    }
    tasks.into_par_iter().zip(log_sum_exp.par_chunks_mut(shared * shape.length)).for_each(
        |((batch, head, out), log_sum_exp)| {
            Group::new(shape, qkv, first_visible, batch, head).forward(out, log_sum_exp);
        },
    );
    side::forward(shape, qkv, mask, side_out, side_log_sum_exp);
}

/// Gradient of [`forward`] for `qkv`, given its inputs and outputs and `d_out`; overwrites `d_qkv`, shaped like `qkv`.
///
/// # Panics
/// As [`forward`].
pub fn backward(
    shape: &AttentionShape,
    qkv: &[f32],
    mask: Mask,
    out: &[f32],
    log_sum_exp: &[f32],
    d_out: &[f32],
    d_qkv: &mut [f32],
) {
    shape.check(qkv.len(), mask, out.len(), log_sum_exp.len());
    assert_eq!(
        d_out.len(),
        out.len(),
        "attention: the gradient of the output has another length than the output"
    );
    assert_eq!(
        d_qkv.len(),
        qkv.len(),
        "attention: the gradient of the input has another length than the input"
    );
    if out.is_empty() {
        return;
    }
    let rows = shape.batch * shape.length;
    let (d_qkv, mut d_side) = d_qkv.split_at_mut(rows * shape.qkv_width());
    let side = side::Side::rows_of(shape, qkv, mask.side, out, &log_sum_exp[rows * shape.heads..], d_out);
    let shared = shape.heads / shape.kv_heads;
    let mut tasks = Vec::with_capacity(shape.batch * shape.kv_heads);
    for (batch, d_qkv) in d_qkv.chunks_mut(shape.length * shape.qkv_width()).enumerate() {
        let gradients = shape.gradients(d_qkv);
        let (d_here, d_after) = d_side.split_at_mut(side[batch].len() * shape.qkv_width());
        d_side = d_after;
        for (head, (gradients, d_side)) in gradients.into_iter().zip(shape.gradients(d_here)).enumerate() {
            tasks.push((batch, head, gradients, d_side));
        }
    }
    tasks.into_par_iter().zip(log_sum_exp[..rows * shape.heads].par_chunks(shared * shape.length)).for_each(
        |((batch, head, mut gradients, d_side), log_sum_exp)| {
            let group = Group::new(shape, qkv, mask.first_visible, batch, head);
            group.backward(group.outputs(out), log_sum_exp, group.outputs(d_out), &mut gradients);
            side[batch].backward(&group, &mut gradients, d_side);
        },
    );
}

impl AttentionShape {
    fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    fn out_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Queries, keys and values of key-value head `head` in rows of `qkv`.
    fn inputs<'a>(&self, qkv: &'a [f32], head: usize) -> Inputs<'a> {
        let dim = self.head_dim;
        let all = View::new(qkv, qkv.len() / self.qkv_width(), self.qkv_width());
        let shared = self.heads / self.kv_heads * dim;
        let (keys, values) = (self.heads + head, self.heads + self.kv_heads + head);
        Inputs {
            queries: all.column_range(head * shared..(head + 1) * shared),
            keys: all.column_range(keys * dim..(keys + 1) * dim),
            values: all.column_range(values * dim..(values + 1) * dim),
        }
    }

    /// Gradients of the inputs of one row of the batch, or of its side rows, apart by key-value head.
    fn gradients<'a>(&self, d_qkv: &'a mut [f32]) -> Vec<Gradients<'a>> {
        let shared = self.heads / self.kv_heads;
        let rows = d_qkv.len() / self.qkv_width();
        let d_qkv = ViewMut::new(d_qkv, rows, self.qkv_width());
        let (d_queries, rest) = d_qkv.split_columns(self.heads * self.head_dim);
        let (d_keys, d_values) = rest.split_columns(self.kv_heads * self.head_dim);
        let d_queries = d_queries.column_blocks(shared * self.head_dim).into_iter();
        let d_keys_and_values =
            d_keys.column_blocks(self.head_dim).into_iter().zip(d_values.column_blocks(self.head_dim));
        let gradients = d_queries.zip(d_keys_and_values);
        gradients.map(|(queries, (keys, values))| Gradients { queries, keys, values }).collect()
    }

    fn check(&self, qkv: usize, mask: Mask, out: usize, log_sum_exp: usize) {
        assert!(
            self.kv_heads > 0
                && self.heads > 0
                && self.heads.is_multiple_of(self.kv_heads)
                && self.head_dim > 0,
            "attention: {} query heads of {} over {} key heads",
            self.heads,
            self.head_dim,
            self.kv_heads
        );
        let rows = self.batch * self.length;
        let all = rows + mask.side.len();
        assert!(
            qkv == all * self.qkv_width() && out == all * self.out_width() && log_sum_exp == all * self.heads,
            "attention: inputs of {qkv}, outputs of {out} and sums of {log_sum_exp} elements do not fit {self:?} and {} \
             side rows",
            mask.side.len()
        );
        assert_eq!(mask.first_visible.len(), rows, "attention: number of first visible keys");
        let within = |side: &SideRow| (side.row as usize) < self.batch && side.end as usize <= self.length;
        assert!(
            mask.side.iter().all(within) && mask.side.is_sorted_by_key(|side| side.row),
            "attention: side rows out of order, or keys beyond their row"
        );
        for row in mask.first_visible.chunks(self.length.max(1)) {
            let sees_itself = row.iter().enumerate().all(|(t, &first)| first as usize <= t);
            assert!(
                sees_itself && row.is_sorted(),
                "attention: first visible keys decrease or lie after their query"
            );
        }
    }
}

/// Rows of one key-value head, and of the query heads that share it.
struct Inputs<'a> {
    queries: View<'a>,
    keys: View<'a>,
    values: View<'a>,
}

/// Inputs of one task: a key-value head of one row of the batch, and the query heads that share it.
struct Group<'a> {
    shape: &'a AttentionShape,
    batch: usize,
    head: usize,
    /// `[length, query heads of the group * head_dim]`
    queries: View<'a>,
    /// `[length, head_dim]`
    keys: View<'a>,
    /// `[length, head_dim]`
    values: View<'a>,
    /// `[length]`
    first_visible: &'a [u32],
}

/// Gradients of the inputs of one task, with the same shapes.
struct Gradients<'a> {
    queries: ViewMut<'a>,
    keys: ViewMut<'a>,
    values: ViewMut<'a>,
}

/// Queries that are worked on together, and the keys that at least one of them sees.
struct Block {
    queries: Range<usize>,
    keys: Range<usize>,
}

impl Block {
    /// Elements between rows of scores: whole vectors.
    fn stride(&self) -> usize {
        self.keys.len().next_multiple_of(LANES)
    }
}

impl<'a> Group<'a> {
    fn new(
        shape: &'a AttentionShape,
        qkv: &'a [f32],
        first_visible: &'a [u32],
        batch: usize,
        head: usize,
    ) -> Self {
        let length = shape.length;
        let row = batch * length;
        let qkv = &qkv[row * shape.qkv_width()..][..length * shape.qkv_width()];
        let Inputs { queries, keys, values } = shape.inputs(qkv, head);
        Self { shape, batch, head, queries, keys, values, first_visible: &first_visible[row..][..length] }
    }

    /// The columns of `out`, or of its gradient, that belong to the group.
    fn outputs(&self, out: &'a [f32]) -> View<'a> {
        let (length, width) = (self.shape.length, self.shape.out_width());
        let all = View::new(&out[self.batch * length * width..][..length * width], length, width);
        let shared = self.queries.columns();
        all.column_range(self.head * shared..(self.head + 1) * shared)
    }

    fn blocks(&self) -> impl Iterator<Item = Block> {
        let length = self.shape.length;
        (0..length).step_by(QUERIES_PER_BLOCK).map(move |start| {
            let end = (start + QUERIES_PER_BLOCK).min(length);
            Block { queries: start..end, keys: self.first_visible[start] as usize..end }
        })
    }

    /// Columns of query head number `head` of the group.
    fn columns_of(&self, head: usize) -> Range<usize> {
        head * self.shape.head_dim..(head + 1) * self.shape.head_dim
    }

    /// Scaled and capped scores of a block into `scores`, `[queries, stride]`.
    fn score(&self, queries: View, block: &Block, scores: &mut [f32]) {
        serial::product_nt(
            queries.row_range(block.queries.clone()),
            self.keys.row_range(block.keys.clone()),
            ViewMut::strided(scores, block.queries.len(), block.keys.len(), block.stride()),
            Write::Overwrite,
            self.shape.scale,
        );
        if let Some(cap) = self.shape.cap {
            for row in scores.chunks_exact_mut(block.stride()) {
                soft_cap::forward(&mut row[..block.keys.len()], cap);
            }
        }
    }

    fn forward(&self, out: ViewMut, log_sum_exp: &mut [f32]) {
        let heads = out.column_blocks(self.shape.head_dim).into_iter();
        for (head, (mut out, log_sum_exp)) in heads.zip(log_sum_exp.chunks_mut(self.shape.length)).enumerate()
        {
            let queries = self.queries.column_range(self.columns_of(head));
            for block in self.blocks() {
                let (rows, stride) = (block.queries.len(), block.stride());
                with_scratch(rows * stride, |scores| {
                    self.score(queries, &block, scores);
                    let mut inverse_sums = [0.0; QUERIES_PER_BLOCK];
                    scores::softmax(
                        scores,
                        stride,
                        &self.first_visible[block.queries.clone()],
                        block.queries.start,
                        block.keys.start,
                        &mut log_sum_exp[block.queries.clone()],
                        &mut inverse_sums,
                    );
                    let mut out = out.row_range(block.queries.clone());
                    let weights = View::strided(scores, rows, block.keys.len(), stride);
                    let values = self.values.row_range(block.keys.clone());
                    serial::product_nn(weights, values, out.reborrow(), Write::Overwrite);
                    for (row, inverse) in inverse_sums[..rows].iter().enumerate() {
                        vector::scale(out.row_mut(row), *inverse);
                    }
                });
            }
        }
    }

    /// With probabilities `P`, scores `S = scale Q K^T` and `dP = dO V^T`:
    /// `dV = P^T dO`, `dS = P (dP - rowsum(dO O))`, `dQ = scale dS K`, `dK = scale dS^T Q`. A cap multiplies `dS` by its slope.
    fn backward(&self, out: View, log_sum_exp: &[f32], d_out: View, gradients: &mut Gradients) {
        let Gradients { queries: d_queries, keys: d_keys, values: d_values } = gradients;
        d_keys.fill(0.0);
        d_values.fill(0.0);
        let heads = d_queries.reborrow().column_blocks(self.shape.head_dim).into_iter();
        for (head, (mut d_queries, log_sum_exp)) in
            heads.zip(log_sum_exp.chunks(self.shape.length)).enumerate()
        {
            let columns = self.columns_of(head);
            let queries = self.queries.column_range(columns.clone());
            let (out, d_out) = (out.column_range(columns.clone()), d_out.column_range(columns));
            for block in self.blocks() {
                let (rows, keys, stride) = (block.queries.len(), block.keys.len(), block.stride());
                with_scratch(2 * rows * stride, |scratch| {
                    let (scores, d_scores) = scratch.split_at_mut(rows * stride);
                    self.score(queries, &block, scores);
                    let d_out_rows = d_out.row_range(block.queries.clone());
                    let values = self.values.row_range(block.keys.clone());
                    let d_probabilities = ViewMut::strided(d_scores, rows, keys, stride);
                    serial::product_nt(d_out_rows, values, d_probabilities, Write::Overwrite, 1.0);
                    let mut means = [0.0; QUERIES_PER_BLOCK];
                    for (mean, row) in means.iter_mut().zip(block.queries.clone()) {
                        *mean = vector::dot(out.row(row), d_out.row(row));
                    }
                    scores::probabilities_and_gradients(
                        scores,
                        d_scores,
                        stride,
                        &self.first_visible[block.queries.clone()],
                        block.queries.start,
                        block.keys.start,
                        &log_sum_exp[block.queries.clone()],
                        &means,
                        self.shape.scale,
                        self.shape.cap,
                    );
                    let probabilities = View::strided(scores, rows, keys, stride);
                    let d_scores = View::strided(d_scores, rows, keys, stride);
                    let d_values = d_values.row_range(block.keys.clone());
                    serial::product_tn(probabilities, d_out_rows, d_values, Write::Add);
                    let keys = self.keys.row_range(block.keys.clone());
                    serial::product_nn(
                        d_scores,
                        keys,
                        d_queries.row_range(block.queries.clone()),
                        Write::Overwrite,
                    );
                    let queries = queries.row_range(block.queries.clone());
                    serial::product_tn(d_scores, queries, d_keys.row_range(block.keys.clone()), Write::Add);
                });
            }
        }
    }
}

/// Calls `work` with `len` elements of this thread's scratch memory, which keep whatever they held.
fn with_scratch(len: usize, work: impl FnOnce(&mut [f32])) {
    thread_local! {
        static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    }
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.len() < len {
            scratch.resize(len, 0.0);
        }
        work(&mut scratch[..len]);
    });
}

#[cfg(test)]
mod tests;
