//! Notices a loss that explodes.
//!
//! For each depth the loss of the steps is smoothed: each step moves it a tenth of the way. It explodes when the smoothed
//! loss has reached `watch.loss_factor` times its lowest so far, and lies at least [`LEAST_RISE`] above it: the factor alone
//! would stop models whose loss is nearly 0, the rise alone those whose loss is large from the start. Depths that a
//! curriculum adds are watched from their first step on. It is part of what a run goes on with, so that a resumed run stops
//! where an uninterrupted one does.

use serde::{Deserialize, Serialize};

/// Share of the way that one step moves the smoothed loss.
const STEP_SHARE: f64 = 0.1;

/// Nats.
const LEAST_RISE: f64 = 1.0;

/// The smoothed losses so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Watchdog {
    depths: Vec<Trend>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Trend {
    smoothed: f64,
    lowest: f64,
}

/// A loss that rose too far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Explosion {
    /// 1 is the next token.
    pub(crate) depth: usize,
    /// The smoothed loss.
    pub(crate) loss: f64,
    /// The lowest that it ever was.
    pub(crate) lowest: f64,
}

impl Watchdog {
    /// Takes in the losses of a step; tells the first depth whose loss explodes. A `factor` of 0 turns it off.
    pub(crate) fn watch(&mut self, losses: &[f64], factor: f64) -> Option<Explosion> {
        for (index, &loss) in losses.iter().enumerate() {
            match self.depths.get_mut(index) {
                None => self.depths.push(Trend { smoothed: loss, lowest: loss }),
                // A step without a target at this depth says nothing.
                Some(_) if loss == 0.0 => {}
                // Nor do those before the first that had one.
                Some(trend) if trend.smoothed == 0.0 => *trend = Trend { smoothed: loss, lowest: loss },
                Some(trend) => {
                    trend.smoothed += STEP_SHARE * (loss - trend.smoothed);
                    trend.lowest = trend.lowest.min(trend.smoothed);
                }
            }
        }
        let (depth, trend) = self.beyond(factor, LEAST_RISE)?;
        Some(Explosion { depth, loss: trend.smoothed, lowest: trend.lowest })
    }

    /// Whether a loss is half-way to an explosion, so that a checkpoint of now might not be worth going on from.
    pub(crate) fn suspicious(&self, factor: f64) -> bool {
        self.beyond(factor.sqrt(), LEAST_RISE / 2.0).is_some()
    }

    fn beyond(&self, factor: f64, rise: f64) -> Option<(usize, Trend)> {
        let exploded =
            |trend: &Trend| trend.smoothed >= factor * trend.lowest && trend.smoothed >= trend.lowest + rise;
        let index = self.depths.iter().position(exploded).filter(|_| factor > 0.0)?;
        Some((index + 1, self.depths[index]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The step, counted from 1, and depth at which the watchdog barks.
    fn barks(losses: impl IntoIterator<Item = Vec<f64>>, factor: f64) -> Option<(usize, usize)> {
        let mut watchdog = Watchdog::default();
        losses.into_iter().zip(1..).find_map(|(losses, step)| {
            let explosion = watchdog.watch(&losses, factor)?;
            assert!(watchdog.suspicious(factor), "suspicion comes first");
            Some((step, explosion.depth))
        })
    }

    fn then(count: usize, from: f64, to: f64) -> Vec<Vec<f64>> {
        [vec![vec![from]; count], vec![vec![to]; 100]].concat()
    }

    #[test]
    fn a_loss_that_appears_later_is_watched_from_then_on() {
        let mut watchdog = Watchdog::default();
        for losses in [[3.0, 0.0], [3.0, 4.0], [3.0, 0.0], [3.0, 4.1]] {
            assert_eq!(watchdog.watch(&losses, 2.0), None);
        }
        assert!(
            (0..20).any(|_| watchdog.watch(&[3.0, 20.0], 2.0).is_some_and(|explosion| explosion.depth == 2))
        );
    }

    #[test]
    fn a_loss_that_stays_high_explodes_within_few_steps_and_one_that_leaps_at_once() {
        // Smoothed: 3 + 6 (1 - 0.9^k) reaches 6 at k = 7.
        assert_eq!(barks(then(50, 3.0, 9.0), 2.0), Some((57, 1)));
        assert_eq!(barks(then(50, 3.0, 1e6), 2.0), Some((51, 1)));
        assert_eq!(barks(then(50, 3.0, 9.0), 0.0), None, "turned off");
        assert_eq!(barks(then(50, 3.0, 5.9), 2.0), None, "not far enough");
    }

    #[test]
    fn single_spikes_and_small_losses_do_not_stop_a_run() {
        let spikes = (0..300).map(|step| vec![if step % 60 == 59 { 12.0 } else { 2.0 }]);
        assert_eq!(barks(spikes, 2.0), None);
        assert_eq!(barks(then(50, 0.01, 0.5), 2.0), None);
        assert_eq!(barks((0..300).map(|step| vec![f64::from(300 - step)]), 2.0), None);
    }

    #[test]
    fn depths_are_watched_from_their_first_step() {
        let late = |loss: f64| {
            (0..100).map(
                move |step| if step < 50 { vec![1.0] } else { vec![1.0, if step < 80 { 5.5 } else { loss }] },
            )
        };
        assert_eq!(barks(late(5.0), 2.0), None);
        assert_eq!(barks(late(1e3), 2.0), Some((81, 2)));
        let without_targets = (0..100).map(|step| vec![3.0, if step % 2 == 0 { 4.0 } else { 0.0 }]);
        assert_eq!(barks(without_targets, 2.0), None);
    }
}
