//! Loss and accuracy per depth on text that was not trained on.

use std::sync::Arc;

use data::{Batch, Corpus, EvaluationBatches, NO_TARGET, PADDING, Vocabulary};
use model::Decoder;
use objective::Objective;
use serde::{Deserialize, Serialize};
use tensor::{Arena, Layout, LearningRows, LossSum, Params, Tape};

use crate::error::{Error, Result};
use crate::step::{accuracy, mean_loss};

/// Loss of `targets` (the second slice) after the tokens of a document (the first), of the same length.
pub type Score<'a, E> = &'a mut dyn FnMut(&[u32], &[u32]) -> std::result::Result<LossSum, E>;

/// What an evaluation found; lists begin with depth 1, the next token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Mean loss per target at each depth, in nats.
    pub loss: Vec<f64>,
    /// Share of the targets at each depth that were the most probable token.
    pub accuracy: Vec<f64>,
    /// Targets at each depth.
    pub targets: Vec<usize>,
    /// Loss of the next token per byte of text, in bits: the losses of all targets at depth 1, end tokens included,
    /// divided by the bytes of text that these targets stand for (an end token stands for none).
    pub bits_per_byte: f64,
    /// Of prompts with answers: how many were answered right in every token, end included, and of how many. With the right tokens
    /// before each it is the same as answering freely and greedily: the first wrong token makes both wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<RightAnswers>,
    /// Of joint heads: the loss of n tokens together, which is the sum of the losses after the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joint_loss: Option<f64>,
    /// Of a mixture: the mean weight of each component.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub usage: Vec<f64>,
}

/// Whole answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RightAnswers {
    /// Answered right in every token.
    pub right: usize,
    /// All.
    pub all: usize,
}

impl RightAnswers {
    /// Share of the right ones.
    pub fn share(&self) -> f64 {
        self.right as f64 / self.all.max(1) as f64
    }
}

/// Batches of held-out text, read when they are wanted, and how many bytes of it they predict.
#[derive(Clone, Debug)]
pub struct HeldOut {
    batches: EvaluationBatches,
    /// Bytes of text that the targets at depth 1 stand for.
    bytes: usize,
    tokens: usize,
    fingerprint: String,
    /// Whether the documents are prompts with answers.
    answered: bool,
}

impl HeldOut {
    /// The documents `documents` of `corpus` in at most `max_batches` batches (0: all) of `batch` rows with `length` inputs,
    /// with targets up to `lookahead` tokens ahead.
    ///
    /// # Errors
    /// When a depth has no target in these batches (a loss of nothing would look perfect), no target stands for a byte of text
    /// (as would bits per byte of nothing), or tokens cannot be read.
    pub fn new(
        corpus: &Arc<Corpus>,
        documents: &[usize],
        vocabulary: &Vocabulary,
        batch: usize,
        length: usize,
        lookahead: usize,
        max_batches: usize,
    ) -> Result<Self> {
        let batches = data::evaluation_batches(corpus, documents, batch, length, lookahead, max_batches)?;
        let (mut bytes, mut empty) = (0, vec![true; lookahead]);
        for batch in batches.iter() {
            let batch = batch?;
            bytes += bytes_of_targets(&batch, vocabulary);
            (1..).zip(&mut empty).for_each(|(depth, empty)| *empty &= batch.count_targets(depth) == 0);
        }
        if let Some(index) = empty.iter().position(|&empty| empty) {
            return Err(Error::NothingHeldOut { depth: index + 1 });
        }
        if bytes == 0 {
            return Err(Error::NothingSpelt);
        }
        Ok(Self {
            bytes,
            batches,
            tokens: documents.iter().map(|&index| corpus.length(index)).sum(),
            fingerprint: corpus.fingerprint(documents),
            answered: corpus.is_answered(),
        })
    }

    /// [`Corpus::fingerprint`] of all held-out documents.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Tokens of all held-out documents.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Batches of an evaluation.
    pub(crate) fn batches(&self) -> usize {
        self.batches.count()
    }

    /// The first `count` batches of it.
    pub(crate) fn first(&self, count: usize) -> Self {
        Self { batches: self.batches.first(count), ..self.clone() }
    }

    /// Loss and accuracy of every depth.
    ///
    /// # Errors
    /// When tokens cannot be read from their file, or a loss is not finite.
    pub fn evaluate(
        &self,
        params: &Params,
        decoder: &Decoder,
        objective: &dyn Objective,
    ) -> Result<Evaluation> {
        let evaluation = self.evaluate_with(params, decoder, objective, &mut Arena::default())?;
        match evaluation.loss.iter().position(|loss| !loss.is_finite()) {
            Some(index) => Err(Error::NotFinite { depth: index + 1, loss: evaluation.loss[index] }),
            None => Ok(evaluation),
        }
    }

    /// Loss and accuracy of the next token as `score` finds them: it gets the tokens of a document, or of the part of one that
    /// lies in one row, and for each of them its target or [`NO_TARGET`].
    ///
    /// # Errors
    /// When tokens cannot be read from their file, or `score` fails.
    pub fn evaluate_next<E: From<Error>>(&self, score: Score<E>) -> std::result::Result<Evaluation, E> {
        let mut sum = LossSum::default();
        let mut targets = Vec::new();
        for batch in self.batches.iter() {
            let batch = batch.map_err(Error::from)?;
            batch.targets(1, &mut targets);
            let inputs = batch.inputs();
            for row in 0..batch.batch {
                let segments = &batch.segments[row * batch.stride()..][..batch.length];
                let mut start = row * batch.length;
                for segment in segments.chunk_by(|a, b| a == b) {
                    let places = start..start + segment.len();
                    start = places.end;
                    if segment[0] != PADDING {
                        sum += score(&inputs[places.clone()], &targets[places])?;
                    }
                }
            }
        }
        Ok(self.evaluation(&[sum]))
    }

    /// As [`Self::evaluate`], in the buffers of `arena`.
    pub(crate) fn evaluate_with(
        &self,
        params: &Params,
        decoder: &Decoder,
        objective: &dyn Objective,
        arena: &mut Arena,
    ) -> Result<Evaluation> {
        let depths = objective.depths();
        let mut sums = vec![LossSum::default(); depths + objective.components()];
        let mut answers = self.answered.then(RightAnswers::default);
        for batch in self.batches.iter() {
            let batch = batch?;
            if let Some(answers) = &mut answers {
                count_right(params, decoder, &batch, arena, answers);
            }
            // The window is what gradients are divided by; without gradients it only says which depths are wanted.
            let window = objective.window(std::slice::from_ref(&batch), depths);
            let layout = objective.layout(&batch, depths);
            let mut tape = Tape::evaluation(params, arena, &layout);
            let parts = objective.loss(&mut tape, decoder, &batch, &window);
            sums.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
        }
        let usage = sums.split_off(depths).iter().map(mean_loss).collect();
        let mut evaluation = self.evaluation(&sums);
        evaluation.joint_loss = (objective.kind() == "joint").then(|| evaluation.loss[1..].iter().sum());
        evaluation.usage = usage;
        evaluation.answers = answers;
        Ok(evaluation)
    }

    fn evaluation(&self, sums: &[LossSum]) -> Evaluation {
        let loss: Vec<f64> = sums.iter().map(mean_loss).collect();
        let nats = sums.first().map_or(0.0, |sum| mean_loss(sum) * sum.targets as f64);
        let bits_per_byte = nats / std::f64::consts::LN_2 / self.bytes as f64;
        Evaluation {
            loss,
            accuracy: sums.iter().map(accuracy).collect(),
            targets: sums.iter().map(|sum| sum.targets).collect(),
            bits_per_byte,
            joint_loss: None,
            usage: Vec::new(),
            answers: None,
        }
    }
}

/// Runs the model alone over `batch`, and counts the answers all of whose tokens were the most probable ones.
fn count_right(
    params: &Params,
    decoder: &Decoder,
    batch: &Batch,
    arena: &mut Arena,
    answers: &mut RightAnswers,
) {
    let layout = Layout {
        batch: batch.batch,
        length: batch.length,
        positions: batch.positions.clone(),
        first_visible: batch.first_visible.clone(),
        ..Layout::default()
    };
    let mut tape = Tape::evaluation(params, arena, &layout);
    let embedded = decoder.embed(&mut tape, &batch.inputs());
    let states = decoder.run_blocks(&mut tape, embedded, 0..decoder.blocks.len(), &mut |_, _, _| {});
    let normed = decoder.final_norm(&mut tape, &states);
    let mut targets = Vec::new();
    batch.targets(1, &mut targets);
    let mut losses = vec![LossSum::default(); targets.len()];
    let cap = decoder.config.variant.logit_cap;
    let rows = LearningRows { first: 0, targets: &targets, scale: 0.0 };
    tape.cross_entropy_of_rows(&normed, decoder.unembedding, &[rows], cap, Some(&mut losses));
    for (row, losses) in losses.chunks(batch.length).enumerate() {
        let segments = &batch.segments[row * batch.stride()..][..batch.length];
        let mut at = 0;
        for segment in segments.chunk_by(|a, b| a == b) {
            let of_segment = &losses[at..at + segment.len()];
            at += segment.len();
            let wanted: usize = of_segment.iter().map(|loss| loss.targets).sum();
            if wanted > 0 {
                answers.all += 1;
                let right: usize = of_segment.iter().map(|loss| loss.correct).sum();
                answers.right += usize::from(right == wanted);
            }
        }
    }
}

fn bytes_of_targets(batch: &Batch, vocabulary: &Vocabulary) -> usize {
    let mut targets = Vec::new();
    batch.targets(1, &mut targets);
    targets.iter().filter(|&&id| id != NO_TARGET).map(|&id| vocabulary.token_bytes(id)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_that_the_evaluated_targets_stand_for() {
        let vocabulary = Vocabulary::bytes();
        let document = |text: &str| [&[256], &vocabulary.encode(text).unwrap()[..], &[256]].concat();
        let corpus = Corpus::from_tokens(&[document("abc"), document("\u{e9}"), document("defgh")]).into();
        let bytes = |documents: &[usize], batches| {
            HeldOut::new(&corpus, documents, &vocabulary, 1, 4, 1, batches).unwrap().bytes
        };
        assert_eq!(bytes(&[0, 1, 2], 0), 3 + 2 + 5);
        assert_eq!(bytes(&[0, 2], 0), 3 + 5);
        // The first window predicts "abc" and the end.
        assert_eq!(bytes(&[0, 1, 2], 1), 3);
    }
}
