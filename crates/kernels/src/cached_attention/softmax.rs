//! Softmax over keys that come a chunk at a time: scores become weights, relative to the largest score so far.
//!
//! Scores count in powers of two, which saves the exponential a multiplication. Each vector's scores of a chunk are a few
//! registers wide; the maximum is looked for within them only where some score is above the present one, which after a few
//! chunks is rare.

use std::f32::consts::{LN_2, LOG2_E};
use std::ops::Range;

use super::{CHUNK, MAX_STEP, Number};
use crate::packed::{LANES, Narrow, Work};
use crate::soft_cap;
use crate::vector::lanes;

/// Running maximum of the scaled scores, as powers of two, and totals of the weights relative to it, one for each lane.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Softmax {
    totals: [f32; LANES],
    maximum: f32,
}

impl Softmax {
    /// Of no scores.
    pub(super) const EMPTY: Self = Self { totals: [0.0; LANES], maximum: f32::NEG_INFINITY };

    /// Sum of all weights.
    pub(super) fn total(&self) -> f32 {
        lanes::sum_of_lanes(self.totals)
    }

    /// Takes one more scaled score into account, and gives its weight.
    pub(super) fn take_one(&mut self, score: f32, sums: &mut [f32]) -> f32 {
        let score = score * LOG2_E;
        if score > self.maximum {
            let keep = lanes::exp((self.maximum - score) * LN_2);
            self.maximum = score;
            lanes::scale(&mut self.totals, keep);
            lanes::scale(sums, keep);
        }
        let weight = lanes::exp((score - self.maximum) * LN_2);
        self.totals[0] += weight;
        weight
    }

    /// Relates totals and sums to a larger maximum.
    ///
    /// # Safety
    ///
    /// The machine has what `N` needs.
    #[allow(unsafe_code)]
    #[inline(always)]
    unsafe fn raise<N: Narrow>(&mut self, maximum: f32, sums: &mut [f32]) {
        // SAFETY: the caller's promise; chunks are of sixteen.
        unsafe {
            let keep = N::splat(&self.maximum).subtract(N::splat(&maximum)).exp2();
            self.maximum = maximum;
            let totals = self.totals.as_chunks_mut::<LANES>().0;
            for lanes in totals.iter_mut().chain(sums.as_chunks_mut::<LANES>().0) {
                N::load(lanes.as_ptr()).multiply(keep).store(lanes.as_mut_ptr());
            }
        }
    }
}

/// Scores of some vectors in a chunk, and what becomes of them.
pub(super) struct TakeScores<'a, V, const D: usize> {
    pub(super) scores: &'a mut [[f32; CHUNK]],
    pub(super) weights: &'a mut [[V; CHUNK]],
    pub(super) softmax: &'a mut [Softmax],
    /// What was summed before, relative to the maximum as well.
    pub(super) sums: &'a mut [[f32; D]],
    /// First key of the chunk.
    pub(super) chunk: usize,
    /// Which keys each vector sees in it.
    pub(super) ranges: &'a [Range<usize>],
    pub(super) scale: f32,
    pub(super) cap: Option<f32>,
}

#[allow(unsafe_code)]
impl<V: Number, const D: usize> Work for TakeScores<'_, V, D> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<N: Narrow>(self) {
        let ones = [V::of(1.0); MAX_STEP];
        let vectors = self.scores.iter_mut().zip(&mut *self.weights).zip(&mut *self.softmax);
        for (((scores, weights), softmax), (sums, range)) in
            vectors.zip(self.sums.iter_mut().zip(self.ranges))
        {
            let factor = prepare(scores, self.chunk, range, self.scale, self.cap);
            // SAFETY: `i` counts vectors of a chunk, in the scores and in the weights.
            unsafe {
                let factor = N::splat(&factor);
                let scaled: [N; CHUNK / LANES] =
                    std::array::from_fn(|i| N::load(scores.as_ptr().add(i * LANES)).multiply(factor));
                let largest = scaled.into_iter().reduce(|a, b| a.larger(b)).unwrap_or(factor);
                if largest.exceeds(N::splat(&softmax.maximum)) {
                    softmax.raise::<N>(largest.largest(), sums);
                }
                let maximum = N::splat(&softmax.maximum);
                for (i, scaled) in scaled.into_iter().enumerate() {
                    V::store::<N>(scaled.subtract(maximum).exp2(), weights.as_mut_ptr().add(i * LANES));
                }
            }
        }
        // A walk of its own: weights that have just been written could not be read at once in larger pieces.
        for (weights, softmax) in self.weights.iter().zip(&mut *self.softmax) {
            // SAFETY: each step has `16 * STEP` weights, and there are as many ones as a step takes.
            unsafe {
                let mut totals = N::load(softmax.totals.as_ptr());
                for step in weights.chunks_exact(LANES * V::STEP) {
                    totals = V::add(totals, ones.as_ptr(), V::load(step.as_ptr()));
                }
                totals.store(softmax.totals.as_mut_ptr());
            }
        }
    }
}

/// Sees to it that what a vector does not see becomes weight zero, whatever the cache held there, and gives what its scores are
/// to be multiplied with, so that they are powers of two.
#[inline(always)]
fn prepare(
    scores: &mut [f32; CHUNK],
    chunk: usize,
    range: &Range<usize>,
    scale: f32,
    cap: Option<f32>,
) -> f32 {
    if cap.is_none() && range.len() == CHUNK {
        return scale * LOG2_E;
    }
    let factor = if let Some(cap) = cap {
        lanes::scale(scores, scale);
        soft_cap::forward_body(scores, cap);
        LOG2_E
    } else {
        scale * LOG2_E
    };
    lanes::scale(scores, factor);
    scores[..range.start - chunk].fill(f32::NEG_INFINITY);
    scores[range.end - chunk..].fill(f32::NEG_INFINITY);
    1.0
}
