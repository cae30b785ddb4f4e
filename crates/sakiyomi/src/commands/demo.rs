//! `sakiyomi demo`: the whole story. Train a byte-level model with four heads, let the heads learn what the model says, verify
//! that drafts change nothing, measure, and write a page of figures.

mod corpus;
mod heads;
mod settings;

use std::path::{Path, PathBuf};

use decode::{
    DecodeSettings, GenerateSettings, MeasureSettings, Measurement, Statistics, Verification, generate,
    measure, verify,
};
use report::{CorpusFigures, MainJobFigures, Sample, SampleToken};
use serde::Serialize;
use train::prepare::{SplitText, split_text};
use train::{Checkpoint, Evaluation, RunConfig};

use super::checkpoint::Loaded;
use super::new_folder::absent;
use super::train::quoted;
use super::{figures, machine, prompts};
use crate::arguments::Demo;
use crate::failure::Verdict;
use crate::flags::told_as_typed;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::progress::{Counter, TrainingProgress};

/// Held-out prompts that are continued.
const PROMPTS: usize = 32;
/// Bytes written after each.
const NEW_TOKENS: usize = 256;
/// Times that every prompt is continued in every way when speed is measured.
const REPEATS: usize = 3;
/// Continuations shown on the page.
const SAMPLES: usize = 4;

#[derive(Serialize)]
struct Told {
    identical: bool,
    prompts: usize,
    bytes_per_prompt: usize,
    tokens_per_forward: Option<f64>,
    acceptance_per_depth: Vec<Option<f64>>,
    best_draft_length: usize,
    bare_tokens_per_s: f64,
    plain_tokens_per_s: f64,
    speculative_tokens_per_s: f64,
    speedup: f64,
    next_token_loss_bits_per_byte: f64,
    accuracy_per_depth: Vec<f64>,
    repeated_48_byte_spans: Option<f64>,
    train_seconds: f64,
    seconds: f64,
    checkpoint: String,
    report: String,
}

#[derive(Serialize)]
struct Planned {
    folder: String,
    steps: usize,
}

/// What Ctrl-C leaves.
#[derive(Serialize)]
struct Stopped<'a> {
    /// Whether the whole story was told: never.
    finished: bool,
    checkpoint: &'a Path,
    /// What goes on with the training, if that was not done.
    resume: Option<String>,
}

pub fn run(demo: &Demo, threads: usize, output: Output) -> anyhow::Result<Verdict> {
    let began = std::time::Instant::now();
    let folder = free_folder(demo.out.as_deref())?;
    let config = settings::config(&folder, demo)?;
    let typed = [
        ("train.steps", "--steps"),
        ("data.train", "--text"),
        ("data.held_out", "--text"),
        ("run.folder", "--out"),
    ];
    told_as_typed(config.validate(), &typed)?;
    if demo.dry_run {
        let planned = Planned { folder: folder.display().to_string(), steps: config.train.steps };
        output.result(&planned, || {
            format!("would train {} steps in {} (dry run)", planned.steps, planned.folder)
        })?;
        return Ok(Verdict::Done);
    }
    machine::use_threads(threads)?;
    let interrupt = Interrupt::listen(None)?;
    let tales = if demo.text.is_empty() { Some(corpus::write(&folder, demo.seed)?) } else { None };
    let outcome = train::train(&config, false, &mut TrainingProgress::new(output, interrupt.clone()));
    if !train::RunFolder::new(&folder).holds_a_run() {
        tales.iter().for_each(corpus::Tales::take_back);
    }
    let outcome = told_as_typed(outcome, &typed)?;
    let stop = |checkpoint: &Path, resume: Option<&RunConfig>| -> anyhow::Result<Verdict> {
        let resume = resume.map(super::train::resume_command);
        let stopped = Stopped { finished: false, checkpoint, resume };
        output.result(&stopped, || stopped.text())?;
        Ok(Verdict::Done)
    };
    if !outcome.finished {
        return stop(&outcome.last, Some(&config));
    }
    let began_heads = std::time::Instant::now();
    let first = Checkpoint::load(&outcome.last)?;
    let text = split_text(&config, &first.vocabulary, &mut |_| !interrupt.raised());
    if interrupt.raised() {
        return stop(&outcome.last, None);
    }
    let text = text?;
    let heads_config = heads::config(&config, &outcome);
    let written = heads::write_text(&config, &heads_config, first, &text, threads, &interrupt, output);
    if interrupt.raised() {
        return stop(&outcome.last, None);
    }
    written?;
    let mut progress = TrainingProgress::new(output, interrupt.clone());
    let learnt = train::train(&heads_config, false, &mut progress);
    if learnt.is_err() && interrupt.raised() {
        return stop(&outcome.last, None);
    }
    let learnt = learnt?;
    if !learnt.finished {
        return stop(&learnt.last, Some(&heads_config));
    }
    let trained = Trained {
        config: &config,
        heads_steps: heads_config.train.steps,
        checkpoint: learnt.last,
        seconds: outcome.seconds + began_heads.elapsed().as_secs_f64(),
    };
    let story = Story::measure(&trained, &text, threads, &interrupt, output)?;
    let figures = story.figures(demo, threads)?;
    data::write_whole(&folder.join(figures::FILE), serde_json::to_string_pretty(&figures)?.as_bytes())?;
    let page = folder.join("report.html");
    data::write_whole(&page, figures.page().html().as_bytes())?;
    let told = story.told(&figures, &page, began.elapsed().as_secs_f64());
    output.result(&told, || told.text())?;
    Ok(if told.identical { Verdict::Done } else { Verdict::DoesNotHold })
}

/// Where the run goes: the folder that was asked for if it is free, else the first free one of the default's names.
fn free_folder(asked: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(folder) = asked {
        absent(folder).map_err(|error| anyhow::anyhow!("--out {error}"))?;
        return Ok(folder.to_owned());
    }
    let names = (1..).map(|number| match number {
        1 => "runs/demo".to_owned(),
        _ => format!("runs/demo-{number}"),
    });
    names
        .map(PathBuf::from)
        .find(|folder| !folder.exists())
        .ok_or_else(|| anyhow::anyhow!("no free folder in runs/"))
}

/// What training left.
struct Trained<'a> {
    /// Settings of the first part, in which everything was trained.
    config: &'a RunConfig,
    /// Steps of the second part, in which the heads were.
    heads_steps: usize,
    checkpoint: PathBuf,
    /// Seconds that both parts took.
    seconds: f64,
}

/// What was found after training.
struct Story<'a> {
    trained: &'a Trained<'a>,
    evaluation: Evaluation,
    settings: report::RunSettings,
    corpus: CorpusFigures,
    verification: Verification,
    measurement: Measurement,
    samples: Vec<Sample>,
}

impl<'a> Story<'a> {
    fn measure(
        trained: &'a Trained,
        text: &SplitText,
        threads: usize,
        interrupt: &Interrupt,
        output: Output,
    ) -> anyhow::Result<Self> {
        let config = trained.config;
        let checkpoint = Checkpoint::load(&trained.checkpoint)?;
        let evaluation = heads::evaluate(config, &checkpoint, text)?;
        let corpus = corpus::figures(config, text, &checkpoint.vocabulary)?;
        let learnt = format!("{} more steps, on what the model says by itself", trained.heads_steps);
        let mut settings = figures::settings(&checkpoint, config, threads);
        settings.more.push(("heads alone".to_owned(), learnt));
        let begin = checkpoint.vocabulary.begin();
        let prompts =
            prompts::cut(&text.held_out, &text.held_out_documents, begin, PROMPTS, prompts::PROMPT_TOKENS)?;
        let loaded = Loaded::new(checkpoint, threads);
        let mut target = loaded.target(prompts::PROMPT_TOKENS + 1 + NEW_TOKENS)?;
        // The end of a document ends no continuation here: every prompt is followed by as many bytes.
        let decoding = DecodeSettings { max_new_tokens: NEW_TOKENS, ..DecodeSettings::default() };

        let mut counter = None;
        let mut show = |what: &'static str, done: usize, of: usize| {
            counter.get_or_insert_with(|| Counter::new(what, of)).set(done, output, String::new);
            if done == of
                && let Some(counter) = counter.take()
            {
                counter.finish();
            }
            if interrupt.raised() {
                counter.iter().for_each(Counter::finish);
                Stopped { finished: false, checkpoint: &trained.checkpoint, resume: None }.leave(output);
            }
        };
        let verification =
            verify(&mut target, &prompts, &decoding, &mut |done, of| show("verifying", done, of))?;
        let lengths = (1..=target.longest_draft()).collect();
        let settings_of_measure = MeasureSettings {
            decoding: decoding.clone(),
            draft_lengths: lengths,
            repeats: REPEATS,
            ..MeasureSettings::default()
        };
        let measurement = measure(&mut target, &prompts, &settings_of_measure, &mut |done, of| {
            show("measuring", done, of)
        })?;

        let draft_length = target.longest_draft();
        let settings_of_sample =
            GenerateSettings { decoding: DecodeSettings { draft_length, ..decoding }, stop: Vec::new() };
        let mut samples = Vec::new();
        for prompt in prompts.iter().take(SAMPLES) {
            let vocabulary = &loaded.checkpoint.vocabulary;
            let generation = generate(&mut target, vocabulary, prompt, &settings_of_sample, &mut |_| {
                std::ops::ControlFlow::Continue(())
            })?;
            let token = |piece: &decode::Piece| SampleToken {
                text: piece.text.clone(),
                drafted_depth: piece.origin.drafted_depth(),
            };
            samples.push(Sample {
                prompt: vocabulary.decode(prompt)?,
                tokens: generation.pieces.iter().map(token).collect(),
            });
        }
        Ok(Self { trained, evaluation, settings, corpus, verification, measurement, samples })
    }

    fn figures(&self, demo: &Demo, threads: usize) -> anyhow::Result<MainJobFigures> {
        let run = train::RunFolder::new(&self.trained.config.run.folder);
        let records = train::events::read(&run.events())?;
        let text: String = demo.text.iter().map(|path| format!(" --text {}", path.display())).collect();
        let mut settings = self.settings.clone();
        settings.threads = threads;
        Ok(MainJobFigures {
            title: "Sakiyomi demo: several tokens at once, the same text".to_owned(),
            command: Some(format!("sakiyomi demo --seed {}{text}", demo.seed)),
            measured_at: records.last().map(|record| record.time.clone()),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            settings,
            corpus: Some(self.corpus.clone()),
            training: figures::training(&records),
            held_out: Some(figures::held_out(
                &self.evaluation,
                &(1..=self.evaluation.loss.len()).collect::<Vec<_>>(),
            )),
            decoding: Some(figures::decoding(&self.measurement, NEW_TOKENS)),
            losslessness: Some(figures::losslessness(&self.verification)),
            samples: self.samples.clone(),
        })
    }

    fn told(&self, figures: &MainJobFigures, page: &Path, seconds: f64) -> Told {
        let decoding = figures.decoding.as_ref();
        let best = decoding.and_then(report::DecodingFigures::best);
        let speedup = decoding.zip(best).and_then(|(decoding, best)| decoding.speedup(best));
        let longest = self.measurement.drafted.last().map(|drafted| &drafted.speed.statistics);
        Told {
            identical: self.verification.identical(),
            prompts: self.verification.prompts,
            bytes_per_prompt: NEW_TOKENS,
            tokens_per_forward: best.map(|best| best.tokens_per_forward),
            acceptance_per_depth: longest.map(Statistics::acceptance_per_depth).unwrap_or_default(),
            best_draft_length: best.map_or(0, |best| best.draft_length),
            bare_tokens_per_s: self.measurement.bare.tokens_per_s.median,
            plain_tokens_per_s: self.measurement.plain.tokens_per_s.median,
            speculative_tokens_per_s: best.and_then(|best| best.median_tokens_per_second()).unwrap_or(0.0),
            speedup: speedup.map_or(1.0, |(median, _, _)| median),
            next_token_loss_bits_per_byte: self.evaluation.bits_per_byte,
            accuracy_per_depth: self.evaluation.accuracy.clone(),
            repeated_48_byte_spans: self.corpus.repeated_spans.and_then(|spans| spans.share()),
            train_seconds: self.trained.seconds,
            seconds,
            checkpoint: self.trained.checkpoint.display().to_string(),
            report: page.display().to_string(),
        }
    }
}

impl Stopped<'_> {
    /// Ends the program: verifying and measuring cannot be left halfway, and there is nothing to store.
    fn leave(&self, output: Output) -> ! {
        let _ = output.result(self, || self.text());
        std::process::exit(0)
    }

    fn text(&self) -> String {
        let checkpoint = quoted(&self.checkpoint.display().to_string());
        match &self.resume {
            Some(resume) => format!("stopped; to finish the training:\n  {resume}"),
            None => format!(
                "stopped; the trained model is at {checkpoint}; next:\n  sakiyomi verify {checkpoint}\n  \
                 sakiyomi bench {checkpoint}"
            ),
        }
    }
}

impl Told {
    fn text(&self) -> String {
        let same = if self.identical { "the same text, to the last byte" } else { "NOT THE SAME TEXT" };
        let acceptance: Vec<String> = self
            .acceptance_per_depth
            .iter()
            .map(|share| share.map_or("-".to_owned(), |share| format!("{:.0} %", share * 100.0)))
            .collect();
        let spans = self.repeated_48_byte_spans.map_or(String::new(), |share| {
            format!(", {:.1} % of its 48-byte spans occur in the training text", share * 100.0)
        });
        format!(
            "trained in       {:.0} s\n\
             held-out text    {:.3} bits per byte{spans}\n\
             accuracy         {} (1, 2, ... bytes ahead)\n\
             with drafts      {same}: {} prompts x {} bytes, every draft length\n\
             per forward      {:.2} tokens with drafts of {}; accepted per depth {}\n\
             speed            {:.0} tokens/s plain (bare loop {:.0}), {:.0} with drafts: {:.2}x\n\
             checkpoint       {}\n\
             report           {}\n\
             next             sakiyomi generate {} --prompt \"Once\" --stats",
            self.train_seconds,
            self.next_token_loss_bits_per_byte,
            super::per_depth(&self.accuracy_per_depth),
            self.prompts,
            self.bytes_per_prompt,
            self.tokens_per_forward.unwrap_or(1.0),
            self.best_draft_length,
            acceptance.join(", "),
            self.plain_tokens_per_s,
            self.bare_tokens_per_s,
            self.speculative_tokens_per_s,
            self.speedup,
            self.checkpoint,
            self.report,
            quoted(&self.checkpoint),
        )
    }
}
