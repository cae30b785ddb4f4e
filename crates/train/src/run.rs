//! The loop of a run: steps, evaluations, checkpoints, and going on where it stopped.

use std::path::PathBuf;
use std::time::Instant;

use data::Batch;
use objective::Objective;

use crate::budget::Used;
use crate::config::{RunConfig, TrainMode, TrainSection};
use crate::error::Result;
use crate::evaluate::Evaluation;
use crate::events::{EvaluationEvent, Event, EventWriter, RunStarted, StepEvent};
use crate::prepare::{RunData, prepare};
use crate::run_folder::RunFolder;
use crate::schedule::learning_rate;
use crate::start::{Start, choose_trained, start};
use crate::step::{StepReport, Stepper};
use crate::trainer_state::TrainerState;
use crate::{Checkpoint, Error};

/// Watches a run, and may end it.
pub trait Observer {
    /// The run is about to take its first step; `origin` says from what, `done` steps were done before.
    fn started(&mut self, sizes: &RunStarted, origin: &str, done: usize) {
        let _ = (sizes, origin, done);
    }

    /// A step was done.
    fn stepped(&mut self, progress: &Progress) {
        let _ = progress;
    }

    /// An evaluation was done.
    fn evaluated(&mut self, evaluation: &EvaluationEvent) {
        let _ = evaluation;
    }

    /// Something that the user should know and that is no error.
    fn note(&mut self, note: &str) {
        let _ = note;
    }

    /// Asked after every step: whether to write a checkpoint and stop.
    fn should_stop(&mut self) -> bool {
        false
    }
}

impl Observer for () {}

/// How far a run is.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// The step that was just done.
    pub step: StepEvent,
    /// Updates planned.
    pub steps: usize,
    /// Inputs per second since the run was started or resumed, evaluations and checkpoints included.
    pub tokens_per_s: f64,
    /// Seconds until the end, at this rate.
    pub seconds_left: f64,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Whether every step was done; if not, it was stopped on request, and `--resume` goes on.
    pub finished: bool,
    /// Steps done.
    pub step: usize,
    /// Updates planned.
    pub steps: usize,
    /// The newest checkpoint.
    pub last: PathBuf,
    /// The checkpoint with the lowest held-out loss, if there was an evaluation.
    pub best: Option<PathBuf>,
    /// The newest evaluation.
    pub evaluation: Option<Evaluation>,
    /// Seconds that training took up to the newest checkpoint, before and after every resumption.
    pub seconds: f64,
    /// Seconds that its steps took, evaluation and saving left out.
    pub training_seconds: f64,
}

/// Trains as `config` says, in its run folder; with `resume`, goes on from the newest checkpoint there.
///
/// A resumed run does the same to the bit as one that was never interrupted, unless `train.seconds` bounds it: where the clock
/// decides on the learning rate and on the end, no two runs are equal to the bit.
///
/// # Errors
/// When the folder holds a run already (without `resume`) or none (with it), settings were changed that must not change,
/// model or data cannot be read, a file cannot be written, or loss or gradient are no longer finite. The newest checkpoint
/// is whole in every case.
pub fn train(config: &RunConfig, resume: bool, observer: &mut dyn Observer) -> Result<Outcome> {
    config.validate()?;
    let folder = RunFolder::new(&config.run.folder);
    folder.check(config, resume)?;
    let mut run = Run::begin(config, &folder, resume, observer)?;
    let outcome = run.steps(observer)?;
    Ok(outcome)
}

struct Run<'a> {
    config: &'a RunConfig,
    folder: &'a RunFolder,
    checkpoint: Checkpoint,
    stepper: Stepper,
    data: RunData,
    events: EventWriter,
    state: TrainerState,
    began: Instant,
    used: Used,
    done_before: usize,
    seconds_before: f64,
    /// Whether there is nothing to do and events.jsonl says so already.
    finished_before: bool,
}

impl<'a> Run<'a> {
    fn begin(
        config: &'a RunConfig,
        folder: &'a RunFolder,
        resume: bool,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        // Before anything is settled or written: another process may be at work in the folder.
        let events = if resume { Some(EventWriter::append(&folder.events())?) } else { None };
        // A run that was interrupted before its first checkpoint begins again.
        let interrupted = if resume { TrainerState::find(folder)? } else { None };
        let Start { mut checkpoint, mut origin } = match &interrupted {
            None => start(config)?,
            Some(_) => Start { checkpoint: Checkpoint::load(&folder.last())?, origin: String::new() },
        };
        choose_trained(&mut checkpoint, config.train.mode);
        let mut data = prepare(config, &checkpoint.vocabulary)?;
        let mut stepper = Stepper::new(&checkpoint.params, config.train.decay_on);
        let state = match interrupted {
            None => TrainerState::new(data.training.state(), data.held_out.fingerprint()),
            Some(state) => {
                origin = format!("{} after step {}", folder.last().display(), state.step);
                state.restore(&folder.last(), &checkpoint.params, &mut stepper.optimiser)?;
                data.training.restore(&state.loader)?;
                if state.held_out != data.held_out.fingerprint() {
                    let what = "the held-out text has changed since it was saved".to_owned();
                    return Err(data::Error::Position(what).into());
                }
                state
            }
        };
        let mut events = match events {
            Some(events) => events,
            None => {
                fs_err::create_dir_all(folder.path())?;
                EventWriter::append(&folder.events())?
            }
        };
        folder.store(config)?;
        let sizes = sizes(config, &checkpoint, &data);
        let ends_here = |event: &Event| matches!(event, Event::Finished { step, .. } if *step == state.step);
        let records = if resume { events.records()? } else { Vec::new() };
        let used = Used::by(&records, state.step, config.tokens_per_step());
        let finished_before =
            used.all_of(&config.train) && records.iter().any(|record| ends_here(&record.event));
        if !resume {
            events.write(Event::RunStarted(sizes.clone()))?;
        } else if !finished_before {
            // Also after an interruption before the first checkpoint: what was noted then is void. Not after the end,
            // which it would make void as well.
            events.write(Event::Resumed { step: state.step, steps: config.train.steps })?;
        }
        observer.started(&sizes, &origin, state.step);
        data.notes.iter().for_each(|note| observer.note(note));
        let (done_before, seconds_before) = (state.step, state.seconds);
        Ok(Self {
            config,
            folder,
            checkpoint,
            stepper,
            data,
            events,
            state,
            began: Instant::now(),
            used,
            done_before,
            seconds_before,
            finished_before,
        })
    }

    fn steps(&mut self, observer: &mut dyn Observer) -> Result<Outcome> {
        let train = &self.config.train;
        while !self.used.all_of(train) {
            let step = self.state.step + 1;
            let began = Instant::now();
            let planned = TrainSection { steps: self.used.planned_steps(train), ..train.clone() };
            let rate = learning_rate(&planned, step);
            let report = self.step(step, rate)?;
            let seconds = began.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
            self.state.step = step;
            self.state.tokens += self.config.tokens_per_step() as u64;
            let event = step_event(&self.state, report, rate, self.config.tokens_per_step(), seconds);
            self.events.write(Event::Step(event.clone()))?;
            self.used.steps = step;
            self.used.seconds += seconds;
            let last = self.used.all_of(train);
            if last || due(step, self.config.evaluation.every) {
                self.evaluate(observer)?;
            }
            let stop = observer.should_stop() && !last;
            if last || stop || due(step, self.config.checkpoint.every) {
                self.save_last()?;
            }
            observer.stepped(&self.progress(event));
            if stop {
                self.events.write(Event::Stopped { step })?;
                return Ok(self.outcome(false));
            }
        }
        if !self.finished_before {
            let (step, seconds) = (self.state.step, self.state.seconds);
            self.events.write(Event::Finished { step, seconds })?;
        }
        Ok(self.outcome(true))
    }

    fn step(&mut self, step: usize, rate: f64) -> Result<StepReport> {
        let batches: Vec<Batch> =
            (0..self.config.train.accumulate).map(|_| self.data.training.next()).collect();
        let Checkpoint { params, decoder, objective, .. } = &mut self.checkpoint;
        let depths = depths_at(self.config, step);
        self.stepper.update(params, decoder, objective, &batches, depths, &self.config.train, rate)
    }

    fn evaluate(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let Checkpoint { params, decoder, objective, .. } = &self.checkpoint;
        let evaluation =
            self.data.held_out.evaluate_with(params, decoder, objective, &mut self.stepper.arena);
        if let Some(depth) = evaluation.loss.iter().position(|loss| !loss.is_finite()) {
            let what = format!("the held-out loss at depth {} is {}", depth + 1, evaluation.loss[depth]);
            return Err(Error::Diverged { step: self.state.step, what });
        }
        // What is minimised decides, so that heads on a frozen model are compared at all.
        let weighted = |(index, loss): (usize, &f64)| f64::from(objective.weight(index + 1)) * loss;
        let total: f64 = evaluation.loss.iter().enumerate().map(weighted).sum();
        let best = self.state.best_loss.is_none_or(|best| total < best);
        let event = EvaluationEvent {
            step: self.state.step,
            loss: evaluation.loss.clone(),
            accuracy: evaluation.accuracy.clone(),
            bits_per_byte: evaluation.bits_per_byte,
            targets: evaluation.targets.iter().map(|&targets| targets as u64).collect(),
            best,
        };
        self.state.evaluation = Some(evaluation);
        self.events.write(Event::Evaluation(event.clone()))?;
        observer.evaluated(&event);
        if best {
            self.state.best_loss = Some(total);
            self.checkpoint.save(&self.folder.best())?;
            self.note_checkpoint("checkpoints/best")?;
        }
        Ok(())
    }

    fn save_last(&mut self) -> Result<()> {
        self.state.loader = self.data.training.state();
        self.state.seconds = self.seconds_before + self.began.elapsed().as_secs_f64();
        let (state, stepper) = (&self.state, &self.stepper);
        let params = &self.checkpoint.params;
        self.checkpoint
            .save_with(&self.folder.last(), &mut |folder| state.write(folder, params, &stepper.optimiser))?;
        self.note_checkpoint("checkpoints/last")
    }

    fn note_checkpoint(&mut self, folder: &str) -> Result<()> {
        self.events.write(Event::Checkpoint { step: self.state.step, folder: folder.to_owned() })
    }

    fn progress(&self, step: StepEvent) -> Progress {
        let seconds = self.began.elapsed().as_secs_f64();
        let done = (step.step - self.done_before) as f64;
        let steps = self.planned_steps();
        let left = (steps - step.step) as f64;
        Progress {
            steps,
            tokens_per_s: done * self.config.tokens_per_step() as f64 / seconds.max(f64::MIN_POSITIVE),
            seconds_left: seconds / done * left,
            step,
        }
    }

    fn outcome(&self, finished: bool) -> Outcome {
        Outcome {
            finished,
            step: self.state.step,
            steps: self.planned_steps(),
            last: self.folder.last(),
            best: self.state.best_loss.map(|_| self.folder.best()),
            evaluation: self.state.evaluation.clone(),
            seconds: self.state.seconds,
            training_seconds: self.used.seconds,
        }
    }

    /// Steps of the whole run, as far as this is known.
    fn planned_steps(&self) -> usize {
        match self.used.all_of(&self.config.train) {
            true => self.state.step,
            false => self.used.planned_steps(&self.config.train),
        }
    }
}

/// Depths that are trained in `step`: all, or one more every `curriculum_steps` (the forward curriculum).
pub fn depths_at(config: &RunConfig, step: usize) -> usize {
    match config.objective.curriculum_steps {
        0 => config.depths(),
        every => config.depths().min(1 + (step - 1) / every),
    }
}

fn due(step: usize, every: usize) -> bool {
    every > 0 && step.is_multiple_of(every)
}

fn step_event(state: &TrainerState, report: StepReport, rate: f64, tokens: usize, seconds: f64) -> StepEvent {
    StepEvent {
        step: state.step,
        tokens: state.tokens,
        loss: report.loss,
        accuracy: report.accuracy,
        gradient_norm: report.gradient_norm,
        learning_rate: rate,
        tokens_per_s: tokens as f64 / seconds,
    }
}

fn sizes(config: &RunConfig, checkpoint: &Checkpoint, data: &RunData) -> RunStarted {
    let count = |id| checkpoint.params.data(id).len();
    let head_parameters = checkpoint.objective.parameters().iter().copied().map(count).sum();
    let all = checkpoint.params.values();
    let threads = match config.run.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let folder_name = config.run.folder.file_name().map(|name| name.to_string_lossy().into_owned());
    RunStarted {
        name: if config.run.name.is_empty() {
            folder_name.unwrap_or_default()
        } else {
            config.run.name.clone()
        },
        version: env!("CARGO_PKG_VERSION").to_owned(),
        seed: config.run.seed,
        steps: config.train.steps,
        trunk_parameters: all - head_parameters,
        head_parameters,
        trained_parameters: if config.train.mode == TrainMode::Heads { head_parameters } else { all },
        depths: config.depths(),
        tokens_per_step: config.tokens_per_step(),
        training_tokens: data.training.tokens_per_epoch(),
        held_out_tokens: data.held_out.tokens(),
        threads,
    }
}
