//! Greedy decoding with drafts is greedy decoding without, bit for bit.

mod common;

use std::ops::ControlFlow;

use common::{Toy, config, plain_logits, planted, random, spec};
use objective::HeadKind::{Anticausal, Causal, Layer, Linear};
use objective::UnembeddingKind::{Replicated, Shared};
use objective::{Greedy, HeadKind, UnembeddingKind};
use sakiyomi_decode::{
    DecodeSettings, Decoded, Ending, Origin, SamplingSettings, Statistics, Target, bare, decode, verify,
};

const KINDS: [(HeadKind, UnembeddingKind); 6] = [
    (Layer, Shared),
    (Layer, Replicated),
    (Linear, Shared),
    (Linear, Replicated),
    (Causal, Shared),
    (Anticausal, Shared),
];

fn run(target: &mut Target, prompt: &[u32], settings: &DecodeSettings) -> Decoded {
    decode(target, prompt, settings, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

fn settings(draft_length: usize, max_new_tokens: usize) -> DecodeSettings {
    DecodeSettings { draft_length, max_new_tokens, ..DecodeSettings::default() }
}

/// Prompts of the given lengths, tokens below `vocabulary`.
fn prompts(vocabulary: u32, lengths: &[usize]) -> Vec<Vec<u32>> {
    let token = |place: usize| (place as u32).wrapping_mul(2_654_435_761) >> 7;
    lengths
        .iter()
        .map(|length| (0..*length).map(|place| token(place + length) % vocabulary).collect())
        .collect()
}

/// Decodes plainly and with every draft length; gives the statistics of the drafted runs.
fn assert_identical(
    toy: &Toy,
    threads: usize,
    prompts: &[Vec<u32>],
    settings: &DecodeSettings,
) -> Statistics {
    let mut target = toy.target(threads);
    let mut all = Statistics::default();
    for prompt in prompts {
        let plain = run(&mut target, prompt, settings);
        assert_eq!(plain.statistics.forwards, plain.ids.len() - 1);
        assert!(plain.origins.iter().all(|origin| *origin == Origin::Verifier));
        for draft_length in 1..=target.longest_draft() {
            let drafted = run(&mut target, prompt, &DecodeSettings { draft_length, ..settings.clone() });
            assert_eq!(drafted.ids, plain.ids, "prompt of {}, drafts of {draft_length}", prompt.len());
            assert_eq!(drafted.ending, plain.ending);
            assert_consistent(&drafted);
            all.merge(&drafted.statistics);
        }
    }
    all
}

/// Counts and origins say the same.
fn assert_consistent(decoded: &Decoded) {
    let statistics = &decoded.statistics;
    let drafted = decoded.origins.iter().filter_map(|origin| origin.drafted_depth());
    assert_eq!(drafted.count(), statistics.depths.iter().map(|depth| depth.accepted).sum::<usize>());
    assert_eq!(statistics.committed_tokens, decoded.ids.len() - 1);
    let given = decoded.origins[1..].iter().filter(|origin| **origin == Origin::Verifier).count();
    assert!(given <= statistics.forwards && given + 1 >= statistics.forwards);
}

#[test]
fn every_head_kind_whatever_the_drafts_are_worth() {
    for (kind, unembedding) in KINDS {
        // Five tokens, so that random drafts are often right, and often wrong, at every depth.
        let toy = random(&config(5, 4, 400), spec(kind, 4, unembedding), 3);
        let statistics = assert_identical(&toy, 1, &prompts(5, &[1, 2, 17]), &settings(0, 120));
        for (place, depth) in statistics.depths.iter().enumerate() {
            let rejected = depth.drafted - depth.accepted;
            assert!(
                depth.accepted > 0 && rejected > 0,
                "{kind:?} {unembedding:?} depth {}: {depth:?}",
                place + 1
            );
        }
        // A usual vocabulary, where random drafts are hardly ever right.
        let toy = random(&config(97, 4, 400), spec(kind, 4, unembedding), 4);
        let statistics = assert_identical(&toy, 1, &prompts(97, &[3]), &settings(0, 40));
        assert!(statistics.depths[0].drafted > statistics.depths[0].accepted);
    }
}

#[test]
fn prompts_that_cross_a_prefill_chunk() {
    for (kind, unembedding) in [(Layer, Shared), (Causal, Shared), (Linear, Shared), (Anticausal, Shared)] {
        let toy = random(&config(5, 3, 600), spec(kind, 3, unembedding), 8);
        let statistics = assert_identical(&toy, 2, &prompts(5, &[255, 256, 257, 513]), &settings(0, 24));
        assert!(statistics.depths[1].accepted > 0, "{kind:?}");
    }
}

#[test]
fn any_number_of_threads_gives_the_same_tokens() {
    for (kind, unembedding) in [(Layer, Replicated), (Causal, Shared)] {
        let toy = random(&config(5, 3, 400), spec(kind, 4, unembedding), 6);
        let prompts = prompts(5, &[1, 40]);
        let of = |threads| -> Vec<Vec<u32>> {
            let mut target = toy.target(threads);
            prompts.iter().map(|prompt| run(&mut target, prompt, &settings(3, 60)).ids).collect()
        };
        let one = of(1);
        for threads in [2, 3] {
            assert_eq!(of(threads), one);
            assert_identical(&toy, threads, &prompts, &settings(0, 60));
        }
    }
}

#[test]
fn good_heads_are_accepted_to_the_end() {
    let cycle: Vec<u32> = (0..20).map(|place| (place * 37 + 5) % 101).collect();
    for (kind, unembedding) in [
        (Linear, Shared),
        (Linear, Replicated),
        (Layer, Replicated),
        (Causal, Replicated),
        (Anticausal, Replicated),
    ] {
        let toy = planted(&cycle, &config(101, 5, 400), spec(kind, 5, unembedding));
        let statistics = assert_identical(&toy, 1, &[vec![cycle[3]], cycle[2..9].to_vec()], &settings(0, 61));
        assert!(
            statistics.depths.iter().all(|depth| depth.drafted > 0 && depth.accepted == depth.drafted),
            "{kind:?}"
        );
        // 60 tokens after the first, in rounds of five.
        let drafted = run(&mut toy.target(1), &[cycle[0]], &settings(4, 61));
        assert_eq!(drafted.statistics.forwards, 12);
        assert_eq!(drafted.statistics.tokens_per_forward(), Some(5.0));
        let expected: Vec<u32> = (1..=61).map(|place| cycle[place % cycle.len()]).collect();
        assert_eq!(drafted.ids, expected);
        let origins = [1, 2, 3, 4].map(Origin::Draft);
        assert_eq!(drafted.origins[1..5], origins);
        assert_eq!(drafted.origins[5], Origin::Verifier);
    }
}

#[test]
fn damaged_heads_change_nothing_but_speed() {
    let cycle: Vec<u32> = (0..20).collect();
    let mut toy = planted(&cycle, &config(64, 2, 300), spec(Linear, 4, Shared));
    toy.change(|params| {
        // The third head forgets half of the cycle, so that drafts are cut there half of the time.
        let id = params.find("heads.3.map.weight").unwrap();
        params.data_mut(id).chunks_exact_mut(32).for_each(|row| row[..10].fill(0.0));
    });
    let statistics = assert_identical(&toy, 1, &[vec![4]], &settings(0, 100));
    let depths = &statistics.depths;
    assert_eq!(depths[0].accepted, depths[0].drafted);
    assert!(depths[1].accepted > 0 && depths[1].accepted < depths[1].drafted);
    assert!(depths[2].drafted < depths[0].drafted, "depth 3 counts only rounds that reached it");
    assert_eq!(depths[2].accepted, depths[2].drafted);
}

#[test]
fn the_repetition_penalty_sees_the_drafts_before_a_row() {
    for (kind, unembedding) in [(Layer, Shared), (Linear, Shared)] {
        let toy = random(&config(11, 3, 400), spec(kind, 4, unembedding), 21);
        let plain = run(&mut toy.target(1), &[1, 2, 3], &settings(0, 80));
        let sampling = SamplingSettings { repetition_penalty: 1.3, ..SamplingSettings::default() };
        let penalised = DecodeSettings { sampling, ..settings(0, 80) };
        assert_ne!(run(&mut toy.target(1), &[1, 2, 3], &penalised).ids, plain.ids);
        let statistics = assert_identical(&toy, 1, &[vec![1, 2, 3], vec![7]], &penalised);
        assert!(statistics.depths[0].accepted > 0);
    }
    // A cycle under a penalty strong enough to leave it: the drafts repeat it, and are refused where it is left.
    let cycle: Vec<u32> = (0..10).collect();
    let mut toy = planted(&cycle, &config(64, 2, 300), spec(Linear, 4, Shared));
    let unembedding = toy.decoder.unembedding;
    toy.change(|params| params.data_mut(unembedding)[40 * 32..50 * 32].fill(0.1));
    let sampling = SamplingSettings { repetition_penalty: 1e6, ..SamplingSettings::default() };
    let statistics = assert_identical(&toy, 1, &[vec![0]], &DecodeSettings { sampling, ..settings(0, 30) });
    assert!(
        statistics.depths[0].accepted > 0 && statistics.depths[0].accepted < statistics.depths[0].drafted
    );
}

#[test]
fn end_tokens_inside_a_draft_cut_what_follows() {
    let cycle: Vec<u32> = (0..20).collect();
    let toy = planted(&cycle, &config(64, 2, 300), spec(Linear, 5, Shared));
    for end in 2..14 {
        let settings = DecodeSettings { end_tokens: vec![end], ..settings(0, 100) };
        assert_identical(&toy, 1, &[vec![0]], &settings);
        let drafted = run(&mut toy.target(1), &[0], &DecodeSettings { draft_length: 4, ..settings });
        assert_eq!(drafted.ids, (1..=end).collect::<Vec<u32>>());
        assert_eq!(drafted.ending, Ending::EndToken);
        // Token 1 comes with the prompt; each round gives five.
        assert_eq!(drafted.statistics.forwards, (end as usize - 1).div_ceil(5));
        assert_eq!(drafted.statistics.committed_tokens, end as usize - 1);
    }
}

#[test]
fn the_end_of_the_context_is_the_same() {
    for kind in [Layer, Linear, Causal, Anticausal] {
        let toy = random(&config(5, 4, 64), spec(kind, 4, Shared), 9);
        for length in [1, 40, 59, 60, 61, 62, 63] {
            let prompt = prompts(5, &[length]);
            assert_identical(&toy, 1, &prompt, &settings(0, 100));
            let drafted = run(&mut toy.target(1), &prompt[0], &settings(3, 100));
            assert_eq!(drafted.ids.len(), 64 - length);
            assert_eq!(drafted.ending, Ending::ContextFull);
            let most = run(&mut toy.target(1), &prompt[0], &settings(3, 64 - length));
            assert_eq!((most.ids, most.ending), (drafted.ids, Ending::MaxNewTokens));
        }
    }
}

#[test]
fn a_receiver_that_has_enough_ends_the_text_inside_a_draft() {
    let cycle: Vec<u32> = (0..20).collect();
    let toy = planted(&cycle, &config(64, 2, 300), spec(Linear, 5, Shared));
    let mut seen = Vec::new();
    let decoded = decode(&mut toy.target(1), &[0], &settings(4, 100), &mut |token, _| {
        seen.push(token);
        if token == 8 { ControlFlow::Break(Ending::Interrupted) } else { ControlFlow::Continue(()) }
    });
    let decoded = decoded.unwrap();
    assert_eq!((decoded.ids, decoded.ending), ((1..=8).collect(), Ending::Interrupted));
    assert_eq!(seen, (1..=8).collect::<Vec<u32>>());
    assert_eq!((decoded.statistics.forwards, decoded.statistics.committed_tokens), (2, 7));
}

#[test]
fn logits_and_drafts_depend_on_the_committed_tokens_alone() {
    for (kind, unembedding) in KINDS {
        let toy = random(&config(5, 4, 400), spec(kind, 4, unembedding), 12);
        let prompt = &prompts(5, &[9])[0];
        let ids = run(&mut toy.target(1), prompt, &settings(0, 60)).ids;
        let expected = plain_logits(toy.target(1), prompt, &ids);
        // The same tokens in rounds, each row's bits and each draft compared.
        let mut target = toy.target(2);
        target.prefill(prompt, true).unwrap();
        let mut done = 0;
        while done < ids.len() {
            let drafted = |target: &mut Target| {
                let mut draft = Greedy::default();
                target.draft(ids[done], 3, &mut draft);
                draft
            };
            let draft = drafted(&mut target);
            let committed = [prompt, &ids[..done]].concat();
            let mut fresh = toy.target(1);
            fresh.prefill(&committed, true).unwrap();
            assert_eq!(drafted(&mut fresh), draft, "{kind:?} {unembedding:?} after {done} tokens");
            let rows = [&ids[done..=done], &draft.tokens].concat();
            let logits = target.forward(&rows).unwrap();
            let right = rows.iter().zip(&ids[done..]).take_while(|(row, id)| row == id).count();
            for row in 0..right {
                let same = logits
                    .row(row)
                    .iter()
                    .zip(&expected[done + row])
                    .all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{kind:?} {unembedding:?}: logits after token {}", done + row);
            }
            target.recycle(logits);
            target.commit(right);
            done += right;
        }
    }
}

#[test]
fn verification_names_what_it_compared() {
    let toy = random(&config(5, 3, 200), spec(Layer, 3, Shared), 14);
    let mut steps = Vec::new();
    let prompts = prompts(5, &[2, 5]);
    let found =
        verify(&mut toy.target(1), &prompts, &settings(0, 30), &mut |done, all| steps.push((done, all)))
            .unwrap();
    assert!(found.identical());
    assert_eq!((found.prompts, found.compared_tokens), (2, 2 * 2 * 30));
    assert_eq!(found.plain.tokens_per_forward(), Some(1.0));
    assert_eq!(found.drafted.len(), 2);
    assert!(found.drafted[1].tokens_per_forward() > Some(1.0));
    assert_eq!(steps, (1..=6).map(|done| (done, 6)).collect::<Vec<_>>());
    let sampled = DecodeSettings {
        sampling: SamplingSettings { temperature: 1.0, ..SamplingSettings::default() },
        ..settings(0, 30)
    };
    assert!(verify(&mut toy.target(1), &prompts, &sampled, &mut |_, _| {}).is_err());
}

#[test]
fn the_bare_loop_gives_the_same_tokens() {
    let toy = random(&config(97, 3, 200), spec(Linear, 2, Shared), 15);
    let prompt = &prompts(97, &[12])[0];
    let mut target = toy.target(1);
    let plain = run(&mut target, prompt, &settings(0, 50));
    let (ids, statistics) = bare(&mut target, prompt, 50).unwrap();
    assert_eq!(ids, plain.ids);
    assert_eq!((statistics.forwards, statistics.new_tokens()), (49, 50));
    assert!(bare(&mut target, prompt, 189).is_err());
}
