//! `--json`: one object on standard output, with the fields that scripts rely on.

use serde_json::Value;

use crate::support::{CHECKPOINT, Place, training};

fn has_fields(value: &Value, fields: &[&str]) {
    for field in fields {
        assert!(value.get(field).is_some(), "{field} is missing in {value}");
    }
}

#[test]
fn every_verb_prints_one_object() {
    let place = Place::new();
    has_fields(&place.json(&["init", "second.toml"]), &["file", "text"]);
    let show = ["data", "show", "run.toml", "data.train=text.jsonl", "train.length=32"];
    has_fields(&place.json(&show), &["documents_for_training", "documents_held_out", "tokens", "rows"]);
    let planned = place.json(&[training(&[]), vec!["--dry-run"]].concat());
    has_fields(&planned, &["trunk_parameters", "head_parameters", "memory_bytes"]);
    assert_eq!(planned["tokens"], 256);
    let trained = place.json(&training(&[]));
    assert_eq!((&trained["finished"], &trained["step"]), (&true.into(), &4.into()));
    assert_eq!(trained["loss_per_depth"].as_array().unwrap().len(), 4);
    let eval = place.json(&["eval", CHECKPOINT, "--data", "text.jsonl", "--length", "32"]);
    has_fields(&eval, &["loss", "accuracy", "targets", "bits_per_byte"]);
    let verified = place.json(&["verify", CHECKPOINT, "--max-new-tokens", "12", "--draws", "150"]);
    assert_eq!((&verified["identical"], &verified["prompts"]), (&true.into(), &8.into()));
    assert_eq!((&verified["holds"], &verified["exact"]), (&true.into(), &true.into()));
    let exactness = &verified["exactness"];
    has_fields(exactness, &["cases", "tests", "level", "power_residual_from_target", "power_stale_proposal"]);
    assert_eq!(exactness["cases"].as_array().map(Vec::len), Some(12));
    let looked_up = ["verify", CHECKPOINT, "--draft", "lookup", "--max-new-tokens", "12", "--draws", "100"];
    let looked_up = place.json(&looked_up);
    assert_eq!((&looked_up["holds"], &looked_up["draft_lengths"]), (&true.into(), &8.into()));
    let report = place.json(&["report", "run", "--output", "page.html"]);
    assert_eq!(report["written"], true);
}

#[test]
fn generate_tells_text_tokens_and_statistics() {
    let place = Place::trained(&[]);
    let settings = ["--max-new-tokens", "20", "--ignore-end"];
    let generate = [&["generate", CHECKPOINT, "--prompt", "the"], &settings[..]].concat();
    let generated = place.json(&generate);
    has_fields(&generated, &["text", "ending", "tokens_per_forward", "tokens_per_s", "statistics"]);
    assert_eq!(generated["prompt"], "the");
    assert_eq!(generated["tokens"].as_array().unwrap().len(), 20);
    assert_eq!(generated["draft_length"], 3);
    assert_eq!(generated["acceptance_per_depth"].as_array().unwrap().len(), 3);
    assert_eq!(place.json(&[&generate[..], &["--draft", "none"]].concat())["draft_length"], 0);
}

#[test]
fn bench_measures_every_draft_length() {
    let place = Place::trained(&[]);
    let small = ["--max-new-tokens", "8", "--count", "2", "--repeats", "2", "--ignore-end"];
    let temperatures = ["--temperature", "0", "--temperature", "1.5"];
    let measured = place.json(&[&["bench", CHECKPOINT], &small[..], &temperatures].concat());
    let acceptance = measured["acceptance"].as_array().unwrap();
    assert_eq!(acceptance.len(), 2);
    for (temperature, found) in [0.0, 1.5].iter().zip(acceptance) {
        has_fields(found, &["tokens_per_forward", "depths", "requests", "draft_length"]);
        assert_eq!(found["temperature"].as_f64(), Some(*temperature));
        assert_eq!(found["requests"].as_array().map(Vec::len), Some(2));
        let depth = &found["depths"][0];
        let share = |end: &str| depth["observed"][end].as_f64().unwrap();
        assert!(share("low") <= share("value") && share("value") <= share("high"));
        has_fields(depth, &["counts", "expected"]);
    }
    has_fields(&measured, &["bare_tokens_per_s", "tokens_per_forward", "speedup", "best_draft_length"]);
    assert!(measured["plain_tokens_per_s"].as_f64().unwrap() > 0.0);
    assert_eq!(measured["measurement"]["drafted"].as_array().unwrap().len(), 3);
}

#[test]
fn demo_cuts_a_small_text_into_documents() {
    let place = Place::new();
    let line = "The fox ran over a hill and saw rain, and nobody else did.\n";
    place.write("small.txt", line.repeat(100));
    let demo = ["demo", "--steps", "1", "--output", "story", "--text", "small.txt"];
    let planned = place.json(&[&demo[..], &["--dry-run"]].concat());
    assert_eq!((&planned["folder"], &planned["steps"]), (&"story".into(), &1.into()));
    assert!(!place.exists("story"));
    assert_eq!(place.json(&demo)["identical"], true);
}

#[test]
fn bench_step_tells_what_the_pytorch_side_tells() {
    let place = Place::new();
    let step = ["bench", "step", "--dtype", "bf16", "--heads", "2", "--vocab", "50"];
    let measured = place.json(&[&step[..], &["--steps", "1", "--seconds", "0", "--recompute"]].concat());
    has_fields(&measured, &["what", "compile", "step_ms", "tokens_per_s", "steps", "peak_rss_gb"]);
    assert_eq!(
        (&measured["dtype"], &measured["heads"], &measured["vocab"]),
        (&"bf16".into(), &2.into(), &50.into())
    );
    assert!((measured["loss"].as_f64().unwrap() - 2.0 * 50f64.ln()).abs() < 1.0, "{measured}");
}

#[test]
fn bench_step_compares_steps_with_registers_and_without() {
    let place = Place::new();
    let step = ["bench", "step", "--vocab", "50", "--batch", "1", "--steps", "1", "--seconds", "0"];
    let measured = place.json(&[&step[..], &["--registers", "0.5"]].concat());
    has_fields(&measured["without_registers"], &["step_ms", "ratio", "ratio_low", "ratio_high"]);
    // The next token and four offsets, after a few steps on the same tokens.
    let loss = measured["loss"].as_f64().unwrap();
    assert!(loss > 0.0 && loss < 5.0 * 50f64.ln(), "{measured}");
    assert!(place.json(&step)["without_registers"].is_null());
    place.refuses(&["bench", "step", "--registers", "1.5"], &["--registers 1.5", "from 0 to 1"]);
    place.refuses(&["bench", "step", "--registers", "1", "--heads", "2"], &["--heads"]);
    let few = [&step[..], &["--registers", "0.0001"]].concat();
    place.refuses(&few, &["--registers 0.0001", "not one register"]);
}

#[test]
fn a_dry_run_foretells_the_memory_of_the_run() {
    // Large enough that the program itself is little beside it.
    let large = [
        "model.architecture.width=128",
        "model.architecture.layers=6",
        "model.architecture.heads=4",
        "model.architecture.ffn=512",
        "train.batch=16",
        "train.length=128",
        "train.steps=2",
        "evaluation.every=0",
    ];
    for way in [
        &["train.dtype=f32"][..],
        &["train.dtype=bf16", "train.recompute_activations=true", "objective.head=layer"],
    ] {
        let place = Place::new();
        let run = [training(&large), way.to_vec()].concat();
        let foretold = place.json(&[&run[..], &["--dry-run"]].concat())["memory_bytes"].as_f64().unwrap();
        let Some(taken) = place.json(&run)["peak_memory_bytes"].as_f64() else { return };
        assert!((foretold / taken - 1.0).abs() < 0.1, "{way:?}: {foretold} foretold, {taken} taken");
    }
}

#[test]
fn doctor_measures_the_machine() {
    let place = Place::new();
    let found = place.json(&["doctor"]);
    has_fields(&found, &["cores", "instruction_set", "memory_gib", "bf16_gflop_per_s_all_threads"]);
    assert!(found["bf16_product_gflop_per_s"].as_f64().unwrap() > 0.0);
    assert!(found["read_gb_per_s_one_thread"].as_f64().unwrap() > 0.0);
    assert!(found["f32_gflop_per_s_one_thread"].as_f64().unwrap() > 0.0);
}

#[test]
fn demo_tells_the_whole_story() {
    let place = Place::new();
    let told = place.json(&["demo", "--steps", "3", "--output", "story", "--text", "text.jsonl"]);
    has_fields(
        &told,
        &[
            "tokens_per_forward",
            "acceptance_per_depth",
            "plain_tokens_per_s",
            "speculative_tokens_per_s",
            "speedup",
            "next_token_loss_bits_per_byte",
            "train_seconds",
        ],
    );
    assert_eq!(told["identical"], true);
    assert!(told["prompts"].as_u64().unwrap() > 0);
    assert!(place.exists(told["checkpoint"].as_str().unwrap()));
    assert_eq!(told["report"], "story/report.html");
    let page = String::from_utf8(place.read("story/report.html")).unwrap();
    assert!(page.contains("<svg") && !page.contains("src=\"http"));
}
