//! The learning rate at each step: a linear warm-up, then what [`Schedule`] says.

use crate::config::{Schedule, TrainSection};

/// The learning rate of `step`, counted from 1; `train.steps` is the last.
///
/// The warm-up reaches the highest rate at step `warmup_steps`; the last step has the final rate (2404.19737, table S13:
/// warm-up, then a cosine to a share of the highest rate).
pub fn learning_rate(train: &TrainSection, step: usize) -> f64 {
    let highest = train.learning_rate;
    if step <= train.warmup_steps {
        return highest * step as f64 / train.warmup_steps as f64;
    }
    // From 0, at the end of the warm-up, to 1 at the last step.
    let progress = share(step, train.warmup_steps, train.steps);
    let remaining = match train.schedule {
        Schedule::Constant => 1.0,
        Schedule::Linear => 1.0 - progress,
        Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        Schedule::Wsd => {
            let decaying = (train.steps as f64 * train.decay_fraction).round() as usize;
            let stable = train.steps.saturating_sub(decaying).max(train.warmup_steps);
            1.0 - share(step.max(stable), stable, train.steps)
        }
    };
    highest * (train.final_ratio + (1.0 - train.final_ratio) * remaining)
}

/// How far `step` is between `from` and `to`, at most 1.
fn share(step: usize, from: usize, to: usize) -> f64 {
    ((step - from) as f64 / to.saturating_sub(from).max(1) as f64).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn train(schedule: Schedule) -> TrainSection {
        TrainSection {
            steps: 14,
            learning_rate: 1.0,
            warmup_steps: 4,
            final_ratio: 0.2,
            decay_fraction: 5.0 / 14.0,
            schedule,
            ..TrainSection::default()
        }
    }

    fn rates(train: &TrainSection, steps: &[usize]) -> Vec<f64> {
        steps.iter().map(|&step| (learning_rate(train, step) * 1e6).round() / 1e6).collect()
    }

    #[test]
    fn the_warm_up_is_linear_and_ends_at_the_highest_rate() {
        for schedule in [Schedule::Cosine, Schedule::Linear, Schedule::Constant, Schedule::Wsd] {
            assert_eq!(rates(&train(schedule), &[1, 2, 3, 4]), [0.25, 0.5, 0.75, 1.0]);
        }
    }

    #[test]
    fn cosine_is_half_way_in_the_middle() {
        // Quarter of the way: 0.2 + 0.8 (1 + cos 45 degrees) / 2 = 0.882843 between steps 6 and 7.
        assert_eq!(rates(&train(Schedule::Cosine), &[9, 14]), [0.6, 0.2]);
        let quarter = TrainSection { steps: 12, warmup_steps: 4, ..train(Schedule::Cosine) };
        assert_eq!(rates(&quarter, &[6]), [0.882843]);
    }

    #[test]
    fn linear_falls_by_equal_amounts() {
        assert_eq!(rates(&train(Schedule::Linear), &[5, 6, 13, 14]), [0.92, 0.84, 0.28, 0.2]);
    }

    #[test]
    fn constant_stays() {
        assert_eq!(rates(&train(Schedule::Constant), &[5, 14]), [1.0, 1.0]);
    }

    #[test]
    fn wsd_is_stable_and_then_decays() {
        // Five steps of decay, 10 to 14, each by 0.16.
        assert_eq!(rates(&train(Schedule::Wsd), &[5, 9, 10, 12, 14]), [1.0, 1.0, 0.84, 0.52, 0.2]);
        let whole = TrainSection { decay_fraction: 1.0, ..train(Schedule::Wsd) };
        assert_eq!(
            rates(&whole, &[9, 14]),
            [0.6, 0.2],
            "a decay longer than the rest begins after the warm-up"
        );
    }

    #[test]
    fn odd_lengths_stay_finite() {
        let no_warmup = TrainSection { warmup_steps: 0, steps: 1, ..train(Schedule::Cosine) };
        assert_eq!(rates(&no_warmup, &[1]), [0.2]);
        let only_warmup = TrainSection { warmup_steps: 20, ..train(Schedule::Linear) };
        assert_eq!(rates(&only_warmup, &[14]), [0.7]);
        assert_eq!(rates(&train(Schedule::Wsd), &[100]), [0.2], "beyond the end");
    }
}
