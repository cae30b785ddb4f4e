//! What all charts share: the choice between them, their style sheet, and the palette's rules.
//!
//! Colours are CSS variables with a light and a dark value, so that one chart serves screen, night and paper. They are
//! far enough apart for colour-blind readers, and no series is told by colour alone: lines differ in dash and marker, bars
//! in hatching.

use serde::{Deserialize, Serialize};

use crate::bar_chart::BarChart;
use crate::heat_map::HeatMap;
use crate::line_chart::LineChart;
use crate::table::Table;

/// The style sheet of charts; it names nothing outside `.chart`.
pub(crate) const STYLE: &str = include_str!("chart.css");

/// Colours, dashes, markers and hatchings before they repeat.
pub(crate) const SLOTS: usize = 7;

/// A chart of either kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Chart {
    /// Values along a continuous axis.
    Line(LineChart),
    /// Values of categories.
    Bar(BarChart),
    /// Whole numbers on a grid.
    Heat(HeatMap),
}

/// A horizontal line that values are read against: a limit, or plain decoding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// Where it lies on the y axis.
    pub value: f64,
    /// What it is, written along it.
    pub label: String,
}

impl Chart {
    /// The chart as an SVG file of its own, with its style sheet inside.
    pub fn svg(&self) -> String {
        match self {
            Self::Line(chart) => chart.svg(),
            Self::Bar(chart) => chart.svg(),
            Self::Heat(chart) => chart.svg(),
        }
    }

    /// The chart as an element of a page that has the style sheet already.
    pub(crate) fn inline_svg(&self) -> String {
        match self {
            Self::Line(chart) => chart.draw(false),
            Self::Bar(chart) => chart.draw(false),
            Self::Heat(chart) => chart.draw(false),
        }
    }

    /// The numbers of the chart as a table; `None` where there are too many to read.
    pub fn numbers(&self) -> Option<Table> {
        match self {
            Self::Line(chart) => chart.numbers(),
            Self::Bar(chart) => chart.numbers(),
            Self::Heat(chart) => chart.numbers(),
        }
    }

    /// Shown below the chart.
    pub fn caption(&self) -> &str {
        match self {
            Self::Line(chart) => &chart.caption,
            Self::Bar(chart) => &chart.caption,
            Self::Heat(chart) => &chart.caption,
        }
    }
}

impl From<HeatMap> for Chart {
    fn from(chart: HeatMap) -> Self {
        Self::Heat(chart)
    }
}

impl From<LineChart> for Chart {
    fn from(chart: LineChart) -> Self {
        Self::Line(chart)
    }
}

impl From<BarChart> for Chart {
    fn from(chart: BarChart) -> Self {
        Self::Bar(chart)
    }
}
