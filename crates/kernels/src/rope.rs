//! Rotary position embedding (Su et al., 2104.09864), in the half-split pairing of Hugging Face checkpoints.

use rayon::prelude::*;

use crate::cpu::multiversion;

/// Rows per task; no more rows than this stay on the calling thread.
const ROWS_PER_BLOCK: usize = 16;

/// Cosines and sines of every angle, `[positions, half]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeTable {
    /// `cos(position * inverse_frequency)`, `[positions, half]`.
    pub cos: Vec<f32>,
    /// `sin(position * inverse_frequency)`, `[positions, half]`.
    pub sin: Vec<f32>,
    half: usize,
}

impl RopeTable {
    /// Angles are products in f32 of the position and the inverse frequency, as transformers computes them.
    ///
    /// `inverse_frequencies` has one entry for each pair of rotated components: half a head, or less if only part of a head is
    /// rotated.
    pub fn new(inverse_frequencies: &[f32], positions: usize) -> Self {
        let half = inverse_frequencies.len();
        let angles = || (0..positions).flat_map(|p| inverse_frequencies.iter().map(move |f| p as f32 * f));
        Self { cos: angles().map(f32::cos).collect(), sin: angles().map(f32::sin).collect(), half }
    }

    /// Angles of the cells of an image, which begins at position `start` and has `width` cells in a row: half of each head's pairs
    /// turn by the row, the other half by the column (LlamaGen, Sun et al. 2406.06525). What lies before the image stands where its
    /// first cell does, and beyond its end its rows go on.
    ///
    /// `inverse_frequencies` has one entry for each pair of one half.
    ///
    /// # Panics
    /// When `width` is 0.
    pub fn of_grid(inverse_frequencies: &[f32], positions: usize, start: usize, width: usize) -> Self {
        let turned = |place: usize| inverse_frequencies.iter().map(move |f| place as f32 * f);
        let angles = || {
            (0..positions).flat_map(|position| {
                let cell = position.saturating_sub(start);
                turned(cell / width).chain(turned(cell % width))
            })
        };
        let half = 2 * inverse_frequencies.len();
        Self { cos: angles().map(f32::cos).collect(), sin: angles().map(f32::sin).collect(), half }
    }

    /// Every cosine and sine times `factor`: turning then stretches too, as LongRoPE does (Ding et al., 2402.13753).
    pub fn times(mut self, factor: f32) -> Self {
        if factor != 1.0 {
            self.cos.iter_mut().chain(&mut self.sin).for_each(|value| *value *= factor);
        }
        self
    }

    /// Number of rotated pairs in a head.
    pub fn half(&self) -> usize {
        self.half
    }

    /// Number of positions for which there are angles.
    pub fn positions(&self) -> usize {
        self.cos.len().checked_div(self.half).unwrap_or(0)
    }
}

/// Rotates `heads` consecutive heads of every row in place.
///
/// `rows` is `[rows, row_width]`; the first head begins at column `first_head_offset`; row `i` stands at `positions[i]`. In each
/// head component `i` turns together with component `i + half`; components from `2 * half` on stay as they are. `inverse` turns
/// the other way, which is the backward pass. No other row has a part in the bits of a row.
///
/// # Panics
/// When the lengths disagree, the heads do not fit a row, or the table ends before a position.
pub fn rotate(
    rows: &mut [f32],
    row_width: usize,
    first_head_offset: usize,
    heads: usize,
    head_dim: usize,
    positions: &[u32],
    table: &RopeTable,
    inverse: bool,
) {
    assert_eq!(rows.len(), positions.len() * row_width, "rope: rows of {row_width} and positions disagree");
    let columns = first_head_offset..first_head_offset + heads * head_dim;
    assert!(columns.end <= row_width, "rope: heads in columns {columns:?} of rows of {row_width}");
    assert!(2 * table.half <= head_dim, "rope: {} pairs in a head of {head_dim}", table.half);
    if let Some(last) = positions.iter().max() {
        let known = table.positions();
        assert!(
            (*last as usize) < known || table.half == 0,
            "rope: position {last} in a table of {known} positions"
        );
    }
    if columns.is_empty() || table.half == 0 {
        return;
    }
    let sign = if inverse { -1.0 } else { 1.0 };
    let block = |(rows, positions): (&mut [f32], &[u32])| {
        for (row, &position) in rows.chunks_exact_mut(row_width).zip(positions) {
            let angles = position as usize * table.half..(position as usize + 1) * table.half;
            rotate_heads(
                &mut row[columns.clone()],
                head_dim,
                &table.cos[angles.clone()],
                &table.sin[angles],
                sign,
            );
        }
    };
    if positions.len() <= ROWS_PER_BLOCK {
        return block((rows, positions));
    }
    rows.par_chunks_mut(row_width * ROWS_PER_BLOCK).zip(positions.par_chunks(ROWS_PER_BLOCK)).for_each(block);
}

multiversion! {
    fn rotate_heads(heads: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32], sign: f32) = rotate_heads_body;
}

#[inline(always)]
fn rotate_heads_body(heads: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32], sign: f32) {
    let half = cos.len();
    for head in heads.chunks_exact_mut(head_dim) {
        let (first, second) = head[..2 * half].split_at_mut(half);
        for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
            let sin = sign * sin;
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{self, assert_close, finite_difference, random_values, weighted_sum};

    fn frequencies(half: usize) -> Vec<f32> {
        (0..half).map(|i| 100f32.powf(-(i as f32) / half as f32)).collect()
    }

    fn positions(rows: usize) -> Vec<u32> {
        (0..rows).map(|i| (i * 7 % 23) as u32).collect()
    }

    #[test]
    fn rotation_agrees_with_plain() {
        // rows, heads, head_dim, half, columns before and after the heads
        for (rows, heads, dim, half, before, after) in [
            (0, 1, 2, 1, 0, 0),
            (1, 2, 8, 4, 0, 0),
            (5, 3, 6, 3, 4, 5),
            (40, 2, 34, 17, 0, 3),
            (18, 2, 10, 2, 1, 0),
        ] {
            let width = before + heads * dim + after;
            let table = RopeTable::new(&frequencies(half), 23);
            let (start, positions) = (random_values(rows * width, 1), positions(rows));
            for inverse in [false, true] {
                let mut rotated = start.clone();
                rotate(&mut rotated, width, before, heads, dim, &positions, &table, inverse);
                let plain = reference::rotate(
                    &start,
                    width,
                    before,
                    heads,
                    dim,
                    &positions,
                    &frequencies(half),
                    inverse,
                );
                assert_close(&rotated, &plain, 1e-6, &format!("{rows} rows, head of {dim}, {half} pairs"));
            }
        }
    }

    /// Each half of the pairs is a head of its own that is rotated by the row or by the column.
    #[test]
    fn cells_of_an_image_turn_by_row_and_by_column() {
        let (frequencies, start, width, rows) = ([1.0, 0.1], 3, 5, 21);
        let table = RopeTable::of_grid(&frequencies, rows, start, width);
        assert_eq!((table.half(), table.positions()), (4, rows));
        let values = random_values(rows * 8, 1);
        let mut rotated = values.clone();
        let positions: Vec<u32> = (0..rows as u32).collect();
        rotate(&mut rotated, 8, 0, 1, 8, &positions, &table, false);
        // Pairs (0, 4) and (1, 5) turn by the row, (2, 6) and (3, 7) by the column.
        for (pairs, place) in [([0, 1, 4, 5], [0, 1, 2, 3]), ([2, 3, 6, 7], [0, 1, 2, 3])] {
            let by_row = pairs[0] == 0;
            let part = |of: &[f32]| -> Vec<f32> {
                of.chunks_exact(8).flat_map(|row| place.map(|index| row[pairs[index]])).collect()
            };
            let cell = |position: u32| position.saturating_sub(start as u32);
            let axis = |position: &u32| cell(*position) / width as u32;
            let other = |position: &u32| cell(*position) % width as u32;
            let along: Vec<u32> = if by_row {
                positions.iter().map(axis).collect()
            } else {
                positions.iter().map(other).collect()
            };
            let plain = reference::rotate(&part(&values), 4, 0, 1, 4, &along, &frequencies, false);
            assert_close(&part(&rotated), &plain, 1e-6, if by_row { "rows" } else { "columns" });
        }
    }

    #[test]
    fn inverse_is_the_transpose() {
        let (rows, heads, dim) = (3, 2, 6);
        let width = heads * dim + 1;
        let (x, dy) = (random_values(rows * width, 1), random_values(rows * width, 2));
        let table = RopeTable::new(&frequencies(dim / 2), 23);
        let mut dx = dy.clone();
        rotate(&mut dx, width, 1, heads, dim, &positions(rows), &table, true);
        let by_difference = finite_difference(&x, 1e-2, |x| {
            let y =
                reference::rotate(x, width, 1, heads, dim, &positions(rows), &frequencies(dim / 2), false);
            weighted_sum(&y, &dy)
        });
        assert_close(&dx, &by_difference, 1e-6, "dx");
    }

    #[test]
    fn a_row_has_the_same_bits_alone() {
        let (rows, heads, dim) = (50, 3, 12);
        let width = heads * dim;
        let table = RopeTable::new(&frequencies(dim / 2), 23);
        let (start, positions) = (random_values(rows * width, 1), positions(rows));
        let mut together = start.clone();
        rotate(&mut together, width, 0, heads, dim, &positions, &table, false);
        for row in 0..rows {
            let mut alone = start[row * width..][..width].to_vec();
            rotate(&mut alone, width, 0, heads, dim, &positions[row..=row], &table, false);
            assert_eq!(alone, together[row * width..][..width]);
        }
    }

    #[test]
    fn the_table_knows_its_size() {
        let table = RopeTable::new(&[1.0, 0.5], 3);
        assert_eq!((table.half(), table.positions()), (2, 3));
        assert_eq!(table.cos[5], 1f32.cos());
        assert_eq!(table.sin[4], 2f32.sin());
    }

    #[test]
    #[should_panic(expected = "position 3 in a table of 3 positions")]
    fn a_position_beyond_the_table_is_refused() {
        rotate(&mut [0.0; 4], 4, 0, 1, 4, &[3], &RopeTable::new(&[1.0, 0.5], 3), false);
    }
}
