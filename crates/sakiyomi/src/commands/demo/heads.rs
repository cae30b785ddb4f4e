//! The second part of the demo's training: the trunk is finished and frozen, and its heads go on learning from what the model
//! says by itself. That is what they will have to foresee; a text goes on as its author liked.

use std::path::PathBuf;

use decode::DecodeSettings;
use train::config::TrainMode;
use train::prepare::SplitText;
use train::{Checkpoint, Evaluation, HeldOut, Outcome, RunConfig};

use super::NEW_TOKENS;
use crate::commands::checkpoint::Loaded;
use crate::commands::continuing::continuations_file;
use crate::commands::prompts::{self, PROMPT_TOKENS};
use crate::interrupt::Interrupt;
use crate::output::Output;

/// Steps of the first part for one of this.
const STEPS_FOR_ONE: usize = 8;
/// Times that each continuation is read.
const READ: usize = 2;
/// Continuations at least: a share of them is held out.
const FEWEST: usize = 8;

/// Settings of the second part: those of the first but for the frozen model, the text and the length.
pub fn config(first: &RunConfig, outcome: &Outcome) -> RunConfig {
    let mut config = first.clone();
    config.run.folder = first.run.folder.join("heads");
    config.model.architecture = None;
    config.model.init = Some(outcome.last.clone());
    config.data.train = vec![text_file(first)];
    config.train.mode = TrainMode::Heads;
    config.train.steps = (first.train.steps / STEPS_FOR_ONE).max(1);
    config.train.warmup_steps = (config.train.steps / 20).max(1);
    config.evaluation.every = 0;
    config
}

/// Where the model's own text stands.
fn text_file(first: &RunConfig) -> PathBuf {
    first.run.folder.join("continuations.jsonl")
}

/// Lets the model continue beginnings from the training text.
pub fn write_text(
    first: &RunConfig,
    config: &RunConfig,
    checkpoint: Checkpoint,
    text: &SplitText,
    threads: usize,
    interrupt: &Interrupt,
    output: Output,
) -> anyhow::Result<()> {
    let loaded = Loaded::new(checkpoint, threads);
    let count = (config.train.steps * config.train.batch).div_ceil(READ).max(FEWEST);
    let begin = loaded.checkpoint.vocabulary.begin();
    let beginnings = prompts::cut(&text.training, &text.training_documents, begin, count, PROMPT_TOKENS)?;
    let decoding = DecodeSettings {
        max_new_tokens: NEW_TOKENS,
        end_tokens: loaded.end_tokens(),
        ..DecodeSettings::default()
    };
    continuations_file(&text_file(first), &loaded, &beginnings, decoding, interrupt, output)?;
    Ok(())
}

/// Loss and accuracy of a checkpoint on the held-out text of the first part, as its own evaluations were taken.
pub fn evaluate(first: &RunConfig, checkpoint: &Checkpoint, text: &SplitText) -> anyhow::Result<Evaluation> {
    let vocabulary = &checkpoint.vocabulary;
    let depths = objective::Objective::depths(&checkpoint.objective);
    let (batch, length) = (first.train.batch, first.train.length);
    let (documents, batches) = (&text.held_out_documents, first.evaluation.batches);
    let held_out = HeldOut::new(&text.held_out, documents, vocabulary, batch, length, depths, batches)?;
    Ok(held_out.evaluate(&checkpoint.params, &checkpoint.decoder, &checkpoint.objective)?)
}
