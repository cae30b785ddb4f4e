//! How fast this machine multiplies and adds: the limit of training and of long prompts.

use std::hint::black_box;
use std::time::Instant;

use crate::cpu::isa;
use crate::packed::{LANES, Simd, Work, with_simd};
use crate::team::Team;

/// Steps of one burst, some milliseconds.
const STEPS: usize = 1_000_000;

/// Bursts, the fastest of which counts: a peak is what the machine can do, not what it mostly does.
const BURSTS: usize = 5;

/// f32 operations per second (a multiply-add is two) that `threads` threads reach together on values in registers.
#[allow(unsafe_code)]
pub fn measure_f32_peak(threads: usize) -> f64 {
    let threads = threads.max(1);
    let team = Team::new(threads);
    let mut best: f64 = 0.0;
    for _ in 0..BURSTS {
        let start = Instant::now();
        team.run(threads, &|_| {
            // SAFETY: `isa` returns a set that the machine has; the work has no demands of its own.
            unsafe { with_simd(isa(), Burst) };
        });
        let operations = threads * STEPS * CHAINS * LANES * 2;
        best = best.max(operations as f64 / start.elapsed().as_secs_f64());
    }
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
    unsafe fn run<S: Simd>(self) {
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
    fn gives_a_rate() {
        let rate = measure_f32_peak(1);
        assert!(rate.is_finite() && rate > 1e6, "{rate}");
    }
}
