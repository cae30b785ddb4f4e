//! Tools for tests: seeded numbers, comparison with a message, and gradients by finite differences.

/// `count` numbers evenly spread over -1..1, the same for the same `seed` on every machine.
pub fn random_values(count: usize, seed: u64) -> Vec<f32> {
    // SplitMix64 (Steele, Lea and Flood 2014).
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (0..count).map(|_| (next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
}

/// Panics, naming `what` and the first bad index, unless every element is within `tolerance * (1 + |expected|)`.
#[track_caller]
pub fn assert_close(actual: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}: number of elements");
    for (index, (&actual, &expected)) in actual.iter().zip(expected).enumerate() {
        let difference = (f64::from(actual) - expected).abs();
        // Written so that something that is no number fails.
        let close = difference <= tolerance * (1.0 + expected.abs());
        assert!(close, "{what}: element {index} is {actual}, expected {expected}");
    }
}

/// The gradient of `f` at `at` by central differences: `(f(x + step) - f(x - step)) / 2 step` for every component.
///
/// `f` should compute in f64: then `step = 1e-3` leaves an error of about 1e-6 of the third derivative. The step actually taken
/// is measured after rounding to f32.
pub fn finite_difference(at: &[f32], step: f32, mut f: impl FnMut(&[f32]) -> f64) -> Vec<f64> {
    let mut x = at.to_vec();
    let mut gradient = Vec::with_capacity(at.len());
    for i in 0..at.len() {
        let (above, below) = (at[i] + step, at[i] - step);
        x[i] = above;
        let f_above = f(&x);
        x[i] = below;
        let f_below = f(&x);
        x[i] = at[i];
        gradient.push((f_above - f_below) / (f64::from(above) - f64::from(below)));
    }
    gradient
}

/// `sum of values[i] * weights[i]`: turns many outputs into the one number that a finite difference needs. Its gradient with
/// respect to the values is `weights`.
pub fn weighted_sum(values: &[f64], weights: &[f32]) -> f64 {
    assert_eq!(values.len(), weights.len(), "weighted_sum: lengths disagree");
    values.iter().zip(weights).map(|(v, &w)| v * f64::from(w)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finite_difference_finds_a_known_gradient() {
        let at = [0.5f32, -1.5, 2.0];
        let gradient =
            finite_difference(&at, 1e-3, |x| f64::from(x[0]).powi(3) + f64::from(x[1]) * f64::from(x[2]));
        let actual: Vec<f32> = gradient.iter().map(|&g| g as f32).collect();
        assert_close(&actual, &[0.75, 2.0, -1.5], 2e-6, "gradient");
    }

    #[test]
    fn random_values_are_spread_and_repeatable() {
        let values = random_values(10_000, 3);
        assert_eq!(values, random_values(10_000, 3));
        assert_ne!(values[..9], random_values(9, 4));
        assert!(values.iter().all(|v| (-1.0..1.0).contains(v)));
        assert!(values.iter().sum::<f32>().abs() < 200.0);
    }

    #[test]
    #[should_panic(expected = "logits: element 1 is NaN")]
    fn what_is_no_number_is_close_to_nothing() {
        assert_close(&[0.0, f32::NAN], &[0.0, 0.0], 1.0, "logits");
    }
}
