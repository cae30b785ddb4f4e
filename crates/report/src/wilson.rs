//! Wilson's score interval for a proportion, used for acceptance and accuracy.
//!
//! Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927). Unlike
//! the textbook interval p ± z·s it stays inside [0, 1] and does not collapse to a point when every trial succeeded.

use serde::{Deserialize, Serialize};

/// The 97.5 % quantile of the normal distribution: the z of a two-sided 95 % interval.
const Z_95: f64 = 1.959_963_984_540_054;

/// A proportion with the interval that covers it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Successes over trials, in 0..=1.
    pub share: f64,
    /// Lower end of the interval, in 0..=share.
    pub low: f64,
    /// Upper end of the interval, in share..=1.
    pub high: f64,
}

/// The 95 % interval of `successes` in `trials`; `None` where nothing was tried.
pub fn wilson_95(successes: u64, trials: u64) -> Option<Interval> {
    wilson_interval(successes, trials, Z_95)
}

/// The interval for the normal quantile `z` (1.96 for 95 %, 1.645 for 90 %).
///
/// `None` where `trials` is 0. More successes than trials are a caller's mistake and count as all trials.
pub fn wilson_interval(successes: u64, trials: u64, z: f64) -> Option<Interval> {
    if trials == 0 {
        return None;
    }
    let n = trials as f64;
    let share = successes.min(trials) as f64 / n;
    // Wilson 1927: (p + z²/2n ± z·sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)
    let z_squared = z * z;
    let denominator = 1.0 + z_squared / n;
    let centre = (share + z_squared / (2.0 * n)) / denominator;
    let half = z * (share * (1.0 - share) / n + z_squared / (4.0 * n * n)).sqrt() / denominator;
    // At p = 0 and p = 1 one end is exactly p; rounding must not push it past.
    Some(Interval { share, low: (centre - half).clamp(0.0, share), high: (centre + half).clamp(share, 1.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(left: f64, right: f64) {
        assert!((left - right).abs() < 5e-5, "{left} is not {right}");
    }

    #[test]
    fn known_values() {
        // Newcombe (1998), Statistics in Medicine 17, table I, method 3.
        let interval = wilson_95(81, 263).expect("trials");
        close(interval.low, 0.2553);
        close(interval.high, 0.3662);
        let interval = wilson_95(15, 148).expect("trials");
        close(interval.low, 0.0624);
        close(interval.high, 0.1605);
        let interval = wilson_95(0, 20).expect("trials");
        assert_eq!(interval.low, 0.0);
        close(interval.high, 0.1611);
        let interval = wilson_95(1, 29).expect("trials");
        close(interval.low, 0.0061);
        close(interval.high, 0.1718);
    }

    #[test]
    fn ends_stay_inside_and_nothing_tried_is_nothing() {
        assert_eq!(wilson_95(0, 0), None);
        let all = wilson_95(50, 50).expect("trials");
        assert_eq!(all.high, 1.0);
        assert!(all.low > 0.9 && all.low < 1.0);
        for successes in 0..=7 {
            let interval = wilson_95(successes, 7).expect("trials");
            assert!(interval.low <= interval.share && interval.share <= interval.high);
        }
    }

    #[test]
    fn symmetric_in_success_and_failure() {
        let one = wilson_95(13, 40).expect("trials");
        let other = wilson_95(27, 40).expect("trials");
        assert!((one.low - (1.0 - other.high)).abs() < 1e-12);
    }
}
