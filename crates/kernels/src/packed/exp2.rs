//! What softmax needs beside the vectors of [`simd`](super::simd): powers of two, comparisons, and rounding to bf16.

use super::rounding::rounded;
use super::simd::{Array, LANES, Simd};

/// `2^r` for `|r| <= 1/2`, from the constant on: the minimax polynomial of degree 5, which is within 8e-8, but for its
/// constant, which is 1 so that the largest weight of a softmax is.
const COEFFICIENTS: [f32; 6] = [1.0, 0.693_146_94, 0.240_221_2, 0.055_507_13, 0.009_675_541, 0.001_327_647_1];

/// Below this, powers of two count as zero. None of them is a denormal number then.
const SMALLEST: f32 = -126.0;

/// Sixteen f32, compared and raised.
///
/// # Safety
///
/// As for [`Simd`].
#[allow(unsafe_code)]
pub(crate) trait Exp2: Simd {
    unsafe fn subtract(self, other: Self) -> Self;
    /// The larger of each two; `other` where one is not a number.
    unsafe fn larger(self, other: Self) -> Self;
    /// Whether any lane is larger than that of `other`.
    unsafe fn exceeds(self, other: Self) -> bool;
    /// The largest lane, if all are numbers.
    unsafe fn largest(self) -> f32;
    /// The nearest integers, ties to even.
    unsafe fn nearest(self) -> Self;
    /// `self * 2^n` for integers `n` from -126 to 127, zero where `x` is below [`SMALLEST`].
    unsafe fn times_power(self, n: Self, x: Self) -> Self;
    /// Writes the nearest sixteen bf16, as [`rounded`] gives them, of numbers that are not denormal.
    unsafe fn store_halves(self, to: *mut u16);

    /// `2^x`, relative error below 2.5e-7, for `x` up to 127. Not-a-number stays what it is.
    #[inline(always)]
    unsafe fn exp2(self) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let n = self.nearest();
            let r = self.subtract(n);
            let [lower @ .., highest] = &COEFFICIENTS;
            let mut p = Self::splat(highest);
            for coefficient in lower.iter().rev() {
                p = Self::splat(coefficient).multiply_add(p, r);
            }
            p.times_power(n, self)
        }
    }
}

#[allow(unsafe_code)]
impl Exp2 for Array {
    #[inline(always)]
    unsafe fn subtract(mut self, other: Self) -> Self {
        for (value, other) in self.0.iter_mut().zip(other.0) {
            *value -= other;
        }
        self
    }

    #[inline(always)]
    unsafe fn larger(mut self, other: Self) -> Self {
        for (value, other) in self.0.iter_mut().zip(other.0) {
            *value = if *value > other { *value } else { other };
        }
        self
    }

    #[inline(always)]
    unsafe fn exceeds(self, other: Self) -> bool {
        self.0.iter().zip(other.0).fold(false, |any, (value, other)| any | (*value > other))
    }

    #[inline(always)]
    unsafe fn largest(mut self) -> f32 {
        // By halves, which is a few vector instructions where a walk over the lanes is a long chain.
        let mut width = LANES / 2;
        while width > 0 {
            let (low, high) = self.0.split_at_mut(width);
            for (low, high) in low.iter_mut().zip(high) {
                *low = if *high > *low { *high } else { *low };
            }
            width /= 2;
        }
        self.0[0]
    }

    #[inline(always)]
    unsafe fn nearest(self) -> Self {
        // `f32::round_ties_even` would be a call for each lane where the machine has no instruction for it.
        const TO_INTEGER: f32 = super::rounding::TO_INTEGER;
        Self(self.0.map(|value| value + TO_INTEGER - TO_INTEGER))
    }

    #[inline(always)]
    unsafe fn times_power(mut self, n: Self, x: Self) -> Self {
        for ((value, n), x) in self.0.iter_mut().zip(n.0).zip(x.0) {
            let power = f32::from_bits(((n as i32).wrapping_add(127) as u32) << 23);
            *value = if x < SMALLEST { 0.0 } else { *value * power };
        }
        self
    }

    #[inline(always)]
    unsafe fn store_halves(self, to: *mut u16) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[u16; LANES]>().write(self.0.map(rounded)) }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::simd::{Array, Avx2, Avx512, Simd};
    use super::{Exp2, SMALLEST};
    use std::arch::x86_64::*;

    #[allow(unsafe_code)]
    // SAFETY (of every block below): the trait's callers promise the instruction set and the pointers.
    impl Exp2 for Avx512 {
        #[inline(always)]
        unsafe fn subtract(self, other: Self) -> Self {
            Self(unsafe { _mm512_sub_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn larger(self, other: Self) -> Self {
            Self(unsafe { _mm512_max_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn exceeds(self, other: Self) -> bool {
            unsafe { _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, other.0) != 0 }
        }

        #[inline(always)]
        unsafe fn largest(self) -> f32 {
            unsafe { _mm512_reduce_max_ps(self.0) }
        }

        #[inline(always)]
        unsafe fn nearest(self) -> Self {
            Self(unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
        }

        #[inline(always)]
        unsafe fn times_power(self, n: Self, x: Self) -> Self {
            unsafe {
                let counts = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x.0, _mm512_set1_ps(SMALLEST));
                Self(_mm512_maskz_scalef_ps(counts, self.0, n.0))
            }
        }

        /// The instruction takes denormal numbers for zero, where [`rounded`](super::rounded) does not; all else is the same.
        #[inline(always)]
        unsafe fn store_halves(self, to: *mut u16) {
            unsafe {
                let halves = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(self.0));
                _mm256_storeu_si256(to.cast(), halves);
            }
        }
    }

    #[allow(unsafe_code)]
    // SAFETY (of every block below): as above.
    impl Exp2 for Avx2 {
        #[inline(always)]
        unsafe fn subtract(self, other: Self) -> Self {
            unsafe { Self(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
        }

        #[inline(always)]
        unsafe fn larger(self, other: Self) -> Self {
            unsafe { Self(_mm256_max_ps(self.0, other.0), _mm256_max_ps(self.1, other.1)) }
        }

        #[inline(always)]
        unsafe fn exceeds(self, other: Self) -> bool {
            unsafe {
                let first = _mm256_cmp_ps::<_CMP_GT_OQ>(self.0, other.0);
                let second = _mm256_cmp_ps::<_CMP_GT_OQ>(self.1, other.1);
                _mm256_movemask_ps(_mm256_or_ps(first, second)) != 0
            }
        }

        #[inline(always)]
        unsafe fn largest(self) -> f32 {
            unsafe {
                let mut lanes = Array::zero();
                self.store(lanes.0.as_mut_ptr());
                lanes.largest()
            }
        }

        #[inline(always)]
        unsafe fn nearest(self) -> Self {
            unsafe {
                let nearest = |x| _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
                Self(nearest(self.0), nearest(self.1))
            }
        }

        #[inline(always)]
        unsafe fn times_power(self, n: Self, x: Self) -> Self {
            unsafe {
                let times = |value, n, x| {
                    let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                    let power = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent));
                    let counts = _mm256_cmp_ps::<_CMP_NLT_UQ>(x, _mm256_set1_ps(SMALLEST));
                    _mm256_and_ps(counts, _mm256_mul_ps(value, power))
                };
                Self(times(self.0, n.0, x.0), times(self.1, n.1, x.1))
            }
        }

        #[inline(always)]
        unsafe fn store_halves(self, to: *mut u16) {
            unsafe {
                let mut lanes = Array::zero();
                self.store(lanes.0.as_mut_ptr());
                lanes.store_halves(to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::Work;
    use super::super::{Element, Narrow, UpperHalf};
    use super::*;
    use crate::cpu::Isa;

    /// Powers of two, and what becomes of them as bf16.
    struct Powers<'a>(&'a [[f32; LANES]]);

    #[allow(unsafe_code)]
    impl Work for Powers<'_> {
        type Output = Vec<(f32, f32, u16)>;

        #[inline(always)]
        unsafe fn run<N: Narrow>(self) -> Self::Output {
            let mut all = Vec::new();
            for x in self.0 {
                let (mut power, mut half) = ([0.0; LANES], [0; LANES]);
                // SAFETY: arrays of sixteen.
                unsafe {
                    let powers = N::load(x.as_ptr()).exp2();
                    powers.store(power.as_mut_ptr());
                    powers.store_halves(half.as_mut_ptr());
                }
                all.extend(x.iter().zip(power).zip(half).map(|((x, power), half)| (*x, power, half)));
            }
            all
        }
    }

    #[allow(unsafe_code)]
    fn powers(isa: Isa, x: &[[f32; LANES]]) -> Vec<(f32, f32, u16)> {
        // SAFETY: tests ask for available sets only; the work demands nothing.
        unsafe { UpperHalf::run(isa, Powers(x)) }
    }

    #[test]
    fn powers_are_accurate_and_rounded_like_one_by_one() {
        let x: Vec<f32> = (-127 * 500..20 * 500).map(|step| step as f32 / 500.0 + 1e-5).collect();
        for isa in Isa::all_available() {
            let mut worst = 0.0_f64;
            for (x, power, half) in powers(isa, x.as_chunks().0) {
                assert_eq!(half, rounded(power), "{isa:?}: {power:e}");
                if x < SMALLEST {
                    assert_eq!(power, 0.0);
                } else {
                    let exact = f64::from(x).exp2();
                    worst = worst.max((f64::from(power) - exact).abs() / exact);
                }
            }
            assert!(worst < 2.5e-7, "{isa:?}: relative error {worst:e}");
        }
    }

    #[test]
    fn limits_of_powers_are_kept() {
        let mut x = [f32::NEG_INFINITY; LANES];
        x[..4].copy_from_slice(&[0.0, -1e30, f32::NAN, f32::from_bits(0x7fc1_2345)]);
        for isa in Isa::all_available() {
            let powers = powers(isa, &[x]);
            assert_eq!(powers[0].1, 1.0);
            assert_eq!((powers[1].1, powers[15].1), (0.0, 0.0));
            for (_, power, half) in &powers[2..4] {
                assert!(power.is_nan() && f32::from_bits(u32::from(*half) << 16).is_nan(), "{isa:?}");
            }
        }
    }
}
