//! What narrow weights need beside the vectors of [`simd`](super::simd): pairs of bf16, and exact sums of small integers.

use super::exp2::Exp2;
use super::simd::{Array, LANES, Simd, Work};
use crate::cpu::Isa;

/// Sixteen sums, and what adds to them.
///
/// # Safety
///
/// As for [`Simd`]; a pointer to words leads to 16 of them, one to an input pair or quad of a row to 4 bytes, unaligned.
#[allow(unsafe_code)]
pub(crate) trait Narrow: Exp2 {
    /// Sixteen i32.
    type Integers: Copy;
    /// Sixteen words of weights.
    type Words: Copy;
    /// Whether [`add_bytes`](Self::add_bytes) takes the 128 off by itself that stored bytes have been raised by.
    const LOWERS_BYTES: bool;
    /// Panels of tiles of bf16 weights.
    const PAIR_PANELS: [usize; 8];
    /// Panels of tiles of bytes, whose integer sums are to fit into registers. Those in f32 need not: they are used once a block.
    const BYTE_PANELS: [usize; 8];
    /// The same of nibbles, whose blocks are half as long.
    const NIBBLE_PANELS: [usize; 8];

    unsafe fn multiply(self, other: Self) -> Self;
    unsafe fn load_words(from: *const u32) -> Self::Words;
    /// The lower nibbles of every byte, and the upper ones.
    unsafe fn nibbles(words: Self::Words) -> [Self::Words; 2];
    /// `self + w0 x0 + w1 x1`, of bf16.
    unsafe fn add_pairs(self, words: Self::Words, x: *const u8) -> Self;
    unsafe fn integers(start: i32) -> Self::Integers;
    /// `sums + w0 x0 + .. + w3 x3`, where weights are bytes that have been raised by 128 and inputs signed bytes.
    unsafe fn add_bytes(sums: Self::Integers, words: Self::Words, x: *const u8) -> Self::Integers;
    /// The same where weights are at most 15.
    unsafe fn add_nibbles(sums: Self::Integers, words: Self::Words, x: *const u8) -> Self::Integers;
    unsafe fn to_f32(sums: Self::Integers) -> Self;
}

/// Runs `work` with the vectors of `isa`, with its instructions for small integers or else those for bf16. Where a machine
/// with 512-bit vectors lacks them, the 256-bit kernel is used.
///
/// # Safety
///
/// `isa` is available on this machine, and whatever the work demands.
#[allow(unsafe_code)]
pub(super) unsafe fn with_narrow<W: Work>(isa: Isa, integers: bool, work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
        unsafe fn with_vnni<W: Work>(work: W) -> W::Output {
            // SAFETY: compiled with the features that integer work needs; the rest is the caller's promise.
            unsafe { work.run::<super::simd::Avx512>() }
        }
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")]
        unsafe fn with_bf16<W: Work>(work: W) -> W::Output {
            // SAFETY: as above, for bf16.
            unsafe { work.run::<super::simd::Avx512>() }
        }
        #[target_feature(enable = "avx2,fma")]
        unsafe fn with_avx2<W: Work>(work: W) -> W::Output {
            // SAFETY: as above.
            unsafe { work.run::<super::simd::Avx2>() }
        }
        match isa {
            Isa::Avx512 if integers && is_x86_feature_detected!("avx512vnni") => {
                // SAFETY: just detected; the rest is the caller's promise.
                return unsafe { with_vnni(work) };
            }
            Isa::Avx512 if !integers && is_x86_feature_detected!("avx512bf16") => {
                // SAFETY: as above.
                return unsafe { with_bf16(work) };
            }
            // SAFETY: every machine with the 512-bit set has the 256-bit one.
            Isa::Avx512 | Isa::Avx2 => return unsafe { with_avx2(work) },
            Isa::Portable | Isa::Neon => {}
        }
    }
    let _ = (isa, integers);
    // SAFETY: arrays need no instruction set; the rest is the caller's promise.
    unsafe { work.run::<Array>() }
}

/// The two bf16 at `x` as f32.
///
/// # Safety
///
/// Four bytes are readable at `x`.
#[allow(unsafe_code)]
#[inline(always)]
unsafe fn pair(x: *const u8) -> [f32; 2] {
    // SAFETY: the caller's promise.
    halves(unsafe { x.cast::<u32>().read_unaligned() })
}

/// The two bf16 of a word as f32.
#[inline(always)]
fn halves(word: u32) -> [f32; 2] {
    [f32::from_bits(word << 16), f32::from_bits(word & 0xffff_0000)]
}

#[allow(unsafe_code)]
impl Narrow for Array {
    type Integers = [i32; LANES];
    type Words = [u32; LANES];
    const LOWERS_BYTES: bool = false;
    const PAIR_PANELS: [usize; 8] = [2, 1, 1, 1, 0, 0, 0, 0];
    const BYTE_PANELS: [usize; 8] = [1, 1, 1, 1, 0, 0, 0, 0];
    const NIBBLE_PANELS: [usize; 8] = Self::BYTE_PANELS;

    #[inline(always)]
    unsafe fn multiply(mut self, other: Self) -> Self {
        for (a, b) in self.0.iter_mut().zip(other.0) {
            *a *= b;
        }
        self
    }

    #[inline(always)]
    unsafe fn load_words(from: *const u32) -> Self::Words {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[u32; LANES]>().read() }
    }

    #[inline(always)]
    unsafe fn nibbles(words: Self::Words) -> [Self::Words; 2] {
        [words.map(|word| word & 0x0f0f_0f0f), words.map(|word| (word >> 4) & 0x0f0f_0f0f)]
    }

    #[inline(always)]
    unsafe fn add_pairs(self, words: Self::Words, x: *const u8) -> Self {
        // SAFETY: the caller's promise.
        let [first, second] = unsafe { pair(x) };
        // SAFETY: arrays need no instruction set.
        unsafe {
            self.multiply_add(Self([first; LANES]), Self(words.map(|word| halves(word)[0])))
                .multiply_add(Self([second; LANES]), Self(words.map(|word| halves(word)[1])))
        }
    }

    #[inline(always)]
    unsafe fn integers(start: i32) -> Self::Integers {
        [start; LANES]
    }

    #[inline(always)]
    unsafe fn add_bytes(mut sums: Self::Integers, words: Self::Words, x: *const u8) -> Self::Integers {
        // SAFETY: the caller's promise.
        let x = unsafe { x.cast::<[i8; 4]>().read() };
        for (sum, word) in sums.iter_mut().zip(words) {
            for (weight, x) in word.to_le_bytes().into_iter().zip(x) {
                *sum = sum.wrapping_add(i32::from(weight) * i32::from(x));
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn add_nibbles(sums: Self::Integers, words: Self::Words, x: *const u8) -> Self::Integers {
        // SAFETY: the caller's promise.
        unsafe { Self::add_bytes(sums, words, x) }
    }

    #[inline(always)]
    unsafe fn to_f32(sums: Self::Integers) -> Self {
        Self(sums.map(|sum| sum as f32))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Narrow;
    use crate::packed::simd::{Avx2, Avx512};
    use std::arch::x86_64::*;

    #[allow(unsafe_code)]
    // SAFETY (of every block below): the trait's callers promise the instruction set and the pointers.
    impl Narrow for Avx512 {
        type Integers = __m512i;
        type Words = __m512i;
        const LOWERS_BYTES: bool = false;
        const PAIR_PANELS: [usize; 8] = [4, 4, 4, 4, 4, 3, 3, 3];
        const BYTE_PANELS: [usize; 8] = [4, 4, 4, 4, 4, 3, 2, 2];
        const NIBBLE_PANELS: [usize; 8] = [4, 4, 4, 4, 4, 3, 2, 1];

        #[inline(always)]
        unsafe fn multiply(self, other: Self) -> Self {
            Self(unsafe { _mm512_mul_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn load_words(from: *const u32) -> Self::Words {
            unsafe { _mm512_loadu_si512(from.cast()) }
        }

        #[inline(always)]
        unsafe fn nibbles(words: Self::Words) -> [Self::Words; 2] {
            unsafe {
                let lower = _mm512_set1_epi8(0x0f);
                [_mm512_and_si512(words, lower), _mm512_and_si512(_mm512_srli_epi16::<4>(words), lower)]
            }
        }

        #[inline(always)]
        unsafe fn add_pairs(self, words: Self::Words, x: *const u8) -> Self {
            unsafe {
                let x = _mm512_set1_epi32(x.cast::<i32>().read_unaligned());
                let words = std::mem::transmute::<__m512i, __m512bh>(words);
                Self(_mm512_dpbf16_ps(self.0, words, std::mem::transmute::<__m512i, __m512bh>(x)))
            }
        }

        #[inline(always)]
        unsafe fn integers(start: i32) -> Self::Integers {
            unsafe { _mm512_set1_epi32(start) }
        }

        #[inline(always)]
        unsafe fn add_bytes(sums: Self::Integers, words: Self::Words, x: *const u8) -> Self::Integers {
            unsafe { _mm512_dpbusd_epi32(sums, words, _mm512_set1_epi32(x.cast::<i32>().read_unaligned())) }
        }

        #[inline(always)]
        unsafe fn add_nibbles(sums: Self::Integers, words: Self::Words, x: *const u8) -> Self::Integers {
            unsafe { Self::add_bytes(sums, words, x) }
        }

        #[inline(always)]
        unsafe fn to_f32(sums: Self::Integers) -> Self {
            Self(unsafe { _mm512_cvtepi32_ps(sums) })
        }
    }

    #[allow(unsafe_code)]
    // SAFETY (of every block below): as above.
    impl Narrow for Avx2 {
        type Integers = [__m256i; 2];
        type Words = [__m256i; 2];
        const LOWERS_BYTES: bool = true;
        const PAIR_PANELS: [usize; 8] = [2, 1, 1, 1, 0, 0, 0, 0];
        const BYTE_PANELS: [usize; 8] = [2, 1, 1, 1, 0, 0, 0, 0];
        const NIBBLE_PANELS: [usize; 8] = Self::BYTE_PANELS;

        #[inline(always)]
        unsafe fn multiply(self, other: Self) -> Self {
            unsafe { Self(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
        }

        #[inline(always)]
        unsafe fn load_words(from: *const u32) -> Self::Words {
            unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(8).cast())] }
        }

        #[inline(always)]
        unsafe fn nibbles(words: Self::Words) -> [Self::Words; 2] {
            unsafe {
                let lower = _mm256_set1_epi8(0x0f);
                let [a, b] = words;
                [
                    [_mm256_and_si256(a, lower), _mm256_and_si256(b, lower)],
                    [
                        _mm256_and_si256(_mm256_srli_epi16::<4>(a), lower),
                        _mm256_and_si256(_mm256_srli_epi16::<4>(b), lower),
                    ],
                ]
            }
        }

        #[inline(always)]
        unsafe fn add_pairs(self, words: Self::Words, x: *const u8) -> Self {
            unsafe {
                let [first, second] = super::pair(x).map(|x| _mm256_set1_ps(x));
                let add = |sum, words| {
                    let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
                    let w0 = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words));
                    let w1 = _mm256_castsi256_ps(_mm256_and_si256(words, upper));
                    _mm256_fmadd_ps(second, w1, _mm256_fmadd_ps(first, w0, sum))
                };
                Self(add(self.0, words[0]), add(self.1, words[1]))
            }
        }

        #[inline(always)]
        unsafe fn integers(start: i32) -> Self::Integers {
            unsafe { [_mm256_set1_epi32(start); 2] }
        }

        /// The instruction multiplies unsigned with signed bytes and saturates sums of two products in 16 bits: magnitudes
        /// of at most 128 and 127 stay below that, where raised weights would not.
        #[inline(always)]
        unsafe fn add_bytes(sums: Self::Integers, words: Self::Words, x: *const u8) -> Self::Integers {
            unsafe {
                let x = _mm256_set1_epi32(x.cast::<i32>().read_unaligned());
                let raised = _mm256_set1_epi8(-128);
                let add = |sum, words| {
                    let signed = _mm256_xor_si256(words, raised);
                    let products = _mm256_maddubs_epi16(_mm256_abs_epi8(signed), _mm256_sign_epi8(x, signed));
                    _mm256_add_epi32(sum, _mm256_madd_epi16(products, _mm256_set1_epi16(1)))
                };
                [add(sums[0], words[0]), add(sums[1], words[1])]
            }
        }

        #[inline(always)]
        unsafe fn add_nibbles(sums: Self::Integers, words: Self::Words, x: *const u8) -> Self::Integers {
            unsafe {
                let x = _mm256_set1_epi32(x.cast::<i32>().read_unaligned());
                let add = |sum, words| {
                    let products = _mm256_maddubs_epi16(words, x);
                    _mm256_add_epi32(sum, _mm256_madd_epi16(products, _mm256_set1_epi16(1)))
                };
                [add(sums[0], words[0]), add(sums[1], words[1])]
            }
        }

        #[inline(always)]
        unsafe fn to_f32(sums: Self::Integers) -> Self {
            unsafe { Self(_mm256_cvtepi32_ps(sums[0]), _mm256_cvtepi32_ps(sums[1])) }
        }
    }
}
