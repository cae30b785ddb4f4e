//! What stands in the rows of registers before the first block.

use kernels::vector::{add_assign, add_scaled, scale};

use super::Tape;
use crate::{Embedding, Gradients, ParamId, Params};

/// A register that takes a share of a token's embedding: `(1 - share) * vector + share * embedding`.
///
/// Where the token is the one at the register's own position and the share is 1, the register is that token's row, but for what
/// the tokens between would have shown it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Blend {
    /// The token.
    pub token: u32,
    /// From 0 (the vector alone) to 1 (the token alone).
    pub share: f32,
}

/// The vector that all registers share, and what each is blended with; none: nothing.
pub(super) struct RegisterRows {
    pub vector: ParamId,
    pub blends: Vec<Blend>,
}

impl RegisterRows {
    pub(super) fn fill(&self, params: &Params, embedding: &Embedding, rows: &mut [f32]) {
        let vector = params.data(self.vector);
        let width = vector.len();
        rows.chunks_exact_mut(width).for_each(|row| row.copy_from_slice(vector));
        let table = params.data(embedding.table);
        for (row, blend) in rows.chunks_exact_mut(width).zip(&self.blends) {
            scale(row, 1.0 - blend.share);
            let of_token = &table[blend.token as usize * width..][..width];
            add_scaled(row, blend.share * embedding.scale, of_token);
        }
    }

    /// Gives the gradient of the rows to the vector and to the tokens.
    pub(super) fn hand_back(
        &self,
        gradients: &mut Gradients,
        embedding: &Embedding,
        width: usize,
        rows: &[f32],
    ) {
        // A slot that is asked for counts as reached by a gradient.
        if rows.is_empty() {
            return;
        }
        let rows = rows.chunks_exact(width);
        if let Some(slot) = gradients.adding_slot(self.vector) {
            match self.blends.is_empty() {
                true => rows.clone().for_each(|row| add_assign(slot, row)),
                false => {
                    rows.clone()
                        .zip(&self.blends)
                        .for_each(|(row, blend)| add_scaled(slot, 1.0 - blend.share, row));
                }
            }
        }
        if !self.blends.is_empty()
            && let Some(slot) = gradients.adding_slot(embedding.table)
        {
            for (row, blend) in rows.zip(&self.blends) {
                let of_token = &mut slot[blend.token as usize * width..][..width];
                add_scaled(of_token, blend.share * embedding.scale, row);
            }
        }
    }
}

/// Until the first attention, registers that carry no token are all one and the same row. A linear map takes the first of them,
/// the others are copies; back it goes with the sum of their gradients.
impl Tape<'_> {
    /// How many of the rows of `x` a map has to take.
    pub(super) fn distinct_rows(&self, x: usize) -> usize {
        let x = &self.nodes[x];
        if x.registers_alike { self.layout.token_rows() + 1 } else { x.rows }
    }

    /// Gives what the first register's row of `y` holds to the others, where those of `x` are alike.
    pub(super) fn repeat_first_register(&self, x: usize, y: &mut [f32], width: usize) {
        let (first, others) = y.split_at_mut(self.distinct_rows(x) * width);
        if !others.is_empty() {
            let first = &first[first.len() - width..];
            others.chunks_exact_mut(width).for_each(|row| row.copy_from_slice(first));
        }
    }

    /// Adds the gradients of the other registers' rows to that of the first, where those of `x` are alike.
    pub(super) fn fold_into_first_register(&self, x: usize, dy: &mut [f32], width: usize) {
        let (first, others) = dy.split_at_mut(self.distinct_rows(x) * width);
        if !others.is_empty() {
            let start = first.len() - width;
            others.chunks_exact(width).for_each(|row| add_assign(&mut first[start..], row));
        }
    }
}
