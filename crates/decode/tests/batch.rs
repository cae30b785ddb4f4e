//! Several continuations at once: each is, to the bit, what it is alone.

mod common;

use std::ops::ControlFlow;

use common::{Toy, config, random, spec};
use kernels::packed::WeightType;
use objective::HeadKind::{Anticausal, Causal, Layer, Linear};
use objective::{Objective, UnembeddingKind};
use sakiyomi_decode::{
    Batch, DecodeSettings, Decoded, DraftLength, RoundCosts, SamplingSettings, Target, decode,
};

/// Prompts of all lengths, drafts of all lengths, some sampled, some that end early.
fn requests(vocabulary: u32) -> Vec<(Vec<u32>, DecodeSettings)> {
    (0..9_u32)
        .map(|index| {
            let prompt = (0..3 + index * 5).map(|place| (place * 7 + index * 3) % vocabulary).collect();
            let sampling = SamplingSettings {
                temperature: if index % 3 == 2 { 1.0 } else { 0.0 },
                seed: u64::from(index),
                ..SamplingSettings::default()
            };
            let settings = DecodeSettings {
                max_new_tokens: [40, 1, 25][index as usize % 3],
                draft_length: index as usize % 4,
                end_tokens: if index == 4 { vec![3, 8] } else { Vec::new() },
                sampling,
            };
            (prompt, settings)
        })
        .collect()
}

fn alone(target: &mut Target, requests: &[(Vec<u32>, DecodeSettings)]) -> Vec<Decoded> {
    let mut sink = |_, _| ControlFlow::Continue(());
    target.select(0);
    requests.iter().map(|(prompt, settings)| decode(target, prompt, settings, &mut sink).unwrap()).collect()
}

fn together(
    target: &mut Target,
    requests: &[(Vec<u32>, DecodeSettings)],
    sequences: usize,
    rows: usize,
) -> Vec<Decoded> {
    let mut sinks: Vec<_> = requests.iter().map(|_| |_, _| ControlFlow::Continue(())).collect();
    let mut batch = Batch::new(target, sequences, rows).unwrap();
    let mut waiting = requests.iter().zip(&mut sinks).enumerate();
    let mut at = vec![usize::MAX; sequences];
    let mut decoded: Vec<Option<Decoded>> = requests.iter().map(|_| None).collect();
    let mut more = true;
    while more || !batch.is_empty() {
        while more && batch.has_room() {
            let Some((index, ((prompt, settings), sink))) = waiting.next() else {
                more = false;
                break;
            };
            let place = batch.add(prompt, settings, sink).unwrap();
            at[place] = index;
        }
        for (place, one) in batch.step().unwrap() {
            assert!(decoded[at[place]].replace(one).is_none());
        }
    }
    decoded.into_iter().map(Option::unwrap).collect()
}

fn assert_equal(toy: &Toy, threads: usize, policy: Option<&DraftLength>) {
    let requests = requests(29);
    let mut target = toy.target(threads);
    let expected = alone(&mut target, &requests);
    for (sequences, rows) in [(1, 4), (2, 2), (3, 7), (5, 16), (9, 16)] {
        target.set_policy(policy.cloned());
        let decoded = together(&mut target, &requests, sequences, rows);
        target.set_policy(None);
        for (index, (one, alone)) in decoded.iter().zip(&expected).enumerate() {
            // Sampled drafts of another length draw other numbers: the distribution is the same, the tokens need not be.
            if requests[index].1.sampling.greedy() {
                assert_eq!(one.ids, alone.ids, "request {index}, {sequences} sequences, {rows} rows");
            }
            assert_eq!(one.ids.len() - 1, one.statistics.committed_tokens);
            if policy.is_none() && rows >= 4 * sequences {
                assert_eq!(one.ids, alone.ids);
                assert_eq!(one.statistics.forwards, alone.statistics.forwards);
                assert_eq!(one.statistics.depths, alone.statistics.depths);
            }
        }
    }
}

#[test]
fn each_continuation_is_what_it_is_alone() {
    for (index, weights) in WeightType::ALL.into_iter().enumerate() {
        for kind in [Layer, Linear, Causal, Anticausal] {
            let mut toy =
                random(&config(29, 4, 128), spec(kind, 4, UnembeddingKind::Shared), 7 + index as u64);
            toy.weights = Target::pack_as(weights, &toy.decoder, toy.heads.drafter(), &toy.params);
            assert_equal(&toy, 1 + index % 2, None);
        }
    }
}

#[test]
fn lengths_that_are_chosen_change_nothing() {
    for kind in [Layer, Linear, Causal, Anticausal] {
        let toy = random(&config(29, 4, 128), spec(kind, 4, UnembeddingKind::Shared), 11);
        // Costs at which drafts are now worth it and now are not.
        for seconds in [vec![1.0, 1.0, 1.0, 1.0], vec![1.0, 1.2, 1.4, 1.6], vec![1.0, 9.0, 9.0, 9.0]] {
            let policy = DraftLength::new(&RoundCosts { seconds }).unwrap();
            assert_equal(&toy, 2, Some(&policy));
            let mut target = toy.target(1);
            let prompt = [1, 5, 9];
            let settings = DecodeSettings { max_new_tokens: 100, ..DecodeSettings::default() };
            let mut sink = |_, _| ControlFlow::Continue(());
            let plain = decode(&mut target, &prompt, &settings, &mut sink).unwrap();
            target.set_policy(Some(policy));
            let settings = DecodeSettings { draft_length: 3, ..settings };
            for _ in 0..3 {
                assert_eq!(decode(&mut target, &prompt, &settings, &mut sink).unwrap().ids, plain.ids);
            }
        }
    }
}

#[test]
fn what_cannot_run_is_refused_and_the_others_go_on() {
    let toy = random(&config(29, 4, 32), spec(Linear, 3, UnembeddingKind::Shared), 5);
    let mut target = toy.target(1);
    assert!(Batch::new(&mut target, 0, 4).is_err());
    assert!(Batch::new(&mut target, 3, 2).is_err());
    let settings = DecodeSettings { draft_length: 2, max_new_tokens: 9, ..DecodeSettings::default() };
    let expected = alone(&mut target, &[(vec![4, 5], settings.clone())]).remove(0);
    let (mut first, mut second) = (|_, _| ControlFlow::Continue(()), |_, _| ControlFlow::Continue(()));
    let (mut third, mut fourth) = (|_, _| ControlFlow::Continue(()), |_, _| ControlFlow::Continue(()));
    let mut batch = Batch::new(&mut target, 2, 5).unwrap();
    let place = batch.add(&[4, 5], &settings, &mut first).unwrap();
    assert!(batch.add(&[], &settings, &mut second).is_err());
    assert!(batch.add(&[99], &settings, &mut third).is_err());
    assert!(batch.add(&[1; 40], &settings, &mut fourth).is_err());
    let mut ended = Vec::new();
    while !batch.is_empty() {
        ended.extend(batch.step().unwrap());
    }
    assert_eq!(ended.len(), 1);
    assert_eq!((ended[0].0, &ended[0].1.ids), (place, &expected.ids));
}
