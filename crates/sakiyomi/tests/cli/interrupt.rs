//! Ctrl-C while a model trains: what was learned is kept, and the run goes on later.

#![cfg(unix)]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{CHECKPOINT, Place, training};

/// Longer than any machine needs for a few steps of a small model.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn an_interrupted_run_is_saved_and_goes_on() {
    let place = Place::new();
    // So many steps that the run cannot end by itself while the test looks on.
    let endless = training(&["train.steps=1000000", "evaluation.every=0", "train.schedule=constant"]);
    let told = interrupted(&place, &endless, || steps_done(&place, "run") >= 2);
    assert!(told.contains("stopped after step"), "{told}");
    assert!(told.contains("sakiyomi train run/run.toml --resume"), "{told}");
    let done = steps_done(&place, "run");
    let model = place.read(&format!("{CHECKPOINT}/model.safetensors"));

    let planned = format!("train.steps={}", done + 2);
    let told = place.succeeds(&["train", "run/run.toml", &planned, "--resume"]);
    assert!(told.contains(&format!("trained {} steps", done + 2)), "{told}");
    assert_ne!(place.read(&format!("{CHECKPOINT}/model.safetensors")), model);
}

#[test]
fn an_interrupted_demo_says_where_its_model_is() {
    let place = Place::new();
    let demo = |folder: &'static str, steps: &'static str, event: &'static str| {
        let arguments = ["demo", "--output", folder, "--steps", steps, "--text", "text.jsonl", "--json"];
        let told = interrupted(&place, &arguments, || has_event(&place, folder, event));
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["finished"], false, "{told}");
        assert!(place.exists(told["checkpoint"].as_str().unwrap()), "{told}");
        told
    };
    assert_eq!(demo("long", "1000000", "step")["resume"], "sakiyomi train long/run.toml --resume");
    let resume = &demo("short", "1", "finished")["resume"];
    assert!(resume.is_null() || resume == "sakiyomi train short/heads/run.toml --resume", "{resume}");
}

#[test]
fn a_request_to_end_saves_too_and_a_second_one_ends_at_once_without_harm() {
    let place = Place::new();
    let settings = ["train.steps=1000000", "evaluation.every=0", "train.schedule=constant"];
    let told = signalled(&place, &training(&settings), "-TERM", || steps_done(&place, "run") >= 2);
    assert!(told.contains("sakiyomi train run/run.toml --resume"), "{told}");
    let done = steps_done(&place, "run");

    let resume = ["train", "run/run.toml", "--resume"];
    let mut child = spawn(&place, &resume);
    wait_until(|| steps_done(&place, "run") > done, "a step");
    let interrupt = || Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    interrupt();
    interrupt();
    let code = child.wait().unwrap().code();
    assert!(matches!(code, Some(130 | 0)), "{code:?}: at once, or saved before the second came");
    let planned = format!("train.steps={}", steps_done(&place, "run") + 1);
    place.succeeds(&["train", "run/run.toml", &planned, "--resume"]);
}

#[test]
fn reading_a_large_text_is_stopped_with_one_line_and_leaves_nothing() {
    let place = Place::new();
    let learn = ["data", "tokenizer", "text.jsonl", "--size", "300", "--output", "own.json"];
    place.succeeds(&learn);
    // More than any machine reads while the test looks on.
    let text = String::from_utf8(place.read("text.jsonl")).unwrap();
    place.write("large.jsonl", text.repeat(200_000_000 / text.len()));
    let settings = ["data.train=large.jsonl", "data.tokenizer=own.json"];
    let child = spawn(&place, &training(&settings));
    let part = || fs_err::read_dir(place.path("run/cache")).is_ok_and(|mut folder| folder.next().is_some());
    wait_until(part, "no tokens are written");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{told}");
    let lines: Vec<&str> = told.lines().filter(|line| !line.starts_with("reading text: ")).collect();
    assert_eq!(lines.len(), 1, "{told}");
    assert!(lines[0].starts_with("sakiyomi: stopped while reading the text"), "{told}");
    assert!(output.stdout.is_empty() && !place.exists("run"));
    place.train(&[]);
}

#[test]
fn a_page_that_is_not_finished_leaves_nothing() {
    let place = Place::trained(&["model.architecture.layers=4"]);
    let text = String::from_utf8(place.read("text.jsonl")).unwrap();
    place.write("large.jsonl", text.repeat(200));
    fs_err::create_dir(place.path(".page.partial")).unwrap();
    let hidden = || {
        let entries = fs_err::read_dir(place.path("")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with(".page")).count()
    };
    let child = spawn(
        &place,
        &["lens", "report", CHECKPOINT, "--data", "large.jsonl", "--tokens", "1000000", "--output", "page"],
    );
    wait_until(|| hidden() == 2, "the page is not begun");
    // It listens from the next moment on, and works for long after that.
    std::thread::sleep(Duration::from_millis(300));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{told}");
    assert!(told.ends_with("stopped; nothing was written\n"), "{told}");
    assert!(!place.exists("page") && hidden() == 1, "what was there is there, and nothing else");
}

/// As [`signalled`], with Ctrl-C.
fn interrupted(place: &Place, arguments: &[&str], ready: impl Fn() -> bool) -> String {
    signalled(place, arguments, "-INT", ready)
}

/// Runs the program, sends a signal once `ready`, requires exit code 0, and gives what it told.
fn signalled(place: &Place, arguments: &[&str], signal: &str, ready: impl Fn() -> bool) -> String {
    let child = spawn(place, arguments);
    wait_until(ready, &format!("{arguments:?}: not ready for {signal}"));
    let killed = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    told
}

fn spawn(place: &Place, arguments: &[&str]) -> Child {
    Command::new(assert_cmd::cargo::cargo_bin("sakiyomi"))
        .current_dir(place.path(""))
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn wait_until(ready: impl Fn() -> bool, what: &str) {
    let began = Instant::now();
    while !ready() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The events of a run, as far as they are written.
fn events(place: &Place, run: &str) -> Vec<Value> {
    let text = fs_err::read_to_string(place.path(run).join("events.jsonl")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn has_event(place: &Place, run: &str, event: &str) -> bool {
    events(place, run).iter().any(|found| found["event"] == event)
}

/// The last step that the events tell of.
fn steps_done(place: &Place, run: &str) -> usize {
    let steps = events(place, run).into_iter().filter(|event| event["event"] == "step");
    steps.filter_map(|event| event["step"].as_u64()).max().unwrap_or(0) as usize
}
