//! Leaving early, judged on states of the whole model ("static", as in the paper), with honest costs.
//!
//! A row leaves after the first layer at which its rule says so and takes what the lens reads there; the number of layers used
//! counts from 1. Rules: the probe (the model works on a later choice already), softmax response (probability of the first less
//! that of the second choice, Schuster et al. 2207.07061), state saturation (cosine between this layer's state and the last one's),
//! and the oracle, which leaves at saturation. Static means that keys and values of the layers left out exist all the same.

pub mod drafter;
pub mod live;
pub mod monitor;
pub mod quality;

use serde::Serialize;

use crate::look::Seen;
use crate::probe::Probe;
use crate::saturation::Decision;

/// Thresholds of softmax response, as in the paper.
pub const RESPONSE: [f64; 8] = [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.92, 0.94];

/// Thresholds of state saturation, as in the paper, and lower ones for shallow models, whose layers change more.
pub const LIKENESS: [f64; 10] = [0.8, 0.9, 0.95, 0.97, 0.986, 0.988, 0.99, 0.992, 0.994, 0.995];

/// When to leave.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "rule", content = "threshold")]
pub enum Rule {
    /// After the last layer.
    Full,
    /// At saturation of the first choice, which nobody can know before the end.
    Oracle,
    /// Where the probe says that the first choice is settled.
    Probe,
    /// Where the first choice leads by this probability.
    Response(f64),
    /// Where the state hardly changes any more.
    Likeness(f64),
}

/// All rules, those of the probe only if there is one.
pub fn rules(probe: bool) -> Vec<Rule> {
    let fixed = [Rule::Full, Rule::Oracle].into_iter().chain(probe.then_some(Rule::Probe));
    fixed.chain(RESPONSE.map(Rule::Response)).chain(LIKENESS.map(Rule::Likeness)).collect()
}

/// What a rule gives.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Which rule.
    #[serde(flatten)]
    pub rule: Rule,
    /// Rows.
    pub rows: usize,
    /// Layers used, on average, from 1.
    pub mean_layers: f64,
    /// Layers of all rows over layers used: the paper's measure, which knows no other cost.
    pub layer_speedup: f64,
    /// The same in multiply-adds, with the read-outs and probes that it took to decide and the final read-out of every row.
    pub work_speedup: f64,
    /// Share that gives what the whole model gives.
    pub agreement: f64,
    /// Rows whose truth is known, and share of them that is right.
    pub known: usize,
    /// See `known`.
    pub accuracy: Option<f64>,
}

/// Work of the parts of a model, in multiply-adds.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// One block, one row.
    pub block: usize,
    /// One read-out.
    pub read_out: usize,
    /// One opinion of the probe.
    pub probe: usize,
    /// One likeness of states.
    pub likeness: usize,
}

/// Sums of one rule.
#[derive(Clone, Copy, Default)]
struct Sums {
    rows: usize,
    layers: usize,
    work: f64,
    agreed: usize,
    known: usize,
    right: usize,
}

/// Rules at work.
pub struct Exits<'p> {
    probe: Option<&'p Probe>,
    rules: Vec<Rule>,
    sums: Vec<Sums>,
    work: Work,
    layers: usize,
}

impl<'p> Exits<'p> {
    /// For a model of `layers` blocks.
    pub fn new(layers: usize, work: Work, probe: Option<&'p Probe>) -> Self {
        let rules = rules(probe.is_some());
        Self { probe, sums: vec![Sums::default(); rules.len()], rules, work, layers }
    }

    /// Takes a chunk in, whose decisions these are; the probe needs its states.
    pub fn add(&mut self, seen: &Seen, decisions: &[Decision]) {
        for (row, decision) in decisions.iter().enumerate() {
            let top = seen.top_of(row);
            for (rule, sums) in self.rules.iter().zip(&mut self.sums) {
                let left = leave(*rule, seen, row, decision, self.probe);
                let token = top[left * seen.choices];
                sums.rows += 1;
                sums.layers += left + 1;
                sums.work +=
                    self.work.of(*rule, left, self.layers, self.probe.map_or(0, |probe| probe.first));
                sums.agreed += usize::from(token == decision.tokens[0]);
                if let Some(target) = decision.target {
                    sums.known += 1;
                    sums.right += usize::from(token == target);
                }
            }
        }
    }

    /// What was found.
    pub fn evaluations(&self) -> Vec<Evaluation> {
        let whole = self.work.of(Rule::Full, self.layers - 1, self.layers, 0);
        let evaluation = |(rule, sums): (&Rule, &Sums)| {
            let rows = sums.rows.max(1) as f64;
            Evaluation {
                rule: *rule,
                rows: sums.rows,
                mean_layers: sums.layers as f64 / rows,
                layer_speedup: self.layers as f64 * rows / sums.layers.max(1) as f64,
                work_speedup: whole * rows / sums.work.max(1.0),
                agreement: sums.agreed as f64 / rows,
                known: sums.known,
                accuracy: (sums.known > 0).then(|| sums.right as f64 / sums.known as f64),
            }
        };
        self.rules.iter().zip(&self.sums).map(evaluation).collect()
    }
}

/// The layer after which a row leaves.
fn leave(rule: Rule, seen: &Seen, row: usize, decision: &Decision, probe: Option<&Probe>) -> usize {
    let layers = seen.layers;
    let first =
        |leaves: &dyn Fn(usize) -> bool| (0..layers).find(|layer| leaves(*layer)).unwrap_or(layers - 1);
    match (rule, probe) {
        (Rule::Oracle, _) => usize::from(decision.layers[0]),
        (Rule::Probe, Some(probe)) => first(&|layer| probe.settled(layer, seen.state(layer, row))),
        (Rule::Full | Rule::Probe, _) => layers - 1,
        (Rule::Response(threshold), _) => {
            first(&|layer| f64::from(seen.lead[row * layers + layer]) >= threshold)
        }
        (Rule::Likeness(threshold), _) => {
            first(&|layer| layer > 0 && f64::from(seen.likeness[row * layers + layer]) >= threshold)
        }
    }
}

impl Work {
    /// Of a row that leaves after layer `left`: blocks, one read-out of the answer, and what it took to decide. At the last layer
    /// nothing is decided.
    fn of(&self, rule: Rule, left: usize, layers: usize, first: usize) -> f64 {
        let asked = (left + 1).min(layers - 1);
        let deciding = match rule {
            Rule::Full | Rule::Oracle => 0,
            Rule::Probe => asked.saturating_sub(first) * self.probe,
            // The read-out that decides to leave is the answer's.
            Rule::Response(_) => (if left + 1 < layers { asked - 1 } else { asked }) * self.read_out,
            Rule::Likeness(_) => asked.saturating_sub(1) * self.likeness,
        };
        ((left + 1) * self.block + self.read_out + deciding) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::look::{MOST_CHOICES, Place};

    /// Two rows of four layers, one choice: the first settles in layer 1, the second in the last.
    fn seen() -> (Seen, Vec<Decision>) {
        let place = |row| Place { group: 0, item: 0, row, target: Some(7) };
        let seen = Seen {
            layers: 4,
            choices: 1,
            width: 1,
            places: vec![place(0), place(1)],
            top: vec![3, 7, 7, 7, 3, 3, 7, 8],
            lead: vec![0.1, 0.45, 0.85, 0.9, 0.1, 0.2, 0.95, 0.99],
            likeness: vec![0.0, 0.5, 0.96, 0.999, 0.0, 0.5, 0.6, 0.7],
            states: Vec::new(),
        };
        let decision = |first, token, row| {
            let (mut layers, mut tokens) = ([0; MOST_CHOICES], [0; MOST_CHOICES]);
            (layers[0], tokens[0]) = (first, token);
            Decision { group: 0, item: 0, row, target: Some(7), layers, tokens }
        };
        (seen, vec![decision(1, 7, 0), decision(3, 8, 1)])
    }

    #[test]
    fn rules_leave_where_they_say_and_costs_are_counted() {
        let (seen, decisions) = seen();
        let work = Work { block: 10, read_out: 5, probe: 1, likeness: 1 };
        let mut exits = Exits::new(4, work, None);
        exits.add(&seen, &decisions);
        let found = exits.evaluations();
        let of = |rule: Rule| found.iter().find(|evaluation| evaluation.rule == rule).unwrap();
        let full = of(Rule::Full);
        assert_eq!(
            (full.mean_layers, full.layer_speedup, full.work_speedup, full.agreement),
            (4.0, 1.0, 1.0, 1.0)
        );
        assert_eq!(full.accuracy, Some(0.5));
        let oracle = of(Rule::Oracle);
        assert_eq!((oracle.mean_layers, oracle.agreement), (3.0, 1.0));
        assert_eq!(oracle.work_speedup, 90.0 / (25.0 + 45.0));
        // Leaves after layers 1 and 2; the second then says 7, which is right although the model says 8.
        let response = of(Rule::Response(0.4));
        assert_eq!((response.mean_layers, response.agreement, response.accuracy), (2.5, 0.5, Some(1.0)));
        // Row 1: two blocks, a read-out that did not decide, the answer; row 2: three blocks and two.
        assert_eq!(response.work_speedup, 90.0 / (30.0 + 45.0));
        let likeness = of(Rule::Likeness(0.95));
        assert_eq!(likeness.mean_layers, 3.5);
        assert_eq!(likeness.work_speedup, 90.0 / ((30.0 + 5.0 + 2.0) + (40.0 + 5.0 + 2.0)));
    }
}
