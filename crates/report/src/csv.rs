//! The numbers of a chart as CSV, for programs: a line for each value, in full precision, with a point and an ASCII minus.

use crate::bar_chart::BarChart;
use crate::chart::Chart;
use crate::heat_map::HeatMap;
use crate::line_chart::LineChart;

impl Chart {
    /// The numbers as CSV. Charts of series: series, place, value, and the ends of its interval where there is one; heat maps:
    /// column, row, value. Values that do not exist are left out.
    pub fn csv(&self) -> String {
        match self {
            Self::Line(chart) => line_csv(chart),
            Self::Bar(chart) => bar_csv(chart),
            Self::Heat(chart) => heat_csv(chart),
        }
    }
}

fn line_csv(chart: &LineChart) -> String {
    let mut csv = head(&["series", or(&chart.x_label, "x"), or(&chart.y_label, "y"), "low", "high"]);
    for series in &chart.series {
        for (place, (x, y)) in series.points.iter().enumerate().filter(|(_, (_, y))| y.is_finite()) {
            let band = series.band.as_ref().and_then(|band| band.get(place)).copied();
            csv += &line(&series.name, &x.to_string(), *y, band);
        }
    }
    csv
}

fn bar_csv(chart: &BarChart) -> String {
    let mut csv =
        head(&["series", or(&chart.x_label, "category"), or(&chart.y_label, "value"), "low", "high"]);
    for series in &chart.series {
        for (category, bar) in chart.categories.iter().zip(&series.bars) {
            if let Some(bar) = bar.filter(|bar| bar.value.is_finite()) {
                csv += &line(&series.name, category, bar.value, bar.whisker);
            }
        }
    }
    csv
}

fn heat_csv(chart: &HeatMap) -> String {
    let mut csv = head(&[or(&chart.x_label, "column"), or(&chart.y_label, "row"), "value"]);
    for (column, values) in chart.columns.iter().zip(&chart.values) {
        for (row, value) in values.iter().enumerate() {
            csv += &format!("{},{row},{value}\n", quoted(column));
        }
    }
    csv
}

fn line(series: &str, place: &str, value: f64, interval: Option<(f64, f64)>) -> String {
    let ends = interval.filter(|(low, high)| low.is_finite() && high.is_finite());
    let ends = ends.map_or(",".to_owned(), |(low, high)| format!("{low},{high}"));
    format!("{},{},{value},{ends}\n", quoted(series), quoted(place))
}

fn head(columns: &[&str]) -> String {
    columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(",") + "\n"
}

fn or<'t>(text: &'t str, other: &'t str) -> &'t str {
    if text.is_empty() { other } else { text }
}

/// A field as RFC 4180 wants it.
pub(crate) fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bar_chart::{Bar, BarSeries};
    use crate::line_chart::Series;

    #[test]
    fn numbers_are_whole_and_a_place_may_have_several() {
        let chart = LineChart {
            x_label: "speed, all".into(),
            series: vec![Series {
                name: "a".into(),
                points: vec![(1.0, -0.123456789), (1.0, 2.5), (2.0, f64::NAN)],
                band: Some(vec![(-1.0, 0.5), (f64::NAN, 0.0)]),
                ..Series::default()
            }],
            ..LineChart::default()
        };
        let csv = Chart::from(chart).csv();
        assert_eq!(csv, "series,\"speed, all\",y,low,high\na,1,-0.123456789,-1,0.5\na,1,2.5,,\n");
    }

    #[test]
    fn bars_have_their_whiskers_and_maps_their_cells() {
        let bars = vec![Some(Bar { value: 0.5, whisker: Some((0.25, 0.75)) }), None];
        let chart = BarChart {
            x_label: "choice".into(),
            y_label: "rank".into(),
            categories: vec!["1".into(), "2".into()],
            series: vec![BarSeries { name: "b".into(), bars }],
            ..BarChart::default()
        };
        assert_eq!(Chart::from(chart).csv(), "series,choice,rank,low,high\nb,1,0.5,0.25,0.75\n");
        let map = HeatMap { columns: vec!["c".into()], values: vec![vec![3, 4]], ..HeatMap::default() };
        assert_eq!(Chart::from(map).csv(), "column,row,value\nc,0,3\nc,1,4\n");
    }
}
