//! `sakiyomi train`: a run by its run file.

use serde::Serialize;
use train::{Outcome, Plan, RunConfig, RunFolder};

use super::machine;
use crate::arguments::Train;
use crate::failure::Verdict;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::progress::TrainingProgress;

#[derive(Serialize)]
struct Planned {
    layers: usize,
    width: usize,
    vocabulary: usize,
    heads: usize,
    trunk_parameters: usize,
    head_parameters: usize,
    trained_parameters: usize,
    steps: usize,
    tokens_per_step: usize,
    tokens: u64,
    memory_bytes: u64,
}

#[derive(Serialize)]
struct Trained {
    finished: bool,
    step: usize,
    steps: usize,
    seconds: f64,
    checkpoint: String,
    best: Option<String>,
    next_token_loss_bits_per_byte: Option<f64>,
    loss_per_depth: Vec<f64>,
    accuracy_per_depth: Vec<f64>,
    peak_memory_bytes: Option<u64>,
}

/// `threads` as typed: 0 leaves the choice to the run file.
pub fn run(arguments: &Train, threads: usize, output: Output) -> anyhow::Result<Verdict> {
    let mut config = RunConfig::read(&arguments.run, &arguments.overrides)?;
    if threads > 0 {
        config.run.threads = threads;
    }
    config.validate()?;
    if arguments.dry_run {
        let planned = Planned::from(train::plan(&config)?);
        output.result(&planned, || planned.text())?;
        return Ok(Verdict::Done);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    machine::use_threads(if config.run.threads == 0 { cores } else { config.run.threads })?;
    let interrupt = Interrupt::listen()?;
    let outcome = train::train(&config, arguments.resume, &mut TrainingProgress::new(output, interrupt))?;
    let trained = Trained::from(&outcome);
    output.result(&trained, || {
        if !outcome.finished {
            return format!(
                "stopped after step {} of {}; to go on:\n  {}",
                outcome.step,
                outcome.steps,
                resume_command(&config)
            );
        }
        trained.text()
    })?;
    Ok(Verdict::Done)
}

/// What goes on with a run that was stopped: its folder keeps the settings, those typed as overrides included.
pub fn resume_command(config: &RunConfig) -> String {
    format!("sakiyomi train {} --resume", RunFolder::new(&config.run.folder).run_file().display())
}

impl From<Plan> for Planned {
    fn from(plan: Plan) -> Self {
        Self {
            layers: plan.decoder.layers,
            width: plan.decoder.width,
            vocabulary: plan.decoder.vocabulary,
            heads: plan.heads.n,
            trunk_parameters: plan.trunk_parameters,
            head_parameters: plan.head_parameters,
            trained_parameters: plan.trained_parameters,
            steps: plan.steps,
            tokens_per_step: plan.tokens_per_step,
            tokens: plan.tokens,
            memory_bytes: plan.memory_bytes,
        }
    }
}

impl Planned {
    fn text(&self) -> String {
        let length = match self.steps {
            // The clock bounds the run.
            0 => format!("steps of {} tokens until train.seconds are used", self.tokens_per_step),
            steps => format!("{steps} steps of {} tokens: {} tokens", self.tokens_per_step, self.tokens),
        };
        format!(
            "model     {} layers, width {}, vocabulary {}: {} parameters\n\
             heads     {} (the next token included), {} parameters more\n\
             trained   {} parameters, {length}\n\
             memory    about {:.2} GB\n\
             nothing was read but the tokenizer, and nothing was written (dry run)",
            self.layers,
            self.width,
            self.vocabulary,
            self.trunk_parameters,
            self.heads,
            self.head_parameters,
            self.trained_parameters,
            self.memory_bytes as f64 / 1e9
        )
    }
}

impl From<&Outcome> for Trained {
    fn from(outcome: &Outcome) -> Self {
        let evaluation = outcome.evaluation.as_ref();
        Self {
            finished: outcome.finished,
            step: outcome.step,
            steps: outcome.steps,
            seconds: outcome.seconds,
            checkpoint: outcome.last.display().to_string(),
            best: outcome.best.as_ref().map(|folder| folder.display().to_string()),
            next_token_loss_bits_per_byte: evaluation.map(|e| e.bits_per_byte),
            loss_per_depth: evaluation.map(|e| e.loss.clone()).unwrap_or_default(),
            accuracy_per_depth: evaluation.map(|e| e.accuracy.clone()).unwrap_or_default(),
            peak_memory_bytes: machine::peak_memory_bytes(),
        }
    }
}

impl Trained {
    fn text(&self) -> String {
        let held_out = self.next_token_loss_bits_per_byte.map_or(String::new(), |bits| {
            format!(
                "held out: {bits:.3} bits per byte; accuracy per depth {}\n",
                per_depth(&self.accuracy_per_depth)
            )
        });
        format!(
            "trained {} steps in {:.0} s\n{held_out}checkpoint: {}\nnext:\n  sakiyomi generate {} --prompt \"...\" --stats\n  \
             sakiyomi verify {} --prompts FILE",
            self.step, self.seconds, self.checkpoint, self.checkpoint, self.checkpoint
        )
    }
}

/// `0.61 0.44 0.32`
pub fn per_depth(values: &[f64]) -> String {
    values.iter().map(|value| format!("{value:.3}")).collect::<Vec<_>>().join(" ")
}
