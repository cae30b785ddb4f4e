//! How long a draft should be: the length that gives the most tokens per second, 0 included.
//!
//! What a round of each length costs is measured; how far drafts reach is followed while decoding, depth by depth, with
//! forgetting, because texts change. With acceptance `a_k` at depth k, a round of length n gives
//! `1 + a_1 + a_1 a_2 + ... + a_1...a_n` tokens on average (Leviathan et al. 2211.17192, section 3.1, with an acceptance of its
//! own at each depth). Lengths change what decoding costs and never what it says.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Weight of a round's outcome after this many more rounds has fallen to a third.
const MEMORY_ROUNDS: f64 = 96.0;

/// Rounds that must have reached a depth before it is judged.
const LEAST_SAMPLES: f64 = 6.0;

/// Rounds of the longest draft before anything is judged, if so many have not reached the deeper depths by then: they are
/// rarely reached because drafts are bad.
const FIRST_ROUNDS: usize = 8;

/// A length gives way to a longer one that promises this much more speed.
const HYSTERESIS: f64 = 1.03;

/// After so many rounds with shorter drafts than could be, one of the longest shows whether the text has changed. Bad heads
/// cost one draft in so many rounds.
const PROBE_ROUNDS: usize = 64;

/// Chooses the length of each draft.
#[derive(Clone, Debug, PartialEq)]
pub struct DraftLength {
    /// Seconds of a round by its length, from 0.
    seconds: Vec<f64>,
    /// `depths[k - 1]`: the k-th token of drafts.
    depths: Vec<Outcomes>,
    current: usize,
    rounds: usize,
    since_longest: usize,
}

/// How drafts fared at a depth; old rounds count less.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Outcomes {
    reached: f64,
    accepted: f64,
}

/// What rounds cost, as it is kept between runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundCosts {
    /// Seconds of a round by the length of its draft, from 0: drafting, the model's run, and the choice of its tokens.
    pub seconds: Vec<f64>,
}

impl DraftLength {
    /// For rounds that cost `costs`, one for each length from 0 to the longest.
    ///
    /// # Errors
    ///
    /// If there are none, or one is no time.
    pub fn new(costs: &RoundCosts) -> Result<Self> {
        let sensible = |seconds: &f64| seconds.is_finite() && *seconds > 0.0;
        if costs.seconds.is_empty() || !costs.seconds.iter().all(sensible) {
            return Err(Error::setting("round costs", "give the seconds of each length of a draft, from 0"));
        }
        let longest = costs.seconds.len() - 1;
        Ok(Self {
            seconds: costs.seconds.clone(),
            depths: vec![Outcomes::default(); longest],
            current: longest,
            rounds: 0,
            since_longest: 0,
        })
    }

    /// How long the next draft should be, at most `most`.
    pub fn choose(&self, most: usize) -> usize {
        let longest = self.depths.len();
        let wanted = if self.since_longest >= PROBE_ROUNDS { longest } else { self.current };
        wanted.min(most)
    }

    /// Takes in a round: `drafted` tokens, the first `accepted` of which were right.
    pub fn observe(&mut self, drafted: usize, accepted: usize) {
        let longest = self.depths.len();
        self.since_longest = if drafted == longest { 0 } else { self.since_longest + 1 };
        if drafted == 0 {
            return;
        }
        self.rounds += 1;
        let keep = 1.0 - 1.0 / MEMORY_ROUNDS;
        for (index, outcomes) in self.depths.iter_mut().enumerate().take(drafted.min(accepted + 1)) {
            outcomes.reached = outcomes.reached * keep + 1.0;
            outcomes.accepted = outcomes.accepted * keep + f64::from(index < accepted);
        }
        if self.rounds >= FIRST_ROUNDS || self.depths.iter().all(|depth| depth.reached >= LEAST_SAMPLES) {
            self.judge();
        }
    }

    /// Tokens that a round with a draft of `length` gives, as far as is known.
    pub fn expected_tokens(&self, length: usize) -> f64 {
        let (mut expected, mut reached) = (1.0, 1.0);
        for depth in 1..=length {
            reached *= self.acceptance(depth);
            expected += reached;
        }
        expected
    }

    /// Acceptance at a depth. What has hardly been reached is taken to be as the depth before, which is no worse as a rule, and
    /// every depth as if it had once more half failed and half succeeded (Jeffreys' prior), so that no few rounds settle it.
    fn acceptance(&self, depth: usize) -> f64 {
        let outcomes = self.depths[depth - 1];
        if outcomes.reached < 1.0 {
            return if depth == 1 { 0.5 } else { self.acceptance(depth - 1) };
        }
        (outcomes.accepted + 0.5) / (outcomes.reached + 1.0)
    }

    fn speed(&self, length: usize) -> f64 {
        self.expected_tokens(length) / self.seconds[length]
    }

    fn judge(&mut self) {
        let faster = |a: &usize, b: &usize| self.speed(*a).total_cmp(&self.speed(*b));
        let best = (0..self.seconds.len()).max_by(faster).unwrap_or(0);
        // Shorter drafts at once: what bad ones cost is certain, what good ones would give is a promise.
        let gain = if best < self.current { 1.0 } else { HYSTERESIS };
        if self.speed(best) > gain * self.speed(self.current) {
            self.current = best;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths chosen over `rounds` rounds in which the draft's token at depth k is right with probability `right[k - 1]`.
    fn run(policy: &mut DraftLength, right: &[f64], rounds: usize) -> Vec<usize> {
        let mut state = 12345_u32;
        let mut chance = move || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            f64::from(state) / f64::from(u32::MAX)
        };
        let mut lengths = Vec::new();
        for _ in 0..rounds {
            let length = policy.choose(usize::MAX);
            let accepted = right.iter().take(length).take_while(|right| chance() < **right).count();
            policy.observe(length, accepted);
            lengths.push(length);
        }
        lengths
    }

    fn policy(seconds: &[f64]) -> DraftLength {
        DraftLength::new(&RoundCosts { seconds: seconds.to_vec() }).unwrap()
    }

    #[test]
    fn good_drafts_stay_long_and_bad_ones_end() {
        let costs = [1.0, 1.05, 1.1, 1.2];
        let mut good = policy(&costs);
        assert!(run(&mut good, &[0.9, 0.8, 0.7], 300).iter().all(|length| *length == 3));
        let mut bad = policy(&costs);
        let lengths = run(&mut bad, &[0.0, 0.0, 0.0], 2000);
        let seconds: f64 = lengths.iter().map(|length| costs[*length]).sum();
        assert!(lengths[20..].iter().filter(|length| **length > 0).count() < 40, "{lengths:?}");
        assert!(seconds / 2000.0 < 1.03, "{}", seconds / 2000.0);
    }

    #[test]
    fn the_middle_is_found_where_far_tokens_are_bad() {
        let mut policy = policy(&[1.0, 1.1, 1.25, 1.6, 2.0]);
        let lengths = run(&mut policy, &[0.9, 0.7, 0.1, 0.1], 1000);
        let common = lengths[200..].iter().filter(|length| **length == 2).count();
        assert!(common > 700, "{common}: {lengths:?}");
        let expected = policy.expected_tokens(2);
        assert!((expected - 2.53).abs() < 0.25, "{expected}");
    }

    #[test]
    fn it_comes_back_when_the_text_changes() {
        let mut policy = policy(&[1.0, 1.1, 1.2]);
        run(&mut policy, &[0.0, 0.0], 500);
        assert_eq!(policy.choose(usize::MAX).min(policy.current), 0);
        let lengths = run(&mut policy, &[0.95, 0.95], 8000);
        assert_eq!(lengths[7900..], [2; 100]);
    }

    #[test]
    fn dear_rounds_are_left_alone_and_limits_kept() {
        let mut policy = policy(&[1.0, 4.0, 6.0]);
        assert_eq!(policy.choose(1), 1);
        let lengths = run(&mut policy, &[1.0, 1.0], 200);
        assert!(lengths[30..].iter().filter(|length| **length > 0).count() <= 4, "{lengths:?}");
        assert_eq!(DraftLength::new(&RoundCosts { seconds: vec![1.0] }).unwrap().choose(9), 0);
        assert!(DraftLength::new(&RoundCosts { seconds: vec![] }).is_err());
        assert!(DraftLength::new(&RoundCosts { seconds: vec![1.0, f64::NAN] }).is_err());
    }
}
