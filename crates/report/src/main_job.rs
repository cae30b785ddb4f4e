//! What one run of the main job measured: train parallel heads, verify, decode with and without drafts.
//!
//! Every part is optional, since a run folder may hold only some of them; what is missing is left off the page. Two ways
//! of counting meet here and are kept apart: *tokens ahead* (1 is the ordinary next token, n the farthest head) for what
//! heads predict, *draft position* (1 is the first drafted token, n − 1 the last) for what decoding accepts.

mod charts;
mod comparison;
mod looks_ahead;
mod page;
mod verdict;

use serde::{Deserialize, Deserializer, Serialize};

use crate::samples::Sample;

pub use comparison::comparison_page;
pub use looks_ahead::LooksAhead;

/// The numbers of one run, as they are embedded in its page.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MainJobFigures {
    /// Heading of the page, and name of the run where several are compared.
    pub title: String,
    /// The command that makes these numbers again.
    pub command: Option<String>,
    /// When they were measured, as it is to be shown.
    pub measured_at: Option<String>,
    /// Version of the program.
    pub version: Option<String>,
    /// What was run, and on what.
    pub settings: RunSettings,
    /// The text that was learnt.
    pub corpus: Option<CorpusFigures>,
    /// The course of training.
    pub training: Option<TrainingFigures>,
    /// The finished model on text that it has not seen.
    pub held_out: Option<HeldOutFigures>,
    /// Decoding with and without drafts.
    pub decoding: Option<DecodingFigures>,
    /// Whether drafts changed the text.
    pub losslessness: Option<LosslessnessFigures>,
    /// Continuations, token by token.
    pub samples: Vec<Sample>,
}

/// What was run, and on what.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunSettings {
    /// Shape of the model in words: layers, width, attention heads, context, vocabulary.
    pub model: String,
    /// Parameters of the trunk with its next-token head: the model that is left when the heads are stripped.
    pub trunk_parameters: u64,
    /// Parameters of the additional heads, or of the registers.
    pub head_parameters: u64,
    /// Parameters of the low-rank adapters that stand beside those of the trunk.
    pub adapter_parameters: u64,
    /// What looks ahead.
    pub looks_ahead: LooksAhead,
    /// Kind of the heads: layer, linear, causal, anticausal.
    pub heads_kind: String,
    /// How many tokens ahead is predicted: with heads their number, the next-token head included, so that a forward commits at
    /// most this many tokens.
    pub n: usize,
    /// Seeds that the run depends on.
    pub seeds: Vec<Seed>,
    /// Threads of training and decoding.
    pub threads: usize,
    /// The machine in one line: processor, cores, instruction set, measured bandwidth.
    pub machine: String,
    /// Further settings as name and value, shown below the others.
    pub more: Vec<(String, String)>,
}

impl RunSettings {
    /// All parameters.
    fn parameters(&self) -> u64 {
        self.trunk_parameters + self.head_parameters + self.adapter_parameters
    }
}

/// A seed and what it governs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// What it governs: corpus, initialisation, order.
    pub name: String,
    /// The seed.
    pub value: u64,
}

/// The text that was learnt.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CorpusFigures {
    /// Where it is from: the built-in generator, or names of files.
    pub name: String,
    /// Bytes that were trained on.
    pub train_bytes: u64,
    /// Bytes that were held out.
    pub held_out_bytes: u64,
    /// Documents in both parts together.
    pub documents: Option<u64>,
    /// How much of the held-out part is found in the training part word for word.
    pub repeated_spans: Option<RepeatedSpans>,
}

/// Spans of held-out text that also stand in the training text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepeatedSpans {
    /// Length of a span in bytes.
    pub span_bytes: usize,
    /// Spans looked up.
    pub looked_up: u64,
    /// Spans found in the training part.
    pub found: u64,
}

/// The course of training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainingFigures {
    /// Optimiser updates done.
    pub steps: u64,
    /// Tokens read, counted once for all heads.
    pub tokens: u64,
    /// Wall-clock seconds, evaluation included.
    pub seconds: f64,
    /// One curve per head, the next-token head first; with registers one per offset, after that of the next token.
    pub heads: Vec<HeadCurve>,
}

/// The loss of one head over training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeadCurve {
    /// Which token it predicts: 1 is the next one.
    pub tokens_ahead: usize,
    /// Loss on training batches.
    pub train: Vec<LossPoint>,
    /// Loss on held-out text.
    pub held_out: Vec<LossPoint>,
}

/// One measurement of a loss.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LossPoint {
    /// Optimiser updates done by then.
    pub step: u64,
    /// Mean cross-entropy in nats per token. NaN (a run that diverged) is `null` in JSON and comes back as NaN.
    #[serde(deserialize_with = "nan_where_null")]
    pub loss: f64,
}

/// The finished model on held-out text.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeldOutFigures {
    /// Cross-entropy of the next-token head per byte of text.
    pub next_token_bits_per_byte: Option<f64>,
    /// The same of a model trained for the next token only with equal tokens, where there is one to compare with.
    pub next_token_only_bits_per_byte: Option<f64>,
    /// One entry per head, the next-token head first.
    pub depths: Vec<DepthScore>,
}

/// How well one head predicts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct DepthScore {
    /// Which token it predicts: 1 is the next one.
    pub tokens_ahead: usize,
    /// Mean cross-entropy in nats per token.
    #[serde(deserialize_with = "nan_where_null")]
    pub loss: f64,
    /// Targets whose most likely prediction was right.
    pub correct: u64,
    /// Targets.
    pub targets: u64,
}

/// Decoding with and without drafts, by the same engine with the same weights.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DecodingFigures {
    /// Held-out prompts continued.
    pub prompts: u64,
    /// Tokens written per prompt.
    pub tokens_per_prompt: u64,
    /// Acceptance at each draft position, measured with the longest draft.
    pub acceptance: Vec<DepthAcceptance>,
    /// One entry per draft length, plain decoding (length 0) among them.
    pub lengths: Vec<DraftLengthFigures>,
    /// What the longest drafts were worth on text of another kind: written greedily, drawn at a temperature.
    pub texts: Vec<TextFigures>,
}

/// What drafts are worth on one kind of continuation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TextFigures {
    /// Temperature that the text was drawn at; 0 is greedy.
    pub temperature: f32,
    /// Drafted tokens per round.
    pub draft_length: usize,
    /// Committed tokens over trunk forwards, with the ends of its 95 % interval over prompts.
    pub tokens_per_forward: [f64; 3],
    /// Share of the spans of 16 tokens that stand earlier in the same continuation.
    pub repeated_share: Option<f64>,
}

/// Acceptance at one draft position.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepthAcceptance {
    /// Draft position: 1 is the first drafted token.
    pub depth: usize,
    /// Tokens drafted at this position in rounds that reached it, which means that all before it were accepted.
    pub drafted: u64,
    /// Those of them that were accepted.
    pub accepted: u64,
}

/// Decoding with one draft length.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DraftLengthFigures {
    /// Drafted tokens per round; 0 is plain decoding.
    pub draft_length: usize,
    /// Committed tokens over trunk forwards, the verifier's own token included.
    pub tokens_per_forward: f64,
    /// Committed tokens per second, one value per repeat. The i-th repeats of all lengths were taken in turn.
    pub tokens_per_second: Vec<f64>,
    /// Mean milliseconds of a round (draft, forward, verify), where they were measured apart from the whole.
    pub round_ms: Option<f64>,
}

/// Whether drafts changed the text.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LosslessnessFigures {
    /// Whether every text was the same to the last byte.
    pub identical: bool,
    /// Prompts decoded both ways.
    pub prompts: u64,
    /// Bytes of text compared, all prompts and draft lengths together.
    pub bytes_compared: u64,
    /// Draft lengths compared with plain decoding.
    pub draft_lengths: Vec<usize>,
    /// The first place where the texts part.
    pub first_divergence: Option<Divergence>,
}

/// The first place where two texts part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Divergence {
    /// Which prompt, counted from 0.
    pub prompt: u64,
    /// Draft length with which it happened.
    pub draft_length: usize,
    /// Byte of the continuation, counted from 0.
    pub byte: u64,
    /// What plain decoding writes from there.
    pub plain: String,
    /// What decoding with drafts writes from there.
    pub drafted: String,
}

impl RepeatedSpans {
    /// Share of the spans that were found.
    pub fn share(&self) -> Option<f64> {
        (self.looked_up > 0).then(|| self.found as f64 / self.looked_up as f64)
    }
}

impl DraftLengthFigures {
    /// Median speed over the repeats.
    pub fn median_tokens_per_second(&self) -> Option<f64> {
        median(self.tokens_per_second.clone())
    }
}

impl DecodingFigures {
    /// Plain decoding.
    pub fn plain(&self) -> Option<&DraftLengthFigures> {
        self.lengths.iter().find(|length| length.draft_length == 0)
    }

    /// The fastest draft length; `None` where nothing but plain decoding was timed.
    pub fn best(&self) -> Option<&DraftLengthFigures> {
        let drafting = self.lengths.iter().filter(|length| length.draft_length > 0);
        let timed = drafting.filter_map(|length| Some((length, self.speedup(length)?.0)));
        timed.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(length, _)| length)
    }

    /// Speed over the speed of plain decoding: median, lowest and highest over the repeats. Repeats are compared pair by
    /// pair, as they were taken, so that a machine that slows down for a while does so for both.
    pub fn speedup(&self, length: &DraftLengthFigures) -> Option<(f64, f64, f64)> {
        let plain = &self.plain()?.tokens_per_second;
        let ratios: Vec<f64> = if plain.len() == length.tokens_per_second.len() {
            plain.iter().zip(&length.tokens_per_second).map(|(plain, drafted)| drafted / plain).collect()
        } else {
            vec![length.median_tokens_per_second()? / median(plain.clone())?]
        };
        let middle = median(ratios.clone())?;
        let (low, high) = spread(&ratios)?;
        Some((middle, low, high))
    }

    /// What a round costs in plain forwards: measured where both were timed, else tokens per forward over speed-up, which
    /// is the same thing seen from outside.
    pub fn round_cost(&self, length: &DraftLengthFigures) -> Option<f64> {
        let measured = length.round_ms.zip(self.plain()?.round_ms).map(|(round, plain)| round / plain);
        let derived = || Some(length.tokens_per_forward / self.speedup(length)?.0);
        measured.or_else(derived).filter(|cost| cost.is_finite())
    }
}

/// The middle value of those that are finite.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let (lower, upper) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
    Some((lower + upper) / 2.0)
}

/// The lowest and the highest of the values that are finite.
fn spread(values: &[f64]) -> Option<(f64, f64)> {
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    Some((finite().min_by(f64::total_cmp)?, finite().max_by(f64::total_cmp)?))
}

fn nan_where_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(draft_length: usize, tokens_per_forward: f64, speeds: &[f64]) -> DraftLengthFigures {
        DraftLengthFigures {
            draft_length,
            tokens_per_forward,
            tokens_per_second: speeds.to_vec(),
            round_ms: None,
        }
    }

    #[test]
    fn speedup_compares_repeats_pair_by_pair() {
        // The second minute is half as fast for both: the ratio is 2 throughout.
        let decoding = DecodingFigures {
            lengths: vec![length(0, 1.0, &[100.0, 50.0, 100.0]), length(3, 3.0, &[200.0, 100.0, 200.0])],
            ..DecodingFigures::default()
        };
        assert_eq!(decoding.speedup(&decoding.lengths[1]), Some((2.0, 2.0, 2.0)));
        assert_eq!(decoding.round_cost(&decoding.lengths[1]), Some(1.5));
        assert_eq!(decoding.best().map(|best| best.draft_length), Some(3));
    }

    #[test]
    fn a_measured_round_goes_before_a_derived_one() {
        let mut decoding = DecodingFigures {
            lengths: vec![length(0, 1.0, &[100.0]), length(1, 1.8, &[150.0])],
            ..DecodingFigures::default()
        };
        decoding.lengths[0].round_ms = Some(10.0);
        decoding.lengths[1].round_ms = Some(13.0);
        assert_eq!(decoding.round_cost(&decoding.lengths[1]), Some(1.3));
    }

    #[test]
    fn nothing_measured_is_nothing() {
        let decoding = DecodingFigures::default();
        assert!(decoding.plain().is_none() && decoding.best().is_none());
        let untimed = DecodingFigures {
            lengths: vec![length(0, 1.0, &[]), length(1, 1.5, &[])],
            ..DecodingFigures::default()
        };
        assert!(untimed.best().is_none());
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![f64::NAN, 3.0, 1.0]), Some(2.0));
    }

    #[test]
    fn the_page_of_registers_tells_them_from_tokens_and_knows_no_heads() {
        let curve = |tokens_ahead| HeadCurve {
            tokens_ahead,
            train: vec![LossPoint { step: 1, loss: 2.0 }, LossPoint { step: 2, loss: 1.0 }],
            ..HeadCurve::default()
        };
        let depth = |tokens_ahead| DepthScore { tokens_ahead, loss: 1.0, correct: 5, targets: 9 };
        let figures = MainJobFigures {
            settings: RunSettings {
                looks_ahead: LooksAhead::Registers,
                heads_kind: "none (registers in training)".into(),
                head_parameters: 32,
                adapter_parameters: 64,
                n: 4,
                ..RunSettings::default()
            },
            training: Some(TrainingFigures {
                steps: 2,
                heads: vec![curve(1), curve(1), curve(2)],
                ..TrainingFigures::default()
            }),
            held_out: Some(HeldOutFigures {
                depths: vec![depth(1), depth(1), depth(2)],
                ..HeldOutFigures::default()
            }),
            ..MainJobFigures::default()
        };
        let page = figures.page().html();
        let body = page.split("<script").next().unwrap();
        for told in [
            "trained with registers",
            "What tokens and registers learnt",
            "register, 1 ahead",
            "register, 2 ahead",
            "parameters of the registers",
            "parameters of the adapters",
            "largest offset of a register",
        ] {
            assert!(body.contains(told), "{told}: {body}");
        }
        assert!(!body.contains(" heads") && !body.contains(" head "), "{body}");
    }

    #[test]
    fn predictions_of_one_page_have_different_names() {
        for (looks_ahead, ahead) in [
            (LooksAhead::Nothing, &[1][..]),
            (LooksAhead::Heads, &[1, 2, 3]),
            (LooksAhead::Joint, &[1, 1, 2]),
            (LooksAhead::Registers, &[1, 1, 2]),
        ] {
            let numbered = || ahead.iter().enumerate();
            let names: Vec<_> =
                numbered().map(|(index, &ahead)| looks_ahead.name(index == 0, ahead)).collect();
            let places: Vec<_> =
                numbered().map(|(index, &ahead)| looks_ahead.place(index == 0, ahead)).collect();
            for list in [names, places] {
                let different: std::collections::BTreeSet<_> = list.iter().collect();
                assert_eq!(different.len(), ahead.len(), "{list:?}");
            }
        }
    }

    #[test]
    fn a_diverged_loss_survives_json() {
        let point = LossPoint { step: 3, loss: f64::NAN };
        let json = serde_json::to_string(&point).expect("serialises");
        assert_eq!(json, r#"{"step":3,"loss":null}"#);
        let back: LossPoint = serde_json::from_str(&json).expect("reads back");
        assert!(back.loss.is_nan());
    }
}
