//! Bar chart: one or several bars per category, with whiskers for an interval or a spread and a reference line.

use serde::{Deserialize, Serialize};

use crate::chart::Reference;
use crate::frame::{
    FONT, Frame, INSET, LegendEntry, LegendSample, Words, draw_bar, point, text_width, wrapped,
};
use crate::number;
use crate::table::{Cell, Table};
use crate::ticks::Scale;

/// A bar is no wider than this, however few there are.
const BAR_WIDTH_MAX: f64 = 54.0;

/// A chart of categories. Its y axis always contains zero, since the length of a bar is what is read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BarChart {
    /// What is shown, in a few words.
    pub title: String,
    /// A sentence below the chart on how to read it; plain text.
    pub caption: String,
    /// What the categories are.
    pub x_label: String,
    /// Quantity and unit of the y axis.
    pub y_label: String,
    /// Names of the categories, from left to right.
    pub categories: Vec<String>,
    /// One bar per category each; several series stand side by side.
    pub series: Vec<BarSeries>,
    /// A horizontal line to compare with.
    pub reference: Option<Reference>,
}

/// The bars of one colour.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BarSeries {
    /// Name in the legend.
    pub name: String,
    /// A bar per category; `None` where nothing was measured.
    pub bars: Vec<Option<Bar>>,
}

/// One bar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    /// Its length.
    pub value: f64,
    /// `(low, high)` of its whisker: a confidence interval or the spread over repeats.
    pub whisker: Option<(f64, f64)>,
}

impl Bar {
    /// A bar without whisker.
    pub fn new(value: f64) -> Self {
        Self { value, whisker: None }
    }

    fn is_shown(&self) -> bool {
        self.value.is_finite()
    }

    /// Its whisker, if it can be drawn.
    fn finite_whisker(&self) -> Option<(f64, f64)> {
        self.whisker.filter(|(low, high)| low.is_finite() && high.is_finite())
    }
}

impl BarChart {
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
        let Some(y) = self.scale() else {
            return Frame::without_data(&words, standalone);
        };
        let mut frame = Frame::new(&words, &self.legend(), y, standalone);
        let places = self.places(&frame);
        for place in &places {
            let (zero, end) = (frame.y(0.0), frame.y(place.bar.value));
            let area = (place.x + 1.5, zero.min(end), (place.width - 3.0).max(1.0), (zero - end).abs());
            draw_bar(&mut frame.markup, place.slot, area, Some(&self.tooltip(place)));
        }
        frame.x_axis();
        let zero = frame.y(0.0);
        if zero < frame.bottom - 0.5 {
            let (left, right) = (frame.left, frame.right);
            frame.line("axis", (left, zero), (right, zero));
        }
        self.draw_categories(&mut frame);
        if let Some(reference) = self.finite_reference() {
            frame.reference(reference);
        }
        // Last, so that neither a neighbour nor the reference line covers them.
        places.iter().for_each(|place| draw_value(&mut frame, place));
        frame.markup.finish()
    }

    /// One row per category; the ends of a whisker stand behind its value.
    pub(crate) fn numbers(&self) -> Option<Table> {
        self.scale()?;
        let columns =
            std::iter::once(self.x_label.clone()).chain(self.series.iter().map(|series| {
                if series.name.is_empty() { self.y_label.clone() } else { series.name.clone() }
            }));
        let rows = self.categories.iter().enumerate().map(|(place, category)| {
            let cells = self.series.iter().map(|series| match series.bars.get(place).copied().flatten() {
                Some(bar) if bar.is_shown() => Cell::Number(shown(&bar)),
                _ => Cell::Missing,
            });
            std::iter::once(Cell::Text(category.clone())).chain(cells).collect()
        });
        Some(Table { caption: self.y_label.clone(), columns: columns.collect(), rows: rows.collect() })
    }

    /// Where each bar stands, from left to right within each series.
    fn places(&self, frame: &Frame) -> Vec<Place> {
        let slot_width = self.slot_width(frame);
        let width = (slot_width * 0.72 / self.series.len() as f64).min(BAR_WIDTH_MAX);
        let room = if self.series.len() == 1 { slot_width } else { width };
        let mut places = Vec::new();
        for (slot, series) in self.series.iter().enumerate() {
            let from_centre = (slot as f64 - self.series.len() as f64 / 2.0) * width;
            for category in 0..self.categories.len() {
                if let Some(bar) = series.bars.get(category).copied().flatten().filter(Bar::is_shown) {
                    let x = frame.left + INSET + (category as f64 + 0.5) * slot_width + from_centre;
                    places.push(Place { bar, slot, category, x, width, room });
                }
            }
        }
        places
    }

    /// The width of the plot that belongs to one category.
    fn slot_width(&self, frame: &Frame) -> f64 {
        (frame.right - frame.left - 2.0 * INSET) / self.categories.len() as f64
    }

    fn draw_categories(&self, frame: &mut Frame) {
        let slot_width = self.slot_width(frame);
        for (place, category) in self.categories.iter().enumerate() {
            let label = wrapped(category, slot_width, FONT, 1).concat();
            let centre = frame.left + INSET + (place as f64 + 0.5) * slot_width;
            frame.text("tick middle", centre, frame.bottom + 17.0, &label);
        }
    }

    fn tooltip(&self, place: &Place) -> String {
        let name = &self.series[place.slot].name;
        let between = if name.is_empty() { "" } else { ", " };
        format!("{}{between}{name}: {}", self.categories[place.category], shown(&place.bar))
    }

    /// From zero over all values and whiskers; `None` where there is none.
    fn scale(&self) -> Option<Scale> {
        let bars =
            self.series.iter().flat_map(|series| series.bars.iter().take(self.categories.len()).flatten());
        let shown: Vec<&Bar> = bars.filter(|bar| bar.is_shown()).collect();
        if shown.is_empty() {
            return None;
        }
        let whiskers =
            shown.iter().filter_map(|bar| bar.finite_whisker()).flat_map(|(low, high)| [low, high]);
        let reference = self.finite_reference().map(|reference| reference.value);
        let values = shown.iter().map(|bar| bar.value).chain(whiskers).chain(reference);
        let (low, high) = values.fold((0f64, 0f64), |(low, high), value| (low.min(value), high.max(value)));
        // Room above the longest bar for its number.
        Some(Scale::rounded(low, high * 1.06, 5, true))
    }

    fn finite_reference(&self) -> Option<&Reference> {
        self.reference.as_ref().filter(|reference| reference.value.is_finite())
    }

    fn legend(&self) -> Vec<LegendEntry<'_>> {
        if self.series.len() < 2 {
            return Vec::new();
        }
        let named = self.series.iter().enumerate().filter(|(_, series)| !series.name.is_empty());
        named
            .map(|(slot, series)| LegendEntry { name: &series.name, slot, sample: LegendSample::Bar })
            .collect()
    }

    /// The chart in words, for those who cannot see it.
    fn description(&self) -> String {
        let mut words = format!("Bar chart of {} by {}.", self.y_label, self.x_label);
        for series in &self.series {
            for (category, bar) in self.categories.iter().zip(&series.bars) {
                if let Some(bar) = bar.filter(Bar::is_shown) {
                    let name =
                        if series.name.is_empty() { String::new() } else { format!("{}, ", series.name) };
                    words.push_str(&format!(" {name}{category}: {}.", shown(&bar)));
                }
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

/// A bar and where it stands: its series, its category, its left edge and its width.
struct Place {
    bar: Bar,
    slot: usize,
    category: usize,
    x: f64,
    width: f64,
    /// The width that its number may take without running into the next one.
    room: f64,
}

/// The whisker of a bar and its number above.
fn draw_value(frame: &mut Frame, place: &Place) {
    let centre = place.x + place.width / 2.0;
    let mut top = frame.y(place.bar.value).min(frame.y(0.0));
    if let Some((low, high)) = place.bar.finite_whisker() {
        let (low, high) = (frame.y(low), frame.y(high));
        let cap = (place.width * 0.18).min(7.0);
        let stroke =
            |from: (f64, f64), to: (f64, f64)| format!("M{}L{}", point(from.0, from.1), point(to.0, to.1));
        let path = stroke((centre, low), (centre, high))
            + &stroke((centre - cap, low), (centre + cap, low))
            + &stroke((centre - cap, high), (centre + cap, high));
        // The half that lies on the bar needs an edge to be seen.
        for class in ["whisker-edge", "whisker"] {
            frame.markup.element("path").word("class", class).word("d", &path).empty();
        }
        top = top.min(high);
    }
    let value = number::number(place.bar.value);
    if text_width(&value, FONT) <= place.room {
        frame.text("value middle halo", centre, top - 5.0, &value);
    }
}

/// A bar in words: `71.3 (69.8 to 72.7)`.
fn shown(bar: &Bar) -> String {
    match bar.finite_whisker() {
        Some((low, high)) => {
            format!("{} ({} to {})", number::number(bar.value), number::number(low), number::number(high))
        }
        None => number::number(bar.value),
    }
}
