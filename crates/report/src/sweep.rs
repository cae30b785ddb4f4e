//! The page of a sweep: one table of all variants, and charts of those that differ in the last axis only.

mod charts;

use serde::{Deserialize, Serialize};

use crate::number::{MISSING, count, counted, fixed, number, percent, times};
use crate::page::{Block, Fact, Page, Section, Tone};
use crate::table::{Cell, Table};

/// The numbers of a sweep, as they are embedded in its page.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SweepFigures {
    /// Heading of the page.
    pub title: String,
    /// What the sweep asks; may be empty.
    pub about: String,
    /// The command that makes these numbers again.
    pub command: String,
    /// Version of the program.
    pub version: String,
    /// The machine, and the threads that were used, in one line; may be empty.
    pub machine: String,
    /// The variants, in the order of the grid.
    pub variants: Vec<VariantFigures>,
    /// Runs that failed: name and reason.
    pub failures: Vec<(String, String)>,
}

/// One variant over its seeds. Lists per depth begin with the next token, lists per draft length with one drafted token. At a
/// depth where no run predicted anything held out there is no number: registers far ahead find no target in short answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VariantFigures {
    /// The choice on each axis.
    pub choices: Vec<(String, String)>,
    /// Runs that are averaged.
    pub seeds: usize,
    /// Parameters of the model, with its heads.
    pub parameters: Estimate,
    /// Updates.
    pub steps: Estimate,
    /// Inputs seen.
    pub tokens: Estimate,
    /// Seconds of training.
    pub training_seconds: Estimate,
    /// Inputs per second of training.
    pub tokens_per_second: Estimate,
    /// Largest memory of training in bytes, where it was measured.
    pub peak_memory_bytes: Option<Estimate>,
    /// How many tokens ahead each depth lies; empty: 1, 2, 3 and so on.
    pub tokens_ahead: Vec<usize>,
    /// Held-out loss in nats per token, per depth.
    pub loss: Vec<Option<Estimate>>,
    /// Held-out loss in bits per byte of text, per depth.
    pub bits_per_byte: Vec<Option<Estimate>>,
    /// Share of held-out tokens predicted right, per depth.
    pub accuracy: Vec<Option<Estimate>>,
    /// Share of held-out prompts that are answered right as a whole, where there are prompts and answers.
    pub answers: Option<Estimate>,
    /// Speed of plain decoding, where it was measured.
    pub plain_tokens_per_second: Option<Estimate>,
    /// Committed tokens over forwards, per draft length.
    pub tokens_per_forward: Vec<Estimate>,
    /// Times the speed of plain decoding, per draft length.
    pub speedup: Vec<Estimate>,
    /// Accepted over drafted at each place of the longest draft, in rounds that reached it.
    pub acceptance: Vec<Estimate>,
    /// Whether every text was that of plain decoding; `None` where nothing was drafted.
    pub identical: Option<bool>,
}

/// A mean over seeds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// The standard deviation of single runs (divided by the number of seeds less one); `None` for a single seed.
    pub deviation: Option<f64>,
}

impl Estimate {
    /// Of at least one value; `None` of none.
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let size = values.len() as f64;
        let mean = values.iter().sum::<f64>() / size;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (values.len() > 1).then(|| (squares / (size - 1.0)).sqrt());
        Some(Self { mean, deviation })
    }

    /// `1.234 ± 0.005`, each part as `show` writes it.
    pub fn shown(&self, show: impl Fn(f64) -> String) -> String {
        match self.deviation {
            Some(deviation) => format!("{} ± {}", show(self.mean), show(deviation)),
            None => show(self.mean),
        }
    }

    fn ends(&self) -> (f64, f64) {
        let deviation = self.deviation.unwrap_or(0.0);
        (self.mean - deviation, self.mean + deviation)
    }
}

impl VariantFigures {
    /// The choices in words.
    pub fn name(&self) -> String {
        match self.choices.is_empty() {
            true => "all".into(),
            false => self
                .choices
                .iter()
                .map(|(axis, choice)| format!("{axis}={choice}"))
                .collect::<Vec<_>>()
                .join(" "),
        }
    }

    /// The draft length with the most tokens per forward, and how many; the shortest of those that give as many.
    pub fn most_tokens_per_forward(&self) -> Option<(usize, Estimate)> {
        highest(&self.tokens_per_forward)
    }

    /// The fastest draft length, and how many times as fast as plain decoding it is.
    pub fn best_speedup(&self) -> Option<(usize, Estimate)> {
        highest(&self.speedup)
    }

    /// How many tokens ahead the depth of this index lies.
    fn ahead(&self, index: usize) -> usize {
        self.tokens_ahead.get(index).copied().unwrap_or(index + 1)
    }

    /// All choices but the last: what a chart is of.
    fn group(&self) -> String {
        let shown = self.choices.len().saturating_sub(1);
        self.choices[..shown]
            .iter()
            .map(|(axis, choice)| format!("{axis} {choice}"))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// The last choice: what a line is called.
    fn line(&self) -> String {
        self.choices.last().map_or_else(|| "all".into(), |(axis, choice)| format!("{axis} {choice}"))
    }
}

fn highest(estimates: &[Estimate]) -> Option<(usize, Estimate)> {
    let numbered = estimates.iter().enumerate().map(|(index, estimate)| (index + 1, *estimate));
    numbered.fold(None, |best, next| match best {
        Some((_, estimate)) if estimate.mean >= next.1.mean => best,
        _ => Some(next),
    })
}

impl SweepFigures {
    /// The page that shows these numbers.
    pub fn page(&self) -> Page {
        let mut sections = vec![Section {
            heading: "All variants".into(),
            blocks: vec![
                Block::Text(
                    "Mean over seeds, ± one standard deviation of single runs. Loss is on held-out text, decoding is of \
                     held-out prompts. Tokens per forward is that of the best draft length, which stands behind it; so \
                     is the speed, measured in turn with plain decoding."
                        .into(),
                ),
                Block::Table(self.table()),
            ],
        }];
        sections.extend(self.groups().into_iter().map(|(group, variants)| Section {
            heading: if group.is_empty() { "Charts".into() } else { group },
            blocks: vec![Block::Charts(charts::charts(&variants)), Block::Table(depths_table(&variants))],
        }));
        if !self.failures.is_empty() {
            sections.push(Section {
                heading: "Runs that failed".into(),
                blocks: vec![Block::Table(Table {
                    caption: String::new(),
                    columns: vec!["run".into(), "reason".into()],
                    rows: self
                        .failures
                        .iter()
                        .map(|(run, reason)| vec![run.clone().into(), reason.clone().into()])
                        .collect(),
                })],
            });
        }
        Page {
            title: self.title.clone(),
            lead: self.about.clone(),
            summary: self.facts(),
            sections,
            data: serde_json::to_value(self).expect("figures are plain data"),
            footer: self.footer(),
        }
    }

    fn footer(&self) -> String {
        let made = format!("`{}`, version {}", self.command, self.version);
        if self.machine.is_empty() { made } else { format!("{made}; {}", self.machine) }
    }

    fn facts(&self) -> Vec<Fact> {
        let runs: usize = self.variants.iter().map(|variant| variant.seeds).sum();
        let mut facts = vec![Fact {
            label: "Runs".into(),
            value: counted(runs as u64, "run"),
            note: counted(self.variants.len() as u64, "variant"),
            ..Fact::default()
        }];
        let compared: Vec<bool> = self.variants.iter().filter_map(|variant| variant.identical).collect();
        if !compared.is_empty() {
            let same = compared.iter().all(|&same| same);
            facts.push(Fact {
                label: "Text with drafts".into(),
                value: if same { "identical" } else { "differs" }.into(),
                note: "to plain decoding, every draft length".into(),
                tone: if same { Tone::Good } else { Tone::Bad },
            });
        }
        if !self.failures.is_empty() {
            facts.push(Fact {
                label: "Failed".into(),
                value: counted(self.failures.len() as u64, "run"),
                note: "listed at the end".into(),
                tone: Tone::Bad,
            });
        }
        facts
    }

    fn table(&self) -> Table {
        let columns = [
            "variant",
            "seeds",
            "parameters",
            "tokens",
            "training s",
            "tokens/s",
            "nats per token",
            "bits per byte",
            "accuracy",
            "whole answers",
            "tokens per forward",
            "against plain",
            "text",
            "peak memory, MB",
        ];
        let number_cell = |estimate: &Estimate| Cell::Number(estimate.shown(number));
        let row = |variant: &VariantFigures| {
            let thousandths = |estimate: Option<Estimate>| {
                estimate
                    .map_or(Cell::Missing, |estimate| Cell::Number(estimate.shown(|value| fixed(value, 3))))
            };
            let first = |list: &[Option<Estimate>]| thousandths(list.first().copied().flatten());
            let best = |best: Option<(usize, Estimate)>, show: &dyn Fn(f64) -> String| {
                best.map_or(Cell::Missing, |(length, best)| {
                    Cell::Number(format!("{} ({length})", best.shown(show)))
                })
            };
            vec![
                Cell::Text(variant.name()),
                Cell::Number(count(variant.seeds as u64)),
                number_cell(&variant.parameters),
                number_cell(&variant.tokens),
                number_cell(&variant.training_seconds),
                number_cell(&variant.tokens_per_second),
                first(&variant.loss),
                first(&variant.bits_per_byte),
                first(&variant.accuracy),
                thousandths(variant.answers),
                best(variant.most_tokens_per_forward(), &|value| fixed(value, 2)),
                best(variant.best_speedup(), &times),
                variant
                    .identical
                    .map_or(Cell::Missing, |same| if same { "identical" } else { "differs" }.into()),
                variant
                    .peak_memory_bytes
                    .map_or(Cell::Missing, |bytes| Cell::Number(format!("{:.0}", bytes.mean / 1e6))),
            ]
        };
        Table {
            caption: String::new(),
            columns: columns.map(String::from).to_vec(),
            rows: self.variants.iter().map(row).collect(),
        }
    }

    /// Variants that differ in the last axis only, under what they share.
    fn groups(&self) -> Vec<(String, Vec<&VariantFigures>)> {
        let mut groups: Vec<(String, Vec<&VariantFigures>)> = Vec::new();
        for variant in &self.variants {
            let name = variant.group();
            match groups.iter_mut().find(|(group, _)| *group == name) {
                Some((_, variants)) => variants.push(variant),
                None => groups.push((name, vec![variant])),
            }
        }
        groups
    }
}

/// Everything that is counted per depth or per draft length.
fn depths_table(variants: &[&VariantFigures]) -> Table {
    let words = |words: Vec<String>| match words[..] {
        [] => Cell::Missing,
        _ => Cell::Text(words.join(" ")),
    };
    let depths = |estimates: &[Option<Estimate>]| {
        let mean = |of: &Option<Estimate>| of.map_or(MISSING.to_owned(), |of| fixed(of.mean, 3));
        words(estimates.iter().map(mean).collect())
    };
    let list = |estimates: &[Estimate], show: &dyn Fn(f64) -> String| {
        words(estimates.iter().map(|estimate| show(estimate.mean)).collect())
    };
    let row = |variant: &&VariantFigures| {
        vec![
            Cell::Text(variant.line()),
            words((0..variant.loss.len()).map(|index| variant.ahead(index).to_string()).collect()),
            depths(&variant.loss),
            depths(&variant.accuracy),
            list(&variant.tokens_per_forward, &|value| fixed(value, 2)),
            list(&variant.acceptance, &percent),
            list(&variant.speedup, &|value| fixed(value, 2)),
        ]
    };
    let columns = [
        "variant",
        "tokens ahead per depth",
        "loss per depth, nats",
        "accuracy per depth",
        "tokens per forward per draft length",
        "acceptance per place in the draft",
        "speed against plain per draft length",
    ];
    Table {
        caption: format!("Means over seeds that had something to predict there; {MISSING} where none had."),
        columns: columns.map(String::from).to_vec(),
        rows: variants.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_the_deviation_of_single_runs() {
        assert_eq!(Estimate::of(&[]), None);
        assert_eq!(Estimate::of(&[2.0]), Some(Estimate { mean: 2.0, deviation: None }));
        let three = Estimate::of(&[1.0, 2.0, 6.0]).unwrap();
        assert_eq!(three, Estimate { mean: 3.0, deviation: Some(7.0f64.sqrt()) });
        assert_eq!(three.shown(|value| format!("{value:.1}")), "3.0 ± 2.6");
    }

    #[test]
    fn the_best_draft_is_the_shortest_of_equals() {
        let estimate = |mean| Estimate { mean, deviation: None };
        assert_eq!(highest(&[1.5, 2.0, 2.0].map(estimate)), Some((2, estimate(2.0))));
        assert_eq!(highest(&[]), None);
    }
}
