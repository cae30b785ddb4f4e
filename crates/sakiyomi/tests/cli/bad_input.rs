//! Bad input gives one clear line and exit code 2, and costs nothing that was there.

use crate::support::{CHECKPOINT, Place, stderr, training, training_from};

#[test]
fn damaged_checkpoints_are_named_by_file() {
    let place = Place::trained(&[]);
    place.train(&["run.folder=other", "run.seed=9"]);
    place.refuses(&["generate", "nowhere", "--prompt", "a"], &["nowhere", "config.json"]);
    let mut number = 0;
    let mut damaged = |damage: &dyn Fn(&Place, &str), words: &[&str]| {
        number += 1;
        let folder = format!("damaged-{number}");
        place.copy_checkpoint(CHECKPOINT, &folder);
        damage(&place, &folder);
        place.refuses(&["generate", &folder, "--prompt", "a"], words);
    };
    let cut = |file: &'static str, bytes: usize| {
        move |place: &Place, folder: &str| {
            let name = format!("{folder}/{file}");
            place.write(&name, &place.read(&name)[..bytes]);
        }
    };
    let replace = |file: &'static str, content: &'static [u8]| {
        move |place: &Place, folder: &str| place.write(&format!("{folder}/{file}"), content)
    };
    let remove =
        |file: &'static str| move |place: &Place, folder: &str| place.remove(&format!("{folder}/{file}"));
    damaged(&cut("model.safetensors", 5), &["model.safetensors", "damaged"]);
    damaged(&cut("model.safetensors", 1000), &["model.safetensors", "truncated"]);
    damaged(&cut("model.safetensors", 10_000), &["model.safetensors", "damaged"]);
    damaged(&cut("model.safetensors", 0), &["model.safetensors", "empty"]);
    damaged(&replace("model.safetensors", &[0xd7; 4096]), &["model.safetensors", "damaged"]);
    damaged(&remove("model.safetensors"), &["model.safetensors"]);
    damaged(&remove("tokenizer.json"), &["tokenizer.json"]);
    damaged(&replace("tokenizer.json", b"{"), &["tokenizer.json", "JSON"]);
    damaged(&remove("mtp.safetensors"), &["mtp.safetensors", "missing"]);
    damaged(&cut("mtp.safetensors", 100), &["mtp.safetensors", "truncated"]);
    damaged(&cut("mtp.safetensors", 1000), &["mtp.safetensors", "damaged"]);
    damaged(&replace("mtp.json", b"{"), &["mtp.json"]);
    damaged(&replace("mtp.json", b"{\"format\": 99}"), &["mtp.json", "99"]);
    damaged(&replace("config.json", b"{\"model_type\":"), &["config.json"]);
    damaged(&replace("config.json", b"[]"), &["config.json"]);
    damaged(&remove("config.json"), &["config.json"]);
    let other_heads = |place: &Place, folder: &str| {
        for file in ["mtp.json", "mtp.safetensors"] {
            place.write(&format!("{folder}/{file}"), place.read(&format!("other/checkpoints/last/{file}")));
        }
    };
    damaged(&other_heads, &["mtp.json", "other weights"]);
}

#[test]
fn text_that_cannot_be_used_is_named_by_file_and_place() {
    let place = Place::new();
    place.write("empty.txt", "");
    place.write("blank.txt", "\n \n\n");
    place.write("latin.txt", b"caf\xe9 au lait");
    place.write("broken.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\n");
    place.write("field.jsonl", "{\"text\": \"a\"}\n{\"txt\": \"b\"}\n");
    place.write("picture.png", "a");
    let refuses = |file: &str, words: &[&str]| {
        let text = format!("data.train={file}");
        place.refuses(&training(&[&text]), words);
        place.refuses(&["data", "show", "run.toml", &text], words);
        place.refuses(&["demo", "--steps", "1", "--output", "demo", "--text", file], words);
        assert!(!place.exists("run/checkpoints/last"), "{file}");
    };
    refuses("empty.txt", &["no text", "empty.txt"]);
    refuses("blank.txt", &["no text", "blank.txt"]);
    refuses("missing.txt", &["missing.txt"]);
    refuses("latin.txt", &["latin.txt", "UTF-8", "byte 3"]);
    refuses("broken.jsonl", &["broken.jsonl:2"]);
    refuses("field.jsonl", &["field.jsonl:2", "\"txt\""]);
    refuses("picture.png", &["picture.png", ".jsonl"]);
}

#[test]
fn settings_that_cannot_work_are_named_by_key() {
    let place = Place::new();
    let refuses = |setting: &str, words: &[&str]| {
        place.refuses(&training(&[setting]), words);
        place.refuses(&[training(&[setting]), vec!["--dry-run"]].concat(), words);
    };
    refuses("train.stpes=3", &["train.stpes", "did you mean train.steps?"]);
    refuses("train.steps", &["train.steps", "section.key=value"]);
    refuses("train.steps=many", &["train.steps", "whole number"]);
    refuses("objective.head=linaer", &["objective.head", "did you mean linear?"]);
    refuses("objective.n=0", &["n"]);
    refuses("objective.n=5000", &["n"]);
    refuses("model.architecture.heads=3", &["model.architecture.heads"]);
    refuses("model.architecture.preset=2M", &["model.architecture.preset"]);
    refuses("train.length=4096", &["train.length", "context"]);
    refuses("train.mode=heads", &["model.init"]);
    refuses("run.threads=100000000", &["run.threads"]);
    refuses("train.batch=4000000000000", &["train.batch", "tokens a step"]);
    for rows in ["0", "4000000000000"] {
        place.refuses(&["data", "show", "run.toml", "--rows", rows], &["--rows", "give 1 to 1024"]);
    }
    place.write("mistyped.toml", "[data]\ntrain = \"text.jsonl\"\n\n[train]\nlearning_rat = 1\n");
    let words = ["mistyped.toml:5", "did you mean train.learning_rate?"];
    place.refuses(&["train", "mistyped.toml"], &words);
    place.write("wrong-type.toml", "[data]\ntrain = 3\n");
    place.refuses(&["train", "wrong-type.toml"], &["wrong-type.toml:2", "data.train"]);
    place.write("no-toml.toml", "[data\n");
    place.refuses(&["train", "no-toml.toml"], &["no-toml.toml:1"]);
    place.refuses(&["train", "missing.toml"], &["missing.toml"]);
    place.write("latin.toml", b"[data]\n\ntrain = \"caf\xe9\"\n");
    place.refuses(&["train", "latin.toml"], &["latin.toml:3", "UTF-8"]);
    place.write("nul.toml", b"[data]\ntrain = \"a\0b\"\n");
    place.refuses(&["train", "nul.toml"], &["nul.toml:2", "NUL"]);
    place.refuses(&["train", "."], &["."]);
    refuses("watch.patiense=1", &["watch.patiense", "did you mean watch.patience?"]);
    refuses("checkpoint.keep_last=0", &["checkpoint.keep_last"]);
    refuses("train.seconds=1e300", &["train.seconds is 1e300", "at most 1000000000"]);
    refuses("run.folder=.", &["run.folder is ., which has a run.toml that no run wrote"]);
    refuses("model.architecture.width=9223372036854775806", &["model.architecture.width"]);
    refuses("model.architecture.layers=9223372036854775807", &["model.architecture.layers"]);
    refuses("model.architecture.ffn=9223372036854775807", &["model.architecture.ffn"]);
    let large = [
        "model.architecture.heads=128",
        "model.architecture.width=65536",
        "model.architecture.layers=200",
        "model.architecture.ffn=65536",
    ];
    for flag in ["--json", "--dry-run"] {
        place.refuses(
            &[training(&large), vec![flag]].concat(),
            &["GB of memory", "the machine has", "--force"],
        );
    }
    assert!(!place.exists("run"), "nothing is written before the settings are checked");
}

#[test]
fn counts_that_nobody_waits_for_are_refused_at_once() {
    let place = Place::trained(&[]);
    let many = "99999999999999999";
    place.refuses(&["verify", CHECKPOINT, "--draws", many], &["--draws", "give 0 to 10000000"]);
    place.refuses(&["bench", CHECKPOINT, "--repeats", many], &["--repeats", "give 1 to 10000"]);
    place.refuses(&["bench", "decode", CHECKPOINT, "--repeats", many], &["--repeats", "give 1 to 10000"]);
    place.refuses(&["bench", "step", "--steps", many], &["--steps", "give 1 to 100000"]);
    place.refuses(&["bench", CHECKPOINT, "--repeats", "0"], &["--repeats 0"]);
    let random = ["bench", "decode", "--random", "1M", "--repeats", "1", "--rows", "1"];
    let refuses = |more: &[&str], words: &[&str]| place.refuses(&[&random[..], more].concat(), words);
    for vocabulary in ["0", "1", "1048577", many, "18446744073709551615"] {
        refuses(&["--vocab", vocabulary], &["--vocab", "give 2 to 1048576"]);
    }
    for context in [many, "18446744073709551615"] {
        refuses(&["--context", context], &["--context", "give 1 to 16777216"]);
    }
}

#[test]
fn an_acceptance_that_no_draft_gives_is_refused_before_anything_is_measured() {
    let place = Place::trained(&[]);
    let refuses = |acceptance: &str, words: &[&str]| {
        let arguments = ["bench", "decode", CHECKPOINT, "--context", "16", "--force-acceptance", acceptance];
        let told = stderr(&place.run(&arguments));
        assert!(!told.contains("measuring"), "{told}");
        place.refuses(&arguments, words);
    };
    for acceptance in ["0", "4.5", "nan"] {
        refuses(acceptance, &["--force-acceptance", "1 to 4 tokens"]);
    }
}

#[test]
fn a_run_is_neither_overwritten_nor_resumed_by_accident() {
    let place = Place::new();
    place.refuses(&[training(&[]), vec!["--resume"]].concat(), &["run", "no run to resume"]);
    place.train(&[]);
    let before = place.read("run/events.jsonl");
    let model = place.read("run/checkpoints/last/model.safetensors");
    place.refuses(&training(&[]), &["already holds a run", "--resume"]);
    place.refuses(&[training(&["train.batch=3"]), vec!["--resume"]].concat(), &["train.batch"]);
    place.refuses(&["demo", "--output", "run", "--steps", "1"], &["--output run"]);
    place.refuses(&["init"], &["run.toml exists"]);
    assert_eq!(place.read("run/events.jsonl"), before);
    assert_eq!(place.read("run/checkpoints/last/model.safetensors"), model);
}

#[test]
fn folders_that_cannot_be_made_are_named() {
    let place = Place::trained(&[]);
    place.write("file", "");
    place.refuses(&training(&["run.folder=file/run"]), &["file/run"]);
    place.refuses(&["init", "file/run.toml"], &["file/run.toml"]);
    place.refuses(&["report", "run", "--output", "file/page.html"], &["file/page.html"]);
    let demo = ["demo", "--output", "file/demo", "--steps", "1", "--text", "text.jsonl"];
    place.refuses(&demo, &["file/demo"]);
    place.refuses(&["report", "nowhere"], &["nowhere", "no run"]);
}

#[test]
fn decoding_settings_that_cannot_work_are_named() {
    let place = Place::trained(&[]);
    let long = "word ".repeat(60);
    place.write("long.txt", &long);
    place.write("latin.txt", b"caf\xe9");
    place.write("empty.txt", "");
    let refuses = |arguments: &[&str], words: &[&str]| {
        place.refuses(&[&["generate", CHECKPOINT, "--prompt", "a"], arguments].concat(), words);
    };
    refuses(&["--speculate", "9"], &["--speculate: 9 tokens", "1 to 3"]);
    refuses(&["--speculate", "many"], &["--speculate many"]);
    refuses(&["--draft", "none", "--speculate", "many"], &["--speculate many"]);
    refuses(&["--temperature", "-1"], &["--temperature: -1 is not a number from 0"]);
    refuses(&["--seed", "-3"], &["--seed -3: give a whole number, 0 or more"]);
    refuses(&["--speculate", "-1"], &["--speculate -1: give auto, off or a number of tokens"]);
    refuses(&["--top-k", "99999999999999999999999"], &["--top-k 99999999999999999999999: that is too large"]);
    refuses(&["--top-p", "half"], &["--top-p half: give a number"]);
    refuses(&["--draft", "none", "--speculate", "3"], &["--speculate 3: --draft none drafts nothing"]);
    refuses(&["--exit-layer", "1"], &["--exit-layer", "needs --draft exit"]);
    refuses(&["--draft", "exit", "--exit-threshold", "nan"], &["--exit-threshold: NaN", "from 0 to 1"]);
    refuses(&["--weights", "f16"], &["'--weights <f32|bf16|int8|int4>'", "give f32, bf16, int8 or int4;"]);
    refuses(&["--temperature", "nan"], &["temperature"]);
    refuses(&["--temperature", "1", "--top-p", "0"], &["--top-p: 0 is not above 0"]);
    refuses(&["--min-p", "2"], &["--min-p: 2 is not"]);
    refuses(&["--repetition-penalty", "0"], &["--repetition-penalty: 0 is not between"]);
    refuses(&["--max-new-tokens", "0"], &["--max-new-tokens: 0 tokens"]);
    refuses(&["--stop", ""], &["stop"]);
    refuses(&["--threads", "100000"], &["--threads"]);
    place.refuses(&["generate", CHECKPOINT, "--prompt", &long], &["301 tokens", "128"]);
    place.refuses(&["generate", CHECKPOINT, "--prompt-file", "latin.txt"], &["latin.txt", "UTF-8"]);
    for verb in ["verify", "bench"] {
        place.refuses(&[verb, CHECKPOINT, "--prompts", "long.txt"], &["301 tokens", "128"]);
        place.refuses(&[verb, CHECKPOINT, "--prompts", "empty.txt"], &["empty.txt"]);
        place.refuses(&[verb, CHECKPOINT, "--prompts", "missing.txt"], &["missing.txt"]);
        place.refuses(&[verb, CHECKPOINT, "--count", "0"], &["--count"]);
    }
    let eval = ["eval", CHECKPOINT, "--data", "text.jsonl"];
    place.succeeds(&eval);
    place.refuses(&[&eval[..], &["--length", "1000"]].concat(), &["--length 1000", "128"]);
    place.refuses(&[&eval[..], &["--length", "32", "--batch", "1000000"]].concat(), &["--batch"]);
    place.copy_checkpoint(CHECKPOINT, "plain");
    place.remove("plain/mtp.json");
    place.refuses(&["verify", "plain"], &["no heads"]);
    place.refuses(&["generate", "plain", "--draft", "heads"], &["--draft heads", "no parallel heads"]);
    place.refuses(&["bench", CHECKPOINT, "--temperature", "-1"], &["--temperature: -1"]);
}

#[test]
fn a_checkpoint_with_another_tokenizer_is_refused() {
    let place = Place::trained(&[]);
    place.copy_checkpoint(CHECKPOINT, "exchanged");
    let tokenizer = String::from_utf8(place.read("exchanged/tokenizer.json")).unwrap();
    let (one, other) = ("\"a\":", "\"b\":");
    assert!(tokenizer.contains(one) && tokenizer.contains(other));
    let exchanged = tokenizer.replacen(one, "\"?\":", 1).replacen(other, one, 1).replacen("\"?\":", other, 1);
    place.write("exchanged/tokenizer.json", &exchanged);
    let words = ["exchanged/tokenizer.json", "another tokenizer"];
    place.refuses(&["generate", "exchanged", "--prompt", "a"], &words);
    place.refuses(&["eval", "exchanged", "--data", "text.jsonl"], &words);
    let from = |init: &'static str, more: &[&'static str]| {
        training_from(&[&["train.mode=full", "run.folder=second", init], more].concat())
    };
    place.refuses(&from("model.init=exchanged", &[]), &words);
    let given = from("model.init=run/checkpoints/last", &["data.tokenizer=exchanged"]);
    place.refuses(&given, &["data.tokenizer", "another tokenizer than that of model.init"]);
    place.write("run/checkpoints/last/tokenizer.json", &exchanged);
    place.refuses(&["train", "run/run.toml", "--resume", "train.steps=9"], &["another tokenizer"]);
    assert!(!place.exists("second"));
}

#[test]
fn what_stands_in_the_place_of_a_file_is_not_passed_over() {
    let place = Place::trained(&[]);
    let generate = ["generate", "odd", "--prompt", "a", "--max-new-tokens", "2"];
    for name in ["mtp.json", "generation_config.json", "adapter/adapter_config.json"] {
        place.copy_checkpoint(CHECKPOINT, "odd");
        place.succeeds(&generate);
        let path = place.path("odd").join(name);
        let _ = fs_err::remove_file(&path);
        fs_err::create_dir_all(&path).unwrap();
        place.refuses(&generate, &[name, "is no file"]);
        #[cfg(unix)]
        for target in ["/dev/null", "..", name] {
            fs_err::remove_dir(&path).or_else(|_| fs_err::remove_file(&path)).unwrap();
            std::os::unix::fs::symlink(target, &path).unwrap();
            place.refuses(&generate, &[name]);
        }
        fs_err::remove_dir_all(place.path("odd")).unwrap();
    }
}

#[test]
fn settings_that_another_makes_meaningless_are_refused() {
    let place = Place::trained(&[]);
    let eval = ["eval", CHECKPOINT, "--data", "text.jsonl"];
    for flag in [["--count", "3"], ["--prompt-end", ":"], ["--max-new-tokens", "3"]] {
        place.refuses(&[&eval[..], &flag].concat(), &["--task"]);
    }
    for flag in [["--length", "8"], ["--batches", "2"], ["--separator", "\n"]] {
        place.refuses(&[&eval[..], &flag, &["--task", "exact-match"]].concat(), &["--task", flag[0]]);
    }
    place.write("lines.txt", "1+1 is 2\n");
    let answers = ["eval", CHECKPOINT, "--data", "lines.txt", "--task", "exact-match"];
    place.refuses(&answers, &["lines.txt:1", "\"=\"", "(--prompt-end)"]);
    let long = format!("a=b\n{}=3\n", "word ".repeat(60));
    place.write("long.txt", long);
    let long = ["eval", CHECKPOINT, "--data", "long.txt", "--task", "exact-match"];
    place.refuses(
        &long,
        &["long.txt:2: the prompt has 302 tokens", "context is 128: shorten it to at most 127"],
    );
    assert!(!stderr(&place.run(&long)).contains("word word"));
    place.refuses(
        &["verify", CHECKPOINT, "--draft", "none"],
        &["--draft none: without drafts there is nothing"],
    );
    let told = stderr(&place.run(&training(&["run.folder=short", "train.warmup_steps=50"])));
    assert!(told.contains("train.warmup_steps is 50 and the run has 4 steps"), "{told}");
    let full = ["generate", CHECKPOINT, "--prompt", "a", "--ignore-end"];
    let told = stderr(&place.run(&full));
    assert!(told.contains("the text ends where the model's context does, after 126 of 256 tokens"), "{told}");
    assert_eq!(stderr(&place.run(&[&full[..], &["--max-new-tokens", "5"]].concat())), "");
}

#[test]
fn a_page_replaces_only_a_page() {
    let place = Place::trained(&[]);
    let text = place.read("text.jsonl");
    place.refuses(&["report", "run", "--output", "text.jsonl"], &["--output text.jsonl", "something else"]);
    assert_eq!(place.read("text.jsonl"), text);
    place.succeeds(&["report", "run", "--output", "page.html"]);
    place.succeeds(&["report", "run", "--output", "page.html"]);
}

#[test]
fn wrong_arguments_are_told_on_one_line() {
    let place = Place::new();
    place.refuses(&["train"], &["required arguments", "<RUN>", "--help"]);
    place.refuses(&["generate", "run", "--no-such-flag"], &["--no-such-flag"]);
    place.refuses(&["doctor", "--threads", "many"], &["--threads many: give a whole number, 0 or more"]);
}

/// Names of other encodings are no reason to stop, and where a library stops at them, it is told.
#[cfg(target_os = "linux")]
#[test]
fn names_that_are_not_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::trained(&[]);
    let name = std::ffi::OsStr::from_bytes(b"z\xff.jsonl");
    std::fs::create_dir(place.path("texts")).unwrap();
    std::fs::copy(place.path("text.jsonl"), place.path("texts").join(name)).unwrap();
    let evaluate = |data| ["eval", CHECKPOINT, "--data", data, "--length", "16"];
    place.succeeds(&evaluate("texts"));
    place.refuses(&evaluate("texts/*.jsonl"), &["texts/*.jsonl", "not UTF-8"]);
}
