//! Arithmetic on whole slices: sums, scaling, norms, and the search for numbers that are not finite.
//!
//! Slices of more than 65536 elements are divided among rayon's threads in chunks of a fixed size, and partial results are
//! added in the order of the chunks: the bits do not depend on the number of threads.

pub(crate) mod lanes;

use rayon::prelude::*;

use crate::cpu::multiversion;

/// Elements that one task takes.
const CHUNK: usize = 1 << 15;

/// Slices up to this length stay on the calling thread.
const SERIAL: usize = 2 * CHUNK;

/// `y[i] += x[i]`.
///
/// # Panics
/// When the lengths disagree.
pub fn add_assign(y: &mut [f32], x: &[f32]) {
    assert_eq!(y.len(), x.len(), "add_assign: lengths of the two slices disagree");
    if y.len() <= SERIAL {
        return add_chunk(y, x);
    }
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| add_chunk(y, x));
}

/// `y[i] *= a`.
pub fn scale(y: &mut [f32], a: f32) {
    if y.len() <= SERIAL {
        return scale_chunk(y, a);
    }
    y.par_chunks_mut(CHUNK).for_each(|y| scale_chunk(y, a));
}

/// Sum of `x[i]^2`, accumulated in f64.
pub fn sum_of_squares(x: &[f32]) -> f64 {
    if x.len() <= SERIAL {
        return x.chunks(CHUNK).map(sum_of_squares_chunk).sum();
    }
    let partial: Vec<f64> = x.par_chunks(CHUNK).map(sum_of_squares_chunk).collect();
    partial.iter().sum()
}

/// Whether any element is infinite or not a number.
pub fn has_non_finite(x: &[f32]) -> bool {
    if x.len() <= SERIAL {
        return has_non_finite_chunk(x);
    }
    x.par_chunks(CHUNK).any(has_non_finite_chunk)
}

multiversion! {
    /// Sum of `a[i] * b[i]` in f32, always on the calling thread.
    ///
    /// # Panics
    /// When the lengths disagree.
    pub fn dot(a: &[f32], b: &[f32]) -> f32 = lanes::dot;

    /// `y[i] += a * x[i]`, always on the calling thread.
    ///
    /// # Panics
    /// When the lengths disagree.
    pub fn add_scaled(y: &mut [f32], a: f32, x: &[f32]) = add_scaled_body;

    fn add_chunk(y: &mut [f32], x: &[f32]) = lanes::add_assign;
    fn scale_chunk(y: &mut [f32], a: f32) = lanes::scale;
    fn sum_of_squares_chunk(x: &[f32]) -> f64 = lanes::sum_of_squares;
    fn has_non_finite_chunk(x: &[f32]) -> bool = lanes::has_non_finite;
}

#[inline(always)]
fn add_scaled_body(y: &mut [f32], a: f32, x: &[f32]) {
    assert_eq!(y.len(), x.len(), "add_scaled: lengths of the two slices disagree");
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

#[cfg(test)]
mod tests {
    use super::lanes;
    use super::*;
    use crate::reference::{assert_close, random_values};

    /// Lengths around the lane count, the part size of sums, and the border between one thread and several.
    const LENGTHS: [usize; 10] = [0, 1, 15, 16, 17, 33, 1000, 1023, 1025, SERIAL + 77];

    #[test]
    fn exp_is_accurate_over_the_whole_normal_range() {
        let mut worst = 0.0f64;
        for step in -87_200..88_200 {
            let x = step as f32 * 1e-3;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(lanes::exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 2e-7, "relative error {worst:e}");
    }

    #[test]
    fn exp_keeps_its_limits_and_passes_on_what_is_no_number() {
        assert_eq!(lanes::exp(0.0), 1.0);
        assert_eq!(lanes::exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(lanes::exp(-1e30), 0.0);
        assert_eq!(lanes::exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(lanes::exp(1e30), f32::INFINITY);
        assert!(lanes::exp(f32::NAN).is_nan());
        assert!(lanes::exp(f32::from_bits(0x7fc1_2345)).is_nan());
    }

    #[test]
    fn tanh_is_accurate_and_keeps_its_limits() {
        let mut worst = 0.0f64;
        for step in -20_000..20_000 {
            let x = step as f32 * 1e-3 + 1e-5;
            let exact = f64::from(x).tanh();
            worst = worst.max((f64::from(lanes::tanh(x)) - exact).abs() / exact.abs());
        }
        assert!(worst < 4e-7, "relative error {worst:e}");
        assert_eq!(lanes::tanh(0.0), 0.0);
        assert_eq!(lanes::tanh(1e30), 1.0);
        assert_eq!(lanes::tanh(f32::NEG_INFINITY), -1.0);
        assert!(lanes::tanh(f32::NAN).is_nan());
    }

    #[test]
    fn reductions_agree_with_plain_sums() {
        for len in LENGTHS {
            let (a, b) = (random_values(len, 1), random_values(len, 2));
            let plain: f64 = a.iter().zip(&b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            assert!(
                (f64::from(dot(&a, &b)) - plain).abs() <= 1e-5 * (len as f64).sqrt(),
                "dot, length {len}"
            );

            let plain: f64 = a.iter().map(|&a| f64::from(a) * f64::from(a)).sum();
            assert!((sum_of_squares(&a) - plain).abs() <= 1e-12 * plain, "sum of squares, length {len}");

            let plain = a.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(lanes::max(&a), plain, "max, length {len}");

            let plain: f64 = a.iter().map(|&a| f64::from(a - 0.5).exp()).sum();
            let mut exponentials = a.clone();
            let sum = lanes::exp_in_place(&mut exponentials, 0.5);
            assert!((sum - plain).abs() <= 1e-6 * plain, "sum of exponentials, length {len}");
            assert_eq!(lanes::sum_of_exp(&a, 0.5), sum, "length {len}");
            for (e, a) in exponentials.iter().zip(&a) {
                assert_eq!(*e, lanes::exp(a - 0.5));
            }
        }
    }

    #[test]
    fn element_wise_operations_reach_every_element() {
        for len in LENGTHS {
            let (a, b) = (random_values(len, 3), random_values(len, 4));
            let mut sum = a.clone();
            add_assign(&mut sum, &b);
            let mut scaled = a.clone();
            scale(&mut scaled, 0.3);
            let mut sums = vec![1.0; len];
            add_scaled(&mut sums, 0.5, &a);
            let plain: Vec<f64> = a.iter().map(|&x| 1.0 + 0.5 * f64::from(x)).collect();
            assert_close(&sums, &plain, 1e-6, "sums");
            for i in 0..len {
                assert_eq!(sum[i], a[i] + b[i]);
                assert_eq!(scaled[i], a[i] * 0.3);
            }
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let (a, b) = (random_values(999, 5), random_values(999, 6));
        // Called directly, the bodies are compiled for the plainest instruction set.
        assert_eq!(dot(&a, &b).to_bits(), lanes::dot(&a, &b).to_bits());
        assert_eq!(sum_of_squares(&a).to_bits(), lanes::sum_of_squares(&a).to_bits());
    }

    #[test]
    fn one_number_that_is_not_finite_is_found_wherever_it_stands() {
        for len in LENGTHS {
            let mut x = random_values(len, 7);
            assert!(!has_non_finite(&x));
            for at in [0, len / 2, len.saturating_sub(1)] {
                let Some(before) = x.get(at).copied() else { continue };
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    x[at] = bad;
                    assert!(has_non_finite(&x), "{bad} at {at} of {len}");
                }
                x[at] = before;
            }
        }
    }

    #[test]
    #[should_panic(expected = "lengths of the two slices disagree")]
    fn add_assign_refuses_other_lengths() {
        add_assign(&mut [0.0; 3], &[0.0; 2]);
    }
}
