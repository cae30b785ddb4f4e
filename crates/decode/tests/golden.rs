//! Published-style checkpoints against the numbers of transformers: the same model code on the tape and on the engine, and
//! whole continuations token for token.

#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data::Vocabulary;
use kernels::argmax::argmax;
use kernels::team::Team;
use model::engine::{Engine, EngineWeights};
use model::{Decoder, DecoderConfig, Variant, checkpoint};
use objective::{HeadKind, HeadStart, HeadsSpec, Objective, ParallelHeads, UnembeddingKind};
use sakiyomi_decode::{DecodeSettings, GenerateSettings, Target, decode, generate};
use serde_json::Value;
use tensor::{Arena, Layout, Ops, Params, Tape};

struct Golden {
    folder: PathBuf,
    decoder: Decoder,
    params: Params,
    numbers: Value,
}

/// A decoder of every family, and every way in which its files differ.
const DECODERS: [&str; 13] = [
    "tiny-llama",
    "tiny-llama-tied",
    "tiny-llama-sharded-bf16",
    "tiny-mistral",
    "tiny-qwen2",
    "tiny-qwen2-untied",
    "tiny-qwen3",
    "tiny-qwen3-untied",
    "tiny-gemma2",
    "tiny-phi3",
    "tiny-smollm3",
    "tiny-gpt2",
    "tiny-gpt2-bare",
];

/// The styles of transformers 4 and 5.
const STYLES: [&str; 2] = ["config.json", "config.v5.json"];

/// A checkpoint with its golden numbers; none where the test data is missing.
fn load(name: &str) -> Option<Golden> {
    load_style(name, "config.json")
}

fn load_style(name: &str, style: &str) -> Option<Golden> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/models").join(name);
    if !folder.exists() {
        eprintln!("skipped: {} is not here", folder.display());
        return None;
    }
    let mut config = checkpoint::read_config(&folder).unwrap();
    if style != "config.json" {
        let bare_names = config.variant.bare_names;
        let other = checkpoint::parse_config(&fs_err::read(folder.join(style)).unwrap()).unwrap();
        config = DecoderConfig { variant: Variant { bare_names, ..other.variant.clone() }, ..other };
    }
    let params = checkpoint::read_params(&folder, &config).unwrap();
    let decoder = Decoder::find(&config, &params).unwrap();
    let numbers = serde_json::from_slice(&fs_err::read(folder.join("golden.json")).unwrap()).unwrap();
    Some(Golden { folder, decoder, params, numbers })
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

fn assert_near(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let distance = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(distance <= tolerance, "{what}: {distance} apart, tolerance {tolerance}");
}

/// The residual stream before the blocks and after each, the final norm, and the logits, `[rows, width]` each.
fn everything<O: Ops>(
    ops: &mut O,
    decoder: &Decoder,
    tokens: &[u32],
    value: impl Fn(&O, &O::Var) -> Vec<f32>,
) -> Vec<Vec<f32>> {
    let embedded = decoder.embed(ops, tokens);
    let mut values = vec![value(ops, &embedded)];
    let states = decoder.run_blocks(ops, embedded, 0..decoder.blocks.len(), &mut |ops, _, states| {
        values.push(value(ops, states));
    });
    let normed = decoder.final_norm(ops, &states);
    values.push(value(ops, &normed));
    let logits = decoder.logits(ops, normed);
    values.push(value(ops, &logits));
    values
}

fn on_the_tape(golden: &Golden, tokens: &[u32]) -> Vec<Vec<f32>> {
    let (layout, mut arena) = (Layout::single(tokens.len()), Arena::default());
    let mut tape = Tape::evaluation(&golden.params, &mut arena, &layout);
    everything(&mut tape, &golden.decoder, tokens, |tape, var| tape.value(var).to_vec())
}

fn on_the_engine(golden: &Golden, tokens: &[u32]) -> Vec<Vec<f32>> {
    let weights = Arc::new(EngineWeights::new(&golden.decoder, &golden.params));
    let mut engine = Engine::new(weights, Arc::new(Team::new(2)), golden.decoder.config.context);
    everything(&mut engine, &golden.decoder, tokens, |_, rows| rows.data.clone())
}

#[test]
fn every_family_has_the_golden_states_and_logits_on_both_implementers_and_in_both_styles() {
    for name in DECODERS {
        for style in STYLES {
            let Some(golden) = load_style(name, style) else { continue };
            for case in golden.numbers["cases"].as_array().unwrap() {
                let tokens = ids(&case["ids"]);
                for (way, values) in
                    [("tape", on_the_tape(&golden, &tokens)), ("engine", on_the_engine(&golden, &tokens))]
                {
                    let what = format!("{name}, {style}, {} tokens, {way}", tokens.len());
                    assert_golden(&golden, case, &values, &what);
                }
            }
        }
    }
}

fn assert_golden(golden: &Golden, case: &Value, values: &[Vec<f32>], what: &str) {
    let tolerance = |key: &str| golden.numbers["tolerances"][key].as_f64().unwrap();
    let config = &golden.decoder.config;
    let (logits, hidden) = values.split_last().unwrap();
    let expected = case["hidden"].as_array().unwrap();
    assert_eq!(hidden.len(), expected.len());
    for (states, expected) in hidden.iter().zip(expected) {
        let what = format!("{what}, {}", expected["after"]);
        let last = &states[states.len() - config.width..][..8];
        assert_near(&what, last, &floats(&expected["first8"]), tolerance("hidden_abs") as f32);
        let sum: f64 = states.iter().map(|value| f64::from(*value)).sum();
        let abs_sum: f64 = states.iter().map(|value| f64::from(value.abs())).sum();
        let allowed = tolerance("sum_rel_to_abs_sum") * expected["abs_sum"].as_f64().unwrap();
        assert!((sum - expected["sum"].as_f64().unwrap()).abs() <= allowed, "{what}: sum {sum}");
        assert!((abs_sum - expected["abs_sum"].as_f64().unwrap()).abs() <= allowed, "{what}: {abs_sum}");
    }
    let last = &logits[logits.len() - config.vocabulary..];
    assert_near(what, last, &floats(&case["last_logits"]), tolerance("logits_abs") as f32);
    let best: Vec<u32> = logits.chunks_exact(config.vocabulary).map(|row| argmax(row) as u32).collect();
    assert_eq!(best, ids(&case["argmax_all"]), "{what}");
}

/// Greedy continuations, with no heads and with untrained ones of two kinds at every draft length.
fn assert_continues(golden: &Golden, prompt: &[u32], expected: &[u32]) {
    let mut settings = DecodeSettings { max_new_tokens: expected.len(), ..DecodeSettings::default() };
    let team = Arc::new(Team::new(2));
    for kind in [HeadKind::Linear, HeadKind::Layer] {
        let spec = HeadsSpec { n: 4, kind, unembedding: UnembeddingKind::Shared, weights: Vec::new() };
        let mut params = golden.params.clone();
        let heads = ParallelHeads::attach(spec, &golden.decoder, &mut params, HeadStart::Finished).unwrap();
        let weights = Target::pack(&golden.decoder, heads.drafter(), &params);
        let context = golden.decoder.config.context;
        let mut target =
            Target::new(&golden.decoder, heads.drafter(), weights, Arc::clone(&team), context).unwrap();
        for draft_length in 0..=3 {
            settings.draft_length = draft_length;
            let decoded =
                decode(&mut target, prompt, &settings, &mut |_, _| ControlFlow::Continue(())).unwrap();
            assert_eq!(decoded.ids, expected, "{kind:?} heads, drafts of {draft_length}");
        }
    }
}

#[test]
fn every_family_continues_token_for_token() {
    for name in DECODERS {
        let Some(golden) = load(name) else { continue };
        for case in golden.numbers["cases"].as_array().unwrap() {
            assert_continues(&golden, &ids(&case["ids"]), &ids(&case["greedy_ids"]));
        }
    }
}

#[test]
fn stories260k_continues_its_prompts_token_for_token() {
    let Some(golden) = load("stories260k") else { return };
    let vocabulary = Vocabulary::load(&golden.folder).unwrap();
    let tolerance = golden.numbers["tolerances"]["logits_abs"].as_f64().unwrap() as f32;
    for case in golden.numbers["cases"].as_array().unwrap() {
        let text = case["prompt"].as_str().unwrap();
        let prompt = [vec![vocabulary.begin().unwrap()], vocabulary.encode(text).unwrap()].concat();
        assert_eq!(prompt, ids(&case["ids"]));
        for (way, values) in
            [("tape", on_the_tape(&golden, &prompt)), ("engine", on_the_engine(&golden, &prompt))]
        {
            let logits = values.last().unwrap();
            let last = &logits[logits.len() - golden.decoder.config.vocabulary..];
            assert_near(&format!("{text:?}, {way}"), last, &floats(&case["last_logits"]), tolerance);
        }
        assert_continues(&golden, &prompt, &ids(&case["greedy_ids"]));
        let continuation = continuation(&golden, &vocabulary, &prompt, ids(&case["greedy_ids"]).len());
        assert_eq!(format!("{text}{continuation}"), case["greedy_text"].as_str().unwrap());
    }
}

#[test]
fn stories260k_tells_its_story_from_the_first_token() {
    let Some(golden) = load("stories260k") else { return };
    let expected = &golden.numbers["from_bos"];
    let tokens = ids(&expected["ids"]);
    assert_continues(&golden, &tokens[..1], &tokens[1..]);
    let vocabulary = Vocabulary::load(&golden.folder).unwrap();
    let text = continuation(&golden, &vocabulary, &tokens[..1], tokens.len() - 1);
    assert_eq!(text, expected["text"].as_str().unwrap());
}

fn continuation(golden: &Golden, vocabulary: &Vocabulary, prompt: &[u32], new_tokens: usize) -> String {
    let weights = Target::pack(&golden.decoder, None, &golden.params);
    let context = golden.decoder.config.context;
    let mut target = Target::new(&golden.decoder, None, weights, Arc::new(Team::new(1)), context).unwrap();
    let decoding = DecodeSettings { max_new_tokens: new_tokens, ..DecodeSettings::default() };
    let settings = GenerateSettings { decoding, stop: Vec::new() };
    generate(&mut target, vocabulary, prompt, &settings, &mut |_| ControlFlow::Continue(())).unwrap().text
}
