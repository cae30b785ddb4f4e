//! Root-mean-square normalisation: `y = x / rms(x) * weight` (Zhang and Sennrich, 1910.07467).

use rayon::prelude::*;

use crate::cpu::multiversion;
use crate::matmul::Write;
use crate::vector::lanes;

/// Rows per task, and per partial sum of the weight's gradient: fixed, so that the sum does not depend on the threads.
const ROWS_PER_BLOCK: usize = 64;

/// Normalises every row of `x` `[rows, width]` into `y` and keeps `1 / rms` of each row `[rows]` for [`backward`].
///
/// `width` is the length of `weight`; `epsilon` is added to the mean square. A row gets the bits of [`forward_row`].
///
/// # Panics
/// When the lengths disagree or `width` is zero.
pub fn forward(x: &[f32], weight: &[f32], epsilon: f32, y: &mut [f32], inverse_rms: &mut [f32]) {
    let width = weight.len();
    check(width, x.len(), y.len(), inverse_rms.len());
    if inverse_rms.len() <= ROWS_PER_BLOCK {
        return forward_rows(x, weight, epsilon, y, inverse_rms);
    }
    x.par_chunks(width * ROWS_PER_BLOCK)
        .zip(y.par_chunks_mut(width * ROWS_PER_BLOCK))
        .zip(inverse_rms.par_chunks_mut(ROWS_PER_BLOCK))
        .for_each(|((x, y), inverse_rms)| forward_rows(x, weight, epsilon, y, inverse_rms));
}

/// Gradients of [`forward`], given its `x`, `weight` and `inverse_rms`, and `dy` `[rows, width]`.
///
/// The gradient of `x` replaces `dx` or is added to it; the gradient of the weight is added to `d_weight` `[width]` if wanted, as
/// sums over blocks of 64 rows in the order of the rows.
///
/// # Panics
/// When the lengths disagree or `width` is zero.
pub fn backward(
    x: &[f32],
    weight: &[f32],
    inverse_rms: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dx_write: Write,
    d_weight: Option<&mut [f32]>,
) {
    let width = weight.len();
    check(width, x.len(), dx.len(), inverse_rms.len());
    assert_eq!(dy.len(), x.len(), "rms_norm: dy and x disagree");
    let rows = x
        .par_chunks(width * ROWS_PER_BLOCK)
        .zip(dy.par_chunks(width * ROWS_PER_BLOCK))
        .zip(dx.par_chunks_mut(width * ROWS_PER_BLOCK))
        .zip(inverse_rms.par_chunks(ROWS_PER_BLOCK));
    let Some(d_weight) = d_weight else {
        rows.for_each(|(((x, dy), dx), inverse)| backward_rows(x, weight, inverse, dy, dx, dx_write, None));
        return;
    };
    assert_eq!(
        d_weight.len(),
        width,
        "rms_norm: the gradient of the weight has another length than the weight"
    );
    let mut partial = vec![0.0; inverse_rms.len().div_ceil(ROWS_PER_BLOCK) * width];
    rows.zip(partial.par_chunks_mut(width)).for_each(|((((x, dy), dx), inverse), partial)| {
        backward_rows(x, weight, inverse, dy, dx, dx_write, Some(partial));
    });
    for partial in partial.chunks(width) {
        lanes::add_assign(d_weight, partial);
    }
}

multiversion! {
    /// Normalises one row `[width]` and returns `1 / rms`. No other row has a part in its bits, so that a decoder may use it
    /// for any number of rows.
    ///
    /// # Panics
    /// When the lengths disagree.
    pub fn forward_row(x: &[f32], weight: &[f32], epsilon: f32, y: &mut [f32]) -> f32 = forward_row_body;
    fn forward_rows(x: &[f32], weight: &[f32], epsilon: f32, y: &mut [f32], inverse_rms: &mut [f32])
        = forward_rows_body;
    fn backward_rows(
        x: &[f32],
        weight: &[f32],
        inverse_rms: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        dx_write: Write,
        d_weight: Option<&mut [f32]>,
    ) = backward_rows_body;
}

#[inline(always)]
fn forward_row_body(x: &[f32], weight: &[f32], epsilon: f32, y: &mut [f32]) -> f32 {
    assert!(
        x.len() == weight.len() && y.len() == weight.len(),
        "rms_norm: lengths of x, weight and y disagree"
    );
    let mean_square = lanes::dot(x, x) / x.len() as f32;
    let inverse = 1.0 / (mean_square + epsilon).sqrt();
    for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
        *y = x * inverse * weight;
    }
    inverse
}

#[inline(always)]
fn forward_rows_body(x: &[f32], weight: &[f32], epsilon: f32, y: &mut [f32], inverse_rms: &mut [f32]) {
    let width = weight.len();
    for ((x, y), inverse) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(inverse_rms) {
        *inverse = forward_row_body(x, weight, epsilon, y);
    }
}

/// With `s = 1 / rms`: `dx = s (dy weight) - x s^3 mean(dy weight x)` and `d_weight += dy x s`.
#[inline(always)]
fn backward_rows_body(
    x: &[f32],
    weight: &[f32],
    inverse_rms: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dx_write: Write,
    mut d_weight: Option<&mut [f32]>,
) {
    let width = weight.len();
    let rows = x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
    for (((x, dy), dx), &inverse) in rows.zip(inverse_rms) {
        let pull = pull(dy, weight, x, inverse);
        let gradient = dy.iter().zip(weight).zip(x).map(|((dy, weight), x)| dy * weight * inverse - x * pull);
        match dx_write {
            Write::Overwrite => dx.iter_mut().zip(gradient).for_each(|(dx, gradient)| *dx = gradient),
            Write::Add => dx.iter_mut().zip(gradient).for_each(|(dx, gradient)| *dx += gradient),
        }
        if let Some(d_weight) = d_weight.as_deref_mut() {
            for ((d_weight, dy), x) in d_weight.iter_mut().zip(dy).zip(x) {
                *d_weight += dy * x * inverse;
            }
        }
    }
}

/// How much of `x` is taken from its gradient: `s^3 mean(dy weight x)`.
#[inline(always)]
pub(crate) fn pull(dy: &[f32], weight: &[f32], x: &[f32], inverse: f32) -> f32 {
    let mean = dot_of_three(dy, weight, x) / x.len() as f32;
    mean * inverse * inverse * inverse
}

/// `sum of a[i] b[i] c[i]`, in the order of [`lanes::dot`].
#[inline(always)]
fn dot_of_three(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let mut sums = [0.0; lanes::LANES];
    let chunks = a.chunks(lanes::LANES).zip(b.chunks(lanes::LANES)).zip(c.chunks(lanes::LANES));
    for ((a, b), c) in chunks {
        for (sum, ((a, b), c)) in sums.iter_mut().zip(a.iter().zip(b).zip(c)) {
            *sum += a * b * c;
        }
    }
    lanes::sum_of_lanes(sums)
}

fn check(width: usize, x: usize, y: usize, rows: usize) {
    assert!(width > 0, "rms_norm: the weight is empty");
    assert!(
        x == rows * width && y == x,
        "rms_norm: {rows} rows of {width} in slices of {x} and {y} elements"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{self, assert_close, finite_difference, random_values, weighted_sum};

    const EPSILON: f32 = 1e-5;
    /// `(rows, width)`, among them more than one block of rows.
    const SHAPES: [(usize, usize); 6] = [(0, 5), (1, 1), (3, 16), (5, 17), (64, 40), (131, 33)];

    fn inverse_of(x: &[f32], weight: &[f32]) -> Vec<f32> {
        let mut inverse = vec![0.0; x.len() / weight.len()];
        forward(x, weight, EPSILON, &mut vec![0.0; x.len()], &mut inverse);
        inverse
    }

    #[test]
    fn forward_agrees_with_plain() {
        for (rows, width) in SHAPES {
            let (x, weight) = (random_values(rows * width, 1), random_values(width, 2));
            let (mut y, mut inverse) = (vec![9.0; rows * width], vec![9.0; rows]);
            forward(&x, &weight, EPSILON, &mut y, &mut inverse);
            assert_close(&y, &reference::rms_norm(&x, &weight, EPSILON), 1e-6, &format!("{rows} x {width}"));
        }
    }

    #[test]
    fn a_row_has_the_same_bits_alone() {
        let (rows, width) = (131, 33);
        let (x, weight) = (random_values(rows * width, 1), random_values(width, 2));
        let (mut y, mut inverse) = (vec![0.0; rows * width], vec![0.0; rows]);
        forward(&x, &weight, EPSILON, &mut y, &mut inverse);
        for row in 0..rows {
            let mut alone = vec![0.0; width];
            let s = forward_row(&x[row * width..][..width], &weight, EPSILON, &mut alone);
            assert_eq!(alone, y[row * width..][..width]);
            assert_eq!(s, inverse[row]);
        }
    }

    #[test]
    fn backward_agrees_with_plain_and_adds_where_asked() {
        for (rows, width) in SHAPES {
            let (x, weight) = (random_values(rows * width, 1), random_values(width, 2));
            let (dy, inverse) = (random_values(rows * width, 3), inverse_of(&x, &weight));
            let (plain_dx, plain_dw) = reference::rms_norm_backward(&x, &weight, EPSILON, &dy);

            let mut dx = vec![9.0; rows * width];
            let mut d_weight = vec![0.5; width];
            backward(&x, &weight, &inverse, &dy, &mut dx, Write::Overwrite, Some(&mut d_weight));
            assert_close(&dx, &plain_dx, 1e-5, &format!("dx {rows} x {width}"));
            let expected: Vec<f64> = plain_dw.iter().map(|g| g + 0.5).collect();
            assert_close(&d_weight, &expected, 1e-5, &format!("d_weight {rows} x {width}"));

            let mut added = vec![0.25; rows * width];
            backward(&x, &weight, &inverse, &dy, &mut added, Write::Add, None);
            assert!(added.iter().zip(&dx).all(|(added, dx)| *added == 0.25 + dx), "dx is added");
        }
    }

    #[test]
    fn backward_agrees_with_finite_differences() {
        let (rows, width) = (3, 7);
        let (x, weight, dy) =
            (random_values(rows * width, 1), random_values(width, 2), random_values(rows * width, 3));
        let mut dx = vec![0.0; rows * width];
        let mut d_weight = vec![0.0; width];
        backward(&x, &weight, &inverse_of(&x, &weight), &dy, &mut dx, Write::Overwrite, Some(&mut d_weight));
        let by_x =
            finite_difference(&x, 1e-3, |x| weighted_sum(&reference::rms_norm(x, &weight, EPSILON), &dy));
        let by_weight =
            finite_difference(&weight, 1e-3, |w| weighted_sum(&reference::rms_norm(&x, w, EPSILON), &dy));
        assert_close(&dx, &by_x, 2e-5, "dx");
        assert_close(&d_weight, &by_weight, 2e-5, "d_weight");
    }

    #[test]
    fn the_number_of_threads_does_not_show_in_the_gradient() {
        let (rows, width) = (700, 48);
        let (x, weight) = (random_values(rows * width, 1), random_values(width, 2));
        let (dy, inverse) = (random_values(rows * width, 3), inverse_of(&x, &weight));
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a small pool");
            pool.install(|| {
                let (mut dx, mut d_weight) = (vec![0.0; rows * width], vec![0.0; width]);
                backward(&x, &weight, &inverse, &dy, &mut dx, Write::Overwrite, Some(&mut d_weight));
                (dx, d_weight)
            })
        };
        let one = with(1);
        assert!(with(2) == one && with(3) == one);
    }
}
