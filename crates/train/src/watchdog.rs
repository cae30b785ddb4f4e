//! Notices a loss that explodes.
//!
//! For each depth the loss of the steps is smoothed: each step moves it a tenth of the way, or less where it has few targets, whose
//! mean says little (registers behind few tokens, answers of a token or two). It explodes when the smoothed
//! loss has reached `watch.loss_factor` times its lowest so far, and lies at least [`LEAST_RISE`] above it: the factor alone
//! would stop models whose loss is nearly 0, the rise alone those whose loss is large from the start. Depths that a
//! curriculum adds are watched from their first step on. It is part of what a run goes on with, so that a resumed run stops
//! where an uninterrupted one does.

use serde::{Deserialize, Serialize};

/// Share of the way that one step moves the smoothed loss.
const STEP_SHARE: f64 = 0.1;

/// Targets of a step that moves it so far; one with fewer moves it by as much less.
const MANY_TARGETS: usize = 16;

/// Targets whose mean is the first that can count as a low to rise from.
const ENOUGH_TARGETS: usize = 100;

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
    /// Targets so far; enough of them where a run goes on that began before they were counted.
    #[serde(default = "counted_before")]
    targets: usize,
}

fn counted_before() -> usize {
    1 << 32
}

impl Trend {
    const NEW: Self = Self { smoothed: 0.0, lowest: f64::MAX, targets: 0 };

    /// Takes in the mean loss of some targets. The first steps are smoothed to the mean of all targets.
    fn take(&mut self, loss: f64, targets: usize) {
        self.targets = self.targets.saturating_add(targets);
        let weight = targets.min(MANY_TARGETS) as f64 / MANY_TARGETS as f64;
        let share = (STEP_SHARE * weight).max(targets as f64 / self.targets as f64);
        self.smoothed += share * (loss - self.smoothed);
        if self.targets >= ENOUGH_TARGETS {
            self.lowest = self.lowest.min(self.smoothed);
        }
    }
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
    /// Takes in the losses of a step, each the mean over `targets`; tells the first depth whose loss explodes. A `factor` of 0 turns it
    /// off.
    pub(crate) fn watch(&mut self, losses: &[f64], targets: &[usize], factor: f64) -> Option<Explosion> {
        self.depths.resize(self.depths.len().max(losses.len()), Trend::NEW);
        for (trend, (&loss, &targets)) in self.depths.iter_mut().zip(losses.iter().zip(targets)) {
            // A step without a target at this depth says nothing.
            if targets > 0 {
                trend.take(loss, targets);
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
            // A loss of 0 is that of no target.
            let targets: Vec<usize> =
                losses.iter().map(|&loss| if loss == 0.0 { 0 } else { ENOUGH_TARGETS }).collect();
            let explosion = watchdog.watch(&losses, &targets, factor)?;
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
        for (losses, targets) in [([3.0, 0.0], 0), ([3.0, 4.0], 500), ([3.0, 0.0], 0), ([3.0, 4.1], 500)] {
            assert_eq!(watchdog.watch(&losses, &[500, targets], 2.0), None);
        }
        let explodes = |explosion: Explosion| explosion.depth == 2;
        assert!((0..20).any(|_| watchdog.watch(&[3.0, 20.0], &[500, 500], 2.0).is_some_and(explodes)));
    }

    /// Losses of single targets are noise: here each is 0.1 or 5, as a model says that is sure of one in two tokens.
    #[test]
    fn the_noise_of_few_targets_does_not_stop_a_run_and_a_rise_among_them_does() {
        let mut random = tensor::random::seeded(1, 1);
        let mut watchdog = Watchdog::default();
        let mut stopped = |of_hard: f64, steps: usize| {
            (0..steps).any(|_| {
                let loss = if tensor::random::uniform(&mut random) < 0.5 { 0.1 } else { of_hard };
                watchdog.watch(&[loss], &[1], 2.0).is_some()
            })
        };
        assert!(!stopped(5.0, 20_000));
        assert!(stopped(30.0, 2_000));
    }

    /// What a run wrote before there was a count of targets.
    #[test]
    fn an_older_state_is_read() {
        let old: Watchdog = serde_json::from_str(r#"[{"smoothed":3.0,"lowest":2.5}]"#).unwrap();
        assert_eq!(old.depths, [Trend { smoothed: 3.0, lowest: 2.5, targets: 1 << 32 }]);
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
