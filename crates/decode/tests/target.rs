//! The target: pending rows, commits, going back, and what the drafter gets to see.

mod common;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use common::{config, random, spec};
use kernels::team::Team;
use model::Decoder;
use model::engine::{Engine, EngineWeights, Rows};
use objective::HeadKind::{Causal, Layer, Linear};
use objective::UnembeddingKind::Shared;
use objective::{Chooser, Drafter, Greedy, Objective, ParallelHeads, Verified};
use sakiyomi_decode::{DecodeSettings, Error, Target, decode};
use tensor::Params;

/// Heads that count what they are shown.
struct Watched {
    heads: ParallelHeads,
    calls: AtomicUsize,
    /// Positions taken in so far; the next rows must begin there.
    covered: AtomicUsize,
}

impl Drafter for Watched {
    fn longest(&self) -> usize {
        self.heads.longest()
    }

    fn taps(&self) -> Vec<usize> {
        self.heads.taps()
    }

    fn pack(&self, weights: &mut EngineWeights, params: &Params) {
        self.heads.pack(weights, params);
    }

    fn draft(
        &self,
        engine: &mut Engine,
        decoder: &Decoder,
        verified: &Verified,
        length: usize,
        chooser: &mut dyn Chooser,
    ) {
        self.calls.fetch_add(1, Relaxed);
        assert_eq!(
            self.covered.swap(verified.first_position + verified.rows, Relaxed),
            verified.first_position
        );
        assert!(verified.rows > 0);
        for states in verified.states {
            assert!(states.rows >= verified.rows, "every committed row is there");
        }
        let decided = usize::from(length > 0);
        assert_eq!(verified.tokens.len(), verified.first_position + verified.rows + decided);
        self.heads.draft(engine, decoder, verified, length, chooser);
    }
}

#[test]
fn the_drafter_sees_every_committed_position_once_and_nothing_in_plain_decoding() {
    for kind in [Layer, Linear, Causal] {
        let toy = random(&config(5, 3, 600), spec(kind, 4, Shared), 2);
        let watched =
            Watched { heads: toy.heads.clone(), calls: AtomicUsize::new(0), covered: AtomicUsize::new(0) };
        let weights = Target::pack(&toy.decoder, Some(&watched), &toy.params);
        let mut target =
            Target::new(&toy.decoder, Some(&watched), weights, Arc::new(Team::new(1)), 600).unwrap();
        let prompt = vec![1; 300];
        let mut settings = DecodeSettings { max_new_tokens: 40, ..DecodeSettings::default() };
        let run = |target: &mut Target, settings: &DecodeSettings| {
            decode(target, &prompt, settings, &mut |_, _| ControlFlow::Continue(())).unwrap()
        };
        let plain = run(&mut target, &settings);
        assert_eq!(watched.calls.load(Relaxed), 0);
        settings.draft_length = 3;
        let drafted = run(&mut target, &settings);
        // One call for the first chunk of the prompt, one for each round; the last may need none.
        let (calls, rounds) = (watched.calls.load(Relaxed), drafted.statistics.forwards);
        assert!(calls == rounds + 1 || calls == rounds, "{calls} calls in {rounds} rounds");
        assert!(watched.covered.load(Relaxed) > 300 && drafted.ids == plain.ids);
    }
}

fn bits(rows: &Rows) -> Vec<u32> {
    rows.data.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn rows_that_were_not_kept_leave_no_trace() {
    for kind in [Layer, Linear, Causal] {
        let toy = random(&config(11, 3, 64), spec(kind, 3, Shared), 2);
        let mut target = toy.target(1);
        target.prefill(&[1, 2, 3], true).unwrap();
        target.forward(&[4, 9, 9, 9]).unwrap();
        target.commit(1);
        target.forward(&[7; 9]).unwrap();
        // Never committed: the next rows stand where those stood.
        target.forward(&[5, 6]).unwrap();
        target.commit(2);
        target.forward(&[8, 8]).unwrap();
        target.commit(2);
        target.truncate(6);
        assert_eq!(target.length(), 6);
        let logits = target.forward(&[10]).unwrap();
        target.commit(1);

        let mut fresh = toy.target(1);
        let expected = fresh.prefill(&[1, 2, 3, 4, 5, 6, 10], true).unwrap();
        assert_eq!(bits(&logits), bits(&expected));
        let drafts = [&mut target, &mut fresh].map(|target| {
            let mut draft = Greedy::default();
            target.draft(3, 2, &mut draft);
            draft.tokens
        });
        assert!(drafts[0] == drafts[1] && drafts[0].len() == 2, "{drafts:?}");
    }
}

#[test]
fn heads_beside_the_model_do_not_touch_its_logits() {
    let toy = random(&config(11, 3, 600), spec(Linear, 3, Shared), 2);
    let prompt: Vec<u32> = (0..300).map(|place| place * 7 % 11).collect();
    let headless = Target::pack(&toy.decoder, None, &toy.params);
    let mut bare = Target::new(&toy.decoder, None, headless, Arc::new(Team::new(1)), 600).unwrap();
    let expected = bits(&bare.prefill(&prompt, true).unwrap());
    assert_eq!(bare.longest_draft(), 0);
    let mut target = toy.target(2);
    assert_eq!(bits(&target.prefill(&prompt, false).unwrap()), expected);
    assert_eq!(bits(&target.prefill(&prompt, true).unwrap()), expected);
}

#[test]
fn a_full_context_takes_no_more_rows() {
    let toy = random(&config(11, 2, 64), spec(Linear, 2, Shared), 2);
    assert_eq!(toy.heads.depths(), 2);
    let mut target = toy.target_of(1, 10);
    target.prefill(&[1; 8], false).unwrap();
    target.forward(&[2, 3]).unwrap();
    assert!(matches!(
        target.forward(&[2, 3, 4]),
        Err(Error::ContextFull { rows: 3, length: 8, capacity: 10 })
    ));
    assert!(matches!(target.forward(&[11]), Err(Error::UnknownToken { token: 11, place: 0, .. })));
    assert!(matches!(
        target.prefill(&[1; 11], false),
        Err(Error::PromptTooLong { tokens: 11, capacity: 10 })
    ));
}
