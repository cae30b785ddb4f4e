//! Every type of weights: drafts change nothing, nor do threads.

mod common;

use std::ops::ControlFlow;

use common::{config, random, spec};
use kernels::packed::WeightType;
use objective::HeadKind::{Anticausal, Causal, Layer, Linear};
use objective::{Objective, UnembeddingKind};
use sakiyomi_decode::{DecodeSettings, Target, decode};

#[test]
fn drafts_and_threads_leave_the_text_alone() {
    for (index, weights) in WeightType::ALL.into_iter().enumerate() {
        for kind in [Layer, Linear, Causal, Anticausal] {
            let mut toy =
                random(&config(29, 4, 96), spec(kind, 4, UnembeddingKind::Shared), 3 + index as u64);
            toy.weights = Target::pack_as(weights, &toy.decoder, toy.heads.drafter(), &toy.params);
            let prompt: Vec<u32> = (0..13).map(|place| place * 7 % 29).collect();
            let mut texts = Vec::new();
            for threads in [1, 3] {
                let mut target = toy.target(threads);
                for draft_length in 0..=target.longest_draft() {
                    let settings =
                        DecodeSettings { draft_length, max_new_tokens: 60, ..DecodeSettings::default() };
                    let mut sink = |_, _| ControlFlow::Continue(());
                    texts.push(decode(&mut target, &prompt, &settings, &mut sink).unwrap().ids);
                }
            }
            assert!(texts.iter().all(|text| *text == texts[0]), "{weights} {kind:?}: {texts:?}");
        }
    }
}
