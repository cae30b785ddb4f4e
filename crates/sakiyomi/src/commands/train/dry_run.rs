//! `sakiyomi train --dry-run`: what a run will take.

use serde::Serialize;
use train::{Forecast, RunConfig};

use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::progress::{TextProgress, clock};

#[derive(Serialize)]
struct Forecasted {
    layers: usize,
    width: usize,
    vocabulary: usize,
    heads: usize,
    trunk_parameters: usize,
    embedding_parameters: usize,
    head_parameters: usize,
    trained_parameters: usize,
    training_tokens: usize,
    held_out_tokens: usize,
    steps: usize,
    tokens_per_step: usize,
    tokens: u64,
    targets_per_step: Vec<f64>,
    step_seconds: f64,
    rows_to_keep: Option<usize>,
    row_seconds: Option<f64>,
    evaluations: usize,
    evaluation_seconds: f64,
    checkpoints: usize,
    checkpoint_seconds: f64,
    seconds: f64,
    checkpoint_bytes: u64,
    disk_bytes: u64,
    memory_bytes: u64,
    machine_memory_bytes: Option<u64>,
}

/// Tries the run and shows what was found.
pub fn show(config: &RunConfig, resume: bool, output: Output) -> anyhow::Result<()> {
    output.remark("reading the text and trying a few steps ...");
    let interrupt = Interrupt::listen(None)?;
    let mut progress = TextProgress::new(output);
    let forecast = train::forecast(config, resume, &mut |done| {
        progress.set(done);
        !interrupt.raised()
    })?;
    drop(progress);
    forecast.notes.iter().for_each(|note| output.remark(note));
    let forecasted = Forecasted::from(&forecast);
    output.result(&forecasted, || forecasted.text())
}

impl From<&Forecast> for Forecasted {
    fn from(forecast: &Forecast) -> Self {
        let plan = &forecast.plan;
        Self {
            layers: plan.decoder.layers,
            width: plan.decoder.width,
            vocabulary: plan.decoder.vocabulary,
            heads: plan.heads.n,
            trunk_parameters: plan.trunk_parameters,
            embedding_parameters: plan.embedding_parameters,
            head_parameters: plan.head_parameters,
            trained_parameters: plan.trained_parameters,
            training_tokens: forecast.training_tokens,
            held_out_tokens: forecast.held_out_tokens,
            steps: forecast.steps,
            tokens_per_step: plan.tokens_per_step,
            tokens: forecast.steps as u64 * plan.tokens_per_step as u64,
            targets_per_step: forecast.targets_per_step.clone(),
            step_seconds: forecast.step_seconds,
            rows_to_keep: forecast.rows_to_keep.map(|(rows, _)| rows),
            row_seconds: forecast.rows_to_keep.map(|(_, seconds)| seconds),
            evaluations: forecast.evaluations.0,
            evaluation_seconds: forecast.evaluations.1,
            checkpoints: forecast.saves.0,
            checkpoint_seconds: forecast.saves.1,
            seconds: forecast.seconds,
            checkpoint_bytes: forecast.checkpoint_bytes,
            disk_bytes: forecast.disk_bytes,
            memory_bytes: forecast.memory_bytes,
            machine_memory_bytes: train::memory::machine(),
        }
    }
}

impl Forecasted {
    fn text(&self) -> String {
        let targets: Vec<String> = self.targets_per_step.iter().map(|count| format!("{count:.0}")).collect();
        let machine =
            self.machine_memory_bytes.map_or(String::new(), |bytes| format!(" of {:.2}", gigabytes(bytes)));
        let states = self.rows_to_keep.zip(self.row_seconds).map_or(String::new(), |(rows, seconds)| {
            format!(", {rows} rows through the frozen model of {seconds:.3} s")
        });
        format!(
            "model       {} layers, width {}, vocabulary {}: {} parameters, {} of them for the tokens\n\
             heads       {} (the next token included), {} parameters more\n\
             text        {} tokens to train on, {} held out\n\
             training    {} parameters, {} steps of {} tokens: {} tokens, {:.1} times the text\n\
             targets     {} a step at depth 1, 2, ...\n\
             checkpoint  {:.3} GB; {:.3} GB on disk with those that are kept\n\
             memory      {:.2} GB{machine}\n\
             time        {}: {} steps of {:.3} s{states}, {} evaluations of {:.2} s, {} checkpoints of {:.2} s\n\
             nothing was written (dry run)",
            self.layers,
            self.width,
            self.vocabulary,
            self.trunk_parameters,
            self.embedding_parameters,
            self.heads,
            self.head_parameters,
            self.training_tokens,
            self.held_out_tokens,
            self.trained_parameters,
            self.steps,
            self.tokens_per_step,
            self.tokens,
            self.tokens as f64 / self.training_tokens.max(1) as f64,
            targets.join(" "),
            gigabytes(self.checkpoint_bytes),
            gigabytes(self.disk_bytes),
            gigabytes(self.memory_bytes),
            clock(self.seconds),
            self.steps,
            self.step_seconds,
            self.evaluations,
            self.evaluation_seconds,
            self.checkpoints,
            self.checkpoint_seconds,
        )
    }
}

fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}
