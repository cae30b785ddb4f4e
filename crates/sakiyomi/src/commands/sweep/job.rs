//! One run in a process of its own: train, measure, leave the result.
//!
//! Each run is a child process, so that a crash of one (memory that ran out, say) does not end the sweep, and so that its peak
//! memory is its own. The job comes as one line of JSON on standard input. What follows on standard input is a leash: the
//! line `stop` asks for a checkpoint and an end; the end of input means that the sweep itself was killed, and ends the run at
//! once, so that no run is left behind that the next sweep would find at work.

use std::io::BufRead;
use std::path::Path;

use anyhow::Context;
use decode::{DecodeSettings, MeasureSettings, SamplingSettings, acceptance, measure, verify};
use objective::Objective;
use serde::{Deserialize, Serialize};
use train::prepare::split_text;
use train::{Checkpoint, HeldOut, Outcome, RunConfig, RunFolder};

use super::file::MeasureSpec;
use super::grid::Place;
use super::result::{DecodingResult, LengthResult, RunResult};
use crate::commands::checkpoint::Loaded;
use crate::commands::{machine, prompts};
use crate::failure::{Verdict, one_line, was_stopped};
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::progress::{Counter, TrainingProgress};

/// The word on the leash that asks for an end.
pub const STOP: &str = "stop";

/// What a child is told.
#[derive(Debug, Serialize, Deserialize)]
pub struct Job {
    /// Where the run stands in the grid.
    pub place: Place,
    /// Of the settings.
    pub fingerprint: String,
    /// The settings.
    pub config: RunConfig,
    /// What to measure.
    pub measure: MeasureSpec,
}

/// What a child tells on standard output when it fails.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failed {
    /// In one line.
    pub reason: String,
}

/// Does the job on standard input.
pub fn run_child(output: Output) -> anyhow::Result<Verdict> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let job: Job = serde_json::from_str(&line).context("sweep-run is what sweep starts; start that")?;
    let interrupt = Interrupt::listen(None)?;
    hold_leash(interrupt.clone());
    let done = match job.run(&interrupt, output) {
        // As a run that was left between two steps: it goes on next time.
        Err(error) if was_stopped(&error) => Ok(()),
        done => done,
    };
    if let Err(error) = &done {
        Output { json: true }.result(&Failed { reason: one_line(error) }, String::new)?;
    }
    done.map(|()| Verdict::Done)
}

fn hold_leash(interrupt: Interrupt) {
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            match line {
                Ok(word) if word == STOP => interrupt.raise(),
                _ => break,
            }
        }
        std::process::exit(1)
    });
}

impl Job {
    fn run(&self, interrupt: &Interrupt, output: Output) -> anyhow::Result<()> {
        let threads = match self.config.run.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        machine::use_threads(threads)?;
        let folder = RunFolder::new(&self.config.run.folder);
        let went_on = folder.holds_a_run();
        let mut progress = TrainingProgress::new(output, interrupt.clone());
        let outcome = train::train(&self.config, went_on, &mut progress)?;
        if !outcome.finished {
            return Ok(());
        }
        // The peak of a process that did a part of the training is not the run's.
        let before = RunResult::read(folder.path()).filter(|result| result.fingerprint == self.fingerprint);
        let peak =
            if went_on { before.and_then(|result| result.peak_memory_bytes) } else { train::memory::peak() };
        self.measure(&outcome, peak, threads, interrupt, output)?.write(folder.path())
    }

    fn measure(
        &self,
        outcome: &Outcome,
        peak_memory_bytes: Option<u64>,
        threads: usize,
        interrupt: &Interrupt,
        output: Output,
    ) -> anyhow::Result<RunResult> {
        let checkpoint = Checkpoint::load(&outcome.last)?;
        let text = split_text(&self.config, &checkpoint.vocabulary, &mut |_| !interrupt.raised())?;
        let (depths, lookahead) = (checkpoint.objective.depths(), checkpoint.objective.lookahead());
        // Beside n tokens together, the model's own next token has a loss.
        let n = checkpoint.objective.joint().map_or(depths, |joint| joint.spec().n);
        let tokens_ahead = checkpoint.objective.tokens_ahead();
        let settings = &self.config.train;
        let (batch, length) = (settings.batch, settings.length);
        let held_out = HeldOut::new(
            &text.held_out,
            &text.held_out_documents,
            &checkpoint.vocabulary,
            batch,
            length,
            lookahead,
            self.measure.batches,
        )?;
        let evaluation = held_out.evaluate(&checkpoint.params, &checkpoint.decoder, &checkpoint.objective)?;
        let head_parameters = checkpoint.params.values_of(checkpoint.objective.parameters());
        let trunk_parameters = checkpoint.params.values() - head_parameters;
        let prompts = prompts::cut(
            &text.held_out,
            &text.held_out_documents,
            checkpoint.vocabulary.begin(),
            self.measure.prompts,
            self.measure.prompt_tokens,
        )?;
        let decoding = match prompts.is_empty() {
            true => None,
            false => Some(self.decode(&Loaded::new(checkpoint, threads), &prompts, interrupt, output)?),
        };
        Ok(RunResult {
            place: self.place.clone(),
            fingerprint: self.fingerprint.clone(),
            measure: self.measure.clone(),
            n,
            tokens_ahead,
            threads,
            trunk_parameters,
            head_parameters,
            steps: outcome.step,
            tokens: outcome.step as u64 * self.config.tokens_per_step() as u64,
            training_seconds: outcome.training_seconds,
            peak_memory_bytes,
            held_out: evaluation,
            decoding,
        })
    }

    fn decode(
        &self,
        loaded: &Loaded,
        prompts: &[Vec<u32>],
        interrupt: &Interrupt,
        output: Output,
    ) -> anyhow::Result<DecodingResult> {
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0) + self.measure.new_tokens;
        let mut target = loaded.target(longest)?;
        // The end of a document ends no continuation: every prompt is followed by as many tokens.
        let decoding =
            DecodeSettings { max_new_tokens: self.measure.new_tokens, ..DecodeSettings::default() };
        let mut counter = None;
        let mut show = |what: &'static str, done: usize, of: usize| {
            counter.get_or_insert_with(|| Counter::new(what, of)).set(done, output, String::new);
            if done == of
                && let Some(counter) = counter.take()
            {
                counter.finish();
            }
            if interrupt.raised() {
                // Verifying and measuring cannot be left halfway, and are done again in a moment.
                std::process::exit(0);
            }
        };
        let verification = match target.longest_draft() {
            0 => None,
            _ => Some(verify(&mut target, prompts, &decoding, &mut |done, of| show("verifying", done, of))?),
        };
        let settings = MeasureSettings {
            decoding,
            draft_lengths: (1..=target.longest_draft()).collect(),
            repeats: self.measure.repeats,
            ..MeasureSettings::default()
        };
        let measured = measure(&mut target, prompts, &settings, &mut |done, of| show("measuring", done, of))?;
        let mut accepted = |temperature: f32| match target.longest_draft() {
            0 => Ok(None),
            draft_length => {
                let sampling = SamplingSettings { temperature, ..SamplingSettings::default() };
                let decoding = DecodeSettings { draft_length, sampling, ..settings.decoding.clone() };
                acceptance(&mut target, prompts, &decoding).map(Some)
            }
        };
        Ok(DecodingResult {
            greedy: accepted(0.0)?,
            sampled: accepted(1.0)?,
            prompts: prompts.len(),
            identical: verification.as_ref().map(decode::Verification::identical),
            plain_tokens_per_s: measured.plain.tokens_per_s.median,
            lengths: measured
                .drafted
                .iter()
                .map(|drafted| LengthResult {
                    tokens_per_forward: drafted.speed.statistics.tokens_per_forward().unwrap_or(1.0),
                    tokens_per_s: drafted.speed.tokens_per_s.median,
                    speedup: drafted.speed.speedup.median,
                    ms_per_round: drafted.speed.statistics.seconds_per_forward().unwrap_or_default() * 1e3,
                })
                .collect(),
            depths: verification
                .and_then(|verification| verification.drafted.into_iter().last())
                .map(|longest| longest.depths)
                .unwrap_or_default(),
        })
    }
}

/// Whether the folder of a run holds the result of this job.
pub fn finished(folder: &Path, fingerprint: &str, measure: &MeasureSpec) -> Option<RunResult> {
    RunResult::read(folder).filter(|result| result.fingerprint == fingerprint && result.measure == *measure)
}
