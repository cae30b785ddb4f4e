//! What decoding cost and how far drafts reached, for one generation or several.

use serde::{Deserialize, Serialize};

/// Counts and times of generations; sums, so that several merge into one.
///
/// A *forward* is one decoding round: one run of the model over the decided token and its draft. The run over the prompt
/// and the token that it gives are counted apart, because they cost the same with and without drafts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Continuations counted here.
    pub generations: usize,
    /// Tokens of their prompts.
    pub prompt_tokens: usize,
    /// Decoding rounds.
    pub forwards: usize,
    /// Tokens that the rounds gave and that stop handling kept: accepted drafts and the model's own, and the end token. The
    /// first token of each generation, which the prompt's run gives, is not among them.
    pub committed_tokens: usize,
    /// `depths[k - 1]` belongs to the k-th token of the drafts (the prediction of head k + 1).
    pub depths: Vec<DepthCounts>,
    /// From the start to the first token of each generation, the run over the prompt included.
    pub first_token_seconds: f64,
    /// From the first token to the end of each generation, everything included.
    pub decode_seconds: f64,
}

/// How the drafts did at one depth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DepthCounts {
    /// Rounds that reached this depth: the draft was that long, all its tokens before were accepted, and none of them ended
    /// the text.
    pub drafted: usize,
    /// Those in which the token was accepted.
    pub accepted: usize,
    /// How many of them would be accepted over all draws of the draft's tokens: the sum of `sum of min(p, q)`, with p what the
    /// target and q what the draft leaves after temperature and filters. In greedy decoding the same as `accepted`.
    pub expected: f64,
}

impl DepthCounts {
    /// Acceptance at this depth; none if no round reached it.
    pub fn acceptance(&self) -> Option<f64> {
        ratio(self.accepted as f64, self.drafted as f64)
    }

    /// What acceptance at this depth would be over all draws; none if no round reached it.
    pub fn expected_acceptance(&self) -> Option<f64> {
        ratio(self.expected, self.drafted as f64)
    }
}

impl Statistics {
    /// Adds another generation, or several.
    pub fn merge(&mut self, other: &Self) {
        self.generations += other.generations;
        self.prompt_tokens += other.prompt_tokens;
        self.forwards += other.forwards;
        self.committed_tokens += other.committed_tokens;
        if self.depths.len() < other.depths.len() {
            self.depths.resize(other.depths.len(), DepthCounts::default());
        }
        for (mine, others) in self.depths.iter_mut().zip(&other.depths) {
            mine.drafted += others.drafted;
            mine.accepted += others.accepted;
            mine.expected += others.expected;
        }
        self.first_token_seconds += other.first_token_seconds;
        self.decode_seconds += other.decode_seconds;
    }

    /// Committed tokens per decoding round; 1 without drafts, at most 1 + the draft length. None without a round.
    pub fn tokens_per_forward(&self) -> Option<f64> {
        ratio(self.committed_tokens as f64, self.forwards as f64)
    }

    /// Acceptance at each depth, the nearest first.
    pub fn acceptance_per_depth(&self) -> Vec<Option<f64>> {
        self.depths.iter().map(DepthCounts::acceptance).collect()
    }

    /// All tokens of the continuations.
    pub fn new_tokens(&self) -> usize {
        self.generations + self.committed_tokens
    }

    /// Mean time to the first token.
    pub fn seconds_to_first_token(&self) -> Option<f64> {
        ratio(self.first_token_seconds, self.generations as f64)
    }

    /// Mean time per token after the first.
    pub fn seconds_per_token(&self) -> Option<f64> {
        ratio(self.decode_seconds, self.committed_tokens as f64)
    }

    /// Mean time per decoding round.
    pub fn seconds_per_forward(&self) -> Option<f64> {
        ratio(self.decode_seconds, self.forwards as f64)
    }

    /// Tokens per second of decoding, the runs over the prompts left out.
    pub fn decode_tokens_per_s(&self) -> Option<f64> {
        ratio(self.committed_tokens as f64, self.decode_seconds)
    }

    /// Tokens per second of everything, the runs over the prompts included.
    pub fn tokens_per_s(&self) -> Option<f64> {
        ratio(self.new_tokens() as f64, self.total_seconds())
    }

    /// Time of everything.
    pub fn total_seconds(&self) -> f64 {
        self.first_token_seconds + self.decode_seconds
    }

    /// A draft reached place `depth` (from 1) and was accepted there or not.
    pub(crate) fn count_draft(&mut self, depth: usize, accepted: bool, expected: f64) {
        if self.depths.len() < depth {
            self.depths.resize(depth, DepthCounts::default());
        }
        let counts = &mut self.depths[depth - 1];
        counts.drafted += 1;
        counts.accepted += usize::from(accepted);
        counts.expected += expected;
    }
}

fn ratio(numerator: f64, denominator: f64) -> Option<f64> {
    (denominator > 0.0).then(|| numerator / denominator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_decoded_has_no_rates() {
        let none = Statistics::default();
        assert_eq!(none.tokens_per_forward(), None);
        assert_eq!(none.seconds_to_first_token(), None);
        assert_eq!(none.tokens_per_s(), None);
        assert!(none.acceptance_per_depth().is_empty());
    }

    #[test]
    fn acceptance_counts_rounds_that_reached_the_depth() {
        let mut statistics = Statistics::default();
        // Three rounds: both accepted; the first only; none.
        for (depth, accepted) in [(1, true), (2, true), (1, true), (2, false), (1, false)] {
            statistics.count_draft(depth, accepted, 0.75);
        }
        assert_eq!(statistics.acceptance_per_depth(), [Some(2.0 / 3.0), Some(0.5)]);
        assert_eq!(statistics.depths[1].expected_acceptance(), Some(0.75));
    }

    #[test]
    fn merging_adds_everything() {
        let one = Statistics {
            generations: 1,
            prompt_tokens: 5,
            forwards: 4,
            committed_tokens: 10,
            depths: vec![DepthCounts { drafted: 4, accepted: 3, expected: 2.5 }],
            first_token_seconds: 0.5,
            decode_seconds: 2.0,
        };
        let mut both = Statistics {
            generations: 1,
            prompt_tokens: 1,
            forwards: 6,
            committed_tokens: 10,
            depths: vec![
                DepthCounts { drafted: 6, accepted: 4, expected: 3.5 },
                DepthCounts { drafted: 4, accepted: 0, expected: 0.5 },
            ],
            first_token_seconds: 0.25,
            decode_seconds: 3.0,
        };
        let mut turned = one.clone();
        turned.merge(&both);
        both.merge(&one);
        assert_eq!(turned, both);
        assert_eq!(both.tokens_per_forward(), Some(2.0));
        assert_eq!(both.acceptance_per_depth(), [Some(0.7), Some(0.0)]);
        assert_eq!(both.depths[0].expected_acceptance(), Some(0.6));
        assert_eq!(both.new_tokens(), 22);
        assert_eq!(both.seconds_per_token(), Some(0.25));
        assert_eq!(both.seconds_per_forward(), Some(0.5));
        assert_eq!(both.decode_tokens_per_s(), Some(4.0));
        assert_eq!(both.seconds_to_first_token(), Some(0.375));
        assert_eq!(both.tokens_per_s(), Some(22.0 / 5.75));
    }
}
