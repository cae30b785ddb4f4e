//! Heat map: a whole number for each cell of a grid, told by shade and, where there is room, by the digit itself.

use serde::{Deserialize, Serialize};

use crate::frame::{FONT, Frame, Words, text_width};
use crate::table::{Cell, Table};
use crate::ticks::Scale;

/// Shades before the deepest one repeats.
const SHADES: usize = 8;

/// More columns than this cannot be told apart.
pub const MOST_COLUMNS: usize = 64;

/// A grid of whole numbers: one column for each position, one row for each layer, the first row at the bottom.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeatMap {
    /// What is shown, in a few words.
    pub title: String,
    /// A sentence below the chart on how to read it; plain text.
    pub caption: String,
    /// What the columns are.
    pub x_label: String,
    /// What the rows are.
    pub y_label: String,
    /// Name of each column.
    pub columns: Vec<String>,
    /// `[columns][rows]`
    pub values: Vec<Vec<usize>>,
    /// The largest value there can be.
    pub most: usize,
}

impl HeatMap {
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
        let rows = self.values.iter().map(Vec::len).max().unwrap_or(0);
        let columns = self.values.len().min(MOST_COLUMNS);
        if rows == 0 || columns == 0 {
            return Frame::without_data(&words, standalone);
        }
        // A row is named in its middle.
        let mut scale = Scale::linear(0.0, rows as f64, 6, true);
        scale.ticks.retain(|(value, _)| (*value as usize) < rows);
        scale.ticks.iter_mut().for_each(|(value, _)| *value += 0.5);
        let mut frame = Frame::new(&words, &[], scale, standalone);
        let width = (frame.right - frame.left) / columns as f64;
        let height = (frame.bottom - frame.top) / rows as f64;
        for (column, values) in self.values.iter().take(columns).enumerate() {
            let x = frame.left + column as f64 * width;
            for (row, value) in values.iter().enumerate() {
                let y = frame.bottom - (row + 1) as f64 * height;
                let shade = self.shade(*value);
                let cell = frame.markup.element("rect").word("class", &format!("cell h{shade}"));
                cell.number("x", x).number("y", y).number("width", width).number("height", height).open();
                frame
                    .markup
                    .element("title")
                    .text(&format!("{}, layer {row}: {value}", self.columns[column]));
                frame.markup.close();
                if width >= FONT && height >= FONT {
                    let class = if 2 * shade > SHADES { "value middle deep" } else { "value middle" };
                    frame.text(class, x + width / 2.0, y + height / 2.0 + 4.0, &value.to_string());
                }
            }
        }
        frame.x_axis();
        self.draw_shades(&mut frame);
        // As many names as there is room for.
        let widest = self.columns.iter().map(|name| text_width(name, FONT)).fold(0.0, f64::max) + 4.0;
        let every = (widest / width).ceil().max(1.0) as usize;
        for (column, name) in self.columns.iter().take(columns).enumerate().skip(every - 1).step_by(every) {
            frame.text("tick middle", frame.left + (column as f64 + 0.5) * width, frame.bottom + 15.0, name);
        }
        frame.markup.finish()
    }

    /// What the shades say, above the right end of the grid.
    fn draw_shades(&self, frame: &mut Frame) {
        const SIDE: f64 = 14.0;
        let y = frame.top - 28.0;
        let shown = self.most.clamp(1, SHADES);
        let left = frame.right - (shown + 1) as f64 * SIDE;
        for place in 0..=shown {
            let value = place * self.most.max(1) / shown;
            let x = left + place as f64 * SIDE;
            let shade = self.shade(value);
            let cell = frame.markup.element("rect").word("class", &format!("cell edged h{shade}"));
            cell.number("x", x).number("y", y).number("width", SIDE).number("height", SIDE).empty();
            let class = if 2 * shade > SHADES { "value middle deep" } else { "value middle" };
            frame.text(class, x + SIDE / 2.0, y + SIDE / 2.0 + 4.0, &value.to_string());
        }
    }

    fn shade(&self, value: usize) -> usize {
        (value * SHADES).div_ceil(self.most.max(1)).min(SHADES)
    }

    /// One row per column of the grid.
    pub(crate) fn numbers(&self) -> Option<Table> {
        let rows = self.values.iter().map(Vec::len).max().filter(|rows| *rows > 0)?;
        let columns =
            std::iter::once(self.x_label.clone()).chain((0..rows).map(|row| format!("layer {row}")));
        let line = |(name, values): (&String, &Vec<usize>)| {
            let values = values.iter().map(|value| Cell::from(*value as u64));
            std::iter::once(Cell::Text(name.clone())).chain(values).collect()
        };
        let rows = self.columns.iter().zip(&self.values).map(line).collect();
        Some(Table { caption: self.title.clone(), columns: columns.collect(), rows })
    }

    fn description(&self) -> String {
        let cells: usize = self.values.iter().map(Vec::len).sum();
        let sum: usize = self.values.iter().flatten().sum();
        format!(
            "Heat map of {} by {}: {cells} cells, on average {:.2} of {}.",
            self.y_label,
            self.x_label,
            sum as f64 / cells.max(1) as f64,
            self.most
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_is_drawn_with_its_shade_and_words() {
        let map = HeatMap {
            title: "a".into(),
            columns: vec!["<".into(), "b".into()],
            values: vec![vec![0, 5], vec![1, 2]],
            most: 5,
            ..HeatMap::default()
        };
        let svg = map.svg();
        assert_eq!(svg.matches("<rect class=\"cell h").count(), 4);
        assert_eq!(svg.matches("<rect class=\"cell edged").count(), 6, "a shade for each of 0 to 5");
        assert!(
            svg.contains("cell h0")
                && svg.contains("cell h8")
                && svg.contains("<title>&lt;, layer 1: 5</title>")
        );
        assert!(roxmltree::Document::parse(&svg).is_ok());
        assert_eq!(map.numbers().unwrap().rows.len(), 2);
        assert!(HeatMap::default().svg().contains("no data"));
    }
}
