//! The charts of one run.

use super::page::length_name;
use super::{DecodingFigures, DraftLengthFigures, HeadCurve, HeldOutFigures, LooksAhead, LossPoint, spread};
use crate::bar_chart::{Bar, BarChart, BarSeries};
use crate::chart::{Chart, Reference};
use crate::line_chart::{LineChart, Series, SeriesStyle};
use crate::number::{counted, fixed};
use crate::wilson::{Interval, wilson_95};

/// Points of a training curve after averaging: more are noise at the size of the drawing.
const CURVE_POINTS: usize = 120;
/// The part of the training that is not drawn: its losses, several times all later ones, would press these together.
const STEPS_LEFT_OUT: f64 = 0.03;

pub(super) fn tokens_per_forward_chart(decoding: &DecodingFigures, n: usize) -> Chart {
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

pub(super) fn speed_chart(decoding: &DecodingFigures) -> Chart {
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

pub(super) fn acceptance_chart(decoding: &DecodingFigures) -> Chart {
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

pub(super) fn round_cost_chart(decoding: &DecodingFigures) -> Chart {
    let drafting = || decoding.lengths.iter().filter(|length| length.draft_length > 0);
    let bars = |value: &dyn Fn(&DraftLengthFigures) -> Option<f64>| {
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

/// One line per prediction for training batches, markers in its colour for held-out text.
pub(super) fn loss_chart(curves: &[HeadCurve], looks_ahead: LooksAhead) -> Chart {
    let (from_step, left_out) = first_step_drawn(curves);
    let mut series = Vec::new();
    for (slot, curve) in curves.iter().enumerate() {
        let start = curve.train.partition_point(|point| point.step < from_step);
        let points = averaged(&curve.train[start..]);
        let name = looks_ahead.name(slot == 0, curve.tokens_ahead);
        series.push(Series { name, points, band: None, style: SeriesStyle::Line, slot: Some(slot) });
    }
    let mut has_held_out = false;
    for (slot, curve) in curves.iter().enumerate().filter(|(_, curve)| !curve.held_out.is_empty()) {
        let drawn = curve.held_out.iter().filter(|point| point.step >= from_step);
        let points = drawn.map(|point| (point.step as f64, point.loss)).collect();
        let name = format!("{}, held out", looks_ahead.name(slot == 0, curve.tokens_ahead));
        series.push(Series { name, points, band: None, style: SeriesStyle::Markers, slot: Some(slot) });
        has_held_out = true;
    }
    let held_out = if has_held_out { " Markers: held-out text." } else { "" };
    LineChart {
        title: format!("Loss of {} during training", looks_ahead.all()),
        caption: format!(
            "Lines: training batches, averaged over neighbouring steps where there are many.{held_out}{left_out}"
        ),
        x_label: "step (optimiser updates)".into(),
        y_label: "cross-entropy, nats per token".into(),
        series,
        ..LineChart::default()
    }
    .into()
}

/// The first step to draw, and a sentence on what is left out before it; step 0 and none for a short training.
fn first_step_drawn(curves: &[HeadCurve]) -> (u64, String) {
    let longest = curves.iter().map(|curve| &curve.train).max_by_key(|train| train.len());
    match longest.map(|train| (train.first(), train.last(), train.len())) {
        Some((Some(first), Some(last), points)) if points > CURVE_POINTS => {
            let left_out = (last.step as f64 * STEPS_LEFT_OUT) as u64;
            let words = format!(
                " The first {} are not drawn; the next-token loss began at {}.",
                counted(left_out, "step"),
                fixed(curves[0].train.first().unwrap_or(first).loss, 2)
            );
            (left_out, words)
        }
        _ => (0, String::new()),
    }
}

pub(super) fn accuracy_chart(held_out: &HeldOutFigures, looks_ahead: LooksAhead) -> Chart {
    let bars = held_out.depths.iter().map(|depth| interval_bar(wilson_95(depth.correct, depth.targets)));
    let numbered = held_out.depths.iter().enumerate();
    let categories = numbered.map(|(index, depth)| looks_ahead.place(index == 0, depth.tokens_ahead));
    BarChart {
        title: format!("Accuracy of {} on held-out text", looks_ahead.all()),
        caption: "How often the most likely prediction is right, each judged by itself. Whiskers: 95 % Wilson intervals."
            .into(),
        x_label: "tokens ahead".into(),
        y_label: "right, %".into(),
        categories: categories.collect(),
        series: vec![BarSeries { name: String::new(), bars: bars.collect() }],
        reference: None,
    }
    .into()
}

/// A curve of at most [`CURVE_POINTS`] points: the mean of equal windows of steps. A window with a loss that is not finite
/// is not finite either, so that a run that diverged shows a gap and not a smooth line.
pub(super) fn averaged(curve: &[LossPoint]) -> Vec<(f64, f64)> {
    if curve.len() <= CURVE_POINTS {
        return curve.iter().map(|point| (point.step as f64, point.loss)).collect();
    }
    let window = curve.len().div_ceil(CURVE_POINTS);
    let mean = |points: &[LossPoint]| {
        let size = points.len() as f64;
        let step = points.iter().map(|point| point.step as f64).sum::<f64>() / size;
        (step.round(), points.iter().map(|point| point.loss).sum::<f64>() / size)
    };
    curve.chunks(window).map(mean).collect()
}

fn length_names(decoding: &DecodingFigures) -> Vec<String> {
    decoding.lengths.iter().map(|length| length_name(length.draft_length)).collect()
}

fn interval_bar(interval: Option<Interval>) -> Option<Bar> {
    let interval = interval?;
    let whisker = Some((interval.low * 100.0, interval.high * 100.0));
    Some(Bar { value: interval.share * 100.0, whisker })
}
