//! Drafting with registers: they say what they learnt to say, whenever they run, and nothing but speed depends on it.

mod common;

use std::ops::ControlFlow;
use std::sync::Arc;

use common::{WithRegisters, config, plain_logits, registers};
use data::Batch;
use kernels::team::Team;
use model::engine::CacheType;
use model::{DecoderConfig, LayerSet, Variant, Window};
use objective::{Chooser, Greedy, Objective, Registers, RegistersSpec};
use sakiyomi_decode::{
    Batch as Together, DecodeSettings, Decoded, DraftLength, ExactnessSettings, Target, decode, exactness,
    positions_of_rounds, round_costs,
};
use tensor::{Arena, Tape};

fn settings(draft_length: usize, max_new_tokens: usize) -> DecodeSettings {
    DecodeSettings { draft_length, max_new_tokens, ..DecodeSettings::default() }
}

fn run(target: &mut Target, prompt: &[u32], settings: &DecodeSettings) -> Decoded {
    decode(target, prompt, settings, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

/// Plain models, and those in which a position is something else.
fn configs() -> [DecoderConfig; 3] {
    let plain = config(5, 2, 200);
    let learned = Variant { learned_positions: true, ..Variant::default() };
    let window = Some(Window { keys: 3, layers: LayerSet::Only(vec![0]) });
    let window = Variant { window, ..Variant::default() };
    [
        DecoderConfig { variant: learned, ..plain.clone() },
        DecoderConfig { variant: window, ..plain.clone() },
        plain,
    ]
}

#[test]
fn greedy_text_is_the_same_with_every_draft_length() {
    for config in configs() {
        let toy = registers(&config, 5);
        for (threads, cache) in [(1, CacheType::F32), (2, CacheType::Bf16)] {
            let mut target = toy.target(threads);
            target.hold_cache_as(cache);
            assert_eq!(target.longest_draft(), 4);
            for prompt in [&[1, 2][..], &[4], &[0; 40]] {
                let plain = run(&mut target, prompt, &settings(0, 80));
                for length in 1..=4 {
                    let drafted = run(&mut target, prompt, &settings(length, 80));
                    assert_eq!(drafted.ids, plain.ids, "drafts of {length}");
                    let depth = drafted.statistics.depths[0];
                    assert!(depth.drafted > 0 && depth.drafted > depth.accepted);
                }
            }
        }
    }
}

/// A run may have more rows beside its tokens than the cache has positions: they leave nothing there.
#[test]
fn a_cache_as_long_as_the_text_is_enough() {
    let toy = registers(&config(5, 2, 200), 9);
    for positions in 6..30 {
        let target = || {
            let (weights, team) = (Arc::clone(&toy.weights), Arc::new(Team::new(1)));
            Target::new(&toy.decoder, toy.registers.drafter(), weights, team, positions).unwrap()
        };
        let plain = run(&mut target(), &[3], &settings(0, positions - 1));
        for draft_length in [3, 8] {
            let drafted = run(&mut target(), &[3], &settings(draft_length, positions - 1));
            assert_eq!(drafted.ids, plain.ids, "{positions} positions, drafts of {draft_length}");
        }
    }
}

#[test]
fn the_end_of_the_context_is_the_same() {
    let toy = registers(&config(5, 2, 48), 5);
    for length in [1, 30, 43, 44, 45, 46, 47] {
        let prompt: Vec<u32> = (0..length).map(|place| place * 3 % 5).collect();
        let of = |draft_length| run(&mut toy.target(1), &prompt, &settings(draft_length, 100));
        let plain = of(0);
        assert_eq!(plain.ids.len(), 48 - length as usize);
        for draft_length in 1..=4 {
            assert_eq!(of(draft_length).ids, plain.ids, "prompt of {length}, drafts of {draft_length}");
        }
    }
}

/// Chooses 0 and keeps the distributions.
#[derive(Default)]
struct Seen(Vec<Vec<f32>>);

impl Chooser for Seen {
    fn choose(&mut self, logits: &mut [f32]) -> u32 {
        self.0.push(logits.to_vec());
        0
    }

    fn propose(&mut self, _token: u32) {
        panic!("registers say what they believe");
    }
}

/// Loss of the register with `offset` behind the last but `offset` token of `text`, as training sees it.
fn loss_in_training(toy: &WithRegisters, text: &[u32], offset: usize) -> f64 {
    let mut batch = Batch::single(text, 5);
    // The last tokens alone are targets, so that there is one register.
    batch.loss_mask.iter_mut().take(text.len() - offset).for_each(|target| *target = false);
    let spec = RegistersSpec { d_min: offset, d_max: offset, ..toy.registers.spec().clone() };
    let registers = Registers::find(spec, &toy.decoder, &toy.params).unwrap();
    let layout = registers.layout(&batch, 2);
    let mut arena = Arena::default();
    let mut tape = Tape::evaluation(&toy.params, &mut arena, &layout);
    let window = registers.window(std::slice::from_ref(&batch), 2);
    assert_eq!(window.targets[1], 1, "{window:?}");
    registers.loss(&mut tape, &toy.decoder, &batch, &window)[1].nll
}

#[test]
fn what_is_drafted_from_is_what_was_trained() {
    for config in configs() {
        let toy = registers(&config, 5);
        let text = [3, 1, 4, 1, 0, 2, 2, 4, 0, 1, 3, 2];
        for committed in [1, 5, 7] {
            let mut target = toy.target(1);
            let logits = target.prefill(&text[..committed], true).unwrap();
            target.recycle(logits);
            let mut seen = Seen::default();
            assert_eq!(target.draft(0, 4, &mut seen), 1, "after a prompt they run by themselves");
            for (place, logits) in seen.0.iter().enumerate() {
                let offset = place + 2;
                let text = &text[..committed + offset];
                let sum: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
                let loss = sum.ln() - f64::from(logits[text[text.len() - 1] as usize]);
                let expected = loss_in_training(&toy, text, offset);
                assert!((loss - expected).abs() < 1e-4, "offset {offset}: {loss}, in training {expected}");
            }
        }
    }
}

#[test]
fn drafts_and_logits_depend_on_the_committed_tokens_alone() {
    for config in configs() {
        let toy = registers(&config, 4);
        let prompt = [2, 0, 1];
        let ids = run(&mut toy.target(1), &prompt, &settings(0, 50)).ids;
        let expected = plain_logits(toy.target(1), &prompt, &ids);
        let mut target = toy.target(2);
        target.prefill(&prompt, true).unwrap();
        let (mut done, mut own_runs) = (0, 0);
        while done < ids.len() {
            let mut draft = Greedy::default();
            own_runs += target.draft(ids[done], 3, &mut draft);
            let mut fresh = toy.target(1);
            fresh.prefill(&[&prompt, &ids[..done]].concat(), true).unwrap();
            let mut again = Greedy::default();
            fresh.draft(ids[done], 3, &mut again);
            assert_eq!(again, draft, "after {done} tokens");
            let rows = [&ids[done..=done], &draft.tokens].concat();
            let logits = target.forward(&rows).unwrap();
            assert_eq!(logits.rows, rows.len());
            let right = rows.iter().zip(&ids[done..]).take_while(|(row, id)| row == id).count();
            for row in 0..right {
                let (found, expected) = (logits.row(row), &expected[done + row]);
                let same = found.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "logits after token {}", done + row);
            }
            target.recycle(logits);
            target.commit(right);
            done += right;
        }
        assert_eq!(own_runs, 1, "only the first draft needs a run of its own");
    }
}

#[test]
fn a_run_of_their_own_counts_as_a_run() {
    let toy = registers(&config(97, 2, 200), 4);
    let decoded = run(&mut toy.target(1), &[1], &settings(3, 40));
    let rounds = decoded.statistics.depths[0].drafted + usize::from(decoded.statistics.committed_tokens > 0);
    let rows = decoded.statistics.forwards;
    assert!(rows == rounds || rows == rounds + 1, "{rows} runs, {rounds} rounds that drafted, and one more");
}

#[test]
fn lengths_that_change_from_round_to_round_change_nothing() {
    let toy = registers(&config(5, 2, 300), 5);
    let plain = run(&mut toy.target(1), &[1], &settings(0, 200)).ids;
    for seconds in [[1.0, 1.01, 1.02, 1.03, 1.04], [1.0, 1.3, 1.6, 2.0, 2.5], [1.0, 9.0, 9.0, 9.0, 9.0]] {
        let mut target = toy.target(1);
        let costs = sakiyomi_decode::RoundCosts { seconds: seconds.to_vec() };
        target.set_policy(Some(DraftLength::new(&costs).unwrap()));
        assert_eq!(run(&mut target, &[1], &settings(4, 200)).ids, plain);
    }
    let mut target = toy.target(1);
    assert!(3 + positions_of_rounds(4, 1) <= 300);
    assert_eq!(round_costs(&mut target, &[1, 2, 3], 1).unwrap().seconds.len(), 5);
}

#[test]
fn several_continuations_at_once_are_each_as_alone() {
    let toy = registers(&config(5, 2, 200), 4);
    let prompts: [&[u32]; 3] = [&[1], &[2, 3], &[4; 9]];
    let alone: Vec<Vec<u32>> =
        prompts.iter().map(|prompt| run(&mut toy.target(1), prompt, &settings(0, 40)).ids).collect();
    let mut target = toy.target(2);
    let drafting = settings(3, 40);
    let mut sinks: Vec<_> = prompts.iter().map(|_| |_, _| ControlFlow::Continue(())).collect();
    let mut together = Together::new(&mut target, 3, 9).unwrap();
    let mut found = vec![Vec::new(); 3];
    for (prompt, sink) in prompts.iter().zip(&mut sinks) {
        together.add(prompt, &drafting, sink).unwrap();
    }
    while !together.is_empty() {
        for (place, decoded) in together.step().unwrap() {
            found[place] = decoded.ids;
        }
    }
    assert_eq!(found, alone);
}

#[test]
fn sampling_has_the_distribution_of_the_model() {
    let toy = registers(&config(11, 2, 96), 4);
    let settings = ExactnessSettings { draws: 1000, tokens_per_text: 24, ..ExactnessSettings::default() };
    let found = exactness(&mut toy.target(1), &[vec![1, 2], vec![5]], &settings, &mut |_, _| {}).unwrap();
    assert!(found.holds(), "{:?}", found.rejections().collect::<Vec<_>>());
    assert!(found.cases.iter().all(|case| case.drafted > 0));
}
