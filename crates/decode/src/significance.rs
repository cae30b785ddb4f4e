//! Tests of hypotheses: p-values, and how many of them may be small by chance.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ChiSquared, ContinuousCDF, Normal};

/// One test of one hypothesis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Test {
    /// What it looks at.
    pub name: String,
    /// What was found.
    pub statistic: f64,
    /// How often something at least as extreme comes by chance.
    pub p_value: f64,
    /// Whether it is too rare for chance, given all tests that were made (Holm).
    #[serde(default)]
    pub rejected: bool,
}

/// Probability of a chi-square variable of `degrees` degrees of freedom to be above `value`.
pub(crate) fn chi_square_tail(value: f64, degrees: f64) -> f64 {
    ChiSquared::new(degrees).map_or(f64::NAN, |distribution| distribution.sf(value))
}

/// Probability of a standard normal variable to be farther from 0 than `value`.
pub(crate) fn two_sided_normal_tail(value: f64) -> f64 {
    2.0 * Normal::standard().sf(value.abs())
}

/// Probability that a normal variable of deviation 1 around `mean` is farther from 0 than the two-sided `level` allows.
pub(crate) fn power(mean: f64, level: f64) -> f64 {
    let normal = Normal::standard();
    let critical = normal.inverse_cdf(1.0 - level / 2.0);
    normal.sf(critical - mean) + normal.sf(critical + mean)
}

/// Marks the tests that fail, so that all together reject a true hypothesis with probability at most `level` (Holm 1979).
pub(crate) fn holm(tests: &mut [&mut Test], level: f64) {
    let count = tests.len();
    // What is no number is the least credible.
    let value = |test: &Test| if test.p_value.is_nan() { 0.0 } else { test.p_value };
    tests.sort_by(|a, b| value(a).total_cmp(&value(b)));
    let mut rejecting = true;
    for (rank, test) in tests.iter_mut().enumerate() {
        rejecting &= value(test) <= level / (count - rank) as f64;
        test.rejected = rejecting;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(left: f64, right: f64) {
        assert!((left - right).abs() < 1e-4, "{left} is not {right}");
    }

    #[test]
    fn known_tails() {
        close(chi_square_tail(16.266, 3.0), 0.001);
        close(chi_square_tail(82.529, 63.0), 0.05);
        close(two_sided_normal_tail(-1.959_964), 0.05);
        close(power(0.0, 0.05), 0.05);
        close(power(1.959_964, 0.05), 0.500_04);
        close(power(-4.285_5, 0.05), 0.99);
    }

    #[test]
    fn holm_steps_down_and_stops_at_the_first_credible_one() {
        let test = |p_value| Test { name: String::new(), statistic: 0.0, p_value, rejected: false };
        let mut tests = [0.03, 0.001, 0.04, 0.012].map(test);
        holm(&mut tests.iter_mut().collect::<Vec<_>>(), 0.05);
        assert_eq!(tests.map(|test| test.rejected), [false, true, false, true]);
        let mut broken = [f64::NAN, 0.5].map(test);
        holm(&mut broken.iter_mut().collect::<Vec<_>>(), 0.05);
        assert_eq!(broken.map(|test| test.rejected), [true, false]);
    }
}
