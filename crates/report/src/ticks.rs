//! Scales: from a range of values to places on an axis, with ticks at round numbers.

use crate::number;

/// More ticks than this are unreadable on any axis; it also bounds the loop over them.
const TICKS_MAX: usize = 24;

/// A mapping of values to 0..=1 and the ticks to show.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
    /// Value and label of each tick, ascending, all inside the range.
    pub ticks: Vec<(f64, String)>,
}

impl Scale {
    /// A linear scale over exactly `low..=high`. With `whole` ticks stand at whole numbers only (steps, depths).
    pub fn linear(low: f64, high: f64, wanted_ticks: usize, whole: bool) -> Self {
        let (low, high) = widened(low, high);
        let ticks = linear_ticks(low, high, step_for(low, high, wanted_ticks, whole));
        Self { low, high, logarithmic: false, ticks }
    }

    /// A linear scale whose ends are moved outward to round numbers; it begins at zero where the values are not far from
    /// it (`from_zero` demands it), since a cut axis exaggerates differences.
    pub fn rounded(low: f64, high: f64, wanted_ticks: usize, from_zero: bool) -> Self {
        let near_zero = low > 0.0 && low < 0.35 * high;
        let low = if (from_zero && low > 0.0) || near_zero { 0.0 } else { low };
        let high = if from_zero && high < 0.0 { 0.0 } else { high };
        let (low, high) = widened(low, high);
        let step = step_for(low, high, wanted_ticks, false);
        // A hair of slack: 0.30000000000000004 needs no further step.
        let low = (low / step + 1e-9).floor() * step;
        let high = (high / step - 1e-9).ceil() * step;
        Self { low, high, logarithmic: false, ticks: linear_ticks(low, high, step) }
    }

    /// A logarithmic scale over `low..=high`, both above zero; ticks at powers of ten, and at 2 and 5 between them where
    /// there are few.
    pub fn logarithmic(low: f64, high: f64) -> Self {
        let low = low.max(f64::MIN_POSITIVE);
        let high = if high > low { high } else { low * 10.0 };
        let ticks = logarithmic_ticks(low, high);
        Self { low, high, logarithmic: true, ticks }
    }

    /// Where `value` lies: 0 at the low end, 1 at the high end.
    pub fn place(&self, value: f64) -> f64 {
        if self.logarithmic {
            (value.ln() - self.low.ln()) / (self.high.ln() - self.low.ln())
        } else {
            // Halves first: the range of two huge values of opposite sign would overflow.
            (value / 2.0 - self.low / 2.0) / (self.high / 2.0 - self.low / 2.0)
        }
    }

    /// Whether `value` can be shown on this scale.
    pub fn shows(&self, value: f64) -> bool {
        value.is_finite() && (!self.logarithmic || value > 0.0)
    }
}

/// A range that is not empty: equal ends are moved apart by a twentieth of their size.
fn widened(low: f64, high: f64) -> (f64, f64) {
    let size = low.abs().max(high.abs());
    if (high - low) > size * 1e-9 {
        return (low, high);
    }
    let by = if size == 0.0 { 1.0 } else { size * 0.05 };
    (low - by, high + by)
}

/// The round step (1, 2, 2.5 or 5 times a power of ten) that gives about `wanted` ticks.
fn step_for(low: f64, high: f64, wanted: usize, whole: bool) -> f64 {
    let wanted = wanted.max(1) as f64;
    let rough = (high / wanted - low / wanted).max(f64::MIN_POSITIVE);
    let magnitude = 10f64.powf(rough.log10().floor());
    let fraction = rough / magnitude;
    let nice = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|step| fraction <= step + 1e-9).unwrap_or(10.0);
    let step = nice * magnitude;
    // Among whole numbers 2.5 is no step; from 10 upwards 25 and 250 are.
    match whole {
        true if step < 1.0 => 1.0,
        true if step == 2.5 => 5.0,
        _ => step,
    }
}

fn linear_ticks(low: f64, high: f64, step: f64) -> Vec<(f64, String)> {
    let first = (low / step - 1e-9).ceil();
    let values: Vec<f64> = (0..TICKS_MAX)
        .map(|index| (first + index as f64) * step)
        .take_while(|&value| value <= high + step * 1e-9)
        .map(|value| if value.abs() < step * 1e-9 { 0.0 } else { value })
        .collect();
    let largest = values.iter().fold(0f64, |size, value| size.max(value.abs()));
    values.into_iter().map(|value| (value, label(value, step, largest))).collect()
}

/// The label of a tick: as many decimals as the step needs, the same on the whole axis.
fn label(value: f64, step: f64, largest: f64) -> String {
    if largest >= 1e12 || step < 1e-6 {
        return number::number(value);
    }
    let (unit, suffix) = match largest {
        size if size >= 1e9 => (1e9, "B"),
        size if size >= 1e6 => (1e6, "M"),
        _ => (1.0, ""),
    };
    if value == 0.0 {
        return "0".to_string();
    }
    number::fixed(value / unit, decimals(step / unit)) + suffix
}

/// Decimals needed to write `step` exactly (steps are one or two digits times a power of ten).
fn decimals(step: f64) -> usize {
    (0..=9)
        .find(|&places| {
            let scaled = step * 10f64.powi(places);
            (scaled - scaled.round()).abs() < 1e-6 * scaled
        })
        .unwrap_or(9) as usize
}

fn logarithmic_ticks(low: f64, high: f64) -> Vec<(f64, String)> {
    let inside = |value: &f64| *value >= low * (1.0 - 1e-9) && *value <= high * (1.0 + 1e-9);
    let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let powers: Vec<f64> = decades.clone().map(|power| 10f64.powi(power)).filter(inside).collect();
    let values: Vec<f64> = if powers.len() > 3 {
        let every = powers.len().div_ceil(8);
        powers.into_iter().step_by(every).collect()
    } else {
        decades
            .flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power)))
            .filter(inside)
            .collect()
    };
    if values.len() < 2 {
        // Less than a factor of two or so: round numbers of the linear kind say more.
        return linear_ticks(low, high, step_for(low, high, 4, false));
    }
    values.into_iter().map(|value| (value, label(value, value, value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: &Scale) -> Vec<&str> {
        scale.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn round_numbers() {
        assert_eq!(labels(&Scale::rounded(0.0, 0.93, 5, true)), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(&Scale::rounded(0.7, 5.6, 5, false)), ["0", "2", "4", "6"]);
        assert_eq!(labels(&Scale::rounded(1.31, 1.44, 4, false)), ["1.30", "1.35", "1.40", "1.45"]);
        assert_eq!(labels(&Scale::linear(0.0, 3.0, 6, true)), ["0", "1", "2", "3"]);
        assert_eq!(labels(&Scale::linear(1.0, 2000.0, 4, true)), ["500", "1,000", "1,500", "2,000"]);
        assert_eq!(labels(&Scale::linear(0.0, 4e6, 4, false)), ["0", "1M", "2M", "3M", "4M"]);
        assert_eq!(labels(&Scale::rounded(-0.2, 0.2, 4, false)), ["−0.2", "−0.1", "0", "0.1", "0.2"]);
    }

    #[test]
    fn powers_of_ten() {
        assert_eq!(labels(&Scale::logarithmic(1.0, 10_000.0)), ["1", "10", "100", "1,000", "10,000"]);
        assert_eq!(labels(&Scale::logarithmic(3.0, 120.0)), ["5", "10", "20", "50", "100"]);
        assert!(Scale::logarithmic(3.0, 3.9).ticks.len() >= 2);
        assert!(Scale::logarithmic(1e-30, 1e30).ticks.len() <= 9);
        let scale = Scale::logarithmic(1.0, 100.0);
        assert!((scale.place(10.0) - 0.5).abs() < 1e-12);
        assert!(!scale.shows(0.0) && !scale.shows(f64::NAN) && scale.shows(0.5));
    }

    #[test]
    fn hostile_ranges_end_and_stay_finite() {
        for (low, high) in [
            (0.0, 0.0),
            (5.0, 5.0),
            (1e16, 1e16 + 2.0),
            (-1e308, 1e308),
            (1e-300, 2e-300),
            (-3.0, -3.0),
            (1e300, 1.7e308),
        ] {
            for scale in [Scale::rounded(low, high, 5, false), Scale::linear(low, high, 5, true)] {
                assert!(scale.ticks.len() <= TICKS_MAX);
                for value in [low, high] {
                    let place = scale.place(value);
                    assert!((-1e-9..=1.0 + 1e-9).contains(&place), "{value} in {low}..{high} at {place}");
                }
            }
        }
    }

    #[test]
    fn ticks_lie_inside_the_range() {
        for (low, high) in [(0.13, 9.7), (-4.2, 3.3), (17.0, 1234.0)] {
            for scale in [Scale::rounded(low, high, 5, false), Scale::linear(low, high, 5, false)] {
                assert!(scale.ticks.len() >= 3);
                assert!(
                    scale.ticks.iter().all(|(value, _)| (-1e-6..=1.000_001).contains(&scale.place(*value)))
                );
            }
        }
    }
}
