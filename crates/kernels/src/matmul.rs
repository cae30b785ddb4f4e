//! Products of matrices for training, on all of rayon's current threads: f32 on the `gemm` crate's f32 part, or bf16 factors with
//! f32 sums.
//!
//! A linear map stores its weights as `[outputs, inputs]`. Its forward and its two gradients are the three products here.
//! The elements of the result are divided among threads, and each element's terms are added in an order that depends on the
//! shapes, so that the same shapes give the same bits again. Another number of rows may give other bits where there are few of them
//! ([`MANY_ROWS`]): where a row must not feel its neighbours (decoding), [`crate::packed`] is the place.
//!
//! [`product_nt`], [`product_nn`] and [`product_tn`] are the f32 products by themselves. [`Factor`] and [`multiply`] are for
//! either precision, and get a factor ready once for several products.

#[cfg(target_arch = "x86_64")]
mod bf16;
mod factor;
mod operand;

use gemm_common::Parallelism;
use gemm_f32::gemm::f32::get_gemm_fn;

pub use crate::view::{View, ViewMut};
pub use factor::{Factor, Precision, Side, multiply};
use operand::Operand;

/// What becomes of the values that were in the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// They are replaced.
    Overwrite,
    /// The result is added to them.
    Add,
}

/// From so many rows of the result on, more rows behind them leave their bits alone: the terms of an element are then added in an
/// order that depends on how many terms and columns there are. Fewer rows may be computed in another way.
///
/// That is so in the version of the `gemm` crate that the workspace is pinned to; a test holds it.
pub const MANY_ROWS: usize = 257;

/// `y[m, n] (+)= x[m, k] w[n, k]^T`: the forward of a linear map.
///
/// # Panics
/// When the shapes disagree.
pub fn product_nt(x: View, w: View, y: ViewMut, write: Write) {
    gemm(Operand::plain(x), Operand::transposed(w), y, write, 1.0, Parallelism::Rayon(0));
}

/// `dx[m, k] (+)= dy[m, n] w[n, k]`: the gradient of a linear map's inputs.
///
/// # Panics
/// When the shapes disagree.
pub fn product_nn(dy: View, w: View, dx: ViewMut, write: Write) {
    gemm(Operand::plain(dy), Operand::plain(w), dx, write, 1.0, Parallelism::Rayon(0));
}

/// `dw[n, k] (+)= dy[m, n]^T x[m, k]`: the gradient of a linear map's weights.
///
/// # Panics
/// When the shapes disagree.
pub fn product_tn(dy: View, x: View, dw: ViewMut, write: Write) {
    gemm(Operand::transposed(dy), Operand::plain(x), dw, write, 1.0, Parallelism::Rayon(0));
}

/// The same products on the calling thread alone, for kernels that divide their work among threads themselves.
pub(crate) mod serial {
    use super::{Operand, Parallelism, View, ViewMut, Write, gemm};

    /// `y (+)= factor * x w^T`.
    pub(crate) fn product_nt(x: View, w: View, y: ViewMut, write: Write, factor: f32) {
        gemm(Operand::plain(x), Operand::transposed(w), y, write, factor, Parallelism::None);
    }

    /// `dx (+)= dy w`.
    pub(crate) fn product_nn(dy: View, w: View, dx: ViewMut, write: Write) {
        gemm(Operand::plain(dy), Operand::plain(w), dx, write, 1.0, Parallelism::None);
    }

    /// `dw (+)= dy^T x`.
    pub(crate) fn product_tn(dy: View, x: View, dw: ViewMut, write: Write) {
        gemm(Operand::transposed(dy), Operand::plain(x), dw, write, 1.0, Parallelism::None);
    }
}

/// `c (+)= factor * a b`.
#[allow(unsafe_code)]
fn gemm(a: Operand, b: Operand, mut c: ViewMut, write: Write, factor: f32, threads: Parallelism) {
    check_shapes((a.rows, a.columns), (b.rows, b.columns), &c);
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

fn check_shapes(left: (usize, usize), right: (usize, usize), c: &ViewMut) {
    assert!(
        left.1 == right.0 && c.rows() == left.0 && c.columns() == right.1,
        "a product of {} x {} and {} x {} into {} x {}",
        left.0,
        left.1,
        right.0,
        right.1,
        c.rows(),
        c.columns()
    );
}

#[cfg(test)]
mod tests;
