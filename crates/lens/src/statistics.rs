//! Means with their errors, and the tests of means and shares that the analyses use.

use serde::Serialize;

/// A mean with its standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Mean {
    /// How many values.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Deviation of the mean: that of the values (n - 1) over the root of their number.
    pub standard_error: f64,
}

impl Mean {
    /// Of `values`.
    pub fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let count = values.clone().count();
        let mean = values.clone().sum::<f64>() / count.max(1) as f64;
        let squares: f64 = values.map(|value| (value - mean).powi(2)).sum();
        let variance = squares / count.saturating_sub(1).max(1) as f64;
        Self { count, mean, standard_error: (variance / count.max(1) as f64).sqrt() }
    }
}

/// A test's statistic and its two-sided p-value under the normal distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Test {
    /// How many standard errors lie between the two.
    pub statistic: f64,
    /// Probability of as much or more if there were no difference.
    pub p_value: f64,
}

impl Test {
    fn of(difference: f64, error: f64) -> Option<Self> {
        (error > 0.0).then(|| {
            let statistic = difference / error;
            Self { statistic, p_value: libm::erfc(statistic.abs() * std::f64::consts::FRAC_1_SQRT_2) }
        })
    }

    /// Whether `b` is larger than `a`: Welch's test, for samples so large that Student's distribution is normal.
    pub fn of_means(a: Mean, b: Mean) -> Option<Self> {
        Self::of(b.mean - a.mean, a.standard_error.hypot(b.standard_error))
    }

    /// Whether shares `hits / count` differ: z with the pooled share.
    pub fn of_shares((hits_a, count_a): (usize, usize), (hits_b, count_b): (usize, usize)) -> Option<Self> {
        if count_a == 0 || count_b == 0 {
            return None;
        }
        let [ha, ca, hb, cb] = [hits_a, count_a, hits_b, count_b].map(|count| count as f64);
        let pooled = (ha + hb) / (ca + cb);
        Self::of(hb / cb - ha / ca, (pooled * (1.0 - pooled) * (1.0 / ca + 1.0 / cb)).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_tests_have_their_textbook_values() {
        let mean = Mean::of([1.0, 2.0, 3.0, 4.0].into_iter());
        assert_eq!(mean.mean, 2.5);
        assert!((mean.standard_error - (5.0f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
        // 15 of 100 against 25 of 100: pooled 0.2, z = 0.1 / sqrt(0.16 * 0.02).
        let test = Test::of_shares((15, 100), (25, 100)).unwrap();
        assert!(
            (test.statistic - 1.767_767).abs() < 1e-5 && (test.p_value - 0.0771).abs() < 1e-4,
            "{test:?}"
        );
        assert_eq!(Test::of_shares((0, 0), (1, 2)), None);
        assert_eq!(Test::of_means(Mean::default(), Mean::default()), None);
    }
}
