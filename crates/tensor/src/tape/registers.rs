//! What stands in the rows of registers before the first block.

use kernels::vector::{add_assign, add_scaled, scale};

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
