//! `sakiyomi eval`: loss and accuracy per depth on text.

mod answers;

use std::sync::Arc;

use data::{Examples, Source, load_or_build_watched};
use kernels::packed::WeightType;
use model::checkpoint::packed_weights;
use model::engine::CacheType;
use serde::Serialize;
use train::{Checkpoint, Evaluation, HeldOut};

use super::checkpoint::Loaded;
use super::machine;
use super::train::{measured, per_depth};
use crate::arguments::Eval;
use crate::failure::Verdict;
use crate::interrupt::end_at_once;
use crate::output::Output;
use crate::progress::TextProgress;

/// More rows than this in one batch take memory and give no speed.
const MOST_ROWS: usize = 1024;

/// Tokens per row, where the model's context is as long.
const LENGTH: usize = 256;

#[derive(Serialize)]
struct Evaluated {
    checkpoint: String,
    documents: usize,
    tokens: usize,
    /// Bytes of the text, and how many of them no token gives back: bits per byte leave them out.
    text_bytes: u64,
    lost_bytes: u64,
    weights: &'static str,
    #[serde(flatten)]
    evaluation: Evaluation,
}

pub fn run(eval: &Eval, threads: usize, output: Output) -> anyhow::Result<Verdict> {
    anyhow::ensure!(eval.batch > 0, "--batch 0: give at least 1");
    anyhow::ensure!(eval.batch <= MOST_ROWS, "--batch {}: at most {MOST_ROWS}", eval.batch);
    anyhow::ensure!(eval.length != Some(0), "--length 0: give at least 1");
    machine::use_threads(threads)?;
    if let Some(task) = eval.task {
        return answers::run(eval, task, threads, output);
    }
    // With weights as they decode, or as they train.
    let asked = eval.packing.weights.is_some() || eval.packing.cache != CacheType::default();
    let packed = asked || packed_weights(&eval.checkpoint)?.is_some();
    let loaded = match packed {
        true => Some(Loaded::read_as(&eval.packing, &eval.checkpoint, threads)?),
        false => None,
    };
    let read = if loaded.is_none() { Some(Checkpoint::load(&eval.checkpoint)?) } else { None };
    let Some(checkpoint) = read.as_ref().or(loaded.as_ref().map(|loaded| &loaded.checkpoint)) else {
        unreachable!("one of them was read")
    };
    let context = checkpoint.decoder.config.context;
    let length = eval.length.unwrap_or(LENGTH.min(context));
    anyhow::ensure!(length <= context, "--length {length}: the model's context is {context}");
    let source = Source {
        paths: eval.data.clone(),
        field: eval.field.clone(),
        separator: eval.separator.clone().filter(|separator| !separator.is_empty()),
        longest_document_bytes: eval.longest_document_bytes,
        examples: Examples::Text,
    };
    let repeated = source.repeated()?.len();
    if repeated > 0 {
        output.remark(format!("{repeated} of the files are named more than once and read once"));
    }
    end_at_once(output, None)?;
    let mut progress = TextProgress::new(output);
    let (corpus, _) = load_or_build_watched(None, &source, &checkpoint.vocabulary, &mut |done| {
        progress.set(done);
        true
    })?;
    drop(progress);
    corpus.loss_note().iter().for_each(|note| output.remark(note));
    let (text_bytes, lost_bytes) = corpus.lost_bytes();
    let corpus = Arc::new(corpus);
    let documents: Vec<usize> = (0..corpus.documents()).collect();
    // Heads are judged by what they draft, the model by the weights that it decodes with.
    let lookahead = if packed { 1 } else { objective::Objective::lookahead(&checkpoint.objective) };
    let (vocabulary, batch) = (&checkpoint.vocabulary, eval.batch);
    let held_out = HeldOut::new(&corpus, &documents, vocabulary, batch, length, lookahead, eval.batches)?;
    let evaluated = Evaluated {
        checkpoint: eval.checkpoint.display().to_string(),
        documents: corpus.documents(),
        tokens: held_out.tokens(),
        text_bytes,
        lost_bytes,
        weights: loaded.as_ref().map_or(WeightType::F32, Loaded::weight_type).name(),
        evaluation: match &loaded {
            None => held_out.evaluate(&checkpoint.params, &checkpoint.decoder, &checkpoint.objective)?,
            Some(loaded) => {
                let mut target = loaded.target(length)?;
                held_out.evaluate_next::<anyhow::Error>(&mut |tokens, targets| {
                    Ok(decode::score(&mut target, tokens, targets)?)
                })?
            }
        },
    };
    output.result(&evaluated, || {
        let Evaluation { loss, accuracy, targets, bits_per_byte, joint_loss, .. } = &evaluated.evaluation;
        let joint =
            joint_loss.map(|loss| format!("\njoint loss          {loss:.4} nats")).unwrap_or_default();
        format!(
            "{} documents, {} tokens\nnext token          {bits_per_byte:.4} bits per byte\n\
             loss per depth      {} nats per token\naccuracy per depth  {}{joint}",
            evaluated.documents,
            evaluated.tokens,
            per_depth(measured(loss, targets)),
            per_depth(measured(accuracy, targets))
        )
    })?;
    Ok(Verdict::Done)
}
