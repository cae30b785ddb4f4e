//! kill -9 at any moment, also inside a save: the run goes on to the same bits.

#![cfg(unix)]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use train::events::{self, Event, StepEvent};

use crate::support::{CHECKPOINT, Place, training};

/// Longer than any machine needs for a few steps of a small model.
const PATIENCE: Duration = Duration::from_secs(60);

/// Saves after every step, so that about every second kill hits one; a curriculum, so that heads join late.
const SETTINGS: &[&str] = &[
    "train.steps=60",
    "evaluation.every=3",
    "checkpoint.every=1",
    "checkpoint.keep_last=2",
    "objective.curriculum_steps=9",
    "objective.head=layer",
    "train.accumulate=2",
];

#[test]
fn a_run_killed_at_random_moments_goes_on_to_the_same_bits() {
    kill_and_compare(4, 1);
}

#[test]
#[ignore = "twenty kills, half a minute"]
fn a_run_killed_twenty_times_goes_on_to_the_same_bits() {
    for seed in 2..7 {
        kill_and_compare(4, seed);
    }
    kill_and_compare(20, 7);
}

/// Kills a run `kills` times, finishes it, and compares it with one that was left alone.
fn kill_and_compare(kills: u64, seed: u64) {
    let place = Place::new();
    place.succeeds(&training(&[SETTINGS, &["run.folder=alone"]].concat()));
    let mut random = tensor::random::seeded(seed, 0);
    let mut inside_a_save = 0;
    for kill in 0..kills {
        // Evenly over the run, so that each kill meets steps that are still to do.
        let wanted = (kill * 56 / kills) as usize + 1;
        let arguments = match kill {
            0 => training(SETTINGS),
            _ => vec!["train", "run/run.toml", "--resume"],
        };
        let mut child = spawn(&place, &arguments);
        let began = Instant::now();
        while steps_noted(&place) < wanted {
            assert!(began.elapsed() < PATIENCE, "kill {kill}: step {wanted} is not reached");
            assert!(child.try_wait().unwrap().is_none(), "kill {kill}: the run ended by itself");
            std::thread::sleep(Duration::from_micros(200));
        }
        let delay = f64::from(tensor::random::uniform(&mut random)) * 0.1;
        std::thread::sleep(Duration::from_secs_f64(delay));
        child.kill().unwrap();
        child.wait().unwrap();
        let left = |name: &str| place.exists(&format!("run/checkpoints/{name}"));
        inside_a_save += usize::from(
            [".last.partial", ".last.previous", ".best.partial", ".best.previous"].into_iter().any(left),
        );
    }
    place.succeeds(&["train", "run/run.toml", "--resume"]);
    println!("seed {seed}: {kills} kills, {inside_a_save} of them inside a save");
    for checkpoint in ["last", "best", "step-59"] {
        for file in ["model.safetensors", "mtp.safetensors", "mtp.json", "trainer/moments.safetensors"] {
            let of = |run: &str| {
                let file = format!("{run}/checkpoints/{checkpoint}/{file}");
                place.exists(&file).then(|| place.read(&file))
            };
            assert!(of("run") == of("alone"), "{checkpoint}/{file} differs");
        }
    }
    assert!(place.exists(&format!("{CHECKPOINT}/trainer/moments.safetensors")));
    assert_eq!(record(&place, "run"), record(&place, "alone"));
    let leftovers = fs_err::read_dir(place.path("run/checkpoints")).unwrap();
    let mut names: Vec<_> =
        leftovers.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    assert_eq!(names, ["best", "last", "step-59"]);
}

fn spawn(place: &Place, arguments: &[&str]) -> Child {
    Command::new(assert_cmd::cargo::cargo_bin("sakiyomi"))
        .current_dir(place.path(""))
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The last step that events.jsonl tells of, whether or not it counts any more.
fn steps_noted(place: &Place) -> usize {
    let text = fs_err::read_to_string(place.path("run/events.jsonl")).unwrap_or_default();
    let steps = text.lines().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    steps.into_iter().filter_map(|event| event["step"].as_u64()).next().unwrap_or(0) as usize
}

/// Steps and evaluations of a run, without what depends on the clock.
fn record(place: &Place, run: &str) -> Vec<Event> {
    let timeless = |event| match event {
        Event::Step(step) => Some(Event::Step(StepEvent { tokens_per_s: 0.0, memory_bytes: None, ..step })),
        Event::Evaluation(_) => Some(event),
        _ => None,
    };
    let records = events::read(&place.path(run).join("events.jsonl")).unwrap();
    records.into_iter().filter_map(|record| timeless(record.event)).collect()
}
