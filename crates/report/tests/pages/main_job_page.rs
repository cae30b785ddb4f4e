//! The page of the main job.

use crate::figures::run;
use crate::{count, parsed, texts};
use sakiyomi_report::{Divergence, LosslessnessFigures, MainJobFigures, comparison_page};

#[test]
fn the_page_is_well_formed_and_shows_everything() {
    let html = run().page().html();
    let document = parsed(&html);
    assert_eq!(count(&document, "svg"), 6);
    assert_eq!(count(&document, "h1"), 1);
    let headings = texts(&document, "h2");
    assert_eq!(
        headings,
        [
            "What these numbers say",
            "Decoding with and without drafts",
            "Is it the same text?",
            "Where each token came from",
            "What the heads learnt",
            "The text",
            "Settings"
        ]
    );
    for words in [
        "Drafting pays here: with 3 drafted tokens",
        "Yes. 32\u{a0}prompts were continued plainly and with drafts of lengths 1, 2 and 3",
        "5.3\u{a0}% (212 of 4,000)",
        "below about one billion parameters",
        "cost 0.015 bits per byte",
        "2,712,000",
        "1.88×",
        "<code>sakiyomi demo --seed 1</code>",
    ] {
        assert!(html.contains(words), "{words} is missing");
    }
}

#[test]
fn nothing_is_loaded_and_nothing_runs() {
    let html = run().page().html();
    let document = parsed(&html);
    for address in ["http:", "https:", "//www", "@import", "url("] {
        assert!(!html.contains(address), "{address} in the page");
    }
    for node in document.descendants().filter(|node| node.is_element()) {
        for attribute in node.attributes() {
            let (name, value) = (attribute.name(), attribute.value());
            assert!(!name.starts_with("on"), "handler {name}");
            assert!(!matches!(name, "src" | "srcset"), "{name} = {value}");
            assert!(name != "href" || value == "data:,", "{name} = {value}");
        }
    }
    let scripts: Vec<_> = document.descendants().filter(|node| node.has_tag_name("script")).collect();
    assert_eq!(scripts.len(), 1);
    assert_eq!(scripts[0].attribute("type"), Some("application/json"));
    // The same holds for a chart on its own, but for the name of its format.
    let svg = sakiyomi_report::LineChart::default().svg();
    assert_eq!(svg.matches("http").count(), 1);
}

#[test]
fn the_numbers_travel_with_the_page() {
    let mut figures = run();
    figures.title = "</script><script>alert(1)</script> & <!-- \"quoted\"".into();
    let html = figures.page().html();
    assert_eq!(html.matches("</script>").count(), 1);
    assert!(!html.contains("<!--"));
    let document = parsed(&html);
    let block = document.descendants().find(|node| node.attribute("id") == Some("sakiyomi-data"));
    let json = block.and_then(|node| node.text()).expect("a data block");
    let back: MainJobFigures = serde_json::from_str(json).expect("the figures read back");
    // Not assert_eq: it would print thousands of numbers.
    assert!(back == figures, "the figures changed on their way");
    assert_eq!(texts(&document, "h1"), [figures.title]);
}

#[test]
fn a_page_of_nothing_has_no_empty_sections() {
    let html = MainJobFigures { title: "empty".into(), ..MainJobFigures::default() }.page().html();
    let document = parsed(&html);
    assert_eq!(count(&document, "section"), 0);
    assert_eq!(count(&document, "svg"), 0);
}

#[test]
fn parts_that_were_not_measured_are_said_to_be_missing() {
    let mut figures = run();
    figures.training = None;
    figures.held_out = None;
    figures.samples.clear();
    let decoding = figures.decoding.as_mut().expect("decoding");
    decoding.acceptance.clear();
    decoding.lengths.iter_mut().for_each(|length| length.tokens_per_second.clear());
    let html = figures.page().html();
    let document = parsed(&html);
    assert!(texts(&document, "text").contains(&"no data".to_string()));
    assert!(!html.contains("NaN"));
    assert!(!html.contains("Drafting pays here"));
}

#[test]
fn a_divergence_is_shown_with_both_texts() {
    let mut figures = run();
    figures.losslessness = Some(LosslessnessFigures {
        identical: false,
        prompts: 32,
        bytes_compared: 8_192,
        draft_lengths: vec![3],
        first_divergence: Some(Divergence {
            prompt: 7,
            draft_length: 3,
            byte: 41,
            plain: "the <cat>".into(),
            drafted: "the dog".into(),
        }),
    });
    let html = figures.page().html();
    parsed(&html);
    assert!(html.contains("the &lt;cat&gt;") && html.contains("the dog"));
    assert!(html.contains("No. 32\u{a0}prompts"));
    assert!(html.contains("did not write the same text"));
}

#[test]
fn several_runs_are_compared_and_one_is_shown_alone() {
    let (first, mut second) = (run(), run());
    second.title = "Layer heads".into();
    second.decoding = None;
    assert!(comparison_page("both", std::slice::from_ref(&first)) == first.page());
    let html = comparison_page("both", &[first, second]).html();
    let document = parsed(&html);
    assert_eq!(texts(&document, "h1"), ["both"]);
    assert_eq!(texts(&document, "h2")[0], "All runs");
    // Three of the comparison, six of the first run, two of the second, which was not decoded.
    assert_eq!(count(&document, "svg"), 11);
}
