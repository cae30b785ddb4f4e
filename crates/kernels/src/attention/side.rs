//! Attention of side rows: each over some keys of its row of the batch, and itself.
//!
//! A row's score for itself is no product with the keys of others; it is taken apart and enters the softmax as one more column.

mod block;

use rayon::prelude::*;

use super::{
    AttentionShape, Gradients, Group, Inputs, Mask, QUERIES_PER_BLOCK, SideRow, scores, with_scratch,
};
use crate::matmul::{View, ViewMut, Write, serial};
use crate::soft_cap;
use crate::vector;
use block::{Block, blocks};

/// The side rows of one row of the batch, with what the forward pass made of them and the gradient of that.
pub(super) struct Side<'a> {
    shape: &'a AttentionShape,
    rows: &'a [SideRow],
    /// `[rows, qkv width]`
    qkv: &'a [f32],
    /// `[rows, out width]`
    out: &'a [f32],
    /// `[heads, rows]`
    log_sum_exp: &'a [f32],
    /// `[rows, out width]`
    d_out: &'a [f32],
}

/// The part of [`super::forward`] that concerns side rows; `out` and `log_sum_exp` are theirs alone.
pub(super) fn forward(
    shape: &AttentionShape,
    qkv: &[f32],
    mask: Mask,
    out: &mut [f32],
    log_sum_exp: &mut [f32],
) {
    let shared = shape.heads / shape.kv_heads;
    let mut tasks = Vec::new();
    let (mut rest, mut log_rest, mut qkv_rest) =
        (out, log_sum_exp, &qkv[shape.batch * shape.length * shape.qkv_width()..]);
    for rows in mask.side.chunk_by(|a, b| a.row == b.row) {
        let (out, after) = rest.split_at_mut(rows.len() * shape.out_width());
        let (log_sum_exp, log_after) = log_rest.split_at_mut(rows.len() * shape.heads);
        let (side_qkv, qkv_after) = qkv_rest.split_at(rows.len() * shape.qkv_width());
        (rest, log_rest, qkv_rest) = (after, log_after, qkv_after);
        let columns = ViewMut::new(out, rows.len(), shape.out_width()).column_blocks(shared * shape.head_dim);
        let parts = columns.into_iter().zip(log_sum_exp.chunks_mut(shared * rows.len()));
        tasks.extend(parts.enumerate().map(|(head, (out, log))| (rows, head, side_qkv, out, log)));
    }
    tasks.into_par_iter().for_each(|(rows, head, side_qkv, out, log_sum_exp)| {
        let group = Group::new(shape, qkv, mask.first_visible, rows[0].row as usize, head);
        forward_group(&group, rows, &shape.inputs(side_qkv, head), out, log_sum_exp);
    });
}

fn forward_group(group: &Group, rows: &[SideRow], inputs: &Inputs, out: ViewMut, log_sum_exp: &mut [f32]) {
    let heads = out.column_blocks(group.shape.head_dim).into_iter();
    for (head, (mut out, log_sum_exp)) in heads.zip(log_sum_exp.chunks_mut(rows.len())).enumerate() {
        let queries = inputs.queries.column_range(group.columns_of(head));
        for block in blocks(rows) {
            let (count, stride) = (block.rows.len(), block.stride());
            with_scratch(count * stride, |scores| {
                let mut own = [0.0; QUERIES_PER_BLOCK];
                score(group, queries, inputs.keys, &block, scores, &mut own[..count]);
                let mut inverse_sums = [0.0; QUERIES_PER_BLOCK];
                scores::side_softmax(
                    scores,
                    stride,
                    &block.seen,
                    &mut own[..count],
                    &mut log_sum_exp[block.rows.clone()],
                    &mut inverse_sums[..count],
                );
                block.sum_parts(&mut out, |part, out, write| {
                    let values = group.values.row_range(part.keys.clone());
                    serial::product_nn(block.part(part, scores), values, out, write);
                });
                for (index, row) in block.rows.clone().enumerate() {
                    let out = out.row_mut(row);
                    vector::add_scaled(out, own[index], inputs.values.row(row));
                    vector::scale(out, inverse_sums[index]);
                }
            });
        }
    }
}

/// Scaled and capped scores of a block: for the keys of its row of the batch `[rows, stride]`, and of each side row for itself.
fn score(group: &Group, queries: View, keys: View, block: &Block, scores: &mut [f32], own: &mut [f32]) {
    let shape = group.shape;
    for part in &block.parts {
        serial::product_nt(
            queries.row_range(part.rows.clone()),
            group.keys.row_range(part.keys.clone()),
            block.part_mut(part, scores),
            Write::Overwrite,
            shape.scale,
        );
    }
    for (own, row) in own.iter_mut().zip(block.rows.clone()) {
        *own = shape.scale * vector::dot(queries.row(row), keys.row(row));
    }
    if let Some(cap) = shape.cap {
        for (row, seen) in scores.chunks_exact_mut(block.stride()).zip(&block.seen) {
            soft_cap::forward(&mut row[seen.clone()], cap);
        }
        soft_cap::forward(own, cap);
    }
}

impl<'a> Side<'a> {
    /// The side rows of every row of the batch. `out` and `d_out` cover the batch too, `log_sum_exp` the side rows alone.
    pub(super) fn rows_of(
        shape: &'a AttentionShape,
        qkv: &'a [f32],
        side: &'a [SideRow],
        out: &'a [f32],
        log_sum_exp: &'a [f32],
        d_out: &'a [f32],
    ) -> Vec<Self> {
        let before = shape.batch * shape.length;
        let of_row = |row: usize| {
            let start = side.partition_point(|side| (side.row as usize) < row);
            let end = side.partition_point(|side| side.row as usize <= row);
            let part =
                |data: &'a [f32], width: usize| &data[(before + start) * width..(before + end) * width];
            Self {
                shape,
                rows: &side[start..end],
                qkv: part(qkv, shape.qkv_width()),
                out: part(out, shape.out_width()),
                log_sum_exp: &log_sum_exp[start * shape.heads..end * shape.heads],
                d_out: part(d_out, shape.out_width()),
            }
        };
        (0..shape.batch).map(of_row).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Adds to the gradients of the keys and values in `group` what its side rows say, and overwrites those of the side rows
    /// themselves. The formulas are those of [`Group::backward`].
    pub(super) fn backward(&self, group: &Group, gradients: &mut Gradients, d_side: Gradients) {
        if self.rows.is_empty() {
            return;
        }
        let shared = self.shape.heads / self.shape.kv_heads;
        let inputs = self.shape.inputs(self.qkv, group.head);
        let columns =
            group.head * shared * self.shape.head_dim..(group.head + 1) * shared * self.shape.head_dim;
        let of_group =
            |data| View::new(data, self.len(), self.shape.out_width()).column_range(columns.clone());
        let (out, d_out) = (of_group(self.out), of_group(self.d_out));
        let log_sums = &self.log_sum_exp[group.head * shared * self.len()..][..shared * self.len()];
        let Gradients { queries: d_queries, keys: mut d_own_keys, values: mut d_own_values } = d_side;
        d_own_keys.fill(0.0);
        d_own_values.fill(0.0);
        let heads = d_queries.column_blocks(self.shape.head_dim).into_iter().zip(log_sums.chunks(self.len()));
        for (head, (mut d_queries, log_sum_exp)) in heads.enumerate() {
            let columns = group.columns_of(head);
            let queries = inputs.queries.column_range(columns.clone());
            let (out, d_out) = (out.column_range(columns.clone()), d_out.column_range(columns));
            for block in blocks(self.rows) {
                let (count, stride) = (block.rows.len(), block.stride());
                with_scratch(2 * count * stride, |scratch| {
                    let (scores, d_scores) = scratch.split_at_mut(count * stride);
                    let mut own = [0.0; QUERIES_PER_BLOCK];
                    score(group, queries, inputs.keys, &block, scores, &mut own[..count]);
                    for part in &block.parts {
                        let d_out = d_out.row_range(part.rows.clone());
                        let values = group.values.row_range(part.keys.clone());
                        let d_probabilities = block.part_mut(part, d_scores);
                        serial::product_nt(d_out, values, d_probabilities, Write::Overwrite, 1.0);
                    }
                    let (mut means, mut d_own) = ([0.0; QUERIES_PER_BLOCK], [0.0; QUERIES_PER_BLOCK]);
                    for (index, row) in block.rows.clone().enumerate() {
                        means[index] = vector::dot(out.row(row), d_out.row(row));
                        d_own[index] = vector::dot(d_out.row(row), inputs.values.row(row));
                    }
                    scores::side_probabilities_and_gradients(
                        scores,
                        d_scores,
                        stride,
                        &block.seen,
                        &mut own[..count],
                        &mut d_own[..count],
                        &log_sum_exp[block.rows.clone()],
                        &means[..count],
                        self.shape.scale,
                        self.shape.cap,
                    );
                    block.sum_parts(&mut d_queries, |part, d_queries, write| {
                        let (probabilities, d_scores) =
                            (block.part(part, scores), block.part(part, d_scores));
                        let d_out = d_out.row_range(part.rows.clone());
                        let d_values = gradients.values.row_range(part.keys.clone());
                        serial::product_tn(probabilities, d_out, d_values, Write::Add);
                        serial::product_nn(
                            d_scores,
                            group.keys.row_range(part.keys.clone()),
                            d_queries,
                            write,
                        );
                        let queries = queries.row_range(part.rows.clone());
                        let d_keys = gradients.keys.row_range(part.keys.clone());
                        serial::product_tn(d_scores, queries, d_keys, Write::Add);
                    });
                    for (index, row) in block.rows.clone().enumerate() {
                        vector::add_scaled(d_queries.row_mut(row), d_own[index], inputs.keys.row(row));
                        vector::add_scaled(d_own_keys.row_mut(row), d_own[index], queries.row(row));
                        vector::add_scaled(d_own_values.row_mut(row), own[index], d_out.row(row));
                    }
                });
            }
        }
    }
}
