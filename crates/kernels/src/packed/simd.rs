//! Sixteen f32 at once: the same few operations on every instruction set.
//!
//! A kernel is written once over [`Simd`] (or [`Narrow`]) and compiled for each set by [`with_simd`]. Every operation works lane by lane,
//! so a lane's bits depend on that lane's inputs only. Sets whose multiply-add rounds once ([`Simd::FUSED`]) give equal
//! bits among themselves.

use super::narrow_simd::Narrow;
use crate::cpu::Isa;

/// Number of f32 in one vector, whatever the width of the machine's registers.
pub(crate) const LANES: usize = 16;

/// Sixteen f32 in registers of one instruction set.
///
/// # Safety
///
/// All functions need a machine with the instruction set; loads, stores and `splat` need pointers to 16 (`splat`: 1)
/// valid f32, aligned as f32.
#[allow(unsafe_code)]
pub(crate) trait Simd: Copy {
    /// Whether [`multiply_add`](Self::multiply_add) rounds once.
    const FUSED: bool;
    /// How many chains of multiply-adds keep the machine busy and fit into its registers.
    const CHAINS: usize;
    /// A tile of `rows` rows is `PANELS[rows - 1]` vectors wide, at most 4, so that its sums fit into the registers. Zero
    /// where a tile of that many rows does not pay.
    const PANELS: [usize; 8];

    unsafe fn zero() -> Self;
    unsafe fn load(from: *const f32) -> Self;
    /// The f32 of which sixteen numbers are the upper halves.
    unsafe fn widen(from: *const u16) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// The f32 at `from` in every lane.
    unsafe fn splat(from: *const f32) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    /// `a * b + self`.
    unsafe fn multiply_add(self, a: Self, b: Self) -> Self;
    /// Asks for the cache line at `at`, which may be any address.
    unsafe fn prefetch(at: *const f32);
    /// Asks for it in a cache that is larger and farther away, which can wait for more lines at once.
    unsafe fn prefetch_far(at: *const f32);
}

/// Code to be compiled for every instruction set. `run` must be `#[inline(always)]`, and so must what it calls if that is
/// generic over the vectors.
#[allow(unsafe_code)]
pub(crate) trait Work {
    type Output;
    /// # Safety
    ///
    /// The machine has the instruction set of `S`; the work may state more.
    unsafe fn run<N: Narrow>(self) -> Self::Output;
}

/// Runs `work` with the vectors of `isa`.
///
/// # Safety
///
/// `isa` is available on this machine, and whatever the work demands.
#[allow(unsafe_code)]
pub(crate) unsafe fn with_simd<W: Work>(isa: Isa, work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
        unsafe fn with_avx512<W: Work>(work: W) -> W::Output {
            // SAFETY: compiled with the features that the vectors need; the rest is the caller's promise.
            unsafe { work.run::<Avx512>() }
        }
        #[target_feature(enable = "avx2,fma")]
        unsafe fn with_avx2<W: Work>(work: W) -> W::Output {
            // SAFETY: as above.
            unsafe { work.run::<Avx2>() }
        }
        match isa {
            // SAFETY: the caller's promise.
            Isa::Avx512 => return unsafe { with_avx512(work) },
            // SAFETY: the caller's promise.
            Isa::Avx2 => return unsafe { with_avx2(work) },
            Isa::Portable | Isa::Neon => {}
        }
    }
    let _ = isa;
    // SAFETY: arrays need no instruction set; the rest is the caller's promise.
    unsafe { work.run::<Array>() }
}

/// Whether the kernels of `isa` add with one rounding, as `f32::mul_add` does.
///
/// Only the portable one on machines whose baseline lacks the instruction (x86-64) does not: there `f32::mul_add` is a
/// function call of some fifty instructions, so it multiplies, rounds, adds and rounds.
pub fn fused(isa: Isa) -> bool {
    match isa {
        Isa::Avx2 | Isa::Avx512 => true,
        Isa::Portable | Isa::Neon => Array::FUSED,
    }
}

/// An array, which the compiler turns into whatever the target has: four NEON registers, four of SSE.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Array(pub(super) [f32; LANES]);

#[allow(unsafe_code)]
impl Simd for Array {
    const FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));
    const CHAINS: usize = 4;
    const PANELS: [usize; 8] = [4, 2, 1, 1, 0, 0, 0, 0];

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; LANES])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { from.cast::<[f32; LANES]>().read() })
    }

    #[inline(always)]
    unsafe fn widen(from: *const u16) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { from.cast::<[u16; LANES]>().read() }.map(|half| f32::from_bits(u32::from(half) << 16)))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; LANES]>().write(self.0) }
    }

    #[inline(always)]
    unsafe fn splat(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self([unsafe { *from }; LANES])
    }

    #[inline(always)]
    unsafe fn add(mut self, other: Self) -> Self {
        for (sum, other) in self.0.iter_mut().zip(other.0) {
            *sum += other;
        }
        self
    }

    #[inline(always)]
    unsafe fn multiply_add(mut self, a: Self, b: Self) -> Self {
        for ((sum, a), b) in self.0.iter_mut().zip(a.0).zip(b.0) {
            *sum = if Self::FUSED { a.mul_add(b, *sum) } else { a * b + *sum };
        }
        self
    }

    #[inline(always)]
    unsafe fn prefetch(_at: *const f32) {}

    #[inline(always)]
    unsafe fn prefetch_far(_at: *const f32) {}
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Simd;
    use std::arch::x86_64::*;

    /// One 512-bit register.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(pub(in crate::packed) __m512);

    #[allow(unsafe_code)]
    // SAFETY (of every block below): the trait's callers promise the instruction set and the pointers.
    impl Simd for Avx512 {
        const FUSED: bool = true;
        const CHAINS: usize = 16;
        /// At most 24 sums, which leaves room for weights and inputs in 32 registers. Four streams of weights are read from
        /// memory faster than eight, and faster than one.
        const PANELS: [usize; 8] = [4, 4, 4, 4, 4, 4, 3, 3];

        #[inline(always)]
        unsafe fn zero() -> Self {
            Self(unsafe { _mm512_setzero_ps() })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            Self(unsafe { _mm512_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn widen(from: *const u16) -> Self {
            unsafe {
                let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
                Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves)))
            }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn splat(from: *const f32) -> Self {
            Self(unsafe { _mm512_set1_ps(*from) })
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
            Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
        }

        #[inline(always)]
        unsafe fn prefetch(at: *const f32) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
        }

        #[inline(always)]
        unsafe fn prefetch_far(at: *const f32) {
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
        }
    }

    /// Two 256-bit registers.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(pub(in crate::packed) __m256, pub(in crate::packed) __m256);

    #[allow(unsafe_code)]
    // SAFETY (of every block below): the trait's callers promise the instruction set and the pointers.
    impl Simd for Avx2 {
        const FUSED: bool = true;
        const CHAINS: usize = 4;
        /// At most 6 sums of two registers each, of 16.
        const PANELS: [usize; 8] = [4, 2, 2, 1, 1, 1, 0, 0];

        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { Self(_mm256_setzero_ps(), _mm256_setzero_ps()) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
        }

        #[inline(always)]
        unsafe fn widen(from: *const u16) -> Self {
            unsafe {
                let wide = |from: *const u16| {
                    let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
                };
                Self(wide(from), wide(from.add(8)))
            }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe {
                _mm256_storeu_ps(to, self.0);
                _mm256_storeu_ps(to.add(8), self.1);
            }
        }

        #[inline(always)]
        unsafe fn splat(from: *const f32) -> Self {
            let all = unsafe { _mm256_set1_ps(*from) };
            Self(all, all)
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { Self(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
        }

        #[inline(always)]
        unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
            unsafe { Self(_mm256_fmadd_ps(a.0, b.0, self.0), _mm256_fmadd_ps(a.1, b.1, self.1)) }
        }

        #[inline(always)]
        unsafe fn prefetch(at: *const f32) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
        }

        #[inline(always)]
        unsafe fn prefetch_far(at: *const f32) {
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
        }
    }
}
