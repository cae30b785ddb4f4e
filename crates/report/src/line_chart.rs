//! Line chart: one or several series over a linear or logarithmic x axis, with interval bands and a reference line.

use serde::{Deserialize, Serialize};

use crate::chart::{Reference, SLOTS};
use crate::frame::{Frame, LegendEntry, LegendSample, Words, curve_class, draw_marker, point};
use crate::number;
use crate::table::{Cell, Table};
use crate::ticks::Scale;

/// Up to this many points of a series are marked one by one; beyond, only some are, to tell the series apart.
const MARKED_POINTS_MAX: usize = 40;
/// Markers on a long line.
const MARKERS_ON_LONG_LINE: usize = 6;
/// More rows than this are not shown as a table below the chart.
const TABLE_ROWS_MAX: usize = 60;

/// A chart of values along a continuous axis. Values that are not finite, and on a logarithmic axis those not above zero,
/// are left out and interrupt the line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LineChart {
    /// What is shown, in a few words.
    pub title: String,
    /// A sentence below the chart on how to read it; plain text.
    pub caption: String,
    /// Quantity and unit of the x axis.
    pub x_label: String,
    /// Quantity and unit of the y axis.
    pub y_label: String,
    /// Logarithmic x axis.
    pub log_x: bool,
    /// Whether the y axis must begin at zero; it does anyway where the values are near it.
    pub y_from_zero: bool,
    /// The lines, in the order of the legend.
    pub series: Vec<Series>,
    /// A horizontal line to compare with.
    pub reference: Option<Reference>,
}

/// One line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// `(x, y)`, ascending in x.
    pub points: Vec<(f64, f64)>,
    /// `(low, high)` of each point, drawn as a shaded band; as long as `points`.
    pub band: Option<Vec<(f64, f64)>>,
    /// Line, markers or both.
    pub style: SeriesStyle,
    /// Colour, dash and marker (modulo 7); the place among the series unless two series belong together.
    pub slot: Option<usize>,
}

/// How a series is drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeriesStyle {
    /// A line with markers: on each point where there are few, here and there where there are many.
    #[default]
    LineAndMarkers,
    /// A line only.
    Line,
    /// Markers only: measurements taken now and then.
    Markers,
}

impl LineChart {
    /// The chart as an SVG file of its own.
    pub fn svg(&self) -> String {
        self.draw(true)
    }

    pub(crate) fn draw(&self, standalone: bool) -> String {
        let description = self.description();
        let words = Words {
            title: &self.title,
            description: &description,
            x_label: &self.x_label,
            y_label: &self.y_label,
        };
        let Some((x, y)) = self.scales() else {
            return Frame::without_data(&words, standalone);
        };
        let mut frame = Frame::new(&words, &self.legend(), y, standalone);
        for (value, label) in &x.ticks {
            let at = frame.x(x.place(*value));
            frame.x_tick(at, label);
        }
        frame.x_axis();
        for (index, series) in self.series.iter().enumerate() {
            draw_band(&mut frame, &x, series, series.slot.unwrap_or(index));
        }
        if let Some(reference) = self.finite_reference() {
            frame.reference(reference);
        }
        for (index, series) in self.series.iter().enumerate() {
            draw_series(&mut frame, &x, series, series.slot.unwrap_or(index));
        }
        frame.markup.finish()
    }

    /// One row per x that occurs, one column per series.
    pub(crate) fn numbers(&self) -> Option<Table> {
        let series: Vec<&Series> = self.series.iter().filter(|series| !series.points.is_empty()).collect();
        let mut places: Vec<f64> =
            series.iter().flat_map(|series| &series.points).map(|point| point.0).collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        if places.is_empty() || places.len() > TABLE_ROWS_MAX {
            return None;
        }
        let columns = std::iter::once(&self.x_label).chain(series.iter().map(|series| &series.name));
        let row = |&x: &f64| {
            let value = |series: &&Series| {
                let found = series.points.iter().find(|point| point.0 == x);
                found.map_or(Cell::Missing, |point| Cell::from(point.1))
            };
            std::iter::once(Cell::from(x)).chain(series.iter().map(value)).collect()
        };
        let rows = places.iter().map(row).collect();
        Some(Table { caption: self.y_label.clone(), columns: columns.cloned().collect(), rows })
    }

    /// The ranges of all values; `None` where there is none.
    fn scales(&self) -> Option<(Scale, Scale)> {
        let points =
            || self.series.iter().flat_map(|series| &series.points).filter(|point| self.shows(point));
        let (x_low, x_high) = range(points().map(|point| point.0))?;
        let bands = self.series.iter().flat_map(|series| series.band.iter().flatten());
        let ends = bands.flat_map(|&(low, high)| [low, high]).filter(|end| end.is_finite());
        let reference = self.finite_reference().map(|reference| reference.value);
        let (y_low, y_high) = range(points().map(|point| point.1).chain(ends).chain(reference))?;
        let whole = points().all(|point| point.0.fract() == 0.0);
        let x = if self.log_x {
            Scale::logarithmic(x_low, x_high)
        } else {
            Scale::linear(x_low, x_high, 6, whole)
        };
        Some((x, Scale::rounded(y_low, y_high, 5, self.y_from_zero)))
    }

    fn shows(&self, &(x, y): &(f64, f64)) -> bool {
        x.is_finite() && y.is_finite() && (!self.log_x || x > 0.0)
    }

    fn finite_reference(&self) -> Option<&Reference> {
        self.reference.as_ref().filter(|reference| reference.value.is_finite())
    }

    /// A legend is needed where there is something to tell apart. An unnamed series has no entry, and markers that share
    /// the slot of a line stand in the entry of the line: which is which the caption says.
    fn legend(&self) -> Vec<LegendEntry<'_>> {
        if self.series.len() < 2 {
            return Vec::new();
        }
        let slot_of = |index: usize| self.series[index].slot.unwrap_or(index);
        let is_markers = |index: usize| self.series[index].style == SeriesStyle::Markers;
        let has = |slot: usize, markers: bool| {
            (0..self.series.len()).any(|other| slot_of(other) == slot && is_markers(other) == markers)
        };
        let numbered = self.series.iter().enumerate().filter(|(_, series)| !series.name.is_empty());
        numbered
            .filter_map(|(index, series)| {
                let slot = slot_of(index);
                let sample = match series.style {
                    SeriesStyle::Markers if has(slot, false) => return None,
                    SeriesStyle::Markers => LegendSample::Marker,
                    SeriesStyle::Line => LegendSample::Line { marker: has(slot, true) },
                    SeriesStyle::LineAndMarkers => LegendSample::Line { marker: true },
                };
                Some(LegendEntry { name: &series.name, slot, sample })
            })
            .collect()
    }

    /// The chart in words, for those who cannot see it.
    fn description(&self) -> String {
        let mut words = format!("Line chart of {} against {}.", self.y_label, self.x_label);
        for series in &self.series {
            let shown: Vec<&(f64, f64)> = series.points.iter().filter(|point| self.shows(point)).collect();
            if let (Some(first), Some(last)) = (shown.first(), shown.last()) {
                let name = if series.name.is_empty() { "the values" } else { &series.name };
                let [x0, y0, x1, y1] = [first.0, first.1, last.0, last.1].map(number::number);
                words.push_str(&format!(" {name}: from {y0} at {x0} to {y1} at {x1}."));
            }
        }
        if let Some(reference) = self.finite_reference() {
            words.push_str(&format!(
                " Reference line at {}: {}.",
                number::number(reference.value),
                reference.label
            ));
        }
        words
    }
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |range, value| match range {
        None => Some((value, value)),
        Some((low, high)) => Some((low.min(value), high.max(value))),
    })
}

fn draw_band(frame: &mut Frame, x: &Scale, series: &Series, slot: usize) {
    let Some(band) = &series.band else { return };
    let ends = series.points.iter().zip(band);
    let shown: Vec<(f64, f64, f64)> = ends
        .filter(|(at, (low, high))| x.shows(at.0) && low.is_finite() && high.is_finite())
        .map(|(at, (low, high))| (frame.x(x.place(at.0)), frame.y(*low), frame.y(*high)))
        .collect();
    if shown.len() < 2 {
        return;
    }
    let upper = shown.iter().map(|&(x, _, high)| point(x, high));
    let lower = shown.iter().rev().map(|&(x, low, _)| point(x, low));
    let path = format!("M{}Z", upper.chain(lower).collect::<Vec<_>>().join("L"));
    let class = format!("band c{}", slot % SLOTS);
    frame.markup.element("path").word("class", &class).word("d", &path).empty();
}

fn draw_series(frame: &mut Frame, x: &Scale, series: &Series, slot: usize) {
    let shows = |at: &(f64, f64)| x.shows(at.0) && at.1.is_finite();
    let runs: Vec<&[(f64, f64)]> =
        series.points.split(|at| !shows(at)).filter(|run: &&[(f64, f64)]| !run.is_empty()).collect();
    if series.style != SeriesStyle::Markers {
        let mut path = String::new();
        for run in runs.iter().filter(|run| run.len() > 1) {
            let places: Vec<String> =
                run.iter().map(|at| point(frame.x(x.place(at.0)), frame.y(at.1))).collect();
            path.push_str(&format!("M{}", places.join("L")));
        }
        if !path.is_empty() {
            let class = curve_class(slot);
            frame.markup.element("path").word("class", &class).word("d", &path).empty();
        }
    }
    let shown: Vec<&(f64, f64)> = runs.iter().flat_map(|run| run.iter()).collect();
    let every = match series.style {
        // A lone point makes no line: without its marker it would vanish.
        SeriesStyle::Line if shown.len() > 1 => return,
        SeriesStyle::LineAndMarkers if shown.len() > MARKED_POINTS_MAX => {
            shown.len().div_ceil(MARKERS_ON_LONG_LINE)
        }
        _ => 1,
    };
    // Markers of several long lines must not stand above each other.
    let offset = if every > 1 { every * (slot % SLOTS + 1) / (SLOTS + 1) } else { 0 };
    for at in shown.iter().skip(offset).step_by(every) {
        let name = if series.name.is_empty() { String::new() } else { format!("{}: ", series.name) };
        let tooltip = format!("{name}{} at {}", number::number(at.1), number::number(at.0));
        let place = (frame.x(x.place(at.0)), frame.y(at.1));
        draw_marker(&mut frame.markup, slot, place.0, place.1, Some(&tooltip));
    }
}
