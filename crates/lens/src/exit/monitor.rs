//! The fallback: a share of the exits is compared with the whole model, and where they disagree too often leaving becomes
//! harder, or stops.

use serde::Serialize;
use tensor::random::{self, Seeded};

use super::Rule;
use crate::error::{Error, Result};

/// Purpose of the random stream that chooses exits to compare.
const CHECKING: u64 = 46;

/// When to compare, and what is too much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MonitorSettings {
    /// Share of the exits that are compared.
    pub share: f64,
    /// Share of the compared exits that may disagree.
    pub bound: f64,
    /// Comparisons after which disagreement is judged; they are counted anew after each action.
    pub window: usize,
    /// Seed of the choice.
    pub seed: u64,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "action", content = "threshold")]
pub enum Action {
    /// The threshold was raised to this.
    Raised(f64),
    /// There are no more exits.
    Off,
}

/// An action and its reason.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MonitorEvent {
    /// Tokens decided before.
    pub token: usize,
    /// Exits compared since the last action.
    pub compared: usize,
    /// Share of them that disagreed.
    pub disagreement: f64,
    /// What was done.
    #[serde(flatten)]
    pub action: Action,
}

/// Watches exits.
#[derive(Debug)]
pub struct Monitor {
    settings: MonitorSettings,
    rng: Seeded,
    compared: usize,
    disagreed: usize,
    /// Exits compared at all, and those that disagreed.
    pub totals: (usize, usize),
    /// What it did.
    pub events: Vec<MonitorEvent>,
}

impl Monitor {
    /// Nothing compared yet.
    ///
    /// # Errors
    /// When a share is none, or the window is empty.
    pub fn new(settings: MonitorSettings) -> Result<Self> {
        for (name, value) in [("monitor-share", settings.share), ("monitor-bound", settings.bound)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::setting(name, format!("{value}: give a share from 0 to 1")));
            }
        }
        if settings.window == 0 {
            return Err(Error::setting("monitor-window", "0 comparisons: give at least 1"));
        }
        let rng = random::seeded(settings.seed, CHECKING);
        Ok(Self { settings, rng, compared: 0, disagreed: 0, totals: (0, 0), events: Vec::new() })
    }

    /// Whether this exit is to be compared.
    pub fn wants(&mut self) -> bool {
        self.settings.share > 0.0 && f64::from(random::uniform(&mut self.rng)) < self.settings.share
    }

    /// An exit was compared before token `token`; gives the rule from now on.
    pub fn compare(&mut self, rule: Rule, agreed: bool, token: usize) -> Rule {
        self.compared += 1;
        self.disagreed += usize::from(!agreed);
        self.totals = (self.totals.0 + 1, self.totals.1 + usize::from(!agreed));
        let disagreement = self.disagreed as f64 / self.compared as f64;
        if self.compared < self.settings.window || disagreement <= self.settings.bound {
            return rule;
        }
        let next = harder(rule);
        let action = match next {
            Rule::Response(threshold) | Rule::Likeness(threshold) => Action::Raised(threshold),
            _ => Action::Off,
        };
        self.events.push(MonitorEvent { token, compared: self.compared, disagreement, action });
        (self.compared, self.disagreed) = (0, 0);
        next
    }
}

/// The rule with half the way left to certainty; all layers where there is no threshold, or hardly a way left.
fn harder(rule: Rule) -> Rule {
    const CERTAIN: f64 = 0.999;
    let raised = |threshold: f64| 1.0 - (1.0 - threshold) / 2.0;
    match rule {
        Rule::Response(threshold) if raised(threshold) < CERTAIN => Rule::Response(raised(threshold)),
        Rule::Likeness(threshold) if raised(threshold) < CERTAIN => Rule::Likeness(raised(threshold)),
        _ => Rule::Full,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn monitor(bound: f64) -> Monitor {
        Monitor::new(MonitorSettings { share: 1.0, bound, window: 10, seed: 1 }).unwrap()
    }

    #[test]
    fn disagreement_raises_the_threshold_and_at_last_ends_exits() {
        let mut monitor = monitor(0.2);
        let mut rule = Rule::Response(0.5);
        for token in 0..200 {
            assert!(monitor.wants());
            rule = monitor.compare(rule, token % 2 == 0, token);
        }
        assert_eq!(rule, Rule::Full);
        let actions: Vec<Action> = monitor.events.iter().map(|event| event.action).collect();
        assert_eq!(actions[..2], [Action::Raised(0.75), Action::Raised(0.875)]);
        assert!(actions.contains(&Action::Off));
        assert_eq!((monitor.events[0].token, monitor.events[0].disagreement), (9, 0.5));
        assert_eq!(monitor.totals, (200, 100));
    }

    #[test]
    fn agreement_changes_nothing_and_a_probe_can_only_be_switched_off() {
        let mut good = monitor(0.2);
        (0..100).for_each(|token| assert_eq!(good.compare(Rule::Probe, true, token), Rule::Probe));
        assert!(good.events.is_empty());
        let mut bad = monitor(0.0);
        let rule = (0..10).fold(Rule::Probe, |rule, token| bad.compare(rule, token != 3, token));
        assert_eq!(rule, Rule::Full);
        let off = Monitor::new(MonitorSettings { share: 0.0, bound: 0.0, window: 1, seed: 1 });
        assert!(!off.unwrap().wants());
        assert!(Monitor::new(MonitorSettings { share: 2.0, bound: 0.0, window: 1, seed: 1 }).is_err());
    }
}
