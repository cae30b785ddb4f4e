//! What is found out about the trained model: loss, identity, speed, kinds of text, samples.

use std::path::{Path, PathBuf};

use decode::{
    Acceptance, DecodeSettings, GenerateSettings, MeasureSettings, Measurement, SamplingSettings, Statistics,
    Verification, acceptance, generate, measure, verify,
};
use report::{CorpusFigures, MainJobFigures, Sample, SampleToken};
use train::prepare::SplitText;
use train::{Checkpoint, Evaluation, RunConfig};

use super::told::Told;
use super::{NEW_TOKENS, Stopped, corpus, heads};
use crate::arguments::Demo;
use crate::commands::checkpoint::Loaded;
use crate::commands::{figures, prompts};
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::progress::Counter;

/// Held-out prompts that are continued.
const PROMPTS: usize = 32;
/// Times that every prompt is continued in every way when speed is measured.
const REPEATS: usize = 3;
/// Continuations shown on the page.
const SAMPLES: usize = 4;

/// What training left.
pub struct Trained<'a> {
    /// Settings of the first part, in which everything was trained.
    pub config: &'a RunConfig,
    /// Steps of the second part, in which the heads were.
    pub heads_steps: usize,
    pub checkpoint: PathBuf,
    /// Seconds that both parts took.
    pub seconds: f64,
}

/// What was found after training.
pub struct Story<'a> {
    trained: &'a Trained<'a>,
    evaluation: Evaluation,
    settings: report::RunSettings,
    corpus: CorpusFigures,
    verification: Verification,
    measurement: Measurement,
    /// What drafts are worth on greedy text, and on drawn text.
    texts: [Acceptance; 2],
    samples: Vec<Sample>,
}

impl<'a> Story<'a> {
    pub fn measure(
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

        let drafting = DecodeSettings { draft_length: target.longest_draft(), ..decoding };
        let drawn = DecodeSettings {
            sampling: SamplingSettings { temperature: 1.0, ..SamplingSettings::default() },
            ..drafting.clone()
        };
        let texts =
            [acceptance(&mut target, &prompts, &drafting)?, acceptance(&mut target, &prompts, &drawn)?];
        let settings_of_sample = GenerateSettings { decoding: drafting, stop: Vec::new() };
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
        Ok(Self { trained, evaluation, settings, corpus, verification, measurement, texts, samples })
    }

    pub fn figures(&self, demo: &Demo, threads: usize) -> anyhow::Result<MainJobFigures> {
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
            decoding: Some(figures::decoding(&self.measurement, &self.texts, NEW_TOKENS)),
            losslessness: Some(figures::losslessness(&self.verification)),
            samples: self.samples.clone(),
        })
    }

    pub fn told(&self, figures: &MainJobFigures, page: &Path, seconds: f64) -> Told {
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
            repeated_16_byte_spans: self.texts[0].repeated,
            drawn_tokens_per_forward: self.texts[1].tokens_per_forward.value,
            drawn_repeated_16_byte_spans: self.texts[1].repeated,
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
