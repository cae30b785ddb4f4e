//! RMSNorm of every head by itself, in place among the columns of a row: queries and keys of Qwen3 before they are rotated.

use rayon::prelude::*;

use crate::cpu::multiversion;
use crate::rms_norm::pull;
use crate::vector::lanes;

/// Rows per task, and per partial sum of the weight's gradient: fixed, so that the sum does not depend on the threads.
const ROWS_PER_BLOCK: usize = 16;

/// Which columns of a row are normalised: `heads` heads side by side, each as wide as the weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Values per row.
    pub row_width: usize,
    /// Column of the first head.
    pub first_column: usize,
    /// Number of heads.
    pub heads: usize,
}

/// Normalises the heads of `rows` `[rows, row_width]` in place with `weight` `[head_dim]`, and keeps `1 / rms` of each in
/// `inverse_rms` `[rows, heads]` for [`backward`]. No other head has a part in the bits of a head.
///
/// # Panics
/// When the lengths disagree or the heads do not fit a row.
pub fn forward(heads: Heads, rows: &mut [f32], weight: &[f32], epsilon: f32, inverse_rms: &mut [f32]) {
    heads.check(rows.len(), weight.len(), inverse_rms.len());
    if rows.len() <= heads.row_width * ROWS_PER_BLOCK {
        return forward_rows(heads, rows, weight, epsilon, inverse_rms);
    }
    rows.par_chunks_mut(heads.row_width * ROWS_PER_BLOCK)
        .zip(inverse_rms.par_chunks_mut(heads.heads * ROWS_PER_BLOCK))
        .for_each(|(rows, inverse_rms)| forward_rows(heads, rows, weight, epsilon, inverse_rms));
}

/// Gradient of [`forward`], given the rows before it, `x`: replaces the gradients of its outputs in `d` `[rows, row_width]` by
/// those of its inputs, and adds the gradient of the weight to `d_weight` if wanted. Other columns of `d` stay as they are.
///
/// # Panics
/// As [`forward`].
pub fn backward(
    heads: Heads,
    x: &[f32],
    weight: &[f32],
    inverse_rms: &[f32],
    d: &mut [f32],
    d_weight: Option<&mut [f32]>,
) {
    heads.check(x.len(), weight.len(), inverse_rms.len());
    assert_eq!(d.len(), x.len(), "head_norm: the gradient has another length than its input");
    if x.is_empty() {
        return;
    }
    let mut partial = vec![0.0; (x.len() / heads.row_width).div_ceil(ROWS_PER_BLOCK) * weight.len()];
    x.par_chunks(heads.row_width * ROWS_PER_BLOCK)
        .zip(d.par_chunks_mut(heads.row_width * ROWS_PER_BLOCK))
        .zip(inverse_rms.par_chunks(heads.heads * ROWS_PER_BLOCK))
        .zip(partial.par_chunks_mut(weight.len()))
        .for_each(|(((x, d), inverse_rms), partial)| {
            backward_rows(heads, x, weight, inverse_rms, d, partial);
        });
    if let Some(d_weight) = d_weight {
        assert_eq!(d_weight.len(), weight.len(), "head_norm: the gradient of the weight has another length");
        partial.chunks(weight.len()).for_each(|partial| lanes::add_assign(d_weight, partial));
    }
}

impl Heads {
    fn check(&self, rows: usize, head_dim: usize, inverse_rms: usize) {
        assert!(
            head_dim > 0 && self.first_column + self.heads * head_dim <= self.row_width,
            "head_norm: {} heads of {head_dim} from column {} in rows of {}",
            self.heads,
            self.first_column,
            self.row_width
        );
        assert!(
            rows.is_multiple_of(self.row_width) && inverse_rms == rows / self.row_width * self.heads,
            "head_norm: rows of {} in {rows} elements, and {inverse_rms} norms",
            self.row_width
        );
    }
}

multiversion! {
    fn forward_rows(heads: Heads, rows: &mut [f32], weight: &[f32], epsilon: f32, inverse_rms: &mut [f32])
        = forward_rows_body;
    fn backward_rows(
        heads: Heads,
        x: &[f32],
        weight: &[f32],
        inverse_rms: &[f32],
        d: &mut [f32],
        d_weight: &mut [f32],
    ) = backward_rows_body;
}

#[inline(always)]
fn forward_rows_body(heads: Heads, rows: &mut [f32], weight: &[f32], epsilon: f32, inverse_rms: &mut [f32]) {
    let columns = heads.first_column..heads.first_column + heads.heads * weight.len();
    let rows = rows.chunks_exact_mut(heads.row_width);
    for (row, inverse_rms) in rows.zip(inverse_rms.chunks_exact_mut(heads.heads)) {
        for (head, kept) in row[columns.clone()].chunks_exact_mut(weight.len()).zip(inverse_rms) {
            let mean_square = lanes::dot(head, head) / head.len() as f32;
            let inverse = 1.0 / (mean_square + epsilon).sqrt();
            for (x, weight) in head.iter_mut().zip(weight) {
                *x = *x * inverse * weight;
            }
            *kept = inverse;
        }
    }
}

#[inline(always)]
fn backward_rows_body(
    heads: Heads,
    x: &[f32],
    weight: &[f32],
    inverse_rms: &[f32],
    d: &mut [f32],
    d_weight: &mut [f32],
) {
    let columns = heads.first_column..heads.first_column + heads.heads * weight.len();
    let rows = x.chunks_exact(heads.row_width).zip(d.chunks_exact_mut(heads.row_width));
    for ((x, d), inverse_rms) in rows.zip(inverse_rms.chunks_exact(heads.heads)) {
        let x = x[columns.clone()].chunks_exact(weight.len());
        let d = d[columns.clone()].chunks_exact_mut(weight.len());
        for ((x, d), &inverse) in x.zip(d).zip(inverse_rms) {
            for ((d_weight, dy), x) in d_weight.iter_mut().zip(&*d).zip(x) {
                *d_weight += dy * x * inverse;
            }
            let pull = pull(d, weight, x, inverse);
            for ((d, weight), x) in d.iter_mut().zip(weight).zip(x) {
                *d = *d * weight * inverse - x * pull;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{self, assert_close, finite_difference, random_values, weighted_sum};

    const EPSILON: f32 = 1e-5;

    /// `(rows, columns before, heads, head_dim, columns after)`, among them more than one block of rows.
    const CASES: [[usize; 5]; 5] =
        [[0, 0, 1, 3, 0], [1, 0, 1, 1, 0], [3, 2, 2, 5, 4], [5, 0, 3, 16, 8], [53, 4, 2, 17, 1]];

    fn heads_of([_, before, heads, head_dim, after]: [usize; 5]) -> Heads {
        Heads { row_width: before + heads * head_dim + after, first_column: before, heads }
    }

    /// Outputs by the plain norm, columns outside the heads copied.
    fn plain(case: [usize; 5], rows: &[f32], weight: &[f32]) -> Vec<f64> {
        let heads = heads_of(case);
        let end = heads.first_column + heads.heads * weight.len();
        let row = |row: &[f32]| -> Vec<f64> {
            let copy = |part: &[f32]| part.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            let normed = reference::rms_norm(&row[heads.first_column..end], weight, EPSILON);
            [copy(&row[..heads.first_column]), normed, copy(&row[end..])].concat()
        };
        rows.chunks(heads.row_width).flat_map(row).collect()
    }

    #[test]
    fn forward_agrees_with_plain_and_leaves_other_columns_alone() {
        for case in CASES {
            let heads = heads_of(case);
            let (rows, weight) = (random_values(case[0] * heads.row_width, 1), random_values(case[3], 2));
            let (mut out, mut inverse) = (rows.clone(), vec![9.0; case[0] * heads.heads]);
            forward(heads, &mut out, &weight, EPSILON, &mut inverse);
            assert_close(&out, &plain(case, &rows, &weight), 1e-6, &format!("{case:?}"));
            for row in 0..case[0] {
                let mut alone = rows[row * heads.row_width..][..heads.row_width].to_vec();
                forward(heads, &mut alone, &weight, EPSILON, &mut vec![0.0; heads.heads]);
                assert_eq!(alone, out[row * heads.row_width..][..heads.row_width], "a row alone");
            }
        }
    }

    #[test]
    fn backward_agrees_with_finite_differences() {
        for case in [CASES[2], [18, 1, 2, 3, 1]] {
            let heads = heads_of(case);
            // Away from zero, where the norm bends too sharply for a finite step.
            let rows: Vec<f32> =
                random_values(case[0] * heads.row_width, 1).iter().map(|x| x + 1.5).collect();
            let weight = random_values(case[3], 2);
            let dy = random_values(rows.len(), 3);
            let mut inverse = vec![0.0; case[0] * heads.heads];
            forward(heads, &mut rows.clone(), &weight, EPSILON, &mut inverse);
            let (mut d, mut d_weight) = (dy.clone(), vec![0.5; case[3]]);
            backward(heads, &rows, &weight, &inverse, &mut d, Some(&mut d_weight));
            let by_rows = finite_difference(&rows, 1e-3, |x| weighted_sum(&plain(case, x, &weight), &dy));
            assert_close(&d, &by_rows, 2e-5, "d");
            let by_weight = finite_difference(&weight, 1e-3, |w| weighted_sum(&plain(case, &rows, w), &dy));
            let by_weight: Vec<f64> = by_weight.iter().map(|g| g + 0.5).collect();
            assert_close(&d_weight, &by_weight, 2e-5, "d_weight");
        }
    }
}
