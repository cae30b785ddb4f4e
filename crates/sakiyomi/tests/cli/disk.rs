//! Disks that are full, folders that are read-only or no folders: one clear line, and the last good checkpoint is whole.

#![cfg(target_os = "linux")]
// A test that skips says so.
#![allow(clippy::print_stdout)]

use std::process::{Command, Output};

use crate::support::{CHECKPOINT, Place, stderr, training, training_from};

/// A checkpoint after every step, so that most of what is written are checkpoints.
const SETTINGS: &[&str] = &["train.steps=8", "evaluation.every=0", "checkpoint.every=1", "data.cache=cache"];

/// A file system of a test's own in the folder `disk`, of so many kilobytes; `None`, with a line, where mounting is not
/// allowed.
struct Mounted<'a>(&'a Place);

impl<'a> Mounted<'a> {
    fn new(place: &'a Place, kilobytes: usize) -> Option<Self> {
        fs_err::create_dir(place.path("disk")).unwrap();
        let size = format!("size={kilobytes}k");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(place.path("disk"))
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(place));
        }
        println!("skipped: no file system may be mounted here");
        None
    }

    fn remount(&self, option: &str) {
        let options = format!("remount,{option}");
        let mounted = Command::new("mount").args(["-o", &options]).arg(self.0.path("disk")).status().unwrap();
        assert!(mounted.success());
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path("disk")).status();
    }
}

/// The one line that says what is wrong.
fn complaint(output: &Output) -> String {
    let told = stderr(output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    let lines: Vec<&str> = told.lines().filter(|line| line.starts_with("sakiyomi: ")).collect();
    assert_eq!(lines.len(), 1, "{told}");
    lines[0].to_owned()
}

fn same_weights(place: &Place, one: &str, other: &str) {
    for file in ["model.safetensors", "mtp.safetensors", "trainer/moments.safetensors"] {
        let of = |run: &str| place.read(&format!("{run}/checkpoints/last/{file}"));
        assert_eq!(of(one), of(other), "{file}");
    }
}

#[test]
fn a_full_disk_stops_a_run_that_goes_on_when_there_is_room() {
    let place = Place::new();
    place.succeeds(&training(&[SETTINGS, &["run.folder=alone"]].concat()));
    let bytes = Command::new("du")
        .args(["-sk", "alone/checkpoints/last"])
        .current_dir(place.path(""))
        .output()
        .unwrap();
    let kilobytes: usize =
        String::from_utf8(bytes.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    // Room for two checkpoints and a half, where a third is wanted.
    let Some(disk) = Mounted::new(&place, kilobytes * 5 / 2 + 24) else { return };
    let output = place.run(&training(&[SETTINGS, &["run.folder=disk/run"]].concat()));
    let told = complaint(&output);
    for words in ["step ", "No space left on device", "the checkpoint of step ", "is whole", "make room"] {
        assert!(told.contains(words), "{words} is missing in: {told}");
    }
    assert!(stderr(&output).contains("sakiyomi train disk/run/run.toml --resume"), "{}", stderr(&output));
    place.succeeds(&["generate", "disk/run/checkpoints/last", "--prompt", "a", "--max-new-tokens", "2"]);
    disk.remount("size=100m");
    place.succeeds(&["train", "disk/run/run.toml", "--resume"]);
    same_weights(&place, "alone", "disk/run");
}

#[test]
fn a_file_that_may_not_grow_stops_a_run_that_goes_on_when_it_may() {
    let place = Place::new();
    place.succeeds(&training(&[SETTINGS, &["run.folder=alone"]].concat()));
    // Files of at most 4 KiB: enough for the run file, and for some events.
    let limited = |arguments: &[&str]| limited(&place, 8, arguments);
    let output = limited(&training(SETTINGS));
    let told = complaint(&output);
    assert!(
        told.contains("File too large") && told.contains("there is no checkpoint to go on from"),
        "{told}"
    );
    place.succeeds(&["train", "run/run.toml", "train.steps=3", "--resume"]);
    assert!(
        complaint(&limited(&["train", "run/run.toml", "train.steps=8", "--resume"]))
            .contains("File too large")
    );
    place.succeeds(&["generate", CHECKPOINT, "--prompt", "a", "--max-new-tokens", "2"]);
}

/// Runs with files of at most so many half kilobytes. A signal goes with that.
fn limited(place: &Place, blocks: usize, arguments: &[&str]) -> Output {
    Command::new("sh")
        .args(["-c", &format!("ulimit -f {blocks}; exec \"$@\""), "sh"])
        .arg(assert_cmd::cargo::cargo_bin("sakiyomi"))
        .args(arguments)
        .current_dir(place.path(""))
        .output()
        .unwrap()
}

/// Six megabytes of tales, whose tokens take twice as much.
#[test]
fn a_demo_that_cannot_begin_leaves_nothing() {
    let place = Place::new();
    for blocks in [8, 20_000] {
        let told = complaint(&limited(&place, blocks, &["demo", "--output", "runs/story", "--steps", "1"]));
        assert!(told.contains("runs/story") && told.contains("File too large"), "{told}");
        assert!(!place.exists("runs"), "{told}");
    }
}

#[test]
fn what_finds_no_room_is_named_and_leaves_nothing() {
    let place = Place::trained(&["model.architecture.layers=4"]);
    let init = format!("model.init={CHECKPOINT}");
    place.succeeds(&training_from(&["run.folder=lora", "train.mode=lora", &init]));
    let Some(disk) = Mounted::new(&place, 8) else { return };
    let (checkpoint, adapted) = (CHECKPOINT, "lora/checkpoints/last");
    let writing: &[&[&str]] = &[
        &["init", "disk/run.toml"],
        &["data", "tokenizer", "text.jsonl", "--size", "500", "--output", "disk/own.json"],
        &[
            "data",
            "continuations",
            checkpoint,
            "text.jsonl",
            "--max-new-tokens",
            "90",
            "--output",
            "disk/own.jsonl",
        ],
        &["data", "generate", "addition", "--train", "500", "--test", "9", "--output", "disk/sums"],
        &["quantize", checkpoint, "--weights", "int8", "--output", "disk/packed"],
        &["merge", adapted, "--output", "disk/merged"],
        &["report", "run", "--output", "disk/page.html"],
        &["lens", "report", checkpoint, "--data", "text.jsonl", "--tokens", "300", "--output", "disk/lens"],
    ];
    // The disk has two pages of four kilobytes, one of which is taken.
    place.write("disk/taken", vec![b'a'; 4097]);
    for arguments in writing {
        let told = complaint(&place.run(arguments));
        assert!(told.contains("disk/") && told.contains("No space left on device"), "{arguments:?}: {told}");
        let left: Vec<_> =
            fs_err::read_dir(place.path("disk")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["taken"], "{arguments:?}");
    }
    drop(disk);
}

#[test]
fn a_read_only_folder_is_refused_and_nothing_is_lost() {
    let place = Place::new();
    let Some(disk) = Mounted::new(&place, 100_000) else { return };
    let there = |more: &[&'static str]| training(&[SETTINGS, &["run.folder=disk/run"], more].concat());
    place.succeeds(&there(&["train.steps=2"]));
    disk.remount("ro");
    place.refuses(&training(&["run.folder=disk/other"]), &["disk/other", "Read-only file system"]);
    let more = [there(&["train.steps=4"]), vec!["--resume"]].concat();
    place.refuses(&more, &["disk/run/events.jsonl", "Read-only file system"]);
    place.succeeds(&["generate", "disk/run/checkpoints/last", "--prompt", "a", "--max-new-tokens", "2"]);
    disk.remount("rw");
    place.succeeds(&more);
}

#[test]
fn a_run_in_a_file_is_refused() {
    let place = Place::new();
    place.write("file", "");
    place.refuses(&training(&["run.folder=file/run"]), &["file"]);
    place.refuses(
        &[training(&["run.folder=file/run"]), vec!["--dry-run"]].concat(),
        &["run.folder", "file is no folder"],
    );
    assert!(place.read("file").is_empty());
}

#[test]
fn a_folder_that_vanishes_is_told() {
    let place = Place::new();
    let arguments = training(&["train.steps=1000000", "evaluation.every=0", "checkpoint.every=1"]);
    let child = Command::new(assert_cmd::cargo::cargo_bin("sakiyomi"))
        .current_dir(place.path(""))
        .args(&arguments)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    while !place.exists("run/checkpoints/step-2") {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    fs_err::rename(place.path("run"), place.path("away")).unwrap();
    let told = complaint(&child.wait_with_output().unwrap());
    assert!(told.contains("run is no longer there") && told.contains("put it back"), "{told}");
    place.succeeds(&["generate", "away/checkpoints/last", "--prompt", "a", "--max-new-tokens", "2"]);
}
