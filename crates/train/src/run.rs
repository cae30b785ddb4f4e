//! The loop of a run: steps, evaluations, checkpoints, and going on where it stopped.

use std::path::PathBuf;
use std::time::Instant;

use data::{Batch, Tokenised};
use objective::Objective;

use crate::budget::Used;
use crate::config::{RunConfig, TrainMode, TrainSection};
use crate::error::{Result, Safe};
use crate::evaluate::Evaluation;
use crate::events::{EvaluationEvent, Event, EventWriter, RunStarted, StepEvent};
use crate::kept::{Interrupted, newest_whole, prune, set_last_aside, settle};
use crate::memory::MemoryProbe;
use crate::prepare::{RunData, prepare};
use crate::run_folder::RunFolder;
use crate::schedule::learning_rate;
use crate::start::{Start, start};
use crate::step::{StepReport, Stepper};
use crate::tensorboard::BoardWriter;
use crate::trainer_state::TrainerState;
use crate::trunk_states::TrunkStates;
use crate::watchdog::Explosion;
use crate::{Checkpoint, Error};

/// Watches a run, and may end it.
pub trait Observer {
    /// A part of the run's text was tokenised; false stops, with nothing begun.
    fn tokenised(&mut self, done: Tokenised) -> bool {
        let _ = done;
        !self.should_stop()
    }

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
    /// Whether the run came to its end; if not, it was stopped on request, and `--resume` goes on.
    pub finished: bool,
    /// Why it ended before its last step, if it did so by itself.
    pub early: Option<String>,
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
/// model or data cannot be read, a file cannot be written, or the loss explodes. The newest checkpoint is whole in every
/// case.
pub fn train(config: &RunConfig, resume: bool, observer: &mut dyn Observer) -> Result<Outcome> {
    config.validate()?;
    let folder = RunFolder::new(&config.run.folder);
    let changes = folder.check(config, resume)?;
    let mut run = Run::begin(config, &folder, resume, observer)?;
    changes.iter().for_each(|change| observer.note(change));
    run.steps(observer).map_err(|error| run.not_written(error))
}

struct Run<'a> {
    config: &'a RunConfig,
    folder: &'a RunFolder,
    checkpoint: Checkpoint,
    stepper: Stepper,
    data: RunData,
    /// Where the trunk is frozen and its states are kept.
    trunk_states: Option<TrunkStates>,
    events: EventWriter,
    board: Option<BoardWriter>,
    memory: MemoryProbe,
    state: TrainerState,
    /// The step of `checkpoints/last`.
    newest: Option<usize>,
    /// The step since which the loss is suspiciously high.
    suspicious_since: Option<usize>,
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
        if resume {
            settle(folder)?;
        }
        // A run that was interrupted before its first checkpoint begins again.
        let (run_last, mut newest) = (folder.last(), None);
        let interrupted = if resume { newest_whole(config, folder)? } else { None };
        let (checkpoint, stepper, state, data, origin) = match interrupted {
            None => {
                let Start { checkpoint, origin } = start(config)?;
                let data = prepare(config, &checkpoint.vocabulary, &mut |done| observer.tokenised(done))?;
                let stepper = Stepper::new(&checkpoint.params, &config.train);
                let state = TrainerState::new(data.training.state(), data.held_out.fingerprint());
                (checkpoint, stepper, state, data, origin)
            }
            Some(Interrupted { checkpoint, stepper, state, folder, note }) => {
                let mut data = prepare(config, &checkpoint.vocabulary, &mut |done| observer.tokenised(done))?;
                state.fits(&mut data)?;
                data.notes.extend(note);
                let origin = format!("{} after step {}", folder.display(), state.step);
                newest = Some(state.step).filter(|_| folder == run_last);
                (checkpoint, stepper, state, data, origin)
            }
        };
        let mut events = match events {
            Some(events) => events,
            None => {
                fs_err::create_dir_all(folder.path())?;
                let events = EventWriter::append(&folder.events())?;
                // While the text was read, another run may have begun here, and ended.
                folder.check(config, resume)?;
                events
            }
        };
        folder.store(config)?;
        let board = match config.run.tensorboard {
            true => Some(BoardWriter::open(&folder.tensorboard(), state.step)?),
            false => None,
        };
        let sizes = sizes(config, &checkpoint, &data);
        let ends_here = |event: &Event| matches!(event, Event::Finished { step, .. } if *step == state.step);
        let records = if resume { events.records()? } else { Vec::new() };
        let used = Used::by(&records, state.step, config.tokens_per_step());
        let done = used.all_of(&config.train) || early_end(config, &state).is_some();
        let finished_before = done && records.iter().any(|record| ends_here(&record.event));
        if !resume {
            events.write(Event::RunStarted(sizes.clone()))?;
        } else if !finished_before {
            // Also after an interruption before the first checkpoint: what was noted then is void. Not after the end,
            // which it would make void as well.
            events.write(Event::Resumed { step: state.step, steps: config.train.steps })?;
        }
        let trunk_states = match config.train.cache_states {
            true => Some(TrunkStates::open(config, &checkpoint, &data)?),
            false => None,
        };
        observer.started(&sizes, &origin, state.step);
        if let Some(states) = &trunk_states {
            let (path, bytes) = (states.path().display(), states.bytes()?);
            observer.note(&format!(
                "states of the frozen model are kept in {path}, {} MB when whole",
                bytes >> 20
            ));
        }
        config.doubts().iter().chain(&data.notes).for_each(|note| observer.note(note));
        let (done_before, seconds_before) = (state.step, state.seconds);
        Ok(Self {
            config,
            folder,
            checkpoint,
            stepper,
            data,
            trunk_states,
            events,
            board,
            memory: MemoryProbe::new(),
            state,
            newest,
            suspicious_since: None,
            began: Instant::now(),
            used,
            done_before,
            seconds_before,
            finished_before,
        })
    }

    fn steps(&mut self, observer: &mut dyn Observer) -> Result<Outcome> {
        let train = &self.config.train;
        while !self.used.all_of(train) && early_end(self.config, &self.state).is_none() {
            let step = self.state.step + 1;
            let began = Instant::now();
            let planned = TrainSection { steps: self.used.planned_steps(train), ..train.clone() };
            let rate = learning_rate(&planned, step);
            let report = self.step(step, rate)?;
            let seconds = began.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
            self.state.step = step;
            self.state.tokens += self.config.tokens_per_step() as u64;
            let targets = report.targets.clone();
            let mut event = step_event(&self.state, report, rate, self.config.tokens_per_step(), seconds);
            event.memory_bytes = self.memory.held();
            self.note_step(&event)?;
            self.watch(&event, &targets)?;
            self.used.steps = step;
            self.used.seconds += seconds;
            let mut last = self.used.all_of(train);
            if last || due(step, self.config.evaluation.every) {
                self.evaluate(observer)?;
                last = last || early_end(self.config, &self.state).is_some();
            }
            let stop = observer.should_stop() && !last;
            if last || stop || due(step, self.config.checkpoint.every) && self.trusted(observer) {
                self.save_last()?;
            }
            observer.stepped(&self.progress(event));
            if stop {
                self.events.write(Event::Stopped { step })?;
                return Ok(self.outcome(false));
            }
        }
        if let Some(states) = &self.trunk_states {
            let computed = states.computed();
            observer.note(&format!(
                "{computed} rows ran through the frozen model; the states of others were there"
            ));
        }
        if !self.finished_before {
            let (step, seconds) = (self.state.step, self.state.seconds);
            self.events.write(Event::Finished { step, seconds })?;
        }
        Ok(self.outcome(true))
    }

    fn step(&mut self, step: usize, rate: f64) -> Result<StepReport> {
        let batches: Vec<Batch> = (0..self.config.train.accumulate)
            .map(|_| self.data.training.next())
            .collect::<data::Result<_>>()?;
        if let Some(known) = &mut self.trunk_states {
            let states =
                batches.iter().map(|batch| known.of(&self.checkpoint, batch, &mut self.stepper.arena));
            let states = states.collect::<Result<_>>()?;
            self.stepper.start_from(states);
        }
        let Checkpoint { params, decoder, objective, .. } = &mut self.checkpoint;
        let depths = depths_at(self.config, step);
        let report =
            self.stepper.update(params, decoder, objective, &batches, depths, &self.config.train, rate);
        report.map_err(|error| self.diverged(step, step, error.to_string()))
    }

    fn note_step(&mut self, event: &StepEvent) -> Result<()> {
        if !self.folder.is_there() {
            let folder = self.folder.path().to_owned();
            return Err(Error::Vanished { step: event.step, folder });
        }
        self.events.write(Event::Step(event.clone()))?;
        self.board.as_mut().map_or(Ok(()), |board| board.step(event))
    }

    /// Stops a run whose loss explodes.
    fn watch(&mut self, event: &StepEvent, targets: &[usize]) -> Result<()> {
        let factor = self.config.watch.loss_factor;
        let explosion = self.state.watchdog.watch(&event.loss, targets, factor);
        self.suspicious_since =
            self.suspicious_since.or(Some(event.step)).filter(|_| self.state.watchdog.suspicious(factor));
        let Some(Explosion { depth, loss, lowest }) = explosion else { return Ok(()) };
        let ahead = match self.checkpoint.objective.tokens_ahead()[depth - 1] {
            ahead if ahead == depth => String::new(),
            ahead => format!(" ({ahead} ahead)"),
        };
        let what = format!(
            "the loss at depth {depth}{ahead} explodes: it is {:.3}, smoothed {loss:.3} after a lowest of {lowest:.3} \
             (watch.loss_factor)",
            event.loss[depth - 1]
        );
        Err(self.diverged(event.step, self.suspicious_since.unwrap_or(event.step), what))
    }

    /// Whether a checkpoint of now is worth replacing an older one.
    fn trusted(&self, observer: &mut dyn Observer) -> bool {
        if self.suspicious_since.is_some() {
            let step = self.state.step;
            observer.note(&format!(
                "step {step}: no checkpoint, the loss has risen too far for one to be trusted"
            ));
        }
        self.suspicious_since.is_none()
    }

    /// The error of a run whose loss went wrong at `step`, after the first bad one at `first_bad`. What was saved right before
    /// that holds the very update that did it: it makes way for the one before, and without one there is none to go on from.
    fn diverged(&mut self, step: usize, first_bad: usize, what: String) -> Error {
        if self.newest.is_some_and(|newest| newest + 1 == first_bad) {
            match set_last_aside(self.folder) {
                Ok(older) => self.newest = older,
                Err(error) => return error,
            }
        }
        let TrainSection { learning_rate, clip, .. } = self.config.train;
        let (safe, lora_alpha) = (Safe { newest: self.newest }, self.config.lora_alpha());
        Error::Diverged { step, what, safe, learning_rate, clip, lora_alpha }
    }

    /// Says of an error in writing what is left of the run.
    fn not_written(&self, error: Error) -> Error {
        match error {
            Error::Io(_) | Error::Model(_) | Error::Data(_) if !self.folder.is_there() => {
                Error::Vanished { step: self.state.step, folder: self.folder.path().to_owned() }
            }
            Error::Io(_) | Error::Model(_) | Error::Data(_) => Error::NotWritten {
                step: self.state.step,
                reason: error.to_string(),
                safe: Safe { newest: self.newest },
            },
            error => error,
        }
    }

    fn evaluate(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let Checkpoint { params, decoder, objective, .. } = &self.checkpoint;
        let evaluation =
            self.data.held_out.evaluate_with(params, decoder, objective, &mut self.stepper.arena)?;
        if let Some(depth) = evaluation.loss.iter().position(|loss| !loss.is_finite()) {
            let what = format!("the held-out loss at depth {} is {}", depth + 1, evaluation.loss[depth]);
            return Err(self.diverged(self.state.step, self.state.step + 1, what));
        }
        // What is minimised decides, so that heads on a frozen model are compared at all.
        let weighted = |(index, loss): (usize, &f64)| f64::from(objective.weight(index + 1)) * loss;
        let total: f64 = evaluation.loss.iter().enumerate().map(weighted).sum();
        let best = self.state.best_loss.is_none_or(|best| total < best);
        let gain = self.state.loss_to_beat.map(|loss| loss - total);
        if gain.is_none_or(|gain| gain > self.config.watch.minimum_gain) {
            self.state.loss_to_beat = Some(total);
            self.state.evaluations_without_gain = 0;
        } else {
            self.state.evaluations_without_gain += 1;
        }
        let usage_entropy = (!evaluation.usage.is_empty()).then(|| entropy(&evaluation.usage));
        let used = usage_entropy.map(f64::exp);
        let collapsed = used.is_some_and(|used| used < COLLAPSED * evaluation.usage.len() as f64);
        if let Some(used) = used.filter(|_| collapsed) {
            observer.note(&format!(
                "step {}: of {} components only about {used:.1} are used: the mixture collapses (objective.balance evens it out)",
                self.state.step,
                evaluation.usage.len()
            ));
        }
        let event = EvaluationEvent {
            joint_loss: evaluation.joint_loss,
            usage: evaluation.usage.clone(),
            usage_entropy,
            collapsed,
            step: self.state.step,
            loss: evaluation.loss.clone(),
            accuracy: evaluation.accuracy.clone(),
            bits_per_byte: evaluation.bits_per_byte,
            targets: evaluation.targets.iter().map(|&targets| targets as u64).collect(),
            best,
            answers_right: evaluation.answers.map(|answers| answers.share()),
        };
        self.state.evaluation = Some(evaluation);
        self.events.write(Event::Evaluation(event.clone()))?;
        self.board.as_mut().map_or(Ok(()), |board| board.evaluation(&event))?;
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
        let (state, stepper, params) = (&mut self.state, &self.stepper, &self.checkpoint.params);
        let keep_before = self.config.checkpoint.keep_last - 1;
        let kept = self.newest.filter(|_| keep_before > 0).map(|step| self.folder.kept(step));
        self.checkpoint.save_with(&self.folder.last(), kept.as_deref(), &mut |folder| {
            state.write(folder, params, &stepper.optimiser)
        })?;
        self.newest = Some(self.state.step);
        prune(self.folder, keep_before)?;
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
            early: early_end(self.config, &self.state)
                .filter(|_| finished && !self.used.all_of(&self.config.train)),
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

/// A mixture whose weights are spread like this share of its components, or less, has collapsed.
const COLLAPSED: f64 = 0.5;

/// In nats.
fn entropy(shares: &[f64]) -> f64 {
    shares.iter().filter(|share| **share > 0.0).map(|share| -share * share.ln()).sum()
}

/// Why the run ends here although it has steps left.
fn early_end(config: &RunConfig, state: &TrainerState) -> Option<String> {
    let right =
        state.evaluation.as_ref().and_then(|evaluation| evaluation.answers).map(|answers| answers.share());
    let solved = config.watch.solved;
    if solved > 0.0 && right.is_some_and(|right| right >= solved) {
        return Some(format!(
            "{:.1} % of the held-out answers are right (watch.solved)",
            100.0 * right.unwrap_or(0.0)
        ));
    }
    let (patience, waited) = (config.watch.patience, state.evaluations_without_gain);
    (patience > 0 && waited >= patience)
        .then(|| format!("no better held-out loss in {waited} evaluations (watch.patience)"))
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
        usage: report.usage,
        tokens_per_s: tokens as f64 / seconds,
        memory_bytes: None,
    }
}

fn sizes(config: &RunConfig, checkpoint: &Checkpoint, data: &RunData) -> RunStarted {
    let head_parameters = checkpoint.params.values_of(checkpoint.objective.parameters());
    let adapters = checkpoint.params.values_of(&model::lora::adapter_parameters(&checkpoint.params));
    let all = checkpoint.params.values() - adapters;
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
        trained_parameters: match config.train.mode {
            TrainMode::Heads | TrainMode::Lora => head_parameters + adapters,
            TrainMode::Pretrain | TrainMode::Full => all,
        },
        objective: checkpoint.objective.kind().to_owned(),
        depths: config.depths(),
        tokens_ahead: checkpoint.objective.tokens_ahead(),
        tokens_per_step: config.tokens_per_step(),
        training_tokens: data.training.tokens_per_epoch(),
        held_out_tokens: data.held_out.tokens(),
        threads,
    }
}
