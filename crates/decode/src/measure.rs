//! How fast decoding is, plainly and with drafts.
//!
//! Machines drift within seconds, so the ways of decoding take turns prompt by prompt, and what is reported of each repeat
//! are ratios within that repeat.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use crate::bare::bare;
use crate::draft_length::DraftLength;
use crate::error::{Error, Result};
use crate::forced::forced;
use crate::speculate::{DecodeSettings, decode};
use crate::statistics::Statistics;
use crate::target::Target;

/// What to measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MeasureSettings {
    /// How to decode; `draft_length` does not matter.
    pub decoding: DecodeSettings,
    /// Draft lengths beside plain decoding.
    pub draft_lengths: Vec<usize>,
    /// How often everything is measured.
    pub repeats: usize,
    /// Take drafts to be right so often that a round gives this many tokens on average (see [`forced`]), instead of verifying
    /// them.
    pub force_acceptance: Option<f64>,
    /// Also measure drafts whose length is chosen by this policy, which learns from prompt to prompt.
    #[serde(skip)]
    pub auto: Option<DraftLength>,
}

impl Default for MeasureSettings {
    fn default() -> Self {
        Self {
            decoding: DecodeSettings::default(),
            draft_lengths: Vec::new(),
            repeats: 3,
            force_acceptance: None,
            auto: None,
        }
    }
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Prompts of each repeat.
    pub prompts: usize,
    /// How often each was continued in each way.
    pub repeats: usize,
    /// The same model in a bare loop (see [`bare`]).
    pub bare: Speed,
    /// Decoding without drafts.
    pub plain: Speed,
    /// Decoding with drafts, in the order of [`MeasureSettings::draft_lengths`].
    pub drafted: Vec<DraftedSpeed>,
    /// Decoding with drafts whose length was chosen round by round.
    pub auto: Option<Speed>,
}

/// The speed of one way to decode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Tokens per second after the first token of each continuation.
    pub decode_tokens_per_s: Spread,
    /// Tokens per second of everything, the runs over the prompts included.
    pub tokens_per_s: Spread,
    /// Wall-clock of plain decoding divided by this, everything included; same prompts, same repeat.
    pub speedup: Spread,
    /// Counts and times of all repeats together.
    pub statistics: Statistics,
}

/// The speed of decoding with drafts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DraftedSpeed {
    /// Tokens drafted per round.
    pub draft_length: usize,
    /// How fast it is.
    pub speed: Speed,
    /// Time of a round, drafting included, divided by the time of a plain forward.
    pub round_cost: Spread,
}

/// A quantity over the repeats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Half of the repeats are above.
    pub median: f64,
    /// The lowest.
    pub lowest: f64,
    /// The highest.
    pub highest: f64,
    /// All of them, in the order of the repeats.
    pub values: Vec<f64>,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: Vec<f64>) -> Self {
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Self { median, lowest: sorted[0], highest: sorted[sorted.len() - 1], values }
    }
}

/// Decodes every prompt in every way, in turn. `progress` is told how many of how many continuations are done.
///
/// # Errors
///
/// If there is nothing to measure, or decoding fails.
pub fn measure(
    target: &mut Target,
    prompts: &[Vec<u32>],
    settings: &MeasureSettings,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Measurement> {
    if prompts.is_empty() {
        return Err(Error::setting("prompts", "there are none: give at least one"));
    }
    if settings.repeats == 0 {
        return Err(Error::setting("repeats", "0: measure at least once"));
    }
    if settings.decoding.max_new_tokens < 2 {
        return Err(Error::setting(
            "max_new_tokens",
            "the first token comes with the prompt: measure at least 2",
        ));
    }
    let drafted = settings.draft_lengths.iter().map(|length| Way::Drafted(*length));
    let mut turns = Turns {
        target,
        decoding: &settings.decoding,
        force_acceptance: settings.force_acceptance,
        auto: settings.auto.clone(),
        ways: [Way::Bare, Way::Plain]
            .into_iter()
            .chain(drafted)
            .chain(settings.auto.is_some().then_some(Way::Auto))
            .collect(),
    };
    // Untimed: the first run of each way allocates its buffers.
    turns.take(&prompts[0], &mut vec![Statistics::default(); turns.ways.len()], &mut || {})?;
    let (mut done, runs) = (0, settings.repeats * prompts.len() * turns.ways.len());
    // [repeat][way]
    let mut repeats = vec![vec![Statistics::default(); turns.ways.len()]; settings.repeats];
    for sums in &mut repeats {
        for prompt in prompts {
            turns.take(prompt, sums, &mut || {
                done += 1;
                progress(done, runs);
            })?;
        }
    }
    if repeats[0][PLAIN].forwards == 0 {
        return Err(Error::setting(
            "prompts",
            "every continuation ends at its first token: there is nothing to measure",
        ));
    }
    let drafted = settings.draft_lengths.iter().enumerate().map(|(index, length)| DraftedSpeed {
        draft_length: *length,
        speed: speed(&repeats, FIRST_DRAFTED + index),
        round_cost: spread(&repeats, |sums| {
            ratio(sums[FIRST_DRAFTED + index].seconds_per_forward(), sums[PLAIN].seconds_per_forward())
        }),
    });
    Ok(Measurement {
        prompts: prompts.len(),
        repeats: settings.repeats,
        bare: speed(&repeats, BARE),
        plain: speed(&repeats, PLAIN),
        drafted: drafted.collect(),
        auto: settings.auto.is_some().then(|| speed(&repeats, FIRST_DRAFTED + settings.draft_lengths.len())),
    })
}

#[derive(Clone, Copy)]
enum Way {
    Bare,
    Plain,
    Drafted(usize),
    Auto,
}

/// Index of a way in [`Turns::ways`].
const BARE: usize = 0;
const PLAIN: usize = 1;
const FIRST_DRAFTED: usize = 2;

/// The ways to decode, which take turns.
struct Turns<'a, 'b> {
    target: &'a mut Target<'b>,
    decoding: &'a DecodeSettings,
    force_acceptance: Option<f64>,
    auto: Option<DraftLength>,
    ways: Vec<Way>,
}

impl Turns<'_, '_> {
    /// Continues `prompt` in every way and adds to `sums`, one for each.
    fn take(&mut self, prompt: &[u32], sums: &mut [Statistics], done: &mut dyn FnMut()) -> Result<()> {
        // Plain decoding goes first: it tells the bare loop, which knows no end, how many tokens to give.
        let mut new_tokens = 0;
        for index in [PLAIN, BARE].into_iter().chain(FIRST_DRAFTED..self.ways.len()) {
            let statistics = match self.ways[index] {
                Way::Bare => bare(self.target, prompt, new_tokens)?.1,
                Way::Plain => self.decode(prompt, 0)?,
                Way::Auto => {
                    self.target.set_policy(self.auto.take());
                    let decoded = self.decode(prompt, self.target.longest_draft());
                    self.auto = self.target.take_policy();
                    decoded?
                }
                Way::Drafted(length) => match self.force_acceptance {
                    None => self.decode(prompt, length)?,
                    Some(tokens) => forced(self.target, prompt, new_tokens, length, tokens)?,
                },
            };
            if index == PLAIN {
                new_tokens = statistics.new_tokens();
            }
            sums[index].merge(&statistics);
            done();
        }
        Ok(())
    }

    fn decode(&mut self, prompt: &[u32], draft_length: usize) -> Result<Statistics> {
        let settings = DecodeSettings { draft_length, ..self.decoding.clone() };
        Ok(decode(self.target, prompt, &settings, &mut |_, _| ControlFlow::Continue(()))?.statistics)
    }
}

fn speed(repeats: &[Vec<Statistics>], way: usize) -> Speed {
    let mut all = Statistics::default();
    repeats.iter().for_each(|sums| all.merge(&sums[way]));
    Speed {
        decode_tokens_per_s: spread(repeats, |sums| sums[way].decode_tokens_per_s().unwrap_or_default()),
        tokens_per_s: spread(repeats, |sums| sums[way].tokens_per_s().unwrap_or_default()),
        speedup: spread(repeats, |sums| sums[PLAIN].total_seconds() / sums[way].total_seconds()),
        statistics: all,
    }
}

fn spread(repeats: &[Vec<Statistics>], value: impl Fn(&[Statistics]) -> f64) -> Spread {
    Spread::of(repeats.iter().map(|sums| value(sums)).collect())
}

fn ratio(numerator: Option<f64>, denominator: Option<f64>) -> f64 {
    numerator.unwrap_or_default() / denominator.unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn the_spread_of_odd_and_even_counts() {
        let spread = Spread::of(vec![3.0, 1.0, 2.5]);
        assert_eq!((spread.median, spread.lowest, spread.highest), (2.5, 1.0, 3.0));
        assert_eq!(spread.values, [3.0, 1.0, 2.5]);
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0]).median, 2.5);
    }
}
