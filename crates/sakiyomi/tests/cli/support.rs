//! A folder with a text and a run file in it, and the program run there.

use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

/// The smallest sizes that still have more than one of everything.
const SIZES: &[&str] = &[
    "model.architecture.width=16",
    "model.architecture.layers=2",
    "model.architecture.heads=2",
    "model.architecture.ffn=32",
    "model.architecture.context=128",
];

/// Short rows, few steps, one thread.
const RUN: &[&str] = &[
    "data.train=text.jsonl",
    "run.threads=1",
    "train.batch=2",
    "train.length=32",
    "train.steps=4",
    "train.warmup_steps=1",
    "evaluation.every=2",
    "evaluation.batches=1",
    "checkpoint.every=0",
];

/// A temporary folder in which the program runs; paths in arguments are relative to it.
pub struct Place(TempDir);

impl Place {
    /// With `text.jsonl` and the run file `run.toml` of `sakiyomi init`.
    pub fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let words = ["the", "fox", "ran", "over", "a", "hill", "and", "saw", "rain"];
        let document = |number: usize| -> String {
            let text: Vec<&str> =
                (0..40).map(|i| words[(number * 7 + i * i + i / 5) % words.len()]).collect();
            format!("{{\"text\": \"{number} {}.\"}}\n", text.join(" "))
        };
        place.write("text.jsonl", (0..40).map(document).collect::<String>());
        place.succeeds(&["init"]);
        place
    }

    /// As [`Place::new`], with a trained checkpoint; where it is, [`CHECKPOINT`] says.
    pub fn trained(overrides: &[&str]) -> Self {
        let place = Self::new();
        place.train(overrides);
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs_err::write(self.path(name), content).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs_err::read(self.path(name)).unwrap()
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::cargo_bin("sakiyomi").unwrap();
        let command = command.current_dir(self.0.path()).env("XDG_CACHE_HOME", self.path(".cache"));
        command.args(arguments).output().unwrap()
    }

    /// Runs, requires exit code 0, and returns standard output.
    pub fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// As [`Self::succeeds`] with `--json`: the one object on standard output.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.succeeds(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    /// Requires exit code 2 and, as the last and only complaint, one line that holds all of `words`.
    pub fn refuses(&self, arguments: &[&str], words: &[&str]) {
        let output = self.run(arguments);
        let complaints = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {complaints}");
        let lines: Vec<&str> = complaints.lines().filter(|line| line.starts_with("sakiyomi: ")).collect();
        assert_eq!(lines.len(), 1, "{arguments:?}: {complaints}");
        assert_eq!(complaints.lines().last(), Some(lines[0]), "{arguments:?}: {complaints}");
        assert!(!complaints.contains("panick") && !complaints.contains("internal error"), "{complaints}");
        for word in words {
            assert!(lines[0].contains(word), "{arguments:?}: {word:?} is missing in: {}", lines[0]);
        }
        assert!(output.stdout.is_empty(), "{arguments:?}: a refusal belongs on standard error");
    }

    /// Trains the small model; later overrides win.
    pub fn train(&self, overrides: &[&str]) -> String {
        self.succeeds(&training(overrides))
    }

    /// Copies a checkpoint, without what only resuming needs.
    pub fn copy_checkpoint(&self, from: &str, to: &str) {
        fs_err::create_dir_all(self.path(to)).unwrap();
        for entry in fs_err::read_dir(self.path(from)).unwrap() {
            let file = entry.unwrap().path();
            if file.is_file() {
                fs_err::copy(&file, self.path(to).join(file.file_name().unwrap())).unwrap();
            }
        }
    }

    pub fn exists(&self, name: &str) -> bool {
        Path::exists(&self.path(name))
    }

    pub fn remove(&self, name: &str) {
        fs_err::remove_file(self.path(name)).unwrap();
    }
}

/// Where [`Place::trained`] leaves its checkpoint.
pub const CHECKPOINT: &str = "run/checkpoints/last";

/// Arguments that train the small model.
pub fn training<'a>(overrides: &[&'a str]) -> Vec<&'a str> {
    [&["train", "run.toml"], SIZES, RUN, overrides].concat()
}

/// Arguments that train heads on a checkpoint, whose sizes are its own.
pub fn training_from<'a>(overrides: &[&'a str]) -> Vec<&'a str> {
    [&["train", "run.toml"], RUN, overrides].concat()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
