//! Several continuations at once, each with drafts of its own.
//!
//! One run of the model takes the rows of all sequences together, so that its weights are read once for all: what a server
//! lives on. Rows are shared out every round; sequences are of any length, come and go, and each has the tokens, to the bit,
//! that it would have alone, because no kernel lets a row depend on its neighbours.

use std::ops::ControlFlow;
use std::time::Instant;

use crate::draft_length::DraftLength;
use crate::error::{Error, Result};
use crate::rejection::Drafted;
use crate::speculate::{DecodeSettings, Decoded, Ending, Manner, Origin, Text, settle};
use crate::statistics::Statistics;
use crate::target::Target;

/// Receives every token of a continuation, and may end it; see [`crate::decode`].
pub type Sink<'r> = &'r mut dyn FnMut(u32, Origin) -> ControlFlow<Ending>;

/// Continuations that run together on one target.
pub struct Batch<'t, 'a, 'r> {
    target: &'t mut Target<'a>,
    most_rows: usize,
    /// By sequence of the target.
    places: Vec<Option<Running<'r>>>,
    /// Who gets the first spare row of the next round.
    turn: usize,
}

/// A continuation under way.
struct Running<'r> {
    text: Text<'r>,
    draft_length: usize,
    policy: Option<DraftLength>,
    /// The decided token, then the draft of this round.
    rows: Vec<u32>,
    draft: Vec<Drafted>,
    ending: Option<Ending>,
    statistics: Statistics,
    first_at: Instant,
}

impl<'t, 'a, 'r> Batch<'t, 'a, 'r> {
    /// For up to `sequences` continuations, whose rounds have up to `most_rows` rows together.
    ///
    /// # Errors
    ///
    /// If there is no sequence, or not a row for each.
    pub fn new(target: &'t mut Target<'a>, sequences: usize, most_rows: usize) -> Result<Self> {
        if sequences == 0 || most_rows < sequences {
            let problem =
                format!("{most_rows} rows for {sequences} sequences: give at least one row to each");
            return Err(Error::setting("rows", problem));
        }
        Ok(Self { target, most_rows, places: (0..sequences).map(|_| None).collect(), turn: 0 })
    }

    /// Whether another continuation can begin.
    pub fn has_room(&self) -> bool {
        self.places.iter().any(Option::is_none)
    }

    /// Whether nothing runs.
    pub fn is_empty(&self) -> bool {
        self.places.iter().all(Option::is_none)
    }

    /// Runs `prompt` and decides its first token; gives the place by which [`step`](Self::step) will name it.
    ///
    /// # Errors
    ///
    /// As [`crate::decode`], and if there is no room. The others go on.
    pub fn add(&mut self, prompt: &[u32], settings: &'r DecodeSettings, sink: Sink<'r>) -> Result<usize> {
        let Some(place) = self.places.iter().position(Option::is_none) else {
            return Err(Error::setting("sequences", "all are running: wait until one has ended"));
        };
        settings.validate(self.target)?;
        let capacity = self.target.capacity();
        if prompt.len() >= capacity {
            return Err(Error::PromptTooLong { tokens: prompt.len(), capacity });
        }
        let mut text = Text::new(settings, None, prompt.len(), capacity - prompt.len(), sink)?;
        let start = Instant::now();
        self.target.select(place);
        let mut logits = self.target.prefill(prompt, settings.draft_length > 0)?;
        prompt.iter().for_each(|token| text.sampler.observe(*token));
        let first = text.choose(&mut logits.data)?;
        self.target.recycle(logits);
        let first_at = Instant::now();
        let ending = text.take(first, Origin::Verifier);
        self.places[place] = Some(Running {
            text,
            draft_length: settings.draft_length,
            policy: self.target.policy().cloned(),
            rows: vec![first],
            draft: Vec::new(),
            ending,
            statistics: Statistics {
                generations: 1,
                prompt_tokens: prompt.len(),
                first_token_seconds: (first_at - start).as_secs_f64(),
                ..Statistics::default()
            },
            first_at,
        });
        Ok(place)
    }

    /// One round of every continuation, in one run of the model. Gives those that have ended, with their places, which are free
    /// again.
    ///
    /// # Errors
    ///
    /// If logits are not finite.
    pub fn step(&mut self) -> Result<Vec<(usize, Decoded)>> {
        let ended = self.take_ended();
        if self.is_empty() {
            return Ok(ended);
        }
        self.draft();
        let running = self.places.iter().enumerate();
        let parts: Vec<(usize, &[u32])> =
            running.filter_map(|(place, one)| Some((place, one.as_ref()?.rows.as_slice()))).collect();
        let mut logits = self.target.forward_together(&parts)?;
        let width = logits.width;
        let mut rest = logits.data.as_mut_slice();
        for (place, one) in self.places.iter_mut().enumerate() {
            let Some(one) = one else { continue };
            let own;
            (own, rest) = rest.split_at_mut(one.rows.len() * width);
            let (text, statistics) = (&mut one.text, &mut one.statistics);
            let rule = Manner::default().rule;
            let settled = settle(rule, text, own, width, &one.draft, &mut |_| {}, statistics)?;
            self.target.select(place);
            self.target.commit(settled.committed);
            if let Some(policy) = &mut one.policy {
                policy.observe(one.draft.len(), settled.accepted);
            }
            one.ending = settled.ending;
            one.rows.clear();
            one.rows.push(settled.decided);
        }
        self.target.recycle(logits);
        Ok(ended)
    }

    /// Drafts of all continuations, as long as the rows of a round suffice.
    fn draft(&mut self) {
        let wanted: Vec<usize> =
            self.places.iter().map(|one| one.as_ref().map_or(0, Running::wanted)).collect();
        let running = self.places.iter().flatten().count();
        let shares = share_out(&wanted, self.most_rows - running, self.turn);
        self.turn += 1;
        for ((place, one), share) in self.places.iter_mut().enumerate().zip(shares) {
            let Some(one) = one else { continue };
            one.draft.clear();
            self.target.select(place);
            if share > 0 {
                let mut drafting = one.text.sampler.drafting();
                one.statistics.forwards += self.target.draft(one.rows[0], share, &mut drafting);
                one.draft = drafting.finish();
                one.rows.extend(one.draft.iter().map(|drafted| drafted.token));
            } else if one.draft_length.min(one.text.most_drafts()) == 0 {
                self.target.stop_drafting();
            }
        }
    }

    fn take_ended(&mut self) -> Vec<(usize, Decoded)> {
        let mut ended = Vec::new();
        for (place, one) in self.places.iter_mut().enumerate() {
            let Some((one, ending)) = one.take_if(|one| one.ending.is_some()).and_then(|one| {
                let ending = one.ending?;
                Some((one, ending))
            }) else {
                continue;
            };
            let mut statistics = one.statistics;
            statistics.committed_tokens = one.text.ids.len() - 1;
            statistics.decode_seconds = one.first_at.elapsed().as_secs_f64();
            self.target.select(place);
            self.target.forget();
            let (ids, origins) = (one.text.ids, one.text.origins);
            ended.push((place, Decoded { ids, origins, ending, statistics }));
        }
        ended
    }
}

impl Running<'_> {
    /// Tokens that its next draft should have.
    fn wanted(&self) -> usize {
        let most = self.draft_length.min(self.text.most_drafts());
        self.policy.as_ref().map_or(most, |policy| policy.choose(most))
    }
}

/// Shares `spare` rows out among those who want some, one by one, beginning with number `turn`.
fn share_out(wanted: &[usize], mut spare: usize, turn: usize) -> Vec<usize> {
    let mut shares = vec![0; wanted.len()];
    while spare > 0 && shares.iter().zip(wanted).any(|(share, wanted)| share < wanted) {
        for offset in 0..wanted.len() {
            let index = (turn + offset) % wanted.len();
            if spare > 0 && shares[index] < wanted[index] {
                shares[index] += 1;
                spare -= 1;
            }
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::share_out;

    #[test]
    fn rows_are_shared_out_evenly_and_in_turn() {
        assert_eq!(share_out(&[3, 3, 0], 4, 0), [2, 2, 0]);
        assert_eq!(share_out(&[3, 3, 3], 4, 0), [2, 1, 1]);
        assert_eq!(share_out(&[3, 3, 3], 4, 1), [1, 2, 1]);
        assert_eq!(share_out(&[1, 3], 9, 0), [1, 3]);
        assert_eq!(share_out(&[2, 2], 0, 0), [0, 0]);
        assert!(share_out(&[], 3, 0).is_empty());
    }
}
