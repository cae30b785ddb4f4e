//! Layer normalisation: `y = (x - mean) / deviation * weight + bias` (Ba et al., 1607.06450).

use rayon::prelude::*;

use crate::cpu::multiversion;
use crate::matmul::Write;
use crate::vector::lanes;

/// Rows per task, and per partial sum of the gradients of weight and bias: fixed, so that the sums do not depend on the threads.
const ROWS_PER_BLOCK: usize = 64;

/// Mean and inverse deviation of one row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Moments {
    /// Mean of the row.
    mean: f32,
    /// `1 / sqrt(variance + epsilon)`.
    inverse: f32,
}

/// Normalises every row of `x` `[rows, width]` into `y`.
///
/// `width` is the length of `weight` and of `bias`; `epsilon` is added to the variance. A row gets the bits of [`forward_row`].
///
/// # Panics
/// When the lengths disagree or `width` is zero.
pub fn forward(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, y: &mut [f32]) {
    let width = weight.len();
    check(width, x.len(), y.len());
    let rows = |(x, y): (&[f32], &mut [f32])| {
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            forward_row(x, weight, bias, epsilon, y);
        }
    };
    if x.len() <= width * ROWS_PER_BLOCK {
        return rows((x, y));
    }
    x.par_chunks(width * ROWS_PER_BLOCK).zip(y.par_chunks_mut(width * ROWS_PER_BLOCK)).for_each(rows);
}

/// Gradients of [`forward`], given its `x`, `weight` and `epsilon`, and `dy` `[rows, width]`. The moments are computed again: they
/// cost less than keeping them.
///
/// The gradient of `x` replaces `dx` or is added to it; the gradients of weight (if wanted) and bias are added to `d_weight` and
/// `d_bias` `[width]`, as sums over blocks of 64 rows in the order of the rows.
///
/// # Panics
/// When the lengths disagree or `width` is zero.
pub fn backward(
    x: &[f32],
    weight: &[f32],
    epsilon: f32,
    dy: &[f32],
    dx: &mut [f32],
    dx_write: Write,
    d_weight: Option<&mut [f32]>,
    d_bias: &mut [f32],
) {
    let width = weight.len();
    check(width, x.len(), dx.len());
    assert_eq!(dy.len(), x.len(), "layer_norm: dy and x disagree");
    // Gradients of weight and bias side by side.
    let mut partial = vec![0.0; (x.len() / width).div_ceil(ROWS_PER_BLOCK) * 2 * width];
    x.par_chunks(width * ROWS_PER_BLOCK)
        .zip(dy.par_chunks(width * ROWS_PER_BLOCK))
        .zip(dx.par_chunks_mut(width * ROWS_PER_BLOCK))
        .zip(partial.par_chunks_mut(2 * width))
        .for_each(|(((x, dy), dx), partial)| {
            let (d_weight, d_bias) = partial.split_at_mut(width);
            backward_rows(x, weight, epsilon, dy, dx, dx_write, d_weight, d_bias);
        });
    if let Some(d_weight) = d_weight {
        assert_eq!(d_weight.len(), width, "layer_norm: the gradient of the weight has another length");
        partial.chunks(2 * width).for_each(|partial| lanes::add_assign(d_weight, &partial[..width]));
    }
    assert_eq!(d_bias.len(), width, "layer_norm: the gradient of the bias has another length");
    partial.chunks(2 * width).for_each(|partial| lanes::add_assign(d_bias, &partial[width..]));
}

multiversion! {
    /// Normalises one row `[width]`. No other row has a part in its bits, so that a decoder may use it for any number of rows.
    ///
    /// # Panics
    /// When the lengths disagree.
    pub fn forward_row(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, y: &mut [f32]) = forward_row_body;
    fn backward_rows(
        x: &[f32],
        weight: &[f32],
        epsilon: f32,
        dy: &[f32],
        dx: &mut [f32],
        dx_write: Write,
        d_weight: &mut [f32],
        d_bias: &mut [f32],
    ) = backward_rows_body;
}

#[inline(always)]
fn forward_row_body(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, y: &mut [f32]) {
    assert!(
        x.len() == weight.len() && x.len() == bias.len() && y.len() == x.len(),
        "layer_norm: lengths of x, weight, bias and y disagree"
    );
    let Moments { mean, inverse } = moments(x, epsilon);
    for (y, (x, (weight, bias))) in y.iter_mut().zip(x.iter().zip(weight.iter().zip(bias))) {
        *y = (x - mean) * inverse * weight + bias;
    }
}

/// With `n` the normalised row, `s` its inverse deviation and `g = dy weight`: `dx = s (g - mean(g) - n mean(g n))`,
/// `d_weight += dy n`, `d_bias += dy`.
#[inline(always)]
fn backward_rows_body(
    x: &[f32],
    weight: &[f32],
    epsilon: f32,
    dy: &[f32],
    dx: &mut [f32],
    dx_write: Write,
    d_weight: &mut [f32],
    d_bias: &mut [f32],
) {
    let width = weight.len();
    let rows = x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
    for ((x, dy), dx) in rows {
        let Moments { mean, inverse } = moments(x, epsilon);
        for ((d_weight, d_bias), (dy, x)) in d_weight.iter_mut().zip(d_bias.iter_mut()).zip(dy.iter().zip(x))
        {
            *d_weight += dy * ((x - mean) * inverse);
            *d_bias += dy;
        }
        let mean_g = lanes::dot(dy, weight) / width as f32;
        let product = |i: usize| dy[i] * weight[i] * ((x[i] - mean) * inverse);
        let mean_product = sum_of(width, product) / width as f32;
        for i in 0..width {
            let gradient = inverse * (dy[i] * weight[i] - mean_g - (x[i] - mean) * inverse * mean_product);
            match dx_write {
                Write::Overwrite => dx[i] = gradient,
                Write::Add => dx[i] += gradient,
            }
        }
    }
}

/// In two passes: the variance of what is left after the mean, which cancels nothing.
#[inline(always)]
fn moments(x: &[f32], epsilon: f32) -> Moments {
    let width = x.len() as f32;
    let mean = sum_of(x.len(), |i| x[i]) / width;
    let variance = sum_of(x.len(), |i| (x[i] - mean) * (x[i] - mean)) / width;
    Moments { mean, inverse: 1.0 / (variance + epsilon).sqrt() }
}

/// `sum of term(i)`, in the order of [`lanes::dot`].
#[inline(always)]
fn sum_of(len: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0.0; lanes::LANES];
    let whole = len / lanes::LANES * lanes::LANES;
    for start in (0..whole).step_by(lanes::LANES) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += term(start + lane);
        }
    }
    for i in whole..len {
        sums[i - whole] += term(i);
    }
    lanes::sum_of_lanes(sums)
}

fn check(width: usize, x: usize, y: usize) {
    assert!(width > 0, "layer_norm: the weight is empty");
    assert!(
        x.is_multiple_of(width) && y == x,
        "layer_norm: rows of {width} in slices of {x} and {y} elements"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{self, assert_close, finite_difference, random_values, weighted_sum};

    const EPSILON: f32 = 1e-5;
    /// `(rows, width)`, among them more than one block of rows.
    const SHAPES: [(usize, usize); 6] = [(0, 5), (1, 2), (3, 16), (5, 17), (64, 40), (131, 33)];

    /// Rows far from zero, where a variance in one pass would cancel; weight, bias.
    fn inputs(rows: usize, width: usize) -> [Vec<f32>; 3] {
        let x = random_values(rows * width, 1).iter().map(|x| x + 3.0).collect();
        [x, random_values(width, 2), random_values(width, 3)]
    }

    #[test]
    fn forward_and_backward_agree_with_plain() {
        for (rows, width) in SHAPES {
            let [x, weight, bias] = inputs(rows, width);
            let what = format!("{rows} x {width}");
            let mut y = vec![9.0; x.len()];
            forward(&x, &weight, &bias, EPSILON, &mut y);
            assert_close(&y, &reference::layer_norm(&x, &weight, &bias, EPSILON), 1e-5, &what);

            let dy = random_values(x.len(), 4);
            let (plain_dx, plain_dw, plain_db) = reference::layer_norm_backward(&x, &weight, EPSILON, &dy);
            let (mut dx, mut d_weight, mut d_bias) =
                (vec![9.0; x.len()], vec![0.5; width], vec![0.25; width]);
            let sums = (Some(&mut d_weight[..]), &mut d_bias[..]);
            backward(&x, &weight, EPSILON, &dy, &mut dx, Write::Overwrite, sums.0, sums.1);
            assert_close(&dx, &plain_dx, 2e-5, &format!("dx {what}"));
            let added = |plain: &[f64], before: f64| plain.iter().map(|g| g + before).collect::<Vec<_>>();
            assert_close(&d_weight, &added(&plain_dw, 0.5), 2e-5, &format!("d_weight {what}"));
            assert_close(&d_bias, &added(&plain_db, 0.25), 2e-5, &format!("d_bias {what}"));

            let mut again = vec![0.25; x.len()];
            backward(&x, &weight, EPSILON, &dy, &mut again, Write::Add, None, &mut vec![0.0; width]);
            assert!(again.iter().zip(&dx).all(|(again, dx)| *again == 0.25 + dx), "dx is added");
        }
    }

    #[test]
    fn backward_agrees_with_finite_differences() {
        let (rows, width) = (3, 7);
        let [x, weight, bias] = inputs(rows, width);
        let dy = random_values(rows * width, 4);
        let (mut dx, mut d_weight, mut d_bias) = (vec![0.0; x.len()], vec![0.0; width], vec![0.0; width]);
        let sums = (Some(&mut d_weight[..]), &mut d_bias[..]);
        backward(&x, &weight, EPSILON, &dy, &mut dx, Write::Overwrite, sums.0, sums.1);
        let loss =
            |x: &[f32], w: &[f32], b: &[f32]| weighted_sum(&reference::layer_norm(x, w, b, EPSILON), &dy);
        assert_close(&dx, &finite_difference(&x, 1e-3, |x| loss(x, &weight, &bias)), 5e-5, "dx");
        assert_close(&d_weight, &finite_difference(&weight, 1e-3, |w| loss(&x, w, &bias)), 2e-5, "d_weight");
        assert_close(&d_bias, &finite_difference(&bias, 1e-3, |b| loss(&x, &weight, b)), 2e-5, "d_bias");
    }

    #[test]
    fn a_row_has_the_same_bits_alone() {
        let (rows, width) = (131, 33);
        let [x, weight, bias] = inputs(rows, width);
        let mut y = vec![0.0; x.len()];
        forward(&x, &weight, &bias, EPSILON, &mut y);
        for row in 0..rows {
            let mut alone = vec![0.0; width];
            forward_row(&x[row * width..][..width], &weight, &bias, EPSILON, &mut alone);
            assert_eq!(alone, y[row * width..][..width]);
        }
    }

    #[test]
    fn the_number_of_threads_does_not_show_in_the_gradient() {
        let (rows, width) = (700, 48);
        let [x, weight, _] = inputs(rows, width);
        let dy = random_values(x.len(), 4);
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a small pool");
            pool.install(|| {
                let (mut dx, mut d_weight, mut d_bias) =
                    (vec![0.0; x.len()], vec![0.0; width], vec![0.0; width]);
                let sums = (Some(&mut d_weight[..]), &mut d_bias[..]);
                backward(&x, &weight, EPSILON, &dy, &mut dx, Write::Overwrite, sums.0, sums.1);
                (dx, d_weight, d_bias)
            })
        };
        let one = with(1);
        assert!(with(2) == one && with(3) == one);
    }
}
