//! A run that takes milliseconds, and what to compare it by.

use std::path::Path;

use train::config::Architecture;
use train::events::{self, EvaluationEvent, Event, RunStarted, StepEvent};
use train::{Observer, Outcome, Progress, RunConfig, RunFolder, train};

/// A small run on text of its own in `folder`.
pub fn config(folder: &Path) -> RunConfig {
    let text: String =
        (0..60).map(|n| format!("{n} frogs and {} flies sat on log {}.\n\n", n * 7 % 13, n % 5)).collect();
    let file = folder.join("text.txt");
    if !file.exists() {
        fs_err::write(&file, text).unwrap();
    }
    let mut config = RunConfig::default();
    config.run.folder = folder.join("run");
    config.run.seed = 3;
    config.data.train = vec![file];
    config.data.longest_document_bytes = 300;
    config.data.cache = folder.join("cache");
    config.data.held_out_fraction = 0.2;
    config.model.architecture = Some(Architecture {
        width: Some(16),
        layers: Some(2),
        heads: Some(2),
        ffn: Some(24),
        context: Some(32),
        ..Architecture::default()
    });
    config.objective.n = 3;
    config.train.steps = 8;
    config.train.batch = 2;
    config.train.length = 24;
    config.train.warmup_steps = 2;
    config.train.learning_rate = 1e-2;
    config.evaluation.every = 3;
    config.evaluation.batches = 2;
    config.checkpoint.every = 4;
    config
}

/// Stops, or fails, after a number of steps.
#[derive(Default)]
pub struct Watcher {
    pub stop_after: Option<usize>,
    pub crash_after: Option<usize>,
    pub steps: Vec<StepEvent>,
    pub evaluations: Vec<EvaluationEvent>,
    pub started: Option<(RunStarted, String, usize)>,
    pub notes: Vec<String>,
}

impl Observer for Watcher {
    fn started(&mut self, sizes: &RunStarted, origin: &str, done: usize) {
        self.started = Some((sizes.clone(), origin.to_owned(), done));
    }

    fn stepped(&mut self, progress: &Progress) {
        assert!(progress.seconds_left >= 0.0 && progress.tokens_per_s > 0.0);
        self.steps.push(progress.step.clone());
        assert!(self.crash_after != Some(progress.step.step), "the power fails");
    }

    fn evaluated(&mut self, evaluation: &EvaluationEvent) {
        self.evaluations.push(evaluation.clone());
    }

    fn note(&mut self, note: &str) {
        self.notes.push(note.to_owned());
    }

    fn should_stop(&mut self) -> bool {
        // Asked before the step is reported.
        self.stop_after.is_some_and(|stop| self.steps.len() + 1 == stop)
    }
}

pub fn finish(config: &RunConfig, resume: bool) -> Outcome {
    let outcome = train(config, resume, &mut ()).unwrap();
    assert!(outcome.finished);
    outcome
}

/// Everything that decides what comes next, as bytes; without the time that it took.
pub fn state(config: &RunConfig) -> Vec<(String, Vec<u8>)> {
    let last = RunFolder::new(&config.run.folder).last();
    ["model.safetensors", "mtp.json", "mtp.safetensors", "trainer/moments.safetensors", "trainer/state.json"]
        .into_iter()
        .filter(|name| last.join(name).exists())
        .map(|name| {
            let mut bytes = fs_err::read(last.join(name)).unwrap();
            if name == "trainer/state.json" {
                let mut state: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                assert!(state.as_object_mut().unwrap().remove("seconds").is_some());
                bytes = serde_json::to_vec(&state).unwrap();
            }
            (name.to_owned(), bytes)
        })
        .collect()
}

/// Steps and evaluations without what depends on the clock.
pub fn record(config: &RunConfig) -> Vec<Event> {
    let records = events::read(&RunFolder::new(&config.run.folder).events()).unwrap();
    let timeless = |event| match event {
        Event::Step(step) => Some(Event::Step(StepEvent { tokens_per_s: 0.0, memory_bytes: None, ..step })),
        Event::Evaluation(_) => Some(event),
        _ => None,
    };
    records.into_iter().filter_map(|record| timeless(record.event)).collect()
}
