//! How fast this machine multiplies and adds: the limit of training and of long prompts.
//!
//! The peaks are of values in registers, the limit of any product; [`measure_product`] is what a product of matrices reaches.

#[cfg(target_arch = "x86_64")]
mod dots;

use std::hint::black_box;
use std::time::Instant;

use crate::cpu::isa;
use crate::matmul::{Factor, Precision, Side, View, ViewMut, Write, multiply};
use crate::packed::{LANES, Narrow, Simd, Work, with_simd};
use crate::team::Team;

/// Steps of one burst, some milliseconds.
const STEPS: usize = 1_000_000;

/// Bursts, the fastest of which counts: a peak is what the machine can do, not what it mostly does.
const BURSTS: usize = 5;

/// f32 operations per second (a multiply-add is two) that `threads` threads reach together on values in registers.
#[allow(unsafe_code)]
pub fn measure_f32_peak(threads: usize) -> f64 {
    // SAFETY: `isa` returns a set that the machine has; the work has no demands of its own.
    fastest_burst(threads, CHAINS * LANES * 2, &|| unsafe { with_simd(isa(), Burst) })
}

/// As [`measure_f32_peak`], for products of bf16 added in f32. `None` where the kernels have no instruction for them.
pub fn measure_bf16_peak(threads: usize) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    if dots::bf16_available() {
        return Some(fastest_burst(threads, dots::BF16_OPERATIONS, &|| dots::bf16(STEPS)));
    }
    let _ = threads;
    None
}

/// As [`measure_f32_peak`], for products of 8-bit integers added in 32 bits. `None` where the kernels have no instruction for
/// them.
pub fn measure_int8_peak(threads: usize) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    if dots::int8_available() {
        return Some(fastest_burst(threads, dots::INT8_OPERATIONS, &|| dots::int8(STEPS)));
    }
    let _ = threads;
    None
}

/// Operations per second of `burst`, [`STEPS`] steps of `operations` operations each, on `threads` threads at once.
fn fastest_burst(threads: usize, operations: usize, burst: &(dyn Fn() + Sync)) -> f64 {
    let threads = threads.max(1);
    let team = Team::new(threads);
    let mut best: f64 = 0.0;
    for _ in 0..BURSTS {
        let start = Instant::now();
        team.run(threads, &|_| burst());
        best = best.max((threads * STEPS * operations) as f64 / start.elapsed().as_secs_f64());
    }
    best
}

/// Sizes of the product that is measured: rows, columns and terms of training.
const PRODUCT: (usize, usize, usize) = (2048, 2048, 512);

/// Operations per second of a forward product of 2048 x 512 and 512 x 2048 on all of rayon's current threads, making the
/// factors ready included: the fastest of several.
pub fn measure_product(precision: Precision) -> f64 {
    let (rows, columns, terms) = PRODUCT;
    let (x, w, mut y) = (vec![0.5; rows * terms], vec![0.25; columns * terms], vec![0.0; rows * columns]);
    let mut left = vec![0.0; Factor::buffer_len(precision, Side::Left, rows, terms)];
    let mut right = vec![0.0; Factor::buffer_len(precision, Side::Right, terms, columns)];
    let mut best: f64 = 0.0;
    for _ in 0..=BURSTS {
        let start = Instant::now();
        let x = Factor::plain(precision, Side::Left, View::new(&x, rows, terms), &mut left);
        let w = Factor::transposed(precision, Side::Right, View::new(&w, columns, terms), &mut right);
        multiply(&x, &w, ViewMut::new(&mut y, rows, columns), Write::Overwrite);
        let operations = 2 * rows * columns * terms;
        best = best.max(operations as f64 / start.elapsed().as_secs_f64());
    }
    black_box(&y);
    best
}

/// Chains of multiply-adds per burst.
const CHAINS: usize = 16;

/// All chains, once.
struct Burst;

#[allow(unsafe_code)]
impl Work for Burst {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Narrow>(self) {
        // SAFETY: the caller promises the instruction set; the pointers are to locals.
        unsafe {
            let (factor, term) = (S::splat(black_box(&0.5)), S::splat(black_box(&1.0)));
            match const { S::CHAINS } {
                CHAINS => chains::<S, CHAINS>(STEPS, factor, term),
                _ => (0..CHAINS / 4).for_each(|_| chains::<S, 4>(STEPS, factor, term)),
            }
        }
    }
}

/// # Safety
///
/// The machine has the instruction set.
#[allow(unsafe_code)]
#[inline(always)]
unsafe fn chains<S: Simd, const N: usize>(steps: usize, factor: S, term: S) {
    // SAFETY: the caller's promise; the pointer is to a local.
    unsafe {
        let mut sums = [S::zero(); N];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = term.multiply_add(*sum, factor);
            }
        }
        let mut lanes = [0.0; LANES];
        for sum in sums {
            sum.store(lanes.as_mut_ptr());
            black_box(&lanes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_rates() {
        let some = [measure_bf16_peak(1), measure_int8_peak(1)].into_iter().flatten();
        for rate in some.chain([measure_f32_peak(1), measure_product(Precision::Bf16)]) {
            assert!(rate.is_finite() && rate > 1e6, "{rate}");
        }
    }
}
