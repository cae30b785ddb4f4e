//! Products of matrices for training, f32, on the `gemm` crate's f32 part and all of rayon's current threads.
//!
//! A linear map stores its weights as `[outputs, inputs]`. Its forward and its two gradients are the three products here.
//! The crate divides the elements of the result among threads and adds each element's terms in an order that depends on the
//! shapes, so that the same shapes give the same bits again. Another number of rows may give other bits: where a row must not
//! feel its neighbours (decoding), [`crate::packed`] is the place.

use gemm_common::Parallelism;
use gemm_f32::gemm::f32::get_gemm_fn;

pub use crate::view::{View, ViewMut};

/// What becomes of the values that were in the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// They are replaced.
    Overwrite,
    /// The result is added to them.
    Add,
}

/// `y[m, n] (+)= x[m, k] w[n, k]^T`: the forward of a linear map.
///
/// # Panics
/// When the shapes disagree.
pub fn product_nt(x: View, w: View, y: ViewMut, write: Write) {
    multiply(Operand::plain(x), Operand::transposed(w), y, write, 1.0, Parallelism::Rayon(0));
}

/// `dx[m, k] (+)= dy[m, n] w[n, k]`: the gradient of a linear map's inputs.
///
/// # Panics
/// When the shapes disagree.
pub fn product_nn(dy: View, w: View, dx: ViewMut, write: Write) {
    multiply(Operand::plain(dy), Operand::plain(w), dx, write, 1.0, Parallelism::Rayon(0));
}

/// `dw[n, k] (+)= dy[m, n]^T x[m, k]`: the gradient of a linear map's weights.
///
/// # Panics
/// When the shapes disagree.
pub fn product_tn(dy: View, x: View, dw: ViewMut, write: Write) {
    multiply(Operand::transposed(dy), Operand::plain(x), dw, write, 1.0, Parallelism::Rayon(0));
}

/// The same products on the calling thread alone, for kernels that divide their work among threads themselves.
pub(crate) mod serial {
    use super::{Operand, Parallelism, View, ViewMut, Write, multiply};

    /// `y (+)= factor * x w^T`.
    pub(crate) fn product_nt(x: View, w: View, y: ViewMut, write: Write, factor: f32) {
        multiply(Operand::plain(x), Operand::transposed(w), y, write, factor, Parallelism::None);
    }

    /// `dx (+)= dy w`.
    pub(crate) fn product_nn(dy: View, w: View, dx: ViewMut, write: Write) {
        multiply(Operand::plain(dy), Operand::plain(w), dx, write, 1.0, Parallelism::None);
    }

    /// `dw (+)= dy^T x`.
    pub(crate) fn product_tn(dy: View, x: View, dw: ViewMut, write: Write) {
        multiply(Operand::transposed(dy), Operand::plain(x), dw, write, 1.0, Parallelism::None);
    }
}

/// A factor of a product: a view, or its transpose.
struct Operand<'a> {
    view: View<'a>,
    rows: usize,
    columns: usize,
    /// Elements from one row, and from one column, of the factor to the next.
    row_step: usize,
    column_step: usize,
}

impl<'a> Operand<'a> {
    fn plain(view: View<'a>) -> Self {
        let (rows, columns, stride) = (view.rows(), view.columns(), view.stride());
        Self { view, rows, columns, row_step: stride, column_step: 1 }
    }

    fn transposed(view: View<'a>) -> Self {
        let (rows, columns, stride) = (view.columns(), view.rows(), view.stride());
        Self { view, rows, columns, row_step: 1, column_step: stride }
    }
}

/// `c (+)= factor * a b`.
#[allow(unsafe_code)]
fn multiply(a: Operand, b: Operand, mut c: ViewMut, write: Write, factor: f32, threads: Parallelism) {
    assert!(
        a.columns == b.rows && c.rows() == a.rows && c.columns() == b.columns,
        "a product of {} x {} and {} x {} into {} x {}",
        a.rows,
        a.columns,
        b.rows,
        b.columns,
        c.rows(),
        c.columns()
    );
    // SAFETY: the constructors of the views checked that every row lies within its slice, the shapes agree as asserted above,
    // and `c` is borrowed exclusively, so that it overlaps neither factor.
    unsafe {
        // The kernel wants columns of the result to be contiguous: ours are rows, so it computes the transpose, b^T a^T.
        get_gemm_fn()(
            c.columns(),
            c.rows(),
            a.columns,
            c.as_mut_ptr(),
            c.stride() as isize,
            1,
            write == Write::Add,
            b.view.as_ptr(),
            b.row_step as isize,
            b.column_step as isize,
            a.view.as_ptr(),
            a.row_step as isize,
            a.column_step as isize,
            1.0,
            factor,
            false,
            false,
            false,
            threads,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{self, assert_close, random_values};

    /// `(m, n, k)`: empty and single dimensions, odd sizes, and sizes beyond the blocks of the product.
    const SHAPES: [(usize, usize, usize); 10] = [
        (0, 3, 4),
        (3, 0, 4),
        (3, 4, 0),
        (1, 1, 1),
        (1, 37, 19),
        (37, 1, 19),
        (5, 7, 2),
        (33, 65, 17),
        (70, 96, 130),
        (129, 50, 600),
    ];

    #[test]
    fn the_three_products_agree_with_plain_loops() {
        for (m, n, k) in SHAPES {
            let (x, w, dy) = (random_values(m * k, 1), random_values(n * k, 2), random_values(m * n, 3));
            let start = |len| random_values(len, 4);
            for write in [Write::Overwrite, Write::Add] {
                let expect = |plain: Vec<f64>| -> Vec<f64> {
                    let before = start(plain.len());
                    let kept = if write == Write::Add { 1.0 } else { 0.0 };
                    plain.iter().zip(before).map(|(p, b)| p + kept * f64::from(b)).collect()
                };
                let what = format!("{m} x {n} x {k}, {write:?}");

                let mut y = start(m * n);
                product_nt(View::new(&x, m, k), View::new(&w, n, k), ViewMut::new(&mut y, m, n), write);
                assert_close(
                    &y,
                    &expect(reference::product_nt(&x, &w, m, n, k)),
                    1e-5,
                    &format!("nt {what}"),
                );

                let mut dx = start(m * k);
                product_nn(View::new(&dy, m, n), View::new(&w, n, k), ViewMut::new(&mut dx, m, k), write);
                assert_close(
                    &dx,
                    &expect(reference::product_nn(&dy, &w, m, n, k)),
                    1e-5,
                    &format!("nn {what}"),
                );

                let mut dw = start(n * k);
                product_tn(View::new(&dy, m, n), View::new(&x, m, k), ViewMut::new(&mut dw, n, k), write);
                assert_close(
                    &dw,
                    &expect(reference::product_tn(&dy, &x, m, n, k)),
                    1e-5,
                    &format!("tn {what}"),
                );
            }
        }
    }

    #[test]
    fn strided_views_leave_other_columns_alone() {
        let (m, n, k, stride) = (19, 5, 33, 12);
        let (x, w) = (random_values(m * k, 1), random_values(n * k, 2));
        let mut wide = vec![7.0; m * stride];
        product_nt(
            View::new(&x, m, k),
            View::new(&w, n, k),
            ViewMut::strided(&mut wide[3..], m, n, stride),
            Write::Overwrite,
        );
        let plain = reference::product_nt(&x, &w, m, n, k);
        for (row, plain) in wide.chunks(stride).zip(plain.chunks(n)) {
            assert_close(&row[3..3 + n], plain, 1e-5, "strided");
            assert!(
                row[..3].iter().chain(&row[3 + n..]).all(|&v| v == 7.0),
                "columns outside the view changed"
            );
        }

        let mut dw = vec![0.0; n * k];
        let dy = View::strided(&wide[3..], m, n, stride);
        product_tn(dy, View::new(&x, m, k), ViewMut::new(&mut dw, n, k), Write::Overwrite);
        let gathered: Vec<f32> = (0..m).flat_map(|row| dy.row(row).to_vec()).collect();
        assert_close(&dw, &reference::product_tn(&gathered, &x, m, n, k), 1e-4, "strided factor");
    }

    #[test]
    fn the_number_of_threads_does_not_show_in_the_bits() {
        let (m, n, k) = (150, 130, 700);
        let (x, w) = (random_values(m * k, 1), random_values(n * k, 2));
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a small pool");
            pool.install(|| {
                let mut y = vec![0.0; m * n];
                product_nt(
                    View::new(&x, m, k),
                    View::new(&w, n, k),
                    ViewMut::new(&mut y, m, n),
                    Write::Overwrite,
                );
                y
            })
        };
        let one = with(1);
        assert!(with(2) == one && with(3) == one);
    }

    #[test]
    #[should_panic(expected = "a product of 2 x 3 and 4 x 5 into 2 x 5")]
    fn shapes_that_disagree_are_refused() {
        let mut y = [0.0; 10];
        product_nt(
            View::new(&[0.0; 6], 2, 3),
            View::new(&[0.0; 20], 5, 4),
            ViewMut::new(&mut y, 2, 5),
            Write::Add,
        );
    }
}
