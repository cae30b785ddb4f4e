//! What stands in the rows of registers before the first block.

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
            kernels::vector::scale(row, 1.0 - blend.share);
            let of_token = &table[blend.token as usize * width..][..width];
            add_scaled(row, blend.share * embedding.scale, of_token);
        }
    }

    /// Gives the gradient of the rows to the vector and to the tokens.
    pub(super) fn hand_back(&self, gradients: &mut Gradients, embedding: &Embedding, rows: &[f32]) {
        if rows.is_empty() {
            return;
        }
        if let Some(slot) = gradients.adding_slot(self.vector) {
            let width = slot.len();
            if self.blends.is_empty() {
                rows.chunks_exact(width).for_each(|row| kernels::vector::add_assign(slot, row));
            }
            for (row, blend) in rows.chunks_exact(width).zip(&self.blends) {
                add_scaled(slot, 1.0 - blend.share, row);
            }
        }
        if self.blends.is_empty() {
            return;
        }
        if let Some(slot) = gradients.adding_slot(embedding.table) {
            let width = rows.len() / self.blends.len();
            for (row, blend) in rows.chunks_exact(width).zip(&self.blends) {
                let of_token = &mut slot[blend.token as usize * width..][..width];
                add_scaled(of_token, blend.share * embedding.scale, row);
            }
        }
    }
}

/// `y[i] += a * x[i]`: rows of one width, of which a step has a few hundred.
fn add_scaled(y: &mut [f32], a: f32, x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += a * x);
}
