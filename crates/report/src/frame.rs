//! The frame of a chart: heading, legend, grid, axes and their labels. What is drawn inside it is the chart's own matter.

use crate::chart::{Reference, SLOTS, STYLE};
use crate::markup::Markup;
use crate::ticks::Scale;

/// Size of the drawing in its own units; on a page it takes the width that it is given.
pub(crate) const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 312.0;

pub(crate) const FONT: f64 = 12.0;
const LINE: f64 = 17.0;
const RIGHT: f64 = WIDTH - 14.0;
/// Around a chart that is a file of its own.
const MARGIN: f64 = 16.0;
/// Between the label of the y axis and the highest tick.
const Y_LABEL_GAP: f64 = 17.0;
/// Values at the very ends of the x axis keep this distance from the edges of the plot.
pub(crate) const INSET: f64 = 12.0;

/// What is written around a chart.
pub(crate) struct Words<'a> {
    pub title: &'a str,
    pub description: &'a str,
    pub x_label: &'a str,
    pub y_label: &'a str,
}

/// One entry of a legend.
pub(crate) struct LegendEntry<'a> {
    pub name: &'a str,
    pub slot: usize,
    pub sample: LegendSample,
}

/// What a legend draws before a name.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum LegendSample {
    Line { marker: bool },
    Marker,
    Bar,
}

/// A chart being drawn; the plot lies between the four edges.
pub(crate) struct Frame {
    pub markup: Markup,
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
    y: Scale,
}

impl Frame {
    /// Draws everything but the x axis and the values.
    pub fn new(words: &Words, legend: &[LegendEntry], y: Scale, standalone: bool) -> Self {
        let mut markup = begin(words, standalone);
        let mut baseline = draw_heading(&mut markup, words.title);
        baseline = draw_legend(&mut markup, legend, baseline);
        if !words.y_label.is_empty() {
            baseline += LINE + 2.0;
            markup
                .element("text")
                .word("class", "label")
                .number("x", 0.0)
                .number("y", baseline)
                .text(words.y_label);
        }
        let tick_width = y.ticks.iter().map(|(_, label)| text_width(label, FONT)).fold(0.0, f64::max);
        let left = tick_width + 10.0;
        let bottom = HEIGHT - if words.x_label.is_empty() { 26.0 } else { 46.0 };
        if !words.x_label.is_empty() {
            let label = markup.element("text").word("class", "label middle");
            label.number("x", (left + RIGHT) / 2.0).number("y", HEIGHT - 6.0).text(words.x_label);
        }
        let mut frame = Self { markup, left, right: RIGHT, top: baseline + Y_LABEL_GAP, bottom, y };
        frame.draw_grid();
        frame
    }

    /// A chart without values: it says so, instead of showing empty axes that look like a measurement of nothing.
    pub fn without_data(words: &Words, standalone: bool) -> String {
        let mut markup = begin(words, standalone);
        draw_heading(&mut markup, words.title);
        let area = markup.element("rect").word("class", "nothing").number("x", 0.5).number("y", 48.0);
        area.number("width", WIDTH - 1.0).number("height", HEIGHT - 60.0).word("rx", "6").empty();
        let note = markup.element("text").word("class", "note middle");
        note.number("x", WIDTH / 2.0).number("y", HEIGHT / 2.0 + 22.0).text("no data");
        markup.finish()
    }

    /// The y coordinate of a value.
    pub fn y(&self, value: f64) -> f64 {
        self.bottom - self.y.place(value).clamp(0.0, 1.0) * (self.bottom - self.top)
    }

    /// The x coordinate of a place (0 to 1) on the x axis.
    pub fn x(&self, place: f64) -> f64 {
        self.left + INSET + place * (self.right - self.left - 2.0 * INSET)
    }

    pub fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let line = self.markup.element("line").word("class", class);
        line.number("x1", from.0).number("y1", from.1).number("x2", to.0).number("y2", to.1).empty();
    }

    pub fn text(&mut self, class: &str, x: f64, y: f64, text: &str) {
        self.markup.element("text").word("class", class).number("x", x).number("y", y).text(text);
    }

    /// A tick mark on the x axis with its label.
    pub fn x_tick(&mut self, x: f64, label: &str) {
        let bottom = self.bottom;
        self.line("axis", (x, bottom), (x, bottom + 4.0));
        self.text("tick middle", x, bottom + LINE, label);
    }

    /// The line of the x axis, drawn last so that bars stand behind it.
    pub fn x_axis(&mut self) {
        let (left, right, bottom) = (self.left, self.right, self.bottom);
        self.line("axis", (left, bottom), (right, bottom));
    }

    /// The reference line and what it is; at the left end, where curves of this product seldom are.
    pub fn reference(&mut self, reference: &Reference) {
        let y = self.y(reference.value);
        let (left, right) = (self.left, self.right);
        self.line("reference", (left, y), (right, y));
        let above = y - 6.0;
        // Above the line, unless that would touch the y label.
        let baseline = if above - FONT < self.top - Y_LABEL_GAP { y + 15.0 } else { above };
        self.text("note halo", left + 6.0, baseline, &reference.label);
    }

    fn draw_grid(&mut self) {
        for (value, label) in self.y.ticks.clone() {
            let y = self.y(value);
            let (left, right) = (self.left, self.right);
            self.line("grid", (left, y), (right, y));
            self.text("tick end", left - 7.0, y + 4.5, &label);
        }
    }
}

/// A marker centred on a point; its shape goes with its slot.
pub(crate) fn draw_marker(markup: &mut Markup, slot: usize, x: f64, y: f64, tooltip: Option<&str>) {
    let class = format!("marker c{}", slot % SLOTS);
    let r = 4.4;
    let path = |corners: &[(f64, f64)]| {
        let points: Vec<String> = corners.iter().map(|(dx, dy)| point(x + dx * r, y + dy * r)).collect();
        format!("M{}Z", points.join("L"))
    };
    let shape = match slot % SLOTS {
        // A circle as a path, so that all shapes are one kind of element: two half arcs.
        0 => format!("M{}a{r} {r} 0 1 0 8.8 0a{r} {r} 0 1 0 -8.8 0Z", point(x - r, y)),
        1 => path(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]),
        2 => path(&[(0.0, -1.2), (1.15, 0.9), (-1.15, 0.9)]),
        3 => path(&[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)]),
        4 => path(&[(0.0, 1.2), (1.15, -0.9), (-1.15, -0.9)]),
        5 => path(&[(-1.2, 0.0), (0.9, -1.15), (0.9, 1.15)]),
        _ => path(&[(1.2, 0.0), (-0.9, -1.15), (-0.9, 1.15)]),
    };
    let element = markup.element("path").word("class", &class).word("d", &shape);
    match tooltip {
        Some(tooltip) => {
            element.open();
            markup.element("title").text(tooltip);
            markup.close();
        }
        None => element.empty(),
    }
}

/// Classes of a line: its colour and its dash. Where the colours begin anew the dashes are one further on, so that the
/// eighth line is not the first again.
pub(crate) fn curve_class(slot: usize) -> String {
    format!("curve c{} d{}", slot % SLOTS, (slot + slot / SLOTS) % SLOTS)
}

/// `x y` of a path.
pub(crate) fn point(x: f64, y: f64) -> String {
    format!("{} {}", crate::markup::coordinate(x), crate::markup::coordinate(y))
}

/// Text broken at spaces into at most `lines` lines of `width` units; the last one ends with … where text is left over.
pub(crate) fn wrapped(text: &str, width: f64, font: f64, lines: usize) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let joined = out.last().map(|last| format!("{last} {word}"));
        match joined {
            Some(joined) if text_width(&joined, font) <= width => {
                out.pop();
                out.push(joined);
            }
            _ => out.push(word.to_string()),
        }
    }
    if out.len() > lines {
        out.truncate(lines);
        if let Some(last) = out.last_mut() {
            last.push('…');
        }
    }
    out
}

/// The width of a text, estimated: there is no font to ask, and a tenth more or less does not matter to a layout.
pub(crate) fn text_width(text: &str, font: f64) -> f64 {
    let em: f64 = text
        .chars()
        .map(|character| match character {
            'i' | 'j' | 'l' | '.' | ',' | ':' | '\'' | '|' | ' ' => 0.3,
            'm' | 'w' | 'M' | 'W' | '%' => 0.9,
            'A'..='Z' => 0.68,
            '\u{1100}'.. => 1.0,
            _ => 0.57,
        })
        .sum();
    em * font
}

fn begin(words: &Words, standalone: bool) -> Markup {
    let mut markup = Markup::new();
    let root = markup.element("svg").word("class", "chart").word("role", "img");
    // A page has margins of its own; a file needs some.
    let margin = if standalone { MARGIN } else { 0.0 };
    let (width, height) = (WIDTH + 2.0 * margin, HEIGHT + 2.0 * margin);
    let root = root.word("viewBox", &format!("{} {} {width} {height}", 0.0 - margin, 0.0 - margin));
    let root = root.number("width", width).number("height", height);
    if standalone {
        root.word("xmlns", "http://www.w3.org/2000/svg").open();
    } else {
        root.open();
    }
    markup.element("title").text(words.title);
    markup.element("desc").text(words.description);
    if standalone {
        markup.element("style").open();
        markup.trusted(STYLE);
        markup.close();
        let ground = markup.element("rect").word("class", "ground").number("x", -margin).number("y", -margin);
        ground.number("width", width).number("height", height).empty();
    }
    markup
}

/// Returns the baseline of the last line written.
fn draw_heading(markup: &mut Markup, title: &str) -> f64 {
    let mut baseline = 0.0;
    for line in wrapped(title, WIDTH, 15.2, 2) {
        baseline += if baseline == 0.0 { 16.0 } else { LINE + 1.0 };
        markup.element("text").word("class", "heading").number("x", 0.0).number("y", baseline).text(&line);
    }
    baseline
}

/// Returns the baseline of the last row, or what it was given where there is no legend.
fn draw_legend(markup: &mut Markup, entries: &[LegendEntry], above: f64) -> f64 {
    const SAMPLE: f64 = 28.0;
    const GAP: f64 = 20.0;
    if entries.is_empty() {
        return above;
    }
    let (mut x, mut baseline) = (0.0, above + LINE + 5.0);
    for entry in entries {
        let width = SAMPLE + 6.0 + text_width(entry.name, FONT);
        if x > 0.0 && x + width > WIDTH {
            (x, baseline) = (0.0, baseline + LINE);
        }
        let middle = baseline - 4.5;
        match entry.sample {
            LegendSample::Bar => draw_bar(markup, entry.slot, (x + 6.0, middle - 6.0, 18.0, 12.0), None),
            LegendSample::Marker => draw_marker(markup, entry.slot, x + SAMPLE / 2.0, middle, None),
            LegendSample::Line { marker } => {
                let class = curve_class(entry.slot);
                let shape = format!("M{}L{}", point(x, middle), point(x + SAMPLE, middle));
                markup.element("path").word("class", &class).word("d", &shape).empty();
                if marker {
                    draw_marker(markup, entry.slot, x + SAMPLE / 2.0, middle, None);
                }
            }
        }
        let name = markup.element("text").number("x", x + SAMPLE + 6.0).number("y", baseline);
        name.text(entry.name);
        x += width + GAP;
    }
    baseline
}

/// A bar at `(x, y, width, height)` with the hatching of its slot.
pub(crate) fn draw_bar(markup: &mut Markup, slot: usize, area: (f64, f64, f64, f64), tooltip: Option<&str>) {
    let (x, y, width, height) = area;
    let class = format!("bar c{}", slot % SLOTS);
    let bar = markup.element("rect").word("class", &class);
    let bar = bar.number("x", x).number("y", y).number("width", width).number("height", height);
    match tooltip {
        Some(tooltip) => {
            bar.open();
            markup.element("title").text(tooltip);
            markup.close();
        }
        None => bar.empty(),
    }
    let hatching = hatching(slot % SLOTS, area);
    if !hatching.is_empty() {
        markup.element("path").word("class", "hatch").word("d", &hatching).empty();
    }
}

/// The lines that tell a bar from its neighbours without colour, cut to the bar here: an SVG pattern would need ids, and
/// ids of several charts on one page would collide.
fn hatching(slot: usize, (x, y, width, height): (f64, f64, f64, f64)) -> String {
    const SPACING: f64 = 6.0;
    let mut path = String::new();
    let mut stroke = |from: (f64, f64), to: (f64, f64)| {
        path.push_str(&format!("M{}L{}", point(from.0, from.1), point(to.0, to.1)));
    };
    let (rising, falling) = (matches!(slot, 1 | 5), matches!(slot, 2 | 5));
    let (level, upright) = (matches!(slot, 3 | 6), matches!(slot, 4 | 6));
    let lines = |length: f64| (1..=(length / SPACING) as usize).map(|index| index as f64 * SPACING);
    if rising || falling {
        for offset in lines(width + height) {
            // The line dx + dy = offset inside the bar: from its left or lower edge to its upper or right edge.
            let (x0, y0) = ((offset - height).max(0.0), offset.min(height));
            let (x1, y1) = (offset.min(width), (offset - width).max(0.0));
            if falling {
                stroke((x + x0, y + height - y0), (x + x1, y + height - y1));
            }
            if rising {
                stroke((x + x0, y + y0), (x + x1, y + y1));
            }
        }
    }
    if level {
        lines(height).for_each(|offset| stroke((x, y + height - offset), (x + width, y + height - offset)));
    }
    if upright {
        lines(width).for_each(|offset| stroke((x + offset, y), (x + offset, y + height)));
    }
    path
}
