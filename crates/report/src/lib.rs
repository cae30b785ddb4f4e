//! Charts as SVG and one self-contained HTML page.
//!
//! Values go in, strings come out: nothing here reads or writes a file, prints, or knows another crate of the workspace.
//! A page needs no script and no network to be read; the numbers behind its figures travel inside it as JSON.
//!
//! The way through: [`MainJobFigures`] (what a run measured) → [`Page`] (facts, charts, tables, samples) → HTML.

mod bar_chart;
mod chart;
mod csv;
mod escape;
mod frame;
mod heat_map;
mod lens;
mod line_chart;
mod main_job;
mod markup;
pub mod number;
mod page;
mod samples;
mod settled;
mod sweep;
mod table;
mod ticks;
mod wilson;

pub use bar_chart::{Bar, BarChart, BarSeries};
pub use chart::{Chart, Reference};
pub use heat_map::{HeatMap, MOST_COLUMNS};
pub use lens::{
    ExitFigures, InterventionFigures, LaterFigures, LensFigures, OrderFigures, PermutedFigures, ProbeFigures,
};
pub use line_chart::{LineChart, Series, SeriesStyle};
pub use main_job::{
    CorpusFigures, DecodingFigures, DepthAcceptance, DepthScore, Divergence, DraftLengthFigures, HeadCurve,
    HeldOutFigures, LooksAhead, LossPoint, LosslessnessFigures, MainJobFigures, RepeatedSpans, RunSettings,
    Seed, TextFigures, TrainingFigures, comparison_page,
};
pub use page::{Block, Fact, Page, Section, Tone};
pub use samples::{Sample, SampleToken};
pub use settled::{SettledText, SettledToken};
pub use sweep::{Estimate, SweepFigures, VariantFigures};
pub use table::{Cell, Table};
pub use wilson::{Interval, wilson_95, wilson_interval};
