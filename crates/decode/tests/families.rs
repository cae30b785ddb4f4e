//! Every family decodes with drafts what it decodes without, and gives a row the same bits in any company.

mod common;

use std::ops::ControlFlow;
use std::path::Path;

use common::{random, spec};
use model::{DecoderConfig, Grid, checkpoint};
use objective::HeadKind::{Anticausal, Causal, Layer, Linear};
use objective::UnembeddingKind::{Replicated, Shared};
use sakiyomi_decode::{DecodeSettings, decode};

const FAMILIES: [&str; 9] =
    ["llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3", "smollm3", "gpt2", "llama with an image"];

/// A small decoder of a family: few tokens, so that random drafts are often right, and room for more keys than one chunk of
/// attention or one window holds.
fn config(family: &str) -> DecoderConfig {
    let (published, image) =
        family.split_once(" with ").map_or((family, None), |(name, with)| (name, Some(with)));
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures");
    let file = fixtures.join(format!("{published}.json"));
    let mut config = checkpoint::parse_config(&fs_err::read(file).unwrap()).unwrap();
    if image.is_some() {
        config.rope.scaling = None;
        config.variant.grid = Some(Grid { start: 3, width: 7 });
    }
    DecoderConfig { vocabulary: 5, layers: 4, context: 160, end_tokens: Vec::new(), ..config }
}

fn tokens(count: usize) -> Vec<u32> {
    (0..count as u32).map(|place| (place.wrapping_mul(2_654_435_761) >> 7) % 5).collect()
}

#[test]
fn drafts_change_no_token_of_any_family() {
    for family in FAMILIES {
        let mut accepted = 0;
        for (kind, unembedding) in
            [(Layer, Shared), (Linear, Shared), (Causal, Shared), (Anticausal, Shared), (Layer, Replicated)]
        {
            let toy = random(&config(family), spec(kind, 3, unembedding), 3);
            let mut target = toy.target(2);
            for prompt in [1, 11, 70].map(tokens) {
                let mut run = |draft_length: usize| {
                    let settings =
                        DecodeSettings { draft_length, max_new_tokens: 80, ..DecodeSettings::default() };
                    decode(&mut target, &prompt, &settings, &mut |_, _| ControlFlow::Continue(())).unwrap()
                };
                let plain = run(0);
                for draft_length in 1..=2 {
                    let drafted = run(draft_length);
                    let what =
                        format!("{family}, {kind:?}, prompt of {}, drafts of {draft_length}", prompt.len());
                    assert_eq!(drafted.ids, plain.ids, "{what}");
                    accepted += drafted.statistics.depths.iter().map(|depth| depth.accepted).sum::<usize>();
                }
            }
        }
        assert!(accepted > 0, "{family}: no draft was ever right, so nothing was tested");
    }
}

#[test]
fn a_row_of_any_family_has_the_same_bits_alone_and_in_company() {
    for family in FAMILIES {
        let toy = random(&config(family), spec(Linear, 2, Shared), 7);
        let row = |threads: usize, rows: usize, wanted: usize| {
            let mut target = toy.target(threads);
            let prompt = tokens(60);
            target.prefill(&prompt, false).unwrap();
            let logits = target.forward(&tokens(9)[..rows]).unwrap();
            logits.row(wanted).iter().map(|value| value.to_bits()).collect::<Vec<_>>()
        };
        for wanted in [0, 3, 5] {
            let expected = row(1, 9, wanted);
            for (threads, rows) in [(1, wanted + 1), (2, wanted + 1), (3, wanted + 2), (2, 9)] {
                assert_eq!(row(threads, rows, wanted), expected, "{family}, row {wanted} of {rows}");
            }
        }
    }
}

/// In one go, in pieces, or token by token: the keys in the caches are the same.
#[test]
fn a_prompt_of_any_family_may_come_in_pieces() {
    for family in FAMILIES {
        let toy = random(&config(family), spec(Linear, 2, Shared), 11);
        let last = |pieces: &[usize]| {
            let mut target = toy.target(1);
            let all = tokens(90);
            let mut logits = target.prefill(&all[..pieces[0]], false).unwrap();
            let mut done = pieces[0];
            for &piece in &pieces[1..] {
                logits = target.forward(&all[done..done + piece]).unwrap();
                target.commit(piece);
                done += piece;
            }
            logits.row(logits.rows - 1).iter().map(|value| value.to_bits()).collect::<Vec<_>>()
        };
        let whole = last(&[90]);
        assert_eq!(last(&[1, 70, 10, 9]), whole, "{family}");
        assert_eq!(last(&[65, 24, 1]), whole, "{family}");
    }
}
