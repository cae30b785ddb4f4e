//! HTML tables: cells of text and numbers, numbers to the right.

use serde::{Deserialize, Serialize};

use crate::csv::quoted;
use crate::markup::Markup;
use crate::number;

/// A table. The first column names its rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Table {
    /// What the table shows; left away where it is empty.
    pub caption: String,
    /// Heads of the columns; no head row where it is empty.
    pub columns: Vec<String>,
    /// The rows; a row that is too short is filled with missing cells.
    pub rows: Vec<Vec<Cell>>,
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Cell {
    /// Words, to the left.
    Text(String),
    /// A number as it is to be shown, with its unit if it has one; to the right.
    Number(String),
    /// Not measured.
    Missing,
}

impl From<f64> for Cell {
    fn from(value: f64) -> Self {
        Self::Number(number::number(value))
    }
}

impl From<u64> for Cell {
    fn from(value: u64) -> Self {
        Self::Number(number::count(value))
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_string())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl Table {
    /// The table as CSV: the head, then the rows; numbers as they are shown.
    pub fn csv(&self) -> String {
        let line = |cells: Vec<String>| cells.join(",") + "\n";
        let head = line(self.columns.iter().map(|column| quoted(column)).collect());
        let row = |row: &Vec<Cell>| {
            let cell = |index: usize| match row.get(index) {
                Some(Cell::Text(text) | Cell::Number(text)) => quoted(text),
                Some(Cell::Missing) | None => String::new(),
            };
            line((0..self.width()).map(cell).collect())
        };
        self.rows.iter().fold(head, |csv, cells| csv + &row(cells))
    }

    /// The table as HTML.
    pub fn html(&self) -> String {
        let mut markup = Markup::new();
        // Its own scrolling: a wide table must not widen the page of a telephone.
        markup.element("div").word("class", "scroll").open();
        markup.element("table").open();
        if !self.caption.is_empty() {
            markup.element("caption").text(&self.caption);
        }
        if !self.columns.is_empty() {
            markup.element("thead").open();
            markup.element("tr").open();
            for (index, column) in self.columns.iter().enumerate() {
                let head = markup.element("th").word("scope", "col");
                if self.is_numeric(index) {
                    head.word("class", "number").text(column)
                } else {
                    head.text(column)
                }
            }
            markup.close();
            markup.close();
        }
        markup.element("tbody").open();
        for row in &self.rows {
            self.write_row(&mut markup, row);
        }
        markup.finish()
    }

    fn write_row(&self, markup: &mut Markup, row: &[Cell]) {
        markup.element("tr").open();
        for index in 0..self.width() {
            let cell = row.get(index).unwrap_or(&Cell::Missing);
            let (text, to_the_right) = match cell {
                Cell::Text(text) => (text.as_str(), false),
                Cell::Number(text) => (text.as_str(), true),
                Cell::Missing => (number::MISSING, self.is_numeric(index)),
            };
            let element =
                if index == 0 { markup.element("th").word("scope", "row") } else { markup.element("td") };
            if to_the_right { element.word("class", "number").text(text) } else { element.text(text) }
        }
        markup.close();
    }

    fn width(&self) -> usize {
        self.rows.iter().map(Vec::len).max().unwrap_or(0).max(self.columns.len())
    }

    /// Whether a column holds numbers, so that its head stands above them.
    fn is_numeric(&self, column: usize) -> bool {
        let mut cells =
            self.rows.iter().filter_map(|row| row.get(column)).filter(|cell| **cell != Cell::Missing);
        cells.clone().next().is_some() && cells.all(|cell| matches!(cell, Cell::Number(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_under_their_head() {
        let table = Table {
            caption: "a < b".into(),
            columns: vec!["name".into(), "value".into()],
            rows: vec![vec!["x".into(), 1.5.into()], vec!["<y>".into()]],
        };
        let html = table.html();
        assert!(html.contains("<caption>a &lt; b</caption>"));
        assert!(html.contains("<th scope=\"col\">name</th><th scope=\"col\" class=\"number\">value</th>"));
        assert!(html.contains("<th scope=\"row\">x</th><td class=\"number\">1.50</td>"));
        assert!(html.contains("<th scope=\"row\">&lt;y&gt;</th><td class=\"number\">–</td>"));
    }

    #[test]
    fn csv_quotes_what_would_divide() {
        let table = Table {
            columns: vec!["a,b".into(), "c".into()],
            rows: vec![vec!["x\"y".into(), 1.5.into()], vec!["z".into()]],
            ..Table::default()
        };
        assert_eq!(table.csv(), "\"a,b\",c\n\"x\"\"y\",1.50\nz,\n");
    }

    #[test]
    fn an_empty_table_is_still_a_table() {
        assert_eq!(Table::default().html(), "<div class=\"scroll\"><table><tbody></tbody></table></div>");
    }
}
