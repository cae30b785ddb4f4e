//! The page of one run: from its numbers to facts, charts, tables and samples.

use super::verdict::{NO_DIFFERENCE, verdict};
use super::{
    DecodingFigures, HeadCurve, HeldOutFigures, LossPoint, LosslessnessFigures, MainJobFigures, spread,
};
use crate::bar_chart::{Bar, BarChart, BarSeries};
use crate::chart::{Chart, Reference};
use crate::line_chart::{LineChart, Series, SeriesStyle};
use crate::number::{bytes, count, counted, duration, fixed, number, percent, times};
use crate::page::{Block, Fact, Page, Section, Tone};
use crate::table::{Cell, Table};
use crate::wilson::{Interval, wilson_95};

/// Points of a training curve after averaging: more are noise at the size of the drawing.
const CURVE_POINTS: u64 = 120;

impl MainJobFigures {
    /// The page that shows these numbers.
    pub fn page(&self) -> Page {
        let sections = [
            self.words_section(),
            self.decoding_section(),
            self.losslessness_section(),
            self.samples_section(),
            self.learning_section(),
            self.corpus_section(),
            self.settings_section(),
        ];
        Page {
            title: self.title.clone(),
            lead: self.lead(),
            summary: self.facts(),
            sections: sections.into_iter().flatten().collect(),
            // Numbers, strings, lists and maps with string keys: nothing that JSON could refuse.
            data: serde_json::to_value(self).expect("figures are plain data"),
            footer: self.footer(),
        }
    }

    fn lead(&self) -> String {
        let n = self.settings.n;
        if n < 2 {
            return String::new();
        }
        format!(
            "A model with {n} prediction heads: one for the next token and {} that look further ahead. When decoding, these \
             draft; the next-token head checks every draft and keeps only what it would have written itself.",
            n - 1
        )
    }

    fn facts(&self) -> Vec<Fact> {
        let mut facts = Vec::new();
        if let Some(losslessness) = &self.losslessness {
            facts.push(losslessness_fact(losslessness));
        }
        if let Some(decoding) = &self.decoding {
            facts.extend(decoding_facts(decoding, self.settings.n));
        }
        if let Some(bits) = self.held_out.as_ref().and_then(|held_out| held_out.next_token_bits_per_byte) {
            facts.push(Fact {
                label: "Held-out loss".into(),
                value: fixed(bits, 3),
                note: "bits per byte, next-token head".into(),
                ..Fact::default()
            });
        }
        if let Some(training) = &self.training {
            facts.push(Fact {
                label: "Training".into(),
                value: duration(training.seconds),
                note: format!(
                    "{}, {} tokens",
                    counted(training.steps, "step"),
                    number(training.tokens as f64)
                ),
                ..Fact::default()
            });
        }
        facts
    }

    fn words_section(&self) -> Option<Section> {
        let words = verdict(self);
        (!words.is_empty()).then(|| Section {
            heading: "What these numbers say".into(),
            blocks: vec![Block::Callout(words)],
        })
    }

    fn decoding_section(&self) -> Option<Section> {
        let decoding = self.decoding.as_ref()?;
        let intro = format!(
            "{} from held-out text, {} written for each, greedily and by the same engine with the same weights; only the \
             number of drafted tokens per round differs.",
            counted(decoding.prompts, "prompt"),
            counted(decoding.tokens_per_prompt, "token")
        );
        let charts = vec![
            tokens_per_forward_chart(decoding, self.settings.n),
            speed_chart(decoding),
            acceptance_chart(decoding),
            round_cost_chart(decoding),
        ];
        let blocks = vec![Block::Text(intro), Block::Charts(charts), Block::Table(decoding_table(decoding))];
        Some(Section { heading: "Decoding with and without drafts".into(), blocks })
    }

    fn losslessness_section(&self) -> Option<Section> {
        let losslessness = self.losslessness.as_ref()?;
        Some(Section { heading: "Is it the same text?".into(), blocks: losslessness_blocks(losslessness) })
    }

    fn samples_section(&self) -> Option<Section> {
        if self.samples.is_empty() {
            return None;
        }
        let intro = "Each stretch that begins with an unshaded token is one round: the verifier’s own token, then the \
                     drafted tokens that it accepted. The text would be the same without any shading."
            .to_string();
        Some(Section {
            heading: "Where each token came from".into(),
            blocks: vec![Block::Text(intro), Block::Samples(self.samples.clone())],
        })
    }

    fn learning_section(&self) -> Option<Section> {
        let curves = self.training.as_ref().map_or(&[][..], |training| &training.heads);
        let mut charts = Vec::new();
        if !curves.is_empty() {
            charts.push(loss_chart(curves));
        }
        let held_out = self.held_out.as_ref().filter(|held_out| !held_out.depths.is_empty());
        charts.extend(held_out.map(accuracy_chart));
        let mut blocks = Vec::new();
        if !charts.is_empty() {
            blocks.push(Block::Charts(charts));
        }
        blocks.extend(held_out.map(|held_out| Block::Table(depth_table(held_out))));
        (!blocks.is_empty()).then(|| Section { heading: "What the heads learnt".into(), blocks })
    }

    fn corpus_section(&self) -> Option<Section> {
        let corpus = self.corpus.as_ref()?;
        let mut rows = vec![
            pair("text", &corpus.name),
            pair("training part", &bytes(corpus.train_bytes)),
            pair("held-out part", &bytes(corpus.held_out_bytes)),
        ];
        rows.extend(corpus.documents.map(|documents| pair("documents", &count(documents))));
        if let Some((spans, share)) = corpus.repeated_spans.and_then(|spans| Some((spans, spans.share()?))) {
            let name =
                format!("held-out spans of {} bytes that the training part contains", spans.span_bytes);
            let looked_up =
                format!("{} ({} of {})", percent(share), count(spans.found), count(spans.looked_up));
            rows.push(pair(&name, &looked_up));
        }
        let table = Table { rows, ..Table::default() };
        Some(Section { heading: "The text".into(), blocks: vec![Block::Table(table)] })
    }

    fn settings_section(&self) -> Option<Section> {
        let settings = &self.settings;
        let mut rows = Vec::new();
        let mut add = |name: &str, value: String| {
            if !value.is_empty() {
                rows.push(pair(name, &value));
            }
        };
        let unless_zero = |value: u64| if value == 0 { String::new() } else { count(value) };
        add("model", settings.model.clone());
        add("parameters without additional heads", unless_zero(settings.trunk_parameters));
        add("parameters of the additional heads", unless_zero(settings.head_parameters));
        add("kind of heads", settings.heads_kind.clone());
        add("heads, next-token head included (n)", unless_zero(settings.n as u64));
        let seeds = settings.seeds.iter().map(|seed| format!("{} {}", seed.name, seed.value));
        add("seeds", seeds.collect::<Vec<_>>().join(", "));
        add("threads", unless_zero(settings.threads as u64));
        add("machine", settings.machine.clone());
        for (name, value) in &settings.more {
            add(name, value.clone());
        }
        let table = Table { rows, ..Table::default() };
        (!table.rows.is_empty())
            .then(|| Section { heading: "Settings".into(), blocks: vec![Block::Table(table)] })
    }

    fn footer(&self) -> String {
        let version = self.version.as_ref().map(|version| format!("Made by sakiyomi {version}"));
        let measured = self.measured_at.as_ref().map(|time| format!("measured {time}"));
        let command = self.command.as_ref().map(|command| format!("again with `{command}`"));
        let parts: Vec<String> = [version, measured, command].into_iter().flatten().collect();
        if parts.is_empty() { String::new() } else { parts.join("; ") + "." }
    }
}

fn losslessness_fact(losslessness: &LosslessnessFigures) -> Fact {
    let note = format!(
        "{}, {} compared with plain decoding",
        counted(losslessness.prompts, "prompt"),
        counted(losslessness.bytes_compared, "byte")
    );
    let (value, tone) =
        if losslessness.identical { ("identical", Tone::Good) } else { ("differs", Tone::Bad) };
    Fact { label: "Text".into(), value: value.into(), note, tone }
}

fn decoding_facts(decoding: &DecodingFigures, n: usize) -> Vec<Fact> {
    let most = decoding.lengths.iter().max_by(|a, b| a.tokens_per_forward.total_cmp(&b.tokens_per_forward));
    let mut facts = Vec::new();
    if let Some(most) = most.filter(|most| most.draft_length > 0) {
        facts.push(Fact {
            label: "Tokens per forward".into(),
            value: fixed(most.tokens_per_forward, 2),
            note: match n {
                0 | 1 => format!("draft length {}", most.draft_length),
                _ => format!("draft length {}, limit {n}", most.draft_length),
            },
            ..Fact::default()
        });
    }
    let best = decoding.best().and_then(|best| Some((best, decoding.speedup(best)?)));
    if let Some((best, (speedup, ..))) = best {
        facts.push(Fact {
            label: "Speed against plain decoding".into(),
            value: times(speedup),
            note: format!("wall-clock, draft length {}", best.draft_length),
            tone: match speedup {
                ratio if ratio > 1.0 + NO_DIFFERENCE => Tone::Good,
                ratio if ratio < 1.0 - NO_DIFFERENCE => Tone::Bad,
                _ => Tone::Plain,
            },
        });
        let plain = decoding.plain().and_then(|plain| plain.median_tokens_per_second());
        if let Some((drafted, plain)) = best.median_tokens_per_second().zip(plain) {
            facts.push(Fact {
                label: "Tokens per second".into(),
                value: number(drafted),
                note: format!("plain: {}", number(plain)),
                ..Fact::default()
            });
        }
    }
    facts
}

fn tokens_per_forward_chart(decoding: &DecodingFigures, n: usize) -> Chart {
    let mut points: Vec<(f64, f64)> = decoding
        .lengths
        .iter()
        .map(|length| (length.draft_length as f64, length.tokens_per_forward))
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    LineChart {
        title: "Tokens per forward against draft length".into(),
        caption: "Committed tokens over trunk forwards, the verifier’s own token included. Plain decoding is draft length \
                  0: one token per forward."
            .into(),
        x_label: "drafted tokens per round".into(),
        y_label: "tokens per forward".into(),
        y_from_zero: true,
        series: vec![Series { name: "tokens per forward".into(), points, ..Series::default() }],
        reference: (n > 1)
            .then(|| Reference { value: n as f64, label: format!("limit with {n} heads: every draft accepted") }),
        ..LineChart::default()
    }
    .into()
}

fn speed_chart(decoding: &DecodingFigures) -> Chart {
    let bars = decoding.lengths.iter().map(|length| {
        let value = length.median_tokens_per_second()?;
        let several = length.tokens_per_second.len() > 1;
        Some(Bar { value, whisker: spread(&length.tokens_per_second).filter(|_| several) })
    });
    let plain = decoding.plain().and_then(|plain| plain.median_tokens_per_second());
    let repeats = decoding.lengths.iter().map(|length| length.tokens_per_second.len()).max().unwrap_or(0);
    BarChart {
        title: "Speed".into(),
        caption: match repeats {
            0 | 1 => "Measured once.".into(),
            _ => format!("Median of {repeats} repeats taken in turn; the whisker spans all of them."),
        },
        x_label: "drafted tokens per round".into(),
        y_label: "tokens per second".into(),
        categories: length_names(decoding),
        series: vec![BarSeries { name: String::new(), bars: bars.collect() }],
        reference: plain.map(|value| Reference { value, label: "plain".into() }),
    }
    .into()
}

fn acceptance_chart(decoding: &DecodingFigures) -> Chart {
    let bars = decoding.acceptance.iter().map(|depth| interval_bar(wilson_95(depth.accepted, depth.drafted)));
    let name = |depth: usize| match depth {
        1 => "1 (first)".to_string(),
        _ => depth.to_string(),
    };
    BarChart {
        title: "Acceptance at each draft position".into(),
        caption: "Accepted over drafted in rounds that reached the position, which means that all drafted tokens before it \
                  were accepted. Whiskers: 95 % Wilson intervals; neighbouring tokens depend on each other, so the truth is \
                  somewhat wider."
            .into(),
        x_label: "position in the draft".into(),
        y_label: "accepted, %".into(),
        categories: decoding.acceptance.iter().map(|depth| name(depth.depth)).collect(),
        series: vec![BarSeries { name: String::new(), bars: bars.collect() }],
        reference: None,
    }
    .into()
}

fn round_cost_chart(decoding: &DecodingFigures) -> Chart {
    let drafting = || decoding.lengths.iter().filter(|length| length.draft_length > 0);
    let bars = |value: &dyn Fn(&super::DraftLengthFigures) -> Option<f64>| {
        drafting().map(|length| value(length).map(Bar::new)).collect::<Vec<_>>()
    };
    BarChart {
        title: "What a round gives and what it costs".into(),
        caption: "Drafting pays where the left bar is higher than the right one: their ratio is the speed-up. Cost is the \
                  time of a round (heads, forward over several rows, verification) over the time of a plain forward."
            .into(),
        x_label: "drafted tokens per round".into(),
        y_label: "tokens, and plain forwards".into(),
        categories: drafting().map(|length| length.draft_length.to_string()).collect(),
        series: vec![
            BarSeries {
                name: "tokens committed per round".into(),
                bars: bars(&|length| Some(length.tokens_per_forward)),
            },
            BarSeries {
                name: "cost of a round in plain forwards".into(),
                bars: bars(&|length| decoding.round_cost(length)),
            },
        ],
        reference: None,
    }
    .into()
}

fn decoding_table(decoding: &DecodingFigures) -> Table {
    let row = |length: &super::DraftLengthFigures| {
        let speed = match (length.median_tokens_per_second(), spread(&length.tokens_per_second)) {
            (Some(middle), Some((low, high))) if low < high => {
                Cell::Number(format!("{} ({} to {})", number(middle), number(low), number(high)))
            }
            (Some(middle), _) => middle.into(),
            _ => Cell::Missing,
        };
        let drafting = length.draft_length > 0;
        let speedup =
            decoding.speedup(length).filter(|_| drafting).map_or(Cell::Missing, |(middle, low, high)| {
                Cell::Number(if low < high {
                    format!("{} ({} to {})", times(middle), fixed(low, 2), fixed(high, 2))
                } else {
                    times(middle)
                })
            });
        let cost = decoding.round_cost(length).filter(|_| drafting);
        vec![
            Cell::Text(length_name(length.draft_length)),
            Cell::Number(fixed(length.tokens_per_forward, 3)),
            cost.map_or(Cell::Missing, |cost| Cell::Number(fixed(cost, 2))),
            speed,
            speedup,
        ]
    };
    let columns =
        ["draft length", "tokens per forward", "cost of a round", "tokens per second", "against plain"];
    Table {
        caption: String::new(),
        columns: columns.map(String::from).to_vec(),
        rows: decoding.lengths.iter().map(row).collect(),
    }
}

fn losslessness_blocks(losslessness: &LosslessnessFigures) -> Vec<Block> {
    let prompts = counted(losslessness.prompts, "prompt");
    let compared = counted(losslessness.bytes_compared, "byte");
    let lengths: Vec<String> = losslessness.draft_lengths.iter().map(usize::to_string).collect();
    let with = match lengths.as_slice() {
        [] => "with drafts".to_string(),
        [one] => format!("with drafts of length {one}"),
        [most @ .., last] => format!("with drafts of lengths {} and {last}", most.join(", ")),
    };
    if losslessness.identical {
        return vec![Block::Text(format!(
            "Yes. {prompts} were continued plainly and {with}; all {compared} compared are identical."
        ))];
    }
    let mut blocks = vec![Block::Text(format!(
        "No. {prompts} were continued plainly and {with}; {compared} were compared, and the texts differ."
    ))];
    if let Some(first) = &losslessness.first_divergence {
        let rows = vec![
            pair("prompt", &first.prompt.to_string()),
            pair("draft length", &first.draft_length.to_string()),
            pair("byte of the continuation", &count(first.byte)),
            pair("plain decoding goes on", &first.plain),
            pair("decoding with drafts goes on", &first.drafted),
        ];
        blocks.push(Block::Table(Table { caption: "The first difference".into(), columns: vec![], rows }));
    }
    blocks
}

fn loss_chart(curves: &[HeadCurve]) -> Chart {
    let mut series = Vec::new();
    for (slot, curve) in curves.iter().enumerate() {
        let points = averaged(&curve.train);
        let slot = Some(slot);
        let name = ahead(curve.tokens_ahead);
        series.push(Series { name, points, band: None, style: SeriesStyle::Line, slot });
    }
    let mut has_held_out = false;
    for (slot, curve) in curves.iter().enumerate().filter(|(_, curve)| !curve.held_out.is_empty()) {
        let points = curve.held_out.iter().map(|point| (point.step as f64, point.loss)).collect();
        let name = format!("{}, held out", ahead(curve.tokens_ahead));
        series.push(Series { name, points, band: None, style: SeriesStyle::Markers, slot: Some(slot) });
        has_held_out = true;
    }
    let held_out = if has_held_out { " Markers: held-out text." } else { "" };
    LineChart {
        title: "Loss of each head during training".into(),
        caption: format!(
            "Lines: training batches, averaged over neighbouring steps where there are many.{held_out}"
        ),
        x_label: "step (optimiser updates)".into(),
        y_label: "cross-entropy, nats per token".into(),
        series,
        ..LineChart::default()
    }
    .into()
}

fn accuracy_chart(held_out: &HeldOutFigures) -> Chart {
    let bars = held_out.depths.iter().map(|depth| interval_bar(wilson_95(depth.correct, depth.targets)));
    BarChart {
        title: "Accuracy of each head on held-out text".into(),
        caption: "How often the most likely prediction is right, each head judged by itself. Whiskers: 95 % Wilson \
                  intervals."
            .into(),
        x_label: "tokens ahead".into(),
        y_label: "right, %".into(),
        categories: held_out.depths.iter().map(|depth| depth.tokens_ahead.to_string()).collect(),
        series: vec![BarSeries { name: String::new(), bars: bars.collect() }],
        reference: None,
    }
    .into()
}

fn depth_table(held_out: &HeldOutFigures) -> Table {
    let row = |depth: &super::DepthScore| {
        let accuracy = wilson_95(depth.correct, depth.targets)
            .map_or(Cell::Missing, |interval| Cell::Number(percent(interval.share)));
        let loss = if depth.loss.is_finite() { Cell::Number(fixed(depth.loss, 3)) } else { Cell::Missing };
        vec![Cell::Text(ahead(depth.tokens_ahead)), loss, accuracy, depth.targets.into()]
    };
    let columns = ["head", "held-out loss, nats per token", "accuracy", "targets"];
    Table {
        caption: String::new(),
        columns: columns.map(String::from).to_vec(),
        rows: held_out.depths.iter().map(row).collect(),
    }
}

/// A curve of at most [`CURVE_POINTS`] points: the mean of equal windows of steps. A window with a loss that is not finite
/// is not finite either, so that a run that diverged shows a gap and not a smooth line.
pub(super) fn averaged(curve: &[LossPoint]) -> Vec<(f64, f64)> {
    if curve.len() as u64 <= CURVE_POINTS {
        return curve.iter().map(|point| (point.step as f64, point.loss)).collect();
    }
    let window = curve.len().div_ceil(CURVE_POINTS as usize);
    let mean = |points: &[LossPoint]| {
        let size = points.len() as f64;
        let step = points.iter().map(|point| point.step as f64).sum::<f64>() / size;
        (step.round(), points.iter().map(|point| point.loss).sum::<f64>() / size)
    };
    curve.chunks(window).map(mean).collect()
}

/// The name of a head.
fn ahead(tokens: usize) -> String {
    match tokens {
        1 => "next token".to_string(),
        _ => format!("{tokens} ahead"),
    }
}

fn length_names(decoding: &DecodingFigures) -> Vec<String> {
    decoding.lengths.iter().map(|length| length_name(length.draft_length)).collect()
}

fn length_name(length: usize) -> String {
    if length == 0 { "0 (plain)".to_string() } else { length.to_string() }
}

fn interval_bar(interval: Option<Interval>) -> Option<Bar> {
    let interval = interval?;
    let whisker = Some((interval.low * 100.0, interval.high * 100.0));
    Some(Bar { value: interval.share * 100.0, whisker })
}

fn pair(name: &str, value: &str) -> Vec<Cell> {
    vec![Cell::from(name), Cell::from(value)]
}
