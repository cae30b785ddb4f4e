//! Seeded numbers, the same on every platform and in every version.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The generator that everything random here uses.
pub type Seeded = ChaCha8Rng;

/// A generator for one purpose of a run: equal seeds and purposes give equal numbers, other purposes independent ones.
pub fn seeded(seed: u64, purpose: u64) -> Seeded {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(purpose);
    rng
}

/// Uniform in `[0, 1)`, 24 bits.
pub fn uniform(rng: &mut Seeded) -> f32 {
    (rng.next_u32() >> 8) as f32 / (1u32 << 24) as f32
}

/// `count` normal deviates of mean 0 (Box and Muller).
pub fn normal(rng: &mut Seeded, count: usize, deviation: f32) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let radius = (-2.0 * (1.0 - f64::from(uniform(rng))).ln()).sqrt();
        let angle = std::f64::consts::TAU * f64::from(uniform(rng));
        values.push((radius * angle.cos()) as f32 * deviation);
        values.push((radius * angle.sin()) as f32 * deviation);
    }
    values.truncate(count);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_deviates_have_the_asked_moments_and_repeat() {
        let values = normal(&mut seeded(7, 1), 20_001, 0.5);
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / values.len() as f32;
        assert!(mean.abs() < 0.02 && (variance.sqrt() - 0.5).abs() < 0.01, "{mean} {variance}");
        assert_eq!(values, normal(&mut seeded(7, 1), 20_001, 0.5));
        assert_ne!(values[0], normal(&mut seeded(7, 2), 1, 0.5)[0]);
    }
}
