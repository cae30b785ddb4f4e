//! Types of weights: what is decoded with them, and folders that hold them packed.

use crate::support::{CHECKPOINT, Place};

#[test]
fn drafts_leave_the_text_alone_in_every_type_of_weights() {
    let place = Place::trained(&[]);
    for weights in ["f32", "bf16", "int8", "int4"] {
        let verified = place.json(&[
            "verify",
            CHECKPOINT,
            "--weights",
            weights,
            "--max-new-tokens",
            "16",
            "--count",
            "3",
        ]);
        assert_eq!(verified["identical"], true, "{weights}");
        let short_cache = ["verify", CHECKPOINT, "--weights", weights, "--cache", "bf16", "--count", "2"];
        assert_eq!(place.json(&short_cache)["identical"], true, "{weights}");
        let text = |threads: &str| {
            let arguments = ["generate", CHECKPOINT, "--prompt", "the", "--max-new-tokens", "24"];
            place.succeeds(&[&arguments[..], &["--weights", weights, "--threads", threads]].concat())
        };
        assert_eq!(text("1"), text("3"), "{weights}");
    }
}

#[test]
fn a_packed_folder_decodes_as_the_checkpoint_does_with_these_weights() {
    let place = Place::trained(&[]);
    for weights in ["bf16", "int8", "int4"] {
        let folder = format!("packed-{weights}");
        let written = place.json(&["quantize", CHECKPOINT, "--weights", weights, "--output", &folder]);
        assert_eq!(written["weights"], weights);
        // Rows of 16 inputs are padded to a block, so that so small a model need not shrink.
        assert!(written["bytes_after"].as_u64().is_some_and(|bytes| bytes > 0), "{written}");
        let run = |verb: &[&str], folder: &str, more: &[&str]| {
            place.json(&[verb, &[folder, "--max-new-tokens", "20"], more].concat())
        };
        let from_checkpoint = ["--weights", weights];
        let generated = run(&["generate", "--prompt", "the"], &folder, &[]);
        assert_eq!(
            generated["tokens"],
            run(&["generate", "--prompt", "the"], CHECKPOINT, &from_checkpoint)["tokens"]
        );
        assert_eq!(run(&["verify", "--count", "2"], &folder, &[])["identical"], true);
        assert_eq!(
            run(&["bench", "--repeats", "1", "--count", "1"], &folder, &from_checkpoint)["weights"],
            weights
        );
        let loss = |folder: &str, more: &[&str]| {
            let evaluated = place.json(&[&["eval", folder, "--data", "text.jsonl"], more].concat());
            assert_eq!(evaluated["weights"], weights);
            evaluated["loss"].clone()
        };
        assert_eq!(loss(&folder, &[]), loss(CHECKPOINT, &from_checkpoint));
    }
}

#[test]
fn the_loss_of_the_decoding_kernels_is_that_of_the_training_kernels() {
    let place = Place::trained(&[]);
    let loss = |more: &[&str]| {
        let arguments = ["eval", CHECKPOINT, "--data", "text.jsonl", "--length", "48"];
        let evaluated = place.json(&[&arguments[..], more].concat());
        (evaluated["loss"][0].as_f64().unwrap(), evaluated["targets"][0].clone())
    };
    let (trained, targets) = loss(&[]);
    for (weights, tolerance) in [("f32", 1e-5), ("bf16", 1e-2), ("int8", 1e-2), ("int4", 0.2)] {
        let (decoded, decoded_targets) = loss(&["--weights", weights]);
        assert_eq!(decoded_targets, targets);
        assert!((decoded - trained).abs() < tolerance * trained, "{weights}: {decoded}, trained {trained}");
    }
}

/// Weights that are each finite, with products that are not.
#[test]
fn a_model_without_finite_logits_is_not_evaluated() {
    let place = Place::trained(&[]);
    let file = format!("{CHECKPOINT}/model.safetensors");
    let mut bytes = place.read(&file);
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[header..].chunks_mut(4).for_each(|value| value.copy_from_slice(&1e18_f32.to_le_bytes()));
    place.write(&file, &bytes);
    // The heads belong to the model as it was.
    place.remove(&format!("{CHECKPOINT}/mtp.json"));
    let words = ["logits are not finite"];
    place.refuses(&["generate", CHECKPOINT, "--prompt", "the"], &words);
    place.refuses(&["eval", CHECKPOINT, "--data", "text.jsonl"], &words);
    place.refuses(&["eval", CHECKPOINT, "--data", "text.jsonl", "--json"], &words);
}

#[test]
fn packed_folders_are_refused_where_they_cannot_be_used() {
    let place = Place::trained(&[]);
    place.succeeds(&["quantize", CHECKPOINT, "--weights", "int8", "--output", "packed"]);
    place.refuses(&["generate", "packed", "--weights", "int4"], &["packed", "int8", "--weights"]);
    place.refuses(&["quantize", "packed", "--weights", "int4", "--output", "other"], &["packed", "int8"]);
    let train = ["train", "run.toml", "run.folder=new", "train.mode=full", "model.init=packed"];
    place.refuses(&[&train[..], &["data.train=text.jsonl"]].concat(), &["packed", "int8"]);
    place
        .refuses(&["quantize", CHECKPOINT, "--weights", "int8", "--output", "packed"], &["packed", "exists"]);
    place.refuses(&["quantize", CHECKPOINT, "--weights", "f32", "--output", "other"], &["f32", "int8"]);
    place.succeeds(&["quantize", CHECKPOINT, "--weights", "int8", "--output", "other", "--dry-run"]);
    assert!(!place.exists("other"));

    let whole = place.read("packed/packed.safetensors");
    place.write("packed/packed.safetensors", &whole[..whole.len() - 1]);
    place.refuses(&["generate", "packed"], &["packed.safetensors"]);
    place.write("packed/packed.safetensors", place.read(&format!("{CHECKPOINT}/model.safetensors")));
    place.refuses(&["generate", "packed"], &["packed.safetensors", "packs"]);
    place.write("packed/packed.safetensors", &whole);
    let config = String::from_utf8(place.read("packed/config.json")).unwrap();
    place.write("packed/config.json", config.replace("int8", "int9"));
    place.refuses(&["generate", "packed"], &["config.json", "int9"]);
    place.write("packed/config.json", config.replace("int8", "int4"));
    place.refuses(&["generate", "packed"], &["packed.safetensors", "bytes"]);
}

#[test]
fn the_cost_of_rows_is_measured() {
    let place = Place::trained(&[]);
    let arguments =
        ["bench", "decode", "--rows", "1,3", "--context", "20", "--repeats", "2", "--weights", "int8"];
    let measured = place.json(&[&arguments[..], &[CHECKPOINT]].concat());
    for rows in ["1", "3"] {
        assert!(measured["rows"][rows].as_f64().unwrap() > 0.0, "{measured}");
    }
    assert_eq!(measured["cost"]["1"], 1.0);
    assert!(measured["fraction_of_bandwidth"].as_f64().unwrap() > 0.0);
    let forced = ["--random", "1M", "--heads", "4", "--force-acceptance", "2.5"];
    let measured = place.json(&[&arguments[..], &forced].concat());
    let tokens = measured["forced"]["tokens_per_forward"].as_f64().unwrap();
    assert!((2.4..=2.6).contains(&tokens), "{measured}");
    place.refuses(&["bench", "decode", "--random", "2M"], &["2M", "llama-500m"]);
    place.refuses(&["bench", "decode", CHECKPOINT, "--context", "1000"], &["--context", "128"]);
    place.refuses(&["bench", "decode", CHECKPOINT, "--rows", "0"], &["--rows"]);
}

#[test]
fn acceptance_can_be_forced() {
    let place = Place::trained(&[]);
    let arguments = ["bench", CHECKPOINT, "--count", "1", "--repeats", "1", "--max-new-tokens", "40"];
    let measured = place.json(&[&arguments[..], &["--force-acceptance", "1.5", "--ignore-end"]].concat());
    let tokens = |index: usize| {
        let statistics = &measured["measurement"]["drafted"][index]["speed"]["statistics"];
        statistics["committed_tokens"].as_f64().unwrap() / statistics["forwards"].as_f64().unwrap()
    };
    assert!((1.4..=1.6).contains(&tokens(0)), "{measured}");
    place.refuses(&[&arguments[..], &["--force-acceptance", "0.5"]].concat(), &["0.5"]);
}

#[test]
fn the_length_of_drafts_is_chosen_by_what_rounds_cost_here() {
    let place = Place::trained(&[]);
    let arguments = ["generate", CHECKPOINT, "--prompt", "the", "--max-new-tokens", "60"];
    let generate = |speculate: &str| {
        place.json(&[&arguments[..], &["--speculate", speculate]].concat())["tokens"].clone()
    };
    let plain = generate("off");
    assert!(!place.exists(".cache/sakiyomi/round-costs.json"));
    assert_eq!(generate("auto"), plain);
    let kept = place.read(".cache/sakiyomi/round-costs.json");
    assert_eq!(generate("auto"), plain);
    assert_eq!(place.read(".cache/sakiyomi/round-costs.json"), kept, "measured again");
    // A file that holds something else is measured over.
    place.write(".cache/sakiyomi/round-costs.json", "{");
    assert_eq!(generate("auto"), plain);
    let measured =
        place.json(&["bench", CHECKPOINT, "--count", "1", "--repeats", "1", "--max-new-tokens", "20"]);
    assert!(measured["measurement"]["auto"]["speedup"]["median"].as_f64().unwrap() > 0.0, "{measured}");
}
