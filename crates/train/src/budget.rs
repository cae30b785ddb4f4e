//! How long a run trains: a number of steps, or seconds of training.

use crate::config::TrainSection;
use crate::events::{Event, Record};

/// What is used up of a run's length.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Used {
    /// Steps done.
    pub(crate) steps: usize,
    /// Seconds that these steps took, before and after every resumption; evaluation and saving are left out.
    pub(crate) seconds: f64,
}

impl Used {
    /// By the first `steps` steps that `records` tell of.
    pub(crate) fn by(records: &[Record], steps: usize, tokens_per_step: usize) -> Self {
        let seconds = records.iter().filter_map(|record| match &record.event {
            Event::Step(step) if step.step <= steps && step.tokens_per_s > 0.0 => {
                Some(tokens_per_step as f64 / step.tokens_per_s)
            }
            _ => None,
        });
        Self { steps, seconds: seconds.sum() }
    }

    /// Whether nothing is left of the run.
    pub(crate) fn all_of(&self, train: &TrainSection) -> bool {
        match train.seconds {
            Some(seconds) => self.seconds >= seconds,
            None => self.steps >= train.steps,
        }
    }

    /// Steps of the whole run: as planned, or, where seconds bound it, as many as they give at the mean pace so far.
    ///
    /// The schedule of the learning rate follows this number, and with it the share of the seconds that is used.
    pub(crate) fn planned_steps(&self, train: &TrainSection) -> usize {
        match train.seconds {
            None => train.steps,
            // Before the first step any number is as good: a rate at the beginning of a long run.
            Some(_) if self.steps == 0 || self.seconds <= 0.0 => usize::MAX,
            // A conversion from a float saturates.
            Some(seconds) => {
                ((self.steps as f64 * seconds / self.seconds).ceil() as usize).max(self.steps + 1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Schedule;
    use crate::events::StepEvent;
    use crate::schedule::learning_rate;

    #[test]
    fn the_rate_decays_to_its_end_as_the_seconds_are_used() {
        let train = TrainSection {
            steps: 0,
            seconds: Some(10.0),
            learning_rate: 1.0,
            warmup_steps: 4,
            final_ratio: 0.1,
            schedule: Schedule::Linear,
            ..TrainSection::default()
        };
        // Half a second a step: 20 steps.
        let rates: Vec<f64> = (0..20)
            .map(|steps| {
                let used = Used { steps, seconds: steps as f64 * 0.5 };
                assert!(!used.all_of(&train));
                let planned = TrainSection { steps: used.planned_steps(&train), ..train.clone() };
                learning_rate(&planned, steps + 1)
            })
            .collect();
        let linear = TrainSection { steps: 20, seconds: None, ..train.clone() };
        let expected: Vec<f64> = (1..=20).map(|step| learning_rate(&linear, step)).collect();
        assert_eq!(rates, expected);
        assert!(Used { steps: 20, seconds: 10.0 }.all_of(&train));
    }

    #[test]
    fn a_slow_last_step_does_not_push_the_rate_below_its_end() {
        let train = TrainSection { steps: 0, seconds: Some(1.0), ..TrainSection::default() };
        assert_eq!(Used { steps: 7, seconds: 0.999 }.planned_steps(&train), 8);
        assert_eq!(Used::default().planned_steps(&train), usize::MAX);
    }

    #[test]
    fn seconds_used_are_those_of_the_steps_that_count() {
        let step = |step, tokens_per_s| Record {
            schema: 1,
            time: String::new(),
            event: Event::Step(StepEvent { step, tokens_per_s, ..StepEvent::default() }),
        };
        let records = [step(1, 50.0), step(2, 25.0), step(3, 10.0)];
        assert_eq!(Used::by(&records, 2, 100), Used { steps: 2, seconds: 6.0 });
    }
}
