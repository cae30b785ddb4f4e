//! Drafting with joint heads: what is drafted from is the joint distribution's conditionals, and nothing but speed depends on it.

mod common;

use std::ops::ControlFlow;
use std::sync::Arc;

use common::joint;
use data::Batch;
use kernels::team::Team;
use objective::{
    Chooser, Greedy, HeadKind, HeadStart, HeadsSpec, JointKind, Objective, ParallelHeads, UnembeddingKind,
};
use sakiyomi_decode::{DecodeSettings, Target, decode};
use tensor::{Arena, Layout, Params, Tape};

/// Chooses what it was told, and keeps the distributions.
struct Told {
    tokens: Vec<u32>,
    seen: Vec<Vec<f64>>,
}

impl Chooser for Told {
    fn choose(&mut self, logits: &mut [f32]) -> u32 {
        let exps: Vec<f64> = logits.iter().map(|x| f64::from(*x).exp()).collect();
        let sum: f64 = exps.iter().sum();
        self.seen.push(exps.iter().map(|e| e / sum).collect());
        self.tokens[self.seen.len() - 1]
    }

    fn propose(&mut self, _token: u32) {
        panic!("joint heads draw");
    }
}

#[test]
fn what_is_drafted_from_are_the_conditionals_of_the_joint() {
    for (kind, n, rank) in [(JointKind::Cp, 4, 3), (JointKind::Tree, 4, 3), (JointKind::Cp, 3, 1)] {
        let joint = joint(5, kind, n, rank);
        for first in 0..5 {
            let text = [first, (first + 2) % 5, 1, first / 2, 4];
            let mut target = joint.target();
            target.prefill(&text[..1], true).unwrap();
            let mut told = Told { tokens: text[2..].to_vec(), seen: Vec::new() };
            target.draft(text[1], n - 1, &mut told);
            assert_eq!(told.seen.len(), n - 1);
            // The losses of one window, the same tokens.
            let batch = Batch {
                batch: 1,
                length: 1,
                lookahead: n,
                tokens: text[..=n].to_vec(),
                segments: vec![0; n + 1],
                positions: vec![0],
                first_visible: vec![0],
                loss_mask: vec![true; n + 1],
                draws: vec![0],
            };
            let (layout, mut arena) = (Layout::single(1), Arena::default());
            let mut tape = Tape::evaluation(&joint.params, &mut arena, &layout);
            let window = joint.heads.window(std::slice::from_ref(&batch), n + 1);
            let losses = joint.heads.loss(&mut tape, &joint.decoder, &batch, &window);
            for (place, (q, loss)) in told.seen.iter().zip(&losses[2..=n]).enumerate() {
                assert!((q.iter().sum::<f64>() - 1.0).abs() < 1e-6);
                let (found, expected) = (-q[text[place + 2] as usize].ln(), loss.nll);
                assert!(
                    (found - expected).abs() < 1e-4,
                    "{kind:?} {rank} place {place}: {found}, {expected}"
                );
            }
        }
    }
}

#[test]
fn greedy_text_is_the_same_with_every_draft_length() {
    for (kind, rank) in [(JointKind::Cp, 4), (JointKind::Tree, 3), (JointKind::Cp, 1)] {
        let joint = joint(5, kind, 4, rank);
        let mut target = joint.target();
        let mut run = |draft_length| {
            let settings = DecodeSettings { draft_length, max_new_tokens: 80, ..DecodeSettings::default() };
            decode(&mut target, &[1, 2], &settings, &mut |_, _| ControlFlow::Continue(())).unwrap()
        };
        let plain = run(0);
        for draft_length in 1..=3 {
            let drafted = run(draft_length);
            assert_eq!(drafted.ids, plain.ids, "{kind:?} {rank} {draft_length}");
            assert!(drafted.statistics.depths[0].drafted > 0);
        }
    }
}

#[test]
fn rank_one_drafts_what_linear_heads_draft() {
    let joint = joint(23, JointKind::Cp, 4, 1);
    let mut params = joint.params.clone();
    for depth in 2..=4 {
        let map = joint.params.find(&format!("joint.{depth}.1.map.weight")).unwrap();
        params.add(format!("heads.{depth}.map.weight"), &[32, 32], joint.params.data(map).to_vec());
    }
    let spec =
        HeadsSpec { n: 4, kind: HeadKind::Linear, unembedding: UnembeddingKind::Shared, weights: Vec::new() };
    let fresh = ParallelHeads::attach(
        spec.clone(),
        &joint.decoder,
        &mut Params::clone(&joint.params),
        HeadStart::Finished,
    );
    assert_eq!(fresh.unwrap().spec(), &spec);
    let heads = ParallelHeads::find(spec, &joint.decoder, &params).unwrap();
    let weights = Target::pack(&joint.decoder, heads.drafter(), &params);
    let mut theirs =
        Target::new(&joint.decoder, heads.drafter(), weights, Arc::new(Team::new(1)), 200).unwrap();
    let mut ours = joint.target();
    for token in 0..23 {
        let draft = |target: &mut Target| {
            target.prefill(&[token, 3], true).unwrap();
            let mut draft = Greedy::default();
            target.draft(7, 3, &mut draft);
            draft.tokens
        };
        assert_eq!(draft(&mut ours), draft(&mut theirs));
    }
}
