//! How fast this machine reads memory: the limit of decoding one row.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use crate::cpu::multiversion;
use crate::memory;
use crate::team::Team;

/// Bytes per second that `threads` threads read together from a buffer of `bytes` bytes: the median of `repeats` passes.
///
/// For the speed of memory the buffer must be several times larger than the caches. The buffer is allocated and filled
/// here. 0 if there is nothing to read or no pass.
pub fn measure_read_bandwidth(threads: usize, bytes: usize, repeats: usize) -> f64 {
    let threads = threads.max(1);
    let team = Team::new(threads);
    let words = memory::filled(1_u32, bytes / size_of::<u32>());
    let total = AtomicU32::new(0);
    let pass = || {
        let start = Instant::now();
        team.run(threads, &|part| {
            let range = words.len() * part / threads..words.len() * (part + 1) / threads;
            total.fetch_add(sum(black_box(&words[range])), Ordering::Relaxed);
        });
        size_of_val(words.as_slice()) as f64 / start.elapsed().as_secs_f64()
    };
    let mut rates: Vec<f64> = std::iter::repeat_with(pass).take(repeats).collect();
    black_box(total.into_inner());
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or(0.0)
}

multiversion! {
    fn sum(words: &[u32]) -> u32 = wrapping_sum;
}

#[inline(always)]
fn wrapping_sum(words: &[u32]) -> u32 {
    words.iter().fold(0, |sum, word| sum.wrapping_add(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_a_rate() {
        for threads in [0, 1, 3] {
            let rate = measure_read_bandwidth(threads, 1 << 16, 3);
            assert!(rate.is_finite() && rate > 0.0, "{rate}");
        }
    }

    #[test]
    fn nothing_to_read_is_zero() {
        assert_eq!(measure_read_bandwidth(2, 1 << 10, 0), 0.0);
        assert_eq!(measure_read_bandwidth(1, 0, 1), 0.0);
    }
}
