//! The lens through the command line: random decoders of bytes, the keyword transformer, and what is refused.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::Place;

/// A decoder of bytes with eight narrow layers; its weights are drawn.
const CONFIG: &str = r#"{
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
  "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 8, "num_attention_heads": 2,
  "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
  "tie_word_embeddings": true, "vocab_size": 257
}"#;

fn place() -> Place {
    let place = Place::new();
    fs_err::create_dir(place.path("model")).unwrap();
    place.write("model/config.json", CONFIG);
    place
}

#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn shared(name: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/models").join(name);
    if !folder.is_dir() {
        eprintln!("skipped: {} is not there", folder.display());
        return None;
    }
    Some(folder)
}

const LOOK: &[&str] = &["model", "--data", "text.jsonl", "--random-init", "1", "--length", "32"];

fn lens<'a>(verb: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["lens", verb], LOOK, more].concat()
}

#[test]
fn saturation_tells_order_and_null() {
    let place = place();
    let found = place.json(&lens("saturation", &["--tokens", "1500", "--cut", "1", "--against-random", "2"]));
    assert_eq!((&found["tokens"], &found["layers"]), (&1500.into(), &8.into()));
    for field in
        ["strict_tau", "p_value", "mean_rank", "null", "minus_null", "random", "saturating", "likeness"]
    {
        assert!(!found[field].is_null(), "{field} is missing in {found}");
    }
    assert_eq!(found["mean_rank"].as_array().unwrap().len(), 5);
    assert_eq!(found["permutations"], 9999);
    let share = |value: &Value| value.as_f64().unwrap();
    assert!(share(&found["p_value"]) >= 1e-4 && share(&found["strict_tau"]).abs() <= 1.0);
    let again = place.json(&lens("saturation", &["--tokens", "1500", "--cut", "1", "--against-random", "2"]));
    assert_eq!(found["strict_tau"], again["strict_tau"]);
    assert_eq!(found["null"], again["null"]);
    let text = place.succeeds(&lens("saturation", &["--tokens", "300", "--cut", "1"]));
    assert!(text.contains("strict tau") && text.contains("null model"), "{text}");
}

#[test]
fn probe_intervention_exits_and_report_work_on_one_model() {
    let place = place();
    let small = ["--tokens", "2500", "--cut", "1", "-k", "3"];
    let probed = place.json(&[lens("probe", &small), vec!["--save", "probe.json"]].concat());
    assert!(probed["grouped"]["balanced_accuracy"].as_f64().unwrap() > 0.2, "{probed}");
    let with_probe = [&small[..], &["--probe", "probe.json"]].concat();
    let live = ["--live", "2", "--prompt-tokens", "8", "--new-tokens", "8"];
    let exits = place.json(&[&lens("exit", &with_probe)[..], &live].concat());
    let rules = exits["static"].as_array().unwrap();
    assert_eq!(rules[0]["layer_speedup"], 1.0);
    assert!(rules.iter().any(|rule| rule["rule"] == "probe"));
    let live = exits["live"].as_array().unwrap();
    assert_eq!(live[0]["agreement"], 1.0, "text of all layers is the model's own");
    assert_eq!(live[0]["mean_layers"], 8.0);
    let drafted = exits["lossless"]["drafted"].as_array().unwrap();
    assert!(drafted.len() >= 8 && drafted.iter().all(|way| way["identical"] == true), "{drafted:?}");
    assert_eq!(drafted[0]["tokens"], 14);
    let intervened = place
        .json(&[lens("intervene", &with_probe), vec!["--pairs", "5", "--gap", "1", "--reach", "1"]].concat());
    assert_eq!(intervened["response"].as_array().unwrap().len(), 3);
    let later = place.json(&lens("tokens", &small));
    assert_eq!(later["choices"].as_array().unwrap().len(), 2);
    place.succeeds(&[lens("report", &small), vec!["--output", "page", "--pairs", "5"]].concat());
    let page = String::from_utf8(place.read("page/lens.html")).unwrap();
    assert!(page.contains("In order?") && page.contains("task probe"));
    for file in ["page/heat-map.svg", "page/ranks.json", "page/exits.csv"] {
        assert!(place.exists(file), "{file}");
    }
    place.refuses(&[lens("report", &small), vec!["--output", "page"]].concat(), &["page exists"]);
    let other =
        ["lens", "exit", "model", "--data", "text.jsonl", "--random-init", "9", "--probe", "probe.json"];
    place.refuses(&other, &["probe.json", "made for another model"]);
}

#[test]
fn what_the_monitor_does_is_an_event() {
    let place = place();
    // Without a tied unembedding the early layers of random weights read something else than the last.
    place.write("model/config.json", CONFIG.replace("true", "false"));
    let live = ["--tokens", "100", "--live", "1", "--prompt-tokens", "8", "--new-tokens", "16"];
    let monitor = ["--monitor-share", "1", "--monitor-bound", "0", "--monitor-window", "2"];
    let exits = place.json(&[&lens("exit", &["--events", "events.jsonl"])[..], &live, &monitor].concat());
    let rules = exits["live"].as_array().unwrap();
    let acted = rules.iter().map(|rule| rule["events"].as_array().unwrap().len()).sum::<usize>();
    let events = String::from_utf8(place.read("events.jsonl")).unwrap();
    assert!(acted > 0 && events.lines().count() == acted, "{events}");
    let event: Value = serde_json::from_str(events.lines().next().unwrap()).unwrap();
    assert_eq!((&event["schema"], &event["event"]), (&1.into(), &"exit_monitor".into()));
    assert!(event["disagreement"].as_f64().unwrap() > 0.0 && event["action"].is_string(), "{event}");
}

#[test]
fn heads_are_looked_through_one_by_one() {
    let place = Place::trained(&["model.architecture.layers=5"]);
    let found = place.json(&[
        "lens",
        "saturation",
        crate::support::CHECKPOINT,
        "--data",
        "text.jsonl",
        "--tokens",
        "400",
        "--cut",
        "1",
        "--permutations",
        "99",
    ]);
    let heads = found["heads"].as_array().unwrap();
    assert_eq!(heads.len(), 3);
    assert_eq!((&heads[0]["depth"], &heads[0]["tokens"]), (&2.into(), &400.into()));
    for head in heads {
        assert!(head["null"]["tokens"].as_u64().unwrap() > 0, "{head}");
        assert_ne!(head["null"], found["null"], "each head has a null model of its own");
    }
    assert!(
        heads[2]["accuracy"]["known"].as_u64().unwrap() < heads[0]["accuracy"]["known"].as_u64().unwrap()
    );
}

#[test]
fn early_layers_draft_without_changing_a_token() {
    let place = Place::trained(&["model.architecture.layers=4"]);
    for more in [&["--exit-threshold", "-1"][..], &["--exit-layer", "1", "--exit-threshold", "0.1"]] {
        let verified = place.json(
            &[
                &[
                    "verify",
                    crate::support::CHECKPOINT,
                    "--draft",
                    "exit",
                    "--max-new-tokens",
                    "16",
                    "--draws",
                    "300",
                ],
                more,
            ]
            .concat(),
        );
        assert_eq!(verified["identical"], true, "{verified}");
    }
    let generated = place.json(&[
        "generate",
        crate::support::CHECKPOINT,
        "--prompt",
        "the",
        "--draft",
        "exit",
        "--exit-threshold",
        "-1",
        "--max-new-tokens",
        "20",
        "--ignore-end",
    ]);
    let plain = place.json(&[
        "generate",
        crate::support::CHECKPOINT,
        "--prompt",
        "the",
        "--draft",
        "none",
        "--max-new-tokens",
        "20",
        "--ignore-end",
    ]);
    assert_eq!(generated["tokens"], plain["tokens"]);
    assert!(generated["statistics"]["depths"][0]["drafted"].as_u64().unwrap() > 0);
    let refused =
        ["generate", crate::support::CHECKPOINT, "--prompt", "a", "--draft", "exit", "--exit-layer", "4"];
    place.refuses(&refused, &["exit-layer", "1 to 3"]);
}

#[test]
fn the_keyword_transformer_hears_its_clips() {
    let Some(folder) = shared("kwt1") else { return };
    let place = Place::new();
    let folder = folder.to_str().unwrap();
    let found = place.json(&["lens", "saturation", folder, "--data", folder, "-k", "3", "--cut", "1"]);
    assert_eq!(
        (&found["tokens"], &found["layers"], &found["kind"]),
        (&4.into(), &12.into(), &"keyword".into())
    );
    // Layers in which the first choice settles: the recorded ones less one, because these count from 0.
    let first = found["histogram"][0].as_array().unwrap();
    let settled: Vec<usize> = (0..12).filter(|layer| first[*layer] != 0).collect();
    assert_eq!(settled, [2, 3, 6, 11]);
}

#[test]
fn what_cannot_be_looked_at_is_one_line() {
    let place = place();
    place.refuses(&lens("saturation", &["-k", "9"]), &["k: 9 choices", "1 to 8"]);
    place.refuses(&lens("saturation", &["--cut", "2"]), &["cut"]);
    place.refuses(&lens("saturation", &["--tokens", "0"]), &["--tokens 0"]);
    place.refuses(&lens("exit", &["--probe", "nowhere.json"]), &["nowhere.json"]);
    place.refuses(&lens("exit", &["--live", "2", "--events", "nodir/x"]), &["--events", "no folder nodir"]);
    place.refuses(&lens("exit", &["--events", "x"]), &["--events x: give --live as well"]);
    place.refuses(&lens("probe", &["-k", "1"]), &["-k 1", "at least 2 tasks"]);
    place.refuses(&lens("probe", &["--first-layer", "7"]), &["--first-layer 7: give 0 to 6", "8 layers"]);
    place.refuses(&["lens", "saturation", "model", "--data", "none", "--random-init", "1"], &["none"]);
    place.refuses(&["lens", "saturation", "model", "--data", "text.jsonl"], &["model.safetensors"]);
    place.write("model/config.json", CONFIG.replace("\"num_hidden_layers\": 8", "\"num_hidden_layers\": 3"));
    place.refuses(&lens("saturation", &[]), &["3 layers", "at least 4"]);
    fs_err::create_dir(place.path("bert")).unwrap();
    place.write("bert/config.json", r#"{"model_type": "bert", "architectures": ["BertModel"]}"#);
    place.refuses(
        &["lens", "saturation", "bert", "--data", "text.jsonl", "--random-init", "1"],
        &["architectures", "the lens needs the head of BertForPreTraining"],
    );
    let Some(folder) = shared("kwt1") else { return };
    let folder = folder.to_str().unwrap();
    let at = |data| ["lens", "saturation", folder, "--data", data, "-k", "3"];
    place.refuses(&at("text.jsonl"), &["sounds", "wav"]);
    // The first of its clips settles in layer 2.
    place.refuses(&[&at(folder)[..], &["--cut", "0"]].concat(), &["none of 4 tokens", "give a larger cut"]);
    place.refuses(&[&at(folder)[..], &["--cut", "7"]].concat(), &["cut: 7", "from 0 to 1"]);
}
