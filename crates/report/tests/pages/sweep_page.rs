//! The page of a sweep.

use crate::{count, parsed, texts};
use sakiyomi_report::{Estimate, SweepFigures, VariantFigures};

fn variant(text: &str, n: usize) -> VariantFigures {
    let estimate = |mean: f64| Estimate { mean, deviation: Some(mean / 10.0) };
    VariantFigures {
        choices: vec![("text".into(), text.into()), ("n".into(), n.to_string())],
        seeds: 2,
        parameters: Estimate { mean: 3.2e6, deviation: None },
        loss: (0..n).map(|depth| estimate(1.0 + depth as f64)).collect(),
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
    // Tales: tokens per forward, next-token loss, loss of each head, speed. Code has no heads: next-token loss only.
    assert_eq!(count(&document, "svg"), 5);
    for words in ["text=tales n=4", "2.50 ± 0.25 (3)", "1.75× ± 0.17× (3)", "out of memory", "identical"]
    {
        assert!(html.contains(words), "{words} is missing");
    }
    let block = document.descendants().find(|node| node.attribute("id") == Some("sakiyomi-data"));
    let json = block.and_then(|node| node.text()).expect("a data block");
    assert!(serde_json::from_str::<SweepFigures>(json).expect("the figures read back") == figures);
}

#[test]
fn a_sweep_without_results_is_still_a_page() {
    let html = SweepFigures::default().page().html();
    assert_eq!(count(&parsed(&html), "svg"), 0);
}
