//! The page of a sweep.

use crate::{count, parsed, texts};
use sakiyomi_report::{Estimate, SweepFigures, VariantFigures};

fn variant(text: &str, n: usize) -> VariantFigures {
    let estimate = |mean: f64| Estimate { mean, deviation: Some(mean / 10.0) };
    VariantFigures {
        choices: vec![("text".into(), text.into()), ("n".into(), n.to_string())],
        seeds: 2,
        parameters: Estimate { mean: 3.2e6, deviation: None },
        loss: (0..n).map(|depth| Some(estimate(1.0 + depth as f64))).collect(),
        tokens_per_forward: (1..n).map(|length| estimate(1.0 + length as f64 / 2.0)).collect(),
        speedup: (1..n).map(|length| estimate(1.0 + length as f64 / 4.0)).collect(),
        identical: (n > 1).then_some(true),
        ..VariantFigures::default()
    }
}

#[test]
fn variants_that_differ_in_the_last_axis_share_their_charts() {
    let figures = SweepFigures {
        title: "n <1> & more".into(),
        command: "sakiyomi sweep a.toml".into(),
        variants: vec![variant("tales", 1), variant("tales", 4), variant("code", 1)],
        failures: vec![("text=code n=4 seed=1".into(), "out of memory".into())],
        ..SweepFigures::default()
    };
    let html = figures.page().html();
    let document = parsed(&html);
    assert_eq!(texts(&document, "h1"), ["n <1> & more"]);
    assert_eq!(texts(&document, "h2"), ["All variants", "text tales", "text code", "Runs that failed"]);
    // Tales: tokens per forward, next-token loss, loss by tokens ahead, speed. Code has no heads: next-token loss only.
    assert_eq!(count(&document, "svg"), 5);
    for words in ["text=tales n=4", "2.50 ± 0.25 (3)", "1.75× ± 0.17× (3)", "out of memory", "identical"]
    {
        assert!(html.contains(words), "{words} is missing");
    }
    let block = document.descendants().find(|node| node.attribute("id") == Some("sakiyomi-data"));
    let json = block.and_then(|node| node.text()).expect("a data block");
    assert!(serde_json::from_str::<SweepFigures>(json).expect("the figures read back") == figures);
}

/// A variant whose losses lie `ahead`; `None`: nothing was predicted there.
fn registers(name: &str, ahead: &[usize], loss: &[Option<f64>]) -> VariantFigures {
    let of = |list: &[Option<f64>], scale: f64| {
        list.iter().map(|mean| Some(Estimate { mean: (*mean)? * scale, deviation: None })).collect()
    };
    VariantFigures {
        choices: vec![("m".into(), name.into())],
        tokens_ahead: ahead.to_vec(),
        loss: of(loss, 1.0),
        accuracy: of(loss, 0.1),
        ..VariantFigures::default()
    }
}

#[test]
fn losses_of_registers_stand_at_their_offsets_and_where_there_is_none_there_is_no_point() {
    let figures = SweepFigures {
        variants: vec![
            registers("near", &[1, 1, 2, 3], &[Some(4.0), Some(5.0), None, Some(6.0)]),
            registers("far", &[1, 7, 8], &[Some(4.25), Some(7.0), Some(8.0)]),
            registers("nowhere", &[1, 9], &[Some(4.5), None]),
        ],
        ..SweepFigures::default()
    };
    let html = figures.page().html();
    let document = parsed(&html);
    let points: Vec<String> =
        texts(&document, "title").into_iter().filter(|text| text.starts_with("m ")).collect();
    let near = ["m near: 5.00 at 1.00", "m near: 6.00 at 3.00", "m near, next token: 4.00 at 1.00"];
    let far = ["m far: 4.25 at 1.00", "m far: 7.00 at 7.00", "m far: 8.00 at 8.00"];
    let expected = [&near[..], &far, &["m nowhere: 4.50 at 1.00"]].concat();
    assert!(expected.iter().all(|point| points.iter().any(|drawn| drawn == point)), "{points:#?}");
    let ahead = |text: &&String| text.contains(" at ");
    assert_eq!(points.iter().filter(ahead).count(), expected.len(), "{points:#?}");
    assert!(html.contains("Loss by tokens ahead") && html.contains("a marker by itself"));
    assert!(!html.contains("each head"), "registers are no heads");
    let cells = texts(&document, "td");
    for words in ["1 1 2 3", "4.000 5.000 – 6.000", "0.400 0.500 – 0.600", "1 9", "4.500 –"] {
        assert!(cells.iter().any(|cell| cell == words), "{words} is missing in {cells:#?}");
    }
}

#[test]
fn losses_of_the_next_token_alone_make_no_chart_by_tokens_ahead() {
    let figures = SweepFigures {
        variants: vec![registers("short", &[1, 5, 6], &[Some(4.0), None, None])],
        ..SweepFigures::default()
    };
    assert!(!figures.page().html().contains("Loss by tokens ahead"));
}

/// Pages of before carry a number for every depth, and no places.
#[test]
fn figures_of_older_pages_are_still_read() {
    let old = r#"{"choices": [], "seeds": 1, "loss": [{"mean": 2.0, "deviation": null}], "accuracy": []}"#;
    let variant: VariantFigures = serde_json::from_str(old).expect("reads");
    assert_eq!(variant.loss, [Some(Estimate { mean: 2.0, deviation: None })]);
    assert!(variant.tokens_ahead.is_empty());
}

#[test]
fn a_footer_without_a_machine_ends_with_the_version() {
    let mut figures = SweepFigures { command: "sakiyomi sweep a.toml".into(), ..SweepFigures::default() };
    figures.version = "1.0".into();
    assert_eq!(figures.page().footer, "`sakiyomi sweep a.toml`, version 1.0");
    figures.machine = "a machine, 2 cores, 1 used".into();
    assert!(figures.page().footer.ends_with("version 1.0; a machine, 2 cores, 1 used"));
}

#[test]
fn a_sweep_without_results_is_still_a_page() {
    let html = SweepFigures::default().page().html();
    assert_eq!(count(&parsed(&html), "svg"), 0);
}
