//! What a run will take, found by doing a little of it: everything is read and checked as the run would, a few steps, a part
//! of an evaluation and one save are timed, and nothing is left behind.

use std::path::Path;
use std::time::Instant;

use data::{Batch, Watch};
use objective::Objective;

use crate::config::RunConfig;
use crate::error::{Error, Result};
use crate::evaluate::HeldOut;
use crate::kept::newest_whole;
use crate::plan::{Plan, plan};
use crate::prepare::{RunData, prepare};
use crate::run::depths_at;
use crate::run_folder::RunFolder;
use crate::start::start;
use crate::step::Stepper;
use crate::trainer_state::TrainerState;
use crate::trunk_states::{self, TrunkStates};
use crate::{Checkpoint, memory};

/// What a run will take.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// Its sizes.
    pub plan: Plan,
    /// Tokens of the training text.
    pub training_tokens: usize,
    /// Tokens of the held-out text.
    pub held_out_tokens: usize,
    /// Targets of a step at each depth, on average over the steps that were tried.
    pub targets_per_step: Vec<f64>,
    /// Steps still to do.
    pub steps: usize,
    /// Seconds of a step with every depth; where the states of a frozen trunk are kept, of one that finds them.
    pub step_seconds: f64,
    /// Rows whose states nobody has kept yet, and the seconds that the trunk needs for one; `None` where none are kept.
    pub rows_to_keep: Option<(usize, f64)>,
    /// Evaluations still to do, and the seconds of one.
    pub evaluations: (usize, f64),
    /// Checkpoints still to write, and the seconds of one; the best one on held-out text not counted.
    pub saves: (usize, f64),
    /// Seconds from now to the end, reading included.
    pub seconds: f64,
    /// Bytes of a checkpoint from which the run can go on.
    pub checkpoint_bytes: u64,
    /// Bytes of all checkpoints that are kept, and of the one that is being written.
    pub disk_bytes: u64,
    /// Most bytes that this process has held, which did what the run will do; an estimate where the system does not tell.
    pub memory_bytes: u64,
    /// Things that the user should know and that are no errors.
    pub notes: Vec<String>,
}

/// Tries the run that `config` describes, or what is left of it with `resume`; `watch` is told how far the text is read.
///
/// # Errors
/// As [`crate::train`], before its first step.
pub fn forecast(config: &RunConfig, resume: bool, watch: Watch) -> Result<Forecast> {
    config.validate()?;
    let folder = RunFolder::new(&config.run.folder);
    let mut notes = folder.check(config, resume)?;
    check_place(folder.path())?;
    let plan = plan(config)?;
    let scratch = data::temporary_folder()?;
    let began = Instant::now();
    let mut trial = Trial::begin(config, &folder, resume, scratch.path(), watch)?;
    let reading = began.elapsed().as_secs_f64();
    notes.extend(config.doubts());
    notes.append(&mut trial.data.notes);

    let kept = match config.train.cache_states {
        true => trunk_states::kept(config, &trial.checkpoint, &trial.data)?,
        false => Vec::new(),
    };
    let depths = config.depths();
    let (step_seconds, targets_per_step) = trial.steps(depths)?;
    let first_depth_seconds = match config.objective.curriculum_steps {
        0 => step_seconds,
        _ => trial.steps(1)?.0,
    };
    let evaluation_seconds = trial.evaluation()?;
    let (save_seconds, checkpoint_bytes) = trial.save(&scratch.path().join("last"), true)?;
    let (best_seconds, best_bytes) = trial.save(&scratch.path().join("best"), false)?;

    let rows_per_step = config.train.batch * config.train.accumulate;
    let row_seconds = trial.row_seconds();
    // Every epoch has the same rows.
    let unkept = |steps: usize| kept.iter().take(steps * rows_per_step).filter(|kept| !**kept).count();
    let done = trial.state.step;
    let end = match config.train.seconds {
        None => config.train.steps,
        Some(seconds) => {
            // As though the trunk had to run for every row; what it then need not is time for more steps.
            let slowest = seconds / (step_seconds + rows_per_step as f64 * row_seconds);
            let running = unkept(slowest as usize) as f64 * row_seconds;
            done.max(((seconds - running) / step_seconds).ceil() as usize)
        }
    };
    let to_keep = unkept(end.saturating_sub(done));
    let counted = |every: usize| count_due(every, done, end);
    let (evaluations, saves) = (counted(config.evaluation.every), counted(config.checkpoint.every));
    // Heads cost about the same each, so that a step of k depths lies on the line between 1 and all.
    let share = |step: usize| (depths_at(config, step) - 1) as f64 / (depths - 1).max(1) as f64;
    let step_of = |step: usize| first_depth_seconds + (step_seconds - first_depth_seconds) * share(step);
    // From the step on in which the last depth joins, all cost the same.
    let all_depths = config.objective.curriculum_steps.saturating_mul(depths - 1).min(end);
    let joining: f64 = (done + 1..=all_depths).map(step_of).sum();
    let steps = joining + end.saturating_sub(all_depths.max(done)) as f64 * step_seconds;
    let seconds = reading
        + steps
        + to_keep as f64 * row_seconds
        + evaluations as f64 * (evaluation_seconds + best_seconds)
        + saves as f64 * save_seconds;
    Ok(Forecast {
        training_tokens: trial.data.training.tokens_per_epoch(),
        held_out_tokens: trial.data.held_out.tokens(),
        targets_per_step,
        steps: end.saturating_sub(done),
        step_seconds,
        rows_to_keep: config.train.cache_states.then_some((to_keep, row_seconds)),
        evaluations: (evaluations, evaluation_seconds),
        saves: (saves, save_seconds),
        seconds,
        checkpoint_bytes,
        disk_bytes: (config.checkpoint.keep_last as u64 + 1) * checkpoint_bytes + best_bytes,
        memory_bytes: memory::peak().unwrap_or(plan.memory_bytes),
        plan,
        notes,
    })
}

/// Steps after `done` at which something is due that comes after every so many (0: never) and after the last step, `end`.
fn count_due(every: usize, done: usize, end: usize) -> usize {
    let multiples = |step: usize| step.checked_div(every).unwrap_or(0);
    let at_the_end = end > done && (every == 0 || !end.is_multiple_of(every));
    multiples(end).saturating_sub(multiples(done)) + usize::from(at_the_end)
}

/// A run that leaves nothing behind.
struct Trial<'a> {
    config: &'a RunConfig,
    checkpoint: Checkpoint,
    stepper: Stepper,
    state: TrainerState,
    data: RunData,
    /// Where the run keeps the states of its frozen trunk, the trial keeps a few of its own.
    trunk_states: Option<TrunkStates>,
    /// Seconds that the trunk took for rows, and how many they were.
    rows_run: (f64, usize),
}

/// The first steps find buffers and pages new.
const WARM_UP_STEPS: usize = 2;

/// Timed are at least so many steps, for at least so many seconds, but no more steps than the run has.
const LEAST_STEPS: usize = 3;
const LEAST_SECONDS: f64 = 4.0;

/// Batches of an evaluation that are timed.
const EVALUATION_BATCHES: usize = 4;

impl<'a> Trial<'a> {
    fn begin(
        config: &'a RunConfig,
        folder: &RunFolder,
        resume: bool,
        scratch: &Path,
        watch: Watch,
    ) -> Result<Self> {
        let mut reading = config.clone();
        reading.data.cache = scratch.join("cache");
        let interrupted = if resume { newest_whole(config, folder)? } else { None };
        let Some(found) = interrupted else {
            let checkpoint = start(config)?.checkpoint;
            let data = prepare(&reading, &checkpoint.vocabulary, watch).map_err(of_scratch)?;
            let state = TrainerState::new(data.training.state(), data.held_out.fingerprint());
            let stepper = Stepper::new(&checkpoint.params, &config.train);
            return Self { config, checkpoint, stepper, state, data, trunk_states: None, rows_run: (0.0, 0) }
                .keeping_states(&reading);
        };
        let mut data = prepare(&reading, &found.checkpoint.vocabulary, watch).map_err(of_scratch)?;
        found.state.fits(&mut data)?;
        data.notes.extend(found.note);
        let (checkpoint, stepper, state) = (found.checkpoint, found.stepper, found.state);
        Self { config, checkpoint, stepper, state, data, trunk_states: None, rows_run: (0.0, 0) }
            .keeping_states(&reading)
    }

    /// Keeps states, if the run does, in the cache of `reading`.
    fn keeping_states(mut self, reading: &RunConfig) -> Result<Self> {
        if reading.train.cache_states {
            self.trunk_states = Some(TrunkStates::open(reading, &self.checkpoint, &self.data)?);
        }
        Ok(self)
    }

    /// Seconds that the trunk takes for a row; 0 where it runs in every step.
    fn row_seconds(&self) -> f64 {
        let (seconds, rows) = self.rows_run;
        seconds / rows.max(1) as f64
    }

    /// Begins the next step from states of the trunk that are kept; gives the seconds that went into keeping them.
    fn start_from_states(&mut self, batches: &[Batch]) -> Result<f64> {
        let Some(known) = &mut self.trunk_states else { return Ok(0.0) };
        let (began, before) = (Instant::now(), known.computed());
        for batch in batches {
            known.of(&self.checkpoint, batch, &mut self.stepper.arena)?;
        }
        let (seconds, rows) = (began.elapsed().as_secs_f64(), known.computed() - before);
        self.rows_run = (self.rows_run.0 + seconds, self.rows_run.1 + rows);
        // As a later run or epoch does.
        let states = batches.iter().map(|batch| known.of(&self.checkpoint, batch, &mut self.stepper.arena));
        let states = states.collect::<Result<_>>()?;
        self.stepper.start_from(states);
        Ok(seconds)
    }

    /// Seconds of a step with `depths` depths, and its targets at each.
    fn steps(&mut self, depths: usize) -> Result<(f64, Vec<f64>)> {
        let mut targets = vec![0.0; depths];
        let (mut began, mut timed, mut keeping) = (Instant::now(), 0, 0.0);
        for step in 0.. {
            if step == WARM_UP_STEPS {
                (began, keeping, self.rows_run) = (Instant::now(), 0.0, (0.0, 0));
            }
            timed = usize::saturating_sub(step, WARM_UP_STEPS);
            let all = self.config.train.seconds.is_none() && timed >= self.config.train.steps;
            let enough = all || began.elapsed().as_secs_f64() >= LEAST_SECONDS;
            if timed >= LEAST_STEPS && enough {
                break;
            }
            let accumulate = self.config.train.accumulate;
            let batches: Vec<Batch> =
                (0..accumulate).map(|_| self.data.training.next()).collect::<data::Result<_>>()?;
            if step >= WARM_UP_STEPS {
                let found = self.checkpoint.objective.window(&batches, depths).targets;
                targets.iter_mut().zip(found).for_each(|(sum, count)| *sum += count as f64);
            }
            keeping += self.start_from_states(&batches)?;
            let Checkpoint { params, decoder, objective, .. } = &mut self.checkpoint;
            // So small a rate that no trial explodes.
            let report = self.stepper.update(
                params,
                decoder,
                objective,
                &batches,
                depths,
                &self.config.train,
                f64::MIN_POSITIVE,
            );
            report.map_err(|error| Error::Diverged {
                step: self.state.step + 1,
                what: error.to_string(),
                safe: crate::error::Safe { newest: Some(self.state.step).filter(|&step| step > 0) },
                learning_rate: self.config.train.learning_rate,
                clip: self.config.train.clip,
                lora_alpha: self.config.lora_alpha(),
            })?;
        }
        targets.iter_mut().for_each(|sum| *sum /= timed as f64);
        Ok(((began.elapsed().as_secs_f64() - keeping) / timed as f64, targets))
    }

    /// Seconds of an evaluation.
    fn evaluation(&mut self) -> Result<f64> {
        let all = self.data.held_out.batches();
        let few: HeldOut = self.data.held_out.first(EVALUATION_BATCHES);
        let Checkpoint { params, decoder, objective, .. } = &self.checkpoint;
        few.first(1).evaluate_with(params, decoder, objective, &mut self.stepper.arena)?;
        let began = Instant::now();
        few.evaluate_with(params, decoder, objective, &mut self.stepper.arena)?;
        Ok(began.elapsed().as_secs_f64() / few.batches().max(1) as f64 * all as f64)
    }

    /// Seconds and bytes of a checkpoint, with or without what a run needs to go on.
    fn save(&mut self, folder: &Path, with_state: bool) -> Result<(f64, u64)> {
        let began = Instant::now();
        let (state, params, optimiser) = (&mut self.state, &self.checkpoint.params, &self.stepper.optimiser);
        self.checkpoint.save_with(folder, None, &mut |folder| match with_state {
            true => state.write(folder, params, optimiser),
            false => Ok(()),
        })?;
        Ok((began.elapsed().as_secs_f64(), bytes_below(folder)?))
    }
}

/// The tokens of a trial lie in the folder for temporary files, wherever those of the run will be.
fn of_scratch(error: Error) -> Error {
    match error {
        Error::Data(data::Error::TokensNotWritten { folder, reason, .. }) => {
            Error::Data(data::Error::TokensNotWritten { folder, temporary: true, reason })
        }
        error => error,
    }
}

/// Refuses a place where no folder can be made.
fn check_place(folder: &Path) -> Result<()> {
    let mut standing = folder.ancestors().filter(|path| !path.as_os_str().is_empty() && path.exists());
    match standing.next() {
        Some(path) if !path.is_dir() => {
            let problem =
                format!("is {}, and {} is no folder: name another", folder.display(), path.display());
            Err(Error::Setting { key: "run.folder".to_owned(), problem })
        }
        _ => Ok(()),
    }
}

fn bytes_below(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => bytes_below(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_is_counted_as_the_run_does_it() {
        for (every, done, end) in
            [(0, 0, 5), (0, 5, 5), (1, 0, 5), (2, 0, 5), (2, 1, 6), (7, 0, 5), (5, 3, 20), (3, 9, 4)]
        {
            let due = (done + 1..=end).filter(|&step| step == end || every > 0 && step % every == 0);
            assert_eq!(count_due(every, done, end), due.count(), "{every}, {done}, {end}");
        }
    }
}
