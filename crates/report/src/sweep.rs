//! The page of a sweep: one table of all variants, and charts of those that differ in the last axis only.

use serde::{Deserialize, Serialize};

use crate::bar_chart::{Bar, BarChart, BarSeries};
use crate::chart::{Chart, Reference};
use crate::line_chart::{LineChart, Series};
use crate::number::{count, counted, fixed, number, percent, times};
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
    /// The machine in one line.
    pub machine: String,
    /// The variants, in the order of the grid.
    pub variants: Vec<VariantFigures>,
    /// Runs that failed: name and reason.
    pub failures: Vec<(String, String)>,
}

/// One variant over its seeds. Lists per depth begin with the next token, lists per draft length with one drafted token.
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
    /// Held-out loss in nats per token, per depth.
    pub loss: Vec<Estimate>,
    /// Held-out loss in bits per byte of text, per depth.
    pub bits_per_byte: Vec<Estimate>,
    /// Share of held-out tokens predicted right, per depth.
    pub accuracy: Vec<Estimate>,
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
            blocks: vec![Block::Charts(charts(&variants)), Block::Table(depths_table(&variants))],
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
            footer: format!("`{}`, version {}; {}", self.command, self.version, self.machine),
        }
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
            let first = |list: &[Estimate], decimals| {
                list.first()
                    .map_or(Cell::Missing, |first| Cell::Number(first.shown(|value| fixed(value, decimals))))
            };
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
                first(&variant.loss, 3),
                first(&variant.bits_per_byte, 3),
                first(&variant.accuracy, 3),
                first(variant.answers.as_slice(), 3),
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

fn charts(variants: &[&VariantFigures]) -> Vec<Chart> {
    let line =
        |slot: usize, variant: &VariantFigures, first: f64, list: &[Estimate], start: Option<Estimate>| {
            let from = if start.is_some() { first - 1.0 } else { first };
            let all: Vec<Estimate> = start.into_iter().chain(list.iter().copied()).collect();
            let band = all.iter().any(|estimate| estimate.deviation.is_some());
            Series {
                name: variant.line(),
                points: all
                    .iter()
                    .enumerate()
                    .map(|(index, estimate)| (from + index as f64, estimate.mean))
                    .collect(),
                band: band.then(|| all.iter().map(Estimate::ends).collect()),
                slot: Some(slot),
                ..Series::default()
            }
        };
    let numbered = || variants.iter().copied().enumerate();
    let mut charts: Vec<Chart> = Vec::new();
    let drafting: Vec<Series> = numbered()
        .filter(|(_, variant)| !variant.tokens_per_forward.is_empty())
        .map(|(slot, variant)| {
            let plain = Some(Estimate { mean: 1.0, deviation: None });
            line(slot, variant, 1.0, &variant.tokens_per_forward, plain)
        })
        .collect();
    if !drafting.is_empty() {
        let chart = LineChart {
            title: "Tokens per forward against draft length".into(),
            caption: "Committed tokens over forwards, the model’s own token included; the band is one standard deviation \
                      over seeds."
                .into(),
            x_label: "drafted tokens per round".into(),
            y_label: "tokens per forward".into(),
            y_from_zero: true,
            series: drafting,
            ..LineChart::default()
        };
        charts.push(chart.into());
    }
    let next = |variant: &&VariantFigures| {
        let loss = variant.loss.first()?;
        Some(Bar { value: loss.mean, whisker: loss.deviation.map(|_| loss.ends()) })
    };
    let chart = BarChart {
        title: "Next-token loss".into(),
        caption: "On held-out text; the whisker is one standard deviation over seeds.".into(),
        x_label: "variant".into(),
        y_label: "cross-entropy, nats per token".into(),
        categories: variants.iter().map(|variant| variant.line()).collect(),
        series: vec![BarSeries { name: String::new(), bars: variants.iter().map(next).collect() }],
        reference: None,
    };
    charts.push(chart.into());
    if variants.iter().any(|variant| variant.loss.len() > 1) {
        let chart = LineChart {
            title: "Loss of each head".into(),
            caption: "On held-out text; the band is one standard deviation over seeds.".into(),
            x_label: "tokens ahead".into(),
            y_label: "cross-entropy, nats per token".into(),
            series: numbered().map(|(slot, variant)| line(slot, variant, 1.0, &variant.loss, None)).collect(),
            ..LineChart::default()
        };
        charts.push(chart.into());
    }
    let fastest = |variant: &&VariantFigures| {
        let (_, speedup) = variant.best_speedup()?;
        Some(Bar { value: speedup.mean, whisker: speedup.deviation.map(|_| speedup.ends()) })
    };
    if variants.iter().any(|variant| !variant.speedup.is_empty()) {
        let chart = BarChart {
            title: "Speed against plain decoding".into(),
            caption: "Each variant with its best draft length, in turn with plain decoding.".into(),
            x_label: "variant".into(),
            y_label: "times the speed of plain decoding".into(),
            categories: variants.iter().map(|variant| variant.line()).collect(),
            series: vec![BarSeries { name: String::new(), bars: variants.iter().map(fastest).collect() }],
            reference: Some(Reference { value: 1.0, label: "plain".into() }),
        };
        charts.push(chart.into());
    }
    charts
}

/// Everything that is counted per depth or per draft length.
fn depths_table(variants: &[&VariantFigures]) -> Table {
    let list = |estimates: &[Estimate], show: &dyn Fn(f64) -> String| match estimates {
        [] => Cell::Missing,
        _ => Cell::Text(estimates.iter().map(|estimate| show(estimate.mean)).collect::<Vec<_>>().join(" ")),
    };
    let row = |variant: &&VariantFigures| {
        vec![
            Cell::Text(variant.line()),
            list(&variant.loss, &|value| fixed(value, 3)),
            list(&variant.accuracy, &|value| fixed(value, 3)),
            list(&variant.tokens_per_forward, &|value| fixed(value, 2)),
            list(&variant.acceptance, &percent),
            list(&variant.speedup, &|value| fixed(value, 2)),
        ]
    };
    let columns = [
        "variant",
        "loss per depth, nats",
        "accuracy per depth",
        "tokens per forward per draft length",
        "acceptance per place in the draft",
        "speed against plain per draft length",
    ];
    Table {
        caption: "Means over seeds.".into(),
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
