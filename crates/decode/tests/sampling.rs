//! Sampling with drafts, text by text. That its distribution is right is shown by the tests of `exactness`.

mod common;

use std::ops::ControlFlow;
use std::sync::Arc;

use common::{Toy, config, planted, random, spec};
use kernels::team::Team;
use objective::HeadKind::{Anticausal, Causal, Layer, Linear};
use objective::UnembeddingKind::{Replicated, Shared};
use sakiyomi_decode::{
    DecodeSettings, Decoded, Ending, Lookup, SamplingSettings, Statistics, Target, decode, verify,
};

const LOOKUP: Lookup = Lookup { longest: 5, most_matching: 3 };

fn run(target: &mut Target, prompt: &[u32], settings: &DecodeSettings) -> Decoded {
    decode(target, prompt, settings, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

fn settings(sampling: &SamplingSettings, draft_length: usize, max_new_tokens: usize) -> DecodeSettings {
    DecodeSettings { draft_length, max_new_tokens, sampling: sampling.clone(), end_tokens: Vec::new() }
}

fn looking_up(toy: &Toy, capacity: usize) -> Target<'_> {
    let weights = Arc::clone(&toy.weights);
    Target::new(&toy.decoder, Some(&LOOKUP), weights, Arc::new(Team::new(1)), capacity).unwrap()
}

/// Ways to sample, greedy among them.
fn ways() -> Vec<SamplingSettings> {
    let at = |temperature| SamplingSettings { temperature, seed: 4, ..SamplingSettings::default() };
    vec![
        at(0.0),
        at(1.0),
        SamplingSettings { repetition_penalty: 1.4, ..at(0.0) },
        SamplingSettings { top_k: 3, repetition_penalty: 1.2, ..at(0.7) },
        SamplingSettings { top_p: 0.8, min_p: 0.05, ..at(1.5) },
    ]
}

#[test]
fn tokens_that_were_looked_up_leave_the_text_of_a_seed_as_it_is() {
    let toy = random(&config(5, 3, 200), spec(Linear, 2, Shared), 31);
    for sampling in ways() {
        let mut all = Statistics::default();
        for prompt in [vec![1], vec![0, 1, 2, 3, 4, 0, 1, 2]] {
            let plain = run(&mut toy.target(1), &prompt, &settings(&sampling, 0, 90));
            for draft_length in 1..=LOOKUP.longest {
                let mut target = looking_up(&toy, 200);
                let drafted = run(&mut target, &prompt, &settings(&sampling, draft_length, 90));
                assert_eq!(drafted.ids, plain.ids, "{sampling:?}, drafts of {draft_length}");
                all.merge(&drafted.statistics);
            }
        }
        assert!(all.tokens_per_forward() > Some(1.05), "{sampling:?}");
    }
}

#[test]
fn a_text_that_repeats_itself_is_looked_up_to_the_end() {
    let cycle: Vec<u32> = (0..20).collect();
    let toy = planted(&cycle, &config(64, 2, 300), spec(Linear, 2, Shared));
    let greedy = SamplingSettings::default();
    let decoded = run(&mut looking_up(&toy, 300), &cycle, &settings(&greedy, 5, 61));
    assert_eq!(decoded.ids, (0..61).map(|place| place % 20).collect::<Vec<u32>>());
    // The prompt's run gives token 0, and all that follows stood there before: 60 tokens in rounds of six.
    assert_eq!(decoded.statistics.forwards, 10);
    let found =
        verify(&mut looking_up(&toy, 300), &[cycle], &settings(&greedy, 0, 40), &mut |_, _| {}).unwrap();
    assert!(found.identical() && found.drafted.len() == 5);
}

#[test]
fn equal_seeds_draw_equal_texts_and_counts_are_what_is_expected() {
    for (kind, unembedding) in
        [(Linear, Shared), (Linear, Replicated), (Layer, Shared), (Causal, Shared), (Anticausal, Shared)]
    {
        let toy = random(&config(7, 4, 400), spec(kind, 4, unembedding), 3);
        let mut all = Statistics::default();
        for sampling in ways() {
            for seed in 0..6 {
                let sampling = SamplingSettings { seed, ..sampling.clone() };
                let drafted = run(&mut toy.target(1), &[1, 2], &settings(&sampling, 3, 60));
                assert_eq!(run(&mut toy.target(1), &[1, 2], &settings(&sampling, 3, 60)).ids, drafted.ids);
                if !sampling.greedy() {
                    all.merge(&drafted.statistics);
                }
            }
        }
        for depth in &all.depths {
            // Rounds are not independent, but what is expected is given the round: the difference is a martingale.
            let allowed = 4.0 * (depth.drafted as f64 * 0.25).sqrt();
            let difference = depth.accepted as f64 - depth.expected;
            assert!(difference.abs() < allowed && depth.expected > 0.0, "{kind:?}: {depth:?}");
        }
    }
}

#[test]
fn sampled_drafts_end_where_the_text_ends() {
    let cycle: Vec<u32> = (0..20).collect();
    let toy = planted(&cycle, &config(64, 2, 48), spec(Linear, 5, Shared));
    // So cold that the cycle is followed.
    let cold = SamplingSettings { temperature: 0.01, ..SamplingSettings::default() };
    for end in 2..14 {
        let settings = DecodeSettings { end_tokens: vec![end], ..settings(&cold, 4, 40) };
        let drafted = run(&mut toy.target(1), &[0], &settings);
        assert_eq!((drafted.ids, drafted.ending), ((1..=end).collect(), Ending::EndToken));
        assert_eq!(drafted.statistics.forwards, (end as usize - 1).div_ceil(5));
    }
    let warm = SamplingSettings { temperature: 1.0, ..SamplingSettings::default() };
    for length in [1, 40, 46, 47] {
        let drafted = run(&mut toy.target(1), &vec![3; length], &settings(&warm, 4, 100));
        assert_eq!((drafted.ids.len(), drafted.ending), (48 - length, Ending::ContextFull));
    }
}
