//! What a finished run leaves behind: `result.json` in its folder.

use std::path::Path;

use decode::{Acceptance, DepthCounts};
use serde::{Deserialize, Serialize};
use train::events;
use train::{Evaluation, RunFolder};

use super::file::MeasureSpec;
use super::grid::Place;

/// Name of the file.
const FILE: &str = "result.json";

/// A run that is trained and measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// Where it stands in the grid.
    pub place: Place,
    /// Of the settings that it was trained with.
    pub fingerprint: String,
    /// How it was measured.
    pub measure: MeasureSpec,
    /// Tokens predicted from one position.
    pub n: usize,
    /// How many tokens ahead each loss lies.
    #[serde(default)]
    pub tokens_ahead: Vec<usize>,
    /// Threads that it was trained and measured with; 0: not known.
    #[serde(default)]
    pub threads: usize,
    /// Parameters of the model without its heads.
    pub trunk_parameters: usize,
    /// Parameters of the heads.
    pub head_parameters: usize,
    /// Updates.
    pub steps: usize,
    /// Inputs seen in this run.
    pub tokens: u64,
    /// Seconds of training, evaluation and saving left out.
    pub training_seconds: f64,
    /// Largest memory of the process that trained, where the system tells it and the run was not interrupted.
    pub peak_memory_bytes: Option<u64>,
    /// The finished model on held-out text.
    pub held_out: Evaluation,
    /// Decoding of held-out prompts.
    pub decoding: Option<DecodingResult>,
}

/// Decoding of held-out prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecodingResult {
    /// Prompts continued.
    pub prompts: usize,
    /// Whether every draft length gave the tokens of plain decoding; `None` without heads.
    pub identical: Option<bool>,
    /// Without drafts.
    pub plain_tokens_per_s: f64,
    /// With drafts of 1, 2, ... tokens.
    pub lengths: Vec<LengthResult>,
    /// The k-th token of the longest draft.
    pub depths: Vec<DepthCounts>,
    /// With the longest drafts, greedily.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub greedy: Option<Acceptance>,
    /// With the longest drafts, sampled at temperature 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampled: Option<Acceptance>,
}

/// Decoding with drafts of one length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LengthResult {
    /// Committed tokens over forwards.
    pub tokens_per_forward: f64,
    /// Tokens per second of everything.
    pub tokens_per_s: f64,
    /// Wall-clock of plain decoding divided by this, in turn.
    pub speedup: f64,
    /// Milliseconds of a round, drafting included.
    #[serde(default)]
    pub ms_per_round: f64,
}

impl RunResult {
    /// The result in the folder of a run, if there is a whole one.
    pub fn read(folder: &Path) -> Option<Self> {
        let result: Self = serde_json::from_slice(&fs_err::read(folder.join(FILE)).ok()?).ok()?;
        Some(if result.tokens_ahead.is_empty() { result.with_sizes_of_events(folder) } else { result })
    }

    /// Results of older versions do not say how far ahead their losses lie, nor with how many threads they were made; the events
    /// of the run do, from its beginning.
    fn with_sizes_of_events(mut self, folder: &Path) -> Self {
        let records = events::read(&RunFolder::new(folder).events()).unwrap_or_default();
        let sizes = events::started(&records).cloned().unwrap_or_default();
        self.threads = sizes.threads;
        self.tokens_ahead = match sizes.tokens_ahead.is_empty() {
            true => (1..=self.held_out.loss.len()).collect(),
            false => sizes.tokens_ahead,
        };
        self
    }

    /// Writes it, whole or not at all.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        Ok(data::write_whole(&folder.join(FILE), serde_json::to_string_pretty(self)?.as_bytes())?)
    }

    /// Tokens per second of training.
    pub fn tokens_per_s(&self) -> f64 {
        self.tokens as f64 / self.training_seconds.max(f64::MIN_POSITIVE)
    }

    /// Share of the held-out prompts whose whole answer is right, where the text is prompts and answers.
    pub fn answers(&self) -> Option<f64> {
        self.held_out.answers.map(|answers| answers.share())
    }

    /// Loss at each depth in nats; `None` where nothing was predicted, which is no loss of 0.
    pub fn loss(&self) -> Vec<Option<f64>> {
        self.where_targets(&self.held_out.loss)
    }

    /// Loss at each depth in bits per byte of text, as [`Self::loss`].
    pub fn bits_per_byte(&self) -> Vec<Option<f64>> {
        // The ratio of the two units is that of the next token.
        let scale = self.held_out.loss.first().map_or(0.0, |nats| self.held_out.bits_per_byte / nats);
        self.loss().into_iter().map(|nats| Some(nats? * scale)).collect()
    }

    /// Share of right predictions at each depth, as [`Self::loss`].
    pub fn accuracy(&self) -> Vec<Option<f64>> {
        self.where_targets(&self.held_out.accuracy)
    }

    fn where_targets(&self, values: &[f64]) -> Vec<Option<f64>> {
        let targets = &self.held_out.targets;
        values.iter().zip(targets).map(|(&value, &targets)| (targets > 0).then_some(value)).collect()
    }
}
