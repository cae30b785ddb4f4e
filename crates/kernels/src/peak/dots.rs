//! Bursts of AVX-512 instructions that multiply several short numbers and add them to one sum.

use std::arch::x86_64::*;
use std::hint::black_box;

use crate::cpu::{Isa, isa};

/// Independent sums: enough to hide the latency of an addition, few enough for the registers.
const CHAINS: usize = 24;

/// Operations of a step of [`bf16`]: two products and two additions for each of 16 sums.
pub(super) const BF16_OPERATIONS: usize = CHAINS * 16 * 4;

/// Operations of a step of [`int8`]: four products and four additions for each of 16 sums.
pub(super) const INT8_OPERATIONS: usize = CHAINS * 16 * 8;

pub(super) fn bf16_available() -> bool {
    isa() == Isa::Avx512 && is_x86_feature_detected!("avx512bf16")
}

pub(super) fn int8_available() -> bool {
    isa() == Isa::Avx512 && is_x86_feature_detected!("avx512vnni")
}

/// `steps` steps of multiplying bf16.
#[allow(unsafe_code)]
pub(super) fn bf16(steps: usize) {
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn burst(steps: usize) {
        let halves = black_box(_mm512_set1_ps(0.5));
        let factor = _mm512_cvtne2ps_pbh(halves, halves);
        let mut sums = [_mm512_setzero_ps(); CHAINS];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, factor, factor);
            }
        }
        black_box(sums);
    }
    assert!(bf16_available());
    // SAFETY: the instructions are available.
    unsafe { burst(steps) };
}

/// `steps` steps of multiplying 8-bit integers.
#[allow(unsafe_code)]
pub(super) fn int8(steps: usize) {
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn burst(steps: usize) {
        let factor = black_box(_mm512_set1_epi8(1));
        let mut sums = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, factor, factor);
            }
        }
        black_box(sums);
    }
    assert!(int8_available());
    // SAFETY: the instructions are available.
    unsafe { burst(steps) };
}
