//! Registers that draft, through the command line: the same text, by every verb that drafts.

use crate::support::{CHECKPOINT, Place};

const REGISTERS: &[&str] = &["objective.kind=registers", "objective.d_max=4", "train.steps=12"];

#[test]
fn registers_draft_and_change_nothing() {
    let place = Place::trained(REGISTERS);
    let text = |folder: &str, draft: &str, more: &[&str]| {
        let drafting =
            ["generate", folder, "--prompt", "the fox", "--max-new-tokens", "40", "--ignore-end", "--draft"];
        place.succeeds(&[&drafting[..], &[draft], more].concat())
    };
    let plain = text(CHECKPOINT, "none", &[]);
    for speculate in ["auto", "off", "1", "2", "3"] {
        assert_eq!(text(CHECKPOINT, "registers", &["--speculate", speculate]), plain, "{speculate}");
    }
    let told =
        place.json(&["generate", CHECKPOINT, "--prompt", "the", "--draft", "registers", "--speculate", "3"]);
    assert!(told["statistics"]["depths"][0]["drafted"].as_u64() > Some(0), "{told}");
    place.refuses(&["generate", CHECKPOINT, "--draft", "registers", "--speculate", "4"], &["draft 1 to 3"]);
    let verified = place.json(&[
        "verify",
        CHECKPOINT,
        "--draft",
        "registers",
        "--max-new-tokens",
        "12",
        "--draws",
        "150",
    ]);
    assert_eq!((&verified["holds"], &verified["draft_lengths"]), (&true.into(), &3.into()));
    let own = ["--max-new-tokens", "8", "--repeats", "1", "--draft", "registers"];
    let benched = place.json(&[&["bench", CHECKPOINT], &own[..]].concat());
    assert_eq!(benched["measurement"]["drafted"].as_array().map(Vec::len), Some(3));
    let continued = ["data", "continuations", CHECKPOINT, "text.jsonl", "--output", "own.jsonl"];
    place.succeeds(&[&continued[..], &["--count", "4", "--max-new-tokens", "8"]].concat());

    // What is packed on disk drafts too.
    place.succeeds(&["quantize", CHECKPOINT, "--weights", "int8", "--output", "packed"]);
    assert_eq!(text("packed", "registers", &["--speculate", "3"]), text("packed", "none", &[]));
}

#[test]
fn what_has_no_registers_to_draft_with_is_refused() {
    let place = Place::trained(&["objective.kind=next-token"]);
    place.refuses(&["generate", CHECKPOINT, "--draft", "registers"], &["--draft registers", "no registers"]);
    place.train(&["objective.kind=registers", "objective.d_max=1", "run.folder=near"]);
    let near = "near/checkpoints/last";
    place.refuses(&["verify", near, "--draft", "registers"], &["--draft registers", "no registers"]);
    place.succeeds(&["generate", near, "--max-new-tokens", "4"]);
}
