//! kill -9 at any moment, also inside a save: the run goes on to the same bits.

#![cfg(unix)]
// How many kills hit a save is what one wants to know of this test.
#![allow(clippy::print_stdout)]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use train::events::{self, Event, StepEvent};

use crate::support::{CHECKPOINT, Place, training};

/// Longer than any machine needs for a few steps of a small model.
const PATIENCE: Duration = Duration::from_secs(60);

/// A curriculum, so that heads join late; saving takes most of the time of so small a run.
const SETTINGS: &[&str] = &[
    "evaluation.every=3",
    "checkpoint.keep_last=2",
    "objective.curriculum_steps=9",
    "objective.head=layer",
    "train.accumulate=2",
];

#[test]
fn a_run_killed_at_random_moments_goes_on_to_the_same_bits() {
    kill_and_compare(4, 3, 1);
}

#[test]
#[ignore = "twice twenty kills, a minute and a half"]
fn a_run_killed_twenty_times_goes_on_to_the_same_bits() {
    kill_and_compare(20, 1, 2);
    kill_and_compare(20, 3, 3);
}

/// Kills a run that saves `every` so many steps `kills` times, finishes it, and compares it with one that was left alone.
fn kill_and_compare(kills: usize, every: usize, seed: u64) {
    let place = Place::new();
    // More than are done between the kills.
    let steps = 6 * kills + 12;
    let planned = format!("train.steps={steps}");
    let saved = format!("checkpoint.every={every}");
    let settings = [SETTINGS, &[&planned, &saved]].concat();
    place.succeeds(&training(&[&settings[..], &["run.folder=alone"]].concat()));
    let mut random = tensor::random::seeded(seed, 0);
    let mut uniform = || f64::from(tensor::random::uniform(&mut random));
    let (mut starting, mut inside_a_save) = (0, 0);
    for kill in 0..kills {
        // A run exists once its file does: before that there is nothing to go on with.
        let arguments = match place.exists("run/run.toml") {
            false => training(&settings),
            true => vec!["train", "run/run.toml", "--resume"],
        };
        let noted = steps_noted(&place);
        let mut child = spawn(&place, &arguments);
        // At once, while the run is read, or after some steps.
        let wanted = (uniform() * 4.0) as usize;
        let began = Instant::now();
        while steps_noted(&place) < noted + wanted {
            assert!(began.elapsed() < PATIENCE, "kill {kill}: {wanted} more steps are not reached");
            assert!(child.try_wait().unwrap().is_none(), "kill {kill}: the run ended by itself");
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_secs_f64(uniform() * 0.06));
        child.kill().unwrap();
        child.wait().unwrap();
        let left = |name: &str| place.exists(&format!("run/checkpoints/{name}"));
        let leftovers = [".last.partial", ".last.previous", ".best.partial", ".best.previous"];
        starting += usize::from(wanted == 0);
        // A run that has done a step has removed what the one before it left.
        inside_a_save += usize::from(wanted > 0 && leftovers.into_iter().any(left));
    }
    place.succeeds(&["train", "run/run.toml", "--resume"]);
    println!("saving every {every}: {kills} kills, {starting} while starting, {inside_a_save} inside a save");
    let before = format!("step-{}", steps - every);
    for checkpoint in ["last", "best", &before] {
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
    assert_eq!(names, ["best", "last", &before]);
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

/// How many steps events.jsonl tells of, those that were done again included.
fn steps_noted(place: &Place) -> usize {
    let text = fs_err::read_to_string(place.path("run/events.jsonl")).unwrap_or_default();
    text.lines().filter(|line| line.contains(r#""event":"step""#)).count()
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
