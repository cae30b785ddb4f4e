//! The numbers of a run as the report wants them.

use std::path::Path;

use data::Corpus;
use decode::{Acceptance, Estimate, Measurement, Verification};
use objective::{HeadKind, Method, Objective};
use report::{
    DecodingFigures, DepthAcceptance, DepthScore, DraftLengthFigures, HeadCurve, HeldOutFigures, LooksAhead,
    LossPoint, LosslessnessFigures, MainJobFigures, RunSettings, Seed, TextFigures, TrainingFigures,
};
use train::events::{Event, Record};
use train::{Checkpoint, Evaluation, RunConfig};

use super::machine;

/// File in a run folder that keeps what was measured after training.
pub const FILE: &str = "figures.json";

/// Shape, sizes, seeds and machine.
pub fn settings(checkpoint: &Checkpoint, config: &RunConfig, threads: usize) -> RunSettings {
    let sizes = &checkpoint.decoder.config;
    let head_parameters = checkpoint.params.values_of(checkpoint.objective.parameters());
    let adapters = model::lora::adapter_parameters(&checkpoint.params);
    let adapter_parameters = checkpoint.params.values_of(&adapters);
    let (looks_ahead, kind) = match &checkpoint.objective {
        Method::Registers(_) => (LooksAhead::Registers, "none (registers in training)"),
        Method::Joint(_) => (LooksAhead::Joint, checkpoint.objective.kind()),
        Method::Heads(heads) if heads.depths() == 1 => (LooksAhead::Nothing, "none"),
        Method::Heads(heads) => (
            LooksAhead::Heads,
            match heads.spec().kind {
                HeadKind::Layer => "layer",
                HeadKind::Linear => "linear",
                HeadKind::Causal => "causal",
                HeadKind::Anticausal => "anticausal",
            },
        ),
    };
    RunSettings {
        model: format!(
            "{} layers, width {}, {} heads ({} for keys and values), SwiGLU {}, context {}, vocabulary {}",
            sizes.layers,
            sizes.width,
            sizes.heads,
            sizes.kv_heads,
            sizes.ffn,
            sizes.context,
            sizes.vocabulary
        ),
        trunk_parameters: (checkpoint.params.values() - head_parameters - adapter_parameters) as u64,
        head_parameters: head_parameters as u64,
        adapter_parameters: adapter_parameters as u64,
        looks_ahead,
        heads_kind: kind.to_owned(),
        n: checkpoint.objective.lookahead(),
        seeds: vec![Seed { name: "corpus, weights and order".to_owned(), value: config.run.seed }],
        threads,
        machine: machine::line(threads),
        more: vec![
            ("steps".to_owned(), config.train.steps.to_string()),
            ("tokens per step".to_owned(), config.tokens_per_step().to_string()),
            ("learning rate".to_owned(), config.train.learning_rate.to_string()),
        ],
    }
}

/// Losses over training, from the events of a run.
pub fn training(records: &[Record]) -> Option<TrainingFigures> {
    let mut figures = TrainingFigures::default();
    let ahead = train::events::started(records).map_or(&[][..], |sizes| &sizes.tokens_ahead);
    let mut add = |step: usize, losses: &[f64], held_out: bool| {
        for (index, &loss) in losses.iter().enumerate() {
            if figures.heads.len() <= index {
                let tokens_ahead = ahead.get(index).copied().unwrap_or(index + 1);
                figures.heads.push(HeadCurve { tokens_ahead, ..HeadCurve::default() });
            }
            // A step in which nothing was predicted that far ahead.
            if loss == 0.0 {
                continue;
            }
            let curve = &mut figures.heads[index];
            let points = if held_out { &mut curve.held_out } else { &mut curve.train };
            points.push(LossPoint { step: step as u64, loss });
        }
    };
    for record in records {
        match &record.event {
            Event::Step(step) => add(step.step, &step.loss, false),
            Event::Evaluation(evaluation) => add(evaluation.step, &evaluation.loss, true),
            _ => {}
        }
    }
    for record in records {
        match &record.event {
            Event::Step(step) => {
                figures.steps = step.step as u64;
                figures.tokens = step.tokens;
            }
            Event::Finished { seconds, .. } => figures.seconds = *seconds,
            _ => {}
        }
    }
    (figures.steps > 0).then_some(figures)
}

/// The finished model on held-out text; `tokens_ahead` says how far ahead each of its predictions lies.
pub fn held_out(evaluation: &Evaluation, tokens_ahead: &[usize]) -> HeldOutFigures {
    let scores = evaluation.loss.iter().zip(&evaluation.accuracy).zip(&evaluation.targets).enumerate();
    HeldOutFigures {
        next_token_bits_per_byte: Some(evaluation.bits_per_byte),
        next_token_only_bits_per_byte: None,
        depths: scores
            .filter(|(_, (_, targets))| **targets > 0)
            .map(|(index, ((&loss, &accuracy), &targets))| DepthScore {
                tokens_ahead: tokens_ahead[index],
                loss,
                correct: (accuracy * targets as f64).round() as u64,
                targets: targets as u64,
            })
            .collect(),
    }
}

/// Speed and acceptance.
pub fn decoding(
    measurement: &Measurement,
    texts: &[Acceptance],
    tokens_per_prompt: usize,
) -> DecodingFigures {
    let plain = &measurement.plain;
    let length = |draft_length, speed: &decode::Speed| DraftLengthFigures {
        draft_length,
        tokens_per_forward: speed.statistics.tokens_per_forward().unwrap_or(1.0),
        tokens_per_second: speed.tokens_per_s.values.clone(),
        round_ms: speed.statistics.seconds_per_forward().map(|seconds| seconds * 1e3),
    };
    let mut lengths = vec![length(0, plain)];
    lengths.extend(measurement.drafted.iter().map(|drafted| length(drafted.draft_length, &drafted.speed)));
    let longest = measurement.drafted.iter().max_by_key(|drafted| drafted.draft_length);
    let depths = longest.map(|drafted| drafted.speed.statistics.depths.as_slice()).unwrap_or_default();
    DecodingFigures {
        prompts: measurement.prompts as u64,
        tokens_per_prompt: tokens_per_prompt as u64,
        acceptance: depths
            .iter()
            .enumerate()
            .map(|(index, counts)| DepthAcceptance {
                depth: index + 1,
                drafted: counts.drafted as u64,
                accepted: counts.accepted as u64,
            })
            .collect(),
        lengths,
        texts: texts.iter().map(text).collect(),
    }
}

fn text(acceptance: &Acceptance) -> TextFigures {
    let Estimate { value, low, high } = acceptance.tokens_per_forward;
    TextFigures {
        temperature: acceptance.temperature,
        draft_length: acceptance.draft_length,
        tokens_per_forward: [value, low, high],
        repeated_share: acceptance.repeated,
    }
}

/// Whether drafts changed anything.
pub fn losslessness(verification: &Verification) -> LosslessnessFigures {
    LosslessnessFigures {
        identical: verification.identical(),
        prompts: verification.prompts as u64,
        bytes_compared: verification.compared_tokens as u64,
        draft_lengths: (1..=verification.drafted.len()).collect(),
        first_divergence: verification.divergences.first().map(|first| report::Divergence {
            prompt: first.prompt as u64,
            draft_length: first.draft_length,
            byte: first.position as u64,
            plain: format!("token {:?}", first.plain),
            drafted: format!("token {:?}", first.drafted),
        }),
    }
}

/// Bytes of the text of some documents.
pub fn text_bytes(corpus: &Corpus, documents: &[usize]) -> u64 {
    documents.iter().map(|&document| corpus.text_bytes(document)).sum()
}

/// What a run folder tells: what was measured after training where it is there, else the course of training.
pub fn of_run(folder: &Path) -> anyhow::Result<MainJobFigures> {
    let measured = folder.join(FILE);
    if measured.is_file() {
        let text = fs_err::read_to_string(&measured)?;
        return serde_json::from_str(&text)
            .map_err(|error| anyhow::anyhow!("{}: {error}; measure the run again", measured.display()));
    }
    let run = train::RunFolder::new(folder);
    anyhow::ensure!(
        run.holds_a_run(),
        "{}: no run in this folder (no run.toml with events.jsonl)",
        folder.display()
    );
    let config = RunConfig::read(&run.run_file(), &[])?;
    let records = train::events::read(&run.events())?;
    let checkpoint = Checkpoint::load(&run.last())?;
    let last = records.iter().rev().find_map(|record| match &record.event {
        Event::Evaluation(evaluation) => Some(Evaluation {
            loss: evaluation.loss.clone(),
            accuracy: evaluation.accuracy.clone(),
            targets: evaluation.targets.iter().map(|&targets| targets as usize).collect(),
            bits_per_byte: evaluation.bits_per_byte,
            joint_loss: evaluation.joint_loss,
            usage: evaluation.usage.clone(),
            answers: None,
        }),
        _ => None,
    });
    Ok(MainJobFigures {
        title: folder.display().to_string(),
        command: Some(format!("sakiyomi train {}", run.run_file().display())),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        settings: settings(&checkpoint, &config, config.run.threads),
        training: training(&records),
        held_out: last.as_ref().map(|last| held_out(last, &checkpoint.objective.tokens_ahead())),
        ..MainJobFigures::default()
    })
}
