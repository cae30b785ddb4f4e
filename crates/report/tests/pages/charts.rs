//! Charts: well-formed, complete, and honest about missing values.

use crate::{parsed, texts};
use sakiyomi_report::{Bar, BarChart, BarSeries, Chart, LineChart, Reference, Series, SeriesStyle};

fn series(name: &str, points: &[(f64, f64)]) -> Series {
    Series { name: name.into(), points: points.to_vec(), ..Series::default() }
}

fn classes(svg: &str, class: &str) -> usize {
    let document = parsed(svg);
    let has = |value: &str| value.split(' ').any(|word| word == class);
    document.descendants().filter(|node| node.attribute("class").is_some_and(has)).count()
}

#[test]
fn a_line_chart_shows_every_series_with_its_own_dash_and_marker() {
    let chart = LineChart {
        title: "Loss <&> \"heads\"".into(),
        x_label: "step".into(),
        y_label: "nats per token".into(),
        series: vec![
            Series {
                band: Some(vec![(0.9, 1.2), (0.7, 1.0), (0.6, 0.8)]),
                ..series("a & b", &[(1.0, 1.0), (2.0, 0.8), (3.0, 0.7)])
            },
            series("c", &[(1.0, 2.0), (2.0, 1.8), (3.0, 1.7)]),
        ],
        reference: Some(Reference { value: 0.5, label: "limit".into() }),
        ..LineChart::default()
    };
    let svg = chart.svg();
    let document = parsed(&svg);
    let root = document.root_element();
    assert_eq!(root.tag_name().namespace(), Some("http://www.w3.org/2000/svg"));
    assert_eq!(root.first_element_child().and_then(|title| title.text()), Some("Loss <&> \"heads\""));
    assert!(texts(&document, "desc")[0].contains("a & b: from 1.00 at 1.00 to 0.700 at 3.00"));
    let words = texts(&document, "text");
    for word in ["a & b", "c", "step", "nats per token", "limit", "0.5", "2.0", "1", "3"] {
        assert!(words.iter().any(|text| text == word), "{word} is missing in {words:?}");
    }
    // In the legend and in the plot.
    assert_eq!([classes(&svg, "d0"), classes(&svg, "d1")], [2, 2]);
    assert_eq!(classes(&svg, "marker"), 8);
    assert_eq!([classes(&svg, "band"), classes(&svg, "reference")], [1, 1]);
}

#[test]
fn values_that_are_not_finite_interrupt_the_line() {
    let points = [(0.0, 1.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 2.0), (4.0, 1.0), (5.0, f64::INFINITY)];
    let chart = LineChart { series: vec![series("", &points)], ..LineChart::default() };
    let svg = chart.svg();
    let document = parsed(&svg);
    let curve = document.descendants().find(|node| node.attribute("class") == Some("curve c0 d0"));
    let path = curve.and_then(|node| node.attribute("d")).expect("a curve");
    assert_eq!(path.matches('M').count(), 2);
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
}

#[test]
fn charts_without_a_value_say_so() {
    let empty: [Chart; 5] = [
        LineChart::default().into(),
        LineChart { series: vec![series("a", &[(1.0, f64::NAN)])], ..LineChart::default() }.into(),
        LineChart { log_x: true, series: vec![series("a", &[(0.0, 1.0)])], ..LineChart::default() }.into(),
        BarChart::default().into(),
        BarChart {
            categories: vec!["x".into()],
            series: vec![BarSeries { name: String::new(), bars: vec![Some(Bar::new(f64::NAN))] }],
            ..BarChart::default()
        }
        .into(),
    ];
    for chart in empty {
        let svg = chart.svg();
        assert!(texts(&parsed(&svg), "text").contains(&"no data".to_string()));
        assert!(chart.numbers().is_none_or(|table| table.rows.len() == 1));
    }
}

#[test]
fn extreme_values_stay_inside_the_drawing() {
    let single = vec![(5.0, 5.0)];
    let huge = vec![(-1e308, -1e308), (0.0, 0.0), (1e308, 1e308)];
    let tiny = vec![(1e-300, 1e-300), (2e-300, 3e-300)];
    for (points, log_x) in [(single, false), (huge, false), (tiny.clone(), false), (tiny, true)] {
        let chart = LineChart { log_x, series: vec![series("a", &points)], ..LineChart::default() };
        let svg = chart.svg();
        let document = parsed(&svg);
        for node in document.descendants() {
            for (name, limit) in [("x", 480.0), ("x1", 480.0), ("x2", 480.0), ("y", 312.0), ("y1", 312.0)] {
                let Some(value) = node.attribute(name) else { continue };
                let value: f64 = value.parse().expect("a coordinate is a number");
                assert!((-16.0..=limit).contains(&value), "{name} = {value}");
            }
        }
    }
}

#[test]
fn long_lines_are_marked_here_and_there_only() {
    let points: Vec<(f64, f64)> = (0..1000).map(|step| (f64::from(step), f64::from(step).sqrt())).collect();
    let chart =
        LineChart { series: vec![series("a", &points), series("b", &points)], ..LineChart::default() };
    let markers = classes(&chart.svg(), "marker");
    assert!((8..=16).contains(&markers), "{markers} markers");
    let line = Series { style: SeriesStyle::Line, ..series("a", &points) };
    assert_eq!(classes(&LineChart { series: vec![line], ..LineChart::default() }.svg(), "marker"), 0);
    assert!(Chart::from(chart).numbers().is_none());
}

#[test]
fn bars_have_whiskers_hatching_and_numbers() {
    let bars = |values: &[f64]| {
        values.iter().map(|&value| Some(Bar { value, whisker: Some((value - 2.0, value + 2.0)) })).collect()
    };
    let chart = BarChart {
        title: "Acceptance".into(),
        x_label: "position".into(),
        y_label: "%".into(),
        categories: ["1", "2", "3"].map(String::from).to_vec(),
        series: vec![
            BarSeries { name: "a".into(), bars: bars(&[80.0, 60.0, 40.0]) },
            BarSeries { name: "b".into(), bars: vec![Some(Bar::new(50.0)), None, Some(Bar::new(-5.0))] },
        ],
        reference: None,
        ..BarChart::default()
    };
    let svg = chart.svg();
    // Five bars and two in the legend; the second series is hatched.
    assert_eq!(classes(&svg, "bar"), 7);
    assert_eq!(classes(&svg, "hatch"), 3);
    assert_eq!(classes(&svg, "whisker"), 3);
    let document = parsed(&svg);
    assert!(texts(&document, "text").contains(&"80.0".to_string()));
    for bar in document.descendants().filter(|node| node.attribute("class") == Some("bar c1")) {
        let height: f64 = bar.attribute("height").expect("height").parse().expect("a number");
        assert!(height > 0.0);
    }
    let table = Chart::from(chart).numbers().expect("a table").html();
    assert!(table.contains("80.0 (78.0 to 82.0)") && table.contains("−5.00"));
}

#[test]
fn bars_are_as_long_as_their_values() {
    let chart = BarChart {
        categories: ["a", "b"].map(String::from).to_vec(),
        series: vec![BarSeries {
            name: String::new(),
            bars: vec![Some(Bar::new(10.0)), Some(Bar::new(40.0))],
        }],
        ..BarChart::default()
    };
    let svg = chart.svg();
    let document = parsed(&svg);
    let bars = document.descendants().filter(|node| node.attribute("class") == Some("bar c0"));
    let heights: Vec<f64> = bars
        .filter_map(|bar| bar.attribute("height"))
        .map(|height| height.parse().expect("a number"))
        .collect();
    assert!((heights[1] / heights[0] - 4.0).abs() < 0.02, "{heights:?}");
}

#[test]
fn a_chart_survives_json() {
    let chart: Chart =
        LineChart { title: "t".into(), series: vec![series("a", &[(1.0, 2.0)])], ..LineChart::default() }
            .into();
    let json = serde_json::to_string(&chart).expect("serialises");
    assert_eq!(serde_json::from_str::<Chart>(&json).expect("reads back"), chart);
}
