//! The charts of variants that differ in the last axis only.

use super::{Estimate, VariantFigures};
use crate::bar_chart::{Bar, BarChart, BarSeries};
use crate::chart::{Chart, Reference};
use crate::line_chart::{LineChart, Series, SeriesStyle};

/// What is drawn of variants that differ in the last axis only.
pub(super) fn charts(variants: &[&VariantFigures]) -> Vec<Chart> {
    let numbered = || variants.iter().copied().enumerate();
    let mut charts: Vec<Chart> = Vec::new();
    let drafting: Vec<Series> = numbered()
        .filter(|(_, variant)| !variant.tokens_per_forward.is_empty())
        .map(|(slot, variant)| {
            let plain = Estimate { mean: 1.0, deviation: None };
            let lengths = std::iter::once(plain).chain(variant.tokens_per_forward.iter().copied());
            line(slot, variant, lengths.enumerate().collect())
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
    charts.push(bars(
        variants,
        |variant| variant.loss.first().copied().flatten(),
        BarChart {
            title: "Next-token loss".into(),
            caption: "On held-out text; the whisker is one standard deviation over seeds.".into(),
            y_label: "cross-entropy, nats per token".into(),
            ..BarChart::default()
        },
    ));
    charts.extend(losses_ahead(variants));
    if variants.iter().any(|variant| !variant.speedup.is_empty()) {
        charts.push(bars(
            variants,
            |variant| variant.best_speedup().map(|(_, speedup)| speedup),
            BarChart {
                title: "Speed against plain decoding".into(),
                caption: "Each variant with its best draft length, in turn with plain decoding.".into(),
                y_label: "times the speed of plain decoding".into(),
                reference: Some(Reference { value: 1.0, label: "plain".into() }),
                ..BarChart::default()
            },
        ));
    }
    charts
}

/// A chart with a bar for what `value` gives of each variant.
fn bars(
    variants: &[&VariantFigures],
    value: impl Fn(&VariantFigures) -> Option<Estimate>,
    chart: BarChart,
) -> Chart {
    let bar = |variant: &&VariantFigures| {
        let value = value(variant)?;
        Some(Bar { value: value.mean, whisker: value.deviation.map(|_| value.ends()) })
    };
    BarChart {
        x_label: "variant".into(),
        categories: variants.iter().map(|variant| variant.line()).collect(),
        series: vec![BarSeries { name: String::new(), bars: variants.iter().map(bar).collect() }],
        ..chart
    }
    .into()
}

/// Losses where they lie; `None` where there is the next token only.
fn losses_ahead(variants: &[&VariantFigures]) -> Option<Chart> {
    let farther = |variant: &&VariantFigures| variant.loss.iter().skip(1).any(Option::is_some);
    if !variants.iter().any(farther) {
        return None;
    }
    let caption = "On held-out text, over the seeds that had something to predict so far ahead; the band is one \
                   standard deviation.";
    let apart =
        "Where another prediction lies 1 ahead too, the model’s own next token is a marker by itself.";
    let chart = LineChart {
        title: "Loss by tokens ahead".into(),
        caption: match variants.iter().any(|variant| next_token_stands_apart(variant)) {
            true => format!("{caption} {apart}"),
            false => caption.into(),
        },
        x_label: "tokens ahead".into(),
        y_label: "cross-entropy, nats per token".into(),
        series: variants.iter().enumerate().flat_map(|(slot, variant)| losses(slot, variant)).collect(),
        ..LineChart::default()
    };
    Some(chart.into())
}

/// The losses of one variant that were measured: a line, and the next token by itself where it stands apart.
fn losses(slot: usize, variant: &VariantFigures) -> Vec<Series> {
    let at = |index: usize| Some((variant.ahead(index), variant.loss[index]?));
    let line_from = usize::from(next_token_stands_apart(variant));
    let next = line(slot, variant, (0..line_from).filter_map(at).collect());
    let farther = line(slot, variant, (line_from..variant.loss.len()).filter_map(at).collect());
    let next =
        Series { name: format!("{}, next token", variant.line()), style: SeriesStyle::Markers, ..next };
    [farther, next].into_iter().filter(|series| !series.points.is_empty()).collect()
}

/// Whether the second depth lies as far ahead as the first, as a register with offset 1 does, and joint heads do: a line
/// through both would go straight up.
fn next_token_stands_apart(variant: &VariantFigures) -> bool {
    variant.loss.len() > 1 && variant.ahead(0) == variant.ahead(1)
}

/// A line through `points`, each with its place on the x axis.
fn line(slot: usize, variant: &VariantFigures, points: Vec<(usize, Estimate)>) -> Series {
    let band = points.iter().any(|(_, estimate)| estimate.deviation.is_some());
    Series {
        name: variant.line(),
        points: points.iter().map(|&(at, estimate)| (at as f64, estimate.mean)).collect(),
        band: band.then(|| points.iter().map(|(_, estimate)| estimate.ends()).collect()),
        slot: Some(slot),
        ..Series::default()
    }
}
