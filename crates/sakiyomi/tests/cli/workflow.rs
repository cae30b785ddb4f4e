//! From an empty folder to a verified model: every verb once, in the order of a user's day.

use crate::support::{CHECKPOINT, Place, training, training_from};

#[test]
fn init_writes_what_its_dry_run_shows() {
    let place = Place::new();
    let shown = place.succeeds(&["init", "--dry-run"]);
    assert_eq!(shown.trim_end(), String::from_utf8(place.read("run.toml")).unwrap().trim_end());
}

#[test]
fn data_show_and_dry_run_leave_no_run() {
    let place = Place::new();
    let shown = place.succeeds(&["data", "show", "run.toml", "data.train=text.jsonl", "train.length=32"]);
    assert!(shown.contains("38 documents to train on, 2 held out"), "{shown}");
    let planned = place.succeeds(&[training(&[]), vec!["--dry-run"]].concat());
    assert!(planned.contains("2 layers, width 16") && planned.contains("4 steps of 64 tokens"), "{planned}");
    assert!(!place.exists("run/run.toml"));
}

#[test]
fn drafts_never_change_the_text() {
    for head in ["objective.head=linear", "objective.head=layer"] {
        let place = Place::trained(&[head]);
        let text = |speculate: &str| {
            let drafting = ["--max-new-tokens", "40", "--ignore-end", "--speculate", speculate];
            place.succeeds(&[&["generate", CHECKPOINT, "--prompt", "the fox"], &drafting[..]].concat())
        };
        let plain = text("off");
        assert!(!plain.trim().is_empty());
        for length in ["1", "2", "3", "auto"] {
            assert_eq!(text(length), plain, "{head}, drafts of {length}");
        }
        let verified = place.succeeds(&["verify", CHECKPOINT, "--max-new-tokens", "20", "--draws", "0"]);
        assert!(verified.starts_with("identical: 8 prompts"), "{verified}");
    }
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one() {
    let place = Place::new();
    // A constant rate, so that the schedule does not depend on how many steps are planned.
    let settings = ["train.schedule=constant", "data.cache=cache"];
    place.train(&[&settings[..], &["run.folder=whole", "train.steps=6"]].concat());
    place.train(&[&settings[..], &["run.folder=parts", "train.steps=3"]].concat());
    let rest = training(&[&settings[..], &["run.folder=parts", "train.steps=6"]].concat());
    place.succeeds(&[rest, vec!["--resume"]].concat());
    for file in ["model.safetensors", "mtp.safetensors", "trainer/moments.safetensors"] {
        let of = |run: &str| place.read(&format!("{run}/checkpoints/last/{file}"));
        assert_eq!(of("whole"), of("parts"), "{file}");
    }
}

#[test]
fn heads_are_added_to_a_plain_checkpoint_that_stays_as_it_is() {
    let place = Place::trained(&["objective.kind=next-token"]);
    assert!(!place.exists("run/checkpoints/last/mtp.json"), "a model without heads is a plain checkpoint");
    let init = format!("model.init={CHECKPOINT}");
    for head in ["linear", "layer"] {
        let (kind, folder) = (format!("objective.head={head}"), format!("run.folder={head}"));
        place.succeeds(&training_from(&[&init, "train.mode=heads", &kind, &folder]));
        let with_heads = format!("{head}/checkpoints/last");
        let model = "model.safetensors";
        assert_eq!(
            place.read(&format!("{with_heads}/{model}")),
            place.read(&format!("{CHECKPOINT}/{model}")),
            "a frozen model is frozen to the bit"
        );
        let generate = |checkpoint: &str| {
            place.succeeds(&["generate", checkpoint, "--prompt", "the", "--max-new-tokens", "24"])
        };
        assert_eq!(generate(&with_heads), generate(CHECKPOINT));
        place.succeeds(&["verify", &with_heads, "--max-new-tokens", "12", "--count", "3", "--draws", "0"]);
    }
}

#[test]
fn heads_can_be_taken_away() {
    let place = Place::trained(&[]);
    place.copy_checkpoint(CHECKPOINT, "plain");
    place.remove("plain/mtp.json");
    place.remove("plain/mtp.safetensors");
    let generate =
        |folder: &str| place.succeeds(&["generate", folder, "--prompt", "a", "--max-new-tokens", "16"]);
    assert_eq!(generate("plain"), generate(CHECKPOINT));
}

/// A full disk behind standard error changes neither the text nor the exit code.
#[cfg(target_os = "linux")]
#[test]
fn remarks_that_cannot_be_written_stop_nothing() {
    let place = Place::trained(&[]);
    let run = |arguments: &[&str]| {
        std::process::Command::new(assert_cmd::cargo::cargo_bin("sakiyomi"))
            .current_dir(place.path(""))
            .args(arguments)
            .stderr(std::fs::File::create("/dev/full").unwrap())
            .output()
            .unwrap()
    };
    let generated = run(&["generate", CHECKPOINT, "--prompt", "a", "--max-new-tokens", "8", "--stats"]);
    assert_eq!(generated.status.code(), Some(0));
    assert!(!generated.stdout.is_empty());
    assert_eq!(run(&["generate", "nowhere", "--prompt", "a"]).status.code(), Some(2));
}

#[test]
fn a_seed_decides_what_sampling_with_drafts_draws() {
    let place = Place::trained(&[]);
    let sample = |seed: &str| {
        let sampling = ["--max-new-tokens", "20", "--temperature", "0.8", "--seed", seed];
        place.run(&[&["generate", CHECKPOINT, "--prompt", "a", "--speculate", "2"], &sampling[..]].concat())
    };
    let first = sample("1");
    assert_eq!(first.status.code(), Some(0));
    assert_eq!(first.stdout, sample("1").stdout, "a seed decides the draws");
    assert_ne!(first.stdout, sample("2").stdout);
}

#[test]
fn text_ends_before_a_stop_string() {
    let place = Place::trained(&[]);
    let settings = ["--max-new-tokens", "40", "--temperature", "1", "--ignore-end"];
    let generate = [&["generate", CHECKPOINT, "--prompt", "a"], &settings[..]].concat();
    let whole = place.json(&generate)["text"].as_str().unwrap().to_owned();
    let stop: String = whole.chars().filter(|letter| letter.is_ascii_alphanumeric()).nth(3).unwrap().into();
    let stopped = place.json(&[&generate[..], &["--stop", &stop]].concat());
    assert_eq!(stopped["text"].as_str().unwrap(), &whole[..whole.find(&stop).unwrap()]);
}

#[test]
fn eval_and_report_tell_of_a_run() {
    let place = Place::trained(&[]);
    let eval = ["eval", CHECKPOINT, "--data", "text.jsonl", "--length", "32"];
    assert!(place.succeeds(&eval).contains("40 documents"));
    place.train(&["run.folder=second", "run.seed=5"]);
    place.succeeds(&["report", "run", "--output", "dry.html", "--dry-run"]);
    assert!(!place.exists("dry.html"));
    place.succeeds(&["report", "run"]);
    assert!(place.exists("run/report.html") && !place.exists("report.html"));
    place.succeeds(&["report", "run", "second"]);
    assert!(place.exists("report.html"));
    place.refuses(&["report", "run", "second"], &["report.html exists", "--output"]);
    for (runs, page) in [(&["run"][..], "one.html"), (&["run", "second"], "two.html")] {
        place.succeeds(&[&["report"], runs, &["--output", page]].concat());
        let page = String::from_utf8(place.read(page)).unwrap();
        assert!(page.starts_with("<!") && page.contains("<svg"));
        for outside in ["src=\"http", "href=\"http", "@import", "<script src", "<link rel=\"stylesheet"] {
            assert!(!page.contains(outside), "the page needs nothing but itself: {outside}");
        }
    }
}

#[test]
fn continuations_are_what_the_model_says_and_heads_train_on_them() {
    let place = Place::trained(&["objective.kind=next-token"]);
    let sizes = ["--count", "5", "--prompt-tokens", "20", "--max-new-tokens", "12"];
    let asked =
        [&["data", "continuations", CHECKPOINT, "text.jsonl", "--output", "own.jsonl"][..], &sizes].concat();
    let told = place.json(&asked);
    assert_eq!(told["continuations"], 5);
    let own = String::from_utf8(place.read("own.jsonl")).unwrap();
    let texts: Vec<serde_json::Value> = own.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(texts.len(), 5);
    // A beginning of 20 tokens: the one that stands before every document, and 19 bytes.
    let (prompt, rest) = texts[0]["text"].as_str().unwrap().split_at(19);
    let said = place.succeeds(&["generate", CHECKPOINT, "--prompt", prompt, "--max-new-tokens", "12"]);
    assert_eq!(said.strip_suffix('\n'), Some(rest));
    place.refuses(&asked, &["own.jsonl exists"]);
    place.refuses(
        &["data", "continuations", CHECKPOINT, "text.jsonl", "--output", "own.txt"],
        &["must end in .jsonl"],
    );
    let init = format!("model.init={CHECKPOINT}");
    let heads = training_from(&[&init, "run.folder=heads", "train.mode=heads", "data.train=own.jsonl"]);
    place.succeeds(&heads);
    assert!(place.exists("heads/checkpoints/last/mtp.json"));
}

#[test]
fn dry_runs_write_nothing() {
    let place = Place::trained(&[]);
    let names = |place: &Place| {
        let names = fs_err::read_dir(place.path("")).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    let before = names(&place);
    let writing: &[(&[&str], &str)] = &[
        (
            &["data", "tokenizer", "text.jsonl", "--size", "300", "--output", "new"],
            "up to 300 ids, learnt from 1 files",
        ),
        (
            &["data", "continuations", CHECKPOINT, "text.jsonl", "--count", "7", "--output", "new.jsonl"],
            "7 continuations",
        ),
        (
            &["data", "generate", "addition", "--train", "50", "--test", "9", "--output", "new"],
            "50 examples to train on",
        ),
        (
            &["lens", "report", CHECKPOINT, "--data", "text.jsonl", "--output", "new"],
            "2 layers with 257 outputs",
        ),
        (&["quantize", CHECKPOINT, "--weights", "int8", "--output", "new"], "nothing written"),
        (&["report", "run", "--output", "new.html"], "would write new.html"),
        (&["demo", "--output", "new"], "(dry run)"),
        (&["init", "new.toml"], "[data]"),
    ];
    for (arguments, words) in writing {
        let dry = [*arguments, &["--dry-run"]].concat();
        let told = place.succeeds(&dry);
        assert!(told.contains(words), "{arguments:?}: {told}");
        place.json(&dry);
        assert_eq!(names(&place), before, "{arguments:?}");
    }
}
