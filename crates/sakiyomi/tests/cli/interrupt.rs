//! Ctrl-C while a model trains: what was learned is kept, and the run goes on later.

#![cfg(unix)]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{CHECKPOINT, Place, training};

/// Longer than any machine needs for two steps of the small model.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn an_interrupted_run_is_saved_and_goes_on() {
    let place = Place::new();
    // So many steps that the run cannot end by itself while the test looks on.
    let endless = training(&["train.steps=1000000", "evaluation.every=0", "train.schedule=constant"]);
    let child = Command::new(assert_cmd::cargo::cargo_bin("sakiyomi"))
        .current_dir(place.path(""))
        .args(&endless)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while steps_done(&place) < 2 {
        assert!(began.elapsed() < PATIENCE, "no step was done");
        std::thread::sleep(Duration::from_millis(10));
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("stopped after step") && told.contains("--resume"), "{told}");
    let done = steps_done(&place);
    let model = place.read(&format!("{CHECKPOINT}/model.safetensors"));

    let planned = format!("train.steps={}", done + 2);
    let rest = training(&[&planned, "evaluation.every=0", "train.schedule=constant"]);
    let told = place.succeeds(&[rest, vec!["--resume"]].concat());
    assert!(told.contains(&format!("trained {} steps", done + 2)), "{told}");
    assert_ne!(place.read(&format!("{CHECKPOINT}/model.safetensors")), model);
}

/// The last step that the events tell of.
fn steps_done(place: &Place) -> usize {
    let Ok(events) = fs_err::read_to_string(place.path("run/events.jsonl")) else { return 0 };
    let step = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).ok()?;
        (event["event"] == "step").then(|| event["step"].as_u64().unwrap_or(0) as usize)
    };
    events.lines().filter_map(step).max().unwrap_or(0)
}
