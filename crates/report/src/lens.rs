//! The page of the lens: figures of one model on some data, as charts, tables and text.

use serde::{Deserialize, Serialize};

use crate::bar_chart::{Bar, BarChart, BarSeries};
use crate::chart::{Chart, Reference};
use crate::heat_map::{HeatMap, MOST_COLUMNS};
use crate::line_chart::{LineChart, Series, SeriesStyle};
use crate::number;
use crate::page::{Block, Fact, Page, Section, Tone};
use crate::settled::{SettledText, SettledToken};
use crate::table::{Cell, Table};

/// Everything that the page shows; parts that were not measured are empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LensFigures {
    /// What was looked into, and at what.
    pub subject: String,
    /// Rows that were read, and those that pass the cut.
    pub tokens: (usize, usize),
    /// Blocks of the model.
    pub layers: usize,
    /// The model, the null model, and random weights where they were looked at, in this order.
    pub orders: Vec<OrderFigures>,
    /// Permutations of the model's layers: their taus from the lowest to the highest bin.
    pub permuted: Option<PermutedFigures>,
    /// A piece of the data.
    pub text: SettledText,
    /// The probe.
    pub probe: Option<ProbeFigures>,
    /// The intervention, one entry for each distance.
    pub intervention: Vec<InterventionFigures>,
    /// Exits, one entry for each rule.
    pub exits: Vec<ExitFigures>,
    /// Later choices, early and late.
    pub later: Vec<LaterFigures>,
    /// What was not measured, and why, one sentence each.
    pub remarks: Vec<String>,
    /// Machine, command, version.
    pub footer: String,
}

/// The order of saturation of one model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OrderFigures {
    /// Which model.
    pub name: String,
    /// Mean rank of each choice with its standard error.
    pub mean_rank: Vec<(f64, f64)>,
    /// Strict Kendall tau and its p-value.
    pub tau: Option<(f64, f64)>,
    /// Share of rows where each choice settles before the last layer.
    pub saturating: Vec<f64>,
    /// Share of rows by the layer in which each choice settles, `[choices][layers]`.
    pub by_layer: Vec<Vec<f64>>,
}

/// A histogram of permuted taus.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PermutedFigures {
    /// Lowest and highest tau.
    pub range: (f64, f64),
    /// Permutations in each bin.
    pub counts: Vec<usize>,
    /// The tau that was measured.
    pub measured: f64,
}

/// The probe.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProbeFigures {
    /// Balanced accuracies: folds by text, shuffled folds, noise, layer alone; and chance.
    pub accuracies: Vec<(String, f64)>,
    /// See `accuracies`.
    pub chance: f64,
    /// Counts, `[true][predicted]`.
    pub confusion: Vec<Vec<usize>>,
    /// Area under the curve of each task.
    pub auc: Vec<f64>,
}

/// One distance of the intervention.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct InterventionFigures {
    /// Layers after saturation.
    pub delta: i64,
    /// Shares that switched: injected, control, untouched.
    pub switched: [Option<f64>; 3],
    /// Layers by which the second choice settles earlier: injected, control.
    pub second_earlier: [Option<f64>; 2],
    /// Share of which the probe says that the first choice is settled: injected, control, untouched.
    pub probe: [Option<f64>; 3],
}

/// One rule of leaving early.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ExitFigures {
    /// Family of rules: probe, softmax response, ...
    pub family: String,
    /// Its threshold, if it has one.
    pub threshold: Option<f64>,
    /// More about it, in a few words.
    pub how: String,
    /// Speed against all layers: layers alone, where they tell something, and work with all costs.
    pub speedup: (Option<f64>, f64),
    /// Share that is right; that agrees with the whole model where nothing is known to be right.
    pub accuracy: f64,
    /// Measured: text that really skipped layers.
    pub live: bool,
}

/// Families of rules in the order of their colours, the same in every chart.
const FAMILIES: [&str; 6] =
    ["all layers", "oracle", "probe", "softmax response", "state saturation", "lossless draft"];

/// One later choice.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LaterFigures {
    /// Which choice.
    pub choice: usize,
    /// Share that is right where it settled early, and rows.
    pub early: (Option<f64>, usize),
    /// The same where the last layer decided it.
    pub late: (Option<f64>, usize),
    /// z and p of the difference.
    pub test: Option<(f64, f64)>,
}

impl LensFigures {
    /// The page.
    pub fn page(&self) -> Page {
        let mut sections = vec![self.text_section(), self.order_section()];
        sections.extend(self.probe.as_ref().map(probe_section));
        if !self.intervention.is_empty() {
            sections.push(self.intervention_section());
        }
        if !self.exits.is_empty() {
            sections.push(self.exit_section());
        }
        if !self.later.is_empty() {
            sections.push(self.later_section());
        }
        if !self.remarks.is_empty() {
            let remarks = self.remarks.iter().cloned().map(Block::Text).collect();
            sections.push(Section { heading: "Not measured".into(), blocks: remarks });
        }
        Page {
            title: "In which layer the model decides".into(),
            lead: self.subject.clone(),
            summary: self.summary(),
            sections,
            data: serde_json::to_value(self).unwrap_or_default(),
            footer: self.footer.clone(),
        }
    }

    /// Every chart of the page under a name for a file.
    pub fn charts(&self) -> Vec<(String, Chart)> {
        let mut charts: Vec<(String, Chart)> = vec![
            ("heat-map".into(), self.heat_map().into()),
            ("ranks".into(), self.ranks().into()),
            ("saturating".into(), self.saturating().into()),
            ("settling".into(), self.settling().into()),
        ];
        charts
            .extend(self.permuted.as_ref().map(|permuted| ("permutations".into(), permuted.chart().into())));
        if let Some(probe) = &self.probe {
            charts.push(("probe".into(), probe.accuracy_chart().into()));
            charts.push(("confusion".into(), probe.confusion_chart().into()));
        }
        if !self.intervention.is_empty() {
            charts.push(("intervention".into(), self.intervention_chart().into()));
            charts.push(("intervention-second".into(), self.second_chart().into()));
        }
        if !self.exits.is_empty() {
            charts.push(("exits".into(), self.exit_chart(false).into()));
        }
        if self.exits.iter().any(|exit| exit.live) {
            charts.push(("exits-live".into(), self.exit_chart(true).into()));
        }
        charts
    }

    fn summary(&self) -> Vec<Fact> {
        let (read, kept) = self.tokens;
        let mut facts = vec![Fact {
            label: "read".into(),
            value: number::count(read as u64),
            note: format!("{} pass the cut", number::count(kept as u64)),
            tone: Tone::Plain,
        }];
        for (place, order) in self.orders.iter().enumerate() {
            let Some((tau, p)) = order.tau else { continue };
            facts.push(Fact {
                label: format!("strict tau, {}", order.name),
                value: number::fixed(tau, 3),
                note: format!("p = {} by permutation", number::number(p)),
                tone: match place {
                    0 if p < 0.001 => Tone::Good,
                    0 => Tone::Bad,
                    _ => Tone::Plain,
                },
            });
        }
        if let Some(first) = self.orders.first().and_then(|order| order.saturating.first()) {
            facts.push(Fact {
                label: "first choice settles early".into(),
                value: number::percent(*first),
                note: "before the last layer".into(),
                tone: Tone::Plain,
            });
        }
        facts
    }

    fn text_section(&self) -> Section {
        let text = "Below each token stand the layers (from 0) in which the choices for what follows it settle, the first choice first; \
                    the shade is that of the first. What the lens reads in each layer appears where the pointer rests on a token.";
        Section {
            heading: "When the choices settle".into(),
            blocks: vec![
                Block::Text(text.into()),
                Block::Settled(self.text.clone()),
                Block::Charts(vec![self.heat_map().into(), self.settling().into()]),
            ],
        }
    }

    fn heat_map(&self) -> HeatMap {
        let tokens: Vec<&SettledToken> = self.text.tokens.iter().take(MOST_COLUMNS).collect();
        let settled = |token: &&SettledToken| -> Vec<usize> {
            (0..self.layers).map(|layer| token.settled.iter().filter(|at| **at <= layer).count()).collect()
        };
        HeatMap {
            title: "How many choices have settled, by position and layer".into(),
            caption: "A column for each token of the text above; the deeper the shade, the more of its choices stand already where \
                      they stand at the end."
                .into(),
            x_label: "position".into(),
            y_label: "layer".into(),
            columns: tokens.iter().enumerate().map(|(place, _)| (place + 1).to_string()).collect(),
            values: tokens.iter().map(settled).collect(),
            most: self.text.tokens.iter().map(|token| token.settled.len()).max().unwrap_or(1),
        }
    }

    fn settling(&self) -> LineChart {
        let by_layer = self.orders.first().map(|order| order.by_layer.as_slice()).unwrap_or_default();
        let series = |(choice, shares): (usize, &Vec<f64>)| Series {
            name: format!("choice {}", choice + 1),
            points: shares.iter().enumerate().map(|(layer, share)| (layer as f64, 100.0 * share)).collect(),
            ..Series::default()
        };
        LineChart {
            title: "Where each choice settles".into(),
            caption: "Share of all tokens by the layer of saturation, from 0.".into(),
            x_label: "layer".into(),
            y_label: "% of tokens".into(),
            y_from_zero: true,
            series: by_layer.iter().enumerate().map(series).collect(),
            ..LineChart::default()
        }
    }

    fn order_section(&self) -> Section {
        let mut charts: Vec<Chart> = vec![self.ranks().into()];
        charts.extend(self.permuted.as_ref().map(|permuted| permuted.chart().into()));
        charts.push(self.saturating().into());
        let text = "In order means that a better choice settles in an earlier layer. Tau counts pairs of choices of one token: concordant \
                    only if the better one settles strictly earlier, ties against it. The null model is a random walk of logits with the \
                    model's own likeness of neighbouring layers: what it shows of order needs no other explanation.";
        Section { heading: "In order?".into(), blocks: vec![Block::Text(text.into()), Block::Charts(charts)] }
    }

    fn ranks(&self) -> BarChart {
        let choices = self.orders.iter().map(|order| order.mean_rank.len()).max().unwrap_or(0);
        let series = |order: &OrderFigures| BarSeries {
            name: order.name.clone(),
            bars: order
                .mean_rank
                .iter()
                .map(|(mean, error)| {
                    mean.is_finite()
                        .then_some(Bar { value: *mean, whisker: Some((mean - error, mean + error)) })
                })
                .collect(),
        };
        BarChart {
            title: "Mean rank of the layers of saturation".into(),
            caption: "The place of each choice's layer among the sorted layers of its token, from 0; whiskers are standard errors. \
                      Rising bars: in order."
                .into(),
            x_label: "choice".into(),
            y_label: "mean rank".into(),
            categories: (1..=choices).map(|choice| choice.to_string()).collect(),
            series: self.orders.iter().map(series).collect(),
            reference: None,
        }
    }

    fn saturating(&self) -> BarChart {
        let choices = self.orders.iter().map(|order| order.saturating.len()).max().unwrap_or(0);
        let series = |order: &OrderFigures| BarSeries {
            name: order.name.clone(),
            bars: order.saturating.iter().map(|share| Some(Bar::new(100.0 * share))).collect(),
        };
        BarChart {
            title: "Choices that settle before the last layer".into(),
            caption: "Share of all tokens.".into(),
            x_label: "choice".into(),
            y_label: "% of tokens".into(),
            categories: (1..=choices).map(|choice| choice.to_string()).collect(),
            series: self.orders.iter().map(series).collect(),
            reference: None,
        }
    }

    fn intervention_section(&self) -> Section {
        let text = "The state of a token that has settled its first choice is put in the place of another token's with the same choice. \
                    That the lens then reads the choice from there on is partly true by definition; the control puts a third token's state \
                    that reads the same in that layer, whether it has settled or not, and the second choice is what no definition decides.";
        let charts = vec![self.intervention_chart().into(), self.second_chart().into()];
        Section {
            heading: "Putting a state elsewhere".into(),
            blocks: vec![Block::Text(text.into()), Block::Charts(charts)],
        }
    }

    fn intervention_chart(&self) -> LineChart {
        let mut series: Vec<Series> = ["injected", "control", "untouched"]
            .iter()
            .enumerate()
            .map(|(kind, name)| self.curve(name, |at| at.switched[kind].map(|share| 100.0 * share)))
            .collect();
        if self.intervention.iter().any(|at| at.probe[0].is_some()) {
            series.push(
                self.curve("probe: settled, after injection", |at| at.probe[0].map(|share| 100.0 * share)),
            );
        }
        LineChart {
            title: "Tokens that settle where the state was put".into(),
            caption: "0 is the layer in which the early token settled. Same first choice at the end.".into(),
            x_label: "layers after saturation".into(),
            y_label: "% of pairs".into(),
            y_from_zero: true,
            series,
            ..LineChart::default()
        }
    }

    fn second_chart(&self) -> LineChart {
        LineChart {
            title: "By how many layers the second choice settles earlier".into(),
            caption: "Against the same token without injection: 0 is no change.".into(),
            x_label: "layers after saturation".into(),
            y_label: "layers".into(),
            series: vec![
                self.curve("injected", |at| at.second_earlier[0]),
                self.curve("control", |at| at.second_earlier[1]),
            ],
            y_from_zero: true,
            ..LineChart::default()
        }
    }

    fn curve(&self, name: &str, value: impl Fn(&InterventionFigures) -> Option<f64>) -> Series {
        let points = self.intervention.iter().filter_map(|at| Some((at.delta as f64, value(at)?)));
        Series { name: name.into(), points: points.collect(), ..Series::default() }
    }

    fn exit_section(&self) -> Section {
        let text = "Each point is a rule of leaving early. The speed counts multiply-adds: blocks that ran, and the read-outs and opinions \
                    that it took to decide. Static: with states of the whole model, as in the paper; live: text that really skipped layers, \
                    its speed measured against all layers. Lossless: early layers draft, the rest verifies, and every token is the \
                    model's own.";
        let row = |exit: &ExitFigures| {
            let threshold = exit.threshold.map_or(Cell::Missing, Cell::from);
            vec![
                Cell::Text(exit.name()),
                threshold,
                exit.speedup.0.map_or(Cell::Missing, |speedup| Cell::Number(number::times(speedup))),
                Cell::Number(number::times(exit.speedup.1)),
                Cell::Number(number::percent(exit.accuracy)),
            ]
        };
        let columns = ["rule", "threshold", "layers alone", "with all costs", "right (live: as the model)"]
            .map(str::to_owned);
        let table = Table {
            caption: "Every rule".into(),
            columns: columns.to_vec(),
            rows: self.exits.iter().map(row).collect(),
        };
        let mut charts = vec![self.exit_chart(false).into()];
        if self.exits.iter().any(|exit| exit.live) {
            charts.push(self.exit_chart(true).into());
        }
        let blocks = vec![Block::Text(text.into()), Block::Charts(charts), Block::Table(table)];
        Section { heading: "Leaving early".into(), blocks }
    }

    fn exit_chart(&self, live: bool) -> LineChart {
        let exits = || self.exits.iter().filter(|exit| exit.live == live);
        let mut families: Vec<&str> = Vec::new();
        for exit in exits() {
            if !families.contains(&exit.family.as_str()) {
                families.push(&exit.family);
            }
        }
        let series = |family: &&str| {
            let of = || exits().filter(|exit| exit.family == **family);
            let mut points: Vec<(f64, f64)> =
                of().map(|exit| (exit.speedup.1, 100.0 * exit.accuracy)).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            // Ways of drafting have no threshold in common that a line could follow.
            let line = points.len() > 1 && of().all(|exit| exit.threshold.is_some());
            let style = if line { SeriesStyle::LineAndMarkers } else { SeriesStyle::Markers };
            let slot = FAMILIES.iter().position(|known| known == family);
            Series { name: (*family).to_owned(), points, style, slot, ..Series::default() }
        };
        let (title, caption, y_label) = match live {
            false => (
                "Accuracy against speed",
                "Static, in multiply-adds. To the right and up is better.",
                "% right",
            ),
            true => (
                "Agreement against speed, live",
                "Measured, the median over the beginnings; tokens that the whole model would have chosen. Layers are skipped for good, but for lossless drafts.",
                "% as the model",
            ),
        };
        LineChart {
            title: title.into(),
            caption: caption.into(),
            x_label: "speed against all layers".into(),
            y_label: y_label.into(),
            series: families.iter().map(series).collect(),
            ..LineChart::default()
        }
    }

    fn later_section(&self) -> Section {
        let share = |(share, rows): (Option<f64>, usize)| match share {
            Some(share) => {
                Cell::Number(format!("{} of {}", number::percent(share), number::count(rows as u64)))
            }
            None => Cell::Missing,
        };
        let row = |later: &LaterFigures| {
            let (z, p) =
                later.test.map_or((Cell::Missing, Cell::Missing), |(z, p)| (Cell::from(z), Cell::from(p)));
            vec![Cell::Text(later.choice.to_string()), share(later.early), share(later.late), z, p]
        };
        let columns =
            ["choice", "right where it settled early", "right where the last layer decided", "z", "p"];
        let table = Table {
            caption: "Where the first choice is wrong".into(),
            columns: columns.map(str::to_owned).to_vec(),
            rows: self.later.iter().map(row).collect(),
        };
        Section {
            heading: "Are later choices that settled early better?".into(),
            blocks: vec![Block::Table(table)],
        }
    }
}

impl ExitFigures {
    fn name(&self) -> String {
        match (self.how.is_empty(), self.live) {
            (false, _) => format!("{}: {}", self.family, self.how),
            (true, true) => format!("{} (live)", self.family),
            (true, false) => self.family.clone(),
        }
    }
}

impl PermutedFigures {
    fn chart(&self) -> LineChart {
        let (low, high) = self.range;
        let step = (high - low) / self.counts.len().max(1) as f64;
        let points = self.counts.iter().enumerate();
        let points: Vec<(f64, f64)> =
            points.map(|(bin, count)| (low + (bin as f64 + 0.5) * step, *count as f64)).collect();
        let highest = self.counts.iter().copied().max().unwrap_or(1) as f64;
        LineChart {
            title: "Strict tau against its permutations".into(),
            caption: "Each permutation shuffles the layers within every token; the upright line is the measured tau.".into(),
            x_label: "strict tau".into(),
            y_label: "permutations".into(),
            y_from_zero: true,
            series: vec![
                Series { name: "permutations".into(), points, style: SeriesStyle::Line, ..Series::default() },
                Series {
                    name: "measured".into(),
                    points: vec![(self.measured, 0.0), (self.measured, highest)],
                    ..Series::default()
                },
            ],
            ..LineChart::default()
        }
    }
}

fn probe_section(probe: &ProbeFigures) -> Section {
    let text = "A linear probe tells from a state on which choice the model works. Folds keep a text together; shuffled folds, as in the \
                paper, let neighbouring layers of one token stand on both sides.";
    let auc: Vec<Cell> = probe.auc.iter().map(|area| Cell::Number(number::fixed(*area, 3))).collect();
    let columns = (1..=auc.len()).map(|task| format!("task {task}"));
    let table = Table {
        caption: "Area under the curve, folds by text".into(),
        columns: std::iter::once(String::new()).chain(columns).collect(),
        rows: vec![std::iter::once(Cell::Text("AUC".into())).chain(auc).collect()],
    };
    let charts = vec![probe.accuracy_chart().into(), probe.confusion_chart().into()];
    Section {
        heading: "The task probe".into(),
        blocks: vec![Block::Text(text.into()), Block::Charts(charts), Block::Table(table)],
    }
}

impl ProbeFigures {
    fn accuracy_chart(&self) -> BarChart {
        BarChart {
            title: "Balanced accuracy of the probe and its controls".into(),
            caption: "Five folds.".into(),
            x_label: String::new(),
            y_label: "%".into(),
            categories: self.accuracies.iter().map(|(name, _)| name.clone()).collect(),
            series: vec![BarSeries {
                name: String::new(),
                bars: self.accuracies.iter().map(|(_, accuracy)| Some(Bar::new(100.0 * accuracy))).collect(),
            }],
            reference: Some(Reference { value: 100.0 * self.chance, label: "chance".into() }),
        }
    }

    fn confusion_chart(&self) -> BarChart {
        let classes = self.confusion.len();
        let series = |predicted: usize| BarSeries {
            name: format!("taken for {}", predicted + 1),
            bars: self
                .confusion
                .iter()
                .map(|row| {
                    Some(Bar::new(100.0 * row[predicted] as f64 / row.iter().sum::<usize>().max(1) as f64))
                })
                .collect(),
        };
        BarChart {
            title: "Which task is taken for which".into(),
            caption: "Folds by text; bars of one task sum to 100 %.".into(),
            x_label: "task".into(),
            y_label: "% of its states".into(),
            categories: (1..=classes).map(|task| task.to_string()).collect(),
            series: (0..classes).map(series).collect(),
            reference: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn figures() -> LensFigures {
        let order = |name: &str, tau| OrderFigures {
            name: name.into(),
            mean_rank: vec![(0.2, 0.01), (1.0, 0.02), (f64::NAN, f64::NAN)],
            tau: Some((tau, 0.0001)),
            saturating: vec![0.9, 0.8, 0.7],
            by_layer: vec![vec![0.1, 0.4, 0.4, 0.1]; 3],
        };
        LensFigures {
            subject: "a model & <data>".into(),
            tokens: (1000, 900),
            layers: 4,
            orders: vec![order("trained", 0.4), order("null", 0.2)],
            permuted: Some(PermutedFigures { range: (-0.1, 0.1), counts: vec![1, 5, 2], measured: 0.4 }),
            text: SettledText {
                layers: 4,
                tokens: vec![SettledToken {
                    text: "<".into(),
                    settled: vec![0, 2, 3],
                    lens: vec![vec!["a".into()]; 4],
                }],
            },
            probe: Some(ProbeFigures {
                accuracies: vec![("by text".into(), 0.5), ("noise".into(), 0.3)],
                chance: 1.0 / 3.0,
                confusion: vec![vec![5, 1, 0], vec![1, 4, 1], vec![0, 2, 4]],
                auc: vec![0.8, 0.7, 0.9],
            }),
            intervention: (-1..=1)
                .map(|delta| InterventionFigures {
                    delta,
                    switched: [Some(0.5), None, Some(0.0)],
                    second_earlier: [Some(1.0), Some(0.5)],
                    probe: [Some(0.2), None, None],
                })
                .collect(),
            exits: vec![
                ExitFigures {
                    family: "probe".into(),
                    speedup: (Some(1.2), 1.1),
                    accuracy: 0.4,
                    ..ExitFigures::default()
                },
                ExitFigures {
                    family: "softmax response".into(),
                    threshold: Some(0.4),
                    speedup: (None, 0.9),
                    accuracy: 0.3,
                    live: true,
                    how: "2 layers".into(),
                },
            ],
            later: vec![LaterFigures {
                choice: 2,
                early: (Some(0.4), 50),
                late: (None, 0),
                test: Some((2.0, 0.04)),
            }],
            remarks: vec!["nothing was left out".into()],
            footer: "here".into(),
        }
    }

    #[test]
    fn the_page_is_well_formed_and_shows_every_chart() {
        let figures = figures();
        let html = figures.page().html();
        let markup = html.strip_prefix("<!doctype html>\n").unwrap();
        assert!(roxmltree::Document::parse(markup).is_ok());
        let charts = figures.charts();
        assert_eq!(charts.len(), 11);
        for (name, chart) in &charts {
            assert!(roxmltree::Document::parse(&chart.svg()).is_ok(), "{name}");
            assert!(!chart.svg().contains("no data"), "{name}");
        }
        assert_eq!(html.matches("<figure").count(), charts.len());
    }

    #[test]
    fn a_page_without_some_parts_is_a_page() {
        let figures =
            LensFigures { probe: None, intervention: vec![], exits: vec![], later: vec![], ..figures() };
        let html = figures.page().html();
        assert!(roxmltree::Document::parse(html.strip_prefix("<!doctype html>\n").unwrap()).is_ok());
        assert!(!html.contains("task probe"));
    }
}
