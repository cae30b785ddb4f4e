//! Disks that are full, folders that are read-only or no folders: one clear line, and the last good checkpoint is whole.

#![cfg(target_os = "linux")]
// A test that skips says so.
#![allow(clippy::print_stdout)]

use std::process::{Command, Output};

use crate::support::{CHECKPOINT, Place, stderr, training};

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
    // Files of at most 4 KiB: enough for the run file, and for some events. The signal that goes with it is ignored.
    let limited = |arguments: &[&str]| {
        Command::new("sh")
            .args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$@\"", "sh"])
            .arg(assert_cmd::cargo::cargo_bin("sakiyomi"))
            .args(arguments)
            .current_dir(place.path(""))
            .output()
            .unwrap()
    };
    let output = limited(&training(SETTINGS));
    let told = complaint(&output);
    assert!(told.contains("File too large") && told.contains("there is no checkpoint yet"), "{told}");
    place.succeeds(&["train", "run/run.toml", "train.steps=3", "--resume"]);
    assert!(
        complaint(&limited(&["train", "run/run.toml", "train.steps=8", "--resume"]))
            .contains("File too large")
    );
    place.succeeds(&["generate", CHECKPOINT, "--prompt", "a", "--max-new-tokens", "2"]);
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
