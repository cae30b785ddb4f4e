//! The page of several runs: one table and three charts in which each run is a row or a line.

use super::charts::averaged;
use super::{DecodingFigures, MainJobFigures};
use crate::bar_chart::{Bar, BarChart, BarSeries};
use crate::chart::{Chart, Reference};
use crate::line_chart::{LineChart, Series, SeriesStyle};
use crate::number::{count, fixed, times};
use crate::page::{Block, Page, Section};
use crate::table::{Cell, Table};

/// A page that compares `runs` and then shows each of them; a single run is shown alone.
pub fn comparison_page(title: &str, runs: &[MainJobFigures]) -> Page {
    if let [run] = runs {
        return run.page();
    }
    let overview = Section {
        heading: "All runs".into(),
        blocks: vec![Block::Table(table(runs)), Block::Charts(charts(runs))],
    };
    let mut sections = vec![overview];
    for run in runs {
        let page = run.page();
        sections.extend(
            page.sections
                .into_iter()
                .map(|section| Section { heading: format!("{}: {}", run.title, section.heading), ..section }),
        );
    }
    Page {
        title: title.to_string(),
        lead: format!("{} runs side by side, then each by itself.", runs.len()),
        summary: Vec::new(),
        sections,
        data: serde_json::to_value(runs).expect("figures are plain data"),
        footer: String::new(),
    }
}

fn table(runs: &[MainJobFigures]) -> Table {
    let columns =
        ["run", "heads", "n", "parameters", "bits per byte", "tokens per forward", "against plain", "text"];
    let row = |run: &MainJobFigures| {
        let best = run.decoding.as_ref().and_then(|decoding| decoding.best().map(|best| (decoding, best)));
        let speedup = best.and_then(|(decoding, best)| decoding.speedup(best));
        let bits = run.held_out.as_ref().and_then(|held_out| held_out.next_token_bits_per_byte);
        let known = |value: u64| if value == 0 { Cell::Missing } else { Cell::Number(count(value)) };
        let shown = |value: Option<String>| value.map_or(Cell::Missing, Cell::Number);
        vec![
            Cell::Text(run.title.clone()),
            Cell::Text(run.settings.heads_kind.clone()),
            if run.settings.looks_ahead.stays() { known(run.settings.n as u64) } else { Cell::Missing },
            known(run.settings.parameters()),
            shown(bits.map(|bits| fixed(bits, 3))),
            shown(run.decoding.as_ref().and_then(most_tokens_per_forward).map(|most| fixed(most, 2))),
            shown(speedup.map(|(middle, ..)| times(middle))),
            run.losslessness.as_ref().map_or(Cell::Missing, |losslessness| {
                Cell::from(if losslessness.identical { "identical" } else { "differs" })
            }),
        ]
    };
    Table {
        caption: "Tokens per forward and speed with each run’s best draft length.".into(),
        columns: columns.map(String::from).to_vec(),
        rows: runs.iter().map(row).collect(),
    }
}

/// Only the charts for which some run has numbers.
fn charts(runs: &[MainJobFigures]) -> Vec<Chart> {
    let mut charts = Vec::new();
    let loss = next_token_loss(runs);
    if !loss.is_empty() {
        let chart = LineChart {
            title: "Next-token loss during training".into(),
            caption: "Held-out text where it was measured, else training batches.".into(),
            x_label: "step (optimiser updates)".into(),
            y_label: "cross-entropy, nats per token".into(),
            series: loss,
            ..LineChart::default()
        };
        charts.push(chart.into());
    }
    if runs.iter().any(|run| run.decoding.is_some()) {
        charts.push(tokens_per_forward(runs));
        charts.push(speedups(runs));
    }
    charts
}

fn next_token_loss(runs: &[MainJobFigures]) -> Vec<Series> {
    let numbered = runs.iter().enumerate();
    let curves = numbered.filter_map(|(slot, run)| Some((slot, run, run.training.as_ref()?.heads.first()?)));
    curves
        .map(|(slot, run, curve)| {
            let source = if curve.held_out.is_empty() { &curve.train } else { &curve.held_out };
            Series {
                name: run.title.clone(),
                points: averaged(source),
                slot: Some(slot),
                style: SeriesStyle::LineAndMarkers,
                band: None,
            }
        })
        .collect()
}

fn tokens_per_forward(runs: &[MainJobFigures]) -> Chart {
    let numbered = runs.iter().enumerate();
    let series = numbered.filter_map(|(slot, run)| {
        let lengths = &run.decoding.as_ref()?.lengths;
        let mut points: Vec<(f64, f64)> =
            lengths.iter().map(|length| (length.draft_length as f64, length.tokens_per_forward)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Some(Series { name: run.title.clone(), points, slot: Some(slot), ..Series::default() })
    });
    LineChart {
        title: "Tokens per forward against draft length".into(),
        x_label: "drafted tokens per round".into(),
        y_label: "tokens per forward".into(),
        y_from_zero: true,
        series: series.collect(),
        ..LineChart::default()
    }
    .into()
}

fn speedups(runs: &[MainJobFigures]) -> Chart {
    let bar = |run: &MainJobFigures| {
        let decoding = run.decoding.as_ref()?;
        let (value, low, high) = decoding.speedup(decoding.best()?)?;
        Some(Bar { value, whisker: (low < high).then_some((low, high)) })
    };
    BarChart {
        title: "Speed against plain decoding".into(),
        caption: "Each run with its best draft length; the whisker spans all repeats.".into(),
        x_label: "run".into(),
        y_label: "times the speed of plain decoding".into(),
        categories: runs.iter().map(|run| run.title.clone()).collect(),
        series: vec![BarSeries { name: String::new(), bars: runs.iter().map(bar).collect() }],
        reference: Some(Reference { value: 1.0, label: "plain".into() }),
    }
    .into()
}

/// With the best draft length; the longest where nothing was timed.
fn most_tokens_per_forward(decoding: &DecodingFigures) -> Option<f64> {
    let drafting = decoding.lengths.iter().filter(|length| length.draft_length > 0);
    let longest = drafting.max_by_key(|length| length.draft_length);
    decoding.best().or(longest).map(|length| length.tokens_per_forward)
}
