//! The folder of a run: `run.toml`, `events.jsonl`, `tensorboard`, and in `checkpoints` `last`, `best` and `step-N`.

use std::path::{Path, PathBuf};

use crate::config::RunConfig;
use crate::error::{Error, Result};

/// Where a run keeps its things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
}

/// Keys that may differ when a run goes on: they change what is reported, how long it goes on, or where things are kept,
/// not what a step does. (With another number of steps the schedule of the learning rate differs from there on.)
const MAY_CHANGE: &[&str] = &[
    "run.folder",
    "run.name",
    "run.threads",
    "run.tensorboard",
    "train.steps",
    "train.tokens",
    "train.seconds",
    "train.recompute_activations",
    "data.cache",
    "evaluation.",
    "checkpoint.",
    "watch.",
];

/// Keys that change what the steps do from here on, and may differ all the same: what to try when a loss explodes.
const REMEDIES: &[&str] = &["train.learning_rate", "train.matrix_rate", "train.clip"];

impl RunFolder {
    /// The folder at `path`, whether or not a run is there.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The resolved run file.
    pub fn run_file(&self) -> PathBuf {
        self.path.join("run.toml")
    }

    /// What happened.
    pub fn events(&self) -> PathBuf {
        self.path.join("events.jsonl")
    }

    /// The newest checkpoint, from which the run can go on.
    pub fn last(&self) -> PathBuf {
        self.path.join("checkpoints/last")
    }

    /// The checkpoint with the lowest held-out loss.
    pub fn best(&self) -> PathBuf {
        self.path.join("checkpoints/best")
    }

    /// An older checkpoint from which the run can go on, if it is kept.
    pub fn kept(&self, step: usize) -> PathBuf {
        self.checkpoints().join(format!("step-{step}"))
    }

    /// Event files for TensorBoard.
    pub fn tensorboard(&self) -> PathBuf {
        self.path.join("tensorboard")
    }

    pub(crate) fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// Whether a run was started here. A run file alone may be the one that somebody wrote.
    pub fn holds_a_run(&self) -> bool {
        self.is_there() && self.events().exists()
    }

    /// Whether what a run wrote at first is still there.
    pub(crate) fn is_there(&self) -> bool {
        self.run_file().exists()
    }

    /// Refuses a folder in which `config` cannot be started, or from which it cannot go on. Returns what the user should know
    /// of settings that differ.
    pub(crate) fn check(&self, config: &RunConfig, resume: bool) -> Result<Vec<String>> {
        if !resume {
            return match self.holds_a_run() {
                true => Err(Error::RunExists { folder: self.path.clone() }),
                // It would be replaced, with all its comments.
                false if self.is_there() => Err(Error::Setting {
                    key: "run.folder".to_owned(),
                    problem: format!(
                        "is {}, which has a run.toml that no run wrote: name another folder",
                        self.path.display()
                    ),
                }),
                false => Ok(Vec::new()),
            };
        }
        if !self.holds_a_run() {
            return Err(Error::NothingToResume { folder: self.path.clone() });
        }
        let started_with = RunConfig::read(&self.run_file(), &[])?;
        let mut keys = started_with.differing_keys(config);
        let remedies: Vec<String> = keys.extract_if(.., |key| REMEDIES.contains(&key.as_str())).collect();
        keys.retain(|key| {
            !MAY_CHANGE
                .iter()
                .any(|allowed| key == allowed || allowed.ends_with('.') && key.starts_with(allowed))
        });
        match keys.is_empty() {
            true => Ok(remedies.into_iter().map(|key| format!("{key} is another than before")).collect()),
            false => Err(Error::OtherSettings { folder: self.path.clone(), keys: keys.join(", ") }),
        }
    }

    /// Creates the folder and stores the resolved run file; a crash leaves the old file or the new one.
    pub(crate) fn store(&self, config: &RunConfig) -> Result<()> {
        fs_err::create_dir_all(self.checkpoints())?;
        Ok(data::write_whole(&self.run_file(), config.to_toml().as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> RunConfig {
        let mut config = RunConfig::default();
        config.data.train = vec!["a.txt".into()];
        config
    }

    #[test]
    fn a_run_is_neither_overwritten_nor_resumed_by_accident() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(temporary.path().join("run"));
        let message = folder.check(&config(), true).unwrap_err().to_string();
        assert!(message.contains("holds no run") && message.contains("without --resume"), "{message}");
        folder.check(&config(), false).unwrap();
        folder.store(&config()).unwrap();
        let message = folder.check(&config(), false).unwrap_err().to_string();
        assert!(message.contains("a run.toml that no run wrote"), "{message}");
        assert!(folder.check(&config(), true).unwrap_err().to_string().contains("holds no run"));
        fs_err::write(folder.events(), "").unwrap();
        let message = folder.check(&config(), false).unwrap_err().to_string();
        assert!(message.contains("--resume") && message.contains("run.folder"), "{message}");
        folder.check(&config(), true).unwrap();
    }

    #[test]
    fn only_harmless_settings_may_change() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(temporary.path());
        folder.store(&config()).unwrap();
        fs_err::write(folder.events(), "").unwrap();
        let mut other = config();
        other.train.steps += 5;
        other.run.threads = 1;
        other.evaluation.every = 7;
        other.checkpoint.every = 7;
        other.watch.patience = 7;
        assert!(folder.check(&other, true).unwrap().is_empty());
        other.train.learning_rate /= 2.0;
        assert_eq!(folder.check(&other, true).unwrap(), ["train.learning_rate is another than before"]);
        other.train.batch += 1;
        other.run.seed += 1;
        let message = folder.check(&other, true).unwrap_err().to_string();
        assert!(message.contains("run.seed, train.batch"), "{message}");
    }
}
